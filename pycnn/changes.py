"""A count of what happens to modules, so that nobody walks a net in which nothing happened."""

from __future__ import annotations

import threading
from typing import Any

from pycnn.fork import renew_after_fork

__all__ = ["Clock", "clock"]


class Clock:
    """Counts changes of any module but those of weights."""

    def __init__(self) -> None:
        self._renew()
        self.now = 0
        renew_after_fork(self, Clock._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def tick(self, changed: Any = None) -> int:
        """Note a change that was made, and return its number, which becomes the `stamp` of what was changed.

        That first: who sees the new count shall see the stamp.
        """
        with self._lock:
            if changed is not None:
                changed.stamp = self.now + 1
            self.now += 1
            return self.now


clock = Clock()
