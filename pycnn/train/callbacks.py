"""What may happen between steps and epochs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

from pycnn.arguments import as_path
from pycnn.errors import ArgumentError
from pycnn.textfile import write_text
from pycnn.train._files import make_directory
from pycnn.train._ranks import is_main

if TYPE_CHECKING:
    from pycnn.train.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "JSONLines",
    "LambdaCallback",
    "ModelCheckpoint",
]


class Callback:
    """Base of the callbacks; each method does nothing unless overridden.

    What `state_dict` gives travels in checkpoints, so that a resumed training goes on as the
    uninterrupted one.
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before an epoch, counted from 0."""

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """After each step, with what `Trainer.step` returns."""

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """After each epoch, with its row of the history."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch; not when training was broken off by an error."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback remembers, as plain JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def is_better(value: float, best: float | None, mode: str, margin: float = 0.0) -> bool:
    """Whether a metric is an improvement; NaN never is."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value > best + margin if mode == "max" else value < best - margin


def default_mode(name: str) -> str:
    """Losses are to be small, everything else large."""
    return "min" if "loss" in name else "max"


class _Monitor(Callback):
    """Follows one value of the history and its best."""

    def __init__(self, monitor: str | None, mode: str | None) -> None:
        who = type(self).__name__
        if mode not in (None, "min", "max"):
            raise ArgumentError(f"{who}: mode must be 'min' or 'max', got {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None

    def observe(self, logs: dict[str, Any], margin: float = 0.0) -> bool:
        """Note an epoch; whether it is the best so far.

        Raises:
            ArgumentError: The history has no such value.
        """
        name = self.monitor or default_monitor(logs)
        if name not in logs:
            raise ArgumentError(
                f"{type(self).__name__}: no value {name!r} in the history\n  hint: there is {', '.join(logs)}"
            )
        value = float(logs[name])
        better = is_better(value, self.best, self.mode or default_mode(name), margin)
        if better:
            self.best = value
        return better


def default_monitor(logs: dict[str, Any]) -> str:
    """Validation accuracy, or validation loss, or accuracy, or loss: the first that is there."""
    for name in ("val_accuracy", "val_loss", "accuracy"):
        if name in logs:
            return name
    return "loss"


class EarlyStopping(_Monitor):
    """End training when a metric has stopped improving.

    Args:
        patience: Epochs without improvement that are still borne.
        monitor: A value of the history. Default: "val_accuracy", else "val_loss", "accuracy",
            "loss".
        mode: "max" or "min". Default: "min" for losses, "max" for all else.
        min_delta: What an improvement must exceed.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(
        self,
        patience: int = 5,
        *,
        monitor: str | None = None,
        mode: str | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise ArgumentError(f"EarlyStopping: patience must be an integer of at least 0, got {patience!r}")
        if not math.isfinite(min_delta) or min_delta < 0:
            raise ArgumentError(f"EarlyStopping: min_delta must be at least 0, got {min_delta!r}")
        self.patience = patience
        self.min_delta = min_delta
        self.bad_epochs = 0

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Count epochs without improvement."""
        if self.observe(logs, self.min_delta):
            self.bad_epochs = 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        """Best value and epochs without improvement."""
        return {"best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.best, self.bad_epochs = state["best"], state["bad_epochs"]


class ModelCheckpoint(_Monitor):
    """Write a checkpoint after every epoch; keep the last ones and the best.

    The files are called ``epoch-0001.safetensors`` and ``best.safetensors``. The best one holds the
    net alone (with `ema_decay`, the averaged weights that validation saw).

    Args:
        directory: Made when it does not exist.
        keep: How many of the last epochs to keep, at least 1.
        monitor: What "best" means, as `EarlyStopping`.
        mode: As `EarlyStopping`.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(
        self,
        directory: str | PathLike[str],
        *,
        keep: int = 3,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ArgumentError(f"ModelCheckpoint: keep must be at least 1, got {keep!r}")
        self.directory = as_path(directory, who="ModelCheckpoint")
        self.keep = keep
        self.written: list[str] = []

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write, then remove what is too old.

        Raises:
            FileError: The system refused; what was written before is still there.
        """
        make_directory(self.directory, who="ModelCheckpoint")
        before = self.written, self.best
        name = f"epoch-{logs['epoch']:04d}.safetensors"
        files = [*(n for n in self.written if n != name), name]
        # The checkpoint itself tells what is there once it is written.
        self.written, old = files[-self.keep :], files[: -self.keep]
        try:
            better = self.observe(logs)
            trainer.save_checkpoint(self.directory / name)
            if better:
                trainer.save_best(self.directory / "best.safetensors")
        except BaseException:
            self.written, self.best = before
            raise
        for stale in old if is_main() else ():
            with contextlib.suppress(OSError):  # It is older, and harms nobody.
                (self.directory / stale).unlink()

    def state_dict(self) -> dict[str, Any]:
        """Best value and the files that are there."""
        return {"best": self.best, "written": self.written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.best, self.written = state["best"], list(state["written"])


class CSVLogger(Callback):
    """Write the history as a CSV file after every epoch.

    Args:
        path: The file; it is written anew each time.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = as_path(path, who="CSVLogger")

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write the table."""
        if not is_main():
            return
        make_directory(self.path.parent, who="CSVLogger")
        trainer.history.to_csv(self.path)


class JSONLines(Callback):
    """Write the history as one JSON object a line after every epoch.

    Args:
        path: The file; it is written anew each time, so that a resumed training leaves no line
            twice.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = as_path(path, who="JSONLines")

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write the lines."""
        if not is_main():
            return
        make_directory(self.path.parent, who="JSONLines")
        lines = "".join(json.dumps(row) + "\n" for row in trainer.history)
        write_text(self.path, lines)


class LambdaCallback(Callback):
    """Functions as a callback.

    Args:
        on_fit_begin: Called with the trainer.
        on_epoch_begin: Called with the trainer and the epoch (from 0).
        on_step_end: Called with the trainer and the values of the step.
        on_epoch_end: Called with the trainer and the row of the history.
        on_fit_end: Called with the trainer.

    Example:
        >>> report = LambdaCallback(on_epoch_end=lambda trainer, logs: print(logs["loss"]))
    """

    def __init__(
        self,
        *,
        on_fit_begin: Callable[[Trainer], Any] | None = None,
        on_epoch_begin: Callable[[Trainer, int], Any] | None = None,
        on_step_end: Callable[[Trainer, dict[str, float]], Any] | None = None,
        on_epoch_end: Callable[[Trainer, dict[str, Any]], Any] | None = None,
        on_fit_end: Callable[[Trainer], Any] | None = None,
    ) -> None:
        self._fit_begin = on_fit_begin
        self._epoch_begin = on_epoch_begin
        self._step_end = on_step_end
        self._epoch_end = on_epoch_end
        self._fit_end = on_fit_end

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Call the function, if there is one."""
        if self._fit_begin is not None:
            self._fit_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Call the function, if there is one."""
        if self._epoch_begin is not None:
            self._epoch_begin(trainer, epoch)

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Call the function, if there is one."""
        if self._step_end is not None:
            self._step_end(trainer, logs)

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Call the function, if there is one."""
        if self._epoch_end is not None:
            self._epoch_end(trainer, logs)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Call the function, if there is one."""
        if self._fit_end is not None:
            self._fit_end(trainer)
