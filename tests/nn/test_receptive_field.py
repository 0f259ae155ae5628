"""Receptive fields against the pixels that really have a gradient, in float64."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.nn import functional as F
from pycnn.nn.receptive_field import ReceptiveField


class Dilated(nn.Module):
    """Asymmetric windows, dilation, stride, padding and a cut."""

    def __init__(self):
        self.a = nn.Conv2d(1, 2, (3, 5), stride=(2, 1), padding=(0, 2))
        self.b = nn.Conv2d(2, 2, 3, dilation=2)

    def forward(self, x):
        x = F.pad(self.a(x), before=(0, 1, 0, 0), after=(0, 0, 2, 0))
        return F.slice(self.b(x), begin=(0, 1, 2, 0), size=(-1, -1, -1, -1))


class Uneven(nn.Module):
    """Two branches whose fields lie beside one another."""

    def __init__(self):
        self.left = nn.Conv2d(1, 1, (1, 4), padding=(0, 3))
        self.down = nn.Conv2d(1, 1, (5, 1), padding=(2, 0))

    def forward(self, x):
        width = x.shape[2]
        return F.slice(self.left(x), begin=(0, 0, 0, 0), size=(-1, -1, width, -1)) + self.down(x)


def vgg():
    widths = [(1, 2), (2, 2), None, (2, 3), (3, 3), None, (3, 4), (4, 4), (4, 4)]
    layers = []
    for width in widths:
        layers += [nn.MaxPool2d(2)] if width is None else [nn.Conv2d(*width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 3, 5), nn.ReLU(), nn.AvgPool2d(2)
    )


def resnet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.BasicBlock(4, 4),
        nn.Bottleneck(4, 2, stride=2),
    )


def inception():
    block = nn.Inception(2, branch1=1, reduce3=1, branch3=2, reduce5=1, branch5=1, pool=1)
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), block, nn.Conv2d(5, 2, 3, padding=1))


def even():
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.AdaptiveAvgPool2d((3, 4)))


def seen_box(net, shape, unit):
    """The box of pixels with a gradient for one unit of the last layer, over many images."""
    # Positive weights and pixels: nothing cancels and no ReLU is closed.
    state = {k: np.abs(v) + 0.01 for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    net.load_state_dict(state)
    images = np.random.default_rng(0).random((40, *shape))

    def one_unit(x):
        result = net(x)
        mask = np.zeros((1, *result.shape[1:]))
        mask[0, unit[0], unit[1], :] = 1
        return F.sum(result * mask)

    # Maximum pools hand the gradient to one pixel each: the union over the images is meant.
    touched = (pc.grad(one_unit)(images) != 0).any(axis=(0, 3))
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lenet, (20, 24, 1)),
        (even, (13, 17, 1)),
        (vgg, (28, 32, 1)),
        (resnet, (48, 56, 1)),
        (inception, (27, 25, 1)),
        (Dilated, (24, 17, 1)),
        (Uneven, (9, 11, 1)),
    ],
)
def test_field_is_where_the_gradient_is(make, shape):
    pc.manual_seed(0)
    net = make()
    row = net.summary(shape).rows[-1]
    field = ReceptiveField(row.receptive_field, row.stride, row.offset)
    _, height, width, _ = row.output
    for unit in [(0, 0), (height // 2, width // 2), (height - 1, width - 1)]:
        assert field.box(unit, shape[:2]) == seen_box(net, shape, unit), unit


def test_numbers_that_everybody_knows():
    """Conv5 of VGG-16 sees 196 pixels, its last pool 212; layer4 of ResNet-50 sees 427 (Araujo et al. 2019, table)."""
    layers, channels = [], 1
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, 1, 3, padding=1))
        layers.append(nn.MaxPool2d(2))
        channels = 1
    rows = nn.Sequential(*layers).summary((64, 64, 1)).rows
    assert (rows[-2].receptive_field, rows[-1].receptive_field) == ((196, 196), (212, 212))
    assert rows[-1].stride == (32, 32)
    blocks, channels = [nn.Conv2d(1, 4, 7, stride=2, padding=3), nn.MaxPool2d(3, stride=2, padding=1)], 4
    for stage, count in enumerate((3, 4, 6, 3)):
        for index in range(count):
            blocks.append(nn.Bottleneck(channels, 1, stride=2 if stage and not index else 1))
            channels = 4
    # torchvision's blocks stride in the 3x3, which makes the field smaller than the 483 of a stride in the first 1x1.
    assert nn.Sequential(*blocks).summary((64, 64, 1)).rows[-1].receptive_field == (427, 427)


def test_a_flattened_map_in_another_order_sees_what_it_saw(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(None, 3)).build((6, 5, 1))
    net.save(tmp_path / "net.safetensors")
    rows = pc.load(tmp_path / "net.safetensors").summary((6, 5, 1)).rows
    assert [row.receptive_field for row in rows] == [(3, 3), (3, 3), (3, 3), None]


def test_what_sees_everything_has_no_field():
    class Gate(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            x = self.conv(x)
            return x * F.reshape(F.global_avg_pool2d(x), shape=(0, 1, 1, 2))

    rows = Gate().summary((8, 8, 1)).rows
    assert rows[0].receptive_field == (3, 3)
    assert rows[-1].receptive_field is None


def test_box_of_a_unit_that_is_not_there_is_refused():
    with pytest.raises(pc.ArgumentError, match="unit"):
        ReceptiveField((3, 3), (1, 1), (-1, -1)).box((20, 0), (8, 8))
