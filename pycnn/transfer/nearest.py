"""Nearest neighbours in feature space: exact, by Euclidean distance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pycnn.arguments import as_integer
from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError

__all__ = ["Neighbors", "classify_by_neighbors", "leave_one_out_accuracy", "neighbors"]

# Distances of one block: 16 MiB in float64.
_BLOCK_ELEMENTS = 2**21


class Neighbors(NamedTuple):
    """What `neighbors` finds.

    Attributes:
        indices: Rows of the features, nearest first, int64 (queries, k).
        distances: Euclidean distances, float32 (queries, k).
    """

    indices: np.ndarray
    distances: np.ndarray


def neighbors(features: Any, queries: Any, k: int = 5, *, exclude_self: bool = False) -> Neighbors:
    """Find for each query the k rows of the features that are nearest by L2 distance.

    The search is exact: all distances are computed, block by block as matrix products, and those of the candidates
    once more from the differences, in float64. Among equal distances the smaller index comes first.

    Args:
        features: (N, D).
        queries: (M, D), or one query (D,).
        k: Neighbours of each query, at most N.
        exclude_self: The queries are the features themselves, in the same order, and a row is not its own neighbour.

    Returns:
        Indices and distances, each (M, k), nearest first.

    Raises:
        ShapeError: The arrays are not (N, D) and (M, D).
        DTypeError: They do not hold real numbers.
        ArgumentError: k is out of range, or a number is not finite.

    Example:
        >>> found = neighbors([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0]], k=2)
        >>> found.indices.tolist(), found.distances.tolist()
        ([[0, 2]], [[0.0, 1.0]])
    """
    known = as_features(features, who="neighbors", name="features")
    asked = _as_array(queries, who="neighbors", name="queries")
    asked = as_features(asked[None] if asked.ndim == 1 else asked, who="neighbors", name="queries")
    if asked.shape[1] != known.shape[1]:
        raise ShapeError(f"neighbors: queries have {asked.shape[1]} features, the others {known.shape[1]}")
    if exclude_self and len(asked) != len(known):
        raise ShapeError(
            f"neighbors: exclude_self wants the features as queries; there are {len(known)} and {len(asked)}"
        )
    count = as_integer(k, who="neighbors", name="k", low=1, high=len(known) - int(exclude_self))
    squares = np.einsum("ij,ij->i", known, known)
    indices = np.empty((len(asked), count), np.int64)
    distances = np.empty((len(asked), count), np.float32)
    # Rounding of |a|^2 - 2ab + |b|^2 may exchange near neighbours; some more candidates are compared exactly.
    wanted = min(count + 8, len(known))
    step = max(_BLOCK_ELEMENTS // len(known), 1)
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        rough = squares[None, :] - 2.0 * (part @ known.T)
        if exclude_self:
            rough[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        for row, query in enumerate(part):
            candidates = _candidates(rough[row], wanted, float(query @ query))
            exact = np.square(known[candidates] - query).sum(axis=1)
            if exclude_self:
                exact[candidates == start + row] = np.inf
            best = np.lexsort((candidates, exact))[:count]
            indices[start + row] = candidates[best]
            distances[start + row] = np.sqrt(exact[best])
    return Neighbors(indices, distances)


def _candidates(rough: np.ndarray, wanted: int, square: float) -> np.ndarray:
    """Rows whose distance may be among the smallest: those, and all that rounding cannot tell from the last."""
    if wanted >= len(rough):
        return np.arange(len(rough))
    last = np.partition(rough, wanted - 1)[wanted - 1]
    finite = rough[np.isfinite(rough)]
    margin = 1e-12 * (abs(last) + square + float(np.abs(finite).max(initial=0.0)))
    return np.flatnonzero(rough <= last + margin)


def classify_by_neighbors(features: Any, labels: Any, queries: Any, k: int = 1) -> np.ndarray:
    """Give each query the class that most of its k nearest neighbours have.

    Between classes with equally many neighbours the one with the nearest decides.

    Args:
        features: (N, D).
        labels: Class of each row, integers (N,).
        queries: (M, D).
        k: Neighbours that vote.

    Returns:
        Classes, int64 (M,).

    Raises:
        ShapeError: The arrays do not fit one another.
        ArgumentError: k is out of range, or a number is not finite.
        DTypeError: An element type is not accepted.
        LabelError: A label is negative or too large.

    Example:
        >>> classify_by_neighbors([[0.0], [1.0], [5.0]], [0, 0, 1], [[4.0], [0.4]]).tolist()
        [1, 0]
    """
    known = as_features(features, who="classify_by_neighbors", name="features")
    classes = as_class_labels(labels, len(known), who="classify_by_neighbors")
    return _vote(classes[neighbors(known, queries, k).indices])


def leave_one_out_accuracy(features: Any, labels: Any, k: int = 1) -> float:
    """Tell how often the k nearest other samples have the sample's own class: a quick measure of features.

    Args:
        features: (N, D), N at least 2.
        labels: Class of each row, integers (N,).
        k: Neighbours that vote.

    Returns:
        The share of samples that are classified correctly, 0..1.

    Raises:
        ShapeError: The arrays do not fit one another.
        ArgumentError: k is out of range, or a number is not finite.
        DTypeError: An element type is not accepted.
        LabelError: A label is negative or too large.

    Example:
        >>> leave_one_out_accuracy([[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 0])
        0.5
    """
    known = as_features(features, who="leave_one_out_accuracy", name="features")
    classes = as_class_labels(labels, len(known), who="leave_one_out_accuracy")
    if len(known) < 2:
        raise ArgumentError("leave_one_out_accuracy: one sample has no neighbour, two or more are needed")
    found = _vote(classes[neighbors(known, known, k, exclude_self=True).indices])
    return float((found == classes).mean())


def _vote(classes: np.ndarray) -> np.ndarray:
    """The most frequent class of each row; of those as frequent, the first in the row."""
    equal = classes[:, :, None] == classes[:, None, :]
    winner: np.ndarray = classes[np.arange(len(classes)), equal.sum(axis=2).argmax(axis=1)]
    return winner


def as_features(value: Any, *, who: str, name: str) -> np.ndarray:
    """Features as float64 (N, D).

    Raises:
        ShapeError: Another number of axes, or nothing in it.
        DTypeError: No real numbers.
        ArgumentError: A number is not finite.
    """
    array = _as_array(value, who=who, name=name)
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{who}: {name} are {array.dtype}, expected real numbers")
    if array.ndim != 2 or not array.size:
        raise ShapeError(f"{who}: {name} are {array.shape}, expected (N, features) with at least one of each")
    result = np.asarray(array, np.float64)
    bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if bad.size:
        raise ArgumentError(f"{who}: {name} hold NaN or infinity in row {bad[0]} ({bad.size} such rows)")
    return result


def _as_array(value: Any, *, who: str, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        raise ShapeError(f"{who}: {name} are lists of different lengths, expected one length") from None


def as_class_labels(value: Any, count: int, *, who: str) -> np.ndarray:
    """Labels as int64 (N,).

    Raises:
        ShapeError: Not one for each sample.
        DTypeError: No integers.
        LabelError: A label is negative, or larger than an int64.
    """
    labels = _as_array(value, who=who, name="labels")
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"{who}: labels are {labels.dtype}, expected integers")
    if labels.shape != (count,):
        raise ShapeError(f"{who}: {count} samples but labels {labels.shape}")
    for where, why in ((int(labels.argmin()), "negative"), (int(labels.argmax()), "too large")):
        if not 0 <= int(labels[where]) <= np.iinfo(np.int64).max:
            raise LabelError(f"{who}: label {labels[where]} at position {where} is {why}")
    return labels.astype(np.int64)
