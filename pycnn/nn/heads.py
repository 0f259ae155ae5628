"""The layer that gives the scores of the classes, and putting a fresh one in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn.errors import Error, GraphError, ShapeError, UnsupportedError
from pycnn.nn import init
from pycnn.nn._arguments import as_count
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.module import Module, _first_symbol
from pycnn.tensor import Parameter
from pycnn.tracing import trace

__all__ = ["head_names", "head_node", "replace_head"]

# What may stand between the scores and the net's result: none of it mixes classes.
_BEHIND = frozenset(
    (
        "activation",
        "adaptive_avg_pool2d",
        "affine",
        "avg_pool2d",
        "dropout",
        "global_avg_pool2d",
        "global_max_pool2d",
        "log_softmax",
        "reshape",
        "softmax",
        "transpose",
    )
)


def head_node(nodes: Sequence[dict[str, Any]], result: int) -> int | None:
    """The dense layer or convolution that gives a result of a graph, by the number of its node; None if none does."""
    index = result
    while nodes[index]["kind"] == "op" and nodes[index]["op"].name in _BEHIND:
        index = nodes[index]["inputs"][0].node
    node = nodes[index]
    return index if node["kind"] == "op" and node["op"].name in ("dense", "conv2d") else None


def head_names(net: Module, input_shape: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of the parameters of the last layer in front of the scores, and of that of each auxiliary head.

    Args:
        net: The net.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
        ArgumentError: The size of the net's input is not known.
    """
    return _find(net, input_shape)[0]


def _find(net: Module, input_shape: Sequence[int] | None = None) -> tuple[tuple[str, ...], list[int]]:
    """The names, and the last extent of each result: the net's own, then the auxiliary heads'."""
    shape = net._input_shape(input_shape, "head_names")
    if input_shape is None:
        net.require_built("head_names")
    with collect_auxiliary() as heads:
        traced = trace(lambda x: _first_symbol(net(x)), {"x": ((1, *shape), "float32")}, root=net)
    nodes = traced.graph.nodes()
    own = {id(parameter): name for name, parameter in net.named_tensors()}
    names: list[str] = []
    results = [dict(traced.graph.outputs())["output"], *(head.output.id for head in heads)]
    for result in results:
        index = head_node(nodes, result.node)
        if index is None:
            raise GraphError(
                f"{type(net).__name__}: no dense layer or convolution gives the scores, but "
                f"'{nodes[result.node]['name']}'; there is no head to replace"
            )
        node = nodes[index]
        for symbol in node["inputs"][1:]:
            parameter = traced.parameters.get(nodes[symbol.node]["name"])
            if parameter is None or id(parameter) not in own:
                raise GraphError(f"{type(net).__name__}: '{node['name']}' computes its weights; it cannot be replaced")
            names.append(own[id(parameter)])
    return tuple(names), [traced.graph.spec(result)[0][-1] for result in results]


@dataclass
class _Change:
    """A parameter that was put in another's place, and how to take that back."""

    owner: Module
    attribute: str
    old: Parameter
    sizes: dict[str, Any]

    def undo(self) -> None:
        setattr(self.owner, self.attribute, self.old)
        for name, value in self.sizes.items():
            setattr(self.owner, name, value)


def replace_head(net: Module, num_classes: int) -> tuple[str, ...]:
    """Give a net another number of classes: the layers that give the scores start anew.

    Auxiliary heads are changed too. Nothing happens to a head that has as many classes already.

    Args:
        net: The net; it is changed in place.
        num_classes: Scores that it shall give.

    Returns:
        Names of the fresh parameters.

    Raises:
        ArgumentError: `num_classes` is not positive, or the size of the net's input is not known.
        GraphError: No dense layer or convolution gives the scores.
        UnsupportedError: What follows the head has the old number built in, or makes another number of scores of it,
            for example by flattening a map.

    Example:
        >>> import pycnn as pc
        >>> net = pc.models.lenet5(num_classes=10)
        >>> replace_head(net, 26)
        ('fc3.weight', 'fc3.bias')
    """
    return tuple(_replace(net, num_classes)[0])


def _replace(net: Module, num_classes: int) -> tuple[list[str], list[_Change]]:
    classes = as_count(num_classes, who="replace_head", name="num_classes")
    changes: list[_Change] = []
    names: list[str] = []
    modules = dict(net.named_modules())
    try:
        found, widths = _find(net)
        for name in found:
            path, _, attribute = name.rpartition(".")
            owner = modules[path]
            old = vars(owner)[attribute]
            if old.shape[0] == classes:
                continue
            # A bias is drawn with the fans of its weight.
            weight = next((c.old for c in changes if c.owner is owner and len(c.old.shape) > 1), old)
            changes.append(_Change(owner, attribute, old, {}))
            fresh = Parameter(
                (classes, *old.shape[1:]), init=init.default(init.fans_of(weight)), layout=old.layout, dtype=old.dtype
            )
            fresh.name = name
            fresh.trainable = old.trainable
            setattr(owner, attribute, fresh)
            for size in ("out_features", "out_channels"):
                if vars(owner).get(size) == old.shape[0]:
                    changes[-1].sizes[size] = old.shape[0]
                    setattr(owner, size, classes)
            names.append(name)
        _verify(net, classes, _rebuild(net, classes) if names else widths)
    except Error:
        undo(changes)
        raise
    return names, changes


def undo(changes: list[_Change]) -> None:
    """Put the old parameters back."""
    for change in reversed(changes):
        change.undo()


def _rebuild(net: Module, classes: int) -> list[int]:
    try:
        net.build()
        return _find(net)[1]
    except ShapeError as error:
        raise UnsupportedError(
            f"{type(net).__name__}: what follows the head has the old number of classes built in\n  {error}\n  "
            f"hint: make the net with num_classes={classes} and load the file's weights into it (pycnn.load_weights)"
        ) from None


def _verify(net: Module, classes: int, widths: list[int]) -> None:
    for width in widths:
        if width != classes:
            # A flattened map, for example: each of its places would count as a class.
            raise UnsupportedError(
                f"{type(net).__name__}: with {classes} classes in its last layer the net gives {width} scores; there "
                "is no head to replace\n  hint: reduce the map to 1 x 1 (GlobalAvgPool2d), or end in a Linear layer"
            )
