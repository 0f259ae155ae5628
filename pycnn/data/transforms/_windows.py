"""Transforms that only choose, mirror and cover pixels, as one window of each image: whoever trains can cut it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pycnn.data._checks import Images
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.data.transforms._compose import Compose
from pycnn.data.transforms._cutout import Cutout
from pycnn.data.transforms._window import RandomCrop, RandomHorizontalFlip, RandomShift

__all__ = ["Uncut", "Windows", "as_windows"]

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """What `pycnn.functional.take_windows` makes of images is what a transform makes of them, to the bit.

    Attributes:
        steps: The transform, step by step.
        image_shape: (H, W, C) of the images.
        size: (height, width) of the windows.
        fill: Outside of an image, as it is stored.
        box_fill: In boxes, as it is stored; none without boxes.
    """

    steps: tuple[Transform, ...]
    image_shape: Shape
    size: tuple[int, int]
    fill: float
    box_fill: tuple[float, ...]

    @cached_property
    def shape(self) -> Shape:
        """(height, width, C) of a window."""
        return (*self.size, self.image_shape[2])

    def places(self, draw: Draw) -> Places:
        """The places (N, 8) of a batch in the images `draw.indices`, by the random numbers of the transform itself."""
        count = len(draw.indices)
        places = np.zeros((count, 8), np.int64)
        places[:, 0] = draw.indices
        shape = self.image_shape
        left, mirrored = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        for position, step in enumerate(self.steps):
            key = replace(draw, stream=draw.stream + position)
            if isinstance(step, RandomCrop | RandomShift):
                top, first = step.offsets(shape, key)
                width, shape = shape[1], step.output_shape(shape)
                # Of a mirrored image the first column is the last of its window.
                left += np.where(mirrored, width - shape[1] - first, first)
                places[:, 1] += top
            elif isinstance(step, RandomHorizontalFlip):
                mirrored ^= step.mirrored(key)
            elif isinstance(step, Cutout):
                places[:, 4:] = step.boxes(*shape[:2], key)
        places[:, 2], places[:, 3] = left, mirrored
        return places


def as_windows(transform: Transform | None, image_shape: Shape, dtype: np.dtype[np.generic]) -> Windows | None:
    """A transform as windows; None where it is something else.

    One `RandomCrop` or `RandomShift`, any `RandomHorizontalFlip` and, at the end, one `Cutout` are.
    """
    given: tuple[Transform, ...] = () if transform is None else (transform,)
    if type(transform) is Compose:
        given = transform.steps
    fill = 0.0
    box_fill: tuple[float, ...] = ()
    has_moved = False
    for position, step in enumerate(given):
        # Not subclasses, which may do something else.
        if type(step) in (RandomCrop, RandomShift) and not has_moved:
            has_moved, fill = True, _stored(step.fill, dtype)  # type: ignore[attr-defined]
        elif type(step) is Cutout and position + 1 == len(given):
            values = step.fill if isinstance(step.fill, tuple) else (step.fill,)
            box_fill = tuple(_stored(value, dtype) for value in values)
        elif type(step) is not RandomHorizontalFlip:
            return None
    height, width, _ = Compose(given).output_shape(image_shape)
    return Windows(tuple(given), image_shape, (height, width), fill, box_fill)


def _stored(value: float, dtype: np.dtype[np.generic]) -> float:
    """What the loops over images write for a number: uint8 is rounded half up and cut to 0..255."""
    narrow = float(np.float32(value))
    return narrow if dtype != np.uint8 else float(int(min(max(narrow, 0.0), 255.0) + 0.5))


@dataclass(frozen=True)
class Uncut:
    """A batch whose windows are still to be cut: from images of its own, or from those of the whole data set.

    Attributes:
        images: uint8 (M, H, W, C).
        places: Where each sample's window is, (N, 8).
        windows: What they are made by.
        is_whole: The images are the data set's.
    """

    images: Images
    places: Places
    windows: Windows
    is_whole: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, height, width, C) of the batch, once it is cut."""
        return (len(self.places), *self.windows.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the images."""
        return self.images.dtype

    @property
    def size(self) -> int:
        """Elements of the batch, once it is cut."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        """Samples."""
        return len(self.places)

    def with_own_images(self) -> Uncut:
        """The same from images of the batch's own."""
        if not self.is_whole:
            return self
        places = self.places.copy()
        places[:, 0] = np.arange(len(places))
        return Uncut(self.images[self.places[:, 0]], places, self.windows, is_whole=False)
