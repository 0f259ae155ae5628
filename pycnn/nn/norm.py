"""Normalisation: of batches, across channels, and of the images that come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError
from pycnn.nn._arguments import as_count, as_optional_count
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = ["BatchNorm2d", "LocalResponseNorm", "Normalize"]


class BatchNorm2d(Module):
    """Batch normalisation per channel (Ioffe, Szegedy 2015).

    ``output = (input - mean) / sqrt(var + eps) * weight + bias``. While training, mean and
    (biased) variance are the batch's own and the running ones follow,
    ``running = (1 - momentum) * running + momentum * batch`` (with the unbiased variance, as
    PyTorch); otherwise the running ones are used.

    Args:
        num_features: Channels. Left out: taken from the first input.
        eps: Added to the variance, above 0.
        momentum: Weight of the batch in the running statistics, 0 to 1.
        frozen: Use the running statistics while training too, and keep them.

    Attributes:
        weight: (C), the scale, starts at 1.
        bias: (C), the shift, starts at 0.
        running_mean: (C), buffer, starts at 0.
        running_var: (C), buffer, starts at 1.

    Shape:
        ``(..., C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Parameter | None
    running_var: Parameter | None

    def __init__(
        self,
        num_features: int | None = None,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        frozen: bool = False,
    ) -> None:
        who = "BatchNorm2d"
        self.num_features = as_optional_count(num_features, who=who, name="num_features")
        self.eps = as_number(eps, who=who, name="eps", low=0.0, above=True)
        self.momentum = as_number(momentum, who=who, name="momentum", low=0.0, high=1.0)
        self.frozen = bool(frozen)
        self.weight = self.bias = self.running_mean = self.running_var = None
        if self.num_features is not None:
            self._create(self.num_features)

    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self.weight is not None

    def infer_sizes(self, x: Any) -> None:
        """Create the parameters for this input."""
        self._create(int(x.shape[-1]))

    def _create(self, channels: int) -> None:
        self.num_features = channels
        one, zero = Initializer("constant", 1.0), Initializer("constant", 0.0)
        self.weight = Parameter((channels,), init=one)
        self.bias = Parameter((channels,), init=zero)
        self.running_mean = Parameter((channels,), init=zero, trainable=False)
        self.running_var = Parameter((channels,), init=one, trainable=False)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            eps=self.eps,
            momentum=self.momentum,
            frozen=self.frozen,
        )

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        parts = [str(self.num_features)]
        if self.eps != 1e-5:
            parts.append(f"eps={self.eps:g}")
        if self.momentum != 0.1:
            parts.append(f"momentum={self.momentum:g}")
        if self.frozen:
            parts.append("frozen=True")
        return ", ".join(parts)


class LocalResponseNorm(Module):
    """Normalise across neighbouring channels (Krizhevsky et al. 2012).

    ``output[..., c] = input[..., c] / (k + alpha / size * sum of squares)**beta`` over `size`
    channels around c. Alpha is divided by size, as PyTorch does; the paper's alpha is not.

    Args:
        size: Channels in the sum, at least 1.
        alpha: Weight of the squares.
        beta: Exponent.
        k: Added before the power; the paper's is 2.

    Shape:
        ``(..., C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        who = "LocalResponseNorm"
        self.size = as_count(size, who=who, name="size")
        self.alpha = as_number(alpha, who=who, name="alpha")
        self.beta = as_number(beta, who=who, name="beta")
        self.k = as_number(k, who=who, name="k")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.local_response_norm(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self.size}, alpha={self.alpha:g}, beta={self.beta:g}, k={self.k:g}"


class Normalize(Module):
    """Images as decoded to numbers for the net: ``(input * scale - mean) / std``.

    The first layer of a net that takes raw images; it is part of the net's file.

    Args:
        mean: One number or one per channel, after scaling. Default: 0.
        std: One number or one per channel, after scaling; none 0. Default: 1.
        scale: Factor before that. Default: 1/255 for uint8 input, 1 for float32.

    Shape:
        ``(..., C)`` uint8 or float32 -> the same in float32.

    Raises:
        ArgumentError: A number is not finite, or a `std` is 0.
        ShapeError: While recording: the channels differ.

    Example:
        >>> Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    """

    converts_uint8 = False

    def __init__(
        self,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        *,
        scale: float | None = None,
    ) -> None:
        self.mean = _numbers(mean, "mean")
        self.std = _numbers(std, "std")
        if any(value == 0.0 for value in self.std):
            raise ArgumentError(f"Normalize: std must not be 0, got {std!r}")
        self.scale = None if scale is None else as_number(scale, who="Normalize", name="scale")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        scale = self.scale
        if scale is None:
            scale = 1.0 / 255.0 if str(x.dtype) == "uint8" else 1.0
        return functional.normalize_image(x, scale=scale, mean=self.mean, std=self.std)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        parts = [
            f"{name}={values[0] if len(values) == 1 else values}"
            for name, values in (("mean", self.mean), ("std", self.std))
            if values
        ]
        if self.scale is not None:
            parts.append(f"scale={self.scale:g}")
        return ", ".join(parts)


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        numbers = tuple(float(v) for v in np.atleast_1d(np.asarray(value, np.float64)))
    except (TypeError, ValueError):
        raise ArgumentError(f"Normalize: {name} must be numbers, got {value!r}") from None
    if not all(math.isfinite(v) for v in numbers):
        raise ArgumentError(f"Normalize: {name} must be finite, got {value!r}")
    return numbers
