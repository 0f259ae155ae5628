"""Fresh weights for a net whose constructor is not at hand, as for those from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycnn.errors import UnsupportedError
from pycnn.inspect._recording import record
from pycnn.nn import init
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.module import Module, alone
from pycnn.tensor import Initializer, Parameter
from pycnn.tracing import Traced

__all__ = ["redraw"]

_ZERO, _ONE = Initializer("constant", 0.0), Initializer("constant", 1.0)
# Through these a weight comes to its layer as it is, only in other places.
_MOVING = frozenset(("concat", "reshape", "slice", "take", "transpose"))


def redraw(net: Module, *, seed: int = 0) -> None:
    """Give a net the weights and statistics of one that has learnt nothing, in place.

    Weights of convolutions and dense layers are normal with variance 2 / fan_out (He et al. 2015) and 1 / fan_in
    uniform, as in this package's own residual nets; biases are 0, scales of norms 1, running statistics 0 and 1. A
    convolution or dense layer whose weight is put together from several parameters, for example by a table of
    connections, draws them as it would the whole. Other parameters start as their module says, which files do not
    tell.

    Args:
        net: It knows the size of its input.
        seed: The values follow from it and from the parameters' names.

    Raises:
        ArgumentError: The size of the input is not known.
        UnsupportedError: How a parameter starts cannot be told; nothing is changed then.

    Example:
        >>> import pycnn as pc
        >>> net = pc.models.create("cifar_resnet20")
        >>> redraw(net, seed=3)
        >>> float(net.bn1.weight.numpy().min())
        1.0
    """
    shape = net._input_shape(None, "redraw")
    net.name_tensors()
    with alone(), collect_auxiliary():
        traced = record(net, {"x": ((1, *shape), "float32")}, lambda r: {"result": r.result})
    chosen = _by_use(traced)
    unknown = []
    for name, parameter in net.named_parameters():
        if id(parameter) not in chosen:
            if parameter.initializer is None:
                unknown.append(name)
            else:
                chosen[id(parameter)] = parameter, parameter.initializer
    if unknown:
        raise UnsupportedError(
            f"redraw: how {', '.join(map(repr, unknown))} start{'s' if len(unknown) == 1 else ''} cannot be told, as "
            "neither the net nor its file says it\n  hint: make the net anew instead"
        )
    for parameter, rule in chosen.values():
        parameter.draw(rule, seed)


def _by_use(traced: Traced) -> dict[int, tuple[Parameter, Initializer]]:
    """What the graph tells: parameters by their identity, each with its rule."""
    chosen: dict[int, tuple[Parameter, Initializer]] = {}
    nodes = traced.graph.nodes()
    for node in nodes:
        if node["kind"] != "op":
            continue
        kind = node["op"].name
        if kind == "batch_norm":
            for symbol, rule in zip(node["inputs"][1:], (_ONE, _ZERO, _ZERO, _ONE), strict=True):
                for parameter in _sources(nodes, traced.parameters, symbol.node):
                    chosen.setdefault(id(parameter), (parameter, rule))
        elif kind in ("conv2d", "dense"):
            for symbol in node["inputs"][1:]:
                whole = traced.graph.spec(symbol)[0]
                if len(whole) < 2:
                    rule = _ZERO
                else:
                    make = init.he_normal(mode="fan_out") if kind == "conv2d" else init.default
                    rule = make(init.fans_of(Parameter(whole)))
                for parameter in _sources(nodes, traced.parameters, symbol.node):
                    if not parameter.is_buffer:
                        chosen.setdefault(id(parameter), (parameter, rule))
    return chosen


def _sources(nodes: Sequence[dict[str, Any]], parameters: Mapping[str, Parameter], index: int) -> list[Parameter]:
    """The parameter of a node, or those that it only moves about; none where anything is computed."""
    node = nodes[index]
    if node["kind"] == "op":
        if node["op"].name not in _MOVING:
            return []
        return [p for symbol in node["inputs"] for p in _sources(nodes, parameters, symbol.node)]
    parameter = parameters.get(node["name"])
    return [] if parameter is None else [parameter]
