"""Mean, deviation and covariance of the colours of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pycnn.data import _image
from pycnn.data._checks import as_plain
from pycnn.data._parallel import in_order
from pycnn.errors import ArgumentError

if TYPE_CHECKING:
    from pycnn.data.datasets import Dataset

# Sums are combined chunk by chunk, so the chunk is part of the result for float32 images.
_CHUNK = 64


def _moments(dataset: Dataset, *, crossed: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (C,) and mean product (C, C) in 0..1 units."""
    channels = dataset.image_shape[2]

    def measure(first: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        index = np.arange(first, min(first + _CHUNK, len(dataset)), dtype=np.int64)
        total, product = np.zeros(channels), np.zeros((channels, channels))
        _image.moments(as_plain(dataset.read(index)), crossed, total, product)
        return total, product

    total, product = np.zeros(channels), np.zeros((channels, channels))
    for one, two in in_order(measure, range(0, len(dataset), _CHUNK)):
        total += one
        product += two
    height, width, _ = dataset.image_shape
    unit = 255.0 if dataset.image_dtype == np.uint8 else 1.0
    pixels = len(dataset) * height * width
    return total / (pixels * unit), product / (pixels * unit * unit)


def mean_std(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of all images.

    Args:
        dataset: Any data set; every image is read once, in several threads.

    Returns:
        ``(mean, std)``, a number per channel each, in 0..1 units for uint8 images (x / 255): what
        `Trainer(normalize=...)`, `Loader(normalize=...)` and `pycnn.nn.Normalize` take. A channel
        that never changes has std 1, so that it can be divided by.

    Raises:
        ArgumentError: It is no data set.
        FormatError: An image is bad.

    Example:
        >>> import numpy as np
        >>> from pycnn.data import ArrayDataset
        >>> mean_std(ArrayDataset(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), [0, 1]))
        ((0.5,), (0.5,))
    """
    from pycnn.data.datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise ArgumentError(f"mean_std: {type(dataset).__name__} is not a data set")
    mean, product = _moments(dataset, crossed=False)
    variance = np.maximum(np.diagonal(product) - mean * mean, 0.0)
    # Below the rounding of the sums it is constant.
    flat = variance <= 64 * np.finfo(np.float64).eps * np.diagonal(product)
    std = np.where(flat, 1.0, np.sqrt(variance))
    return tuple(mean.tolist()), tuple(std.tolist())


def covariance(dataset: Dataset) -> NDArray[np.float64]:
    """Covariance (C, C) of the channels over all pixels, in 0..1 units for uint8 images."""
    mean, product = _moments(dataset, crossed=True)
    return product - np.outer(mean, mean)
