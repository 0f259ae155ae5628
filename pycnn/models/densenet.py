"""DenseNet: every layer sees the maps of all layers before it in its block.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from pycnn.nn._arguments import as_count

__all__ = ["DenseLayer", "DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]


def _conv(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False, weight_init=init.he_normal())


class DenseLayer(Module):
    """Norm, ReLU and a 1x1 convolution to 4 * growth maps; norm, ReLU and a 3x3 convolution to `growth` maps.

    Args:
        in_channels: Channels of all maps before it.
        growth: Maps that it adds.
        dropout: Probability of zero among the maps that it adds.

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H, W, growth)``
    """

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        self.norm1 = BatchNorm2d(in_channels)
        self.relu1 = ReLU()
        self.conv1 = _conv(in_channels, 4 * growth, 1)
        self.norm2 = BatchNorm2d(4 * growth)
        self.relu2 = ReLU()
        self.conv2 = _conv(4 * growth, growth, 3, padding=1)
        if dropout > 0:
            self.drop = Dropout(dropout)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        x = self.conv1(self.relu1(self.norm1(x)))
        x = self.conv2(self.relu2(self.norm2(x)))
        return self.drop(x) if hasattr(self, "drop") else x


class _DenseBlock(Module):
    """Layers "denselayer1", "denselayer2", ...; the result holds the input and what each of them adds."""

    def __init__(self, in_channels: int, count: int, growth: int, dropout: float) -> None:
        for number in range(count):
            setattr(self, f"denselayer{number + 1}", DenseLayer(in_channels + number * growth, growth, dropout))

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        for name, layer in self.named_children():
            if name.startswith("denselayer"):
                x = functional.concat([x, layer(x)], axis=-1)
        return x


class DenseNet(Module):
    """The network that the functions here make: features, classifier, as torchvision names them."""

    features: Sequential  # type: ignore[assignment]

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        *,
        growth: int,
        counts: tuple[int, ...],
        filters: int,
        dropout: float,
    ) -> None:
        layers: dict[str, Module] = {}
        small = is_small(shape)
        if small:
            layers["conv0"] = _conv(shape[2], filters, 3, padding=1)
        else:
            layers["conv0"] = _conv(shape[2], filters, 7, stride=2, padding=3)
        layers["norm0"] = BatchNorm2d(filters)
        layers["relu0"] = ReLU()
        if not small:
            layers["pool0"] = MaxPool2d(3, 2, 1)
        channels = filters
        for number, count in enumerate(counts, 1):
            layers[f"denseblock{number}"] = _DenseBlock(channels, count, growth, dropout)
            channels += count * growth
            if number < len(counts):
                layers[f"transition{number}"] = Sequential(
                    {
                        "norm": BatchNorm2d(channels),
                        "relu": ReLU(),
                        "conv": _conv(channels, channels // 2, 1),
                        "pool": AvgPool2d(2),
                    }
                )
                channels //= 2
        layers["norm5"] = BatchNorm2d(channels)
        self.features = Sequential(layers)
        self.relu = ReLU()
        self.pool = GlobalAvgPool2d()
        self.classifier = Linear(channels, num_classes, bias_init=init.constant(0.0))
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return self.classifier(self.pool(self.relu(self.features(x))))


def _make(who: str, num_classes: int, input_shape: Sequence[int] | None, **options: Any) -> DenseNet:
    # Three transitions halve the maps, for large images the stem does so twice before.
    shape = as_image_shape(input_shape, who=who, default=(224, 224, 3), smallest=8)
    net = DenseNet(shape, as_count(num_classes, who=who, name="num_classes"), **options)
    net.build(shape)
    return net


def densenet121(num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.0) -> DenseNet:
    """DenseNet-121 (Huang et al. 2017): 7,978,856 parameters.

    Blocks of 6, 12, 24 and 16 layers that add 32 maps each. Names and shapes of the weights are torchvision's; they
    take images of any size. Convolutions start normal with variance 2 / fan_in (He et al. 2015), the last layer's
    biases at 0.

    For images below 64 pixels a side the first convolution is 3x3 with stride 1 and no max-pool follows it, as in the
    paper's nets for CIFAR.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        dropout: Probability of zero among the maps that each layer adds.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> densenet121().num_parameters
        7978856
    """
    return _make(
        "densenet121", num_classes, input_shape, growth=32, counts=(6, 12, 24, 16), filters=64, dropout=dropout
    )


def densenet161(num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.0) -> DenseNet:
    """DenseNet-161 (Huang et al. 2017): 28,681,000 parameters.

    Blocks of 6, 12, 36 and 24 layers that add 48 maps each. All else, small images included, is as in
    `densenet121`.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        dropout: Probability of zero among the maps that each layer adds.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> densenet161().num_parameters
        28681000
    """
    return _make(
        "densenet161", num_classes, input_shape, growth=48, counts=(6, 12, 36, 24), filters=96, dropout=dropout
    )


def densenet169(num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.0) -> DenseNet:
    """DenseNet-169 (Huang et al. 2017): 14,149,480 parameters.

    Blocks of 6, 12, 32 and 32 layers that add 32 maps each. All else, small images included, is as in
    `densenet121`.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        dropout: Probability of zero among the maps that each layer adds.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> densenet169().num_parameters
        14149480
    """
    return _make(
        "densenet169", num_classes, input_shape, growth=32, counts=(6, 12, 32, 32), filters=64, dropout=dropout
    )


def densenet201(num_classes: int = 1000, *, input_shape: Sequence[int] | None = None, dropout: float = 0.0) -> DenseNet:
    """DenseNet-201 (Huang et al. 2017): 20,013,928 parameters.

    Blocks of 6, 12, 48 and 32 layers that add 32 maps each. All else, small images included, is as in
    `densenet121`.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 8x8 pixels. Default: (224, 224, 3).
        dropout: Probability of zero among the maps that each layer adds.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> densenet201().num_parameters
        20013928
    """
    return _make(
        "densenet201", num_classes, input_shape, growth=32, counts=(6, 12, 48, 32), filters=64, dropout=dropout
    )
