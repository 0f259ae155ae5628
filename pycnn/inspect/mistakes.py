"""What a net says about a data set: confusion matrix, and the mistakes that it is most sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError, LabelError
from pycnn.nn.module import Module
from pycnn.program import check_device

__all__ = ["Mistakes", "Predictions", "predictions"]


@dataclass(frozen=True)
class Mistakes:
    """Images that were taken for something else, the surest mistake first.

    Attributes:
        images: int64 (count), index in the data set.
        labels: int64 (count), the true classes.
        predicted: int64 (count), what the net says.
        probability: float32 (count), of what it says.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Probabilities for every image of a data set.

    Attributes:
        probabilities: float32 (N, classes).
        labels: int64 (N), the true classes.
        class_names: One for each class.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable classes, int64 (N)."""
        found: np.ndarray = self.probabilities.argmax(axis=1)
        return found

    @property
    def accuracy(self) -> float:
        """Part of the images that are predicted right, 0..1."""
        return float((self.predicted == self.labels).mean())

    def confusion_matrix(self) -> np.ndarray:
        """Count how often images of each class (row) were taken for each class (column), int64 (classes, classes)."""
        classes = len(self.class_names)
        counts = np.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return counts.reshape(classes, classes).astype(np.int64)

    def mistakes(self, count: int = 16) -> Mistakes:
        """The mistakes that the net is most sure of.

        Args:
            count: At most so many.

        Raises:
            ArgumentError: `count` is not positive.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ArgumentError(f"mistakes: count must be a whole number of at least 1, got {count!r}")
        predicted = self.predicted
        wrong = np.flatnonzero(predicted != self.labels)
        sure = self.probabilities[wrong, predicted[wrong]]
        chosen = wrong[np.argsort(-sure, kind="stable")[:count]]
        return Mistakes(
            chosen.astype(np.int64),
            self.labels[chosen],
            predicted[chosen],
            self.probabilities[chosen, predicted[chosen]],
        )


def predictions(net: Module, data: Any, *, batch_size: int = 256, device: str = "cpu") -> Predictions:
    """Run a net over a data set.

    Args:
        net: A net that gives scores (N, classes).
        data: A data set with `labels`, `class_names` and `read`, as `pycnn.data` has them.
        batch_size: Images per run; on the CPU the result does not depend on it.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Raises:
        ShapeError: The net gives no scores, or refuses the images.
        LabelError: There are labels beyond the net's classes.
        ArgumentError: The data set is empty, or `batch_size` is not positive.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn
        >>> _, test = pycnn.data.digits()
        >>> int(predictions(pycnn.models.lenet5(), test).confusion_matrix().sum()), len(test)
        (450, 450)
    """
    where = check_device(device, who="predictions")
    if not len(data):
        raise ArgumentError("predictions: the data set is empty")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(f"predictions: batch_size must be a whole number of at least 1, got {batch_size!r}")
    parts = []
    for start in range(0, len(data), batch_size):
        images = data.read(np.arange(start, min(start + batch_size, len(data))))
        parts.append(net.predict_proba(images, batch_size=batch_size, device=where))
    probabilities = np.concatenate(parts)
    labels = np.asarray(data.labels, np.int64)
    classes = probabilities.shape[1]
    if labels.max() >= classes:
        raise LabelError(f"predictions: label {labels.max()}, the net has the classes 0 to {classes - 1}")
    names = tuple(data.class_names)
    names += tuple(str(index) for index in range(len(names), classes))
    return Predictions(probabilities, labels, names[:classes])
