"""Element-wise non-linearities and softmax."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.nn.module import Module

__all__ = ["LeakyReLU", "LogSoftmax", "ReLU", "ReLU6", "ScaledTanh", "Sigmoid", "Softmax", "Tanh"]


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
