"""Whether a network treats each image alone.

A file that declares a number of images may work along their axis: cut it, take its mean, put other axes in its place.
With as many images as declared that is what the file says; with others there is no telling what it would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from pycnn.onnx._network import Network, Node
from pycnn.onnx._registry import Values
from pycnn.onnx._shapes import AXES_ARE_INPUT

__all__ = ["check_images"]

Shape = Sequence[int]
# Axes of the first input along which a node works.
Along = Callable[[Values, Node, Shape], Sequence[int]]
_ALONG: dict[str, Along] = {}


def _along(*names: str) -> Callable[[Along], Along]:
    def register(function: Along) -> Along:
        for name in names:
            _ALONG[name] = function
        return function

    return register


def check_images(network: Network, values: Values, written: Mapping[str, Shape], batch: tuple[int, int]) -> None:
    """Refuse another number of images than the declared one where they do not stay apart.

    Args:
        network: The graph.
        values: Its values for the images that there are.
        written: Sizes of its values for the declared number.
        batch: The declared number, and that of the images that there are.

    Raises:
        UnsupportedError: A node works along the axis of images; the message names it.
    """
    for node in network.nodes:
        names = (*node.inputs, *node.outputs)
        shapes = [values.shape(name) for name in names]
        free = [_grown(node, shape, written.get(name), batch) for name, shape in zip(names, shapes, strict=True)]
        count = len(node.inputs)
        given, found = free[:count], free[count:]
        if any(len(axes) > 1 for axes in found):
            raise _mixed(node, batch)
        if any(axes & set(_worked(values, node, i, shapes[i])) for i, axes in enumerate(given) if axes):
            raise _mixed(node, batch)
        first, result = shapes[0] if count else None, shapes[count]
        if node.op in ("Reshape", "Flatten") and first is not None and result is not None and given[0]:
            # Images stay apart if as many numbers lie in front of their axis as before.
            (old,), (new,) = given[0], found[0] or {-1}
            if new < 0 or math.prod(first[:old]) != math.prod(result[:new]):
                raise _mixed(node, batch)


def _grown(node: Node, shape: Shape | None, then: Shape | None, batch: tuple[int, int]) -> set[int]:
    """Axes of a value whose sizes follow from the number of images."""
    if shape is None or then is None:
        return set()
    if len(shape) != len(then):
        raise _mixed(node, batch)
    return {axis for axis, (size, old) in enumerate(zip(shape, then, strict=True)) if size != old}


def _mixed(node: Node, batch: tuple[int, int]) -> Exception:
    declared, here = batch
    return node.unsupported(
        f"it works along the axis of images, of which the file declares {declared}; there are {here}\n"
        f"  hint: give {declared} at a time, or write the file with a free number of images"
    )


def _worked(values: Values, node: Node, index: int, shape: Shape | None) -> Sequence[int]:
    """Axes of an input along which a node works."""
    if shape is None:
        return ()
    if node.op == "MatMul":
        return [len(shape) - 1 if index == 0 else max(len(shape) - 2, 0)]
    if node.op == "Gemm":
        turned = bool(node.integer("transA" if index == 0 else "transB", 0))
        return [] if index > 1 else [int((index == 0) != turned)]
    if node.op == "Concat":
        return [node.integer("axis", 1) % len(shape)]
    along = _ALONG.get(node.op)
    return along(values, node, shape) if along is not None and index == 0 else ()


@_along(
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool",
    "InstanceNormalization", "GroupNormalization", "BatchNormalization", "LRN", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
def _behind(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    own_statistics = node.op == "BatchNormalization" and node.integer("training_mode", 0)
    return range(0 if own_statistics else 1, len(shape))


@_along("Softmax", "LogSoftmax")
def _softmax(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    axis = node.integer("axis", -1 if node.version >= 13 else 1) % max(len(shape), 1)
    return [axis] if node.version >= 13 else range(axis, len(shape))


@_along("LayerNormalization")
def _layer_norm(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    return range(node.integer("axis", -1) % len(shape), len(shape))


@_along("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def _reduce(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    if node.version < AXES_ARE_INPUT.get(node.op, 18):
        axes = node.integers("axes", ())
    else:
        axes = values.integers(node, 1, "axes") or ()
    if not axes:
        return () if node.integer("noop_with_empty_axes", 0) else range(len(shape))
    return [axis % len(shape) for axis in axes]


@_along("ArgMax", "Split", "Gather")
def _axis(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    return [node.integer("axis", 0) % len(shape)]


@_along("Slice", "Resize", "Upsample", "Tile")
def _resized(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    result = values.shape(node.outputs[0])
    if result is None or len(result) != len(shape):
        return range(len(shape))
    turned = [axis for axis, step in _steps(values, node, len(shape)) if step != 1] if node.op == "Slice" else []
    return [axis for axis, (old, new) in enumerate(zip(shape, result, strict=True)) if old != new or axis in turned]


@_along("Pad")
def _padded(values: Values, node: Node, shape: Shape) -> Sequence[int]:
    pads = node.integers("pads", ()) if node.version < 11 else values.integers(node, 1, "pads") or ()
    named = values.integers(node, 3, "axes") if node.version >= 18 else None
    axes = named or tuple(range(len(shape)))
    return [axis % len(shape) for i, axis in enumerate(axes) if pads[i] or pads[len(axes) + i]]


def _steps(values: Values, node: Node, rank: int) -> list[tuple[int, int]]:
    if node.version < 10:
        return []
    starts = values.integers(node, 1, "starts") or ()
    axes = values.integers(node, 3, "axes") or tuple(range(len(starts)))
    steps = values.integers(node, 4, "steps") or (1,) * len(axes)
    return [(axis % rank, step) for axis, step in zip(axes, steps, strict=True)]
