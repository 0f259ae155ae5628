"""AlexNet, winner of ILSVRC 2012, in three forms.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012;
the one-tower form is from Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.nn import (
    AdaptiveAvgPool2d,
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

__all__ = ["AlexNet", "AlexNet2012", "alexnet", "alexnet_2012", "alexnet_simplified"]

# Hidden units of the fully connected layers.
_HIDDEN, _HIDDEN_SMALL = 4096, 512


def hidden_units(value: int | None, *, who: str, small: bool) -> int:
    """What the option `hidden` means: 4096 as published, 512 for small images."""
    if value is None:
        return _HIDDEN_SMALL if small else _HIDDEN
    return as_count(value, who=who, name="hidden")


class AlexNet(Module):
    """The network that `alexnet` makes: features, avgpool, classifier, as torchvision names them."""

    features: Sequential  # type: ignore[assignment]

    def __init__(self, shape: tuple[int, int, int], num_classes: int, dropout: float, hidden: int | None) -> None:
        small = is_small(shape)
        units = hidden_units(hidden, who="alexnet", small=small)
        first: dict[str, Any] = {"kernel_size": 5} if small else {"kernel_size": 11, "stride": 4}
        self.features = Sequential(
            Conv2d(shape[2], 64, padding=2, **first),
            ReLU(),
            MaxPool2d(3, 2),
            Conv2d(64, 192, kernel_size=5, padding=2),
            ReLU(),
            MaxPool2d(3, 2),
            Conv2d(192, 384, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(384, 256, kernel_size=3, padding=1),
            ReLU(),
            Conv2d(256, 256, kernel_size=3, padding=1),
            ReLU(),
            MaxPool2d(3, 2),
        )
        if not small:
            self.avgpool = AdaptiveAvgPool2d(6)
        self.classifier = Sequential(
            Dropout(dropout),
            Linear(out_features=units) if small else Linear(256 * 6 * 6, units),
            ReLU(),
            Dropout(dropout),
            Linear(units, units),
            ReLU(),
            Linear(units, num_classes),
        )
        self.flatten = Flatten()
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.features(x)
        if hasattr(self, "avgpool"):
            x = self.avgpool(x)
        return self.classifier(self.flatten(x))


def alexnet(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> AlexNet:
    """AlexNet in one tower of 64, 192, 384, 256, 256 filters, as torchvision has it: 61,100,840 parameters.

    Names and shapes of the weights are torchvision's. Weights start uniform in ±1/sqrt(fan_in), as there.

    Images below 64 pixels a side get a variant for small images: the first convolution is 5x5 with stride 1 and
    padding 2 instead of 11x11 with stride 4, nothing is pooled to 6x6, and the hidden layers have 512 units. For
    32x32x3 and 10 classes that is 3,899,210 parameters.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 24x24 pixels. Default: (224, 224, 3). From 64 pixels on the same
            weights take images of any size.
        dropout: Probability of zero in front of the two hidden layers.
        hidden: Units of the two hidden layers. Default: 4096, or 512 for small images.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> alexnet().num_parameters
        61100840
    """
    shape = as_image_shape(input_shape, who="alexnet", default=(224, 224, 3), smallest=24)
    net = AlexNet(shape, as_count(num_classes, who="alexnet", name="num_classes"), dropout, hidden)
    net.build(shape)
    return net


# Below this the third pool of an 11x11/4 stem has no window left.
_SMALLEST_2012 = 67


class AlexNet2012(Module):
    """The network that `alexnet_2012` and `alexnet_simplified` make; layers as the paper counts them.

    conv1, relu1, norm1, pool1, ... conv5, relu5, pool5, flatten, fc6, relu6, drop6, fc7, relu7, drop7, fc8.
    """

    def __init__(
        self,
        who: str,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        groups: int,
        pool_first: bool,
        dropout: float,
        hidden: int | None,
    ) -> None:
        small = is_small(shape, _SMALLEST_2012)
        units = hidden_units(hidden, who=who, small=small)
        zero, one = init.constant(0.0), init.constant(1.0)
        rule = init.normal(0.01)

        def conv(inputs: int, outputs: int, kernel: int, bias: init.Rule, **options: Any) -> Conv2d:
            return Conv2d(inputs, outputs, kernel, weight_init=rule, bias_init=bias, **options)

        def normalise_and_pool(number: int) -> None:
            # The paper's alpha is not divided by the size, the layer's is.
            layers: dict[str, Module] = {
                f"norm{number}": LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0),
                f"pool{number}": MaxPool2d(3, 2),
            }
            for name in sorted(layers, reverse=pool_first):
                setattr(self, name, layers[name])

        first: dict[str, Any] = {"kernel": 5, "padding": 2} if small else {"kernel": 11, "stride": 4}
        self.conv1 = conv(shape[2], 96, bias=zero, **first)
        self.relu1 = ReLU()
        normalise_and_pool(1)
        self.conv2 = conv(96, 256, 5, one, padding=2, groups=groups)
        self.relu2 = ReLU()
        normalise_and_pool(2)
        self.conv3 = conv(256, 384, 3, zero, padding=1)
        self.relu3 = ReLU()
        self.conv4 = conv(384, 384, 3, one, padding=1, groups=groups)
        self.relu4 = ReLU()
        self.conv5 = conv(384, 256, 3, one, padding=1, groups=groups)
        self.relu5 = ReLU()
        self.pool5 = MaxPool2d(3, 2)
        self.flatten = Flatten()
        self.fc6 = Linear(out_features=units, weight_init=rule, bias_init=one)
        self.relu6 = ReLU()
        self.drop6 = Dropout(dropout)
        self.fc7 = Linear(units, units, weight_init=rule, bias_init=one)
        self.relu7 = ReLU()
        self.drop7 = Dropout(dropout)
        self.fc8 = Linear(units, num_classes, weight_init=rule, bias_init=zero)
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers one after the other, as they were created."""
        for _, layer in self.named_children():
            if layer is not self.normalization:
                x = layer(x)
        return x


def _make_2012(who: str, num_classes: int, input_shape: Sequence[int] | None, **options: Any) -> AlexNet2012:
    shape = as_image_shape(input_shape, who=who, default=(227, 227, 3), smallest=24)
    net = AlexNet2012(who, shape, as_count(num_classes, who=who, name="num_classes"), **options)
    net.build(shape)
    return net


def alexnet_2012(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    groups: int = 2,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> AlexNet2012:
    """AlexNet as it won in 2012, on two GPUs: 60,965,224 parameters.

    The second, fourth and fifth convolution see only the half of the maps that lies on their GPU, which is a
    convolution in two groups; the third and the fully connected layers see everything. Local response normalisation
    (n = 5, k = 2, alpha = 1e-4, beta = 0.75) follows the first two ReLUs, overlapping 3x3/2 max-pools follow that.
    Weights start normal with deviation 0.01; biases at 1 in conv2, conv4, conv5, fc6 and fc7, elsewhere at 0.

    Images below 67 pixels a side get a variant for small images: the first convolution is 5x5 with stride 1 and
    padding 2, and the hidden layers have 512 units.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 24x24 pixels. Default: (227, 227, 3). The size is built into
            fc6.
        groups: GPUs, each with its share of the maps: 1, 2, 4 or 8 and so on, a divisor of 32.
        dropout: Probability of zero behind fc6 and fc7.
        hidden: Units of fc6 and fc7. Default: 4096, or 512 for small images.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> alexnet_2012().num_parameters
        60965224
    """
    towers = as_count(groups, who="alexnet_2012", name="groups")
    if 32 % towers:
        raise ArgumentError(f"alexnet_2012: groups must divide 32, got {towers}")
    return _make_2012(
        "alexnet_2012", num_classes, input_shape, groups=towers, pool_first=False, dropout=dropout, hidden=hidden
    )


def alexnet_simplified(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> AlexNet2012:
    """AlexNet as it is taught, without the two GPUs: 62,378,344 parameters.

    227x227x3, 96 11x11/4, max-pool 3x3/2, local response normalisation, 256 5x5, max-pool, normalisation, 384, 384 and
    256 3x3, max-pool, 4096, 4096, 1000. Every convolution sees all maps, and pools come before normalisation. All
    else, the variant for small images included, is as in `alexnet_2012`.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 24x24 pixels. Default: (227, 227, 3). The size is built into
            fc6.
        dropout: Probability of zero behind fc6 and fc7.
        hidden: Units of fc6 and fc7. Default: 4096, or 512 for small images.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> alexnet_simplified().num_parameters
        62378344
    """
    return _make_2012(
        "alexnet_simplified", num_classes, input_shape, groups=1, pool_first=True, dropout=dropout, hidden=hidden
    )
