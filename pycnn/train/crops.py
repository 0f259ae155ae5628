"""Evaluation over several crops of each image."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pycnn.data import Dataset, Loader
from pycnn.data.transforms import five_crop, mirror_pair, ten_crop
from pycnn.errors import ArgumentError, ShapeError
from pycnn.train._batches import as_dataset, check_labels

__all__ = ["evaluate_crops", "predict_crops"]

_CROPS = {2: mirror_pair, 5: five_crop, 10: ten_crop}


class Classifier(Protocol):
    """A net, an ensemble: whatever gives probabilities of classes."""

    def predict_proba(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """From images (N, H, W, C) to probabilities (N, classes)."""
        ...


def predict_crops(
    net: Classifier, images: Any, *, size: int | tuple[int, int], crops: int = 10, batch_size: int = 256
) -> np.ndarray:
    """Average the probabilities of classes over crops of each image (Krizhevsky et al. 2012, section 4.1).

    Args:
        net: A net, or anything with `predict_proba`; ``Ensemble([net], device="cuda")`` is a net on a GPU.
        images: Images (N, H, W, C), uint8 or float32, at least as large as the net's input.
        size: Side, or (height, width), of the crops in pixels: the net's input.
        crops: 10 for the four corners, the middle and their mirror images; 5 without these; 2 for the middle and its
            mirror image.
        batch_size: Crops per run of the net; on the CPU the result does not depend on it.

    Returns:
        float32 (N, classes), rows that sum to 1.

    Raises:
        ShapeError: The crops do not fit in the images, or the net's output is not (N, classes).
        DTypeError: Images of another element type.
        ArgumentError: `crops` or `size` is out of range.

    Example:
        >>> import numpy as np
        >>> import pycnn as pc
        >>> images = np.zeros((2, 32, 32, 1), np.uint8)
        >>> predict_crops(pc.models.lenet5(), images, size=28).shape
        (2, 10)
    """
    cut = _CROPS.get(crops) if isinstance(crops, int) else None
    if cut is None:
        raise ArgumentError(f"predict_crops: crops must be 2, 5 or 10, got {crops!r}")
    windows = cut(images, size)
    count = len(windows)
    flat = windows.reshape(count * crops, *windows.shape[2:])
    scores = net.predict_proba(flat, batch_size=batch_size)
    mean: np.ndarray = scores.reshape(count, crops, -1).mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean


def evaluate_crops(
    net: Classifier,
    data: Dataset | tuple[Any, Any],
    *,
    size: int | tuple[int, int],
    crops: int = 10,
    batch_size: int = 256,
) -> dict[str, float]:
    """Measure a net whose answer is the average over crops of each image; see `predict_crops`.

    Args:
        net: A net, or anything with `predict_proba`; ``Ensemble([net], device="cuda")`` is a net on a GPU.
        data: A data set of images at least as large as the net's input, for example ``ImageFolder(DIR, size=256)``
            for crops of 224; or ``(images, labels)``.
        size: Side, or (height, width), of the crops in pixels.
        crops: 10, 5 or 2.
        batch_size: Crops per run of the net.

    Returns:
        "accuracy", "top5" where there are more than 5 classes, and "loss", the mean negative logarithm of the
        averaged probability of the right class.

    Raises:
        LabelError: A label is outside of the net's classes.
        ShapeError: The crops do not fit in the images, or the net's output is not (N, classes).
        ArgumentError: `crops`, `size` or `batch_size` is out of range, or the data set is empty.

    Example:
        >>> import pycnn as pc
        >>> _, test = pc.data.digits(size=32)
        >>> measured = evaluate_crops(pc.models.lenet5(), test, size=28)
        >>> sorted(measured)
        ['accuracy', 'loss', 'top5']
    """
    dataset = as_dataset(data, who="evaluate_crops")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(f"evaluate_crops: batch_size must be an integer of at least 1, got {batch_size!r}")
    right = right_of_five = 0
    loss = 0.0
    classes = 0
    for images, labels in Loader(dataset, max(1, batch_size // crops) if crops in _CROPS else 1, shuffle=False):
        scores = predict_crops(net, images, size=size, crops=crops, batch_size=batch_size)
        if scores.ndim != 2:
            raise ShapeError(f"evaluate_crops: the net gives {scores.shape}, expected (N, classes)")
        classes = scores.shape[1]
        check_labels(labels, classes, who="evaluate_crops")
        own = scores[np.arange(len(labels)), labels]
        # How many classes come before the right one; ties go to the smaller class number, as in argmax.
        ahead = (scores > own[:, None]) | ((scores == own[:, None]) & (np.arange(classes) < labels[:, None]))
        rank = ahead.sum(axis=1)
        right += int((rank < 1).sum())
        right_of_five += int((rank < 5).sum())
        loss -= float(np.log(np.maximum(own, np.finfo(np.float32).tiny), dtype=np.float64).sum())
    measured = {"accuracy": right / len(dataset), "loss": loss / len(dataset)}
    if classes > 5:
        measured["top5"] = right_of_five / len(dataset)
    return measured
