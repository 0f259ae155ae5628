"""Guideline 2, "prefer small filter chains": one large filter against a chain of small ones.

Simonyan and Zisserman 2014, section 2.3: three 3x3 convolutions see as much as one 7x7, with 27 instead of 49 weights
per pair of channels, and with three non-linearities instead of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.nn.containers import Sequential
from pycnn.nn.conv import Conv2d

__all__ = ["FilterChain", "FilterComparison", "compare_filters"]


@dataclass(frozen=True)
class FilterChain:
    """What a chain of convolutions costs and sees.

    Attributes:
        filters: The windows as they were given, "3x3,3x3".
        layers: Number of convolutions; behind each there is room for a non-linearity.
        weights: Of the convolutions, without biases.
        parameters: With biases.
        macs: Multiply-adds for one image.
        activations: Numbers that the convolutions write for one image.
        receptive_field: (height, width) in pixels.
    """

    filters: str
    layers: int
    weights: int
    parameters: int
    macs: int
    activations: int
    receptive_field: tuple[int, int]


@dataclass(frozen=True)
class FilterComparison:
    """What `compare_filters` returns; prints as a table, relative to the first chain.

    Attributes:
        channels: Of the input and of every convolution.
        size: (height, width) of the feature map.
        chains: In the order in which they were given.
    """

    channels: int
    size: tuple[int, int]
    chains: tuple[FilterChain, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain Python objects."""
        return asdict(self)

    def __str__(self) -> str:
        """The table as text."""
        first = self.chains[0]
        rows = [["filters", "layers", "field", "weights", "", "parameters", "MACs", "", "activations", ""]]
        for chain in self.chains:
            field = "x".join(str(side) for side in chain.receptive_field)
            rows.append(
                [
                    *(chain.filters, str(chain.layers), field),
                    *(f"{chain.weights:,}", f"x {chain.weights / first.weights:.2f}", f"{chain.parameters:,}"),
                    *(f"{chain.macs:,}", f"x {chain.macs / first.macs:.2f}"),
                    *(f"{chain.activations:,}", f"x {chain.activations / first.activations:.2f}"),
                ]
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        height, width = self.size
        head = f"{self.channels} channels in and out of every filter, {height} x {width} positions, one image"
        notes = [
            "weights: without biases; 1 MAC = one multiply-add = 2 FLOP; field: pixels of the input; x: of the first",
            *self._verdict(),
        ]
        return "\n".join([head, *(line.rstrip() for line in lines), *notes])

    __repr__ = __str__

    def _verdict(self) -> list[str]:
        """Which of the chains that see as much as the first costs least."""
        equal = [chain for chain in self.chains if chain.receptive_field == self.chains[0].receptive_field]
        best = min(equal, key=lambda chain: chain.macs)
        if len(equal) < 2 or best.macs == max(chain.macs for chain in equal):
            return []
        field = "x".join(str(side) for side in best.receptive_field)
        return [f"guideline 2: of those with a field of {field}, {best.filters} needs the fewest multiply-adds"]


def compare_filters(chains: Sequence[str], *, channels: int = 64, size: int | Sequence[int] = 56) -> FilterComparison:
    """Compare chains of convolutions that keep the size and the number of channels.

    Every convolution has stride 1, a bias, and as much padding as keeps the size. The numbers are those of the engine's
    own summary.

    Args:
        chains: Windows of one chain separated by commas: "7x7", "3x3,3x3,3x3", "1x7,7x1". Height comes first; "3" is
            "3x3".
        channels: Of the input and of every convolution.
        size: Side of the feature map, or (height, width).

    Raises:
        ArgumentError: A chain cannot be read, a window is even (it cannot keep the size with the same padding at both
            sides), or a number is not positive.

    Example:
        >>> seven, three = compare_filters(["7x7", "3x3,3x3,3x3"], channels=1, size=8).chains
        >>> seven.weights, three.weights, seven.receptive_field == three.receptive_field
        (49, 27, True)
    """
    if isinstance(chains, str) or not chains:
        raise ArgumentError(f"compare_filters: chains must be a list like ['7x7', '3x3,3x3,3x3'], got {chains!r}")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    for name, value in (("channels", channels), *(("size", side) for side in sides)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"compare_filters: {name} must be a whole number of at least 1, got {value!r}")
    if len(sides) != 2:
        raise ArgumentError(f"compare_filters: size must be one side or (height, width), got {size!r}")
    rows = tuple(_measure(chain, channels, sides) for chain in chains)
    return FilterComparison(channels, (sides[0], sides[1]), rows)


def _measure(chain: str, channels: int, sides: tuple[int, ...]) -> FilterChain:
    windows = [_window(text, chain) for text in chain.split(",")]
    layers = [Conv2d(channels, channels, window, padding=(window[0] // 2, window[1] // 2)) for window in windows]
    summary = Sequential(*layers).summary((*sides, channels))
    field = summary.rows[-1].receptive_field or (0, 0)
    return FilterChain(
        filters=chain.replace(" ", ""),
        layers=len(layers),
        weights=summary.weights,
        parameters=summary.parameters,
        macs=summary.macs,
        activations=summary.activations,
        receptive_field=field,
    )


def _window(text: str, chain: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,4})(?:x(\d{1,4}))?\s*", text)
    if match is None:
        raise ArgumentError(f"compare_filters: {text!r} in {chain!r} is no window\n  hint: '7x7' or '3x3,3x3,3x3'")
    window = (int(match[1]), int(match[2] or match[1]))
    if any(side % 2 == 0 for side in window):
        raise ArgumentError(
            f"compare_filters: window {text.strip()} in {chain!r} must have odd sides, to keep the size"
        )
    return window
