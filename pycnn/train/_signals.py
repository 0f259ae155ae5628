"""Ending training in order when the process is asked to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from pycnn.fork import renew_after_fork

__all__ = ["Interruption"]


class Interruption:
    """Within it, SIGINT and SIGTERM only set a mark; a second one acts at once.

    The handlers of before are put back at the end; a signal that the process ignores stays ignored.
    Outside of the main thread, where Python allows no handlers, it does nothing. A forked child has
    the handlers of before: nobody in it would look at the mark.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        renew_after_fork(self, Interruption._restore)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                # What the process ignores stays ignored, and what Python did not set could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.act(number)
        self.received = number

    def act(self, number: int) -> None:
        """Do what the signal asks for.

        Raises:
            KeyboardInterrupt: For SIGINT.
            SystemExit: For SIGTERM, with code 143.
        """
        self._restore()
        if number == signal.SIGTERM:
            raise SystemExit(143)
        raise KeyboardInterrupt
