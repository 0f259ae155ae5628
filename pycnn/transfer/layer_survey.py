"""How well the layers of an encoder tell a data set's classes apart, from the bottom up, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn.data import Dataset
from pycnn.errors import ArgumentError
from pycnn.nn.module import Module
from pycnn.program import check_device
from pycnn.transfer.advice import SIMILAR_FROM, Advice, Similarity, advise
from pycnn.transfer.cost import forward_seconds, predicted_seconds
from pycnn.transfer.depth_gain import DepthGain, depth_gain, home_gain, standard_error
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
        gain: Of the top layer over the best stage below it; None where a single layer was looked at.
        home_gain: The same on the encoder's own kind of images, as its file knows it; None where that is not known.
        similarity: Estimated, 0..1 (see `survey`), or as it was given.
        similarity_error: Its standard error; None where it was given, or a single layer was looked at.
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
    gain: DepthGain | None
    home_gain: float | None
    similarity: float
    similarity_error: float | None
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
        lines.append(self._similarity_line())
        times = ", ".join(f"{name} {seconds:.3g}" for name, seconds in self.predicted.items())
        lines.append(f"predicted seconds of one seed, {self.epochs} epochs where there are any: {times}")
        lines.append(f"advice: {self.advice}")
        return "\n".join(lines)

    def _similarity_line(self) -> str:
        text = f"similarity to the encoder's data: {self.similarity:.2f}"
        if self.gain is None:
            return f"{text} (a single layer tells nothing about it)" if self.similarity == SIMILAR_FROM else text
        if self.similarity_error is not None:
            text += f" +- {self.similarity_error:.2f}"
        home = "not known" if self.home_gain is None else f"{self.home_gain:.2f}"
        return (
            f"{text}; the top layer gains {self.gain.value:.2f} +- {self.gain.error:.2f} over those below, on the "
            f"encoder's own data: {home}"
        )


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
    device: str = "cpu",
) -> Survey:
    """Look through the layers of a net for those that tell the classes of a data set apart, and advise.

    All labels are used, none is held out: nearest neighbours leave one out, linear classifiers are measured in
    cross-validation.

    The similarity of the data to that of the encoder is estimated by the depth gain: how much better the top layer
    tells the classes apart than the best stage below it, accuracies counted from chance. It is the gain as a part of
    that on the encoder's own kind of images, which its file knows (`record_home_gain`): 1 and more counts as 1, below 0
    as 0; from a half on the data is called similar. For a net whose gain at home is not known, the data is called
    similar if the gain is more than two of its errors above 0; the similarity is then the gain in units of four errors.
    Where the similarity is less than two of its errors from the border, the advice is not confident: with few images it
    is an estimate from few numbers; give the similarity when you know it.

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
        device: Where the net runs: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
            Neighbours and classifiers of features are the host's work.

    Returns:
        Accuracies by depth, the similarity, the advice, predicted times, and the features.

    Raises:
        ArgumentError: There is only one class, a class without images, or no such layer.
        ShapeError: The images do not fit the net.
        LabelError: A label is outside of the classes.
        FormatError: The net's file holds a gain that is none.
        UnsupportedError: scikit-learn is not installed.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn as pc
        >>> net = pc.models.create("lenet5").build((28, 28, 1))
        >>> train, _ = pc.data.digits(seed=0)
        >>> found = survey(net, pc.data.subset(train, range(100)), layers=["pool1", "pool2"])
        >>> [depth.layers for depth in found.depths]
        [('pool1',), ('pool2',), ('pool1', 'pool2')]
    """
    where = check_device(device, who="survey")
    dataset = as_labelled(data, who="survey")
    names = tuple(layers) if layers is not None else stage_layers(net, dataset.image_shape)
    encoder = Encoder(net, names)
    found = extract(encoder, dataset, out=out, batch_size=batch_size, threads=threads, device=where)
    counts = images_by_class(dataset)
    sample = dataset.read(np.arange(min(_SAMPLE, len(dataset)), dtype=np.int64))
    forward = forward_seconds(encoder, sample, threads=threads, device=where)
    predicted = predicted_seconds(net, forward, len(dataset), epochs, input_shape=dataset.image_shape)
    depths = [_depth(found, (name,), seed) for name in names]
    if len(names) > 1:
        depths.append(_depth(found, names, seed))
    chance = float(counts.max() / len(found))
    gain = depth_gain([depth.linear for depth in depths[: len(names)]], chance, len(found))
    stages = layers is None or names == stage_layers(net, dataset.image_shape)
    home = home_gain(net, None if stages else names, dataset.image_shape)
    share, error, advice = _advise(found, similarity, gain, home)
    return Survey(
        depths=tuple(depths),
        images=len(found),
        chance=chance,
        standard_error=standard_error(max(depth.linear for depth in depths), len(found)),
        gain=gain,
        home_gain=home,
        similarity=share,
        similarity_error=error,
        advice=advice,
        seconds=found.seconds,
        predicted=predicted,
        epochs=epochs,
        features=found,
    )


def _advise(
    found: FeatureSet, given: Similarity | float | None, gain: DepthGain | None, home: float | None
) -> tuple[float, float | None, Advice]:
    """The similarity, its error where it was estimated, and the advice."""
    images, classes = len(found), len(found.class_names)
    if given is not None:
        advice = advise(images, classes, given)
        return ({"similar": 1.0, "different": 0.0}[given] if isinstance(given, str) else float(given)), None, advice
    if gain is None:
        return SIMILAR_FROM, None, advise(images, classes, SIMILAR_FROM)
    ratio = gain.similarity(home)
    share = min(max(ratio.value, 0.0), 1.0)
    advice = advise(images, classes, share)
    if advice.confident and abs(ratio.value - SIMILAR_FROM) < 2 * ratio.error:
        doubt = f" The similarity is uncertain ({share:.2f} +- {ratio.error:.2f}): compare the neighbours."
        advice = replace(advice, reason=advice.reason + doubt, confident=False)
    return share, ratio.error, advice


def _depth(found: FeatureSet, layers: tuple[str, ...], seed: int) -> Depth:
    matrix = found.matrix(layers)
    probe = linear_probe(found, layers=layers, seed=seed)
    linear = probe.cv_accuracy
    if linear is None:
        raise ArgumentError("survey: a class has a single image; two or more are needed to hold one out")
    return Depth(layers, matrix.shape[1], leave_one_out_accuracy(matrix, found.labels), linear)


def _shown(layers: tuple[str, ...]) -> str:
    return layers[0] if len(layers) == 1 else " + ".join(layers)
