"""SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, MaxPool2d, Module, ReLU, Sequential, init
from pycnn.nn._arguments import as_count

__all__ = ["Fire", "SqueezeNet", "squeezenet1_0", "squeezenet1_1"]


class Fire(Module):
    """1x1 filters squeeze the channels, 1x1 and 3x3 filters side by side expand them again.

    Args:
        in_channels: Channels of the input.
        squeeze: Filters that squeeze.
        expand: Filters of each of the two expanding convolutions.

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H, W, 2 * expand)``
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        rules: dict[str, Any] = {"weight_init": init.he_uniform(), "bias_init": init.constant(0.0)}
        self.squeeze = Conv2d(in_channels, squeeze, kernel_size=1, **rules)
        self.squeeze_activation = ReLU()
        self.expand1x1 = Conv2d(squeeze, expand, kernel_size=1, **rules)
        self.expand1x1_activation = ReLU()
        self.expand3x3 = Conv2d(squeeze, expand, kernel_size=3, padding=1, **rules)
        self.expand3x3_activation = ReLU()

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        x = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(x))
        wide = self.expand3x3_activation(self.expand3x3(x))
        return functional.concat([narrow, wide], axis=-1)


# (squeeze, expand) of the eight fire modules, the same in both versions.
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class SqueezeNet(Module):
    """The network that the functions here make: features, classifier, as torchvision names them."""

    features: Sequential  # type: ignore[assignment]

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        filters: int,
        window: int,
        pools_before: tuple[int, ...],
        dropout: float,
    ) -> None:
        rules: dict[str, Any] = {"weight_init": init.he_uniform(), "bias_init": init.constant(0.0)}
        if is_small(shape):
            first = Conv2d(shape[2], filters, kernel_size=3, padding=1, **rules)
        else:
            first = Conv2d(shape[2], filters, kernel_size=window, stride=2, **rules)
        layers: list[Module] = [first, ReLU()]
        channels = filters
        for number, (squeeze, expand) in enumerate(_FIRES):
            if number in pools_before:
                layers.append(MaxPool2d(3, 2, ceil_mode=True))
            layers.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
        self.features = Sequential(*layers)
        # Scores are means of maps, one a class.
        self.classifier = Sequential(
            Dropout(dropout),
            Conv2d(channels, num_classes, kernel_size=1, weight_init=init.normal(0.01), bias_init=init.constant(0.0)),
            ReLU(),
            AdaptiveAvgPool2d(1),
        )
        self.flatten = Flatten()
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return self.flatten(self.classifier(self.features(x)))


def _make(who: str, num_classes: int, input_shape: Sequence[int] | None, **options: Any) -> SqueezeNet:
    shape = as_image_shape(input_shape, who=who, default=(224, 224, 3), smallest=17)
    net = SqueezeNet(shape, as_count(num_classes, who=who, name="num_classes"), **options)
    net.build(shape)
    return net


def squeezenet1_0(
    num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.5
) -> SqueezeNet:
    """SqueezeNet 1.0, as in the paper (Iandola et al. 2016): 1,248,424 parameters.

    96 7x7/2 filters, eight fire modules with 3x3/2 max-pools in front of the first, fourth and eighth, then one map a
    class, averaged. Names and shapes of the weights are torchvision's; they take images of any size. Weights start
    uniform with variance 2 / fan_in (He et al. 2015), those of the last convolution normal with deviation 0.01, biases
    at 0.

    For images below 64 pixels a side the first convolution is 3x3 with stride 1 and padding 1.

    Args:
        num_classes: Maps of the last convolution.
        input_shape: (H, W, C) of the images, at least 17x17 pixels. Default: (224, 224, 3).
        dropout: Probability of zero in front of the last convolution.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``, none negative: a ReLU follows the last convolution.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> squeezenet1_0().num_parameters
        1248424
    """
    return _make(
        "squeezenet1_0", num_classes, input_shape, filters=96, window=7, pools_before=(0, 3, 7), dropout=dropout
    )


def squeezenet1_1(
    num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.5
) -> SqueezeNet:
    """SqueezeNet 1.1, the authors' revision with 2.4 times less computation: 1,235,496 parameters.

    64 3x3/2 filters first, and max-pools in front of the first, third and fifth fire module. All else, small images
    included, is as in `squeezenet1_0`.

    Args:
        num_classes: Maps of the last convolution.
        input_shape: (H, W, C) of the images, at least 17x17 pixels. Default: (224, 224, 3).
        dropout: Probability of zero in front of the last convolution.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``, none negative: a ReLU follows the last convolution.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> squeezenet1_1().num_parameters
        1235496
    """
    return _make(
        "squeezenet1_1", num_classes, input_shape, filters=64, window=3, pools_before=(0, 2, 4), dropout=dropout
    )
