"""LeNet-5 as it is built today: full connections, plain pooling, a linear output layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape
from pycnn.nn import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Module
from pycnn.nn._arguments import as_count

__all__ = ["LeNet5", "lenet5"]

_ACTIVATIONS = {
    "tanh": functional.tanh,
    "sigmoid": functional.sigmoid,
    "relu": functional.relu,
}


class LeNet5(Module):
    """The network that `lenet5` makes; layers conv1, conv2, fc1, fc2, fc3."""

    def __init__(self, num_classes: int, activation: str, in_channels: int, pool: str, input_size: int) -> None:
        who = "lenet5"
        classes = as_count(num_classes, who=who, name="num_classes")
        channels = as_count(in_channels, who=who, name="in_channels")
        if activation not in _ACTIVATIONS:
            raise ArgumentError(f"{who}: activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if pool not in ("avg", "max"):
            raise ArgumentError(f"{who}: pool must be 'avg' or 'max', got {pool!r}")
        if input_size not in (28, 32):
            raise ArgumentError(f"{who}: input_size must be 28 or 32, got {input_size!r}")
        self.activation = activation
        self.conv1 = Conv2d(channels, 6, kernel_size=5, padding=2 if input_size == 28 else 0)
        self.pool1 = AvgPool2d(2) if pool == "avg" else MaxPool2d(2)
        self.conv2 = Conv2d(6, 16, kernel_size=5)
        self.pool2 = AvgPool2d(2) if pool == "avg" else MaxPool2d(2)
        self.flatten = Flatten()
        self.fc1 = Linear(400, 120)
        self.fc2 = Linear(120, 84)
        self.fc3 = Linear(84, classes)
        self.input_shape = (input_size, input_size, channels)

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        squash = _ACTIVATIONS[self.activation]
        x = self.pool1(squash(self.conv1(x)))
        x = self.pool2(squash(self.conv2(x)))
        x = self.flatten(x)
        x = squash(self.fc1(x))
        x = squash(self.fc2(x))
        return self.fc3(x)


def lenet5(
    num_classes: int = 10,
    *,
    activation: str = "tanh",
    in_channels: int = 1,
    pool: str = "avg",
    input_size: int = 28,
    input_shape: Sequence[int] | None = None,
) -> LeNet5:
    """LeNet-5 with full connections (after LeCun et al. 1998): 61,706 parameters for 10 classes.

    conv 5x5 x6, pool 2x2, conv 5x5 x16, pool 2x2, then 120, 84 and `num_classes` units.

    Args:
        num_classes: Units of the last layer, at least 1.
        activation: "tanh", "sigmoid" or "relu", after each layer but the last.
        in_channels: 1 for grey images, 3 for colour.
        pool: "avg" or "max".
        input_size: 28 (padded by 2 at each side) or 32, in pixels.
        input_shape: (H, W, C) of the images instead of the two before.

    Shape:
        ``(N, input_size, input_size, in_channels)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> lenet5().num_parameters
        61706
    """
    if input_shape is not None:
        height, width, in_channels = as_image_shape(input_shape, who="lenet5", default=(28, 28, 1))
        if height != width:
            raise ArgumentError(f"lenet5: input_shape must be square, 28x28 or 32x32, got {tuple(input_shape)}")
        input_size = height
    net = LeNet5(num_classes, activation, in_channels, pool, input_size)
    net.name_tensors()
    return net
