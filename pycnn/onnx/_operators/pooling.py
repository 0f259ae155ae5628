"""Pooling: windows, and whole images."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import Windows, as_images, from_images
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._view import IMAGE, View

__all__: list[str] = []


def _windows(node: Node, view: View, images: View) -> Windows:
    kernel = node.integers("kernel_shape", ())
    return Windows.of(node, images.shape[2:], kernel, view.rank)


def _is_usual(windows: Windows) -> bool:
    """Whether each side is padded by at most half of the window, as pooling here has it."""
    (top, bottom, left, right), (kh, kw) = windows.padding, windows.kernel
    return 2 * max(top, bottom) <= kh and 2 * max(left, right) <= kw


def _counts(node: Node, windows: Windows, size: tuple[int, ...], *, ceil: bool) -> tuple[int, int]:
    counts = windows.count(0, size[0], ceil=ceil), windows.count(1, size[1], ceil=ceil)
    if min(counts) < 1:
        raise node.bad_shape(f"windows {windows.kernel} do not fit into an image {size} with pads {windows.padding}")
    return counts


def _pad(images: Any, padding: tuple[int, int, int, int], value: float) -> Any:
    top, bottom, left, right = padding
    return functional.pad(images, before=(0, top, left, 0), after=(0, bottom, right, 0), value=value)


@operator("MaxPool", (1, 8, 10, 11, 12, 22), note="without Indices")
def _max_pool(values: Values, node: Node) -> View:
    if node.wants(1):
        raise node.unsupported("Indices are not supported")
    view = values.view(node, 0)
    images = as_images(node, view)
    windows, ceil = _windows(node, view, images), bool(node.integer("ceil_mode", 0))
    x, padding = images.in_order(IMAGE), windows.padding
    counts = _counts(node, windows, images.shape[2:], ceil=ceil)
    if not _is_usual(windows):
        x, padding, ceil = _pad(x, windows.padding_to(images.shape[2:], counts), -np.inf), (0, 0, 0, 0), False
    result = functional.max_pool2d(
        x,
        kernel_size=windows.kernel,
        stride=windows.stride,
        padding=padding,
        dilation=windows.dilation,
        ceil_mode=ceil,
    )
    return from_images(result, view.rank)


@operator("AveragePool", (1, 7, 10, 11, 19, 22))
def _average_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    images = as_images(node, view)
    windows, ceil = _windows(node, view, images), bool(node.integer("ceil_mode", 0))
    include = bool(node.integer("count_include_pad", 0))
    x = images.in_order(IMAGE)
    counts = _counts(node, windows, images.shape[2:], ceil=ceil)
    if _is_usual(windows) and windows.dilation == (1, 1):
        result = functional.avg_pool2d(
            x,
            kernel_size=windows.kernel,
            stride=windows.stride,
            padding=windows.padding,
            ceil_mode=ceil,
            count_include_pad=include,
        )
        return from_images(result, view.rank)
    _check_ones(node, windows, images.shape[1], counts)
    # Sums by a convolution of ones, each times the reciprocal of how many cells count.
    rows, columns = (_cells(windows, axis, images.shape[2 + axis], counts[axis], include) for axis in (0, 1))
    sums = functional.conv2d(
        x,
        np.ones((images.shape[1], *windows.kernel, 1), np.float32),
        stride=windows.stride,
        padding=windows.padding_to(images.shape[2:], counts),
        dilation=windows.dilation,
        groups=images.shape[1],
    )
    with np.errstate(divide="ignore"):
        share = (1.0 / np.outer(rows, columns)).astype(np.float32)
    return from_images(functional.multiply(sums, share[None, :, :, None]), view.rank)


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


@operator("GlobalAveragePool", (1, 22))
def _global_average_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return pooled(functional.global_avg_pool2d(as_images(node, view).in_order(IMAGE)), view)


@operator("GlobalMaxPool", (1, 22))
def _global_max_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return pooled(functional.global_max_pool2d(as_images(node, view).in_order(IMAGE)), view)


@operator("LpPool", (2, 11, 18, 22))
def _lp_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    images = as_images(node, view)
    windows, ceil = _windows(node, view, images), bool(node.integer("ceil_mode", 0))
    p, x = _norm(node), images.in_order(IMAGE)
    counts = _counts(node, windows, images.shape[2:], ceil=ceil)
    if windows.dilation == (1, 1) and not ceil:
        result = functional.lp_pool2d(
            x, norm_type=p, kernel_size=windows.kernel, stride=windows.stride, padding=windows.padding
        )
        return from_images(result, view.rank)
    _check_ones(node, windows, images.shape[1], counts)
    sums = functional.conv2d(
        functional.power(functional.abs(x), p),
        np.ones((images.shape[1], *windows.kernel, 1), np.float32),
        stride=windows.stride,
        padding=windows.padding_to(images.shape[2:], counts),
        dilation=windows.dilation,
        groups=images.shape[1],
    )
    return from_images(functional.power(sums, 1.0 / p), view.rank)


def _norm(node: Node) -> float:
    p = node.integer("p", 2)
    if p < 1:
        raise node.bad_argument(f"p {p} must be at least 1")
    return float(p)


@operator("GlobalLpPool", (2, 22))
def _global_lp_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    p, x = _norm(node), as_images(node, view).in_order(IMAGE)
    sums = functional.sum(functional.power(functional.abs(x), p), axes=(1, 2))
    return pooled(functional.power(sums, 1.0 / p), view)
