"""What a fork would leave unusable in the child: there, only the thread that forked goes on.

Locks that other threads held stay locked for ever, threads that somebody waits for do not exist.
Whoever has such a thing says here how to make it anew. The new lock replaces the old one as an
attribute, so that a ``with`` statement that the forking thread itself is in gives back the one it
took. Sections under a lock write such that whatever another thread had done at the fork is a whole.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["renew_after_fork"]

T = TypeVar("T")

_renewals: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def renew_after_fork(owner: T, renew: Callable[[T], None]) -> None:
    """Call ``renew(owner)`` in every child that is forked while `owner` lives.

    Args:
        owner: Hashable by identity; it is not kept alive.
        renew: Makes locks and threads anew; must not fail, and must not hold `owner` (a plain function does not).
    """
    _renewals[owner] = renew


def _renew() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):  # not on every system
    os.register_at_fork(after_in_child=_renew)
