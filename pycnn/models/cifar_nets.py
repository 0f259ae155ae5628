"""The lecture's networks cut down for small images such as CIFAR-10's: the ideas of each paper at one budget.

All are sized for 32x32 pixels and about 40 million multiply-adds, what ResNet-20 (`cifar_resnet20`) takes, so that a
comparison is one of architectures. They are our own reductions; the papers' networks are in the families' files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape
from pycnn.nn import (
    BatchNorm2d,
    Bottleneck,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Inception,
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
    "CifarNet",
    "cifar_alexnet",
    "cifar_googlenet",
    "cifar_resnext",
    "cifar_vgg",
]

_SHAPE = (32, 32, 3)
# Seven layers without batch norm: by the default rule the signal dies away, and the loss stands still for long.
_HE = init.he_normal()


class CifarNet(Module):
    """A chain of layers, `body`, and one that tells classes from its result, `head`."""

    def __init__(self, body: Sequential, head: Sequential, input_shape: tuple[int, int, int]) -> None:
        self.body = body
        self.head = head
        self.input_shape = input_shape
        self.name_tensors()

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        return self.head(self.body(x))


def _head(channels: int, num_classes: int, *, who: str, dropout: float = 0.0) -> Sequential:
    classes = as_count(num_classes, who=who, name="num_classes")
    steps: list[Module] = [GlobalAvgPool2d()]
    if dropout:
        steps.append(Dropout(dropout))
    return Sequential(*steps, Linear(channels, classes))


def cifar_alexnet(num_classes: int = 10, *, input_shape: Sequence[int] | None = None, dropout: float = 0.5) -> CifarNet:
    """AlexNet's plan for small images: five convolutions, overlapping pools, response norm, dropout, dense layers.

    conv 5x5 x32, pool 3x3/2, norm, conv 5x5 x64, pool, norm, three conv 3x3 (96, 96, 64), pool, 256 and `num_classes`
    units, after Krizhevsky et al. 2012.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 16 pixels a side. Default: (32, 32, 3).
        dropout: In front of both dense layers.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_alexnet().build((32, 32, 3)).num_parameters
        397770
    """
    who = "cifar_alexnet"
    shape = as_image_shape(input_shape, who=who, default=_SHAPE, smallest=16)
    classes = as_count(num_classes, who=who, name="num_classes")
    body = Sequential(
        Conv2d(shape[2], 32, kernel_size=5, padding=2, weight_init=_HE),
        ReLU(),
        MaxPool2d(3, stride=2),
        LocalResponseNorm(5, alpha=5e-4, k=2.0),
        Conv2d(32, 64, kernel_size=5, padding=2, weight_init=_HE),
        ReLU(),
        MaxPool2d(3, stride=2),
        LocalResponseNorm(5, alpha=5e-4, k=2.0),
        Conv2d(64, 96, kernel_size=3, padding=1, weight_init=_HE),
        ReLU(),
        Conv2d(96, 96, kernel_size=3, padding=1, weight_init=_HE),
        ReLU(),
        Conv2d(96, 64, kernel_size=3, padding=1, weight_init=_HE),
        ReLU(),
        MaxPool2d(3, stride=2),
    )
    side = list(shape[:2])
    for _ in range(3):
        side = [(size - 3) // 2 + 1 for size in side]
    head = Sequential(
        Flatten(),
        Dropout(dropout),
        Linear(64 * side[0] * side[1], 256, weight_init=_HE),
        ReLU(),
        Dropout(dropout),
        Linear(256, classes),
    )
    return CifarNet(body, head, shape)


def cifar_vgg(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> CifarNet:
    """VGG's plan for small images: pairs of 3x3 convolutions, twice the channels after each 2x2 pool.

    Stages of 32, 64 and 128 channels (after Simonyan, Zisserman 2015), global average pool, one dense layer.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 4 pixels a side. Default: (32, 32, 3).
        batch_norm: Behind each convolution, which then has no bias.
        dropout: In front of the dense layer.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_vgg().num_parameters
        288746
    """
    who = "cifar_vgg"
    shape = as_image_shape(input_shape, who=who, default=_SHAPE, smallest=4)
    steps: list[Module] = []
    width = shape[2]
    for stage, channels in enumerate((32, 64, 128)):
        if stage:
            steps.append(MaxPool2d(2))
        for _ in range(2):
            steps.append(Conv2d(width, channels, kernel_size=3, padding=1, bias=not batch_norm))
            if batch_norm:
                steps.append(BatchNorm2d(channels))
            steps.append(ReLU())
            width = channels
    return CifarNet(Sequential(*steps), _head(width, num_classes, who=who, dropout=dropout), shape)


def cifar_googlenet(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> CifarNet:
    """GoogLeNet's plan for small images: a convolution, six inception modules, global average pool, one dense layer.

    conv 3x3 x32, then two modules at each of full, half and quarter size (after Szegedy et al. 2015).

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, at least 4 pixels a side. Default: (32, 32, 3).
        batch_norm: Behind each convolution, which then has no bias.
        dropout: In front of the dense layer; the paper's is 0.4.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_googlenet().num_parameters > 100_000
        True
    """
    who = "cifar_googlenet"
    shape = as_image_shape(input_shape, who=who, default=_SHAPE, smallest=4)
    steps: list[Module] = [Conv2d(shape[2], 32, kernel_size=3, padding=1, bias=not batch_norm)]
    if batch_norm:
        steps.append(BatchNorm2d(32))
    steps.append(ReLU())
    width = 32
    for stage, unit in enumerate((8, 16, 32)):
        if stage:
            steps.append(MaxPool2d(3, stride=2, padding=1))
        for _ in range(2):
            # Shares of the branches about as in module 3a.
            block = Inception(
                width,
                branch1=2 * unit,
                reduce3=2 * unit,
                branch3=3 * unit,
                reduce5=unit // 2,
                branch5=unit,
                pool=unit,
                batch_norm=batch_norm,
            )
            steps.append(block)
            width = block.out_channels
    return CifarNet(Sequential(*steps), _head(width, num_classes, who=who, dropout=dropout), shape)


def cifar_resnext(num_classes: int = 10, *, input_shape: Sequence[int] | None = None, cardinality: int = 8) -> CifarNet:
    """ResNeXt's plan for small images: 29 layers, bottlenecks whose 3x3 convolution has `cardinality` groups.

    conv 3x3 x16, three stages of three blocks with 64, 128 and 256 channels, inner widths 32, 64 and 128 (after Xie et
    al. 2017, section 5.3, a sixteenth as wide), global average pool, one dense layer.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, any size. Default: (32, 32, 3).
        cardinality: Groups; a divisor of 32.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_resnext().num_parameters > 100_000
        True
    """
    who = "cifar_resnext"
    shape = as_image_shape(input_shape, who=who, default=_SHAPE)
    groups = as_count(cardinality, who=who, name="cardinality")
    if 32 % groups:
        raise ArgumentError(f"{who}: cardinality must divide 32, got {cardinality!r}")
    steps: list[Module] = [Conv2d(shape[2], 16, kernel_size=3, padding=1, bias=False), BatchNorm2d(16), ReLU()]
    width = 16
    for stage in range(3):
        for index in range(3):
            block = Bottleneck(
                width,
                16 * 2**stage,
                stride=2 if stage and not index else 1,
                groups=groups,
                base_width=128 // groups,
            )
            steps.append(block)
            width = block.out_channels
    return CifarNet(Sequential(*steps), _head(width, num_classes, who=who), shape)
