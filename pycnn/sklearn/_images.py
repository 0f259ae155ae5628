"""What scikit-learn hands over, as images (N, H, W, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError, ShapeError

__all__ = ["as_images", "check_image_shape", "shape_of_images"]


def check_image_shape(shape: Any) -> tuple[int, int, int] | None:
    """(H, W, C) of (H, W) or (H, W, C).

    Raises:
        ArgumentError: It is neither, or a size is not positive.
    """
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if len(sizes) not in (2, 3) or any(
        not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1 for n in sizes
    ):
        raise ArgumentError(f"CNNClassifier: image_shape is {shape!r}, expected (H, W) or (H, W, C), positive integers")
    height, width, *rest = (int(n) for n in sizes)
    return height, width, rest[0] if rest else 1


def shape_of_images(shape: Sequence[int], wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """(H, W, C) of a batch of this shape.

    Rows of a square number of features are square grey images, other rows images of one line.

    Raises:
        ShapeError: It is no batch of rows, of grey images or of images, or not of the wanted shape.
    """
    sizes = tuple(int(n) for n in shape[1:])
    if len(sizes) == 1:
        count = sizes[0]
        side = math.isqrt(count)
        found = wanted or ((side, side, 1) if side * side == count else (1, count, 1))
        if math.prod(found) != count:
            raise ShapeError(f"CNNClassifier: X has {count} features, image_shape {found} needs {math.prod(found)}")
        return found
    if len(sizes) not in (2, 3):
        raise ShapeError(f"CNNClassifier: X is {tuple(shape)}, expected (N, features), (N, H, W) or (N, H, W, C)")
    height, width, *rest = sizes
    found = height, width, rest[0] if rest else 1
    if wanted is not None and found != wanted:
        raise ShapeError(f"CNNClassifier: X holds images {found} as (H, W, C), image_shape is {wanted}")
    return found


def as_images(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Float32 images (N, H, W, C), without a copy of what is that already.

    Raises:
        ArgumentError: A value is beyond what float32 holds.
    """
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(array.reshape(len(array), *shape), dtype=np.float32)
    # Whoever calls has refused values that are not finite before.
    if array.dtype.kind == "f" and array.dtype.itemsize > 4 and not np.isfinite(images).all():
        largest = np.abs(array).max()
        raise ArgumentError(f"CNNClassifier: X holds {largest:g}, beyond the range of float32 (3.4e38); scale it")
    return images
