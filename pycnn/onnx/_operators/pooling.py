"""Pooling: windows, and whole images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import VOLUME, Windows, as_images, from_images, part
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._view import IMAGE, View

__all__: list[str] = []


Pool = Callable[[Node, Any, Windows], Any]


def _pooled(node: Node, view: View, pool: Pool) -> View:
    """Pool rows, images or volumes.

    Args:
        node: The node.
        view: (N, C, L), (N, C, H, W) or (N, C, D, H, W).
        pool: Pools images (N, H, W, C). Volumes are pooled by planes, and the results along the depth.
    """
    kernel = node.integers("kernel_shape", ())
    if view.rank != 5:
        images = as_images(node, view)
        return from_images(
            pool(node, images.in_order(IMAGE), Windows.of(node, images.shape[2:], kernel, view.rank)), view.rank
        )
    n, c, d, h, w = view.shape
    if 0 in view.shape[1:]:
        raise node.bad_shape(f"input {view.shape} has an empty axis")
    plane, depth = part(node, (1, 2)), part(node, (0,))
    windows = Windows.of(plane, (h, w), plane.integers("kernel_shape", ()), 4)
    planes = functional.reshape(view.in_order(VOLUME), shape=(-1, h, w, c))
    planes = pool(node, planes, windows)
    rows, columns = planes.shape[1:3]
    along = Windows.of(depth, (1, d), depth.integers("kernel_shape", ()), 3).turned()
    stacks = pool(node, functional.reshape(planes, shape=(-1, d, rows * columns, c)), along)
    result = functional.reshape(stacks, shape=(-1, stacks.shape[1], rows, columns, c))
    return View(result, VOLUME, (n, c, *result.shape[1:4]))


def _is_usual(windows: Windows) -> bool:
    """Whether each side is padded by at most half of the window, as pooling here has it."""
    (top, bottom, left, right), (kh, kw) = windows.padding, windows.kernel
    return 2 * max(top, bottom) <= kh and 2 * max(left, right) <= kw


def _counts(node: Node, windows: Windows, size: Sequence[int], *, ceil: bool) -> tuple[int, int]:
    counts = windows.count(0, size[0], ceil=ceil), windows.count(1, size[1], ceil=ceil)
    if min(counts) < 1:
        raise node.bad_shape(f"windows {windows.kernel} do not fit into an image {size} with pads {windows.padding}")
    return counts


def _check_cells(node: Node, windows: Windows, size: Sequence[int], counts: Sequence[int]) -> None:
    """Refuse windows without a cell inside the image, of which programs give one 0, one NaN, one infinity."""
    for axis, name in ((0, "height"), (1, "width")):
        before, after = windows.padding[2 * axis : 2 * axis + 2]
        step, gap = windows.stride[axis], windows.dilation[axis]
        if (gap <= size[axis] and max(before, after) < windows.reach(axis)) or not before + after:
            continue
        if counts[axis] > _MOST_ONES:
            raise node.bad_shape(f"{counts[axis]} windows with pads {windows.padding} are too many")
        begins = np.arange(counts[axis], dtype=np.int64) * step - before
        first = np.where(begins < 0, -(begins // gap), 0)
        if ((first >= windows.kernel[axis]) | (begins + first * gap >= size[axis])).any():
            raise node.unsupported(
                f"a window has no cell inside the image along its {name}: kernel {windows.kernel}, dilation "
                f"{windows.dilation}, stride {windows.stride}, pads {windows.padding}, image {tuple(size)}"
            )


def _pad(images: Any, padding: tuple[int, int, int, int], value: float) -> Any:
    top, bottom, left, right = padding
    return functional.pad(images, before=(0, top, left, 0), after=(0, bottom, right, 0), value=value)


@operator("MaxPool", (1, 8, 10, 11, 12, 22), note="without Indices")
def _max_pool(values: Values, node: Node) -> View:
    if node.wants(1):
        raise node.unsupported("Indices are not supported")
    view = values.view(node, 0)
    if str(view.symbol.dtype) != "uint8":
        return _pooled(node, view, _max)
    result = _pooled(node, View(functional.normalize_image(view.symbol), view.axes, view.shape), _max)
    result.held = "uint8"
    return result


def _max(node: Node, x: Any, windows: Windows) -> Any:
    size, padding, ceil = x.shape[1:3], windows.padding, bool(node.integer("ceil_mode", 0))
    counts = _counts(node, windows, size, ceil=ceil)
    _check_cells(node, windows, size, counts)
    if not _is_usual(windows):
        x, padding, ceil = _pad(x, windows.padding_to(size, counts), -np.inf), (0, 0, 0, 0), False
    return functional.max_pool2d(
        x,
        kernel_size=windows.kernel,
        stride=windows.stride,
        padding=padding,
        dilation=windows.dilation,
        ceil_mode=ceil,
    )


@operator("AveragePool", (1, 7, 10, 11, 19, 22))
def _average_pool(values: Values, node: Node) -> View:
    return _pooled(node, values.view(node, 0), _average)


def _average(node: Node, x: Any, windows: Windows) -> Any:
    ceil, include = bool(node.integer("ceil_mode", 0)), bool(node.integer("count_include_pad", 0))
    size, channels = x.shape[1:3], x.shape[3]
    counts = _counts(node, windows, size, ceil=ceil)
    if _is_usual(windows) and windows.dilation == (1, 1):
        return functional.avg_pool2d(
            x,
            kernel_size=windows.kernel,
            stride=windows.stride,
            padding=windows.padding,
            ceil_mode=ceil,
            count_include_pad=include,
        )
    if not include:
        _check_cells(node, windows, size, counts)
    _check_ones(node, windows, channels, counts)
    # Sums by a convolution of ones, each times the reciprocal of how many cells count.
    rows, columns = (_cells(windows, axis, size[axis], counts[axis], include) for axis in (0, 1))
    share = (1.0 / np.outer(rows, columns)).astype(np.float32)
    return functional.multiply(_sums(x, windows, counts), share[None, :, :, None])


def _sums(x: Any, windows: Windows, counts: Sequence[int]) -> Any:
    """The sum of each window, by a convolution of ones."""
    channels = x.shape[3]
    return functional.conv2d(
        x,
        np.ones((channels, *windows.kernel, 1), np.float32),
        stride=windows.stride,
        padding=windows.padding_to(x.shape[1:3], counts),
        dilation=windows.dilation,
        groups=channels,
    )


_MOST_ONES = 2**24


def _check_ones(node: Node, windows: Windows, channels: int, counts: tuple[int, int]) -> None:
    """Refuse windows whose filter of ones, or whose count of cells, would take much memory."""
    steps = max(count * size for count, size in zip(counts, windows.kernel, strict=True))
    if max(channels * windows.kernel[0] * windows.kernel[1], steps, counts[0] * counts[1]) > _MOST_ONES:
        raise node.unsupported(f"{counts} windows {windows.kernel} over {channels} channels are too many or too large")


def _cells(windows: Windows, axis: int, size: int, count: int, include: bool) -> np.ndarray:
    """How many cells of each window count along an axis."""
    before, after = windows.padding[2 * axis : 2 * axis + 2]
    low, high = (-before, size + after) if include else (0, size)
    cells = np.arange(count)[:, None] * windows.stride[axis] - before
    cells = cells + np.arange(windows.kernel[axis])[None, :] * windows.dilation[axis]
    return ((cells >= low) & (cells < high)).sum(axis=1)


def pooled(symbol: Any, view: View) -> View:
    """One number for each channel of each image, as a view with further axes of size 1."""
    return View(symbol, (0, 1), (*view.shape[:2], *(1,) * (view.rank - 2)))


def _flat_images(node: Node, view: View) -> Any:
    """(N, H, W, C) of whatever lies behind the channels."""
    if view.rank < 3:
        raise node.bad_shape(f"input {view.shape}, expected (N, C, ...) of 3 axes at least")
    n, c, *sizes = view.shape
    return view.reshaped((n, c, math.prod(sizes[:-1]), sizes[-1])).in_order(IMAGE)


@operator("GlobalAveragePool", (1, 22))
def _global_average_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return pooled(functional.global_avg_pool2d(_flat_images(node, view)), view)


@operator("GlobalMaxPool", (1, 22))
def _global_max_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return pooled(functional.global_max_pool2d(_flat_images(node, view)), view)


@operator("LpPool", (2, 11, 18, 22))
def _lp_pool(values: Values, node: Node) -> View:
    return _pooled(node, values.view(node, 0), _lp)


def _lp(node: Node, x: Any, windows: Windows) -> Any:
    p, ceil = _norm(node), bool(node.integer("ceil_mode", 0))
    counts = _counts(node, windows, x.shape[1:3], ceil=ceil)
    if windows.dilation == (1, 1) and not ceil:
        return functional.lp_pool2d(
            x, norm_type=p, kernel_size=windows.kernel, stride=windows.stride, padding=windows.padding
        )
    _check_ones(node, windows, x.shape[3], counts)
    sums = _sums(functional.power(functional.abs(x), p), windows, counts)
    return functional.power(sums, 1.0 / p)


def _norm(node: Node) -> float:
    p = node.integer("p", 2)
    if p < 1:
        raise node.bad_argument(f"p {p} must be at least 1")
    return float(p)


@operator("GlobalLpPool", (2, 22))
def _global_lp_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    p, x = _norm(node), _flat_images(node, view)
    sums = functional.sum(functional.power(functional.abs(x), p), axes=(1, 2))
    return pooled(functional.power(sums, 1.0 / p), view)
