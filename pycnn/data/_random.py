"""Random numbers of the data room: pure functions of (seed, epoch, sample index, stream)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycnn.data import _image
from pycnn.data._checks import Index

# Streams below this one number the steps of a transform pipeline.
_ORDER_STREAM = 1 << 32


@dataclass(frozen=True, slots=True)
class Draw:
    """The key of one batch's randomness; two draws with equal fields give equal numbers.

    Attributes:
        seed: 0..2**64 - 1.
        epoch: 0..2**64 - 1.
        indices: Index of each sample in the whole data set, int64 (N,).
        stream: Position of the transform in its pipeline, so that two equal steps differ.
    """

    seed: int
    epoch: int
    indices: Index
    stream: int = 0

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers in [0, 1), shape ``(N, count)``."""
        out = np.empty((len(self.indices), count))
        _image.uniform(self.seed, self.epoch, self.stream, self.indices, out)
        return out

    def normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers, shape ``(N, count)``; other bits than those of `uniform`."""
        out = np.empty((len(self.indices), count))
        _image.normal(self.seed, self.epoch, self.stream, self.indices, out)
        return out


def permutation(count: int, *, seed: int, epoch: int, stream: int = 0) -> Index:
    """A random order of ``0..count - 1``: sort keys from Philox, ties by index.

    NumPy's own `permutation` may change between its releases; this one may not.
    """
    keys = np.empty(count, np.uint64)
    _image.random_words(seed, epoch, _ORDER_STREAM + stream, 0, keys)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
