"""Resampling of image batches to another size, without Pillow."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pycnn.data import _image
from pycnn.data._checks import Images, Index


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # Keys (1981), eq. 15, with a = -1/2: reproduces parabolas.
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}
FILTERS = tuple(_FILTERS)


@lru_cache(maxsize=64)
def resize_taps(source: int, target: int, name: str) -> tuple[Index, NDArray[np.float32]]:
    """Filter of each output pixel along one side: first input pixel (target,), taps (target, K).

    Pixel centres are at half integers and the whole side maps onto the whole side. When shrinking,
    the filter grows with the factor, so that every input pixel counts. Taps sum to 1; those that
    would fall outside of the image are dropped and the rest normalised.
    """
    kernel, radius = _FILTERS[name]
    factor = source / target
    stretch = max(1.0, factor)
    centre = (np.arange(target) + 0.5) * factor
    count = min(source, int(np.ceil(2 * radius * stretch)) + 1)
    start = np.floor(centre - radius * stretch + 0.5).astype(np.int64).clip(0, source - count)
    position = start[:, None] + np.arange(count) + 0.5
    taps = kernel((position - centre[:, None]) / stretch)
    taps /= taps.sum(axis=1, keepdims=True)
    return start, np.ascontiguousarray(taps, dtype=np.float32)


def resize(images: Images, size: tuple[int, int], *, interpolation: str = "bilinear") -> Images:
    """Resample ``(N, H, W, C)`` to ``(N, height, width, C)``, same dtype; uint8 is rounded."""
    count, height, width, channels = images.shape
    if (height, width) == size:
        return images
    out = np.empty((count, *size, channels), images.dtype)
    rows, row_taps = resize_taps(height, size[0], interpolation)
    columns, column_taps = resize_taps(width, size[1], interpolation)
    _image.resize(images, rows, row_taps, columns, column_taps, out)
    return out
