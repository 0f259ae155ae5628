"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_flag
from pycnn.errors import ArgumentError
from pycnn.nn import init
from pycnn.nn._arguments import as_count, as_optional_count
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = ["Linear"]


class Linear(Module):
    """Fully connected layer: ``output[..., o] = bias[o] + sum of input[..., i] * weight[o, i]``.

    Args:
        in_features: Size of the last axis of the input. Left out: taken from the first input.
        out_features: Number of outputs; must be given.
        bias: Whether to add a learned number per output.
        weight_init: Rule of `pycnn.nn.init`. Default: uniform in ±1/sqrt(in_features).
        bias_init: Rule, given the weight's fans. Default: uniform in ±1/sqrt(in_features).

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features), or None.

    Shape:
        ``(..., in_features)`` -> ``(..., out_features)``, at least two axes.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: the last axis of the input differs from `in_features`.

    Example:
        >>> Linear(400, 120)
        Linear(400, 120)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        in_features: int | None = None,
        out_features: int | None = None,
        *,
        bias: bool = True,
        weight_init: init.Rule | Initializer | None = None,
        bias_init: init.Rule | Initializer | None = None,
    ) -> None:
        who = "Linear"
        if out_features is None:
            raise ArgumentError(
                f"{who}: out_features must be given\n  hint: only in_features may be left out, Linear(out_features=10)"
            )
        self.in_features = as_optional_count(in_features, who=who, name="in_features")
        self.out_features = as_count(out_features, who=who, name="out_features")
        self._rules = (
            init.as_rule(weight_init, who=who, name="weight_init"),
            init.as_rule(bias_init, who=who, name="bias_init"),
        )
        self._with_bias = as_flag(bias, who=who, name="bias")
        self.weight = None
        self.bias = None
        if self.in_features is not None:
            self._create(self.in_features)

    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self.weight is not None

    def infer_sizes(self, x: Any) -> None:
        """Create the parameters for this input."""
        self._create(int(x.shape[-1]))

    def _create(self, in_features: int) -> None:
        self.in_features = in_features
        fans = init.Fans(max(in_features, 1), self.out_features)
        weight_rule, bias_rule = self._rules
        self.weight = Parameter((self.out_features, in_features), init=weight_rule(fans))
        if self._with_bias:
            self.bias = Parameter((self.out_features,), init=bias_rule(fans))

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        bias = "" if self._with_bias else ", bias=False"
        return f"{self.in_features}, {self.out_features}{bias}"
