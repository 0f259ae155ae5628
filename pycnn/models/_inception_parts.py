"""What the published inception networks have in common: their convolution, and the input that they expect."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.nn import BatchNorm2d, Conv2d, Module, init
from pycnn.nn._arguments import Pair

__all__ = ["ConvNormReLU", "half_normalised", "require_three_channels"]

# Of ImageNet's pixels in 0..1.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ConvNormReLU(Module):
    """Convolution without bias, batch norm (eps 1e-3) and ReLU; layers conv and bn.

    Args:
        in_channels: Channels of the input.
        out_channels: Number of filters.
        kernel_size: Window in pixels.
        stride: Step in pixels.
        padding: Zeros around the image in pixels.
        weight_init: How the filters are drawn.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        *,
        weight_init: init.Rule,
    ) -> None:
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False, weight_init=weight_init)
        self.bn = BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.relu(self.bn(self.conv(x)))


def require_three_channels(transform_input: bool, shape: tuple[int, int, int], who: str) -> bool:
    """Check that an input that is to be converted has the channels for it.

    Raises:
        ArgumentError: It has not.
    """
    if transform_input and shape[2] != 3:
        raise ArgumentError(f"{who}: transform_input needs 3 channels, input_shape {shape} has {shape[2]}")
    return bool(transform_input)


def half_normalised(x: Any) -> Any:
    """From ImageNet's mean and deviation to mean 0.5 and deviation 0.5, as published inception weights expect."""
    # x * std / 0.5 + (mean - 0.5) / 0.5, written as (x - shift) / scale.
    shift = [(0.5 - mean) / std for mean, std in zip(_MEAN, _STD, strict=True)]
    scale = [0.5 / std for std in _STD]
    return functional.normalize_image(x, mean=shift, std=scale)
