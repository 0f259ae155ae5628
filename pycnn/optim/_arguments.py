"""Checks of hyper-parameters; every message names the class, the argument and its value."""

from __future__ import annotations

import math
import operator
from typing import Any

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
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{who}: {name} must be a number, got {value!r}") from None
    good = math.isfinite(number) and low <= number <= high
    if not good or (above and number == low) or (below and number == high):
        limit = f"{'above' if above else 'at least'} {low:g}"
        if math.isfinite(high):
            limit += f" and {'below' if below else 'at most'} {high:g}"
        raise ArgumentError(f"{who}: {name} must be finite, {limit}; got {value!r}")
    return number


def as_count(value: Any, *, who: str, name: str, low: int = 0) -> int:
    """An exact integer of at least `low`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{who}: {name} must be an integer, got {value!r}") from None
    if number < low:
        raise ArgumentError(f"{who}: {name} must be at least {low}, got {number}")
    return number
