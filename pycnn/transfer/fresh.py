"""Fresh weights for a net whose constructor is not at hand, as for those from files."""

from __future__ import annotations

from pycnn.inspect._recording import record
from pycnn.nn import init
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.module import Module, alone
from pycnn.tensor import Initializer

__all__ = ["redraw"]


def redraw(net: Module, *, seed: int = 0) -> None:
    """Give a net the weights and statistics of one that has learnt nothing, in place.

    Weights of convolutions and dense layers are normal with variance 2 / fan_out (He et al. 2015) and 1 / fan_in
    uniform, as in this package's own residual nets; biases are 0, scales of norms 1, running statistics 0 and 1.

    Args:
        net: It knows the size of its input.
        seed: The values follow from it and from the parameters' names.

    Raises:
        ArgumentError: The size of the input is not known.

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
    zero, one = Initializer("constant", 0.0), Initializer("constant", 1.0)
    nodes = traced.graph.nodes()
    for node in nodes:
        if node["kind"] != "op":
            continue
        kind = node["op"].name
        given = [traced.parameters.get(nodes[symbol.node]["name"]) for symbol in node["inputs"][1:]]
        if kind == "batch_norm":
            rules = (one, zero, zero, one)
            for parameter, rule in zip(given, rules, strict=True):
                if parameter is not None:
                    parameter.draw(rule, seed)
        elif kind in ("conv2d", "dense"):
            for parameter in given:
                if parameter is None or parameter.is_buffer:
                    continue
                if len(parameter.shape) < 2:
                    parameter.draw(zero, seed)
                else:
                    make = init.he_normal(mode="fan_out") if kind == "conv2d" else init.default
                    parameter.draw(make(init.fans_of(parameter)), seed)
