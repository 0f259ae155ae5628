"""Normalisation to zero mean and unit deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_number
from pycnn.data import _image
from pycnn.data._checks import Images, as_array
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.errors import ArgumentError, ShapeError


@dataclass(frozen=True)
class Normalize(Transform):
    """Subtract the mean and divide by the standard deviation, per channel; gives float32.

    uint8 counts as x / 255, so `mean` and `std` are in 0..1 units for either dtype.

    Args:
        mean: One number, or one per channel.
        std: One number, or one per channel; above 0.
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = np.atleast_1d(as_array(getattr(self, name), who="Normalize", name=name))
            low = 1e-12 if name == "std" else -math.inf
            if values.ndim != 1 or not values.size:
                raise ArgumentError(f"Normalize: {name} must be one number or one per channel")
            checked = tuple(as_number(v, who="Normalize", name=name, low=low) for v in values)
            # Tuples, so that equal transforms compare and hash equal.
            object.__setattr__(self, name, checked)

    def output_shape(self, shape: Shape) -> Shape:
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, shape[2]):
                raise ShapeError(f"Normalize: {name} has {count} values, the images have {shape[2]} channels")
        return shape

    def constants(self, dtype: np.dtype[Any], channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and shift of ``x * scale + shift``, repeated to at least 48 elements."""
        repeat = max(1, -(-48 // channels))
        unit = 255.0 if dtype == np.uint8 else 1.0
        mean = np.broadcast_to(np.array(self.mean), channels)
        std = np.broadcast_to(np.array(self.std), channels)
        scale = (1.0 / (unit * std)).astype(np.float32)
        return np.tile(scale, repeat), np.tile((-mean / std).astype(np.float32), repeat)

    def apply(self, images: Images, draw: Draw) -> Images:
        return self.gather(images, np.arange(len(images), dtype=np.int64))

    def gather(self, images: Images, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Normalised ``images[index]``, in one pass over memory."""
        self.output_shape(images.shape[1:])
        out = np.empty((len(index), *images.shape[1:]), np.float32)
        scale, shift = self.constants(images.dtype, images.shape[3])
        size = math.prod(images.shape[1:])
        rows = images.reshape(len(images), size)
        _image.gather_normalize(rows, index, scale, shift, out.reshape(len(out), size))
        return out
