"""Modules: registration, naming, copying, freezing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.nn import functional as F


class Net(nn.Module):
    """A net of mixed parts, without super().__init__()."""

    def __init__(self):
        self.stem = nn.Conv2d(1, 4, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)])
        self.head = nn.Linear(out_features=3)
        self.scale = nn.Parameter((1,), init=pc.tensor.Initializer("constant", 2.0))

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(F.global_avg_pool2d(x)) * self.scale


def image(n=2, size=8, channels=1, seed=0):
    return np.random.default_rng(seed).random((n, size, size, channels), np.float32)


def test_parameters_are_named_by_the_path_to_them():
    net = Net().build((8, 8, 1))
    assert [name for name, _ in net.named_parameters()] == [
        "scale",
        "stem.weight",
        "stem.bias",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.weight",
        "blocks.1.bias",
        "head.weight",
        "head.bias",
    ]
    assert [name for name, _ in net.named_buffers()] == [
        "blocks.1.running_mean",
        "blocks.1.running_var",
    ]


def test_ops_are_named_by_the_module_that_records_them():
    net = Net()
    program = pc.compile(net, shape=(1, 8, 8, 1))
    names = {node["name"] for node in program.traced.graph.nodes() if node["kind"] == "op"}
    assert {"stem", "blocks.0", "blocks.1", "head"} <= names


def test_module_used_twice_shares_its_parameters():
    class Twice(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(2, 2, 1)
            self.again = self.conv

        def forward(self, x):
            return self.again(self.conv(x))

    net = Twice()
    assert net.num_parameters == 6
    x = image(channels=2)
    assert np.array_equal(net(x), net.conv(net.conv(x)))


def test_plain_list_of_layers_is_refused():
    class Bad(nn.Module):
        def __init__(self):
            self.layers = [nn.ReLU(), nn.ReLU()]

    with pytest.raises(pc.ArgumentError, match=r"Bad.layers.*plain list"):
        Bad()


def test_child_named_like_a_method_is_refused_but_features_is_not():
    class Bad(nn.Module):
        def __init__(self):
            self.predict = nn.ReLU()

    with pytest.raises(pc.ArgumentError, match="predict.*method"):
        Bad()

    class Published(nn.Module):
        def __init__(self):
            self.features = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return F.relu(self.features(x))

    net = Published()
    assert net(image()).shape == (2, 6, 6, 2)
    assert nn.features(net, image(), "features").shape == (2, 6, 6, 2)
    with pytest.raises(pc.ArgumentError, match=r"nn\.features"):
        net.features(image(), layer="features")


def test_layer_created_in_forward_is_refused():
    class Bad(nn.Module):
        def forward(self, x):
            return nn.Conv2d(1, 2, 3)(x)

    with pytest.raises(pc.GraphError, match="create it in __init__"):
        Bad()(image())


def test_parameterless_layer_created_in_forward_works():
    class Fine(nn.Module):
        def forward(self, x):
            return nn.ReLU()(x)

    x = image() - 0.5
    assert np.array_equal(Fine()(x), np.maximum(x, 0))


def test_python_branch_on_a_tensor_is_explained():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x > 0 else F.relu(x)

    with pytest.raises(TypeError, match="has no values until the program runs"):
        Branch()(image())


def test_fresh_weights_follow_from_seed_and_name():
    def weights(seed):
        pc.manual_seed(seed)
        try:
            return Net().build((8, 8, 1)).state_dict()
        finally:
            pc.manual_seed(0)

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["stem.weight"], other["stem.weight"])


def test_deepcopy_is_independent():
    net = Net().build((8, 8, 1))
    twin = copy.deepcopy(net)
    x = image()
    before = net(x)
    assert np.array_equal(twin(x), before)
    twin.stem.weight.copy_(np.zeros((4, 1, 3, 3), np.float32))
    assert np.array_equal(net(x), before)
    assert not np.array_equal(twin(x), before)


def test_deepcopy_before_any_value_exists_gives_equal_weights():
    net = Net()
    twin = copy.deepcopy(net)
    assert np.array_equal(net(image()), twin(image()))


def test_pickle_keeps_the_weights():
    net = pc.models.lenet5()
    x = image(size=28)
    expected = net(x)
    assert np.array_equal(pickle.loads(pickle.dumps(net))(x), expected)


def test_freeze_by_pattern_and_back():
    net = Net().build((8, 8, 1))
    assert net.freeze("stem", "head.b*") == ["stem.weight", "stem.bias", "head.bias"]
    assert [n for n, p in net.named_parameters() if not p.trainable] == [
        "stem.weight",
        "stem.bias",
        "head.bias",
    ]
    net.unfreeze()
    assert all(p.trainable for p in net.parameters())


def test_freeze_of_an_unknown_name_names_the_closest():
    net = Net().build((8, 8, 1))
    with pytest.raises(pc.ArgumentError, match=r"'steam'(.|\n)*stem"):
        net.freeze("steam")


def test_num_parameters_counts_frozen_ones_but_no_running_statistics():
    net = Net().build((8, 8, 1))
    expected = 1 + (36 + 4) + (144 + 4) + (4 + 4) + (12 + 3)
    net.freeze()
    assert net.num_parameters == expected


def test_lazy_layer_says_what_to_do():
    with pytest.raises(pc.GraphError, match=r"'head' \(Linear\)(.|\n)*build"):
        Net().num_parameters  # noqa: B018
    assert Net().build((8, 8, 1)).head.in_features == 4


def test_repr_shows_the_tree():
    text = repr(Net().build((8, 8, 1)))
    assert "(stem): Conv2d(1, 4, kernel_size=3, padding=1)" in text
    assert "    (1): BatchNorm2d(4)" in text


def test_get_module_names_the_closest():
    with pytest.raises(pc.ArgumentError, match="'stam'(.|\n)*'stem'"):
        Net().get_module("stam")


def test_nested_net_is_named_below_its_owner():
    class Outer(nn.Module):
        def __init__(self):
            self.inner = Net()
            self.last = nn.Linear(None, 2)

        def forward(self, x):
            return self.last(self.inner(x))

    net = Outer().build((8, 8, 1))
    assert "inner.head.weight" in net.state_dict()
    program = pc.compile(net, shape=(1, 8, 8, 1))
    assert "inner.blocks.0" in {n["name"] for n in program.traced.graph.nodes()}
