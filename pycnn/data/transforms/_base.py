"""The base class of transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pycnn.arguments import as_number
from pycnn.data._checks import (
    Images,
    as_array,
    as_plain,
    as_seed,
    check_image_dtype,
    check_image_shape,
)
from pycnn.data._random import Draw
from pycnn.errors import ArgumentError

Shape = tuple[int, int, int]
Range = float | tuple[float, float]


class Transform(ABC):
    """Base of all transforms: checks what comes in, then calls `apply`."""

    def __call__(self, images: ArrayLike, *, seed: int = 0, epoch: int = 0, indices: ArrayLike | None = None) -> Images:
        """Transform one batch, or one image.

        Args:
            images: uint8 in 0..255 or float32, channels-last. Never modified.
            seed: 0..2**64 - 1.
            epoch: 0..2**64 - 1; another epoch draws other numbers.
            indices: Index of each sample in its data set. Default: 0, 1, 2, ...

        Shape:
            images ``(N, H, W, C)`` -> ``(N, H', W', C)``, or ``(H, W, C)`` -> ``(H', W', C)``.

        Returns:
            A new array, or the input itself where there is nothing to do.

        Raises:
            ShapeError: Not channels-last images, or the transform does not fit their size.
            DTypeError: Neither uint8 nor float32.
            ArgumentError: A bad seed, epoch, or not one index per image.
        """
        who = type(self).__name__
        array = as_array(images, who=who, name="images")
        single = array.ndim == 3
        batch = array[None] if single else array
        check_image_shape(batch.shape, who=who)
        check_image_dtype(batch.dtype, who=who)
        batch = as_plain(batch, who=who)
        if indices is None:
            index = np.arange(len(batch), dtype=np.int64)
        else:
            given = np.atleast_1d(as_array(indices, who=who, name="indices"))
            if given.dtype.kind not in "iu" or given.shape != (len(batch),):
                raise ArgumentError(f"{who}: indices must be {len(batch)} integers, got {given.dtype} {given.shape}")
            index = np.ascontiguousarray(given, dtype=np.int64)
        draw = Draw(as_seed(seed, who=who), as_seed(epoch, who=who, name="epoch"), index)
        self.output_shape((batch.shape[1], batch.shape[2], batch.shape[3]))
        result = self.apply(batch, draw)
        return result[0] if single else result

    @abstractmethod
    def apply(self, images: Images, draw: Draw) -> Images:
        """Transform a checked, contiguous batch with the randomness of `draw`."""

    def output_shape(self, shape: Shape) -> Shape:
        """Shape (H, W, C) of a result from the shape of an image.

        Raises:
            ShapeError: The transform does not fit images of this shape.
        """
        return shape


def as_range(value: Any, *, who: str, name: str, limit: float) -> tuple[float, float]:
    """``10`` -> (-10, 10); ``(a, b)`` stays; both within ±limit."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{who}: {name} must be a number or (low, high), got {value!r}")
        low = as_number(value[0], who=who, name=name, low=-limit, high=limit)
        high = as_number(value[1], who=who, name=name, low=-limit, high=limit)
    else:
        high = as_number(value, who=who, name=name, low=0, high=limit)
        low = -high
    if low > high:
        raise ArgumentError(f"{who}: {name} has low {low} above high {high}")
    return low, high
