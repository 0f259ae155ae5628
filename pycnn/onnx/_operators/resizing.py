"""Resizing images, and any other axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._operators.normalization import channels_last
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import checked_axis
from pycnn.onnx._view import View

__all__: list[str] = []

_GRIDS = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
_CROPS = "tf_crop_and_resize"
_ROUNDINGS = {"round_prefer_floor": "round_down", "round_prefer_ceil": "round_up", "floor": "floor", "ceil": "ceil"}
_MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}

_VERSION_10 = ("floor", "ceil")


@dataclass(frozen=True)
class _Axis:
    """What becomes of one axis.

    Attributes:
        size: Of the result; None where it follows from the scale.
        scale: Of the formulas; None where it follows from the size.
        region: Begin and end of what is cut out, as shares of the axis.
    """

    size: int | None = None
    scale: float | None = None
    region: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class _How:
    """What all axes share: arguments of `functional.resize`, or of `functional.crop_and_resize` where it crops."""

    options: Mapping[str, Any] = field(default_factory=dict)
    crops: bool = False


def _scales(values: Values, node: Node, index: int) -> tuple[float, ...]:
    array = values.optional_known(node, index, "scales")
    return () if array is None else tuple(shortest(value) for value in array.reshape(-1))


@operator("Upsample", (7, 9))
def _upsample(values: Values, node: Node) -> View:
    given = node.attributes.get("scales", ()) if node.version < 9 else _scales(values, node, 1)
    how = _How(_options(node, "asymmetric", "floor"))
    return _resized(node, values.view(node, 0), _scaled(node, values.view(node, 0), given, "asymmetric"), how)


@operator("Resize", (10, 11, 13, 18, 19), note="constant scales, sizes and regions")
def _resize(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    if node.version < 11:
        return _resize_10(node, view, _scales(values, node, 1))
    grid = node.text("coordinate_transformation_mode", "half_pixel")
    rounding = node.text("nearest_mode", "round_prefer_floor")
    if grid not in (*_GRIDS, _CROPS) or rounding not in _ROUNDINGS:
        known = f"{', '.join(_GRIDS)}, {_CROPS}; {', '.join(_ROUNDINGS)}"
        raise node.bad_argument(f"{grid} and {rounding} are not both among {known}")
    scales, sizes = _scales(values, node, 2), values.integers(node, 3, "sizes") or ()
    if bool(scales) == bool(sizes):
        raise node.bad_argument("either scales or sizes must be given")
    named = node.integers("axes", range(view.rank))
    places = [checked_axis(node, axis, view.rank, "axes:") for axis in named]
    count = len(scales or sizes)
    if len(set(places)) != len(places) or len(places) != count:
        raise node.bad_argument(f"{count} scales or sizes for axes {tuple(named)}")
    if scales:
        axes = _scaled(node, view, dict(zip(places, scales, strict=True)), grid)
    else:
        axes = _sized(node, view, dict(zip(places, sizes, strict=True)))
    crops = grid == _CROPS
    if crops:
        axes = _cropped(values, node, axes, places)
    antialias = bool(node.integer("antialias", 0))
    options = _options(node, grid, _ROUNDINGS[rounding])
    if antialias and (crops or options["mode"] == "nearest"):
        raise node.unsupported(f"antialias with {grid} and mode {node.text('mode', 'nearest')} is not supported")
    options["exclude_outside"] = bool(node.integer("exclude_outside", 0)) and options["mode"] != "nearest"
    if crops:
        del options["grid"]
        options["value"] = node.number("extrapolation_value", 0.0)
    else:
        options["antialias"] = antialias
    return _resized(node, view, axes, _How(options, crops))


def _options(node: Node, grid: str, rounding: str) -> dict[str, Any]:
    mode = node.text("mode", "nearest")
    if mode not in _MODES:
        raise node.bad_argument(f"mode {mode!r} is not one of {', '.join(_MODES)}")
    options: dict[str, Any] = {"mode": _MODES[mode], "grid": grid}
    if mode == "nearest":
        options["rounding"] = rounding
    if mode == "cubic":
        options["cubic"] = node.number("cubic_coeff_a", -0.75)
    return options


def _resize_10(node: Node, view: View, scales: Sequence[float]) -> View:
    """Version 10 takes the pixel behind where it shrinks, and the one in front where it enlarges."""
    axes = _scaled(node, view, scales, "asymmetric")
    for shrinks in (False, True):
        some = {axis: what for axis, what in axes.items() if ((what.scale or 1.0) < 1.0) == shrinks}
        if some:
            view = _resized(node, view, some, _How(_options(node, "asymmetric", _VERSION_10[shrinks])))
    return view


def _scaled(node: Node, view: View, scales: Sequence[float] | Mapping[int, float], grid: str) -> dict[int, _Axis]:
    given = scales if isinstance(scales, Mapping) else dict(enumerate(map(shortest, scales)))
    if not isinstance(scales, Mapping) and len(given) != view.rank:
        raise node.bad_argument(f"{len(given)} scales for a tensor {view.shape}")
    if any(not 0 < scale < math.inf for scale in given.values()):
        raise node.bad_argument(f"scales {tuple(given.values())} are out of range")
    if grid == "align_corners" and any(scale * view.shape[axis] % 1 for axis, scale in given.items()):
        # Programs disagree whether the last pixel then lies on the last one.
        raise node.unsupported(
            f"align_corners with scales {tuple(given.values())} that give no whole size of {view.shape}"
        )
    if grid == _CROPS and any(scale != 1.0 for scale in given.values()):
        # Programs disagree whether the scale is that of the image or of the region.
        raise node.unsupported(f"{_CROPS} with scales; sizes are supported")
    return {axis: _Axis(scale=scale) for axis, scale in given.items() if scale != 1.0}


def _sized(node: Node, view: View, sizes: Mapping[int, int]) -> dict[int, _Axis]:
    if any(not 0 < size < 2**31 for size in sizes.values()):
        raise node.bad_argument(f"sizes {tuple(sizes.values())} are out of range")
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return {axis: _Axis(size=size) for axis, size in sizes.items() if size != view.shape[axis]}
    if policy not in ("not_larger", "not_smaller"):
        raise node.bad_argument(f"keep_aspect_ratio_policy {policy!r} is not one of stretch, not_larger, not_smaller")
    choose = min if policy == "not_larger" else max
    scale = choose(size / view.shape[axis] for axis, size in sizes.items())
    return {axis: _Axis(math.floor(scale * view.shape[axis] + 0.5), scale) for axis in sizes if scale != 1.0}


def _cropped(values: Values, node: Node, axes: Mapping[int, _Axis], places: Sequence[int]) -> dict[int, _Axis]:
    array = values.optional_known(node, 1, "roi")
    shares = [] if array is None else [shortest(value) for value in array.reshape(-1)]
    if len(shares) != 2 * len(places) or not all(map(math.isfinite, shares)):
        raise node.bad_argument(f"roi {tuple(shares)} must be two finite numbers for each of {len(places)} axes")
    regions = dict(zip(places, zip(shares[: len(places)], shares[len(places) :], strict=True), strict=True))
    result = {}
    for axis in places:
        what = axes.get(axis, _Axis())
        if axis in axes or regions[axis] != (0.0, 1.0):
            result[axis] = replace(what, region=regions[axis])
    return result


def _resized(node: Node, view: View, axes: Mapping[int, _Axis], how: _How) -> View:
    if not axes:
        return view
    if 0 in view.shape[1:]:
        raise node.unsupported(f"tensors without elements, {view.shape}, are not supported")
    is_image = view.rank > 2 and any(axis >= 2 for axis in axes)
    order = channels_last(view) if is_image else tuple(range(view.rank))
    x, shape = view.in_order(order), [view.shape[axis] for axis in order]
    names = {place: axes[axis] for place, axis in enumerate(order) if axis in axes}
    # Rows and columns of images together, other axes one at a time.
    pair: tuple[int, ...] = (view.rank - 3, view.rank - 2) if is_image and view.rank > 3 else ()
    steps = [pair] if any(place in names for place in pair) else []
    for places in [*steps, *((place,) for place in names if place not in pair)]:
        first, behind = places[0], places[-1] + 1
        width = shape[first + 1] if len(places) == 2 else 1
        columns = names.get(places[-1], _Axis(size=width)) if len(places) == 2 else _Axis(size=1)
        image = _reshaped(x, (math.prod(shape[:first]), shape[first], width, math.prod(shape[behind:])))
        result = _image(node, image, names.get(first, _Axis(size=shape[first])), columns, how)
        shape[first:behind] = result.shape[1 : 1 + len(places)]
        x = _reshaped(result, shape)
    return View(x, order, [shape[order.index(axis)] for axis in range(view.rank)])


def _reshaped(x: Any, shape: Sequence[int]) -> Any:
    """The numbers with other sizes, of which the first follows from the rest."""
    return x if tuple(x.shape) == tuple(shape) else functional.reshape(x, shape=(-1, *shape[1:]))


def _image(node: Node, image: Any, rows: _Axis, columns: _Axis, how: _How) -> Any:
    size = []
    for given, axis in zip(image.shape[1:3], (rows, columns), strict=True):
        if axis.size is not None:
            size.append(axis.size)
        else:
            size.append(math.floor(given * axis.scale) if axis.scale is not None else given)
    if min(size) < 1:
        raise node.bad_shape(f"nothing is left of an image ({image.shape[1]}, {image.shape[2]})")
    if how.crops:
        region = (rows.region[0], columns.region[0], rows.region[1], columns.region[1])
        return functional.crop_and_resize(image, region=region, size=size, **how.options)
    if rows.scale is None and columns.scale is None:
        return functional.resize(image, size=size, **how.options)
    pairs = zip(size, image.shape[1:3], (rows, columns), strict=True)
    scales = [axis.scale if axis.scale is not None else new / old for new, old, axis in pairs]
    return functional.resize(image, size=size, scale_factor=scales, **how.options)
