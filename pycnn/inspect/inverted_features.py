"""What a layer still knows of an image: another image with the same features, found by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.arguments import as_integer, as_number
from pycnn.errors import ArgumentError
from pycnn.inspect._recording import Recorded, as_floats, gradients, layer_program, run
from pycnn.nn.module import Module
from pycnn.program import check_device
from pycnn.tracing import Symbol

__all__ = ["Inversion", "invert_features"]

_BATCH = 16
# Of Adam (Kingma, Ba 2015).
_DECAY_MEAN, _DECAY_SQUARE, _EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Inversion:
    """Images whose features are those of given images.

    Attributes:
        images: float32 (N, H, W, C), each in the range of the given one, which holds at least 0..1.
        errors: float32 (N,), ``|f(image) - f(given)|^2 / |f(given)|^2``: 0 is the same, 1 as far off as nothing at all.
    """

    images: np.ndarray
    errors: np.ndarray


def invert_features(
    net: Module,
    x: Any,
    layer: str,
    *,
    steps: int = 300,
    step_size: float = 0.05,
    total_variation: float = 1.0,
    l2: float = 0.05,
    seed: int = 0,
    device: str = "cpu",
) -> Inversion:
    """Find images that a layer cannot tell from given ones (Mahendran, Vedaldi 2015).

    What differs between both is what the layer has forgotten: little in early layers, place, colour and texture in late
    ones. From grey with a little noise, gradient descent makes small

    ``|f(image) - f(x)|^2 / |f(x)|^2 + total_variation * V(image) / V0 + l2 * S(image) / S0``

    with f the layer's values, V the sum of the squared differences of neighbouring pixels (the paper's total variation
    with beta = 2) and S the sum of the squared distances from grey; V0 and S0 are those of an image of independent
    pixels, spread evenly over the range, so that the weights mean the same for every size. Steps are those of Adam and
    shrink to 0.

    Args:
        net: The net.
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        layer: Name of a layer, as the summary shows it, or of an op inside.
        steps: Number of steps.
        step_size: Length of the first steps, in units of the pixel range.
        total_variation: Weight of smoothness; 0 for none. Late layers of deep nets need more of it, or their images are
            noise; of early layers less gives sharper images.
        l2: Weight of greyness; 0 for none.
        seed: Of the noise; the same seed gives the same images, on the CPU alone or among others.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Raises:
        ArgumentError: There is no such layer, all of its values are 0 for an image, an image holds NaN or infinity, or
            a number is out of range.
        ShapeError: `x` is no batch of images.
        GraphError: The layer does not depend on the pixels.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn
        >>> _, test = pycnn.data.digits()
        >>> invert_features(pycnn.models.lenet5(), test.images[:2], "conv2", steps=2).images.shape
        (2, 28, 28, 1)
    """
    who = "invert_features"
    where = check_device(device, who=who)
    images = as_floats(net, x, who)
    steps = as_integer(steps, who=who, name="steps", low=0)
    step_size = as_number(step_size, who=who, name="step_size", low=0.0, above=True)
    variation = as_number(total_variation, who=who, name="total_variation", low=0.0)
    l2 = as_number(l2, who=who, name="l2", low=0.0)
    seed = as_integer(seed, who=who, name="seed", low=0)
    for index, image in enumerate(images):
        if not np.isfinite(image).all():
            raise ArgumentError(f"{who}: image {index} holds NaN or infinity")
    noise = np.random.default_rng(seed).normal(0.0, 0.02, images.shape[1:])
    descent = _Descent(net, layer, np.clip(0.5 + noise, 0.0, 1.0), variation, l2, where)
    parts = [
        descent.run(images[first : first + _BATCH], steps, step_size, first) for first in range(0, len(images), _BATCH)
    ]
    return Inversion(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


@dataclass
class _Descent:
    """The descent with everything but the images settled."""

    net: Module
    layer: str
    start: np.ndarray
    variation: float
    l2: float
    device: str

    def run(self, wanted: np.ndarray, steps: int, step_size: float, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and errors of one batch; `first` is the number of its first image, for messages."""
        look = layer_program(self.net, wanted.shape, "float32", [self.layer], self.device)
        target = look.run(wanted)["layer_0"]
        norms = _squares(target)
        if not norms.all():
            raise ArgumentError(
                f"invert_features: all values of layer '{self.layer}' are 0 for image {first + int(norms.argmin())}; "
                "there is nothing to go by"
            )
        scale = (1.0 / norms).astype(np.float32).reshape(-1, *[1] * (target.ndim - 1))
        # By image, so that none depends on the others.
        low = np.minimum(0.0, wanted.min(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
        high = np.maximum(1.0, wanted.max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
        fixed = {"target": target, "scale": scale, "middle": 0.5 * (low + high), "per_unit": 1.0 / (high - low) ** 2}
        specs = {"x": (wanted.shape, "float32"), **{name: (a.shape, "float32") for name, a in fixed.items()}}
        program = gradients(self.net, specs, self._objective, [None], device=self.device)
        images = (low + (high - low) * self.start).astype(np.float32)
        mean, square = np.zeros_like(images), np.zeros_like(images)
        for step in range(1, steps + 1):
            slope = run(program, {"x": images, **fixed})["gradient_0"]
            mean += (1 - _DECAY_MEAN) * (slope - mean)
            square += (1 - _DECAY_SQUARE) * (np.square(slope) - square)
            width = np.sqrt(square / np.float32(1 - _DECAY_SQUARE**step)) + np.float32(_EPS)
            length = np.float32(step_size * (1 - (step - 1) / steps) / (1 - _DECAY_MEAN**step)) * (high - low)
            images = np.clip(images - length * mean / width, low, high).astype(np.float32)
        return images, (_squares(look.run(images)["layer_0"] - target) / norms).astype(np.float32)

    def _objective(self, recorded: Recorded) -> Symbol:
        """What is made small, summed over the images.

        Of two pixels that are spread evenly over the range, the squared difference is on average a sixth of the squared
        range, the squared distance from the middle a twelfth.
        """
        x, off = recorded.x, recorded.layers[self.layer] - recorded.extra["target"]
        per_unit = recorded.extra["per_unit"]
        count, height, width, channels = x.shape
        total = functional.sum(off * off * recorded.extra["scale"])
        if self.l2:
            grey = x - recorded.extra["middle"]
            total = total + functional.sum(grey * grey * per_unit) * (12 * self.l2 / (height * width * channels))
        pairs = channels * ((height - 1) * width + height * (width - 1))
        weight = 6 * self.variation / max(pairs, 1)
        for step in ((1, 0), (0, 1)):
            size = (count, height - step[0], width - step[1], channels)
            if weight and min(size) > 0:
                far = functional.slice(x, begin=(0, *step, 0), size=size)
                rise = far - functional.slice(x, begin=(0, 0, 0, 0), size=size)
                total = total + functional.sum(rise * rise * per_unit) * weight
        return total


def _squares(values: np.ndarray) -> np.ndarray:
    """Sum of the squares of each image's values."""
    sums: np.ndarray = np.square(values, dtype=np.float64).reshape(len(values), -1).sum(axis=1)
    return sums
