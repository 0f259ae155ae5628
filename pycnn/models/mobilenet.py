"""MobileNet v2: inverted residuals and linear bottlenecks.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.nn import BatchNorm2d, Conv2d, Dropout, Flatten, GlobalAvgPool2d, Linear, Module, ReLU6, Sequential, init
from pycnn.nn._arguments import as_count

__all__ = ["InvertedResidual", "MobileNetV2", "mobilenet_v2"]


def _conv_norm(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[Module]:
    rule = init.he_normal(mode="fan_out")
    padding = kernel // 2
    return [
        Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False, weight_init=rule),
        BatchNorm2d(out_channels),
    ]


def _unit(in_channels: int, out_channels: int, kernel: int, **options: int) -> Sequential:
    return Sequential(*_conv_norm(in_channels, out_channels, kernel, **options), ReLU6())


class InvertedResidual(Module):
    """Widen by 1x1, filter each map by 3x3, narrow by 1x1 without ReLU; add the input where sizes agree.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the 3x3 convolution, 1 or 2.
        expansion: Inner width divided by `in_channels`; at 1 nothing is widened.

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H / stride, W / stride, out_channels)``, rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        width = in_channels * expansion
        layers: list[Module] = [] if expansion == 1 else [_unit(in_channels, width, 1)]
        layers.append(_unit(width, width, 3, stride=stride, groups=width))
        layers += _conv_norm(width, out_channels, 1)
        self.conv = Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        result = self.conv(x)
        return functional.add(x, result) if self.adds else result


# Table 2: expansion, channels, repetitions, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but not below nine tenths of the channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class MobileNetV2(Module):
    """The network that `mobilenet_v2` makes: features, classifier, as torchvision names them."""

    features: Sequential  # type: ignore[assignment]

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width_mult: float, dropout: float) -> None:
        small = is_small(shape)
        channels = _multiple_of_8(32 * width_mult)
        layers: list[Module] = [_unit(shape[2], channels, 3, stride=1 if small else 2)]
        for index, (expansion, filters, count, stride) in enumerate(_STAGES):
            width = _multiple_of_8(filters * width_mult)
            for number in range(count):
                step = stride if number == 0 and not (small and index == 1) else 1
                layers.append(InvertedResidual(channels, width, stride=step, expansion=expansion))
                channels = width
        last = _multiple_of_8(1280 * max(1.0, width_mult))
        layers.append(_unit(channels, last, 1))
        self.features = Sequential(*layers)
        self.pool = GlobalAvgPool2d()
        self.classifier = Sequential(
            Dropout(dropout),
            Linear(last, num_classes, weight_init=init.normal(0.01), bias_init=init.constant(0.0)),
        )
        self.flatten = Flatten()
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return self.classifier(self.flatten(self.pool(self.features(x))))


def mobilenet_v2(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    width_mult: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNet v2 (Sandler et al. 2018): 3,504,872 parameters, most of its 3x3 convolutions depthwise.

    Names and shapes of the weights are torchvision's; they take images of any size. Convolutions start normal with
    variance 2 / fan_out (He et al. 2015), the last layer with deviation 0.01 and biases at 0.

    For images below 64 pixels a side the first convolution and the second stage have stride 1, so that 32x32 pixels
    end in maps of 4x4. The weights have the same shapes.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images. Default: (224, 224, 3).
        width_mult: Multiplies all widths, which are then rounded to multiples of 8; above 0. The 1280 maps of the last
            convolution only grow.
        dropout: Probability of zero in front of the last layer.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> mobilenet_v2().num_parameters
        3504872
    """
    who = "mobilenet_v2"
    shape = as_image_shape(input_shape, who=who, default=(224, 224, 3))
    width = as_number(width_mult, who=who, name="width_mult", low=0.0, high=100.0, above=True)
    net = MobileNetV2(shape, as_count(num_classes, who=who, name="num_classes"), width, dropout)
    net.build(shape)
    return net
