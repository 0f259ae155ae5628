"""Checks of single arguments that all rooms share; every message names who asked, the argument and its value.

Each takes the ``value`` that its caller was given, and for the message ``who`` asks (a class or function) and the
``name`` of the argument. What it refuses is an ArgumentError.
"""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import Any

from pycnn.errors import ArgumentError

__all__ = ["as_flag", "as_float", "as_integer", "as_number", "as_path"]


def as_flag(value: Any, *, who: str, name: str) -> bool:
    """Return True or False; what merely counts as one of them ("no", 1, a list) is refused."""
    if isinstance(value, bool):
        return value
    import numpy as np

    if isinstance(value, np.bool_):
        return bool(value)
    raise ArgumentError(f"{who}: {name} must be True or False, got {value!r}")


def as_integer(value: Any, *, who: str, name: str, low: int, high: int | None = None) -> int:
    """Return an exact integer in ``low..high``, without a ``high`` from ``low`` on; bool and float are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{who}: {name} must be an integer, got {value!r}") from None
    if number < low or (high is not None and number > high):
        limit = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ArgumentError(f"{who}: {name} must be {limit}, got {number}")
    return number


def as_float(value: Any, *, who: str, name: str) -> float:
    """Return a float; bool and text are refused. It may be infinite or NaN."""
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{who}: {name} must be a number, got {value!r}") from None
    except OverflowError:  # an integer beyond all floats
        return math.inf if value > 0 else -math.inf


def as_number(
    value: Any,
    *,
    who: str,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> float:
    """Return a finite number in ``low..high``; bool and text are refused.

    With ``above``, ``low`` itself is not allowed; with ``below``, ``high`` is not.
    """
    number = as_float(value, who=who, name=name)
    inside = math.isfinite(number) and low <= number <= high
    if not inside or (above and number == low) or (below and number == high):
        limits = ""
        if math.isfinite(low) and math.isfinite(high):
            limits = f" and in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        elif math.isfinite(low):
            limits = f" and {'above' if above else 'at least'} {low:g}"
        elif math.isfinite(high):
            limits = f" and {'below' if below else 'at most'} {high:g}"
        shown = f"{value}" if math.isfinite(number) or isinstance(value, float) else f"{number}"
        raise ArgumentError(f"{who}: {name} must be finite{limits}, got {shown}")
    return number


def as_path(value: Any, *, who: str) -> Path:
    """Return the path that a text, bytes or path names; what cannot be one is refused before the system sees it."""
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise ArgumentError(f"{who}: expected a path, got {value!r}") from None
    if "\0" in text:
        raise ArgumentError(f"{who}: path {text!r} contains a NUL character")
    return Path(text)
