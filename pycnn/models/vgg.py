"""VGG: very deep, simply deep.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.models._arguments import as_image_shape, is_small
from pycnn.models._documentation import arguments_of
from pycnn.models.alexnet import hidden_units
from pycnn.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from pycnn.nn._arguments import as_count

__all__ = [
    "VGG",
    "vgg11",
    "vgg11_bn",
    "vgg11_lrn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg16_c",
    "vgg19",
    "vgg19_bn",
]

# Convolutions of the five stages, each (filters, window); a 2x2 max-pool ends a stage.
_Stages = tuple[tuple[tuple[int, int], ...], ...]


def _stages(counts: Sequence[int], last_window: int = 3) -> _Stages:
    """Stages of 64, 128, 256, 512, 512 filters; from the third on the last convolution may differ."""
    filters = (64, 128, 256, 512, 512)
    stages = [[(width, 3)] * count for width, count in zip(filters, counts, strict=True)]
    for stage in stages[2:]:
        stage[-1] = (stage[-1][0], last_window)
    return tuple(tuple(stage) for stage in stages)


_A = _stages((1, 1, 2, 2, 2))
_B = _stages((2, 2, 2, 2, 2))
_C = _stages((2, 2, 3, 3, 3), last_window=1)
_D = _stages((2, 2, 3, 3, 3))
_E = _stages((2, 2, 4, 4, 4))


class VGG(Module):
    """The network that the functions here make: features, avgpool, classifier, as torchvision names them."""

    features: Sequential  # type: ignore[assignment]

    def __init__(
        self,
        who: str,
        stages: _Stages,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        batch_norm: bool = False,
        lrn: bool = False,
        dropout: float = 0.5,
        hidden: int | None = None,
    ) -> None:
        small = is_small(shape)
        units = hidden_units(hidden, who=who, small=small)
        layers: list[Module] = []
        channels = shape[2]
        zero = init.constant(0.0)
        for stage in stages:
            for filters, window in stage:
                rule = init.he_normal(mode="fan_out")
                layers.append(Conv2d(channels, filters, window, padding=window // 2, weight_init=rule, bias_init=zero))
                if batch_norm:
                    layers.append(BatchNorm2d(filters))
                layers.append(ReLU())
                if lrn and len(layers) == 2:
                    layers.append(LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0))
                channels = filters
            layers.append(MaxPool2d(2))
        rules: dict[str, Any] = {"weight_init": init.normal(0.01), "bias_init": zero}
        if small:
            rules["weight_init"] = init.he_normal()
        self.features = Sequential(*layers)
        if not small:
            self.avgpool = AdaptiveAvgPool2d(7)
        self.classifier = Sequential(
            Linear(out_features=units, **rules) if small else Linear(channels * 7 * 7, units, **rules),
            ReLU(),
            Dropout(dropout),
            Linear(units, units, **rules),
            ReLU(),
            Dropout(dropout),
            Linear(units, num_classes, **rules),
        )
        self.flatten = Flatten()
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.features(x)
        if hasattr(self, "avgpool"):
            x = self.avgpool(x)
        return self.classifier(self.flatten(x))


def _make(
    who: str,
    stages: _Stages,
    num_classes: int,
    input_shape: Sequence[int] | None,
    dropout: float,
    hidden: int | None,
    **options: Any,
) -> VGG:
    shape = as_image_shape(input_shape, who=who, default=(224, 224, 3), smallest=32)
    classes = as_count(num_classes, who=who, name="num_classes")
    net = VGG(who, stages, shape, classes, dropout=dropout, hidden=hidden, **options)
    net.build(shape)
    return net


def vgg11(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-11, configuration A (Simonyan and Zisserman 2015): 132,863,336 parameters.

    All convolutions are 3x3 with padding 1, all pools 2x2; two hidden layers of 4096 units. Names and shapes of the
    weights are torchvision's, which takes images of any size by pooling the last maps to 7x7. Convolutions start
    normal with variance 2 / fan_out (He et al. 2015), fully connected layers with deviation 0.01, biases at 0.

    Images below 64 pixels a side get a classifier for small images: the last maps (1x1 for 32 pixels) go to it as they
    are, nothing is pooled to 7x7, its hidden layers have 512 units, and their weights start after He as well. For
    32x32x3 and 10 classes that is 9,750,922 parameters.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 32x32 pixels. Default: (224, 224, 3).
        dropout: Probability of zero behind the two hidden layers.
        hidden: Units of the two hidden layers. Default: 4096, or 512 for small images.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> vgg11().num_parameters
        132863336
    """
    return _make("vgg11", _A, num_classes, input_shape, dropout, hidden)


@arguments_of(vgg11)
def vgg11_bn(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-11 with batch norm behind every convolution: 132,868,840 parameters.

    Convolutions start normal with variance 2 / fan_out. All else, small images included, is as in `vgg11`.

    Example:
        >>> vgg11_bn().num_parameters
        132868840
    """
    return _make("vgg11_bn", _A, num_classes, input_shape, dropout, hidden, batch_norm=True)


@arguments_of(vgg11)
def vgg11_lrn(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-11 with local response normalisation, configuration A-LRN: 132,863,336 parameters.

    One normalisation (n = 5, k = 2, alpha = 1e-4, beta = 0.75) follows the first ReLU. The paper finds that it does not
    help. All else, small images included, is as in `vgg11`.

    Example:
        >>> vgg11_lrn().num_parameters
        132863336
    """
    return _make("vgg11_lrn", _A, num_classes, input_shape, dropout, hidden, lrn=True)


@arguments_of(vgg11)
def vgg13(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-13, configuration B (Simonyan and Zisserman 2015): 133,047,848 parameters.

    All else, small images included, is as in `vgg11`; for 32x32x3 and 10 classes that is 9,935,434 parameters.

    Example:
        >>> vgg13().num_parameters
        133047848
    """
    return _make("vgg13", _B, num_classes, input_shape, dropout, hidden)


@arguments_of(vgg11)
def vgg13_bn(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-13 with batch norm behind every convolution: 133,053,736 parameters.

    Convolutions start normal with variance 2 / fan_out. All else, small images included, is as in `vgg13`.

    Example:
        >>> vgg13_bn().num_parameters
        133053736
    """
    return _make("vgg13_bn", _B, num_classes, input_shape, dropout, hidden, batch_norm=True)


@arguments_of(vgg11)
def vgg16(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-16, configuration D (Simonyan and Zisserman 2015): 138,357,544 parameters.

    All else, small images included, is as in `vgg11`; for 32x32x3 and 10 classes that is 15,245,130 parameters.

    Example:
        >>> vgg16().num_parameters
        138357544
    """
    return _make("vgg16", _D, num_classes, input_shape, dropout, hidden)


@arguments_of(vgg11)
def vgg16_bn(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-16 with batch norm behind every convolution: 138,365,992 parameters.

    Convolutions start normal with variance 2 / fan_out. All else, small images included, is as in `vgg16`.

    Example:
        >>> vgg16_bn().num_parameters
        138365992
    """
    return _make("vgg16_bn", _D, num_classes, input_shape, dropout, hidden, batch_norm=True)


@arguments_of(vgg11)
def vgg16_c(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-16, configuration C, with 1x1 convolutions (Simonyan and Zisserman 2015): 133,638,952 parameters.

    The last convolution of the third, fourth and fifth stage is 1x1. All else, small images included, is as in `vgg16`.

    Example:
        >>> vgg16_c().num_parameters
        133638952
    """
    return _make("vgg16_c", _C, num_classes, input_shape, dropout, hidden)


@arguments_of(vgg11)
def vgg19(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-19, configuration E (Simonyan and Zisserman 2015): 143,667,240 parameters.

    All else, small images included, is as in `vgg11`; for 32x32x3 and 10 classes that is 20,554,826 parameters.

    Example:
        >>> vgg19().num_parameters
        143667240
    """
    return _make("vgg19", _E, num_classes, input_shape, dropout, hidden)


@arguments_of(vgg11)
def vgg19_bn(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> VGG:
    """VGG-19 with batch norm behind every convolution: 143,678,248 parameters.

    Convolutions start normal with variance 2 / fan_out. All else, small images included, is as in `vgg19`.

    Example:
        >>> vgg19_bn().num_parameters
        143678248
    """
    return _make("vgg19_bn", _E, num_classes, input_shape, dropout, hidden, batch_norm=True)
