"""Data sets whose labels were looked at: they are counted by class, so a stray one would be a large allocation."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.data import Dataset
from pycnn.data._checks import as_labels, check_label_range
from pycnn.train._batches import as_dataset

__all__ = ["as_labelled", "images_by_class"]


def as_labelled(data: Any, *, who: str) -> Dataset:
    """A data set, or ``(images, labels)`` as one, each of whose labels is the number of one of its classes.

    Raises:
        ArgumentError: Something else, or nothing in it.
        DTypeError: The labels are no integers.
        LabelError: A label is outside of the classes; the text gives position and value.
        ShapeError: Not one label for each image.
    """
    dataset = as_dataset(data, who=who)
    labels = as_labels(dataset.labels, count=len(dataset), who=who)
    check_label_range(labels, len(dataset.class_names), who=who)
    return dataset


def images_by_class(data: Dataset) -> np.ndarray:
    """How many images each class has, of a data set from `as_labelled`."""
    return np.bincount(data.labels, minlength=len(data.class_names))
