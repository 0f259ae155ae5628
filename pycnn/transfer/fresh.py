"""Fresh weights for a net whose constructor is not at hand, as for those from files."""

from __future__ import annotations

from pycnn.errors import UnsupportedError
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter
from pycnn.transfer.recording import Recording

__all__ = ["redraw"]

_ZERO, _ONE = Initializer("constant", 0.0), Initializer("constant", 1.0)


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
    net.name_tensors()
    chosen = _by_use(Recording(net, None, who="redraw", heads=True))
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


def _by_use(recording: Recording) -> dict[int, tuple[Parameter, Initializer]]:
    """What the graph tells: parameters by their identity, each with its rule."""
    chosen: dict[int, tuple[Parameter, Initializer]] = {}
    for node in recording.ops():
        kind = node["op"].name
        if kind == "batch_norm":
            for symbol, rule in zip(node["inputs"][1:], (_ONE, _ZERO, _ZERO, _ONE), strict=True):
                for parameter in recording.sources(symbol):
                    chosen.setdefault(id(parameter), (parameter, rule))
        elif kind in ("conv2d", "dense"):
            for symbol in node["inputs"][1:]:
                whole = recording.shape(symbol)
                if len(whole) < 2:
                    rule = _ZERO
                else:
                    make = init.he_normal(mode="fan_out") if kind == "conv2d" else init.default
                    rule = make(init.fans_of(Parameter(whole)))
                for parameter in recording.sources(symbol):
                    if not parameter.is_buffer:
                        chosen.setdefault(id(parameter), (parameter, rule))
    return chosen
