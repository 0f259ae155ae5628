"""The network that learns CIFAR-10 fastest.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), after Page's ResNet-9 series.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape
from pycnn.nn import BatchNorm2d, Conv2d, GlobalMaxPool2d, Linear, MaxPool2d, Module
from pycnn.nn._arguments import as_count

__all__ = ["CifarSpeed", "cifar_speed"]

_PATCH = 2  # side of the first convolution's window
_LOGIT_SCALE = 1 / 9
_BATCH_NORM_MOMENTUM = 0.4  # of trainings of few steps


class SpeedBlock(Module):
    """conv1, 2x2 max pool, norm1, GELU, conv2, norm2, GELU: ``(N, H, W, C)`` -> ``(N, H / 2, W / 2, channels)``."""

    def __init__(self, in_channels: int, channels: int) -> None:
        self.conv1 = Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.pool = MaxPool2d(2)
        self.norm1 = BatchNorm2d(channels, momentum=_BATCH_NORM_MOMENTUM)
        self.conv2 = Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(channels, momentum=_BATCH_NORM_MOMENTUM)

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = functional.gelu(self.norm1(self.pool(self.conv1(x))))
        return functional.gelu(self.norm2(self.conv2(x)))


class CifarSpeed(Module):
    """The network that `cifar_speed` makes: conv1, layer1 to layer3, pool, fc."""

    def __init__(self, num_classes: int, widths: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
        # As many filters as a whitening has: each direction of a patch, and its opposite.
        first = 2 * _PATCH * _PATCH * shape[2]
        self.conv1 = Conv2d(shape[2], first, kernel_size=_PATCH)
        self.layer1 = SpeedBlock(first, widths[0])
        self.layer2 = SpeedBlock(widths[0], widths[1])
        self.layer3 = SpeedBlock(widths[1], widths[2])
        self.pool = GlobalMaxPool2d()
        self.fc = Linear(widths[2], num_classes, bias=False)
        self.input_shape = shape
        self.name_tensors()

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = functional.gelu(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.pool(x)) * _LOGIT_SCALE


def cifar_speed(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    widths: Sequence[int] = (64, 256, 256),
) -> CifarSpeed:
    """The speed record's network for CIFAR-10 (Jordan 2024): 1,972,792 parameters, 0.118 G multiply-adds at 32x32.

    A 2x2 convolution of 24 filters meant to stay as `pycnn.train.whiten` sets it; three blocks of two 3x3 convolutions
    with batch norm and GELU, each with a 2x2 max pool behind the first convolution; a max pool over what is left; one
    dense layer without bias whose scores are divided by 9. The paper's batch norms have no scale: the recipe
    ``cifar10-speed`` freezes theirs at 1. Its convolutions start as identities, here by the default rule. ONNX has GELU
    from opset 20 on.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 9 pixels a side. Default: (32, 32, 3).
        widths: Channels of the three blocks.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_speed().num_parameters
        1972792
    """
    who = "cifar_speed"
    shape = as_image_shape(input_shape, who=who, default=(32, 32, 3), smallest=9)
    classes = as_count(num_classes, who=who, name="num_classes")
    if isinstance(widths, str | bytes) or not isinstance(widths, Sequence) or len(widths) != 3:
        raise ArgumentError(f"{who}: widths must be three numbers of channels, got {widths!r}")
    first, second, third = (as_count(width, who=who, name="widths") for width in widths)
    return CifarSpeed(classes, (first, second, third), shape)
