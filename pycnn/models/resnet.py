"""Residual networks: ResNet, ResNeXt, wide ResNet.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015; Xie, Girshick, Dollár, Tu, He, "Aggregated
residual transformations for deep neural networks" (ResNeXt), 2017; Zagoruyko, Komodakis, "Wide residual networks",
2016. Layers are called as torchvision calls them, and a strided bottleneck strides in its 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape, is_small
from pycnn.models._documentation import arguments_of
from pycnn.nn import (
    BasicBlock,
    BatchNorm2d,
    Bottleneck,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from pycnn.nn._arguments import as_count

__all__ = [
    "ResNet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]


class ResNet(Module):
    """The network that the functions here make: conv1, bn1, layer1 to layer4, fc.

    Args:
        blocks: How many blocks each of the four stages has.
        who: Named in errors.
        bottleneck: Blocks of 1x1, 3x3, 1x1 instead of two 3x3.
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images. Default: (224, 224, 3).
        groups: Of a bottleneck's 3x3 convolution.
        base_width: Channels of each group in the first stage.
        zero_init_residual: The last batch norm of each block starts at scale 0.
        stem: "imagenet", "small" or None, which chooses by the size of the images.
        channels: Of the first stage; each further one has twice as many.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        *,
        who: str,
        bottleneck: bool = False,
        num_classes: int = 1000,
        input_shape: Sequence[int] | None = None,
        groups: int = 1,
        base_width: int = 64,
        zero_init_residual: bool = False,
        stem: str | None = None,
        channels: int = 64,
    ) -> None:
        shape = as_image_shape(input_shape, who=who, default=(224, 224, 3))
        if stem not in (None, "imagenet", "small"):
            raise ArgumentError(f"{who}: stem must be 'imagenet' or 'small', got {stem!r}")
        rule = init.he_normal(mode="fan_out")
        # Small images would be down to a pixel too soon.
        self.small = is_small(shape) if stem is None else stem == "small"
        if self.small:
            self.conv1 = Conv2d(shape[2], channels, kernel_size=3, padding=1, bias=False, weight_init=rule)
        else:
            self.conv1 = Conv2d(shape[2], channels, kernel_size=7, stride=2, padding=3, bias=False, weight_init=rule)
        self.bn1 = BatchNorm2d(channels)
        self.relu = ReLU()
        if not self.small:
            self.maxpool = MaxPool2d(3, stride=2, padding=1)
        options: dict[str, Any] = {"zero_init_residual": zero_init_residual}
        if bottleneck:
            options |= {"groups": groups, "base_width": base_width}
        make: Any = Bottleneck if bottleneck else BasicBlock
        width = channels
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                layers.append(make(width, channels * 2**stage, stride=stride, **options))
                width = layers[-1].out_channels
            setattr(self, f"layer{stage + 1}", Sequential(*layers))
        self.avgpool = GlobalAvgPool2d()
        self.fc = Linear(width, as_count(num_classes, who=who, name="num_classes"))
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        x = self.relu(self.bn1(self.conv1(x)))
        if not self.small:
            x = self.maxpool(x)
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, stage)(x)
        return self.fc(self.avgpool(x))


def _make(
    who: str,
    blocks: tuple[int, int, int, int],
    num_classes: int,
    input_shape: Sequence[int] | None,
    zero_init_residual: bool,
    stem: str | None,
    **kind: Any,
) -> ResNet:
    shared: dict[str, Any] = {"num_classes": num_classes, "input_shape": input_shape, "stem": stem}
    net = ResNet(blocks, who=who, zero_init_residual=zero_init_residual, **shared, **kind)
    net.name_tensors()
    return net


def resnet18(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNet-18: two basic blocks a stage (He et al. 2015).

    11,689,512 parameters, 1.814 G multiply-adds at 224x224. Convolutions start normal with variance
    2 / fan_out (He et al. 2015).

    Args:
        num_classes: Scores to give.
        input_shape: (H, W, C) of the images, any size. Default: (224, 224, 3).
        zero_init_residual: The last batch norm of each block starts at scale 0, so that every block starts as the
            identity (Goyal et al. 2017).
        stem: What stands in front of the first block. "imagenet": 7x7/2 convolution and 3x3/2 max-pool; "small": 3x3
            convolution of stride 1 and no pool, as usual for 32x32 images. Default: "small" below 64 pixels a side.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> resnet18().num_parameters
        11689512
    """
    return _make("resnet18", (2, 2, 2, 2), num_classes, input_shape, zero_init_residual, stem)


@arguments_of(resnet18)
def resnet34(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNet-34: 3, 4, 6 and 3 basic blocks (He et al. 2015).

    21,797,672 parameters, 3.664 G multiply-adds at 224x224.

    Example:
        >>> resnet34().num_parameters
        21797672
    """
    return _make("resnet34", (3, 4, 6, 3), num_classes, input_shape, zero_init_residual, stem)


@arguments_of(resnet18)
def resnet50(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNet-50: 3, 4, 6 and 3 bottlenecks (He et al. 2015).

    25,557,032 parameters, 4.089 G multiply-adds at 224x224.

    Example:
        >>> resnet50().num_parameters
        25557032
    """
    return _make("resnet50", (3, 4, 6, 3), num_classes, input_shape, zero_init_residual, stem, bottleneck=True)


@arguments_of(resnet18)
def resnet101(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNet-101: 3, 4, 23 and 3 bottlenecks (He et al. 2015).

    44,549,160 parameters, 7.801 G multiply-adds at 224x224.

    Example:
        >>> resnet101().num_parameters
        44549160
    """
    return _make("resnet101", (3, 4, 23, 3), num_classes, input_shape, zero_init_residual, stem, bottleneck=True)


@arguments_of(resnet18)
def resnet152(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNet-152: 3, 8, 36 and 3 bottlenecks (He et al. 2015).

    60,192,808 parameters, 11.514 G multiply-adds at 224x224.

    Example:
        >>> resnet152().num_parameters
        60192808
    """
    return _make("resnet152", (3, 8, 36, 3), num_classes, input_shape, zero_init_residual, stem, bottleneck=True)


@arguments_of(resnet18)
def resnext50_32x4d(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNeXt-50 32x4d: bottlenecks of 32 groups, 4 channels each at first (Xie et al. 2017).

    25,028,904 parameters, 4.230 G multiply-adds at 224x224.

    Example:
        >>> resnext50_32x4d().num_parameters
        25028904
    """
    return _make(
        "resnext50_32x4d",
        (3, 4, 6, 3),
        num_classes,
        input_shape,
        zero_init_residual,
        stem,
        bottleneck=True,
        groups=32,
        base_width=4,
    )


@arguments_of(resnet18)
def resnext101_32x8d(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNeXt-101 32x8d: bottlenecks of 32 groups, 8 channels each at first (Xie et al. 2017).

    88,791,336 parameters, 16.414 G multiply-adds at 224x224.

    Example:
        >>> resnext101_32x8d().num_parameters
        88791336
    """
    return _make(
        "resnext101_32x8d",
        (3, 4, 23, 3),
        num_classes,
        input_shape,
        zero_init_residual,
        stem,
        bottleneck=True,
        groups=32,
        base_width=8,
    )


@arguments_of(resnet18)
def resnext101_64x4d(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """ResNeXt-101 64x4d: bottlenecks of 64 groups, 4 channels each at first (Xie et al. 2017).

    83,455,272 parameters, 15.460 G multiply-adds at 224x224.

    Example:
        >>> resnext101_64x4d().num_parameters
        83455272
    """
    return _make(
        "resnext101_64x4d",
        (3, 4, 23, 3),
        num_classes,
        input_shape,
        zero_init_residual,
        stem,
        bottleneck=True,
        groups=64,
        base_width=4,
    )


@arguments_of(resnet18)
def wide_resnet50_2(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """Wide ResNet-50-2: bottlenecks twice as wide inside (Zagoruyko, Komodakis 2016).

    68,883,240 parameters, 11.398 G multiply-adds at 224x224.

    Example:
        >>> wide_resnet50_2().num_parameters
        68883240
    """
    return _make(
        "wide_resnet50_2",
        (3, 4, 6, 3),
        num_classes,
        input_shape,
        zero_init_residual,
        stem,
        bottleneck=True,
        base_width=128,
    )


@arguments_of(resnet18)
def wide_resnet101_2(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    zero_init_residual: bool = False,
    stem: str | None = None,
) -> ResNet:
    """Wide ResNet-101-2: bottlenecks twice as wide inside (Zagoruyko, Komodakis 2016).

    126,886,696 parameters, 22.753 G multiply-adds at 224x224.

    Example:
        >>> wide_resnet101_2().num_parameters
        126886696
    """
    return _make(
        "wide_resnet101_2",
        (3, 4, 23, 3),
        num_classes,
        input_shape,
        zero_init_residual,
        stem,
        bottleneck=True,
        base_width=128,
    )
