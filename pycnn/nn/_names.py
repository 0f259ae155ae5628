"""Which names layers and parameters may have, so that every net that trains can be saved and loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["KEPT_PREFIXES", "clash", "refusal"]

#: A file keeps a trainer's own arrays under these names beside the net's.
KEPT_PREFIXES = ("constant", "ema", "optim", "train")

# Arrays that a recorded net computes with; the recording names them so.
_CONSTANT = re.compile(r"constant\.\d+")

#: `features` is what published nets call their convolutional part.
_ALLOWED = frozenset(("features",))


def refusal(name: str, reserved: Iterable[str]) -> str | None:
    """Why a name cannot be given to a layer or parameter; None when it can.

    Args:
        name: The attribute, without dots of the path to it.
        reserved: What modules call something else.
    """
    if not name:
        return "the name is empty"
    if "." in name:
        return "a dot separates the names of nested layers"
    if any(c < " " or "\x7f" <= c < "\xa0" or "\ud800" <= c <= "\udfff" for c in name):
        return "control characters and lone surrogates cannot stand in a file"
    if name in reserved and name not in _ALLOWED:
        return "a method or property of modules has this name; choose another one"
    return None


def clash(names: Iterable[str]) -> str | None:
    """The first name below a layer that is called like the arrays of a trainer."""
    return next(
        (
            name
            for name in names
            if name.partition(".")[0] in KEPT_PREFIXES and "." in name and not _CONSTANT.fullmatch(name)
        ),
        None,
    )
