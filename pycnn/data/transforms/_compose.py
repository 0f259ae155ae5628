"""Several transforms in a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pycnn.data._checks import Images
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.data.transforms._mixup import as_last_step
from pycnn.data.transforms._warp import ElasticDistortion, RandomAffine, resample
from pycnn.errors import ArgumentError


@dataclass(frozen=True)
class Compose(Transform):
    """Several transforms, one after the other; nested ones are flattened.

    A `RandomAffine` directly before an `ElasticDistortion` with the same `fill` is resampled once
    for both, which is faster and blurs less. A `Mixup` can only be the last step, and then the whole
    is for a `Loader`.

    Args:
        steps: The transforms in order.
    """

    steps: tuple[Transform, ...]

    def __init__(self, steps: Iterable[Transform]) -> None:
        flat: list[Transform] = []
        for step in steps:
            if not isinstance(step, Transform):
                raise ArgumentError(f"Compose: step {len(flat)} is {step!r}, expected a pycnn.data transform")
            flat.extend(step.steps if isinstance(step, Compose) else (step,))
        as_last_step(flat)
        object.__setattr__(self, "steps", tuple(flat))

    def output_shape(self, shape: Shape) -> Shape:
        for step in self.steps:
            shape = step.output_shape(shape)
        return shape

    def apply(self, images: Images, draw: Draw) -> Images:
        def key(position: int) -> Draw:
            return Draw(draw.seed, draw.epoch, draw.indices, draw.stream + position)

        position = 0
        while position < len(self.steps):
            step = self.steps[position]
            after = self.steps[position + 1] if position + 1 < len(self.steps) else None
            if isinstance(step, RandomAffine) and isinstance(after, ElasticDistortion) and step.fill == after.fill:
                images = resample(images, step, after, key(position), key(position + 1))
                position += 2
            else:
                images = step.apply(images, key(position))
                position += 1
        return images
