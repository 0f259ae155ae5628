"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import as_images, from_images
from pycnn.onnx._registry import Values
from pycnn.onnx._view import IMAGE, View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import affine, own, spread, translates

__all__: list[str] = []


def _window(r: Reader, a: Any, axes: int, **more: Any) -> dict[str, Any]:
    kernel = spread(a.kernel_size, axes)
    return {
        "kernel_shape": kernel,
        "strides": spread(a.stride, axes) if a.stride else kernel,
        "pads": spread(a.padding, axes) * 2,
        "ceil_mode": int(a.ceil_mode),
        **more,
    }


@translates("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.self]) - 2
    return r.emit("MaxPool", [a.self], **_window(r, a, axes, dilations=spread(a.dilation, axes)))


@translates("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.self]) - 2
    window = _window(r, a, axes, count_include_pad=int(a.count_include_pad))
    divisor = getattr(a, "divisor_override", None)
    if divisor is None:
        return r.emit("AveragePool", [a.self], **window)
    if a.ceil_mode:
        raise r.unsupported("divisor_override with ceil_mode is not supported")
    mean = r.emit("AveragePool", [a.self], **{**window, "count_include_pad": 1})
    return affine(r, mean, scale=math.prod(window["kernel_shape"]) / divisor)


@translates("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_avg_pool(r: Reader, a: Any) -> str:
    size = [int(n) for n in a.output_size]
    if set(size) == {1}:
        return r.emit("GlobalAveragePool", [a.self])
    if len(size) == 3:
        return r.emit("AveragePool", [a.self], **_equal_windows(r, a.self, size))
    return r.emit("aten.adaptive_avg_pool2d", [a.self], output_size=[1, *size][-2:])


@own("aten.adaptive_avg_pool2d")
def _own_adaptive_avg_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    x = as_images(node, view).in_order(IMAGE)
    result = functional.adaptive_avg_pool2d(x, output_size=node.integers("output_size", ()))
    return from_images(result, view.rank)


@translates("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(r: Reader, a: Any) -> list[str | None]:
    size, shape = [int(n) for n in a.output_size], r.result_shapes()[0]
    if set(size) == {1}:
        return [r.emit("GlobalMaxPool", [a.self], shape), None]
    return [r.emit("MaxPool", [a.self], shape, **_equal_windows(r, a.self, size)), None]


def _equal_windows(r: Reader, name: str, size: Sequence[int]) -> dict[str, Any]:
    """Windows that lie side by side, so many along each axis."""
    given = r.shapes[name][2:]
    if r.images_of(name) - {0}:
        raise r.unsupported("images must lie along the first axis")
    if any(n % m for n, m in zip(given, size, strict=True)):
        raise r.unsupported(f"an output of {tuple(size)} of an image {tuple(given)}: sizes must be divisible")
    kernel = [n // m for n, m in zip(given, size, strict=True)]
    return {"kernel_shape": kernel, "strides": kernel}
