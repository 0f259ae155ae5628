"""Gradients on their way to the other ranks while the backward pass goes on.

    the thread that trains      backward ... begin(0) ... begin(1) ... backward's end, finish()   updates
    the thread of this file                  sum of 0 ...... sum of 1 ............. done

The core calls `begin` and `finish` (see GradientExchange in program.h).
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

import numpy as np

from pycnn.dist._group import Group

__all__ = ["BucketExchange"]

_MOST_TAGS = 32768  # the least that MPI grants


class BucketExchange:
    """Replaces the gradients of this rank by the weighted sum over all ranks. A process has one.

    Args:
        group: All ranks.

    Attributes:
        weight: Factor of this rank's gradients: its share of the images of the batch.
        what: What the ranks do, for errors.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self.weight = 1.0
        self.what = "step"
        self._work: SimpleQueue[tuple[int, np.ndarray] | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._open = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self, bucket: int, gradients: np.ndarray) -> None:
        """Take over the gradients of a bucket, float32 (N,); they are changed in place until `finish` returns."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pycnn-dist", daemon=True)
            self._thread.start()
        with self._changed:
            self._open += 1
        self._work.put((bucket, gradients))

    def finish(self) -> None:
        """Wait for the sums.

        Raises:
            TrainingError: Another rank did not come in time, or has failed.
        """
        with self._changed:
            try:
                while self._open:
                    self._changed.wait()
            except BaseException as stop:  # a signal: the sums end, and the gradients are let go
                self._group.note_failure(f"{self.what}: {type(stop).__name__}")
                while self._open:
                    self._changed.wait()
                raise
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            error: BaseException | None = None
            try:
                if self._error is None:
                    self._sum(*work)
            except BaseException as caught:  # for the thread that trains
                error = caught
            del work
            with self._changed:
                self._error = self._error or error
                self._open -= 1
                self._changed.notify_all()

    def _sum(self, bucket: int, gradients: np.ndarray) -> None:
        if self.weight == 0.0:
            gradients[:] = 0.0  # those of an image that does not count may be anything
        elif self.weight != 1.0:
            gradients *= np.float32(self.weight)
        what = f"{self.what}, sum of gradients, bucket {bucket}"
        self._group.combine_on(self._group.beside, gradients, what, tag=bucket % _MOST_TAGS)
