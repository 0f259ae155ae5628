"""Small nets and data sets that tests of transfer learning share."""

from __future__ import annotations

import numpy as np

from pycnn import functional, nn
from pycnn.config import manual_seed
from pycnn.data import ArrayDataset


class TinyNet(nn.Module):
    """Two stages with batch norms, one of them inside of a block of the core, and a classifier."""

    def __init__(self, num_classes: int = 4) -> None:
        self.conv1 = nn.Conv2d(3, 6, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(nn.BasicBlock(6, 6))
        self.layer2 = nn.Sequential(nn.BasicBlock(6, 10, stride=2))
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(10, num_classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))))


class EvenNet(nn.Module):
    """Four convolutions, of which the lower two hold nearly half of the weights."""

    def __init__(self, num_classes: int = 4) -> None:
        self.c1 = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.c2 = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.c3 = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.c4 = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        for layer in (self.c1, self.c2, self.c3, self.c4):
            x = functional.relu(layer(x))
        return self.fc(self.avgpool(x))


def make_tiny_net(seed: int = 0, side: int = 12) -> TinyNet:
    """A net with running statistics that are not the fresh ones."""
    manual_seed(seed)
    net = TinyNet().build((side, side, 3))
    net.state_dict()
    rng = np.random.default_rng(seed)
    for name, buffer in net.named_buffers():
        shift = 0.0 if name.endswith("mean") else 1.0
        buffer.copy_((shift + rng.uniform(0.1, 0.4, buffer.shape)).astype(np.float32))
    for name, parameter in net.named_parameters():
        if len(parameter.shape) == 1:  # away from 0, so that few features are cut off
            parameter.copy_(rng.uniform(0.2, 0.9, parameter.shape).astype(np.float32))
    return net


def bright_spots(n: int = 50, seed: int = 0) -> ArrayDataset:
    """Noise of 6x6 pixels, the brightest of which tells the class, one of three."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 6, 6, 1), np.float32)
    x[np.arange(n), y, y] += 2
    return ArrayDataset(x, y, class_names=["a", "b", "c"])


def coloured_images(count: int = 24, classes: int = 3, side: int = 12, seed: int = 0) -> ArrayDataset:
    """Images whose mean colour tells the class, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 120, (count, side, side, 3))
    images[np.arange(count), :, :, labels % 3] += 100
    return ArrayDataset(images.astype(np.uint8), labels, [f"class {i}" for i in range(classes)])
