"""Maps enlarged to the size of an image."""

from __future__ import annotations

import numpy as np

from pycnn.nn.receptive_field import ReceptiveField

__all__ = ["enlarge"]


def enlarge(maps: np.ndarray, size: tuple[int, int], field: ReceptiveField | None = None) -> np.ndarray:
    """Bilinear interpolation between the cells of maps; what lies beyond the outer cells repeats them.

    Args:
        maps: (N, h, w).
        size: (height, width) of the result.
        field: Where the cells look in the image; each is put at the middle of what it sees. Without it, the cells share
            the image evenly.

    Returns:
        The same element type, (N, height, width).
    """
    weights = []
    for axis in (0, 1):
        old, new = maps.shape[1 + axis], size[axis]
        if field is None:
            at = (np.arange(new) + 0.5) * old / new - 0.5
        else:
            at = (np.arange(new) - field.centre[axis]) / field.stride[axis]
        weights.append(_weights(np.clip(at, 0, old - 1), old))
    result: np.ndarray = np.einsum("yi,nij,xj->nyx", weights[0], maps.astype(np.float64), weights[1], optimize=True)
    return result.astype(maps.dtype)


def _weights(at: np.ndarray, old: int) -> np.ndarray:
    """(new, old): the two cells around each position, and how much each counts."""
    low = np.minimum(at.astype(int), max(old - 2, 0))
    weights = np.zeros((len(at), old))
    weights[np.arange(len(at)), low] = 1 - (at - low)
    if old > 1:
        weights[np.arange(len(at)), low + 1] += at - low
    return weights
