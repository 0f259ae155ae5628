"""A first convolution that whitens the patches of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_number
from pycnn.data import Dataset
from pycnn.errors import ArgumentError
from pycnn.nn import Conv2d, Module

__all__ = ["whiten"]

_IMAGES = 5000  # patches of more change nothing
_BATCH = 250


def whiten(
    conv: Conv2d,
    images: Dataset,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    eps: float = 5e-4,
) -> None:
    """Set a convolution's filters to the whitening of the patches that it sees, and its bias to 0.

    The directions are eigenvectors of the patches' second moments, largest first, each divided by the root of its
    eigenvalue plus `eps`; the other half of the filters are their opposites, so that nothing is lost behind a ReLU.
    The outputs of the first half have unit variance (but for `eps`) and are uncorrelated.

    Args:
        conv: An ungrouped convolution of C input channels, with at most ``2 * KH * KW * C`` filters, an even number.
        images: The first 5,000 of them are read.
        mean: Of each channel as 0..1 (uint8 images) or as they are (float images), subtracted before; one for each
            channel or one for all, or none.
        std: Likewise, divided by.
        eps: Added to the eigenvalues, above 0.

    Raises:
        ArgumentError: The convolution is of another form, or `images` have other channels or are smaller than the
            window.

    Source: Page, "How to train your ResNet", 2019, https://github.com/davidcpage/cifar10-fast; Jordan 2024.

    Example:
        >>> import pycnn as pc
        >>> train, _ = pc.data.digits(seed=0)
        >>> conv = pc.nn.Conv2d(1, 8, kernel_size=2)
        >>> pc.train.whiten(conv, train)
        >>> conv.weight.shape
        (8, 2, 2, 1)
    """
    who = "whiten"
    small = as_number(eps, who=who, name="eps", low=0.0, above=True)
    if not isinstance(conv, Conv2d) or conv.weight is None or conv.groups != 1:
        raise ArgumentError(f"{who}: conv must be a Conv2d of known input channels and one group, got {conv!r}")
    filters, height, width, channels = conv.weight.shape
    most = 2 * height * width * channels
    if filters % 2 or filters > most:
        raise ArgumentError(f"{who}: {conv!r} has {filters} filters, expected an even number of at most {most}")
    shape = images.image_shape
    if shape[2] != channels or shape[0] < height or shape[1] < width or not len(images):
        raise ArgumentError(
            f"{who}: {len(images)} images of {shape[0]}x{shape[1]}x{shape[2]}, expected some of {channels} channels "
            f"and at least {height}x{width} pixels"
        )
    values, vectors = np.linalg.eigh(_second_moments(images, (height, width), mean, std, who))
    order = np.argsort(values)[::-1][: filters // 2]
    directions = (vectors[:, order] / np.sqrt(np.maximum(values[order], 0.0) + small)).T
    # Of the two signs of an eigenvector one is told from the other by its largest part.
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    directions *= np.sign(largest)
    both = np.concatenate([directions, -directions]).reshape(filters, height, width, channels)
    conv.weight.copy_(both.transpose(0, 3, 1, 2).astype(np.float32))
    if conv.bias is not None:
        conv.bias.copy_(np.zeros(filters, np.float32))


def first_convolution(net: Module) -> Conv2d:
    """The convolution that sees the images of a net that starts with one.

    Raises:
        ArgumentError: There is none.
    """
    for _, module in net.named_modules():
        if isinstance(module, Conv2d):
            return module
    raise ArgumentError(f"whiten: {type(net).__name__} has no Conv2d")


def _second_moments(
    images: Dataset, window: tuple[int, int], mean: Sequence[float], std: Sequence[float], who: str
) -> NDArray[np.float64]:
    """Mean product of each two pixels of a patch, as (KH, KW, C) lie in memory."""
    channels = images.image_shape[2]
    size = window[0] * window[1] * channels
    unit = 255.0 if images.image_dtype == np.uint8 else 1.0
    shift, scale = _colours(mean, channels, 0.0, who, "mean"), _colours(std, channels, 1.0, who, "std")
    total, patches = np.zeros((size, size)), 0
    count = min(len(images), _IMAGES)
    for first in range(0, count, _BATCH):
        batch = np.asarray(images.read(np.arange(first, min(first + _BATCH, count))), np.float64) / unit
        batch = (batch - shift) / scale
        cut = np.lib.stride_tricks.sliding_window_view(batch, window, axis=(1, 2))  # (N, H', W', C, KH, KW)
        flat = cut.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size)
        total += flat.T @ flat
        patches += len(flat)
    return total / patches


def _colours(values: Sequence[float], channels: int, default: float, who: str, name: str) -> NDArray[np.float64]:
    given = np.asarray(values if len(values) else [default], np.float64)
    if given.shape not in ((1,), (channels,)) or not np.isfinite(given).all() or (name == "std" and (given <= 0).any()):
        raise ArgumentError(f"{who}: {name} is {values!r}, expected one number or {channels}")
    return given
