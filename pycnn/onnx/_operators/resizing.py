"""Resizing images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import checked_axis
from pycnn.onnx._view import IMAGE, View

__all__: list[str] = []

_GRIDS = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
_ROUNDINGS = {"round_prefer_floor": "round_down", "round_prefer_ceil": "round_up", "floor": "floor", "ceil": "ceil"}

_VERSION_10 = ("floor", "ceil")


def _scales(values: Values, node: Node, index: int) -> tuple[float, ...]:
    array = values.optional_known(node, index, "scales")
    return () if array is None else tuple(shortest(value) for value in array.reshape(-1))


@operator("Upsample", (7, 9), note="of images; mode nearest or linear")
def _upsample(values: Values, node: Node) -> View:
    given = node.attributes.get("scales", ()) if node.version < 9 else _scales(values, node, 1)
    scales = tuple(shortest(value) for value in given)
    return _resized(values, node, range(len(scales)), scales, (), "asymmetric", "floor")


@operator("Resize", (10, 11, 13, 18, 19), note="of images; mode nearest or linear, without antialias and cropping")
def _resize(values: Values, node: Node) -> View:
    if node.version < 11:
        scales = _scales(values, node, 1)
        # Version 10 takes the pixel behind where it shrinks, and the one in front where it enlarges.
        shrinks = [scale < 1.0 for scale in scales]
        if len(scales) == 4 and shrinks[2] != shrinks[3] and node.text("mode", "nearest") == "nearest":
            rows, columns = (*scales[:3], 1.0), (1.0, 1.0, 1.0, scales[3])
            result = _resized(values, node, range(4), rows, (), "asymmetric", _VERSION_10[shrinks[2]])
            return _resized_view(node, result, range(4), columns, (), "asymmetric", _VERSION_10[shrinks[3]])
        return _resized(values, node, range(len(scales)), scales, (), "asymmetric", _VERSION_10[any(shrinks)])
    if node.integer("antialias", 0):
        raise node.unsupported("antialias is not supported")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("keep_aspect_ratio_policy is not supported")
    grid = node.text("coordinate_transformation_mode", "half_pixel")
    rounding = node.text("nearest_mode", "round_prefer_floor")
    if grid not in _GRIDS or rounding not in _ROUNDINGS:
        raise node.unsupported(f"{grid} and {rounding}; supported are {', '.join(_GRIDS)}; {', '.join(_ROUNDINGS)}")
    scales, sizes = _scales(values, node, 2), values.integers(node, 3, "sizes") or ()
    if bool(scales) == bool(sizes):
        raise node.bad_argument("either scales or sizes must be given")
    axes = node.integers("axes", range(len(scales or sizes)))
    return _resized(values, node, axes, scales, sizes, grid, _ROUNDINGS[rounding])


def _resized(
    values: Values,
    node: Node,
    axes: Sequence[int],
    scales: Sequence[float],
    sizes: Sequence[int],
    grid: str,
    rounding: str,
) -> View:
    return _resized_view(node, values.view(node, 0), axes, scales, sizes, grid, rounding)


def _resized_view(
    node: Node,
    view: View,
    axes: Sequence[int],
    scales: Sequence[float],
    sizes: Sequence[int],
    grid: str,
    rounding: str,
) -> View:
    mode = node.text("mode", "nearest")
    if view.rank != 4 or mode not in ("nearest", "linear"):
        raise node.unsupported(f"mode {mode} for {view.shape}; supported are nearest and linear for images")
    places = [checked_axis(node, axis, 4, "axes:") for axis in axes]
    if len(set(places)) != len(places) or len(places) != len(scales or sizes):
        raise node.bad_argument(f"{len(scales or sizes)} scales or sizes for axes {tuple(axes)}")
    if any(not 0 < scale < math.inf for scale in scales) or any(not 0 < size < 2**31 for size in sizes):
        raise node.bad_argument(f"scales {tuple(scales)} or sizes {tuple(sizes)} are out of range")
    wanted = dict(zip(places, scales or sizes, strict=True))
    for axis in (0, 1):
        if (
            wanted.get(axis, 1) not in ((1.0,) if scales else (1, view.shape[axis]))
            and wanted[axis] != view.shape[axis]
        ):
            raise node.unsupported("resizing batch or channels is not supported")
    if grid == "align_corners" and any(scale * view.shape[axis] % 1 for axis, scale in wanted.items()):
        # Programs disagree whether the last pixel then lies on the last one.
        raise node.unsupported(f"align_corners with scales {tuple(scales)} that give no whole size of {view.shape}")
    how: dict[str, Any] = {"mode": "bilinear" if mode == "linear" else "nearest", "grid": grid}
    if mode == "nearest":
        how["rounding"] = rounding
    x = view.in_order(IMAGE)
    if scales:
        result = functional.resize(x, scale_factor=(wanted.get(2, 1.0), wanted.get(3, 1.0)), **how)
    else:
        size = (int(wanted.get(2, view.shape[2])), int(wanted.get(3, view.shape[3])))
        result = functional.resize(x, size=size, **how)
    n, h, w, c = result.shape
    return View(result, IMAGE, (n, c, h, w))
