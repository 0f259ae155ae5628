"""Random windows of any size and shape, resampled to one size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_number
from pycnn.data import _image
from pycnn.data._checks import Images, as_size
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.errors import ArgumentError

_TRIES = 10

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Cut a window of random area, proportions and place, and bring it to one size.

    Szegedy et al. 2015, section 6, with the choices of torchvision's transform of this name: up to
    10 times the area is drawn uniformly as a part of the image's and the proportions
    logarithmically; the first window that fits is taken at a uniform place. If none fits, the
    largest central window within `ratio` is.

    As the first step after an `ImageFolder` or `TarShards` it cuts from the whole picture as it is
    in the file, before that is brought to the size of the data set.

    Args:
        size: Side, or (height, width), of the result in pixels.
        scale: (low, high) of the area as a part of the image, within (0, 1].
        ratio: (low, high) of width / height, within 0.01..100.
        antialias: When shrinking, let every pixel of the window count (as Pillow does). Without
            it the four nearest do, which is faster and noisier.

    Raises:
        ArgumentError: A number out of range.

    Example:
        >>> import numpy as np
        >>> RandomResizedCrop(8)(np.zeros((2, 30, 20, 3), np.uint8), seed=1).shape
        (2, 8, 8, 3)
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    antialias: bool = True

    def __post_init__(self) -> None:
        as_size(self.size, who="RandomResizedCrop")
        _as_pair(self.scale, name="scale", low=1e-6, high=1.0)
        _as_pair(self.ratio, name="ratio", low=0.01, high=100.0)

    def output_shape(self, shape: Shape) -> Shape:
        return (*as_size(self.size, who="RandomResizedCrop"), shape[2])

    def plan(self, draw: Draw) -> CropPlan:
        """The windows of a batch, for images whose sizes need not be known yet."""
        return CropPlan(self, draw.uniform(2 * _TRIES + 2))

    def apply(self, images: Images, draw: Draw) -> Images:
        return self.plan(draw).apply(images)


@dataclass(frozen=True)
class CropPlan:
    """Windows of one batch; `window` depends on the sample and the size of its image only.

    Attributes:
        step: The transform.
        unit: Uniform numbers (N, 22): areas and proportions of ten tries, row, column.
    """

    step: RandomResizedCrop
    unit: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the results in pixels."""
        return as_size(self.step.size, who="RandomResizedCrop")

    def window(self, n: int, height: int, width: int) -> Window:
        """(top, left, height, width) in an image of this size."""
        step, unit = self.step, self.unit[n].tolist()
        low, high = math.log(step.ratio[0]), math.log(step.ratio[1])
        for i in range(_TRIES):
            area = height * width * (step.scale[0] + unit[2 * i] * (step.scale[1] - step.scale[0]))
            ratio = math.exp(low + unit[2 * i + 1] * (high - low))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(unit[-2] * (height - h + 1))
                left = int(unit[-1] * (width - w + 1))
                return top, left, h, w
        w, h = width, height
        if width < height * step.ratio[0]:
            h = max(1, min(height, round(width / step.ratio[0])))
        elif width > height * step.ratio[1]:
            w = max(1, min(width, round(height * step.ratio[1])))
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, image: Images, window: tuple[float, float, float, float], out: Images) -> None:
        """Write the window of `image` (H, W, C), resampled, into `out` (height, width, C)."""
        _image.crop_resize(image, *window, self.step.antialias, out)

    def apply(self, images: Images) -> Images:
        """Cut from a batch (N, H, W, C)."""
        out = np.empty((len(images), *self.size, images.shape[3]), images.dtype)
        for n, image in enumerate(images):
            self.cut(image, self.window(n, image.shape[0], image.shape[1]), out[n])
        return out


def _as_pair(value: Any, *, name: str, low: float, high: float) -> None:
    who = "RandomResizedCrop"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"{who}: {name} must be (low, high), got {value!r}")
    first, second = (as_number(v, who=who, name=name, low=low, high=high) for v in value)
    if first > second:
        raise ArgumentError(f"{who}: {name} has low {first} above high {second}")


def split_crop(transform: Transform | None) -> tuple[RandomResizedCrop | None, Transform | None]:
    """The `RandomResizedCrop` that comes first, if one does, and the steps after it."""
    from pycnn.data.transforms._compose import Compose

    if isinstance(transform, RandomResizedCrop):
        return transform, None
    if isinstance(transform, Compose) and transform.steps and isinstance(transform.steps[0], RandomResizedCrop):
        rest = transform.steps[1:]
        return transform.steps[0], (Compose(rest) if rest else None)
    return None, transform
