"""Checks of layer arguments; every message names the layer, the argument and its value."""

from __future__ import annotations

from typing import Any

from pycnn.arguments import as_integer
from pycnn.errors import ArgumentError

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def as_count(value: Any, *, who: str, name: str, low: int = 1) -> int:
    """An exact integer of at least `low`; bool and float are refused."""
    return as_integer(value, who=who, name=name, low=low)


def as_optional_count(value: Any, *, who: str, name: str) -> int | None:
    """None, or an integer of at least 1."""
    return None if value is None else as_count(value, who=who, name=name)


def as_pair(value: Any, *, who: str, name: str, low: int = 1) -> Pair:
    """``3`` -> (3, 3); ``(3, 5)`` is (vertical, horizontal)."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ArgumentError(f"{who}: {name} must be an integer or (vertical, horizontal), got {value!r}")
        vertical, horizontal = value
    else:
        vertical = horizontal = value
    return (
        as_count(vertical, who=who, name=name, low=low),
        as_count(horizontal, who=who, name=name, low=low),
    )


def as_sides(value: Any, *, who: str, name: str = "padding") -> Sides:
    """``1``, ``(vertical, horizontal)`` or all four -> (top, bottom, left, right)."""
    if isinstance(value, tuple | list) and len(value) == 4:
        top, bottom, left, right = (as_count(v, who=who, name=name, low=0) for v in value)
        return top, bottom, left, right
    if isinstance(value, tuple | list) and len(value) != 2:
        raise ArgumentError(
            f"{who}: {name} must be an integer, (vertical, horizontal) or (top, bottom, left, right), got {value!r}"
        )
    vertical, horizontal = as_pair(value, who=who, name=name, low=0)
    return vertical, vertical, horizontal, horizontal


def short_sides(sides: Sides) -> int | Pair | Sides:
    """The shortest way to write a padding."""
    top, bottom, left, right = sides
    if top == bottom and left == right:
        return top if top == left else (top, left)
    return sides


def short_pair(pair: Pair) -> int | Pair:
    """The shortest way to write a pair."""
    return pair[0] if pair[0] == pair[1] else pair
