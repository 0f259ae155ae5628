"""Element-wise non-linearities and softmax."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError, ShapeError
from pycnn.nn._arguments import as_count
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "ScaledTanh",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Threshold",
]


class ReLU(Module):
    """max(x, 0), element by element; NaN stays NaN."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6), element by element (Howard et al. 2017); NaN stays NaN."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.relu6(x)


class LeakyReLU(Module):
    """X where positive, else ``negative_slope * x``.

    Args:
        negative_slope: At least 0.

    Raises:
        ArgumentError: The slope is negative or not finite.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = as_number(negative_slope, who="LeakyReLU", name="negative_slope", low=0.0)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self.negative_slope:g}"


class ELU(Module):
    """X where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2015).

    Args:
        alpha: Minus the limit for very negative numbers.

    Raises:
        ArgumentError: The number is out of range.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = as_number(alpha, who="ELU", name="alpha")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.elu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.alpha == 1.0 else f"alpha={self.alpha:g}"


class CELU(Module):
    """X where positive, else ``alpha * (exp(x / alpha) - 1)``, smooth for every alpha (Barron 2017).

    Args:
        alpha: Above 0.

    Raises:
        ArgumentError: The number is out of range.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = as_number(alpha, who="CELU", name="alpha", low=0.0, above=True)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.celu(x, alpha=self.alpha)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.alpha == 1.0 else f"alpha={self.alpha:g}"


class SELU(Module):
    """``1.0507 * elu(x, alpha=1.6733)``, which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.selu(x)


class SiLU(Module):
    """``x * sigmoid(x)`` (Hendrycks, Gimpel 2016), also called swish."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.silu(x)


class Mish(Module):
    """``x * tanh(log(1 + exp(x)))`` (Misra 2019)."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.mish(x)


class GELU(Module):
    """X times the probability that a standard normal number is below x (Hendrycks, Gimpel 2016).

    Args:
        approximate: "none" for the error function, "tanh" for the paper's approximation.

    Raises:
        ArgumentError: Another approximation.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class Hardsigmoid(Module):
    """``min(max(x / 6 + 1/2, 0), 1)``."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.hardsigmoid(x)


class Hardswish(Module):
    """``x * min(max(x / 6 + 1/2, 0), 1)`` (Howard et al. 2019)."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.hardswish(x)


class Hardtanh(Module):
    """Bring each number into ``[min_val, max_val]``; NaN stays NaN.

    Args:
        min_val: Smallest result.
        max_val: Largest result.

    Raises:
        ArgumentError: A bound is not finite, or `min_val` exceeds `max_val`.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = as_number(min_val, who="Hardtanh", name="min_val")
        self.max_val = as_number(max_val, who="Hardtanh", name="max_val", low=self.min_val)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.clip(x, min=self.min_val, max=self.max_val)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self.min_val:g}, {self.max_val:g}" if (self.min_val, self.max_val) != (-1.0, 1.0) else ""


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, without overflow.

    Args:
        beta: Above 0; the larger, the closer to ReLU.

    Raises:
        ArgumentError: The number is out of range.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = as_number(beta, who="Softplus", name="beta", low=0.0, above=True)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.softplus(x, beta=self.beta)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.beta == 1.0 else f"beta={self.beta:g}"


class Softsign(Module):
    """``x / (1 + |x|)``."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.softsign(x)


class Threshold(Module):
    """X where it exceeds the threshold, else a value; NaN stays NaN.

    Args:
        threshold: What x must exceed.
        value: What is given otherwise.

    Raises:
        ArgumentError: A number is not finite.
    """

    def __init__(self, threshold: float, value: float) -> None:
        self.threshold = as_number(threshold, who="Threshold", name="threshold")
        self.value = as_number(value, who="Threshold", name="value")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.threshold(x, threshold=self.threshold, value=self.value)

    def extra_repr(self) -> str:
        """Arguments."""
        return f"threshold={self.threshold:g}, value={self.value:g}"


class PReLU(Module):
    """X where positive, else ``weight * x`` with a learned slope (He et al. 2015).

    Args:
        num_parameters: 1 slope for all channels, or one for each of so many.
        init: Slope at the beginning.

    Attributes:
        weight: (num_parameters).

    Shape:
        ``(..., C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    def __init__(self, num_parameters: int = 1, *, init: float = 0.25) -> None:
        self.slopes = as_count(num_parameters, who="PReLU", name="num_parameters")
        self.init = as_number(init, who="PReLU", name="init")
        self.weight = Parameter((self.slopes,), init=Initializer("constant", self.init))

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        if self.slopes not in (1, x.shape[-1]):
            raise ShapeError(f"PReLU: input {x.shape} has {x.shape[-1]} channels, weight is for {self.slopes}")
        return functional.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        start = "" if self.init == 0.25 else f", init={self.init:g}"
        return f"{self.slopes}{start}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)), element by element."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent, element by element."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.tanh(x)


class ScaledTanh(Module):
    """1.7159 tanh(2x / 3), the squashing function of LeCun et al. 1998, appendix A."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.scaled_tanh(x)


class Softmax(Module):
    """exp(x) / sum of exp(x) over the last axis, computed stably.

    Not needed before `CrossEntropyLoss`, which takes the scores themselves.
    """

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.softmax(x)


class LogSoftmax(Module):
    """Logarithm of softmax over the last axis, without its underflow."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.log_softmax(x)
