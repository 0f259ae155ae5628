"""Where the images of a training are: who cuts windows of them, and which of them stay on the device."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Collection
from typing import Any, NoReturn

import numpy as np

from pycnn.data import Loader
from pycnn.data.transforms._windows import Uncut
from pycnn.errors import ArgumentError, MemoryLimitError
from pycnn.fork import renew_after_fork
from pycnn.train._programs import AHEAD, BatchProgram, PendingMeans, ProgramSet
from pycnn.train._resume import describe
from pycnn.train._turns import Turn

__all__ = ["Placement", "check_augmenter"]

# Bytes of images that are kept on a GPU without being asked for.
_MOST_RESIDENT = 1 << 30


class Placement:
    """Settles `augment_in` of `Trainer.fit`.

    Images stay on the device while programs find memory beside them: those for validation are given up first, then
    those of the training, unless they were asked for. From then on each batch is sent.

    Several threads may ask for programs at once. They are made side by side, but where memory is short, what one thread
    gives up is there for the others before these give up anything.
    """

    def __init__(self, training: ProgramSet, measuring: ProgramSet, device: str, turn: Turn) -> None:
        self._training = training
        self._measuring = measuring
        self._device = device
        self._turn = turn
        self._must_keep = False
        self._begun: deque[PendingMeans] = deque(maxlen=AHEAD + 1)
        self._given_up = 0  # so many times
        self._renew()
        renew_after_fork(self, Placement._renew)

    def _renew(self) -> None:
        # One for all, since what is recorded may measure and what is placed drops programs.
        self._lock = threading.RLock()
        for programs in (self._training, self._measuring):
            programs.renew(self._lock)

    def settle(self, train: Loader, val: Loader | None, wanted: str, names: Collection[str]) -> None:
        """Settle who augments, and keep the images that can be; the loaders' batches fit that from then on.

        Args:
            train: Of the training.
            val: Of its validation.
            wanted: As `check_augmenter` accepts it.
            names: Of the net's own arrays.

        Raises:
            ArgumentError: It cannot be had.
            MemoryLimitError: "resident", and there is no memory for a copy of the images.
        """
        with self._lock:
            self._settle(train, val, wanted, names)

    def _settle(self, train: Loader, val: Loader | None, wanted: str, names: Collection[str]) -> None:
        self._must_keep = wanted == "resident"
        self._begun.clear()  # what was broken off would keep images that are dropped here
        if wanted == "loader" or (wanted == "auto" and not self._device.startswith("cuda")):
            self._training.drop_images()
            self._measuring.drop_images()
            return
        room = 0 if wanted == "step" else _MOST_RESIDENT
        is_kept = self._keep(self._training, train, math.inf if self._must_keep else room, names)
        if not is_kept:
            is_left = not self._must_keep and train._leave_uncut(whole=False)
            if not is_left and wanted != "auto":
                self._measuring.drop_images()
                self._refuse(train, wanted)
        if val is None:
            self._measuring.drop_images()
        else:
            self._keep(self._measuring, val, room - _image_bytes(train) if is_kept else room, names)

    def _refuse(self, train: Loader, wanted: str) -> NoReturn:
        data = train.dataset
        kind, of_kind = type(data).__name__, " of an ArrayDataset" if self._must_keep else ""
        raise ArgumentError(
            f"fit: augment_in is {wanted!r}, and takes uint8 images{of_kind} and a transform of one RandomCrop or "
            f"RandomShift, RandomHorizontalFlip and a last Cutout\n  there are {data.image_dtype} images of "
            f"{kind}, and transform={describe(train.transform)}"
        )

    def _keep(self, programs: ProgramSet, loader: Loader, room: float, names: Collection[str]) -> bool:
        """Keep the images of a loader for these programs, where they take no more bytes than `room`."""
        if _image_bytes(loader) <= room and programs.images_name not in names and loader._leave_uncut(whole=True):
            images: np.ndarray = loader.dataset.images  # type: ignore[attr-defined]
            if programs is self._training and not programs.has_place_for(images):
                self._measuring.drop_images()  # which need not lie beside the old images and the new ones
            try:
                programs.keep_images(images)
                return True
            except MemoryLimitError:
                if programs is self._training and self._must_keep:
                    raise
        programs.drop_images()
        return False

    def program(self, programs: ProgramSet, images: Any, target: np.ndarray) -> tuple[Any, BatchProgram]:
        """A program for a batch, and the batch as that takes it.

        Raises:
            MemoryLimitError: There is no memory for it beside the images that must be kept.
        """
        while True:
            with self._lock:
                if isinstance(images, Uncut) and not programs.keeps_images:
                    images = images.with_own_images()
                before = self._given_up
            try:
                # Without the lock: to make one takes a GPU minutes, in which others may have theirs.
                program = programs.get(images, target)
            except MemoryLimitError:
                # The images of a whole data set may be what is too much; another thread may have seen it meanwhile.
                with self._lock:
                    if self._given_up == before and not self._give_up():
                        raise
            else:
                if program is not None:
                    return images, program

    def note_begun(self, pending: PendingMeans) -> None:
        """Remember a run, which may read images that are to be given up."""
        if pending.overlaps:
            with self._lock:
                self._begun.append(pending)

    def _give_up(self) -> bool:
        """Give back the memory of images, first of those that matter least; False where there are none.

        For a caller that has the lock.
        """
        if self._turn.is_taken_elsewhere:
            return False  # they are read there
        for programs in (self._measuring, self._training):
            if programs.keeps_images and not (programs is self._training and self._must_keep):
                while self._begun:  # runs keep what they read
                    self._begun.popleft().wait()
                programs.drop_images()
                self._given_up += 1
                return True
        return False


def _image_bytes(loader: Loader) -> int:
    return len(loader.dataset) * math.prod(loader.dataset.image_shape)


def check_augmenter(wanted: Any) -> None:
    """Refuse another word for `augment_in`.

    Raises:
        ArgumentError: It is none of the four.
    """
    if not isinstance(wanted, str) or wanted not in ("auto", "loader", "step", "resident"):
        raise ArgumentError(f"fit: augment_in must be 'auto', 'loader', 'step' or 'resident', got {wanted!r}")
