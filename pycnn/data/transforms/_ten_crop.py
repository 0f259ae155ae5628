"""Crops for evaluation: the middle, or the four corners too, and their mirror images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pycnn.data._checks import Images, as_array, as_size, check_image_dtype, check_image_shape
from pycnn.errors import ShapeError


def five_crop(images: ArrayLike, size: int | tuple[int, int]) -> Images:
    """Top left, top right, bottom left, bottom right and central window of each image.

    Args:
        images: uint8 or float32.
        size: Side, or (height, width), of the windows in pixels; at most the image.

    Shape:
        images ``(N, H, W, C)`` -> ``(N, 5, height, width, C)``.

    Raises:
        ShapeError: The windows do not fit, or not channels-last images.
        DTypeError: Neither uint8 nor float32.
        ArgumentError: `size` is out of range.
    """
    return _crops(images, size, "five_crop", corners=True, mirror=False)


def ten_crop(images: ArrayLike, size: int | tuple[int, int]) -> Images:
    """The windows of `five_crop`, then their mirror images (Krizhevsky et al. 2012, section 4.1).

    At test time the class probabilities of the ten are averaged: `pycnn.train.evaluate_crops`. The sixth is the
    mirror image of the first, and so on; torchvision's function of this name has those of the left and
    the right windows exchanged, as it cuts from the mirrored image.

    Args:
        images: uint8 or float32.
        size: Side, or (height, width), of the windows in pixels; at most the image.

    Shape:
        images ``(N, H, W, C)`` -> ``(N, 10, height, width, C)``.

    Raises:
        ShapeError: The windows do not fit, or not channels-last images.
        DTypeError: Neither uint8 nor float32.
        ArgumentError: `size` is out of range.

    Example:
        >>> import numpy as np
        >>> ten_crop(np.zeros((2, 256, 256, 3), np.uint8), 224).shape
        (2, 10, 224, 224, 3)
    """
    return _crops(images, size, "ten_crop", corners=True, mirror=True)


def mirror_pair(images: ArrayLike, size: int | tuple[int, int]) -> Images:
    """The central window of each image, then its mirror image.

    Args:
        images: uint8 or float32.
        size: Side, or (height, width), of the window in pixels; at most the image.

    Shape:
        images ``(N, H, W, C)`` -> ``(N, 2, height, width, C)``.

    Raises:
        ShapeError: The window does not fit, or not channels-last images.
        DTypeError: Neither uint8 nor float32.
        ArgumentError: `size` is out of range.
    """
    return _crops(images, size, "mirror_pair", corners=False, mirror=True)


def _crops(images: ArrayLike, size: int | tuple[int, int], who: str, *, corners: bool, mirror: bool) -> Images:
    height, width = as_size(size, who=who)
    array = as_array(images, who=who, name="images")
    check_image_shape(array.shape, who=who)
    check_image_dtype(array.dtype, who=who)
    count, rows, columns, channels = array.shape
    if height > rows or width > columns:
        raise ShapeError(f"{who}: windows {(height, width)} exceed the images {(rows, columns)}")
    bottom, right = rows - height, columns - width
    # The middle as torchvision rounds it: half an odd margin goes to the even number.
    middle = (round(bottom / 2), round(right / 2))
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), middle] if corners else [middle]
    out = np.empty((count, len(places) * (2 if mirror else 1), height, width, channels), array.dtype)
    for n, (top, left) in enumerate(places):
        out[:, n] = array[:, top : top + height, left : left + width]
    if mirror:
        out[:, len(places) :] = out[:, : len(places), :, ::-1]
    return out
