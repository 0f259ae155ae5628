"""A linear classifier on features: softmax regression or a linear support vector machine, fitted by scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pycnn.arguments import as_float, as_integer
from pycnn.errors import ArgumentError, ShapeError
from pycnn.nn.linear import Linear
from pycnn.optional import optional
from pycnn.transfer.encoder import Classifier, Encoder
from pycnn.transfer.feature_store import FeatureSet
from pycnn.transfer.nearest import as_class_labels, as_features

__all__ = ["DEFAULT_CS", "LinearProbe", "linear_probe"]

#: What `linear_probe` chooses from: the inverse of the L2 penalty, as scikit-learn counts it.
DEFAULT_CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Taken where there is too little data to choose.
_MIDDLE_C = 1e-2
_MOST_ITERATIONS = 2000
# One division into folds chooses by chance as much as by merit.
_REPEATS = 3
# Elements up to which several threads only wait for one another.
_SMALL_MATRIX = 2**21

Kind = Literal["softmax", "svm"]


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier: ``scores = features @ weight.T + bias``; the largest score tells the class.

    Standardisation is part of weight and bias, so the features go in as the encoder gives them.

    Attributes:
        weight: float32 (classes, features).
        bias: float32 (classes,).
        kind: "softmax" or "svm". The scores of an SVM are distances to its planes, no logarithms of probabilities.
        c: Inverse of the L2 penalty.
        cv_accuracy: Mean accuracy of the folds at that `c`, 0..1; None where none were made.
        layers: Layers whose features were joined, in order; empty when an array was given.
        class_names: One name per class; empty when an array was given.
    """

    weight: np.ndarray
    bias: np.ndarray
    kind: str
    c: float
    cv_accuracy: float | None
    layers: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def scores(self, features: FeatureSet | Any) -> np.ndarray:
        """Compute the scores of features (N, D) or of a `FeatureSet`, float64 (N, classes).

        Raises:
            ShapeError: Another number of features.
            ArgumentError: A number is not finite, or the set lacks a layer.
        """
        values = features.matrix(self.layers or None) if isinstance(features, FeatureSet) else features
        array = as_features(values, who="LinearProbe", name="features")
        if array.shape[1] != self.weight.shape[1]:
            raise ShapeError(f"LinearProbe: features are {array.shape}, expected {self.weight.shape[1]} of each sample")
        result: np.ndarray = array @ self.weight.T.astype(np.float64) + self.bias
        return result

    def predict(self, features: FeatureSet | Any) -> np.ndarray:
        """Say which class each sample belongs to, int64 (N,); arguments and errors as `scores`."""
        return self.scores(features).argmax(axis=1).astype(np.int64)

    def accuracy(self, features: FeatureSet | Any, labels: Any = None) -> float:
        """Share of the samples that are classified correctly; labels are needed with an array of features."""
        if labels is None:
            if not isinstance(features, FeatureSet):
                raise ArgumentError("LinearProbe: an array of features needs labels")
            labels = features.labels
        found = self.predict(features)
        return float((found == as_class_labels(labels, len(found), who="LinearProbe")).mean())

    def head(self) -> Linear:
        """The classifier as a layer, for `Classifier` or a net of your own."""
        layer = Linear(self.weight.shape[1], self.weight.shape[0])
        assert layer.weight is not None
        assert layer.bias is not None
        layer.weight.copy_(self.weight)
        layer.bias.copy_(self.bias)
        return layer

    def to_net(self, encoder: Encoder) -> Classifier:
        """Put the classifier on top of the encoder whose features it was fitted on: an ordinary net.

        Args:
            encoder: Must give the layers of the probe in the same order; an encoder of more layers is cut anew.

        Raises:
            ArgumentError: The encoder lacks a layer.
            ShapeError: The encoder gives another number of features for its images.

        Example:
            >>> import numpy as np, pycnn as pc
            >>> encoder = pc.transfer.Encoder(pc.models.create("cifar_resnet20"), "layer3")
            >>> probe = LinearProbe(np.zeros((2, 64), "f4"), np.zeros(2, "f4"), "softmax", 1.0, None, ("layer3",))
            >>> probe.to_net(encoder).predict_proba(np.zeros((1, 32, 32, 3), np.uint8)).tolist()
            [[0.5, 0.5]]
        """
        layers = self.layers or encoder.layers
        for name in layers:
            if name not in encoder.layers:
                raise ArgumentError(
                    f"LinearProbe: the encoder has no layer {name!r}; it has {', '.join(encoder.layers)}"
                )
        if layers != encoder.layers:
            pools = {name: encoder.pools[encoder.layers.index(name)] for name in layers}
            encoder = Encoder(encoder.net, layers, pool=pools, normalize=encoder.normalize)
        if encoder.input_shape is not None:
            given = sum(encoder.feature_sizes().values())
            if given != self.weight.shape[1]:
                raise ShapeError(
                    f"LinearProbe: the encoder gives {given} features of {', '.join(layers)}, the probe was fitted on "
                    f"{self.weight.shape[1]}"
                )
        return Classifier(encoder, self.head())


def linear_probe(
    features: FeatureSet | Any,
    labels: Any = None,
    *,
    layers: str | Sequence[str] | None = None,
    kind: Kind = "softmax",
    c: float | Sequence[float] = DEFAULT_CS,
    folds: int = 5,
    standardize: bool = True,
    seed: int = 0,
) -> LinearProbe:
    """Fit a linear classifier on the features of one layer or several (DeCAF, Donahue et al. 2014).

    The penalty is chosen by stratified cross-validation, repeated three times with other folds: the largest penalty
    (smallest C) that gives the best accuracy.
    Scale and shift of standardisation are learnt within each fold.

    Args:
        features: A `FeatureSet`, or an array (N, D).
        labels: With an array: class of each row, integers (N,).
        layers: Of a `FeatureSet`: whose features are joined; default: all.
        kind: "softmax": multinomial logistic regression. "svm": linear support vector machines, one class against the
            rest, squared hinge loss.
        c: One C, or those to choose from. The larger, the weaker the L2 penalty.
        folds: Of the cross-validation, at least 2; no more than the rarest class has samples. With a class of a
            single sample there are none, and C is the one given, or 0.01.
        standardize: Bring every feature to mean 0 and deviation 1 first; features that never change stay.
        seed: Which samples fall into which fold.

    Returns:
        The classifier.

    Raises:
        ArgumentError: There is only one class, or a class without samples, a number is not finite, or an argument is
            out of range.
        ShapeError: The arrays do not fit one another.
        LabelError: A label is negative or too large.
        UnsupportedError: scikit-learn is not installed (``pip install 'pycnn[transfer]'``).

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [4.0], [5.0]])
        >>> linear_probe(x, [0, 0, 1, 1]).predict([[0.5], [4.5]]).tolist()
        [0, 1]
    """
    who = "linear_probe"
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    if isinstance(features, FeatureSet):
        if labels is not None:
            raise ArgumentError(f"{who}: a FeatureSet has its own labels")
        names = features.layers if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)
        classes = features.class_names
        values, labels = features.matrix(names), features.labels
    elif labels is None or layers is not None:
        raise ArgumentError(f"{who}: an array of features needs labels and has no layers")
    else:
        values = features
    x = as_features(values, who=who, name="features")
    y = as_class_labels(labels, len(x), who=who)
    if kind not in ("softmax", "svm"):
        raise ArgumentError(f"{who}: kind must be 'softmax' or 'svm', got {kind!r}")
    _check_classes(y, classes, who)
    candidates = _as_cs(c, who)
    count = min(as_integer(folds, who=who, name="folds", low=2), int(np.bincount(y).min()))
    optional("sklearn.linear_model", extra="transfer", who=who)
    with _few_threads(x):
        chosen, accuracy = _choose(
            x, y, candidates, kind, count, standardize, as_integer(seed, who=who, name="seed", low=0)
        )
        weight, bias = _fit(x, y, chosen, kind, standardize)
    return LinearProbe(weight.astype(np.float32), bias.astype(np.float32), kind, chosen, accuracy, names, classes)


@contextmanager
def _few_threads(x: np.ndarray) -> Iterator[None]:
    """One thread for small matrices: handing them out costs more than it gives."""
    if x.size >= _SMALL_MATRIX:
        yield
        return
    from threadpoolctl import threadpool_limits  # scikit-learn needs it too

    with threadpool_limits(1, user_api="blas"):
        yield


def _check_classes(labels: np.ndarray, names: tuple[str, ...], who: str) -> None:
    # Not counted by number: a label may be any.
    present = np.unique(labels)
    if len(present) < 2:
        raise ArgumentError(f"{who}: all {len(labels)} samples are of one class; there is nothing to tell apart")
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size or len(present) < len(names):
        empty = int(gaps[0]) if gaps.size else len(present)
        shown = f"'{names[empty]}'" if empty < len(names) else str(empty)
        raise ArgumentError(f"{who}: class {shown} has no sample")


def _as_cs(c: Any, who: str) -> tuple[float, ...]:
    values = tuple(c) if isinstance(c, Sequence) and not isinstance(c, str) else (c,)
    numbers = tuple(sorted(as_float(value, who=who, name="c") for value in values))
    for number in numbers:
        if not (number > 0 and math.isfinite(number)):
            raise ArgumentError(f"{who}: c must be above 0 and finite, got {number}")
    if not numbers:
        raise ArgumentError(f"{who}: c holds no number")
    return numbers


def _choose(
    x: np.ndarray, y: np.ndarray, candidates: tuple[float, ...], kind: str, folds: int, standardize: bool, seed: int
) -> tuple[float, float | None]:
    """The smallest C of the best mean accuracy, and that accuracy."""
    if folds < 2:
        return (candidates[0] if len(candidates) == 1 else _MIDDLE_C), None
    from sklearn.model_selection import RepeatedStratifiedKFold

    splitter = RepeatedStratifiedKFold(n_splits=folds, n_repeats=_REPEATS, random_state=seed % 2**32)
    right = np.zeros(len(candidates), np.int64)
    for learn, check in splitter.split(x, y):
        for index, c in enumerate(candidates):
            weight, bias = _fit(x[learn], y[learn], c, kind, standardize)
            right[index] += int(((x[check] @ weight.T + bias).argmax(axis=1) == y[check]).sum())
    best = int(right.argmax())
    return candidates[best], float(right[best] / (_REPEATS * len(x)))


def _fit(x: np.ndarray, y: np.ndarray, c: float, kind: str, standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, features) and bias for features as they are."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    mean, deviation = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if standardize:
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        # Below the rounding of the mean a feature is constant.
        deviation[deviation <= 64 * np.finfo(np.float64).eps * np.abs(mean)] = 1.0
    if kind == "softmax":
        model = LogisticRegression(C=c, max_iter=_MOST_ITERATIONS)
    else:
        model = LinearSVC(C=c, dual=False, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        # Weak penalties need not converge to be compared.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - mean) / deviation, y)
    weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weight) == 1:
        # Two classes share one plane; half of it for each leaves probabilities as they are.
        factor = 0.5 if kind == "softmax" else 1.0
        weight, bias = np.concatenate([-weight, weight]) * factor, np.concatenate([-bias, bias]) * factor
    weight = weight / deviation
    return weight, bias - weight @ mean
