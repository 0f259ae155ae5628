"""Numbers that a module computes from the number of images, which torch.export records as if they were constants.

``x / x.shape[0]`` is a division by 13 in the recorded graph. Where a graph holds numbers that may be such ones, the
module is recorded again with another number of images, and the numbers are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.errors import GraphError

__all__ = ["BATCH", "nodes_that_count_images"]

#: Images that networks are recorded with: a number that hardly is the size of anything else, so that where it stands
#: first in a shape it means the batch.
BATCH = 13
# For the second record; has no divisor in common with the first.
_OTHER = 11

# Operators whose sizes hold the batch by rights, as the first one.
_RESHAPING = {"view", "reshape", "_unsafe_view", "expand", "unflatten"}
# Operators whose numbers are axes, sizes of windows and settings of layers.
_SETTINGS = {
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "dropout", "feature_dropout", "linear",
    "flatten", "permute", "transpose", "squeeze", "unsqueeze", "cat", "stack", "chunk", "split", "split_with_sizes",
    "unbind", "select", "softmax", "log_softmax", "mean", "sum", "amax", "amin", "max", "min",
    "hardtanh", "leaky_relu", "elu", "celu", "softplus", "threshold",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "pad", "constant_pad_nd",
}  # fmt: skip
_SETTINGS_OF = ("conv", "max_pool", "avg_pool", "adaptive_", "upsample_", "_upsample_", "reflection_", "replication_")


def nodes_that_count_images(graph: Any, record: Callable[[int], Any], who: str) -> frozenset[str]:
    """Nodes that hold a number which changes with the number of images.

    Args:
        graph: Recorded with `BATCH` images.
        record: Gives the graph for another number of images.
        who: The module, for the message.

    Returns:
        Names of nodes; not of those that keep the batch as their first axis.

    Raises:
        GraphError: The module calls other operators for another number of images.
    """
    if not any(_may_count(node) for node in graph.nodes):
        return frozenset()
    nodes, others = list(graph.nodes), list(record(_OTHER).nodes)
    if [str(node.target) for node in nodes] != [str(node.target) for node in others]:
        raise GraphError(f"from_torch: {who} calls other operators for another number of images")
    return frozenset(
        node.name
        for node, other in zip(nodes, others, strict=True)
        if _is_call(node) and _numbers_of(node) != _numbers_of(other) and not _keeps_the_batch(node, other)
    )


def _is_call(node: Any) -> bool:
    # Others are getitem's.
    return node.op == "call_function" and hasattr(node.target, "_schema")


def _base(node: Any) -> str:
    name: str = node.target._schema.name
    return name.partition("::")[2]


def _may_count(node: Any) -> bool:
    if not _is_call(node) or not _numbers_of(node):
        return False
    base = _base(node).removesuffix("_")
    if base in _SETTINGS or base.startswith(_SETTINGS_OF):
        return False
    return base not in _RESHAPING or not _keeps_the_batch(node, node)


def _keeps_the_batch(node: Any, other: Any) -> bool:
    """Whether a reshaping has the batch first before and after, and nowhere else; `other` is its second record."""
    if _base(node) not in _RESHAPING:
        return False
    batch = BATCH if other is node else _OTHER
    given, found = _shape(node.args[0]), _shape(node)
    return (
        given[:1] == found[:1] == (BATCH,)
        and _shape(other.args[0])[:1] == (batch,)
        and _shape(other) == (batch, *found[1:])
    )


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _numbers_of(node: Any) -> list[float]:
    return _numbers([*node.args, *node.kwargs.values()])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
