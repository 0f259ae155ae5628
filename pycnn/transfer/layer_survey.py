"""How well the layers of an encoder tell a data set's classes apart, from the bottom up, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.data import Dataset
from pycnn.errors import ArgumentError
from pycnn.nn.module import Module
from pycnn.transfer.advice import Advice, Similarity, advise
from pycnn.transfer.cost import forward_seconds, predicted_seconds
from pycnn.transfer.encoder import Encoder
from pycnn.transfer.feature_store import FeatureSet, extract
from pycnn.transfer.labelled import as_labelled, images_by_class
from pycnn.transfer.layers import stage_layers
from pycnn.transfer.linear import linear_probe
from pycnn.transfer.nearest import leave_one_out_accuracy

__all__ = ["Depth", "Survey", "survey"]

# Images that the speed is measured with.
_SAMPLE = 8


@dataclass(frozen=True)
class Depth:
    """One layer, or several joined, as features.

    Attributes:
        layers: Names of the layers.
        features: How many numbers describe an image.
        nearest: Leave-one-out accuracy of the nearest neighbour, 0..1.
        linear: Accuracy of a linear classifier in cross-validation, 0..1.
    """

    layers: tuple[str, ...]
    features: int
    nearest: float
    linear: float


@dataclass(frozen=True)
class Survey:
    """What `survey` measured.

    Attributes:
        depths: The layers from the bottom up, and last all of them joined.
        images: How many images were looked at.
        chance: Share of the most frequent class: what needs no features, 0..1.
        standard_error: Of an accuracy of the best classifier: differences of less than twice as much mean little.
        similarity: Estimated, 0..1 (see `survey`), or as it was given.
        advice: What `advise` says to that.
        seconds: That computing the features took, now or when they were put into the folder.
        predicted: Seconds that each strategy of `compare` should take with one seed.
        epochs: Of training, for that.
        features: The features themselves.
    """

    depths: tuple[Depth, ...]
    images: int
    chance: float
    standard_error: float
    similarity: float
    advice: Advice
    seconds: float
    predicted: Mapping[str, float]
    epochs: int
    features: FeatureSet

    def __str__(self) -> str:
        """The table, and the advice."""
        rows = [("features of", "number", "1-nearest", "linear")]
        rows += [
            (_shown(depth.layers), f"{depth.features:,}", f"{100 * depth.nearest:.1f} %", f"{100 * depth.linear:.1f} %")
            for depth in self.depths
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        lines.append(
            f"accuracies within the {self.images:,} images; chance {100 * self.chance:.1f} %, "
            f"standard error {100 * self.standard_error:.1f} points"
        )
        lines.append(f"similarity to the encoder's data: {self.similarity:.2f}")
        times = ", ".join(f"{name} {seconds:.3g}" for name, seconds in self.predicted.items())
        lines.append(f"predicted seconds of one seed, {self.epochs} epochs where there are any: {times}")
        lines.append(f"advice: {self.advice}")
        return "\n".join(lines)


def survey(
    net: Module,
    data: Dataset | tuple[Any, Any],
    *,
    layers: Sequence[str] | None = None,
    similarity: Similarity | float | None = None,
    out: Any = None,
    batch_size: int = 32,
    epochs: int = 15,
    seed: int = 0,
    threads: int | None = None,
) -> Survey:
    """Look through the layers of a net for those that tell the classes of a data set apart, and advise.

    All labels are used, none is held out: nearest neighbours leave one out, linear classifiers are measured in
    cross-validation.

    The similarity of the data to that of the encoder is estimated from where in the net the classes come apart. A net
    that saw similar images is best at its top. So it is the probability (normal approximation, with the standard
    error of the two accuracies) that the top layer alone is as good in truth as all stages joined: 0.5 when both are
    measured equal, less when earlier stages add something. It is an estimate from few numbers; give the similarity
    when you know it.

    Args:
        net: Trained.
        data: Labelled images, of `pycnn.data`.
        layers: From the bottom up; default: the ends of the net's stages.
        similarity: Of the data to the net's own; default: estimated.
        out: A folder to keep the features in (see `extract`).
        batch_size: Images per run.
        epochs: Of training, for the predicted times.
        seed: Of the folds.
        threads: At most this many for the features; None chooses.

    Returns:
        Accuracies by depth, the similarity, the advice, predicted times, and the features.

    Raises:
        ArgumentError: There is only one class, a class without images, or no such layer.
        ShapeError: The images do not fit the net.
        LabelError: A label is outside of the classes.
        UnsupportedError: scikit-learn is not installed.

    Example:
        >>> import pycnn as pc
        >>> net = pc.models.create("lenet5").build((28, 28, 1))
        >>> train, _ = pc.data.digits(seed=0)
        >>> found = survey(net, pc.data.subset(train, range(100)), layers=["pool1", "pool2"])
        >>> [depth.layers for depth in found.depths]
        [('pool1',), ('pool2',), ('pool1', 'pool2')]
    """
    dataset = as_labelled(data, who="survey")
    names = tuple(layers) if layers is not None else stage_layers(net, dataset.image_shape)
    encoder = Encoder(net, names)
    found = extract(encoder, dataset, out=out, batch_size=batch_size, threads=threads)
    counts = images_by_class(dataset)
    sample = dataset.read(np.arange(min(_SAMPLE, len(dataset)), dtype=np.int64))
    forward = forward_seconds(encoder, sample, threads=threads)
    predicted = predicted_seconds(net, forward, len(dataset), epochs, input_shape=dataset.image_shape)
    depths = [_depth(found, (name,), seed) for name in names]
    if len(names) > 1:
        depths.append(_depth(found, names, seed))
    top, joined = depths[len(names) - 1].linear, depths[-1].linear
    best = max(depth.linear for depth in depths)
    # Never 0: a perfect score on few images is no proof.
    error = math.sqrt(max(best * (1 - best), 1.0 / (len(found) + 2)) / len(found))
    estimate = similarity
    if estimate is None:
        estimate = 0.5 * (1.0 + math.erf((top - joined) / (math.sqrt(2.0) * error) / math.sqrt(2.0)))
    advice = advise(len(found), len(found.class_names), estimate)
    share = {"similar": 1.0, "different": 0.0}[estimate] if isinstance(estimate, str) else float(estimate)
    return Survey(
        depths=tuple(depths),
        images=len(found),
        chance=float(counts.max() / len(found)),
        standard_error=error,
        similarity=share,
        advice=advice,
        seconds=found.seconds,
        predicted=predicted,
        epochs=epochs,
        features=found,
    )


def _depth(found: FeatureSet, layers: tuple[str, ...], seed: int) -> Depth:
    matrix = found.matrix(layers)
    probe = linear_probe(found, layers=layers, seed=seed)
    linear = probe.cv_accuracy
    if linear is None:
        raise ArgumentError("survey: a class has a single image; two or more are needed to hold one out")
    return Depth(layers, matrix.shape[1], leave_one_out_accuracy(matrix, found.labels), linear)


def _shown(layers: tuple[str, ...]) -> str:
    return layers[0] if len(layers) == 1 else " + ".join(layers)
