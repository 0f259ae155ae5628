"""The loop of `Trainer.fit`: epochs, steps, validation, checkpoints, interruption."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pycnn.arguments import as_path
from pycnn.data import Loader
from pycnn.dist._group import on_all_ranks
from pycnn.errors import Error, FileError, TrainingError
from pycnn.optim.schedules import ReduceOnPlateau
from pycnn.tensor import stack_level
from pycnn.train._programs import AHEAD, PendingMeans
from pycnn.train._progress import Progress
from pycnn.train._signals import Interruption
from pycnn.train.callbacks import Callback, default_monitor, is_better

if TYPE_CHECKING:
    from pycnn.train.trainer import Trainer

__all__ = ["Position", "Totals", "run"]


@dataclass
class Totals:
    """Sums over the samples of an epoch so far."""

    samples: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float], samples: int) -> None:
        """Count a batch whose means are given."""
        self.samples += samples
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * samples

    def means(self) -> dict[str, float]:
        """Means over all samples."""
        return {name: value / self.samples for name, value in self.sums.items()}


@dataclass
class Position:
    """Where `fit` stands; all of it travels in a checkpoint.

    Attributes:
        epoch: Epochs done.
        batch: Batches done of the current epoch.
        totals: Of the current epoch.
        best: Best validation metric so far.
        data: What the data looked like, to refuse other data when resuming.
    """

    epoch: int = 0
    batch: int = 0
    totals: Totals = field(default_factory=Totals)
    best: float | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what no training leaves behind.

        Raises:
            ValueError: Names the field.
        """
        counts = {"epoch": self.epoch, "batch": self.batch, "samples": self.totals.samples}
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} is {count!r}")
        sums = self.totals.sums
        for name, value in (("data", self.data), ("sums", sums)):
            if not isinstance(value, dict):
                raise ValueError(f"{name} is {value!r}")
        for name, number in {**sums, **({} if self.best is None else {"best": self.best})}.items():
            if not isinstance(number, int | float):
                raise ValueError(f"{name} is {number!r}")


@dataclass
class Plan:
    """Arguments of `fit`, settled."""

    loader: Loader
    val: Loader | None
    epochs: int
    callbacks: Sequence[Callback]
    directory: Path | None
    progress: bool
    on_save_error: str = "raise"
    save_best: bool = True


def run(trainer: Trainer, plan: Plan) -> None:
    """Train until the last epoch, `Trainer.stop`, a signal or an error."""
    progress = Progress(enabled=plan.progress, epochs=plan.epochs)
    if not all(module.is_built() for _, module in trainer.net.named_modules()):
        trainer.net.build(plan.loader.image_shape)
    fingerprint = trainer.fingerprint()
    with Interruption() as interruption:
        for callback in plan.callbacks:
            callback.on_fit_begin(trainer)
        try:
            while trainer.position.epoch < plan.epochs and not trainer.stopping:
                before, steps = fingerprint, trainer.steps
                _epoch(trainer, plan, progress, interruption)
                fingerprint = trainer.fingerprint()
                if fingerprint == before and trainer.steps > steps:
                    trainer.warn_unchanged(f"epoch {trainer.position.epoch}")
        finally:
            progress.end(None)
        for callback in plan.callbacks:
            callback.on_fit_end(trainer)
    trainer.history.fingerprint = fingerprint
    progress.say(f"weights {trainer.history.fingerprint}")


def _epoch(trainer: Trainer, plan: Plan, progress: Progress, interruption: Interruption) -> None:
    position, loader = trainer.position, plan.loader
    for callback in plan.callbacks:
        callback.on_epoch_begin(trainer, position.epoch)
    started, images_before = time.perf_counter(), position.totals.samples
    # A signal after the last step leaves nothing to do but to close the epoch.
    is_complete = position.batch >= len(loader)
    loader.seek(position.epoch, 0 if is_complete else position.batch)
    progress.begin(position.epoch, _images(loader), images_before)
    batches = iter(()) if is_complete else iter(loader)
    # Steps on a GPU are begun some ahead of what is known of them, and their losses stay there; not where a callback
    # looks after each step.
    ahead = 0 if any(_looks_at_steps(callback) for callback in plan.callbacks) else AHEAD
    begun: deque[tuple[int, PendingMeans, int]] = deque()

    def end_step() -> None:
        step, pending, count = begun[0]
        values = pending.wait()
        if not math.isfinite(values["loss"]):
            _diverged(trainer, f"the loss is {values['loss']}{trainer.lost} at", position.batch + 1, step)
        begun.popleft()
        position.totals.add(values, count)
        position.batch += 1
        elapsed = time.perf_counter() - started
        progress.step(count, values["loss"], 100.0 * loader.wait_seconds / elapsed)
        for callback in plan.callbacks:
            callback.on_step_end(trainer, values)

    try:
        for x, y in batches:
            own, count = loader.samples(position.batch + len(begun))
            pending = trainer.begin_batch(x, y, samples=own, signal=interruption.received or 0, late=ahead > 0)
            begun.append((trainer.steps, pending, count))
            while len(begun) > (ahead if pending.overlaps else 0):
                end_step()
            if received := _received(trainer, interruption):
                while begun:
                    end_step()
                _check_weights(trainer)
                _save_last(trainer, plan)
                _act(trainer, interruption, received)
        while begun:
            end_step()
    finally:
        _count(position, begun)
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    _check_weights(trainer)
    seconds = time.perf_counter() - started
    row: dict[str, Any] = {"epoch": position.epoch + 1, **position.totals.means()}
    row["learning_rate"] = trainer.rate
    if trainer.scales_loss:
        row["loss_scale"] = trainer.loss_scale
    row["seconds"] = seconds
    row["images_per_second"] = (position.totals.samples - images_before) / max(seconds, 1e-9)
    row["data_wait_percent"] = 100.0 * loader.wait_seconds / max(seconds, 1e-9)
    if plan.val is not None:
        measured = trainer.validate(plan.val)
        row.update({f"val_{name}": value for name, value in measured.items()})
    if trainer.ranks is not None:
        # So that all come to the same decisions.
        row, _ = trainer.ranks.agree_on_epoch(row, stopping=False, signal=0)
    _close_epoch(trainer, plan, row)
    if trainer.ranks is not None:
        received = interruption.received or 0
        _, trainer.stopping = trainer.ranks.agree_on_epoch(row, stopping=trainer.stopping, signal=received)
    progress.end(row)
    if received := _received(trainer, interruption):
        _act(trainer, interruption, received)


def _received(trainer: Trainer, interruption: Interruption) -> int | None:
    """The signal to act upon; of several ranks all act upon the one that any had received, at the same step."""
    if trainer.ranks is not None:
        return trainer.ranks.signal
    return interruption.received


def _act(trainer: Trainer, interruption: Interruption, received: int) -> None:
    try:
        interruption.act(received)
    except BaseException as stop:
        if trainer.ranks is not None:
            on_all_ranks(stop)
        raise


def _looks_at_steps(callback: Callback) -> bool:
    return getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end


def _count(position: Position, begun: deque[tuple[int, PendingMeans, int]]) -> None:
    """Count steps that were made when something else broke the epoch off: training goes on after them."""
    for _, pending, count in begun:
        try:
            values = pending.wait()
        except Error:
            return
        if not math.isfinite(values["loss"]):
            return
        position.totals.add(values, count)
        position.batch += 1


def _images(loader: Loader) -> int:
    count = len(loader.dataset)
    return len(loader) * loader.batch_size if loader.drop_last else count


def _close_epoch(trainer: Trainer, plan: Plan, row: dict[str, Any]) -> None:
    position = trainer.position
    trainer.history.append(row)
    position.epoch += 1
    position.batch = 0
    position.totals = Totals()
    name = default_monitor(row)
    if isinstance(trainer.schedule, ReduceOnPlateau) and trainer.schedule.mode == "min":
        name = "val_loss" if "val_loss" in row else "loss"
    trainer.schedule.observe(row[name])
    monitor = default_monitor(row)
    better = is_better(row[monitor], position.best, "min" if "loss" in monitor else "max")
    if better:
        position.best = float(row[monitor])
    for callback in plan.callbacks:
        callback.on_epoch_end(trainer, row)
    if plan.directory is not None:
        if better and plan.save_best:
            _save(plan, trainer.save_best, plan.directory / "best.safetensors")
        _save_last(trainer, plan)


def _save_last(trainer: Trainer, plan: Plan) -> None:
    if plan.directory is not None:
        path = plan.directory / "last.safetensors"
        if _save(plan, trainer.save_checkpoint, path):
            trainer.last_checkpoint = path
    if trainer.ranks is not None:
        trainer.ranks.barrier("checkpoint")


def _save(plan: Plan, write: Callable[[Path], None], path: Path) -> bool:
    """Write a checkpoint; False when that failed and training goes on nevertheless."""
    try:
        write(path)
    except FileError as error:
        if plan.on_save_error == "raise":
            raise
        warnings.warn(f"fit: {error}; training goes on without this checkpoint", RuntimeWarning, stack_level())
        return False
    return True


def _check_weights(trainer: Trainer) -> None:
    """Stop before lost weights replace the last good checkpoint: the loss tells only in the step after."""
    lost = trainer.lost_weights()
    if lost:
        names = ", ".join(f"'{name}'" for name in lost[:3]) + (", ..." if len(lost) > 3 else "")
        _diverged(
            trainer,
            f"{len(lost)} parameters hold NaN or infinity ({names}) after",
            trainer.position.batch,
            trainer.steps,
        )


def _diverged(trainer: Trainer, what: str, batch: int, step: int) -> NoReturn:
    kept = trainer.last_checkpoint
    error = TrainingError(
        f"fit: {what} step {step} (epoch {trainer.position.epoch + 1}, "
        f"batch {batch}, learning rate {trainer.rate:g})\n  "
        + (f"last good checkpoint: {kept}" if kept else "no checkpoint was written")
        + "\n  hint: try a smaller learning rate or clip_norm"
        + (", or bfloat16, whose range is float32's" if trainer.scales_loss else "")
    )
    raise error if trainer.ranks is None else on_all_ranks(error)


def checkpoint_path(directory: str | PathLike[str] | None) -> Path | None:
    """A directory for checkpoints, or None."""
    return None if directory is None else as_path(directory, who="fit: checkpoint_dir")
