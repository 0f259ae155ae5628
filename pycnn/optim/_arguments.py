"""Checks of hyper-parameters; every message names the class, the argument and its value."""

from __future__ import annotations

import math
from typing import Any

from pycnn.arguments import as_float, as_integer
from pycnn.errors import ArgumentError


def as_number(
    value: Any,
    *,
    who: str,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> float:
    """A finite number of at least `low` (`above`: more than it), at most `high` (`below`: less)."""
    number = as_float(value, who=who, name=name)
    good = math.isfinite(number) and low <= number <= high
    if not good or (above and number == low) or (below and number == high):
        limit = f"{'above' if above else 'at least'} {low:g}"
        if math.isfinite(high):
            limit += f" and {'below' if below else 'at most'} {high:g}"
        raise ArgumentError(f"{who}: {name} must be finite, {limit}; got {value!r}")
    return number


def as_count(value: Any, *, who: str, name: str, low: int = 0) -> int:
    """An exact integer of at least `low`."""
    return as_integer(value, who=who, name=name, low=low)
