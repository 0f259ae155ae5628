"""How fresh weights are drawn: rules that turn the fans of a weight into an `Initializer`.

A layer takes a rule as ``weight_init`` and ``bias_init``; `initialize` applies rules to a net that
exists. The numbers follow from the seed (`pycnn.manual_seed`) and the name of the parameter.

Fan-in is the number of weights that feed one output value, fan-out the number of output values
that one input value feeds (stride 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from pycnn.arguments import as_number
from pycnn.errors import ArgumentError
from pycnn.tensor import Initializer, Parameter

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = [
    "Fans",
    "Rule",
    "constant",
    "default",
    "he_normal",
    "he_uniform",
    "initialize",
    "lecun_1998",
    "normal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
]


class Fans(NamedTuple):
    """How many weights meet in an output value, and how many output values an input value feeds."""

    inputs: int
    outputs: int


Rule = Callable[[Fans], Initializer]


def fans_of(parameter: Parameter) -> Fans:
    """Fans of a weight; of a bias or another vector, its length for both."""
    shape = parameter.shape
    if len(shape) < 2:
        size = max(parameter.size, 1)
        return Fans(size, size)
    window = math.prod(shape[1:-1])
    return Fans(max(window * shape[-1], 1), max(window * shape[0], 1))


def constant(value: float) -> Rule:
    """Every element is `value`.

    Raises:
        ArgumentError: The value is not finite.
    """
    number = as_number(value, who="constant", name="value")
    return lambda fans: Initializer("constant", number)


def uniform(low: float, high: float) -> Rule:
    """Uniform in [low, high).

    Raises:
        ArgumentError: A bound is not finite, or `low` exceeds `high`.
    """
    a = as_number(low, who="uniform", name="low")
    b = as_number(high, who="uniform", name="high", low=a)
    return lambda fans: Initializer("uniform", a, b)


def normal(std: float, mean: float = 0.0) -> Rule:
    """Normal distribution.

    Raises:
        ArgumentError: `std` is negative, or a number is not finite.
    """
    deviation = as_number(std, who="normal", name="std", low=0.0)
    centre = as_number(mean, who="normal", name="mean")
    return lambda fans: Initializer("normal", centre, deviation)


def truncated_normal(std: float, mean: float = 0.0) -> Rule:
    """Normal distribution, cut at two standard deviations.

    Raises:
        ArgumentError: `std` is negative, or a number is not finite.
    """
    deviation = as_number(std, who="truncated_normal", name="std", low=0.0)
    centre = as_number(mean, who="truncated_normal", name="mean")
    return lambda fans: Initializer("truncated_normal", centre, deviation)


def _uniform_of_std(std: float) -> Initializer:
    bound = math.sqrt(3.0) * std
    return Initializer("uniform", -bound, bound)


def xavier_uniform(gain: float = 1.0) -> Rule:
    """Uniform with variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot, Bengio 2010)."""
    factor = as_number(gain, who="xavier_uniform", name="gain", low=0.0)
    return lambda fans: _uniform_of_std(factor * math.sqrt(2.0 / (fans.inputs + fans.outputs)))


def xavier_normal(gain: float = 1.0) -> Rule:
    """Normal with variance ``gain**2 * 2 / (fan_in + fan_out)`` (Glorot, Bengio 2010)."""
    factor = as_number(gain, who="xavier_normal", name="gain", low=0.0)
    return lambda fans: Initializer("normal", 0.0, factor * math.sqrt(2.0 / (fans.inputs + fans.outputs)))


def _he_std(fans: Fans, negative_slope: float, mode: str) -> float:
    fan = fans.inputs if mode == "fan_in" else fans.outputs
    return math.sqrt(2.0 / ((1.0 + negative_slope**2) * fan))


def _check_mode(mode: str, who: str) -> str:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"{who}: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return mode


def he_uniform(negative_slope: float = 0.0, mode: str = "fan_in") -> Rule:
    """Uniform with variance ``2 / ((1 + negative_slope**2) * fan)`` (He et al. 2015).

    Args:
        negative_slope: Of the leaky ReLU that follows; 0 for ReLU.
        mode: "fan_in" keeps the size of activations, "fan_out" that of gradients.

    Raises:
        ArgumentError: An unknown mode, or a slope that is not finite.
    """
    slope = as_number(negative_slope, who="he_uniform", name="negative_slope")
    chosen = _check_mode(mode, "he_uniform")
    return lambda fans: _uniform_of_std(_he_std(fans, slope, chosen))


def he_normal(negative_slope: float = 0.0, mode: str = "fan_in") -> Rule:
    """Normal with variance ``2 / ((1 + negative_slope**2) * fan)`` (He et al. 2015).

    Args:
        negative_slope: Of the leaky ReLU that follows; 0 for ReLU.
        mode: "fan_in" keeps the size of activations, "fan_out" that of gradients.

    Raises:
        ArgumentError: An unknown mode, or a slope that is not finite.
    """
    slope = as_number(negative_slope, who="he_normal", name="negative_slope")
    chosen = _check_mode(mode, "he_normal")
    return lambda fans: Initializer("normal", 0.0, _he_std(fans, slope, chosen))


def lecun_1998() -> Rule:
    """Uniform in ±2.4 / fan_in (LeCun et al. 1998, appendix A)."""
    return lambda fans: Initializer("uniform", -2.4 / fans.inputs, 2.4 / fans.inputs)


def default(fans: Fans) -> Initializer:
    """Uniform in ±1 / sqrt(fan_in): what convolution and dense layers use, as PyTorch's do."""
    bound = 1.0 / math.sqrt(fans.inputs)
    return Initializer("uniform", -bound, bound)


def as_rule(value: Rule | Initializer | None, *, who: str, name: str) -> Rule:
    """None is `default`; an `Initializer` ignores the fans.

    Raises:
        ArgumentError: Something else.
    """
    if value is None:
        return default
    if isinstance(value, Initializer):
        return lambda fans: value
    if not callable(value):
        raise ArgumentError(f"{who}: {name} must be a rule of pycnn.nn.init or an Initializer, got {value!r}")
    return value


def initialize(net: Module, *, weight: Rule | None = None, bias: Rule | None = None) -> None:
    """Draw the weights and biases of convolution and dense layers anew.

    Batch norms and other vectors that are not biases of such layers stay. A bias is drawn with the
    fans of its layer's weight.

    Args:
        net: The net; layers without an input size yet must be built first (`net.build`).
        weight: Rule for the weights. Default: they stay.
        bias: Rule for the biases. Default: they stay.

    Raises:
        GraphError: A layer has not seen its input yet.

    Example:
        >>> net = pycnn.nn.Linear(4, 2)
        >>> initialize(net, weight=he_normal(), bias=constant(0.0))
        >>> net.bias.numpy().tolist()
        [0.0, 0.0]
    """
    net.require_built("initialize")
    tensors = dict(net.named_tensors())
    for name, parameter in tensors.items():
        if parameter.is_buffer or not name.endswith("weight") or len(parameter.shape) < 2:
            continue
        fans = fans_of(parameter)
        partner = tensors.get(name.removesuffix("weight") + "bias")
        if weight is not None:
            _draw(parameter, name, weight(fans))
        if bias is not None and partner is not None:
            _draw(partner, name.removesuffix("weight") + "bias", bias(fans))


def _draw(parameter: Parameter, name: str, init: Initializer) -> None:
    fresh = Parameter(parameter.shape, init=init, layout=parameter.layout, dtype=parameter.dtype)
    fresh.name = parameter.name or name
    parameter.name = fresh.name
    parameter.copy_(fresh.numpy())
