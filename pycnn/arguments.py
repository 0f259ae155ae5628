"""Checks of single arguments that all rooms share; every message names who asked, the argument and its value."""

from __future__ import annotations

import operator
from typing import Any

from pycnn.errors import ArgumentError

__all__ = ["as_float", "as_integer"]


def as_integer(value: Any, *, who: str, name: str, low: int, high: int | None = None) -> int:
    """Return an exact integer in ``low..high``; bool and float are refused.

    Args:
        value: What the caller was given.
        who: The class or function that asks, for the message.
        name: The argument, for the message.
        low: Smallest value allowed.
        high: Largest value allowed, or None.

    Raises:
        ArgumentError: It is no integer, or out of range.
    """
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
    """Return a float; bool and text are refused. It may be infinite or NaN.

    Args:
        value: What the caller was given.
        who: The class or function that asks, for the message.
        name: The argument, for the message.

    Raises:
        ArgumentError: It is no number.
    """
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{who}: {name} must be a number, got {value!r}") from None
