"""Layers that only move data."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.nn._arguments import Pair, Sides, as_sides, short_sides
from pycnn.nn.module import Module

__all__ = ["Flatten", "Identity", "Pad"]


class Flatten(Module):
    """One row per image, channels outermost as PyTorch's order of elements.

    So the weights of a `Linear` behind it can be exchanged with other frameworks.

    Shape:
        ``(N, H, W, C)`` -> ``(N, C * H * W)``; other ranks keep their order.
    """

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.flatten(x)


class Identity(Module):
    """Gives back what it gets."""

    converts_uint8 = False

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return x


class Pad(Module):
    """Surround images with a constant.

    Args:
        padding: Pixels: one number, (vertical, horizontal) or (top, bottom, left, right).
        value: What to fill with.

    Shape:
        ``(N, H, W, C)`` -> ``(N, H + top + bottom, W + left + right, C)``

    Raises:
        ArgumentError: A size is negative, or the value is not finite.
    """

    def __init__(self, padding: int | Pair | Sides, *, value: float = 0.0) -> None:
        self.padding = as_sides(padding, who="Pad")
        self.value = as_number(value, who="Pad", name="value")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        top, bottom, left, right = self.padding
        return functional.pad(x, before=(0, top, left, 0), after=(0, bottom, right, 0), value=self.value)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        value = f", value={self.value:g}" if self.value else ""
        return f"{short_sides(self.padding)}{value}"
