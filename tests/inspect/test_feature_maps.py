"""Feature maps and receptive fields by name."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import inspect, nn
from pycnn.nn import functional as F


@pytest.fixture(scope="module")
def net():
    pc.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BasicBlock(4, 6, stride=2), nn.Flatten(), nn.Linear(None, 5)
    )
    net.build((9, 8, 3))
    return net


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((5, 9, 8, 3), np.float32)


def test_values_are_those_of_the_layers_in_one_pass(net, images):
    found = inspect.activations(net, images, ["2", "0", "4"])
    assert list(found) == ["2", "0", "4"]
    for name, values in found.items():
        tolerances.assert_bits(values, net.features(images, layer=name), name)
    # Ops inside of a block have names too.
    inner = inspect.activations(net, images, ["2.conv1", "2.bn1", "2.relu1"])
    tolerances.assert_exact(inner["2.relu1"], np.maximum(inner["2.bn1"], 0))
    assert inner["2.conv1"].shape == (5, 5, 4, 6)


def test_result_does_not_depend_on_the_batch_size(net, images):
    whole, pieces = (inspect.activations(net, images, ["2"], batch_size=size)["2"] for size in (32, 2))
    tolerances.assert_bits(whole, pieces)


def test_every_feature_map_is_shown_when_none_is_named(net, images):
    found = inspect.activations(net, images)
    assert set(found) >= {"0", "1", "2", "2.conv1", "2.add"}
    assert all(values.ndim == 4 for values in found.values())
    assert set(found) <= set(inspect.layer_names(net))


def test_a_saved_net_has_the_same_maps(net, images, tmp_path):
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    for name in ("0", "2.conv2", "4"):
        expected = inspect.activations(net, images, [name])[name]
        tolerances.assert_bits(inspect.activations(loaded, images, [name])[name], expected, name)


def test_ops_of_forward_are_named_as_in_the_summary():
    lenet = pc.models.lenet5()
    names = [row.layer for row in lenet.summary().rows]
    x = np.ones((1, 28, 28, 1), np.uint8)
    found = inspect.activations(lenet, x, names)
    tolerances.assert_bits(found["fc3"], lenet(x))
    assert found["activation_1"].shape == (1, 10, 10, 16)


def test_unknown_layers_are_refused_with_near_names(net, images):
    with pytest.raises(pc.ArgumentError, match=r"'2.conv3'.*\n.*'2.conv"):
        inspect.activations(net, images, ["2.conv3"])
    with pytest.raises(pc.ArgumentError, match="list of names"):
        inspect.activations(net, images, "0")
    with pytest.raises(pc.ArgumentError, match="batch_size"):
        inspect.activations(net, images, ["0"], batch_size=0)
    with pytest.raises(pc.ShapeError, match="transpose"):
        inspect.activations(net, np.ascontiguousarray(images.transpose(0, 3, 1, 2)), ["0"])


def test_a_layer_that_is_called_twice_has_no_single_value():
    class Twice(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return F.relu(self.conv(self.conv(x)))

    x = np.ones((1, 4, 4, 1), np.float32)
    with pytest.raises(pc.ArgumentError, match="called 2 times"):
        inspect.activations(Twice(), x, ["conv"])
    assert "conv" not in inspect.activations(Twice(), x)


def test_receptive_field_of_a_layer(net):
    field = inspect.receptive_field(net, "2.conv2")
    assert (field.size, field.stride, field.offset) == ((9, 9), (2, 2), (-4, -4))
    assert field.box((1, 1), (9, 8)) == (0, 0, 7, 7)
    assert inspect.receptive_field(net, "4") is None
    with pytest.raises(pc.ArgumentError, match="no layer"):
        inspect.receptive_field(net, "5")
