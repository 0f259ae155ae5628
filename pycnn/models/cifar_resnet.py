"""The residual networks that the residual paper trains on CIFAR-10.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, section 4.2; pre-activated: He, Zhang, Ren,
Sun, "Identity mappings in deep residual networks", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional
from pycnn.models._arguments import as_image_shape
from pycnn.models._documentation import arguments_of
from pycnn.nn import BasicBlock, BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, Module, Sequential, init
from pycnn.nn._arguments import as_count

__all__ = [
    "CifarResNet",
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet44",
    "cifar_resnet56",
    "cifar_resnet110",
]


class CifarResNet(Module):
    """The network that the functions here make: conv1, bn1, layer1 to layer3, fc.

    Pre-activated, bn1 stands behind layer3, in front of the last ReLU.

    Args:
        depth: 6 n + 2 for n blocks in each of the three stages.
        who: Named in errors.
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images. Default: (32, 32, 3).
        shortcut: Where the shape changes, "zero_pad" or "projection".
        pre_activation: Batch norm and ReLU come before each convolution.
        zero_init_residual: The last batch norm of each block starts at scale 0.
        channels: Of the first stage; each further one has twice as many.
    """

    layer1: Sequential
    layer2: Sequential
    layer3: Sequential

    def __init__(
        self,
        depth: int,
        *,
        who: str,
        num_classes: int = 10,
        input_shape: Sequence[int] | None = None,
        shortcut: str = "zero_pad",
        pre_activation: bool = False,
        zero_init_residual: bool = False,
        channels: int = 16,
    ) -> None:
        shape = as_image_shape(input_shape, who=who, default=(32, 32, 3))
        self.pre_activation = bool(pre_activation)
        rule = init.he_normal(mode="fan_out")
        self.conv1 = Conv2d(shape[2], channels, kernel_size=3, padding=1, bias=False, weight_init=rule)
        self.bn1 = BatchNorm2d(4 * channels if self.pre_activation else channels)
        width = channels
        for stage in range(3):
            blocks = []
            for index in range((depth - 2) // 6):
                blocks.append(
                    BasicBlock(
                        width,
                        channels * 2**stage,
                        stride=2 if stage and not index else 1,
                        shortcut=shortcut,
                        pre_activation=self.pre_activation,
                        zero_init_residual=zero_init_residual,
                    )
                )
                width = blocks[-1].out_channels
            setattr(self, f"layer{stage + 1}", Sequential(*blocks))
        self.avgpool = GlobalAvgPool2d()
        self.fc = Linear(width, as_count(num_classes, who=who, name="num_classes"))
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.conv1(x)
        if not self.pre_activation:
            x = functional.relu(self.bn1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        if self.pre_activation:
            x = functional.relu(self.bn1(x))
        return self.fc(self.avgpool(x))


def _make(
    depth: int,
    num_classes: int,
    input_shape: Sequence[int] | None,
    shortcut: str,
    pre_activation: bool,
    zero_init_residual: bool,
) -> CifarResNet:
    net = CifarResNet(
        depth,
        who=f"cifar_resnet{depth}",
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        pre_activation=pre_activation,
        zero_init_residual=zero_init_residual,
    )
    net.name_tensors()
    return net


def cifar_resnet20(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    shortcut: str = "zero_pad",
    pre_activation: bool = False,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """ResNet-20 for CIFAR-10 (He et al. 2015, section 4.2): 269,722 parameters, 0.041 G multiply-adds at 32x32.

    A 3x3 convolution, three stages of 3 basic blocks with 16, 32 and 64 channels, global average pool, one dense layer.
    Convolutions start normal with variance 2 / fan_out.

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, any size. Default: (32, 32, 3).
        shortcut: Where the shape changes: "zero_pad" takes every second pixel and adds channels of zeros (option A,
            as the paper's CIFAR nets), "projection" is a 1x1 convolution with batch norm (option B).
        pre_activation: Batch norm and ReLU come before each convolution and nothing follows the sum (He et al. 2016);
            a last batch norm and ReLU stand in front of the pool.
        zero_init_residual: The last batch norm of each block starts at scale 0 (Goyal et al. 2017); not with
            `pre_activation`.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> cifar_resnet20().num_parameters
        269722
    """
    return _make(20, num_classes, input_shape, shortcut, pre_activation, zero_init_residual)


@arguments_of(cifar_resnet20)
def cifar_resnet32(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    shortcut: str = "zero_pad",
    pre_activation: bool = False,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """ResNet-32 for CIFAR-10 (He et al. 2015, section 4.2): 464,154 parameters, 0.069 G multiply-adds at 32x32.

    A 3x3 convolution, three stages of 5 basic blocks with 16, 32 and 64 channels, global average pool, one dense layer.
    Convolutions start normal with variance 2 / fan_out.

    Example:
        >>> cifar_resnet32().num_parameters
        464154
    """
    return _make(32, num_classes, input_shape, shortcut, pre_activation, zero_init_residual)


@arguments_of(cifar_resnet20)
def cifar_resnet44(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    shortcut: str = "zero_pad",
    pre_activation: bool = False,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """ResNet-44 for CIFAR-10 (He et al. 2015, section 4.2): 658,586 parameters, 0.097 G multiply-adds at 32x32.

    A 3x3 convolution, three stages of 7 basic blocks with 16, 32 and 64 channels, global average pool, one dense layer.
    Convolutions start normal with variance 2 / fan_out.

    Example:
        >>> cifar_resnet44().num_parameters
        658586
    """
    return _make(44, num_classes, input_shape, shortcut, pre_activation, zero_init_residual)


@arguments_of(cifar_resnet20)
def cifar_resnet56(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    shortcut: str = "zero_pad",
    pre_activation: bool = False,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """ResNet-56 for CIFAR-10 (He et al. 2015, section 4.2): 853,018 parameters, 0.125 G multiply-adds at 32x32.

    A 3x3 convolution, three stages of 9 basic blocks with 16, 32 and 64 channels, global average pool, one dense layer.
    Convolutions start normal with variance 2 / fan_out.

    Example:
        >>> cifar_resnet56().num_parameters
        853018
    """
    return _make(56, num_classes, input_shape, shortcut, pre_activation, zero_init_residual)


@arguments_of(cifar_resnet20)
def cifar_resnet110(
    num_classes: int = 10,
    *,
    input_shape: Sequence[int] | None = None,
    shortcut: str = "zero_pad",
    pre_activation: bool = False,
    zero_init_residual: bool = False,
) -> CifarResNet:
    """ResNet-110 for CIFAR-10 (He et al. 2015, section 4.2): 1,727,962 parameters, 0.253 G multiply-adds at 32x32.

    A 3x3 convolution, three stages of 18 basic blocks (16, 32, 64 channels), global average pool, one dense layer.
    Convolutions start normal with variance 2 / fan_out.

    Example:
        >>> cifar_resnet110().num_parameters
        1727962
    """
    return _make(110, num_classes, input_shape, shortcut, pre_activation, zero_init_residual)
