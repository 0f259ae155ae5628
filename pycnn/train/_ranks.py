"""Training in several processes: what a trainer and its loop do together with those of the other ranks.

Each rank has a whole net and a part of every batch. Gradients are averaged over the images of the whole batch before
each update, running statistics of batch norms after it, so all ranks hold the same bits after every step:

    begin_step   which step, how many images on which rank; the first time, everything of rank 0 goes to all
    the program  forward and backward on this rank's images; sum of the gradients; the same update on every rank
    end_step     running statistics; loss and metrics over all ranks; whether a rank was told to stop
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.dist._environment import place
from pycnn.dist._group import Group, on_all_ranks, shown_ranks
from pycnn.dist._start import current_exchange, current_group
from pycnn.errors import ArgumentError
from pycnn.version import __version__

if TYPE_CHECKING:
    from pycnn.train._loop import Totals
    from pycnn.train.trainer import Trainer

__all__ = ["Ranks", "is_main", "join", "joined"]


def is_main() -> bool:
    """Whether this process writes files and reports: it is alone, or rank 0."""
    return place().rank == 0


def join(device: str) -> Ranks | None:
    """The ranks, or None when this process is alone.

    Raises:
        ArgumentError: There are several, and `device` is no CPU.
        UnsupportedError: There are several, but no mpi4py.
    """
    group = current_group()
    if group is None:
        return None
    if device not in ("cpu", "auto"):
        raise ArgumentError(f"Trainer: device is {device!r}, several processes train on the CPU only so far")
    return Ranks(group)


class Ranks:
    """This trainer's side of all ranks.

    Attributes:
        exchange: Sums up gradients; for compiled programs.
        shard: Rank, and number of ranks.
        samples: Images of the last step, over all ranks.
        signal: The largest number of a signal that a rank had received after the last step or epoch; 0 for none.
        lost: Says on which ranks the loss was not finite in the last step; "" for none.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self.exchange = current_exchange(group)
        self.shard = group.rank, group.size
        self.samples = 0
        self.signal = 0
        self.lost = ""
        self._weights: list[float] = []
        self._versions: dict[str, int] = {}
        self._is_synchronised = False

    def guard(self, who: str) -> AbstractContextManager[None]:
        """Tells the other ranks what is raised within."""
        return self._group.guard(who)

    # ---- The same everywhere

    def synchronise(self, trainer: Trainer, who: str, image_shape: Sequence[int], plan: dict[str, Any]) -> None:
        """Compare with the other ranks, then take over all arrays of rank 0.

        Args:
            trainer: Of this rank.
            who: For errors.
            image_shape: For layers that take their sizes from it.
            plan: What else must be the same.

        Raises:
            ArgumentError: A rank has another net or plan; the same on all ranks.
        """
        if not all(module.is_built() for _, module in trainer.net.named_modules()):
            trainer.net.build(tuple(image_shape))
        named = list(trainer.net.named_tensors())
        form = repr([(name, tuple(tensor.shape), tensor.trainable) for name, tensor in named])
        kept = [name for name in trainer.variables if name.startswith(("optim.", "ema.", "train."))]
        own = {
            "version": __version__,
            "net": type(trainer.net).__name__,
            "parameters": trainer.net.num_parameters,
            "names and shapes": zlib.crc32(form.encode()),
            **trainer.identity(),
            "steps": trainer.steps,
            "state": kept,
            **plan,
        }
        self._group.agree(who, own)
        arrays = [tensor.tensor for _, tensor in named] + [trainer.variables[name] for name in kept]
        for tensor in arrays:
            values = np.array(tensor.numpy(), order="C")
            self._group.broadcast_into(values, 0, f"{who}: weights of rank 0")
            if self._group.rank:
                tensor.copy_(values)
        if self._group.rank:
            # Other dropout than on rank 0; it is rank 0 that writes checkpoints, with the seed itself.
            words = np.random.SeedSequence((trainer.seed, self._group.rank)).generate_state(1, np.uint64)
            trainer.variables["train.seed"] = (words >> np.uint64(1)).astype(np.int64)
        self._is_synchronised = True

    # ---- One step

    def begin_step(self, trainer: Trainer, images: np.ndarray, samples: int) -> None:
        """Settle what each rank's gradients count.

        Args:
            trainer: Of this rank.
            images: Of this rank.
            samples: How many of them count.

        Raises:
            ArgumentError: A rank has images of another form, or other frozen parameters; the same on all ranks.
            TrainingError: A rank is at another step, did not come in time, or has failed.
        """
        if not self._is_synchronised:
            self.synchronise(trainer, "step", images.shape[1:], {})
        what = f"step {trainer.steps + 1}"
        self.exchange.what = what
        trainable = bytes(p.trainable for p in trainer.net.parameters())
        own = [[*images.shape[1:]], images.dtype.name, zlib.crc32(trainable), samples]
        values = self._group.gather(what, own)
        names = ("image shape", "image type", "frozen parameters")
        for rank, value in enumerate(values):
            for name, here, there in zip(names, values[0], value, strict=False):
                if here != there:
                    raise on_all_ranks(
                        ArgumentError(f"{what}: rank {rank} has {name} {there}, rank 0 has {here}: it must be the same")
                    )
        counts = [value[-1] for value in values]
        self.samples = sum(counts)
        self._weights = [count / self.samples for count in counts]
        self.exchange.weight = self._weights[self._group.rank]
        self._versions = {name: tensor.core.version for name, tensor in trainer.net.named_tensors()}

    def end_step(self, trainer: Trainer, values: dict[str, float], signal: int) -> dict[str, float]:
        """Average statistics and values over the ranks.

        Args:
            trainer: Of this rank.
            values: Of this rank.
            signal: That this rank has received; 0 for none.

        Returns:
            Means over all images of the batch.
        """
        what = f"step {trainer.steps}"
        self._average_statistics(trainer, what)
        rows = self._group.gather(f"{what}, loss", [signal, values])
        self.signal = max(row[0] for row in rows)
        counted = [(weight, row[1]) for weight, row in zip(self._weights, rows, strict=True) if weight]
        lost = [
            rank
            for rank, row in enumerate(rows)
            if self._weights[rank] and not math.isfinite(row[1].get("loss", math.nan))
        ]
        self.lost = f" on {shown_ranks(lost)} of {self._group.size}" if lost else ""
        return {name: sum(weight * row[name] for weight, row in counted) for name in values}

    def _average_statistics(self, trainer: Trainer, what: str) -> None:
        """Of what the step has moved on each rank by its own images: the means over all images."""
        moved = [
            tensor.tensor
            for name, tensor in trainer.net.named_tensors()
            if tensor.is_buffer and tensor.dtype == "float32" and tensor.core.version != self._versions.get(name)
        ]
        if not moved:
            return
        flat = np.concatenate([tensor.numpy().reshape(-1) for tensor in moved])
        if self.exchange.weight:
            flat *= np.float32(self.exchange.weight)
        else:
            flat[:] = 0.0
        self._group.sum_records(flat, f"{what}, running statistics")
        start = 0
        for tensor in moved:
            end = start + math.prod(tensor.shape)
            tensor.copy_(flat[start:end].reshape(tensor.shape))
            start = end

    # ---- Epochs

    def agree_on_epoch(self, row: dict[str, Any], *, stopping: bool, signal: int) -> tuple[dict[str, Any], bool]:
        """Rank 0's row of the history, and whether any rank is to stop; notes signals."""
        values = self._group.gather(f"epoch {row['epoch']}", [row, stopping, signal])
        self.signal = max(value[2] for value in values)
        return values[0][0], any(value[1] for value in values)

    def total(self, totals: Totals) -> None:
        """Add up what each rank has measured."""
        rows = self._group.gather("evaluate", [totals.samples, totals.sums])
        names: Sequence[str] = next((list(row[1]) for row in rows if row[0]), [])
        totals.samples = sum(row[0] for row in rows)
        totals.sums = {name: sum(row[1][name] for row in rows if row[0]) for name in names}

    def barrier(self, what: str) -> None:
        """Wait for the other ranks."""
        self._group.gather(what, None)


def joined(ranks: Ranks | None, who: str) -> AbstractContextManager[None]:
    """The guard of several ranks; of one, nothing."""
    return nullcontext() if ranks is None else ranks.guard(who)
