"""Mixup: images and labels of a batch are blended in pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pycnn.arguments import as_integer, as_number
from pycnn.data import _image
from pycnn.data._checks import Images, Index, Labels, as_array, as_images, as_labels, as_seed
from pycnn.data._random import Draw, permutation
from pycnn.data.transforms._base import Transform
from pycnn.errors import ArgumentError, LabelError

# Streams of steps of a pipeline are small numbers, those of orders start at 2^32.
_WEIGHT_STREAM = 1 << 33
_PARTNER_STREAM = 1 << 34


@dataclass(frozen=True)
class Mixup(Transform):
    """Blend every image of a batch with another one, and the labels alike (Zhang et al. 2018).

    ``x = w * x[i] + (1 - w) * x[j]``, ``y = w * y[i] + (1 - w) * y[j]`` with the labels as one-hot
    rows: cross-entropy takes those as they are. One w ~ Beta(alpha, alpha) and one random order of
    partners j for each batch, as in the paper's code; both follow from (seed, epoch, number of the
    batch). uint8 images stay uint8, rounded. It can only be the last step of a `Compose`, and is
    carried out by the `Loader`, which alone knows labels and batches.

    Args:
        alpha: Of the Beta distribution, above 0 and at most 1000; 0.1 to 0.4 for ImageNet and 1 for
            CIFAR-10 in the paper.

    Raises:
        ArgumentError: `alpha` is out of range.

    Example:
        >>> import numpy as np
        >>> images, labels = Mixup(1.0)(np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 2, 1], num_classes=3)
        >>> labels.shape, float(labels.sum())
        ((4, 3), 4.0)
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        alpha = as_number(self.alpha, who="Mixup", name="alpha", high=1000.0)
        if not alpha > 0:
            raise ArgumentError(f"Mixup: alpha must be above 0, got {self.alpha!r}")

    def __call__(  # type: ignore[override]
        self, images: ArrayLike, labels: ArrayLike, *, num_classes: int, seed: int = 0, epoch: int = 0, batch: int = 0
    ) -> tuple[Images, NDArray[np.float32]]:
        """Blend one batch.

        Args:
            images: uint8 or float32.
            labels: Class of each image, 0..num_classes - 1.
            num_classes: Columns of the result.
            seed: 0..2**64 - 1.
            epoch: 0..2**64 - 1.
            batch: Number of the batch in its epoch.

        Shape:
            images ``(N, H, W, C)`` -> the same; labels ``(N,)`` -> ``(N, num_classes)`` float32,
            each row sums to 1.

        Raises:
            LabelError: A label is out of range.
            ShapeError: Wrong rank, or not one label per image.
            DTypeError: An element type is not accepted.
        """
        who = "Mixup"
        array = as_images(as_array(images, who=who, name="images"), who=who)
        target = as_labels(labels, count=len(array), who=who)
        classes = as_integer(num_classes, who=who, name="num_classes", low=1)
        bad = np.flatnonzero((target < 0) | (target >= classes))
        if bad.size:
            raise LabelError(f"Mixup: label {target[bad[0]]} at position {bad[0]} is outside of 0..{classes - 1}")
        number = as_integer(batch, who=who, name="batch", low=0)
        drawn = self.draw(len(array), as_seed(seed, who=who), as_seed(epoch, who=who, name="epoch"), number)
        return self.mix(array, target, classes, *drawn)

    def weight(self, seed: int, epoch: int, batch: int) -> float:
        """The share w of each image itself, in 0..1."""
        return _beta(self.alpha, _uniforms(seed, epoch, batch))

    def draw(self, count: int, seed: int, epoch: int, batch: int) -> tuple[float, Index]:
        """The weight, and each image's partner, of a batch of `count` images."""
        partner = permutation(count, seed=seed, epoch=epoch, stream=_PARTNER_STREAM + batch)
        return self.weight(seed, epoch, batch), partner

    def mix(
        self, images: Images, labels: Labels, classes: int, weight: float, partner: Index
    ) -> tuple[Images, NDArray[np.float32]]:
        """Blend a checked batch with what `draw` gave; see `__call__`."""
        count = len(images)
        share = np.float32(weight)
        out = np.empty_like(images)
        size = math.prod(images.shape[1:])
        _image.mix(images.reshape(count, size), partner, np.full(count, share), out.reshape(count, size))
        target = np.zeros((count, classes), np.float32)
        rows = np.arange(count)
        target[rows, labels] = share
        # In place per row: where both have one class, the two shares add up.
        target[rows, labels[partner]] += np.float32(1) - share
        return out, target

    def apply(self, images: Images, draw: Draw) -> Images:
        raise ArgumentError(
            "Mixup: labels are blended too, so it cannot run on images alone\n"
            "  hint: give it to a Loader or to Trainer.fit as the (last) transform"
        )


def split_mixup(transform: Transform | None) -> tuple[Transform | None, Mixup | None]:
    """The steps for each sample, and the step for the whole batch."""
    from pycnn.data.transforms._compose import Compose

    if isinstance(transform, Mixup):
        return None, transform
    if isinstance(transform, Compose) and transform.steps and isinstance(transform.steps[-1], Mixup):
        rest = transform.steps[:-1]
        return (Compose(rest) if rest else None), transform.steps[-1]
    return transform, None


def _uniforms(seed: int, epoch: int, batch: int) -> Iterator[float]:
    """Endless numbers in [0, 1), a function of the arguments."""
    stream = 0
    while True:
        index = np.array([batch], np.int64)
        yield from Draw(seed, epoch, index, _WEIGHT_STREAM + stream).uniform(64)[0].tolist()
        stream += 1


def _beta(alpha: float, uniforms: Iterator[float]) -> float:
    """One number of Beta(alpha, alpha), as the ratio of two of Gamma(alpha); in logarithms, as they may be tiny."""
    first, second = _log_gamma_variate(alpha, uniforms), _log_gamma_variate(alpha, uniforms)
    return 1.0 / (1.0 + math.exp(min(second - first, 700.0)))


def _log_gamma_variate(shape: float, uniforms: Iterator[float]) -> float:
    """Logarithm of a number of Gamma(shape, 1), by Marsaglia and Tsang (2000)."""
    boost = 0.0
    if shape < 1.0:
        boost = math.log(1.0 - next(uniforms)) / shape
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        normal = math.sqrt(-2.0 * math.log(1.0 - next(uniforms))) * math.cos(2.0 * math.pi * next(uniforms))
        v = (1.0 + c * normal) ** 3
        if v > 0.0 and math.log(1.0 - next(uniforms)) < 0.5 * normal * normal + d - d * v + d * math.log(v):
            return math.log(d * v) + boost


def as_last_step(steps: list[Any]) -> None:
    """Refuse `Mixup` before the end of a pipeline.

    Raises:
        ArgumentError: It is there.
    """
    for position, step in enumerate(steps[:-1]):
        if isinstance(step, Mixup):
            raise ArgumentError(f"Compose: Mixup is step {position}, but it must be the last one")
