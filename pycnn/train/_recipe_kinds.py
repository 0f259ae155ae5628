"""What a key of a recipe may hold; the same checks serve files, options of commands and Python."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pycnn.errors import ArgumentError

__all__ = [
    "COMPUTED",
    "Kind",
    "choice",
    "counts",
    "flag",
    "groups",
    "integer",
    "key",
    "names",
    "number",
    "numbers",
    "steps",
    "table",
    "text",
]

#: Instead of numbers: those of the training images.
COMPUTED = "computed"


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        expected: For messages: "KEY is VALUE, expected ...".
        check: Gives the value in its settled form, or raises ValueError.
        choices: All there are, if they can be listed.
        is_flag: True or false.
        is_text: On a command line, the words are the value; otherwise they are read as TOML.
    """

    expected: str
    check: Callable[[Any], Any]
    choices: tuple[str, ...] = ()
    is_flag: bool = False
    is_text: bool = False

    def parse(self, words: str) -> Any:
        """Read the value of a command's option.

        Raises:
            ValueError: The words mean no such value.
        """
        return self.check(words if self.is_text else parse_words(words))


def parse_words(words: str) -> Any:
    """Words as a TOML value; numbers with commas as a list; otherwise the words themselves."""
    for candidate in (words, f"[{words}]"):
        try:
            return tomllib.loads(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return words


def key(default: Any, kind: Kind, about: str) -> Any:
    """A field of a dataclass that is a key of recipes."""
    metadata = {"kind": kind, "about": about}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _require(good: bool) -> None:
    if not good:
        raise ValueError


def _as_text(value: Any) -> str:
    _require(isinstance(value, str))
    return str(value)


text = Kind("a text", _as_text, is_text=True)


def choice(*values: str) -> Kind:
    """One of some texts."""

    def check(value: Any) -> str:
        _require(isinstance(value, str) and value in values)
        return str(value)

    return Kind(f"one of {', '.join(values)}", check, choices=values, is_text=True)


def _as_flag(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


flag = Kind("true or false", _as_flag, is_flag=True)


def integer(low: int, high: int | None = None) -> Kind:
    """A whole number of at least `low`."""

    def check(value: Any) -> int:
        _require(isinstance(value, int) and not isinstance(value, bool) and value >= low)
        _require(high is None or value <= high)
        return int(value)

    return Kind(f"a whole number of at least {low}" + ("" if high is None else f", at most {high}"), check)


def number(low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """A finite number of at least `low` (`above`: more than it), at most `high` (`below`: less)."""

    def check(value: Any) -> float:
        _require(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
        _require(low <= value <= high and not (above and value == low) and not (below and value == high))
        return float(value)

    expected = f"a number {'above' if above else 'of at least'} {low:g}"
    if math.isfinite(high):
        expected += f" and {'below' if below else 'at most'} {high:g}"
    return Kind(expected, check)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def numbers(*, positive: bool = False) -> Kind:
    """Finite numbers, one for each channel or one for all; a number alone is a list of one; or "computed"."""

    def check(value: Any) -> list[float] | str:
        if value == COMPUTED:
            return COMPUTED
        for item in (found := _as_list(value)):
            _require(isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item))
            _require(item > 0 or not positive)
        return [float(item) for item in found]

    return Kind("numbers" + (" above 0" if positive else "") + f', one a channel, or "{COMPUTED}"', check)


def _as_counts(value: Any) -> list[int] | int:
    found = _as_list(value)
    _require(all(isinstance(item, int) and not isinstance(item, bool) and item >= 1 for item in found))
    _require(all(a < b for a, b in pairwise(found)))
    return found if isinstance(value, list | tuple) else int(value)


counts = Kind("increasing whole numbers of at least 1, or one such number", _as_counts)


def _as_names(value: Any) -> list[str]:
    found = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else _as_list(value)
    _require(all(isinstance(item, str) for item in found))
    return found


names = Kind("texts", _as_names, is_text=True)


def _as_table(value: Any) -> dict[str, Any]:
    _require(isinstance(value, dict) and all(isinstance(name, str) for name in value))
    return dict(value)


table = Kind("a table of options of the net", _as_table)


def _as_steps(value: Any) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    _require(isinstance(value, list | tuple))
    for step in value:
        _require(isinstance(step, dict) and isinstance(step.get("transform"), str))
    return [dict(step) for step in value]


steps = Kind('a name of an augmentation, or a list of { transform = "NAME", ... }', _as_steps)


_OF_GROUP = ("lr_scale", "weight_decay", "frozen")


def _as_groups(value: Any) -> list[dict[str, Any]]:
    _require(isinstance(value, list | tuple) and all(isinstance(group, dict) for group in value))
    result = []
    for index, group in enumerate(value):
        for name in group:
            if name not in ("match", *_OF_GROUP):
                raise ArgumentError(f"group {index}: there is no {name!r}; there is match, {', '.join(_OF_GROUP)}")
        settings = dict(group)
        try:
            settings["match"] = _as_names(group["match"])
            _require(bool(settings["match"]))
        except (KeyError, ValueError):
            found = repr(group["match"]) if "match" in group else "missing"
            raise ArgumentError(f"group {index}: 'match' is {found}, expected one or more patterns of names") from None
        if not isinstance(group.get("frozen", False), bool):
            raise ArgumentError(f"group {index}: 'frozen' is {group['frozen']!r}, expected true or false")
        result.append(settings)
    return result


groups = Kind('a list of { match = "PATTERN", lr_scale = X, weight_decay = X, frozen = true }', _as_groups)
