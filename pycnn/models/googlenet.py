"""GoogLeNet with batch norm, in the form of the published weights (torchvision's).

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going deeper with convolutions", 2014. The
published weights differ from the paper: batch norm behind every convolution, no response normalisation, 3x3 instead of
5x5 in the third branch, and a 2x2 last max-pool. `pycnn.models.googlenet_paper` is the paper's net.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.models._inception_parts import ConvNormReLU, half_normalised, require_three_channels
from pycnn.nn import (
    AdaptiveAvgPool2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Inception,
    Linear,
    MaxPool2d,
    Module,
    auxiliary,
    init,
)
from pycnn.nn._arguments import as_count

__all__ = ["MODULES", "GoogLeNet", "googlenet"]

#: Table 1 of the paper: filters of the branches 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
MODULES: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_RULE = init.truncated_normal(0.01)


class AuxiliaryHead(Module):
    """Classifier on an inner layer: 4x4 average pool, 1x1 convolution, two dense layers; layers conv, fc1, fc2."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float, *, filters: int, units: int) -> None:
        self.pool = AdaptiveAvgPool2d(4)
        self.conv = ConvNormReLU(in_channels, filters, 1, weight_init=_RULE)
        self.flatten = Flatten()
        self.fc1 = Linear(16 * filters, units, weight_init=_RULE)
        self.dropout = Dropout(dropout)
        self.fc2 = Linear(units, num_classes, weight_init=_RULE)

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.flatten(self.conv(self.pool(x)))
        return self.fc2(self.dropout(functional.relu(self.fc1(x))))


class GoogLeNet(Module):
    """The network that `googlenet` makes: conv1 to conv3, inception3a to inception5b, aux1, aux2, fc.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images. Default: (224, 224, 3).
        aux_logits: Whether there are the two heads for training.
        aux_weight: Of the heads' losses.
        dropout: In front of the last layer.
        dropout_aux: In front of the heads' last layers.
        transform_input: Convert channels from torchvision's normalisation to mean 0.5 and deviation 0.5.
        modules: Filters of the inception modules by name.
        filters: Of the three convolutions in front of them.
        head: Filters and units of an auxiliary head.
    """

    inception3a: Inception
    inception3b: Inception
    inception4a: Inception
    inception4b: Inception
    inception4c: Inception
    inception4d: Inception
    inception4e: Inception
    inception5a: Inception
    inception5b: Inception
    aux1: AuxiliaryHead | None
    aux2: AuxiliaryHead | None

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        input_shape: Sequence[int] | None = None,
        aux_logits: bool = True,
        aux_weight: float = 0.3,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        transform_input: bool = False,
        modules: dict[str, tuple[int, int, int, int, int, int]] = MODULES,
        filters: tuple[int, int, int] = (64, 64, 192),
        head: tuple[int, int] = (128, 1024),
    ) -> None:
        who = "googlenet"
        shape = as_image_shape(input_shape, who=who, default=(224, 224, 3), smallest=8)
        classes = as_count(num_classes, who=who, name="num_classes")
        self.aux_weight = as_number(aux_weight, who=who, name="aux_weight", low=0.0)
        self.transform_input = require_three_channels(transform_input, shape, who)
        self.small = is_small(shape)
        if self.small:
            self.conv1 = ConvNormReLU(shape[2], filters[0], 3, padding=1, weight_init=_RULE)
        else:
            self.conv1 = ConvNormReLU(shape[2], filters[0], 7, stride=2, padding=3, weight_init=_RULE)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNormReLU(filters[0], filters[1], 1, weight_init=_RULE)
        self.conv3 = ConvNormReLU(filters[1], filters[2], 3, padding=1, weight_init=_RULE)
        if not self.small:
            self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(2, stride=2, ceil_mode=True)
        width, widths = filters[2], {}
        for name, (one, reduce3, three, reduce5, five, pool) in modules.items():
            block = Inception(
                width,
                branch1=one,
                reduce3=reduce3,
                branch3=three,
                reduce5=reduce5,
                branch5=five,
                pool=pool,
                branch5_kernel=3,
                batch_norm=True,
                weight_init=_RULE,
            )
            setattr(self, f"inception{name}", block)
            width = widths[name] = block.out_channels
        self.aux1 = self.aux2 = None
        if aux_logits:
            options = {"filters": head[0], "units": head[1]}
            self.aux1 = AuxiliaryHead(widths["4a"], classes, dropout_aux, **options)
            self.aux2 = AuxiliaryHead(widths["4d"], classes, dropout_aux, **options)
        self.avgpool = GlobalAvgPool2d()
        self.dropout = Dropout(dropout)
        self.fc = Linear(width, classes, weight_init=_RULE)
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        if self.transform_input:
            x = half_normalised(x)
        x = self.maxpool1(self.conv1(x))
        x = self.conv3(self.conv2(x))
        if not self.small:
            x = self.maxpool2(x)
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        if self.aux1 is not None:
            auxiliary(self.aux1, x, weight=self.aux_weight)
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        if self.aux2 is not None:
            auxiliary(self.aux2, x, weight=self.aux_weight)
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        return self.fc(self.dropout(self.avgpool(x)))


def googlenet(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    aux_logits: bool = True,
    aux_weight: float = 0.3,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
    transform_input: bool = False,
) -> GoogLeNet:
    """GoogLeNet with batch norm (after Szegedy et al. 2014): 13,004,888 parameters with its heads, 6,624,904 without.

    Names, shapes and arithmetic are those of torchvision's weights; 1.498 G multiply-adds at 224x224. While training,
    two heads on inner layers add their losses (`pycnn.nn.auxiliary`); programs for inference hold nothing of them.
    Convolution and dense weights start normal with deviation 0.01, cut at two deviations.

    For images below 64 pixels a side the first convolution is 3x3 with stride 1 and the second max-pool is left out,
    so that the modules see 16x16, 8x8 and 4x4 pixels of a 32x32 image.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        aux_logits: Whether there are the two heads for training.
        aux_weight: Of each head's loss, beside the main one's 1.
        dropout: Probability of zero in front of the last layer (the paper has 0.4).
        dropout_aux: Probability of zero in front of the heads' last layers.
        transform_input: Images normalised with ImageNet's mean and deviation are brought to mean 0.5 and deviation
            0.5, which torchvision's published weights of this net expect. Needs three channels.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> googlenet().num_parameters
        13004888
    """
    net = GoogLeNet(
        num_classes,
        input_shape=input_shape,
        aux_logits=aux_logits,
        aux_weight=aux_weight,
        dropout=dropout,
        dropout_aux=dropout_aux,
        transform_input=transform_input,
    )
    net.name_tensors()
    return net
