"""Training, evaluation and checkpoints of a net."""

from __future__ import annotations

import copy
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pycnn.arguments import as_integer, as_number
from pycnn.data import Dataset, Loader
from pycnn.data._overlap import warn_shared_files
from pycnn.data.transforms._windows import Uncut
from pycnn.errors import ArgumentError, FormatError, ShapeError, UnsupportedError
from pycnn.nn import _range, files
from pycnn.nn._running import as_input, stack_level
from pycnn.nn.auxiliary import as_auxiliary_weight
from pycnn.nn.module import Module
from pycnn.nn.norm import Normalize
from pycnn.optim.optimizers import SGD, Optimizer
from pycnn.optim.schedules import Constant, Progress, Schedule
from pycnn.program import OptimizerSpec, Variables, check_device, check_numerics, check_recompute
from pycnn.tensor import Tensor
from pycnn.train import _checkpoint, _loop, _ranks, _resume
from pycnn.train._batches import as_dataset, as_target, check_labels
from pycnn.train._files import make_directory
from pycnn.train._placement import Placement, check_augmenter
from pycnn.train._programs import PendingMeans, ProgramSet, in_turn, make_objective
from pycnn.train._turns import turn_of
from pycnn.train.callbacks import Callback
from pycnn.train.fingerprint import weights_fingerprint
from pycnn.train.history import History
from pycnn.train.metrics import as_metrics

__all__ = ["Trainer"]

_NUMBERS = (int, float, np.number)


class Trainer:
    """Trains a net; forward, loss, backward and update of a step are one program.

    Args:
        net: The net; its parameters are changed in place.
        optimizer: Of `pycnn.optim`. Default: ``SGD(lr=0.01, momentum=0.9)``.
        loss: "cross_entropy" (class labels, or probabilities); "mse" (targets of the output's
            shape; class labels become 0 and 1); or a function of the net's result and the target
            that gives a scalar. Default: the net's own (``default_loss``), else cross-entropy.
        dtype: "float32", or "bfloat16": activations and their gradients take half the memory, and are multiplied faster
            (see `pycnn.compile`). Weights, what the optimizer keeps, norms and losses stay float32, so no scaling of
            the loss is needed. "float16", on a GPU alone, has more precision and little range: the loss is multiplied
            by a scale that starts at 65536. A step with a gradient that is not finite halves it and changes nothing
            else; 2000 steps without one double it.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        threads: At most this many; None chooses. The result does not depend on it.
        seed: Of shuffling, augmentation and dropout. Fresh weights follow `pycnn.manual_seed`.
        schedule: Learning rate over time, of `pycnn.optim`. Default: constant.
        clip_norm: Limit of the global L2 norm of the gradients. Default: none.
        ema_decay: Keep averages of the weights, ``average = d * average + (1 - d) * weight`` with
            d rising to this; validation in `fit` then uses the averages (see `use_averages`).
        label_smoothing: For "cross_entropy", in [0, 1].
        auxiliary_weight: Of the losses of auxiliary heads (`pycnn.nn.auxiliary`), which are added to the main output's
            loss while training; 0 trains without the heads. Default: the net's own weights, 0.3 in GoogLeNet. Metrics,
            evaluation and prediction look at the main output alone.
        metrics: "accuracy", "topK", or functions of (scores, labels) that give a scalar mean.
        winograd: Whether training and evaluation may use Winograd's algorithms for convolutions, which are faster and
            round more (see `pycnn.compile`).
        tf32: Whether the tensor cores of a GPU may round float32 to TF32 (see `pycnn.compile`).
        emulate_bfloat16: Let "bfloat16" run on any processor, slowly (see `pycnn.compile`).
        recompute: What a training step computes again instead of keeping it for the backward pass; results have the
            same bits. "none"; "cheap": most of what one pass over kept values gives, such as batch norms applied to a
            kept result; "sqrt": nearly all, segment by segment (Chen et al. 2016, "Training deep nets with sublinear
            memory cost", arXiv:1604.06174): the least memory, for about a third more time.
        normalize: ``(mean, std)`` or a `pycnn.nn.Normalize`: becomes the net's ``normalization``.

    Attributes:
        net: The net.
        steps: Steps made so far; in float16, with those that changed nothing.
        history: One row for each epoch of `fit`.
        variables: Arrays that the programs share: weights, optimizer state, averages, counters, and images that
            `fit` keeps on the device (its `augment_in`), which are in no checkpoint.

    Raises:
        ArgumentError: An argument is out of range or does not go with another.
        DTypeError: `dtype` is none of these.

    Example:
        >>> import pycnn as pc
        >>> train, test = pc.data.digits(seed=0)
        >>> net = pc.models.lenet5()
        >>> trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.05, momentum=0.9), seed=0)
        >>> history = trainer.fit(train, val=test, epochs=3, batch_size=32, progress=False)
        >>> history["val_accuracy"][-1] > 0.8
        True
    """

    def __init__(
        self,
        net: Module,
        *,
        optimizer: Optimizer | None = None,
        loss: str | Callable[[Any, Any], Any] | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
        winograd: bool = True,
        tf32: bool = False,
        emulate_bfloat16: bool = False,
        recompute: str = "cheap",
        seed: int = 0,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        label_smoothing: float = 0.0,
        auxiliary_weight: float | None = None,
        metrics: Sequence[Any] = ("accuracy",),
        normalize: Normalize | tuple[Any, Any] | None = None,
    ) -> None:
        if not isinstance(net, Module):
            raise ArgumentError(f"Trainer: net is {type(net).__name__}, expected a pycnn.nn.Module")
        optimizer = SGD(lr=0.01, momentum=0.9) if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"Trainer: optimizer is {optimizer!r}, expected one of pycnn.optim, for example optim.SGD(lr=0.01)"
            )
        if schedule is not None and not isinstance(schedule, Schedule):
            raise ArgumentError(f"Trainer: schedule is {schedule!r}, expected one of pycnn.optim")
        #: How numbers are multiplied and kept: arguments of `pycnn.program.compile_traced`.
        self.numerics = check_numerics(
            dtype=dtype, emulate_bfloat16=emulate_bfloat16, winograd=winograd, tf32=tf32, who="Trainer"
        )
        device = check_device(device, who="Trainer")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ArgumentError(f"Trainer: seed must be in 0..2**63 - 1, got {seed!r}")
        names = [name for name, _ in net.named_tensors()] if isinstance(net, files.FileModule) else []
        names += [f"{name}.*" for name, _ in net.named_children() if not names]
        files.check_kept_names(names, who="Trainer")
        self.net = net
        self.optimizer = optimizer
        self.seed = seed
        self.schedule: Schedule = Constant() if schedule is None else schedule
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        if clip_norm is not None:
            self.clip_norm = as_number(clip_norm, who="Trainer", name="clip_norm", low=0.0, above=True)
        if ema_decay is not None:
            self.ema_decay = as_number(
                ema_decay, who="Trainer", name="ema_decay", low=0, high=1, above=True, below=True
            )
        smoothing = as_number(label_smoothing, who="Trainer", name="label_smoothing", low=0.0, high=1.0)
        self.auxiliary_weight = as_auxiliary_weight(auxiliary_weight, who="Trainer")
        objective = make_objective(net, loss, smoothing, as_metrics(metrics), self.auxiliary_weight)
        if normalize is not None:
            net.normalization = as_normalize(normalize)
        self.loss = objective.name
        self.history = History()
        self.variables = Variables()
        self.position = _loop.Position()
        self.stopping = False
        self.class_names: tuple[str, ...] | None = None
        self.last_checkpoint: Path | None = None
        self.steps = 0
        self._turn = turn_of(net)
        self._device = device
        self._threads = threads
        self._ranks: _ranks.Ranks | None = None
        self._has_joined = False
        #: Learning rate of the last step; None before the first.
        self.rate: float | None = None
        self._warned: set[str] = set()
        self._steps_per_epoch = 0
        self._epochs = 0
        self._callbacks: tuple[Callback, ...] = ()
        self._callback_states: list[dict[str, Any]] = []
        options: dict[str, Any] = {
            "device": device,
            "threads": threads,
            "numerics": self.numerics,
            "recompute": check_recompute(recompute),
        }
        self._training = ProgramSet(net, objective, self.variables, **options, optimizer=self._spec)
        self._measuring = ProgramSet(net, objective, self.variables, **options, optimizer=None)
        self._placement = Placement(self._training, self._measuring, device, self._turn)
        self.variables["train.seed"] = np.array([seed], np.int64)
        self.variables["train.step"] = np.array([0], np.int64)
        self.variables["train.learning_rate"] = np.array([optimizer.lr], np.float32)

    def _spec(self) -> OptimizerSpec:
        return self.optimizer.spec(
            dict(self.net.named_parameters()),
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
        )

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Refuse pickling and copying.

        Raises:
            UnsupportedError: Always; says what to do.
        """
        raise UnsupportedError(
            "a Trainer cannot be pickled or copied; save_checkpoint keeps all of its state, which load_checkpoint of "
            "another trainer for a copy of the net reads"
        )

    # ---- One step

    @property
    def learning_rate(self) -> float:
        """The rate of the next step.

        Raises:
            ArgumentError: The schedule gives no finite factor of at least 0.
        """
        progress = Progress(self.steps, self.position.epoch, self._steps_per_epoch, self._epochs)
        factor = self.schedule.factor(progress)
        rate = self.optimizer.lr * factor if isinstance(factor, _NUMBERS) else math.nan
        if not 0.0 <= rate < math.inf:
            raise ArgumentError(
                f"Trainer: {_resume.describe(self.schedule)} gives the factor {factor!r} at step {self.steps}; the "
                f"learning rate {self.optimizer.lr:g} needs one that is finite and at least 0"
            )
        return rate

    def step(self, x: Any, y: Any) -> dict[str, float]:
        """Train on one batch: forward, loss, gradients and update in one call of the core.

        Args:
            x: Images (N, H, W, C), float32 or uint8.
            y: Class labels (N,), or targets (N, ...) float32.

        Returns:
            "loss" and the metrics of this batch, before the update.

        Raises:
            LabelError: A label is outside of the classes; the text gives position and value.
            ShapeError: The images do not fit the net, or not one target for each image.
            DTypeError: An element type is not accepted.
            ArgumentError: All parameters are frozen.
            TrainingError: Another thread is training with this trainer.
        """
        with self._turn.take("step"), _ranks.joined(self.ranks, "step"):
            values = self.train_batch(x, y)
            if not math.isfinite(values["loss"]):
                self._warn(
                    "loss",
                    f"the loss is {values['loss']}{self.lost} at step {self.steps}; "
                    + (
                        "the step changed no weight (the net may give numbers beyond float16; try bfloat16)"
                        if self.scales_loss
                        else "the weights are probably lost (try a smaller learning rate or clip_norm)"
                    ),
                )
            return values

    @property
    def scales_loss(self) -> bool:
        """Whether steps scale the loss: those in float16."""
        return bool(self.numerics["dtype"] == "float16")

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before gradients are computed: 1 but in float16 (see `dtype`)."""
        if not self.scales_loss or "train.loss_scale" not in self.variables:
            return 1.0
        return float(self.variables["train.loss_scale"].numpy())

    @property
    def ranks(self) -> _ranks.Ranks | None:
        """The processes that train this net together (see `pycnn.dist`); None when this one is alone.

        Raises:
            ArgumentError: There are several, and the device is no CPU.
            UnsupportedError: There are several, but no mpi4py.
        """
        if not self._has_joined:
            self._ranks, self._has_joined = _ranks.join(self._device), True
            if self._ranks is not None:
                self._training.exchange = self._ranks.exchange
        return self._ranks

    @property
    def lost(self) -> str:
        """On which of several ranks the loss of the last step was not finite, for messages."""
        return "" if self.ranks is None else self.ranks.lost

    def train_batch(self, x: Any, y: Any) -> dict[str, float]:
        """What `step` does, for a caller that holds the trainer already."""
        return self.begin_batch(x, y).wait()

    def begin_batch(
        self, x: Any, y: Any, *, samples: int | None = None, signal: int = 0, late: bool = False
    ) -> PendingMeans:
        """What `train_batch` does, but without waiting for a GPU.

        Args:
            x: Images.
            y: Targets.
            samples: How many of the images count, all or none; only where there are several ranks.
            signal: That has been received, which other ranks are to know.
            late: Nobody asks for the means before some more steps are begun.
        """
        images: Any = x if isinstance(x, Uncut) else as_input(x, who="step: x")
        if not (isinstance(x, Uncut) or images.shape) or not len(images):
            raise ShapeError(f"step: x is {images.shape}, a batch needs at least one image")
        target = as_target(y, len(images), who="step")
        ranks = self.ranks  # before a program is made
        images, program = self._placement.program(self._training, images, target)
        if ranks is not None:
            ranks.begin_step(self, images, len(images) if samples is None else samples)
        if not self.steps & (self.steps - 1):  # the first ones, then ever more rarely: looking takes time
            if not self.steps:
                _range.check(self.net, images)
            _range.note(self.net, images)
        rate = self.learning_rate
        if rate != self.rate:
            self.variables["train.learning_rate"] = np.array([rate], np.float32)
            self.rate = rate
        # In float16 the first steps may be made in vain, until the scale of the loss fits.
        looks = not self.steps and "unchanged" not in self._warned and not self.scales_loss
        before = self._trainable() if looks else None
        pending = program.begin(images, target, who="step", late=late)
        self._placement.note_begun(pending)
        self.steps += 1
        if ranks is not None:  # on the CPU, where the step has been made
            values = ranks.end_step(self, pending.wait(), signal)
            pending = PendingMeans(pending.samples, lambda: values, overlaps=False)
        if before is not None and math.isfinite(pending.wait()["loss"]) and self._trainable() == before:
            self.warn_unchanged("the first step")
        return pending

    def _trainable(self) -> dict[str, int]:
        # Sums, for a copy of the weights may be as large as all activations.
        return {n: zlib.crc32(p.tensor.numpy().data) for n, p in self.net.named_parameters() if p.trainable}

    def warn_unchanged(self, what: str) -> None:
        """Say, once, that training does nothing."""
        self._warn(
            "unchanged",
            f"{what} changed no weight (learning rate {self.learning_rate:g}); all gradients are zero, or too "
            + (
                f"large or small for float16 (the loss is scaled by {self.loss_scale:g})"
                if self.scales_loss
                else "small for float32"
            ),
        )

    def lost_weights(self) -> list[str]:
        """Names of the parameters that hold NaN or infinity."""
        return [
            name for name, p in self.net.named_parameters() if p.trainable and not np.isfinite(p.tensor.numpy()).all()
        ]

    def _warn(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(f"Trainer: {text}", RuntimeWarning, stacklevel=stack_level())

    # ---- Many steps

    def fit(
        self,
        train: Dataset | tuple[Any, Any],
        val: Dataset | tuple[Any, Any] | None = None,
        *,
        epochs: int,
        batch_size: int = 128,
        callbacks: Sequence[Callback] = (),
        checkpoint_dir: str | PathLike[str] | None = None,
        resume: bool | str | PathLike[str] = False,
        transform: Any = None,
        val_transform: Any = None,
        drop_last: bool = False,
        workers: int | None = None,
        progress: bool = True,
        on_save_error: Literal["raise", "warn"] = "raise",
        save_best: bool = True,
        augment_in: Literal["auto", "loader", "step", "resident"] = "auto",
    ) -> History:
        """Train for some epochs.

        A second call goes on where the first one ended. SIGINT and SIGTERM let the current step
        end, write a checkpoint (with `checkpoint_dir`), and then raise.

        Args:
            train: A data set of `pycnn.data`, or ``(images, labels)``.
            val: Measured after every epoch.
            epochs: How many epochs to train; when a checkpoint is resumed, in total.
            batch_size: Images in a step. The last one of an epoch may be smaller.
            callbacks: Of `pycnn.train`.
            checkpoint_dir: After every epoch, ``last.safetensors`` (to resume) and, when validation
                improved, ``best.safetensors`` (the net alone) are written there.
            resume: A checkpoint to go on from; True: the last one of `checkpoint_dir`, if there is
                one. The result has the bits of uninterrupted training.
            transform: Augmentation, of `pycnn.data.transforms`.
            val_transform: What is done to the images of `val`, for example a `CenterCrop`.
            drop_last: Leave out a short last batch.
            workers: Threads that prepare batches (see `pycnn.data.Loader`).
            progress: Report on stderr: a line for each epoch and, on a terminal, a status line.
            on_save_error: When a checkpoint cannot be written to `checkpoint_dir` (disk full, say): "raise", or
                "warn" and train on. The checkpoint before is intact in both cases.
            save_best: Write ``best.safetensors``. False where `val` are test images, which must choose nothing.
            augment_in: Who augments; the result has the same bits. "loader": its threads. "step": the device, where the
                images are uint8 and `transform` consists of one `RandomCrop` or `RandomShift`, `RandomHorizontalFlip`
                and a `Cutout` at its end, or of nothing. "resident": the same, with a copy of the images of an
                `ArrayDataset`, as they are now, on the device, to which a step is told numbers alone. "auto": on a GPU
                the last of these that can be had ("resident" for images of up to 1 GiB, and while the GPU has memory
                for them), on the CPU "loader". With "resident", and with "auto" on a GPU, the images of `val` are kept
                so, too, in as much of that room as is left, without `val_transform` or with one as above. The copies
                are kept for the next `fit`.

        Returns:
            The history of all epochs, with the fingerprint of the weights.

        Raises:
            TrainingError: The loss or a weight is not finite (step, value and last good checkpoint are
                named), or another thread is training with this trainer.
            LabelError: A label is outside of the net's classes.
            ArgumentError: An argument is out of range; a checkpoint belongs to another training.
            FileError: A checkpoint cannot be read or written.
            MemoryLimitError: `augment_in` is "resident", and there is no memory for the images.
            KeyboardInterrupt: SIGINT, after the checkpoint.
            SystemExit: SIGTERM, with code 143, after the checkpoint.
        """
        epochs = as_integer(epochs, who="fit", name="epochs", low=1)
        if on_save_error not in ("raise", "warn"):
            raise ArgumentError(f"fit: on_save_error must be 'raise' or 'warn', got {on_save_error!r}")
        data = as_dataset(train, who="fit: train")
        held_out = None if val is None else as_dataset(val, who="fit: val")
        if not isinstance(callbacks, list | tuple):
            raise ArgumentError(f"fit: callbacks must be a list of pycnn.train.Callback, got {callbacks!r}")
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise ArgumentError(f"fit: callback {callback!r} is no pycnn.train.Callback")
        loader = Loader(
            data,
            batch_size,
            seed=self.seed,
            transform=transform,
            drop_last=drop_last,
            workers=workers,
            shard=(0, 1) if self.ranks is None else self.ranks.shard,
        )
        if self.ranks is not None and loader.batch_size < self.ranks.shard[1]:
            raise ArgumentError(
                f"fit: batch_size {loader.batch_size} is shared among {self.ranks.shard[1]} ranks, expected at least "
                "one image for each"
            )
        check_augmenter(augment_in)
        directory = _loop.checkpoint_path(checkpoint_dir)
        if held_out is not None:
            warn_shared_files(data, held_out, who="fit", name="val")
        with self._turn.take("fit"), _ranks.joined(self.ranks, "fit"):
            self._check_data(loader, "fit: train")
            val_loader = None if held_out is None else self._measured(held_out, batch_size, val_transform)
            if val_loader is not None:
                self._check_data(val_loader, "fit: val")
            # With the turn: a training that is under way may read the images that are kept.
            self._placement.settle(loader, val_loader, augment_in, dict(self.net.named_tensors()))
            source = _resume.source(resume, directory)
            saved = None if source is None else _checkpoint.prepare(self, source)
            # All that can be refused is looked at before anything of the file is taken over.
            own = _resume.compare_data(loader, self.position if saved is None else saved.position, source)
            states = self._callback_states if saved is None else saved.callbacks
            restore_callbacks = _resume.match_callbacks(callbacks, states, source)
            if directory is not None:
                make_directory(directory, who="fit: checkpoint_dir")
            if saved is not None:
                saved.take_over()
            self.position.data = own
            self._callbacks, self._callback_states = tuple(callbacks), []
            restore_callbacks()
            self.stopping = False
            names = getattr(data, "class_names", None)
            self.class_names = None if names is None else tuple(str(name) for name in names)
            last = epochs if source is not None else self.position.epoch + epochs
            self._steps_per_epoch, self._epochs = len(loader), last
            plan = _loop.Plan(
                loader,
                val_loader,
                last,
                self._callbacks,
                directory,
                bool(progress) and _ranks.is_main(),
                on_save_error,
                save_best,
            )
            if self.ranks is not None:
                same = {**own, "epochs": last, "epoch": self.position.epoch, "batch": self.position.batch}
                same["val samples"] = None if held_out is None else len(held_out)
                self.ranks.synchronise(self, "fit", loader.image_shape, same)
            _loop.run(self, plan)
        return self.history

    def _check_data(self, loader: Loader, who: str) -> None:
        """Refuse images that do not fit the net, and labels that it cannot tell, before anything is trained.

        Raises:
            ShapeError: A layer refuses the images.
            LabelError: Names the first such label's position in the data set.
        """
        labels = np.asarray(loader.dataset.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            return
        classes = self._training.classes(loader.image_shape)
        if classes is not None:
            check_labels(labels, classes, who=who)

    def stop(self) -> None:
        """End `fit` after the current epoch; for callbacks."""
        self.stopping = True

    # ---- Measuring

    def evaluate(
        self,
        data: Dataset | tuple[Any, Any],
        *,
        batch_size: int = 256,
        averages: bool = False,
        transform: Any = None,
    ) -> dict[str, float]:
        """Measure loss and metrics over a data set.

        Args:
            data: A data set of `pycnn.data`, or ``(images, labels)``.
            batch_size: Images per run.
            averages: Use the averaged weights (needs `ema_decay`).
            transform: What is done to the images first, for example a `CenterCrop`.

        Returns:
            "loss" and the metrics: means over all samples, each counted once.

        Raises:
            LabelError: A label is outside of the net's classes.
            ShapeError: The images do not fit the net.
            ArgumentError: The data set is empty, or there are no averages.
        """
        dataset = as_dataset(data, who="evaluate")
        with _ranks.joined(self.ranks, "evaluate"):
            loader = self._measured(dataset, batch_size, transform)
            if averages:
                with self._turn.take("evaluate"), self.averaged():
                    return self._measure(loader)
            return self._measure(loader)

    def _measured(self, dataset: Dataset, batch_size: int, transform: Any) -> Loader:
        shard = (0, 1) if self.ranks is None else self.ranks.shard
        return Loader(dataset, batch_size, shuffle=False, transform=transform, shard=shard)

    def _measure(self, loader: Loader) -> dict[str, float]:
        totals = _loop.Totals()
        loader.set_epoch(0)  # the same random numbers each time

        def begun() -> Iterator[PendingMeans]:
            for batch, (x, y) in enumerate(loader):
                if loader.samples(batch)[0]:  # else a short batch, that other ranks measure
                    yield self._begin_measuring(loader, x, y, is_first=not batch)

        for pending in in_turn(begun()):
            totals.add(pending.wait(), pending.samples)
        if self.ranks is not None:
            self.ranks.total(totals)
        return totals.means()

    def _begin_measuring(self, loader: Loader, x: Any, y: np.ndarray, *, is_first: bool) -> PendingMeans:
        who = "evaluate"
        target = as_target(y, len(x), who=who)
        _range.check(self.net, x)
        x, program = self._placement.program(self._measuring, x, target)
        if program.classes is not None and is_first:
            # All at once: in a batch, the position would not be that in the data set.
            check_labels(np.asarray(loader.dataset.labels), program.classes, who=who)
        pending = program.begin(x, target, who=who, late=True)
        self._placement.note_begun(pending)
        return pending

    def validate(self, loader: Loader) -> dict[str, float]:
        """Measure within `fit`: with `ema_decay`, the averaged weights.

        For a caller that has the trainer's turn, such as a callback; from elsewhere, see `evaluate`.

        Args:
            loader: Of what is measured, in its order.

        Returns:
            "loss" and the metrics: means over all samples, each counted once.

        Raises:
            LabelError: A label is outside of the net's classes.
            ShapeError: The images do not fit the net.
            ArgumentError: No step was made yet, so there are no averages.
            MemoryLimitError: There is no memory for the programs.
        """
        if self.ema_decay is None:
            return self._measure(loader)
        with self.averaged():
            return self._measure(loader)

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """Class of each image, int64 (N,), computed where and as in training; see `pycnn.nn.Module.predict`."""
        return self.net.predict(x, batch_size=batch_size, device=self._device, threads=self._threads, **self.numerics)

    # ---- Averages

    def _average_pairs(self) -> dict[Tensor, Tensor]:
        """Each averaged parameter's values and their average."""
        pairs = {
            parameter.tensor: self.variables[f"ema.{name}"]
            for name, parameter in self.net.named_parameters()
            if f"ema.{name}" in self.variables
        }
        if self.ema_decay is None or not pairs:
            why = "ema_decay was not given" if self.ema_decay is None else "no step was made yet"
            raise ArgumentError(f"Trainer: there are no averaged weights, {why}")
        return pairs

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the net has its averaged weights; afterwards its own again, bit by bit.

        Raises:
            ArgumentError: There are no averages.
        """
        own = [(tensor, tensor.numpy().copy()) for tensor in self._average_pairs()]
        try:
            self.use_averages()
            yield
        finally:
            for tensor, values in own:
                tensor.copy_(values)

    def use_averages(self) -> None:
        """Replace the net's weights by their averages, at the end of training.

        Raises:
            ArgumentError: There are no averages.
        """
        for tensor, average in self._average_pairs().items():
            tensor.copy_(average.numpy())

    # ---- Checkpoints

    def fingerprint(self) -> str:
        """Fingerprint of the weights (see `weights_fingerprint`)."""
        return weights_fingerprint(self.net)

    def save_checkpoint(self, path: str | PathLike[str]) -> None:
        """Write everything that is needed to go on exactly from here.

        The file is a model file too: `pycnn.load` reads the net from it. Of several ranks, only rank 0 writes.

        Raises:
            FileError: The system refused; an older file at the path is intact.
            ArgumentError: No step was made yet.
        """
        if _ranks.is_main():
            _checkpoint.write(self, path)

    def save_best(self, path: str | PathLike[str]) -> None:
        """Write the net alone; with `ema_decay`, with the averaged weights.

        Raises:
            FileError: The system refused; an older file at the path is intact.
        """
        if not _ranks.is_main():
            return
        metadata = _checkpoint.class_metadata(self.class_names)
        if self.ema_decay is None:
            files.save(self.net, path, metadata=metadata)
            return
        with self.averaged():
            files.save(self.net, path, metadata=metadata)

    def load_checkpoint(self, path: str | PathLike[str]) -> None:
        """Take over what `save_checkpoint` wrote; everything is checked before anything changes.

        Raises:
            FileError: The file cannot be read.
            FormatError: It is malformed, or holds no training state.
            ArgumentError: It belongs to another net, optimizer, loss or seed.
            ShapeError: Arrays have other shapes.
        """
        with self._turn.take("load_checkpoint"):
            _checkpoint.restore(self, path)

    def identity(self) -> dict[str, Any]:
        """What must agree, or should, between a checkpoint and the trainer that takes it over."""
        return {
            "optimizer": type(self.optimizer).__name__,
            "loss": self.loss,
            "seed": self.seed,
            "ema": self.ema_decay is not None,
            "settings": repr(self.optimizer),
            "groups": ", ".join(map(repr, self.optimizer.groups)) or None,
            "schedule": _resume.describe(self.schedule),
            "clip_norm": self.clip_norm,
            "auxiliary_weight": self.auxiliary_weight,
            "dtype": self.numerics["dtype"],
            "winograd": self.numerics["winograd"],
            "tf32": self.numerics["tf32"],
        }

    def state(self) -> dict[str, Any]:
        """Everything but arrays, as plain JSON values."""
        return {
            "identity": self.identity(),
            "steps": self.steps,
            "rate": self.rate,
            "position": asdict(self.position),
            "schedule": self.schedule.state_dict(),
            "history": self.history.rows,
            "callbacks": [
                {"kind": type(callback).__name__, "state": callback.state_dict()} for callback in self._callbacks
            ],
        }

    def prepare_state(self, state: dict[str, Any]) -> _checkpoint.State:
        """Check what `state` gave; for `load_checkpoint`.

        Returns:
            The place in the data, what callbacks remember, and a function that takes all over and cannot fail.

        Raises:
            FormatError: Something is missing or of another kind.
        """
        try:
            saved = dict(state["position"])
            totals = _loop.Totals(**saved.pop("totals"))
            position = _loop.Position(totals=totals, **saved)
            history = History(state["history"])
            steps, rate = int(state["steps"]), float(state["rate"])
            callbacks = [{"kind": c["kind"], "state": c["state"]} for c in state["callbacks"]]
            schedule = dict(state["schedule"])
            copy.deepcopy(self.schedule).load_state_dict(schedule)
            position.check()
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"load_checkpoint: the training state is damaged ({error})") from None

        def apply() -> None:
            self.schedule.load_state_dict(schedule)
            self.position, self.history = position, history
            self.steps, self.rate = steps, rate
            self._callback_states = callbacks

        return _checkpoint.State(position, callbacks, apply)

    def __repr__(self) -> str:
        """Show what is trained and how far."""
        return (
            f"<Trainer of {type(self.net).__name__}: {self.optimizer!r}, {self.loss}, "
            f"{self.steps} steps, {self.position.epoch} epochs>"
        )


def as_normalize(value: Any) -> Normalize:
    """A `Normalize`, or one from ``(mean, std)``.

    Raises:
        ArgumentError: Something else.
    """
    if isinstance(value, Normalize):
        return value
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ArgumentError(f"Trainer: normalize must be (mean, std) or a Normalize, got {value!r}")
    return Normalize(mean=value[0], std=value[1])
