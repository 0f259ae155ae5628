"""Inception v3: factorised convolutions, in the form of the published weights (torchvision's).

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the inception architecture for computer vision", 2015. Two 3x3
stand for a 5x5, 1x7 and 7x1 for a 7x7, and where maps shrink, convolutions and a pool do it side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape
from pycnn.models._inception_parts import ConvNormReLU, half_normalised, require_three_channels
from pycnn.nn import AvgPool2d, Dropout, GlobalAvgPool2d, Linear, MaxPool2d, Module, auxiliary, init
from pycnn.nn._arguments import Pair, as_count

__all__ = ["InceptionV3", "inception_v3"]

_RULE = init.truncated_normal(0.1)
# Side of the maps that the auxiliary head reads; at less nothing is left for its 5x5 convolution.
_HEAD_SIDE = 17


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Pair,
    stride: int = 1,
    padding: int | Pair = 0,
    *,
    rule: init.Rule = _RULE,
) -> ConvNormReLU:
    return ConvNormReLU(in_channels, out_channels, kernel_size, stride, padding, weight_init=rule)


_ROW: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
_COLUMN: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}


class ModuleA(Module):
    """Figure 5 of the paper: 1x1 | 5x5 | two 3x3 | average pool and 1x1."""

    def __init__(self, inputs: int, pool: int, scale: Callable[[int], int]) -> None:
        c48, c64, c96 = scale(48), scale(64), scale(96)
        self.branch1x1 = _conv(inputs, c64, 1)
        self.branch5x5_1 = _conv(inputs, c48, 1)
        self.branch5x5_2 = _conv(c48, c64, 5, padding=2)
        self.branch3x3dbl_1 = _conv(inputs, c64, 1)
        self.branch3x3dbl_2 = _conv(c64, c96, 3, padding=1)
        self.branch3x3dbl_3 = _conv(c96, c96, 3, padding=1)
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = _conv(inputs, pool, 1)
        self.out_channels = 2 * c64 + c96 + pool

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return functional.concat(
            [
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.branch_pool(self.pool(x)),
            ]
        )


class ModuleB(Module):
    """Halves the maps: 3x3/2 | 1x1, 3x3, 3x3/2 | max-pool."""

    def __init__(self, inputs: int, scale: Callable[[int], int]) -> None:
        c64, c96, c384 = scale(64), scale(96), scale(384)
        self.branch3x3 = _conv(inputs, c384, 3, stride=2)
        self.branch3x3dbl_1 = _conv(inputs, c64, 1)
        self.branch3x3dbl_2 = _conv(c64, c96, 3, padding=1)
        self.branch3x3dbl_3 = _conv(c96, c96, 3, stride=2)
        self.pool = MaxPool2d(3, stride=2)
        self.out_channels = c384 + c96 + inputs

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return functional.concat(
            [
                self.branch3x3(x),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.pool(x),
            ]
        )


class ModuleC(Module):
    """Figure 6 of the paper, n = 7: 1x1 | 1x7, 7x1 | 7x1, 1x7, 7x1, 1x7 | average pool and 1x1."""

    def __init__(self, inputs: int, inner: int, scale: Callable[[int], int]) -> None:
        c192 = scale(192)
        self.branch1x1 = _conv(inputs, c192, 1)
        self.branch7x7_1 = _conv(inputs, inner, 1)
        self.branch7x7_2 = _conv(inner, inner, **_ROW)
        self.branch7x7_3 = _conv(inner, c192, **_COLUMN)
        self.branch7x7dbl_1 = _conv(inputs, inner, 1)
        self.branch7x7dbl_2 = _conv(inner, inner, **_COLUMN)
        self.branch7x7dbl_3 = _conv(inner, inner, **_ROW)
        self.branch7x7dbl_4 = _conv(inner, inner, **_COLUMN)
        self.branch7x7dbl_5 = _conv(inner, c192, **_ROW)
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = _conv(inputs, c192, 1)
        self.out_channels = 4 * c192

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return functional.concat(
            [
                self.branch1x1(x),
                self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
                self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
                self.branch_pool(self.pool(x)),
            ]
        )


class ModuleD(Module):
    """Halves the maps: 1x1, 3x3/2 | 1x1, 1x7, 7x1, 3x3/2 | max-pool."""

    def __init__(self, inputs: int, scale: Callable[[int], int]) -> None:
        c192, c320 = scale(192), scale(320)
        self.branch3x3_1 = _conv(inputs, c192, 1)
        self.branch3x3_2 = _conv(c192, c320, 3, stride=2)
        self.branch7x7x3_1 = _conv(inputs, c192, 1)
        self.branch7x7x3_2 = _conv(c192, c192, **_ROW)
        self.branch7x7x3_3 = _conv(c192, c192, **_COLUMN)
        self.branch7x7x3_4 = _conv(c192, c192, 3, stride=2)
        self.pool = MaxPool2d(3, stride=2)
        self.out_channels = c320 + c192 + inputs

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        long = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return functional.concat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(long), self.pool(x)])


class ModuleE(Module):
    """Figure 7 of the paper: 1x1 | 1x3 and 3x1 | 3x3, then 1x3 and 3x1 | average pool and 1x1."""

    def __init__(self, inputs: int, scale: Callable[[int], int]) -> None:
        c192, c320, c384, c448 = scale(192), scale(320), scale(384), scale(448)
        self.branch1x1 = _conv(inputs, c320, 1)
        self.branch3x3_1 = _conv(inputs, c384, 1)
        self.branch3x3_2a = _conv(c384, c384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _conv(c384, c384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _conv(inputs, c448, 1)
        self.branch3x3dbl_2 = _conv(c448, c384, 3, padding=1)
        self.branch3x3dbl_3a = _conv(c384, c384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _conv(c384, c384, (3, 1), padding=(1, 0))
        self.pool = AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = _conv(inputs, c192, 1)
        self.out_channels = c320 + 4 * c384 + c192

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return functional.concat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ]
        )


class AuxiliaryHead(Module):
    """Classifier on the 17x17 maps: 5x5/3 average pool, 1x1, 5x5, dense; layers conv0, conv1, fc."""

    def __init__(self, inputs: int, num_classes: int, scale: Callable[[int], int]) -> None:
        self.pool = AvgPool2d(5, stride=3)
        self.conv0 = _conv(inputs, scale(128), 1)
        self.conv1 = _conv(scale(128), scale(768), 5, rule=init.truncated_normal(0.01))
        self.avgpool = GlobalAvgPool2d()
        self.fc = Linear(scale(768), num_classes, weight_init=init.truncated_normal(0.001))

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return self.fc(self.avgpool(self.conv1(self.conv0(self.pool(x)))))


def _inner_side(side: int) -> int:
    """Side of the maps that the auxiliary head reads."""
    side = (side - 3) // 2 + 1 - 2  # Conv2d_1a, 2a
    side = (side - 3) // 2 + 1 - 2  # maxpool1, Conv2d_4a
    side = (side - 3) // 2 + 1  # maxpool2
    return (side - 3) // 2 + 1  # Mixed_6a


class InceptionV3(Module):
    """The network that `inception_v3` makes: Conv2d_1a_3x3 to Mixed_7c, AuxLogits, fc.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images. Default: (299, 299, 3).
        aux_logits: Whether there is the head for training.
        aux_weight: Of the head's loss.
        dropout: In front of the last layer.
        transform_input: Convert channels from torchvision's normalisation to mean 0.5 and deviation 0.5.
        width: Factor on all numbers of channels.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        input_shape: Sequence[int] | None = None,
        aux_logits: bool = True,
        aux_weight: float = 0.3,
        dropout: float = 0.5,
        transform_input: bool = False,
        width: float = 1.0,
    ) -> None:
        who = "inception_v3"
        shape = as_image_shape(input_shape, who=who, default=(299, 299, 3), smallest=75)
        classes = as_count(num_classes, who=who, name="num_classes")
        self.aux_weight = as_number(aux_weight, who=who, name="aux_weight", low=0.0)
        self.transform_input = require_three_channels(transform_input, shape, who)
        side = _inner_side(min(shape[:2]))
        if aux_logits and side < _HEAD_SIDE:
            raise ArgumentError(
                f"{who}: input_shape {shape} leaves {side} pixels a side for the auxiliary head, which needs "
                f"{_HEAD_SIDE} (images of 299 pixels)\n  hint: aux_logits=False makes the net without it"
            )

        def scale(channels: int) -> int:
            return max(1, round(channels * width))

        self.Conv2d_1a_3x3 = _conv(shape[2], scale(32), 3, stride=2)
        self.Conv2d_2a_3x3 = _conv(scale(32), scale(32), 3)
        self.Conv2d_2b_3x3 = _conv(scale(32), scale(64), 3, padding=1)
        self.maxpool1 = MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = _conv(scale(64), scale(80), 1)
        self.Conv2d_4a_3x3 = _conv(scale(80), scale(192), 3)
        self.maxpool2 = MaxPool2d(3, stride=2)
        self.Mixed_5b = ModuleA(scale(192), scale(32), scale)
        self.Mixed_5c = ModuleA(self.Mixed_5b.out_channels, scale(64), scale)
        self.Mixed_5d = ModuleA(self.Mixed_5c.out_channels, scale(64), scale)
        self.Mixed_6a = ModuleB(self.Mixed_5d.out_channels, scale)
        inner = self.Mixed_6a.out_channels
        self.Mixed_6b = ModuleC(inner, scale(128), scale)
        inner = self.Mixed_6b.out_channels
        self.Mixed_6c = ModuleC(inner, scale(160), scale)
        self.Mixed_6d = ModuleC(inner, scale(160), scale)
        self.Mixed_6e = ModuleC(inner, scale(192), scale)
        self.AuxLogits = AuxiliaryHead(inner, classes, scale) if aux_logits else None
        self.Mixed_7a = ModuleD(inner, scale)
        self.Mixed_7b = ModuleE(self.Mixed_7a.out_channels, scale)
        self.Mixed_7c = ModuleE(self.Mixed_7b.out_channels, scale)
        self.avgpool = GlobalAvgPool2d()
        self.dropout = Dropout(dropout)
        self.fc = Linear(self.Mixed_7c.out_channels, classes, weight_init=_RULE)
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        if self.transform_input:
            x = half_normalised(x)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6e(self.Mixed_6d(x))
        if self.AuxLogits is not None:
            auxiliary(self.AuxLogits, x, weight=self.aux_weight)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return self.fc(self.dropout(self.avgpool(x)))


def inception_v3(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    aux_logits: bool = True,
    aux_weight: float = 0.3,
    dropout: float = 0.5,
    transform_input: bool = False,
) -> InceptionV3:
    """Inception v3 (Szegedy et al. 2015): 27,161,264 parameters with its head, 23,834,568 without.

    Names, shapes and arithmetic are those of torchvision's weights; 5.713 G multiply-adds at 299x299. While training, a
    head on the 17x17 maps adds its loss (`pycnn.nn.auxiliary`); programs for inference hold nothing of it. Weights
    start normal with deviation 0.1 (0.01 and 0.001 in the head), cut at two deviations, as the authors' code.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 299x299 pixels with the head, 75x75 without. Default: (299, 299,
            3).
        aux_logits: Whether there is the head for training.
        aux_weight: Of the head's loss, beside the main one's 1.
        dropout: Probability of zero in front of the last layer.
        transform_input: Images normalised with ImageNet's mean and deviation are brought to mean 0.5 and deviation
            0.5, which torchvision's published weights of this net expect. Needs three channels.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range, or the images are too small for the head.

    Example:
        >>> inception_v3().num_parameters
        27161264
    """
    net = InceptionV3(
        num_classes,
        input_shape=input_shape,
        aux_logits=aux_logits,
        aux_weight=aux_weight,
        dropout=dropout,
        transform_input=transform_input,
    )
    net.name_tensors()
    return net
