"""Transforms that cut, move, mirror or resize a window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_integer, as_number
from pycnn.data import _image
from pycnn.data._checks import Images, as_size
from pycnn.data._random import Draw
from pycnn.data._resize import FILTERS, resize
from pycnn.data.transforms._base import Shape, Transform
from pycnn.errors import ArgumentError, ShapeError

Offsets = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Pad with `fill`, then cut a window at a random place.

    Args:
        size: Side, or (height, width), of the window in pixels. Default: the size of the image.
        padding: Pixels added on each side, at least 0.
        fill: Value of the padding.

    Raises:
        ArgumentError: A number out of range.
        ShapeError: When applied: the window is larger than the padded image.
    """

    size: int | tuple[int, int] | None = None
    padding: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.size is not None:
            as_size(self.size, who="RandomCrop")
        as_integer(self.padding, who="RandomCrop", name="padding", low=0, high=65536)
        as_number(self.fill, who="RandomCrop", name="fill")

    def output_shape(self, shape: Shape) -> Shape:
        size = shape[:2] if self.size is None else as_size(self.size, who="RandomCrop")
        for axis, name in enumerate(("height", "width")):
            if size[axis] > shape[axis] + 2 * self.padding:
                raise ShapeError(
                    f"RandomCrop: window {name} {size[axis]} exceeds the image {name} "
                    f"{shape[axis]} + 2 * padding {self.padding}"
                )
        return (*size, shape[2])

    def apply(self, images: Images, draw: Draw) -> Images:
        out = np.empty((len(images), *self.output_shape(images.shape[1:])), images.dtype)
        _image.crop(images, *self.offsets(images.shape[1:], draw), self.fill, out)
        return out

    def offsets(self, shape: Shape, draw: Draw) -> Offsets:
        """First row and first column of each window in its image of that shape."""
        unit, size = draw.uniform(2), self.output_shape(shape)
        places = [np.floor(unit[:, i] * (shape[i] + 2 * self.padding - size[i] + 1)) for i in range(2)]
        top, left = (place.astype(np.int64) - self.padding for place in places)
        return top, left


@dataclass(frozen=True)
class RandomShift(Transform):
    """Move by whole pixels, up to `max_px` along each side; what comes in is `fill`.

    Args:
        max_px: Largest move in pixels, at least 0.
        fill: Value of pixels from outside.
    """

    max_px: int = 2
    fill: float = 0.0

    def __post_init__(self) -> None:
        as_integer(self.max_px, who="RandomShift", name="max_px", low=0, high=65536)
        as_number(self.fill, who="RandomShift", name="fill")

    def apply(self, images: Images, draw: Draw) -> Images:
        out = np.empty_like(images)
        _image.crop(images, *self.offsets(images.shape[1:], draw), self.fill, out)
        return out

    def offsets(self, shape: Shape, draw: Draw) -> Offsets:
        """First row and first column of each window in its image."""
        offset = np.floor(draw.uniform(2) * (2 * self.max_px + 1)).astype(np.int64) - self.max_px
        top, left = np.ascontiguousarray(offset.T)
        return top, left


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Cut a window from the middle; an odd margin leaves the extra pixel at the bottom and right.

    Args:
        size: Side, or (height, width), in pixels; at most the image.
    """

    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        as_size(self.size, who="CenterCrop")

    def output_shape(self, shape: Shape) -> Shape:
        size = as_size(self.size, who="CenterCrop")
        if size[0] > shape[0] or size[1] > shape[1]:
            raise ShapeError(f"CenterCrop: window {size} exceeds the image {shape[:2]}")
        return (*size, shape[2])

    def apply(self, images: Images, draw: Draw) -> Images:
        height, width = as_size(self.size, who="CenterCrop")
        top = (images.shape[1] - height) // 2
        left = (images.shape[2] - width) // 2
        return np.ascontiguousarray(images[:, top : top + height, left : left + width])


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform):
    """Mirror left and right with probability `p`.

    Args:
        p: Probability in 0..1.
        alternate: An image that was mirrored in one epoch is not in the next, and the other way round: two epochs show
            both sides of every image, where independent draws repeat a side half the time (Jordan 2024, "94% on
            CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498). `p` is then the share of images that are
            mirrored in epochs 0, 2, 4, ...
    """

    p: float = 0.5
    alternate: bool = False

    def __post_init__(self) -> None:
        as_number(self.p, who="RandomHorizontalFlip", name="p", low=0, high=1)
        if not isinstance(self.alternate, bool):
            raise ArgumentError(f"RandomHorizontalFlip: alternate must be True or False, got {self.alternate!r}")

    def apply(self, images: Images, draw: Draw) -> Images:
        out = np.empty_like(images)
        _image.flip(images, self.mirrored(draw).astype(np.uint8), out)
        return out

    def mirrored(self, draw: Draw) -> NDArray[np.bool_]:
        """Which images are."""
        if self.alternate:
            return (replace(draw, epoch=0).uniform(1)[:, 0] < self.p) ^ bool(draw.epoch % 2)
        chosen: NDArray[np.bool_] = draw.uniform(1)[:, 0] < self.p
        return chosen


@dataclass(frozen=True)
class Resize(Transform):
    """Resample to another size; shrinking averages all pixels (no aliasing).

    Args:
        size: Side, or (height, width), in pixels.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
    """

    size: int | tuple[int, int]
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        as_size(self.size, who="Resize")
        if self.interpolation not in FILTERS:
            raise ArgumentError(f"Resize: interpolation must be one of {FILTERS}, got {self.interpolation!r}")

    def output_shape(self, shape: Shape) -> Shape:
        return (*as_size(self.size, who="Resize"), shape[2])

    def apply(self, images: Images, draw: Draw) -> Images:
        return resize(images, as_size(self.size, who="Resize"), interpolation=self.interpolation)
