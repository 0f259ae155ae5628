"""Cutout: a random square is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_integer, as_number
from pycnn.data import _image
from pycnn.data._checks import Images
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.errors import ArgumentError, ShapeError


@dataclass(frozen=True)
class Cutout(Transform):
    """Fill a square around a random pixel (DeVries and Taylor 2017, arXiv:1708.04552).

    The centre is uniform over the pixels, so that a part of the square may lie outside of the
    image, which the paper found to matter. The square has exactly `size` rows and columns; an even
    one reaches one pixel further up and left. The paper fills with 0 after normalisation, which
    is the mean colour: give that as `fill` where normalisation comes later.

    Args:
        size: Side of the square in pixels, at least 1; the paper has 16 for CIFAR-10.
        p: Probability in 0..1 that an image gets one.
        fill: Value of the square in the images' own units, one for all or one per channel.

    Raises:
        ArgumentError: A number out of range.
        ShapeError: When applied: `fill` has another number of channels.

    Example:
        >>> import numpy as np
        >>> int((Cutout(1)(np.ones((8, 8, 1), np.uint8)) == 0).sum())
        1
    """

    size: int = 16
    p: float = 1.0
    fill: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        as_integer(self.size, who="Cutout", name="size", low=1, high=65536)
        as_number(self.p, who="Cutout", name="p", low=0.0, high=1.0)
        if isinstance(self.fill, (tuple, list)):
            if not self.fill:
                raise ArgumentError("Cutout: fill must be one number or one per channel, got none")
            object.__setattr__(self, "fill", tuple(as_number(v, who="Cutout", name="fill") for v in self.fill))
        else:
            as_number(self.fill, who="Cutout", name="fill")

    def output_shape(self, shape: Shape) -> Shape:
        if isinstance(self.fill, tuple) and len(self.fill) != shape[2]:
            raise ShapeError(f"Cutout: fill has {len(self.fill)} values, the images have {shape[2]} channels")
        return shape

    def boxes(self, height: int, width: int, draw: Draw) -> NDArray[np.int64]:
        """First row, row after the last, first column, column after the last of each sample."""
        unit = draw.uniform(3)
        top = np.floor(unit[:, 0] * height).astype(np.int64) - self.size // 2
        left = np.floor(unit[:, 1] * width).astype(np.int64) - self.size // 2
        side = np.where(unit[:, 2] < self.p, self.size, 0)
        return np.stack([top, top + side, left, left + side], axis=1)

    def apply(self, images: Images, draw: Draw) -> Images:
        out = np.empty_like(images)
        fill = np.broadcast_to(np.array(self.fill, np.float32), images.shape[3]).copy()
        _image.erase(images, self.boxes(images.shape[1], images.shape[2], draw), fill, out)
        return out
