"""Shapes, axes and parts of tensors. What only names axes anew costs nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._operators.comparison import differs_from_zero
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import (
    checked_axis,
    flattened,
    permutation,
    reshaped_sizes,
    shape_of,
    slice_bounds,
    split_sizes,
    squeezed,
    unsqueezed,
)
from pycnn.onnx._tensors import MOST_ELEMENTS, dtype_name
from pycnn.onnx._view import View

__all__ = ["expanded", "repeated"]

# ONNX's number of float32.
_FLOAT = 1
_LISTS = (13, 14, 19, 21, 23, 24, 25)


@operator("Identity", (1, 13, 14, 16, 19, 21, 23, 24, 25))
def _identity(values: Values, node: Node) -> Any:
    return values.get(node, 0)


@operator("Shape", (1, 13, 15, 19, 21, 23, 24, 25))
def _shape(values: Values, node: Node) -> np.ndarray:
    return shape_of(node, values.view(node, 0).shape)


@operator("Size", (1, 13, 19, 21, 23, 24, 25))
def _size(values: Values, node: Node) -> np.ndarray:
    return np.asarray(math.prod(values.view(node, 0).shape), np.int64)


@operator("Cast", (6, 9, 13, 19, 21, 23, 24, 25, 28), note="to float32, float16 and bool; others where they fold")
def _cast(values: Values, node: Node) -> View:
    to = dtype_name(node.integer("to", 0), f"onnx: {node}")
    view = values.view(node, 0)
    have = "bool" if view.logical else view.held or str(view.symbol.dtype)
    if view.held and to == "float32":
        return View(view.symbol, view.axes, view.shape)
    if (have, to) in (("bool", "float32"), ("float32", "bool")):
        symbol = view.symbol if have == "bool" else differs_from_zero(view.symbol)
        result = View(symbol, view.axes, view.shape)
        result.logical = to == "bool"
        return result
    if to == have:
        return view
    if have == "uint8" and to == "float32":
        return View(functional.normalize_image(view.symbol), view.axes, view.shape)
    if to == "float16" and have in ("float32", "float64"):
        # Rounded as the file says; what follows computes with float32 again.
        rounded = functional.cast(view.symbol, dtype="float16")
        return View(functional.cast(rounded, dtype=have), view.axes, view.shape)
    if to == "float64" and have == "float32" and values.is_only_output(node.outputs[0]):
        return View(functional.cast(view.symbol, dtype="float64"), view.axes, view.shape)
    raise node.unsupported(f"from {have} to {to} is not supported")


@operator("CastLike", (15, 19, 21, 23, 24, 25), note="of constants; of the same type")
def _cast_like(values: Values, node: Node) -> Any:
    value, like = values.get(node, 0), values.view(node, 1)
    dtype = str(like.symbol.dtype)
    if values.half == "some":
        raise node.unsupported("in a file that has float16 and wider types is not supported; Cast is")
    if isinstance(value, np.ndarray):
        if values.half == "all" and dtype != "uint8":
            return value.astype(np.float16)
        return value.astype("float32" if dtype == "float64" else dtype)
    if str(value.symbol.dtype) != dtype:
        raise node.unsupported(f"from {value.symbol.dtype} to {dtype} is not supported")
    return value


@operator("Reshape", (5, *_LISTS), note="shapes that fold to constants")
def _reshape(values: Values, node: Node) -> View | np.ndarray:
    view = values.view(node, 0)
    wanted = values.integers(node, 1, "shape") or ()
    sizes = reshaped_sizes(node, view.shape, _for_this_batch(values, view, wanted))
    if 0 in sizes and sizes != view.shape:
        return np.zeros(sizes, str(view.symbol.dtype))
    return view.reshaped(sizes)


def _for_this_batch(values: Values, view: View, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that begins with the number of images that the file was written for begins with that of this run."""
    if values.batch is None or not wanted or not view.shape:
        return wanted
    written, here = values.batch
    if written == here or wanted[0] != written or view.shape[0] != here:
        return wanted
    return (here, *wanted[1:])


@operator("Flatten", (1, 9, 11, 13, 21, 23, 24, 25))
def _flatten(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return view.reshaped(flattened(node, view.shape))


@operator("Transpose", (1, 13, 21, 23, 24, 25))
def _transpose(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    return view.transposed(permutation(node, view.rank))


def _axes(values: Values, node: Node) -> tuple[int, ...] | None:
    if node.version < 13:
        return node.integers("axes", ()) if "axes" in node.attributes else None
    return values.integers(node, 1, "axes")


@operator("Unsqueeze", (1, 11, 13, 21, 23, 24, 25))
def _unsqueeze(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    axes = _axes(values, node) or ()
    shape = unsqueezed(node, view.shape, axes)
    fresh = {axis % len(shape) for axis in axes}
    kept = [axis for axis in range(len(shape)) if axis not in fresh]
    return View(view.symbol, [kept[axis] for axis in view.axes], shape)


@operator("Squeeze", (1, 11, 13, 21, 23, 24, 25))
def _squeeze(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    axes = _axes(values, node)
    shape = squeezed(node, view.shape, axes)
    gone = [a for a, n in enumerate(view.shape) if n == 1] if axes is None else [a % view.rank for a in axes]
    if any(axis in gone for axis in view.axes):
        return view.reshaped(shape)
    kept = [axis for axis in range(view.rank) if axis not in gone]
    return View(view.symbol, [kept.index(axis) for axis in view.axes], shape)


@operator("Concat", (4, 11, 13))
def _concat(values: Values, node: Node) -> View:
    views = [values.view(node, index) for index in range(len(node.inputs))]
    axis = checked_axis(node, node.integer("axis", 1), views[0].rank)
    for view in views:
        others = [size for a, size in enumerate(view.shape) if a != axis]
        if others != [size for a, size in enumerate(views[0].shape) if a != axis]:
            raise node.bad_shape(f"shapes {views[0].shape} and {view.shape} cannot be joined along axis {axis}")
    widest = max(views, key=lambda view: len(view.axes))
    order = widest.axes if axis in widest.axes else (*widest.axes, axis)
    if sorted(order) != list(range(len(order))) or any(
        size != 1 and a not in order for view in views for a, size in enumerate(view.shape)
    ):
        order = tuple(range(widest.rank))
    result = functional.concat([view.in_order(order) for view in views], axis=order.index(axis))
    shape = list(views[0].shape)
    shape[axis] = sum(view.shape[axis] for view in views)
    return View(result, order, shape)


def cut(view: View, axis: int, begin: int, size: int) -> View:
    """Part of an axis."""
    if size == view.shape[axis]:
        return view
    order = view.axes if axis in view.axes else (*view.axes, axis)
    sizes = [-1] * len(order)
    begins = [0] * len(order)
    begins[order.index(axis)], sizes[order.index(axis)] = begin, size
    shape = [size if a == axis else n for a, n in enumerate(view.shape)]
    return View(functional.slice(view.in_order(order), begin=begins, size=sizes), order, shape)


def pick(view: View, axis: int, indices: Sequence[int]) -> View:
    """Some indices of an axis, in any order."""
    first, last = (indices[0], indices[-1]) if len(indices) else (0, -1)
    if list(indices) == list(range(first, last + 1)):
        return cut(view, axis, first, len(indices))
    order = (axis, *(a for a in view.axes if a != axis))
    shape = [len(indices) if a == axis else n for a, n in enumerate(view.shape)]
    return View(functional.take(view.in_order(order), indices=list(indices)), order, shape)


@operator("Split", (2, 11, 13, 18))
def _split(values: Values, node: Node) -> list[View]:
    view = values.view(node, 0)
    axis = checked_axis(node, node.integer("axis", 0), view.rank)
    given: tuple[int, ...] | None
    if node.version < 13:
        given = node.integers("split", ()) if "split" in node.attributes else None
    else:
        given = values.integers(node, 1, "split")
    sizes = split_sizes(node, view.shape[axis], given)
    return [cut(view, axis, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


@operator("Slice", (1, 10, 11, 13))
def _slice(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    lists: list[Any]
    if node.version < 10:
        lists = [*(node.integers(name, ()) for name in ("starts", "ends")), node.attributes.get("axes"), None]
    else:
        names = ("starts", "ends", "axes", "steps")
        lists = [values.integers(node, i + 1, name) for i, name in enumerate(names)]
    for axis, bounds in enumerate(slice_bounds(node, view.shape, lists)):
        if bounds != (0, view.shape[axis], 1):
            view = pick(view, axis, range(*bounds))
    return view


@operator("Gather", (1, 11, 13), note="constant indices")
def _gather(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    axis = checked_axis(node, node.integer("axis", 0), view.rank)
    indices = values.known(node, 1, "indices")
    size = view.shape[axis]
    if indices.dtype.kind != "i" or (indices.size and not -size <= indices.min() <= indices.max() < size):
        raise node.bad_argument(f"indices are out of range for an axis of {size}")
    part = pick(view, axis, [int(index) % size for index in indices.reshape(-1)])
    return part.reshaped((*view.shape[:axis], *indices.shape, *view.shape[axis + 1 :]))


def expanded(view: View, shape: Sequence[int]) -> View:
    """The view repeated along axes of size 1, and along further ones in front, to a shape."""
    shape = tuple(shape)
    if shape == view.shape:
        return view
    wide = view.widened(len(shape))
    order = (*(a for a in range(len(shape)) if a not in wide.axes), *wide.axes)
    return View(functional.broadcast(wide.in_order(order), shape=[shape[a] for a in order]), order, shape)


def repeated(view: View, counts: Sequence[int]) -> View:
    """The view so many times along each axis, one copy behind the other; more counts than axes are of new ones."""
    view = view.widened(max(view.rank, len(counts)))
    shape = tuple(count * size for count, size in zip(counts, view.shape, strict=True))
    if all(count == 1 or size == 1 for count, size in zip(counts, view.shape, strict=True)):
        return expanded(view, shape)
    for axis, count in enumerate(counts):
        if count != 1:
            front, size, behind = view.shape[:axis], view.shape[axis], view.shape[axis + 1 :]
            apart = view.reshaped((*front, 1, size, *behind))
            view = expanded(apart, (*front, count, size, *behind)).reshaped((*front, count * size, *behind))
    return view


@operator("Expand", (8, 13), note="shapes that fold to constants")
def _expand(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    wanted = values.integers(node, 1, "shape") or ()
    try:
        shape = np.broadcast_shapes(view.shape, wanted)
    except ValueError:
        raise node.bad_shape(f"{view.shape} cannot be repeated to {wanted}") from None
    return expanded(view, shape)


@operator("Tile", (6, 13), note="constant repeats")
def _tile(values: Values, node: Node) -> View | np.ndarray:
    view, counts = values.view(node, 0), values.integers(node, 1, "repeats") or ()
    if len(counts) != view.rank or any(count < 1 for count in counts):
        raise node.bad_argument(f"repeats {counts} for {view.rank} axes must be positive, one for each")
    shape = tuple(count * size for count, size in zip(counts, view.shape, strict=True))
    _check_count(node, shape)
    return np.zeros(shape, np.float32) if 0 in shape else repeated(view, counts)


def _check_count(node: Node, sizes: Sequence[int]) -> None:
    if math.prod(sizes) > MOST_ELEMENTS:
        raise node.bad_shape(f"a result of shape {tuple(sizes)} has more than {MOST_ELEMENTS} elements")


@operator("Pad", (2, 11, 13, 18, 19, 21, 23, 24, 25))
def _pad(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    value, axes = node.number("value", 0.0), tuple(range(view.rank))
    pads: tuple[int, ...] | None
    if node.version < 11:
        pads = node.integers("pads", ())
    else:
        pads = values.integers(node, 1, "pads") or ()
        given = values.optional_known(node, 2, "constant_value")
        value = 0.0 if given is None else shortest(given.reshape(()))
        if node.version >= 18 and node.has_input(3):
            axes = tuple(checked_axis(node, a, view.rank, "axes:") for a in values.integers(node, 3, "axes") or ())
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise node.bad_argument(f"{len(pads)} pads for axes {axes}")
    before, after = [0] * view.rank, [0] * view.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[len(axes) + i]
    mode = node.text("mode", "constant")
    if mode != "constant":
        return _mirror(node, view, mode, before, after)
    for axis in range(view.rank):
        # Negative pads cut.
        begin, end = max(0, -before[axis]), max(0, -after[axis])
        if begin + end > view.shape[axis]:
            raise node.bad_shape(f"pads {pads} leave nothing of {view.shape}")
        view = cut(view, axis, begin, view.shape[axis] - begin - end)
    before, after = [max(0, n) for n in before], [max(0, n) for n in after]
    if not any(before) and not any(after):
        return view
    lacking = [a for a in range(view.rank) if a not in view.axes and before[a] + after[a]]
    order = (*view.axes, *lacking)
    shape = [b + n + a for b, n, a in zip(before, view.shape, after, strict=True)]
    result = functional.pad(
        view.in_order(order), before=[before[a] for a in order], after=[after[a] for a in order], value=value
    )
    return View(result, order, shape)


_MOST_INDICES = 2**24


def _mirror(node: Node, view: View, mode: str, before: list[int], after: list[int]) -> View:
    if mode not in ("reflect", "edge", "wrap"):
        raise node.bad_argument(f"mode {mode!r} is not one of constant, reflect, edge, wrap")
    for axis in range(view.rank):
        size = view.shape[axis]
        if not before[axis] and not after[axis]:
            continue
        if size + before[axis] + after[axis] > _MOST_INDICES or size < 1:
            raise node.bad_shape(f"pads {before[axis]} and {after[axis]} of an axis of {size}")
        index = np.arange(-before[axis], size + after[axis])
        if mode == "edge":
            index = index.clip(0, size - 1)
        elif mode == "wrap":
            index = index % size
        else:
            period = max(1, 2 * (size - 1))
            index = np.minimum(index % period, period - index % period) if size > 1 else index * 0
        view = pick(view, axis, [int(i) for i in index])
    return view


@operator("DepthToSpace", (1, 11, 13, 28))
def _depth_to_space(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    n, c, h, w = _image_shape(node, view)
    b = node.integer("blocksize", 0)
    if b < 1 or c % (b * b):
        raise node.bad_argument(f"blocksize {b} for {c} channels")
    if _block_order(node) == "DCR":
        parts = view.reshaped((n, b, b, c // (b * b), h, w)).transposed((0, 3, 4, 1, 5, 2))
    else:
        parts = view.reshaped((n, c // (b * b), b, b, h, w)).transposed((0, 1, 4, 2, 5, 3))
    return parts.reshaped((n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth", (1, 13, 28))
def _space_to_depth(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    n, c, h, w = _image_shape(node, view)
    b = node.integer("blocksize", 0)
    if b < 1 or h % b or w % b:
        raise node.bad_argument(f"blocksize {b} for an image ({h}, {w})")
    order = (0, 3, 5, 1, 2, 4) if _block_order(node) == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = view.reshaped((n, c, h // b, b, w // b, b)).transposed(order)
    return parts.reshaped((n, c * b * b, h // b, w // b))


def _block_order(node: Node) -> str:
    """Whether the channels of a block's pixels lie apart, "DCR", or next to each other, "CRD"."""
    mode = node.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise node.bad_argument(f"mode {mode!r} is not one of DCR, CRD")
    return mode


def _image_shape(node: Node, view: View) -> tuple[int, int, int, int]:
    if view.rank != 4:
        raise node.bad_shape(f"input {view.shape}, expected (N, C, H, W)")
    n, c, h, w = view.shape
    return n, c, h, w


@operator("QuantizeLinear", (10, 13, 19, 21, 23, 24, 25, 28), note="in front of DequantizeLinear; both fold to nothing")
def _quantize(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    result = View(view.symbol, view.axes, view.shape)
    result.scale = _scale(values, node)
    return result


def _scale(values: Values, node: Node) -> tuple[Any, ...]:
    zero = values.optional_known(node, 2, "the zero point")
    parts = (values.known(node, 1, "the scale"), np.zeros(()) if zero is None else zero)
    return (
        node.integer("axis", 1),
        node.integer("block_size", 0),
        *(part.astype(np.float64).tolist() for part in parts),
    )


@operator("DequantizeLinear", (10, 13, 19, 21, 23, 24, 25, 28), note="of constants, and behind QuantizeLinear")
def _dequantize(values: Values, node: Node) -> View:
    if isinstance(values.get(node, 0), np.ndarray):
        # Else it would have been computed while loading.
        values.known(node, 1, "the scale of a constant")
        values.optional_known(node, 2, "the zero point of a constant")
    view = values.view(node, 0)
    if view.scale is None:
        raise node.unsupported("the input is neither constant nor the result of QuantizeLinear")
    if view.scale != _scale(values, node):
        raise node.unsupported("scale and zero point are not those of the QuantizeLinear in front of it")
    if node.integer("output_dtype", 0) not in (0, _FLOAT):
        raise node.unsupported("results of another element type than float32 are not supported")
    return View(view.symbol, view.axes, view.shape)
