"""Shapes, axes and parts of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators.shape import expanded, repeated
from pycnn.onnx._registry import Values
from pycnn.onnx._view import View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import enter, number, own, translates

__all__ = ["shaped"]

# The end of a slice that goes as far as there is something.
_TO_THE_END = 2**63 - 1


@translates(
    "contiguous", "clone", "detach", "alias", "lift_fresh_copy", "to.dtype", "to.dtype_layout", "to.device", "type_as"
)
def _identity(r: Reader, a: Any) -> str:
    value, given = r.node.meta["val"], r.node.args[0].meta["val"]
    if a.self in r.truths and value.is_floating_point():
        return str(number(r, a.self))
    if value.dtype != given.dtype and not (value.is_floating_point() and given.is_floating_point()):
        raise r.unsupported(f"from {given.dtype} to {value.dtype} is not supported")
    return str(a.self)


def shaped(r: Reader, name: str, shape: Sequence[int], images: frozenset[int]) -> str:
    """Emit a reshaping; the size of the axis of images follows from how many there are."""
    if len(images) > 1:
        raise r.unsupported(f"axes {sorted(images)} of a result of a reshaping grow with the number of images")
    sizes = [-1 if axis in images else size for axis, size in enumerate(shape)]
    return r.emit("Reshape", [name, r.array(np.asarray(sizes, np.int64))], shape)


@translates("view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int", "view_as", "reshape_as")
def _reshape(r: Reader, a: Any) -> str:
    name = next(value for value in vars(a).values() if isinstance(value, str))
    return shaped(r, name, r.result_shapes()[0], r.result_images())


@translates("permute")
def _permute(r: Reader, a: Any) -> str:
    rank = len(r.shapes[a.self])
    return r.emit("Transpose", [a.self], perm=[d % rank for d in a.dims])


@translates("transpose.int", "swapaxes", "swapdims", "t")
def _transpose(r: Reader, a: Any) -> str:
    rank = len(r.shapes[a.self])
    order = list(range(rank))
    first, second = (d % rank for d in (*(v for v in vars(a).values() if isinstance(v, int)), 0, 1)[:2])
    order[first], order[second] = order[second], order[first]
    return r.emit("Transpose", [a.self], perm=order)


@translates("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist")
def _movedim(r: Reader, a: Any) -> str:
    rank = len(r.shapes[a.self])
    sources, places = (
        [d % rank for d in (given if isinstance(given, list) else [given])] for given in (a.source, a.destination)
    )
    taken = dict(zip(places, sources, strict=True))
    others = iter(axis for axis in range(rank) if axis not in sources)
    return r.emit("Transpose", [a.self], perm=[taken[i] if i in taken else next(others) for i in range(rank)])


@translates("unsqueeze")
def _unsqueeze(r: Reader, a: Any) -> str:
    return r.emit("Unsqueeze", [a.self], version=11, axes=[a.dim])


@translates("squeeze", "squeeze.dim", "squeeze.dims")
def _squeeze(r: Reader, a: Any) -> str:
    shape = r.shapes[a.self]
    dims = getattr(a, "dim", range(len(shape)))
    axes = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)]
    axes = [axis for axis in axes if shape[axis] == 1]
    return r.emit("Squeeze", [a.self], version=11, axes=axes) if axes else str(a.self)


@translates("expand")
def _expand(r: Reader, a: Any) -> str:
    images = r.result_images()
    shape = [1 if axis in images else size for axis, size in enumerate(r.result_shapes()[0])]
    return r.emit("Expand", [a.self, r.array(np.asarray(shape, np.int64))])


@translates("expand_as")
def _expand_as(r: Reader, a: Any) -> str:
    return r.emit("aten.expand_as", [a.self, a.other])


@own("aten.expand_as")
def _own_expand_as(values: Values, node: Node) -> View:
    return expanded(values.view(node, 0), values.view(node, 1).shape)


@translates("repeat", "tile")
def _repeat(r: Reader, a: Any) -> str:
    counts = list(a.repeats if hasattr(a, "repeats") else a.dims)
    given = r.shapes[a.self]
    counts = [1] * (len(given) - len(counts)) + counts
    for axis, count in enumerate(counts[len(counts) - len(given) :]):
        if count != 1:
            r.checked_axis(a.self, axis)
    return r.emit("aten.repeat", [a.self], counts=counts)


@own("aten.repeat")
def _own_repeat(values: Values, node: Node) -> View:
    return repeated(values.view(node, 0), node.attributes["counts"])


@translates("repeat_interleave.self_int")
def _repeat_interleave(r: Reader, a: Any) -> str:
    if a.dim is None:
        raise r.unsupported("an axis must be named (dim)")
    axis, shape = r.checked_axis(a.self, a.dim), r.shapes[a.self]
    apart = r.emit("Unsqueeze", [a.self], (*shape[: axis + 1], 1, *shape[axis + 1 :]), version=11, axes=[axis + 1])
    counts = [1] * (len(shape) + 1)
    counts[axis + 1] = int(a.repeats)
    wide = (*shape[: axis + 1], int(a.repeats), *shape[axis + 1 :])
    each = r.emit("aten.repeat", [apart], wide, counts=counts)
    return shaped(r, each, r.result_shapes()[0], r.result_images())


@translates("zeros_like", "ones_like", "full_like")
def _full_like(r: Reader, a: Any) -> str:
    name = r.operator_name()
    value = float(a.fill_value) if name.startswith("full") else float(name.startswith("ones"))
    return r.emit("aten.full_like", [a.self], value=value)


# Nothing, not even NaN, is greater than infinity.
enter("full_like", lambda x, value: functional.affine(functional.greater(x, np.float32(np.inf)), offset=value))


@translates("cat", "concat")
def _cat(r: Reader, a: Any) -> str:
    names = [number(r, name) for name in a.tensors if r.shapes[name] != (0,)]
    return r.emit("Concat", names, axis=int(a.dim))


@translates("stack")
def _stack(r: Reader, a: Any) -> str:
    shape = list(r.result_shapes()[0])
    axis = a.dim % len(shape)
    shape[axis] = 1
    parts = [r.emit("Unsqueeze", [name], shape, version=11, axes=[axis]) for name in a.tensors]
    return r.emit("Concat", parts, axis=axis)


@translates("chunk", "split.Tensor", "split_with_sizes", "split.sizes", "tensor_split.sections")
def _split(r: Reader, a: Any) -> list[str]:
    shapes = r.result_shapes()
    axis = r.checked_axis(a.self, a.dim)
    return r.emit_all("Split", [a.self], shapes, 11, {"axis": axis, "split": [shape[axis] for shape in shapes]})


@translates("unbind.int")
def _unbind(r: Reader, a: Any) -> list[str]:
    return [_select(r, a.self, a.dim, i, shape) for i, shape in enumerate(r.result_shapes())]


def _select(r: Reader, name: str, dim: int, index: int, shape: Sequence[int]) -> str:
    return r.emit("Gather", [name, r.array(np.asarray(index, np.int64))], shape, axis=r.checked_axis(name, dim))


@translates("select.int")
def _select_int(r: Reader, a: Any) -> str:
    return _select(r, a.self, a.dim, a.index, r.result_shapes()[0])


@translates("index_select")
def _index_select(r: Reader, a: Any) -> str:
    return _taken(r, a.self, a.dim, a.index)


@translates("index.Tensor")
def _index(r: Reader, a: Any) -> str:
    named = [(axis, name) for axis, name in enumerate(a.indices) if name is not None]
    if len(named) != 1:
        raise r.unsupported(f"{len(named)} lists of indices are not supported; one is")
    return _taken(r, a.self, *named[0])


def _taken(r: Reader, name: str, dim: int, indices: str) -> str:
    numbers = r.known(indices)
    if numbers is None:
        raise r.unsupported("indices that depend on the input are not supported")
    axis = r.checked_axis(name, dim)
    if numbers.dtype == bool:
        raise r.unsupported("indices by truth values are not supported")
    return r.emit("Gather", [name, r.array(numbers.astype(np.int64))], axis=axis)


@translates("slice.Tensor", "narrow")
def _slice(r: Reader, a: Any) -> str:
    size = r.shapes[a.self][a.dim]
    if hasattr(a, "length"):
        begin, end, step = a.start % size, a.start % size + a.length, 1
        whole = False
    else:
        begin, end, step = slice(a.start, a.end, a.step).indices(size)
        # Of another number of images it is the whole axis too.
        whole = not a.start and (a.end is None or a.end >= _TO_THE_END) and step == 1
    if whole or ((begin, end, step) == (0, size, 1) and a.dim % len(r.shapes[a.self]) not in r.images_of(a.self)):
        return str(a.self)
    axis = r.checked_axis(a.self, a.dim)
    lists = [r.array(np.asarray([number], np.int64)) for number in (begin, end, axis, step)]
    return r.emit("Slice", [a.self, *lists])


@translates("flip")
def _flip(r: Reader, a: Any) -> str:
    axes = [r.checked_axis(a.self, dim) for dim in a.dims]
    least = -_TO_THE_END
    lists = [r.array(np.asarray([value] * len(axes), np.int64)) for value in (-1, least, -1)]
    return r.emit("Slice", [a.self, *lists[:2], r.array(np.asarray(axes, np.int64)), lists[2]])


@translates("roll")
def _roll(r: Reader, a: Any) -> str:
    if len(a.dims) != len(a.shifts):
        raise r.unsupported("axes must be named (dims)")
    name = a.self
    for dim, shift in zip(a.dims, a.shifts, strict=True):
        axis = r.checked_axis(a.self, dim)
        size = r.shapes[a.self][axis]
        indices = (np.arange(size) - shift) % size
        name = r.emit("Gather", [name, r.array(indices.astype(np.int64))], axis=axis)
    return str(name)


def _padded(r: Reader, name: str, pad: Sequence[int], mode: str, value: float = 0.0) -> str:
    rank = len(r.shapes[name])
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        axis = rank - 1 - i
        before[axis], after[axis] = int(pad[2 * i]), int(pad[2 * i + 1])
        if before[axis] or after[axis]:
            r.checked_axis(name, axis)
    return r.emit("Pad", [name], version=2, pads=before + after, mode=mode, value=float(value))


@translates("pad")
def _pad(r: Reader, a: Any) -> str:
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[a.mode]
    return _padded(r, a.self, a.pad, mode, a.value or 0.0)


@translates("constant_pad_nd")
def _constant_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.pad, "constant", a.value)


@translates("reflection_pad1d", "reflection_pad2d")
def _reflection_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.padding, "reflect")


@translates("replication_pad1d", "replication_pad2d")
def _replication_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.padding, "edge")


@translates("pixel_shuffle")
def _pixel_shuffle(r: Reader, a: Any) -> str:
    return r.emit("DepthToSpace", [a.self], blocksize=int(a.upscale_factor), mode="CRD")


@translates("pixel_unshuffle")
def _pixel_unshuffle(r: Reader, a: Any) -> str:
    n, c, h, w = r.shapes[a.self]
    f = a.downscale_factor
    cut = (n, c, h // f, f, w // f, f)
    parts = shaped(r, a.self, cut, _first(r, a.self))
    order = (0, 1, 3, 5, 2, 4)
    moved = r.emit("Transpose", [parts], [cut[i] for i in order], perm=list(order))
    return shaped(r, moved, r.result_shapes()[0], r.result_images())


@translates("channel_shuffle")
def _channel_shuffle(r: Reader, a: Any) -> str:
    n, c, h, w = r.shapes[a.self]
    parts = shaped(r, a.self, (n, a.groups, c // a.groups, h, w), _first(r, a.self))
    moved = r.emit("Transpose", [parts], (n, c // a.groups, a.groups, h, w), perm=[0, 2, 1, 3, 4])
    return shaped(r, moved, (n, c, h, w), r.result_images())


def _first(r: Reader, name: str) -> frozenset[int]:
    """The axis of images, which must be the first."""
    if r.images_of(name) - {0}:
        raise r.unsupported("images must lie along the first axis")
    return r.images_of(name)
