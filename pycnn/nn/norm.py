"""Normalisation: of batches, of single images, across channels, and of the images that come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError, ShapeError
from pycnn.nn._arguments import as_count, as_optional_count
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = ["BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "LocalResponseNorm", "Normalize"]


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


class _OwnStatistics(Module):
    """Scale and shift per channel after a normalisation by an image's own statistics."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, channels: int | None, *, eps: float, affine: bool) -> None:
        self.eps = as_number(eps, who=type(self).__name__, name="eps", low=0.0, above=True)
        self.affine = bool(affine)
        self.weight = self.bias = None
        self._channels = as_optional_count(channels, who=type(self).__name__, name="channels")
        if self._channels is not None:
            self._create(self._channels)

    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self._channels is not None

    def infer_sizes(self, x: Any) -> None:
        """Create the parameters for this input."""
        self._create(int(x.shape[-1]))

    def _create(self, channels: int) -> None:
        self._channels = channels
        if self.affine:
            self.weight = Parameter((channels,), init=Initializer("constant", 1.0))
            self.bias = Parameter((channels,), init=Initializer("constant", 0.0))

    def _checked(self, x: Any) -> Any:
        if x.shape[-1] != self._channels:
            who = type(self).__name__
            raise ShapeError(f"{who}: input {x.shape} has {x.shape[-1]} channels, the layer has {self._channels}")
        return x

    def _options(self) -> str:
        eps = "" if self.eps == 1e-5 else f", eps={self.eps:g}"
        return eps if self.affine == self._default_affine else f"{eps}, affine={self.affine}"

    _default_affine = True

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self._channels}{self._options()}"


class InstanceNorm2d(_OwnStatistics):
    """Normalise each channel of each image by its own mean and variance (Ulyanov et al. 2016).

    While training and otherwise alike: there are no running statistics.

    Args:
        num_features: Channels. Left out: taken from the first input.
        eps: Added to the (biased) variance, above 0.
        affine: Whether each channel has a learned scale and shift.

    Attributes:
        weight: (C), the scale, starts at 1; None without `affine`.
        bias: (C), the shift, starts at 0; None without `affine`.

    Shape:
        ``(N, H, W, C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    _default_affine = False

    def __init__(self, num_features: int | None = None, *, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__(num_features, eps=eps, affine=affine)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.instance_norm(self._checked(x), self.weight, self.bias, eps=self.eps)


class GroupNorm(_OwnStatistics):
    """Normalise groups of neighbouring channels of each image by mean and variance (Wu, He 2018).

    Args:
        num_groups: Into how many groups the channels are cut.
        num_channels: Channels, a multiple of `num_groups`. Left out: taken from the first input.
        eps: Added to the (biased) variance, above 0.
        affine: Whether each channel has a learned scale and shift.

    Attributes:
        weight: (C), the scale, starts at 1; None without `affine`.
        bias: (C), the shift, starts at 0; None without `affine`.

    Shape:
        ``(N, ..., C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    def __init__(
        self, num_groups: int, num_channels: int | None = None, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        self.num_groups = as_count(num_groups, who="GroupNorm", name="num_groups")
        super().__init__(num_channels, eps=eps, affine=affine)

    def _create(self, channels: int) -> None:
        if channels % self.num_groups:
            raise ArgumentError(f"GroupNorm: {channels} channels are no multiple of num_groups {self.num_groups}")
        super()._create(channels)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.group_norm(self._checked(x), self.num_groups, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"{self.num_groups}, {super().extra_repr()}"


class LayerNorm(_OwnStatistics):
    """Normalise each pixel over its channels (Ba et al. 2016).

    Args:
        normalized_shape: Channels. Left out: taken from the first input.
        eps: Added to the (biased) variance, above 0.
        affine: Whether each channel has a learned scale and shift.

    Attributes:
        weight: (C), the scale, starts at 1; None without `affine`.
        bias: (C), the shift, starts at 0; None without `affine`.

    Shape:
        ``(..., C)`` -> the same.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    def __init__(self, normalized_shape: int | None = None, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(normalized_shape, eps=eps, affine=affine)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.layer_norm(self._checked(x), self.weight, self.bias, eps=self.eps)


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
