"""What operators do to shapes: sizes of results, axes counted from the front, parts of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.onnx._network import Node

__all__ = [
    "AXES_ARE_INPUT",
    "checked_axes",
    "checked_axis",
    "flattened",
    "legacy_shape",
    "permutation",
    "reshaped_sizes",
    "shape_of",
    "slice_bounds",
    "split_sizes",
    "squeezed",
    "unsqueezed",
]

#: From this version on the axes of a reduction are an input; 18 for those that are not here.
AXES_ARE_INPUT = {"ReduceSum": 13}


def shape_of(node: Node, shape: Sequence[int]) -> np.ndarray:
    """What the operator Shape gives for a tensor of this shape."""
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return np.asarray(tuple(shape)[start:end], np.int64)


def legacy_shape(node: Node, shape: Sequence[int], other: Sequence[int], axis: int) -> tuple[int, ...]:
    """Sizes of the second operand with axes of size 1 behind it."""
    behind = len(shape) - axis - len(other)
    if behind < 0:
        raise node.bad_shape(f"an operand {tuple(other)} from axis {axis} on does not fit {tuple(shape)}")
    return (*other, *(1,) * behind)


def checked_axis(node: Node, axis: int, rank: int, what: str = "axis") -> int:
    """The axis counted from the front.

    Raises:
        ArgumentError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise node.bad_argument(f"{what} {axis} is out of range for {rank} axes")
    return axis % rank


def checked_axes(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """The axes counted from the front, in order.

    Raises:
        ArgumentError: There is no such axis, or one is named twice.
    """
    found = [checked_axis(node, int(axis), rank, "axes:") for axis in axes]
    if len(set(found)) != len(found):
        raise node.bad_argument(f"axes {tuple(axes)} name one twice")
    return tuple(sorted(found))


def unsqueezed(node: Node, shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """A shape with axes of size 1 put in, at positions counted in the result."""
    places = checked_axes(node, axes, len(shape) + len(axes))
    sizes = iter(shape)
    return tuple(1 if i in places else next(sizes) for i in range(len(shape) + len(axes)))


def squeezed(node: Node, shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """A shape without some axes, which have size 1; None means all such."""
    if axes is None:
        return tuple(size for size in shape if size != 1)
    places = checked_axes(node, axes, len(shape))
    if any(shape[axis] != 1 for axis in places):
        raise node.bad_shape(f"axes {tuple(axes)} of {tuple(shape)} are not all of size 1")
    return tuple(size for axis, size in enumerate(shape) if axis not in places)


def reshaped_sizes(node: Node, shape: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """The sizes that Reshape asks for: 0 keeps an axis, -1 is what is left.

    Raises:
        ShapeError: The number of elements would change.
    """
    keeps = not node.integer("allowzero", 0)
    sizes = []
    for axis, size in enumerate(wanted):
        if size == 0 and keeps:
            if axis >= len(shape):
                raise node.bad_shape(f"{tuple(wanted)} keeps axis {axis}, which {tuple(shape)} does not have")
            size = shape[axis]
        sizes.append(int(size))
    if sizes.count(-1) > 1 or any(size < -1 for size in sizes) or len(sizes) > 8:
        raise node.bad_shape(f"{tuple(wanted)[:16]} is no shape")
    count = math.prod(shape)
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = count // rest if rest and count % rest == 0 else 0
    if math.prod(sizes) != count:
        raise node.bad_shape(f"cannot make {tuple(wanted)} of {tuple(shape)}")
    return tuple(sizes)


def flattened(node: Node, shape: Sequence[int]) -> tuple[int, int]:
    """What Flatten makes of a shape: the axes before one, and those from it on."""
    axis = node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise node.bad_argument(f"axis {axis} is out of range for {len(shape)} axes")
    axis = axis if axis >= 0 else axis + len(shape)
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """The order of axes that Transpose asks for."""
    order = node.integers("perm", tuple(range(rank))[::-1])
    if sorted(order) != list(range(rank)):
        raise node.bad_argument(f"perm {order} is no order of {rank} axes")
    return order


def split_sizes(node: Node, size: int, given: Sequence[int] | None) -> tuple[int, ...]:
    """Sizes of the parts that Split makes of an axis."""
    if given is not None:
        if len(given) != len(node.outputs) or any(part < 0 for part in given) or sum(given) != size:
            raise node.bad_shape(f"parts {tuple(given)} for {len(node.outputs)} results of an axis of {size}")
        return tuple(given)
    parts = node.integer("num_outputs", len(node.outputs))
    if parts != len(node.outputs):
        raise node.bad_argument(f"num_outputs {parts}, there are {len(node.outputs)}")
    if node.version < 18 and size % parts:
        raise node.bad_shape(f"an axis of {size} in {parts} equal parts")
    part = -(-size // parts)
    sizes = [part] * (parts - 1)
    if sum(sizes) > size:
        raise node.bad_shape(f"an axis of {size} in {parts} parts of {part}")
    return (*sizes, size - sum(sizes))


def slice_bounds(node: Node, shape: Sequence[int], lists: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Begin, end and step of each axis that Slice names, as Python's own slices.

    Args:
        node: The node.
        shape: Of what is cut.
        lists: starts, ends, axes or None, steps or None.
    """
    starts, ends, axes, steps = lists
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.bad_argument(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps")
    places = [checked_axis(node, int(axis), len(shape), "axes:") for axis in axes]
    if len(set(places)) != len(places):
        raise node.bad_argument(f"axes {tuple(axes)} name one twice")
    bounds = [(0, size, 1) for size in shape]
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        if step == 0:
            raise node.bad_argument("a step is 0")
        bounds[axis] = slice(int(start), int(end), int(step)).indices(shape[axis])
    return bounds
