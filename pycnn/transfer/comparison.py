"""Ways to use a trained net for a new data set, carried out and measured on held-out images."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn.arguments import as_integer
from pycnn.data import Dataset
from pycnn.data._overlap import warn_shared_files
from pycnn.data.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop, Transform
from pycnn.errors import ArgumentError
from pycnn.nn.files import save
from pycnn.nn.module import Module
from pycnn.program import check_device
from pycnn.textfile import write_text
from pycnn.transfer.encoder import Encoder
from pycnn.transfer.feature_store import FeatureSet, extract
from pycnn.transfer.fresh import redraw
from pycnn.transfer.labelled import as_labelled
from pycnn.transfer.layers import depth_groups, stage_layers
from pycnn.transfer.linear import linear_probe
from pycnn.transfer.nearest import classify_by_neighbors
from pycnn.transfer.tuning import chosen_groups, finetune

__all__ = ["STRATEGIES", "Comparison", "StrategyResult", "compare", "default_augmentation"]

#: By name what each does, in the order of the table.
STRATEGIES = {
    "scratch": "the same net from fresh weights, all of it trained",
    "nearest": "1-nearest neighbour by the features of the top layer",
    "linear-top": "linear classifier on the top layer",
    "linear-stages": "linear classifier on several stages",
    "finetune-head": "fine-tune the head",
    "finetune-few": "fine-tune a few layers",
    "finetune-more": "fine-tune a larger number of layers",
    "finetune-all": "fine-tune all layers",
}
_PARTS = {"finetune-head": "head", "finetune-few": "few", "finetune-more": "more", "finetune-all": "all"}
# Batch norms let large rates be; without them a net needs smaller ones.
_RATE, _RATE_WITHOUT_NORM = 0.05, 0.005
_AT_ONCE = 64  # held-out images that are read


@dataclass(frozen=True)
class StrategyResult:
    """What a strategy reached.

    Attributes:
        name: One of `STRATEGIES`.
        accuracies: On the held-out images, 0..1, one for each seed.
        seconds: Mean time for a seed, extraction of features included, also where they were found in a folder.
        right: Which held-out images were classified correctly, in the run of the first seed.
        net: Of the seed with the best accuracy; None for "nearest", which is no net.
        same_as: The strategy that this one comes to in this net, and whose runs are shown; None if it was run itself.
    """

    name: str
    accuracies: tuple[float, ...]
    seconds: float
    right: np.ndarray
    net: Module | None
    same_as: str | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds (n - 1); 0 for one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    Attributes:
        results: By strategy, in the order of `STRATEGIES`.
        val_images: Held-out images.
        class_names: Of the data.
    """

    results: tuple[StrategyResult, ...]
    val_images: int
    class_names: tuple[str, ...]

    @property
    def best(self) -> StrategyResult:
        """The strategy with the best mean; of equals the first, which is the simpler one."""
        return max(self.results, key=lambda result: result.mean)

    @property
    def standard_error(self) -> float:
        """Of the best accuracy, from the number of held-out images alone."""
        share = self.best.mean
        return math.sqrt(max(share * (1 - share), 1.0 / (self.val_images + 2)) / self.val_images)

    def close_to_best(self) -> list[str]:
        """Names of the strategies that the held-out images cannot tell from the best: within two standard errors."""
        return [r.name for r in self.results if self.best.mean - r.mean <= 2 * self.standard_error]

    def save_best(self, path: str | os.PathLike[str]) -> StrategyResult:
        """Write the best strategy's net as a model file that knows its classes.

        Returns:
            The strategy; where the best is "nearest", which is no net, the best of the others.

        Raises:
            ArgumentError: No strategy gave a net.
            FileError: The system refused.
        """
        nets = [result for result in self.results if result.net is not None]
        if not nets:
            raise ArgumentError("compare: no strategy that was run gives a net, 'nearest' is none")
        best = max(nets, key=lambda result: result.mean)
        assert best.net is not None
        save(best.net, path, metadata={"class_names": json.dumps(list(self.class_names)), "transfer": best.name})
        return best

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain values, a dict for each strategy."""
        return [
            {
                "strategy": r.name,
                "what": STRATEGIES[r.name],
                "mean": r.mean,
                "deviation": r.deviation,
                "accuracies": list(r.accuracies),
                "seconds": r.seconds,
                "same_as": r.same_as,
            }
            for r in self.results
        ]

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Give the table as CSV text, and write it when a path is given.

        Raises:
            FileError: The file cannot be written.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["strategy", "mean", "deviation", "seconds", *(f"run_{i + 1}" for i in range(self._runs()))])
        for r in self.results:
            writer.writerow([r.name, r.mean, r.deviation, round(r.seconds, 3), *r.accuracies])
        if path is not None:
            write_text(path, out.getvalue())
        return out.getvalue()

    def _runs(self) -> int:
        return max(len(r.accuracies) for r in self.results)

    def __str__(self) -> str:
        """The table as text."""
        rows = [("strategy", "", "accuracy", "+-", "seconds")]
        rows += [
            (r.name, STRATEGIES[r.name], f"{100 * r.mean:.1f} %", f"{100 * r.deviation:.1f}", f"{r.seconds:.1f}")
            for r in self.results
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        lines += [f"{r.name}: the same layers as {r.same_as} in this net, run once" for r in self.results if r.same_as]
        runs = f"mean and deviation of {self._runs()} seeds" if self._runs() > 1 else "one seed"
        lines.append(
            f"{runs} on {self.val_images:,} held-out images; standard error of the best "
            f"{100 * self.standard_error:.1f} points"
        )
        return "\n".join(lines)


def compare(
    net: Module,
    train: Dataset | tuple[Any, Any],
    val: Dataset | tuple[Any, Any],
    *,
    strategies: Sequence[str] = tuple(STRATEGIES),
    seeds: int | Sequence[int] = 3,
    epochs: int = 15,
    batch_size: int = 32,
    lr: float | None = None,
    layers: Sequence[str] | None = None,
    transform: Transform | None = None,
    out: Any = None,
    threads: int | None = None,
    device: str = "cpu",
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Carry out strategies of transfer learning and measure each on held-out images.

    All that train by gradient descent do so for as many epochs with the same augmentation, rate (for all layers) and
    schedule; only the weights that they start from and the layers that learn differ. Where "finetune-more" comes to all
    layers (see `finetune`), "finetune-all" is the same work: it is run once and shown for both. The held-out images
    choose nothing inside of a strategy (the penalty of linear classifiers is chosen in cross-validation, networks are
    taken after their last epoch), but the best of several strategies looks better on them than it is.

    Args:
        net: Trained; it stays as it is.
        train: To learn from.
        val: Held out; of the same classes.
        strategies: Names of `STRATEGIES`.
        seeds: How many, or which: of fresh weights, shuffling, augmentation and folds.
        epochs: Of training; a fifth of them, at least one, train the head alone.
        batch_size: Images in a step.
        lr: Learning rate of all training; default: 0.05, in nets without batch norm 0.005.
        layers: Stages for "linear-stages", the top last; default: the ends of the net's stages.
        transform: Augmentation; default: `default_augmentation`.
        out: A folder to keep features in (see `extract`).
        threads: At most this many; None chooses.
        device: Where nets train and run: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so
            far. Nearest neighbours and linear classifiers of features are the host's work.
        report: Told what is going on, a line at a time.

    Returns:
        Accuracies by strategy.

    Raises:
        ArgumentError: A strategy is unknown, an argument is out of range, or the classes of train and val differ.
        ShapeError: The images do not fit the net.
        LabelError: A label is outside of the classes.
        UnsupportedError: A linear classifier is wanted, and scikit-learn is not installed; or "scratch" is, and how
            the net starts cannot be told (`redraw`).
        TrainingError: A loss is not finite.
        DeviceError: The device is absent.

    Warns:
        UserWarning: `train` and `val` share image files.

    Example:
        >>> import pycnn as pc
        >>> train, val = pc.data.digits(seed=0)
        >>> train, val = pc.data.subset(train, range(60)), pc.data.subset(val, range(30))
        >>> net = pc.models.create("lenet5").build((28, 28, 1))
        >>> [r.name for r in compare(net, train, val, strategies=["nearest", "linear-top"], seeds=1).results]
        ['nearest', 'linear-top']
    """
    who = "compare"
    for name in strategies:
        if name not in STRATEGIES:
            raise ArgumentError(f"{who}: no strategy is called {name!r}; there is {', '.join(STRATEGIES)}")
    names = [name for name in STRATEGIES if name in strategies]
    if not names:
        raise ArgumentError(f"{who}: no strategy is named")
    chosen = _as_seeds(seeds, who)
    if not chosen:
        raise ArgumentError(f"{who}: seeds holds no number")
    total = as_integer(epochs, who=who, name="epochs", low=1)
    learn, check = as_labelled(train, who=f"{who}: train"), as_labelled(val, who=f"{who}: val")
    if tuple(learn.class_names) != tuple(check.class_names):
        raise ArgumentError(
            f"{who}: the classes of train and val differ: {', '.join(learn.class_names)}; "
            f"{', '.join(check.class_names)}"
        )
    warn_shared_files(learn, check, who=who, name="val")
    work = _Work(
        net,
        learn,
        check,
        tuple(layers) if layers is not None else stage_layers(net, learn.image_shape),
        total,
        batch_size,
        lr if lr is not None else _RATE if any(True for _ in net.named_buffers()) else _RATE_WITHOUT_NORM,
        default_augmentation(learn.image_shape) if transform is None else transform,
        threads,
        check_device(device, who=who),
    )
    say = report or (lambda _: None)
    if "scratch" in names:
        work.fresh_copy(0)  # refused now rather than after the rest
    if any(name in ("nearest", "linear-top", "linear-stages") for name in names):
        work.extract(out)
        say(f"features of {len(learn) + len(check):,} images: {work.feature_seconds:.1f} s{work.feature_note}")
    results: list[StrategyResult] = []
    for name in names:
        twin = next((r for r in results if r.name == "finetune-more"), None) if name == "finetune-all" else None
        if twin is not None and work.learning("more") == work.learning("all"):
            results.append(replace(twin, name=name, same_as=twin.name))
            say(f"{name}: the same layers as {twin.name}")
            continue
        runs = []
        for seed in chosen:
            started = time.perf_counter()
            made, found = work.carry_out(name, seed)
            seconds = time.perf_counter() - started
            runs.append((float((found == check.labels).mean()), seconds, found == check.labels, made))
            say(f"{name}, seed {seed}: {100 * runs[-1][0]:.1f} % in {seconds:.1f} s")
        own = work.feature_seconds if name in ("nearest", "linear-top", "linear-stages") else 0.0
        results.append(
            StrategyResult(
                name,
                tuple(run[0] for run in runs),
                float(np.mean([run[1] for run in runs])) + own,
                runs[0][2],
                max(runs, key=lambda run: run[0])[3],
            )
        )
    return Comparison(tuple(results), len(check), tuple(str(n) for n in learn.class_names))


def _as_seeds(seeds: Any, who: str) -> tuple[int, ...]:
    try:
        listed = list(seeds)
    except TypeError:
        return tuple(range(as_integer(seeds, who=who, name="seeds", low=1)))
    return tuple(as_integer(seed, who=who, name="seeds", low=0) for seed in listed)


def default_augmentation(image_shape: Sequence[int]) -> Transform:
    """Augmentation of few photographs: windows of half the area and more, mirrored half the time."""
    return Compose([RandomResizedCrop((image_shape[0], image_shape[1]), scale=(0.5, 1.0)), RandomHorizontalFlip()])


class _Work:
    """The data and settings of one comparison."""

    def __init__(
        self,
        net: Module,
        train: Dataset,
        val: Dataset,
        layers: tuple[str, ...],
        epochs: int,
        batch_size: int,
        lr: float,
        transform: Transform,
        threads: int | None,
        device: str,
    ) -> None:
        self.net = net
        self.train = train
        self.val = val
        self.encoder = Encoder(net, layers)
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.transform = transform
        self.threads = threads
        self.device = device
        self.feature_seconds = 0.0
        self.feature_note = ""
        self._features: tuple[FeatureSet, FeatureSet] | None = None

    def extract(self, out: Any) -> None:
        """Compute the features of both parts."""
        folders = (None, None) if out is None else (os.path.join(out, "train"), os.path.join(out, "val"))  # noqa: PTH118
        first, second = (
            extract(
                self.encoder,
                data,
                out=folder,
                batch_size=self.batch_size,
                threads=self.threads,
                device=self.device,
            )
            for data, folder in zip((self.train, self.val), folders, strict=True)
        )
        self._features = first, second
        # Of features from files what they took then: that is what the strategy costs.
        self.feature_seconds = first.seconds + second.seconds
        cached = [name for name, part in (("train", first), ("val", second)) if part.cached]
        self.feature_note = f" ({' and '.join(cached)} computed before)" if cached else ""

    def carry_out(self, name: str, seed: int) -> tuple[Module | None, np.ndarray]:
        """The net of a strategy, and the classes that it gives the held-out images."""
        if name == "nearest":
            train, val = self._known()
            top = self.encoder.layers[-1]
            return None, classify_by_neighbors(train.matrix(top), train.labels, val.matrix(top))
        if name in ("linear-top", "linear-stages"):
            train, val = self._known()
            layers = self.encoder.layers[-1:] if name == "linear-top" else self.encoder.layers
            probe = linear_probe(train, layers=layers, seed=seed)
            made = probe.to_net(Encoder(copy.deepcopy(self.net), self.encoder.layers))
            made.build(self.train.image_shape)
            return made, probe.predict(val)
        if name == "scratch":
            net = self.fresh_copy(seed)
            options: dict[str, Any] = {"part": "all", "head_epochs": 0, "statistics": "train"}
        else:
            net = self._copy()
            options = {"part": _PARTS[name], "head_epochs": 0 if self.epochs < 2 else max(1, self.epochs // 5)}
        finetune(
            net,
            self.train,
            epochs=self.epochs,
            lr=self.lr,
            lr_decay=1.0,
            batch_size=self.batch_size,
            transform=self.transform,
            seed=seed,
            threads=self.threads,
            device=self.device,
            **options,
        )
        return net, self._predict(net)

    def learning(self, part: str) -> list[tuple[str, ...]]:
        """The groups of parameters that a part of the net consists of."""
        return chosen_groups(self.net, depth_groups(self.net, self.train.image_shape), part)

    def _copy(self) -> Module:
        net = copy.deepcopy(self.net)
        net.build(self.train.image_shape)
        net.unfreeze()
        return net

    def fresh_copy(self, seed: int) -> Module:
        """The net from fresh weights."""
        net = self._copy()
        redraw(net, seed=seed)
        return net

    def _predict(self, net: Module) -> np.ndarray:
        """Classes of the held-out images."""
        count = len(self.val)
        parts = (
            self.val.read(np.arange(i, min(i + _AT_ONCE, count), dtype=np.int64)) for i in range(0, count, _AT_ONCE)
        )
        return np.concatenate([net.predict(images, device=self.device, threads=self.threads) for images in parts])

    def _known(self) -> tuple[FeatureSet, FeatureSet]:
        assert self._features is not None
        return self._features
