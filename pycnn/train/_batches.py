"""Checks of what goes into a step: images, labels, other targets; data sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.data import ArrayDataset, Dataset
from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError
from pycnn.tensor import as_array, as_plain

__all__ = ["as_dataset", "as_target", "check_labels", "check_probabilities", "one_hot"]

_INT64 = np.dtype(np.int64)


def as_dataset(data: Any, *, who: str) -> Dataset:
    """A data set as it is, or ``(images, labels)`` as one.

    Raises:
        ArgumentError: Something else, or nothing in it.
    """
    if isinstance(data, tuple | list) and len(data) == 2:
        return ArrayDataset(data[0], data[1])
    if not isinstance(data, Dataset):
        raise ArgumentError(
            f"{who}: {type(data).__name__} is no data set\n  hint: give a pycnn.data data set or (images, labels)"
        )
    if not len(data):
        raise ArgumentError(f"{who}: the data set is empty")
    return data


def as_target(value: Any, count: int, *, who: str) -> np.ndarray:
    """Labels (N,) as int64, or other targets (N, ...) as float32.

    Raises:
        ShapeError: Not one target for each image.
        DTypeError: Not numbers, or labels that are no integers.
    """
    # What nearly all give.
    if type(value) is np.ndarray and value.dtype == _INT64 and value.shape == (count,) and value.flags.c_contiguous:
        return value
    target = as_array(value, what=f"{who}: y")
    if target.ndim == 0 or len(target) != count:
        raise ShapeError(f"{who}: {count} images but targets {target.shape}")
    if target.dtype.kind == "b":
        raise DTypeError(f"{who}: labels must be integers, got bool\n  hint: try y.astype(numpy.int64)")
    if target.dtype.kind in "iu":
        if target.ndim == 2 and target.shape[1] == 1:
            raise ShapeError(f"{who}: labels must be (N,), got {target.shape}\n  hint: y.ravel()")
        if target.ndim != 1:
            raise ShapeError(
                f"{who}: labels must be (N,), got {target.shape}\n"
                "  hint: one-hot labels? try y.argmax(axis=1), or float32 probabilities"
            )
        if target.dtype.kind == "u" and target.size and target.max() > np.iinfo(np.int64).max:
            where = int(target.argmax())
            raise LabelError(f"{who}: label {target[where]} at position {where} is out of range")
        return np.ascontiguousarray(target, np.int64)
    if target.ndim == 1:
        bad = np.flatnonzero(~np.isfinite(target) | (target != np.floor(target)))
        where = int(bad[0]) if bad.size else 0
        shown = f" (value {target[where]} at position {where})" if target.size else ""
        hint = "" if bad.size else "\n  hint: try y.astype(numpy.int64)"
        raise DTypeError(f"{who}: labels must be integers, got {target.dtype}{shown}{hint}")
    return as_plain(target, "float32", what=f"{who}: y")


def check_labels(labels: np.ndarray, classes: int, *, who: str) -> None:
    """Refuse a label below 0 or not below `classes`.

    Programs refuse labels too, but only those that they read as labels: here some become rows of a target first, where
    -1 would mean the last class. And the caller and the number of such labels are told.

    Raises:
        LabelError: Names the first such label's position and value.
    """
    if not labels.size or (int(labels.min()) >= 0 and int(labels.max()) < classes):
        return
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    where = int(bad[0])
    more = f"; {bad.size} such labels" if bad.size > 1 else ""
    raise LabelError(
        f"{who}: label {labels[where]} at position {where}, the net has {classes} classes (0..{classes - 1}){more}"
    )


def check_probabilities(target: np.ndarray, *, who: str) -> None:
    """Refuse negative probabilities, with which the loss would fall for ever.

    Raises:
        ArgumentError: Names the first one's position and value.
    """
    if target.size and target.min() < 0:
        where = tuple(int(i) for i in np.argwhere(target < 0)[0])
        raise ArgumentError(f"{who}: y has {target[where]} at {where}, a probability is at least 0")


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(N,) class numbers to (N, classes) of 0 and 1."""
    target = np.zeros((len(labels), classes), np.float32)
    target[np.arange(len(labels)), labels] = 1.0
    return target
