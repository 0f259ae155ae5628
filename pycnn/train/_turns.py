"""Whose turn it is to train a net: trainers of one net write the same weights."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from pycnn.errors import TrainingError
from pycnn.fork import renew_after_fork
from pycnn.nn.module import Module

__all__ = ["Turn", "turn_of"]


class Turn:
    """Had by one trainer of a net at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        renew_after_fork(self, Turn._renew)

    def _renew(self) -> None:
        # The forking thread keeps it, and its number: a callback within `fit` may have forked.
        if self._thread != threading.get_ident():
            self._lock, self._thread = threading.Lock(), None

    @property
    def is_taken_elsewhere(self) -> bool:
        """Whether another thread has it."""
        return self._lock.locked() and self._thread != threading.get_ident()

    @contextmanager
    def take(self, who: str) -> Iterator[None]:
        """Have it until the end of the block.

        Raises:
            TrainingError: Another thread has it, or an outer call.
        """
        lock = self._lock
        if not lock.acquire(blocking=False):
            raise TrainingError(f"{who}: this net is training already, in another thread or an outer call")
        try:
            self._thread = threading.get_ident()
            yield
        finally:
            self._thread = None
            lock.release()


_turns: weakref.WeakKeyDictionary[Module, Turn] = weakref.WeakKeyDictionary()


def turn_of(net: Module) -> Turn:
    """The one that all trainers of a net share."""
    return _turns.setdefault(net, Turn())
