"""Losses: scalars to minimise."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.nn.module import Module
from pycnn.tracing import is_tracing

__all__ = ["CrossEntropyLoss", "MSELoss"]


class _Loss(Module):
    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Record the loss (symbols) or compute it at once (arrays)."""
        if is_tracing():
            return super().__call__(*inputs, **named)
        return self.forward(*inputs, **named)


class CrossEntropyLoss(_Loss):
    """Mean over the batch of the cross-entropy between softmax(scores) and the target.

    Args:
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Shape:
        scores ``(N, C)``; target: class numbers ``(N,)`` int64 or int32, or probabilities
        ``(N, C)`` -> a scalar ``()``.

    Raises:
        ArgumentError: The smoothing is out of range.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = as_number(
            label_smoothing, who="CrossEntropyLoss", name="label_smoothing", low=0.0, high=1.0
        )

    def forward(self, scores: Any, target: Any) -> Any:
        """Record the layer."""
        return functional.cross_entropy(scores, target, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""


class MSELoss(_Loss):
    """Mean over all elements of (output - target)**2: a scalar ``()``."""

    def forward(self, output: Any, target: Any) -> Any:
        """Record the layer."""
        return functional.mse_loss(output, target)
