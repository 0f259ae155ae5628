"""The families in PyTorch, written again from the papers for comparison. Weights are named as ours and torchvision's.

Widths and depths are small, and free where the package's are.
"""

from __future__ import annotations

import torch
from torch import nn


class Flat(nn.Module):
    """Modules called one after the other, then flattened rows through a classifier."""

    def __init__(self, features, classifier, pool=None):
        super().__init__()
        self.features, self.classifier = features, classifier
        self.pool = pool or nn.Identity()

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


def head(inputs, units, classes, drop_first):
    layers = [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(0.0), nn.Linear(units, units), nn.ReLU()]
    if drop_first:
        return nn.Sequential(nn.Dropout(0.0), *layers, nn.Linear(units, classes))
    return nn.Sequential(*layers, nn.Dropout(0.0), nn.Linear(units, classes))


def alexnet(classes, units):
    widths, windows = (64, 192, 384, 256, 256), (11, 5, 3, 3, 3)
    layers, channels = [], 3
    for i, (width, window) in enumerate(zip(widths, windows)):
        layers += [nn.Conv2d(channels, width, window, stride=4 if i == 0 else 1, padding=2 if i < 2 else 1), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if i in (0, 1, 4) else []
        channels = width
    return Flat(nn.Sequential(*layers), head(256 * 36, units, classes, True), nn.AdaptiveAvgPool2d(6))


class LRN(nn.Module):
    """The paper's formula: alpha times the plain sum over five neighbours."""

    def forward(self, x):
        squares = nn.functional.pad(x * x, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        return x / (2 + 1e-4 * total) ** 0.75


class AlexNet2012(nn.Module):
    """conv1 to fc8; pool_first is the order of the slide. Stride, padding and rounding of ZFNet by `zf`."""

    def __init__(self, classes, units, maps, groups=1, pool_first=False, zf=False):
        super().__init__()
        first = {"kernel_size": 7, "stride": 2, "padding": 1} if zf else {"kernel_size": 11, "stride": 4}
        second = {"stride": 2} if zf else {"padding": 2}
        self.conv1 = nn.Conv2d(3, 96, **first)
        self.conv2 = nn.Conv2d(96, 256, 5, groups=groups, **second)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=groups)
        self.fc6, self.fc7, self.fc8 = nn.Linear(maps, units), nn.Linear(units, units), nn.Linear(units, classes)
        self.pool_first, self.pool = pool_first, nn.MaxPool2d(3, 2, ceil_mode=zf)

    def shrink(self, x):
        return LRN()(self.pool(x)) if self.pool_first else self.pool(LRN()(x))

    def forward(self, x):
        x = self.shrink(torch.relu(self.conv1(x)))
        x = self.shrink(torch.relu(self.conv2(x)))
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        x = nn.functional.max_pool2d(torch.relu(self.conv5(x)), 3, 2)
        x = torch.relu(self.fc7(torch.relu(self.fc6(x.flatten(1)))))
        return self.fc8(x)


def vgg(classes, units, stages, *, batch_norm=False, lrn=False, small=False):
    layers, channels = [], 3
    for stage in stages:
        for width, window in stage:
            layers.append(nn.Conv2d(channels, width, window, padding=window // 2))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU())
            layers += [LRN()] if lrn and channels == 3 else []
            channels = width
        layers.append(nn.MaxPool2d(2))
    if small:
        return Flat(nn.Sequential(*layers), head(channels, units, classes, False))
    return Flat(nn.Sequential(*layers), head(channels * 49, units, classes, False), nn.AdaptiveAvgPool2d(7))


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """`first` is the first convolution; pools stand in front of the fire modules with these numbers."""

    def __init__(self, classes, *, first, pools):
        super().__init__()
        layers, channels = [first, nn.ReLU()], first.out_channels
        for i, squeeze in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if i in pools else []
            layers.append(Fire(channels, squeeze, 4 * squeeze))
            channels = 8 * squeeze
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(channels, classes, 1), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


def unit(inputs, outputs, window, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, window, stride, window // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        width = inputs * expansion
        widen = [] if expansion == 1 else [unit(inputs, width, 1)]
        narrow = [nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*widen, unit(width, width, 3, stride, width), *narrow)
        self.same = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


def mobilenet(classes, widths, *, strides=(2, 1, 2, 2, 2, 1, 2, 1)):
    """`widths`: of the first convolution, the seven stages and the last convolution."""
    layers, channels = [unit(3, widths[0], 3, strides[0])], widths[0]
    for i, (count, width) in enumerate(zip((1, 2, 3, 4, 3, 3, 1), widths[1:-1])):
        for number in range(count):
            stride = strides[i + 1] if number == 0 else 1
            layers.append(Inverted(channels, width, stride, 1 if i == 0 else 6))
            channels = width
    layers.append(unit(channels, widths[-1], 1))
    classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(widths[-1], classes))
    return Flat(nn.Sequential(*layers), classifier, nn.AdaptiveAvgPool2d(1))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        new = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


def densenet(classes, *, growth, counts, filters):
    features = nn.Sequential()
    features.add_module("conv0", nn.Conv2d(3, filters, 7, 2, 3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(filters))
    features.add_module("relu0", nn.ReLU())
    features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
    for number, count in enumerate(counts, 1):
        block = nn.Sequential()
        for i in range(count):
            block.add_module(f"denselayer{i + 1}", DenseLayer(filters + i * growth, growth))
        features.add_module(f"denseblock{number}", block)
        filters += count * growth
        if number < len(counts):
            transition = nn.Sequential()
            transition.add_module("norm", nn.BatchNorm2d(filters))
            transition.add_module("relu", nn.ReLU())
            transition.add_module("conv", nn.Conv2d(filters, filters // 2, 1, bias=False))
            transition.add_module("pool", nn.AvgPool2d(2))
            features.add_module(f"transition{number}", transition)
            filters //= 2
    features.add_module("norm5", nn.BatchNorm2d(filters))
    return Flat(features, nn.Linear(filters, classes), nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
