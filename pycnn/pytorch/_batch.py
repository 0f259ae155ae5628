"""Following the axis of images through what torch.export recorded, where sizes are plain numbers.

``x / x.shape[0]`` is a division by 1009 in the recorded graph, and ``x.transpose(0, 1)[:, -20:]`` takes 20 of 1009
images. Where a graph may hold such numbers, or moves the axis of images, the module is recorded again with another
number of images: numbers and sizes that differ come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pycnn.errors import GraphError

__all__ = ["Images", "follow_images", "recorded_batch"]

# Images that networks are recorded with: numbers that hardly are the size of anything else, so that where one stands
# first in a shape it means the batch; and more than a part of a batch has that a module takes, for taking all that
# there is leaves no trace. The second of each pair is for the second record, and small: branches on it are seen.
_BATCHES = ((1009, 11), (211, 11), (53, 11), (13, 11))
_MOST_BYTES = 2**30

# Operators whose sizes hold the batch by rights.
_RESHAPING = {"view", "reshape", "_unsafe_view", "expand", "unflatten"}
# Operators whose numbers are axes, sizes of windows and settings of layers.
_SETTINGS = {
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "dropout", "feature_dropout", "linear",
    "flatten", "permute", "transpose", "squeeze", "unsqueeze", "cat", "stack", "chunk", "split", "split_with_sizes",
    "unbind", "select", "softmax", "log_softmax", "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean",
    "hardtanh", "leaky_relu", "elu", "celu", "softplus", "threshold", "hardshrink", "softshrink", "glu",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "pad", "constant_pad_nd", "flip",
}  # fmt: skip
_SETTINGS_OF = ("conv", "max_pool", "avg_pool", "adaptive_", "upsample_", "_upsample_", "reflection_", "replication_")
# Arguments that name axes.
_AXES = ("dim", "dims", "dim0", "dim1", "axis", "axis0", "axis1", "source", "destination", "start_dim")
# Operators that may move the axis of images although no argument names it.
_MOVING = ("t", "numpy_T", "einsum", "tensordot")
# Operators whose results have more axes than what they read, behind the axis of images.
_WIDENING = {"unsqueeze", "stack", "unflatten", "view", "reshape", "_unsafe_view", "scaled_dot_product_attention"}

Shape = tuple[int, ...]


def recorded_batch(bytes_each: int) -> tuple[int, int]:
    """Numbers of images for the first record and the second; memory for them is reserved and not touched."""
    return next((pair for pair in _BATCHES if pair[0] * bytes_each <= _MOST_BYTES), _BATCHES[-1])


class Images:
    """Where the number of images shows in a recorded graph.

    Args:
        batch: Images in the first record.
        counting: Names of nodes that hold a number which changes with the number of images, but for reshapings.
        others: Sizes of each node's results in the second record; None where there is none.

    Attributes:
        batch: See above.
        counting: See above.
    """

    def __init__(self, batch: int, counting: frozenset[str], others: Mapping[str, Sequence[Shape]] | None) -> None:
        self.batch, self.counting = batch, counting
        self._others = others

    def axes(self, node: Any) -> list[frozenset[int]]:
        """For each result of a node the axes whose sizes follow from the number of images."""
        shapes = _shapes(node)
        if self._others is None:
            return [frozenset({0} if shape[:1] == (self.batch,) else ()) for shape in shapes]
        return [
            frozenset(axis for axis, (size, then) in enumerate(zip(shape, other, strict=True)) if size != then)
            for shape, other in zip(shapes, self._others[node.name], strict=True)
        ]


def follow_images(graph: Any, record: Callable[[int], Any], batches: tuple[int, int], who: str) -> Images:
    """Find the axes of images of all nodes, and numbers that count images.

    Args:
        graph: Recorded with the first number of images.
        record: Gives the graph for another number of images.
        batches: What `recorded_batch` gave.
        who: The module, for the message.

    Raises:
        GraphError: The module calls other operators for another number of images.
    """
    first, second = batches
    if not any(_may_count(node, first) or _may_move(node, first) for node in graph.nodes):
        return Images(first, frozenset(), None)
    nodes, others = list(graph.nodes), list(record(second).nodes)
    same = [(str(node.target), [len(s) for s in _shapes(node)]) for node in nodes]
    if same != [(str(node.target), [len(s) for s in _shapes(node)]) for node in others]:
        raise GraphError(
            f"from_torch: {who} calls other operators for another number of images, {second} and not {first}\n"
            "  hint: it may branch on the number, or cut the axis of images"
        )
    images = Images(first, frozenset(), {node.name: _shapes(other) for node, other in zip(nodes, others, strict=True)})
    images.counting = frozenset(
        node.name
        for node, other in zip(nodes, others, strict=True)
        if _is_call(node) and _numbers_of(node) != _numbers_of(other) and not _keeps_images(node, images)
    )
    return images


def _is_call(node: Any) -> bool:
    # Others are getitem's.
    return node.op == "call_function" and hasattr(node.target, "_schema")


def _base(node: Any) -> str:
    name: str = node.target._schema.name
    return name.partition("::")[2]


def _may_count(node: Any, batch: int) -> bool:
    if not _is_call(node) or not _numbers_of(node):
        return False
    base = _base(node).removesuffix("_")
    if base in _SETTINGS or base.startswith(_SETTINGS_OF):
        return False
    return base not in _RESHAPING or not _shape(node.args[0])[:1] == _shape(node)[:1] == (batch,)


def _may_move(node: Any, batch: int) -> bool:
    """Whether images may lie along another axis of the result than the first, which they are of what the node reads."""
    if not _is_call(node):
        return False
    given = [shape for value in node.all_input_nodes for shape in _shapes(value) if shape[:1] == (batch,)]
    if not given:
        return False
    base, results = _base(node).removesuffix("_"), _shapes(node)
    if base in _MOVING or any(shape[:1] != (batch,) for shape in results):
        return True
    rank = max(len(shape) for shape in given)
    if base not in _WIDENING and any(len(shape) > rank for shape in results):
        return True
    named = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False))
    if base == "permute":
        return named["dims"][0] % rank != 0
    # A new axis is counted in the result, which has one more.
    rank += base in ("unsqueeze", "stack")
    axes = [number for name in _AXES for number in _numbers({**named, **node.kwargs}.get(name))]
    return any(axis % rank == 0 for axis in axes)


def _keeps_images(node: Any, images: Images) -> bool:
    """Whether a node's sizes follow from those of its result, of which one is that of the images or a multiple."""
    if _base(node) not in _RESHAPING:
        return False
    (axes,) = images.axes(node)
    if _base(node) != "expand":
        return len(axes) == 1
    (given,) = images.axes(node.args[0])
    more = len(_shape(node)) - len(_shape(node.args[0]))
    return axes == frozenset(axis + more for axis in given)


def _shapes(node: Any) -> list[Shape]:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [tuple(each.shape) for each in values if hasattr(each, "shape")]


def _shape(node: Any) -> Shape:
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _numbers_of(node: Any) -> list[float]:
    return _numbers([*node.args, *node.kwargs.values()])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
