"""Dropout."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.nn.module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """While training, zero elements at random and scale the others (Hinton et al. 2012).

    The mask follows from the trainer's seed, the step, the layer's name and the element's
    position, not from threads. For inference nothing is done.

    Args:
        p: Probability of zero, in [0, 1).

    Raises:
        ArgumentError: `p` is out of range.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_number(p, who="Dropout", name="p", low=0.0, high=1.0, below=True)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.dropout(x, p=self.p)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self.p:g}"
