"""GoogLeNet as published in 2014: biases and response normalisation instead of batch norm, 5x5 convolutions.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going deeper with convolutions", 2014, table
1 and section 5. Rounding of pooled sizes (up) and the constants of the response normalisation, which the paper leaves
open, are those of the Caffe model of its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.models.googlenet import MODULES
from pycnn.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Inception,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    auxiliary,
    init,
)
from pycnn.nn._arguments import as_count

__all__ = ["GoogLeNetPaper", "googlenet_paper"]

_RULES: dict[str, Any] = {"weight_init": init.he_normal(), "bias_init": init.constant(0.0)}
# No ReLU follows scores; small ones start with every class as probable as the others.
_SCORES: dict[str, Any] = {**_RULES, "weight_init": init.normal(0.01)}


class AuxiliaryHead(Module):
    """Classifier on an inner layer (section 5): 5x5/3 average pool, 1x1 convolution, two dense layers.

    Maps of another size than 14x14 are pooled to the same 4x4.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float, *, filters: int, units: int) -> None:
        self.pool = AvgPool2d(5, stride=3)
        self.pool_any = AdaptiveAvgPool2d(4)
        self.conv = Conv2d(in_channels, filters, kernel_size=1, **_RULES)
        self.flatten = Flatten()
        self.fc1 = Linear(16 * filters, units, **_RULES)
        self.dropout = Dropout(dropout)
        self.fc2 = Linear(units, num_classes, **_SCORES)

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.pool(x) if x.shape[1:3] == (14, 14) else self.pool_any(x)
        x = self.flatten(functional.relu(self.conv(x)))
        return self.fc2(self.dropout(functional.relu(self.fc1(x))))


class GoogLeNetPaper(Module):
    """The network that `googlenet_paper` makes: conv1 to conv3, inception3a to inception5b, aux1, aux2, fc.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images. Default: (224, 224, 3).
        aux_logits: Whether there are the two heads for training.
        aux_weight: Of the heads' losses.
        dropout: In front of the last layer.
        dropout_aux: In front of the heads' last layers.
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
        dropout: float = 0.4,
        dropout_aux: float = 0.7,
        modules: dict[str, tuple[int, int, int, int, int, int]] = MODULES,
        filters: tuple[int, int, int] = (64, 64, 192),
        head: tuple[int, int] = (128, 1024),
    ) -> None:
        who = "googlenet_paper"
        shape = as_image_shape(input_shape, who=who, default=(224, 224, 3), smallest=8)
        classes = as_count(num_classes, who=who, name="num_classes")
        self.aux_weight = as_number(aux_weight, who=who, name="aux_weight", low=0.0)
        self.small = is_small(shape)
        if self.small:
            self.conv1 = Conv2d(shape[2], filters[0], kernel_size=3, padding=1, **_RULES)
        else:
            self.conv1 = Conv2d(shape[2], filters[0], kernel_size=7, stride=2, padding=3, **_RULES)
        self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.conv2 = Conv2d(filters[0], filters[1], kernel_size=1, **_RULES)
        self.conv3 = Conv2d(filters[1], filters[2], kernel_size=3, padding=1, **_RULES)
        self.norm2 = LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        if not self.small:
            self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(3, stride=2, ceil_mode=True)
        width, widths = filters[2], {}
        for name, (one, reduce3, three, reduce5, five, pool) in modules.items():
            block = Inception(
                width, branch1=one, reduce3=reduce3, branch3=three, reduce5=reduce5, branch5=five, pool=pool
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
        self.fc = Linear(width, classes, **_SCORES)
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        relu = functional.relu
        x = self.norm1(self.maxpool1(relu(self.conv1(x))))
        x = self.norm2(relu(self.conv3(relu(self.conv2(x)))))
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


def googlenet_paper(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    aux_logits: bool = True,
    aux_weight: float = 0.3,
    dropout: float = 0.4,
    dropout_aux: float = 0.7,
) -> GoogLeNetPaper:
    """GoogLeNet as published (Szegedy et al. 2014): 6,998,552 parameters without the two heads, 13,378,280 with them.

    Nine inception modules after table 1, convolutions with biases, local response normalisation, no batch norm; 1.583 G
    multiply-adds at 224x224. While training, two heads on inner layers add their losses with a weight of 0.3
    (`pycnn.nn.auxiliary`); programs for inference hold nothing of them. The paper does not say how weights start: here
    normal with variance 2 / fan_in (He et al. 2015), those of the scores with deviation 0.01, biases at 0.

    For images below 64 pixels a side the first convolution is 3x3 with stride 1 and the second max-pool is left out, so
    that the modules see 16x16, 8x8 and 4x4 pixels of a 32x32 image.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        aux_logits: Whether there are the two heads for training.
        aux_weight: Of each head's loss, beside the main one's 1.
        dropout: Probability of zero in front of the last layer.
        dropout_aux: Probability of zero in front of the heads' last layers.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> googlenet_paper(aux_logits=False).num_parameters
        6998552
    """
    net = GoogLeNetPaper(
        num_classes,
        input_shape=input_shape,
        aux_logits=aux_logits,
        aux_weight=aux_weight,
        dropout=dropout,
        dropout_aux=dropout_aux,
    )
    net.name_tensors()
    return net
