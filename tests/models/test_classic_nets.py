"""AlexNet to DenseNet: published parameters, multiply-adds and map sizes, small images, fresh weights, errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from recorded_nodes import maps, nodes_of

import pycnn as pc

# name: parameters, multiply-adds of one image in billions at three digits (None: no figure is published).
FACTS = {
    "alexnet": (61_100_840, 0.714),
    "alexnet_2012": (60_965_224, None),
    "alexnet_simplified": (62_378_344, None),
    "zfnet": (62_357_608, None),
    "vgg11": (132_863_336, 7.609),
    "vgg11_bn": (132_868_840, 7.609),
    "vgg11_lrn": (132_863_336, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg13_bn": (133_053_736, 11.308),
    "vgg16": (138_357_544, 15.470),
    "vgg16_bn": (138_365_992, 15.470),
    "vgg16_c": (133_638_952, None),
    "vgg19": (143_667_240, 19.632),
    "vgg19_bn": (143_678_248, 19.632),
    "squeezenet1_0": (1_248_424, 0.819),
    "squeezenet1_1": (1_235_496, 0.349),
    "mobilenet_v2": (3_504_872, 0.301),
    "densenet121": (7_978_856, 2.834),
    "densenet161": (28_681_000, 7.728),
    "densenet169": (14_149_480, 3.360),
    "densenet201": (20_013_928, 4.291),
}
SMALL = ("alexnet", "alexnet_2012", "alexnet_simplified", "zfnet", "vgg11", "vgg16_bn", "squeezenet1_0")
SMALL += ("squeezenet1_1", "mobilenet_v2", "densenet121")


@pytest.mark.parametrize("name", FACTS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    parameters, billions = FACTS[name]
    net = pc.models.create(name)
    assert net.num_parameters == parameters
    macs = sum(node.get("macs", 0) for node in nodes_of(net))
    if billions is not None:
        assert round(macs / 1e9, 3) == billions
    assert f"{parameters:,}" in inspect.getdoc(getattr(pc.models, name))


def test_simplified_alexnet_has_the_sizes_of_the_slide():
    net = pc.models.create("alexnet_simplified")
    assert maps(net, "conv2d") == [(55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256)]
    assert maps(net, "max_pool2d") == [(27, 27, 96), (13, 13, 256), (6, 6, 256)]
    assert maps(net, "local_response_norm") == [(27, 27, 96), (13, 13, 256)]
    assert [name for name, _ in net.named_children()][:4] == ["conv1", "relu1", "pool1", "norm1"]


def test_alexnet_of_2012_normalises_before_it_pools_and_groups_three_convolutions():
    net = pc.models.create("alexnet_2012")
    assert maps(net, "local_response_norm") == [(55, 55, 96), (27, 27, 256)]
    groups = {name: layer.groups for name, layer in net.named_children() if name.startswith("conv")}
    assert groups == {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
    norm = net.norm1
    assert (norm.size, norm.alpha / norm.size, norm.beta, norm.k) == (5, 1e-4, 0.75, 2.0)


def test_zfnet_has_the_sizes_of_the_paper():
    net = pc.models.create("zfnet")
    assert [size[0] for size in maps(net, "conv2d")] == [110, 26, 13, 13, 13]
    assert [size[0] for size in maps(net, "max_pool2d")] == [55, 13, 6]


def test_vgg16_has_the_parameters_and_maps_of_the_slide():
    net = pc.models.create("vgg16")
    weights = [p.size for name, p in net.named_parameters() if name.endswith("weight")]
    assert weights[:4] == [1_728, 36_864, 73_728, 147_456]
    assert weights[-3:] == [102_760_448, 16_777_216, 4_096_000]
    assert maps(net, "max_pool2d") == [(112, 112, 64), (56, 56, 128), (28, 28, 256), (14, 14, 512), (7, 7, 512)]
    # The pool to 7x7 has nothing to do at 224 pixels.
    pools = [
        node["bytes"] for node in nodes_of(net) if node["kind"] == "op" and node["op"].name == "adaptive_avg_pool2d"
    ]
    assert pools == [0]


def test_only_the_first_convolution_of_a_lrn_is_followed_by_normalisation():
    assert maps(pc.models.create("vgg11_lrn"), "local_response_norm") == [(224, 224, 64)]


def test_configuration_c_has_three_1x1_convolutions():
    net = pc.models.create("vgg16_c")
    assert [layer.kernel_size for layer in net.features if hasattr(layer, "groups")].count((1, 1)) == 3


@pytest.mark.parametrize("name", SMALL)
def test_small_images_have_their_own_variant(name):
    """Of all families: it builds for CIFAR's and digits' images, is no giant, and its maps do not vanish early."""
    net = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3))
    assert net.input_shape == (32, 32, 3)
    assert net.num_parameters < 25_000_000
    assert maps(net, "conv2d")[0][0] == 32
    assert np.asarray(maps(net, "conv2d"))[:, 0].min() >= 1
    grey = pc.models.create(name, num_classes=3, input_shape=(33, 40, 1))
    assert next(grey.parameters()).disk_shape[1] == 1
    assert not maps(net, "adaptive_avg_pool2d")


def test_documented_sizes_for_cifar():
    for name in ("alexnet", "vgg11", "vgg13", "vgg16", "vgg19"):
        net = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3))
        assert f"{net.num_parameters:,} parameters" in " ".join(inspect.getdoc(getattr(pc.models, name)).split())


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "squeezenet1_1", "mobilenet_v2", "densenet121"])
def test_weights_for_large_images_take_any_size(name):
    net = pc.models.create(name, num_classes=7)
    assert tuple(nodes_of(net, (97, 130, 3))[-1]["outputs"][0][0]) == (1, 7)


def test_width_of_mobilenet_is_free():
    parameters = [pc.models.create("mobilenet_v2", width_mult=width).num_parameters for width in (0.5, 1.4)]
    assert parameters == [1_968_680, 6_108_776]


def test_units_and_groups_are_free():
    assert pc.models.create("alexnet", hidden=17).classifier[4].out_features == 17
    assert pc.models.create("alexnet_2012", groups=1).num_parameters == 62_378_344
    assert pc.models.create("zfnet", hidden=9, input_shape=(96, 128, 1)).fc6.in_features == 256 * 2 * 3


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("vgg16", {"input_shape": (28, 28, 1)}, r"vgg16: input_shape \(28, 28, 1\) is too small.* at least 32x32"),
        ("alexnet", {"input_shape": (16, 64, 3)}, "at least 24x24"),
        ("zfnet", {"input_shape": (8, 8, 3)}, "zfnet"),
        ("squeezenet1_1", {"input_shape": (16, 16, 3)}, "at least 17x17"),
        ("densenet121", {"input_shape": (7, 7, 3)}, "at least 8x8"),
        ("mobilenet_v2", {"input_shape": (224, 224)}, r"\(H, W, C\), got \(224, 224\)"),
        ("mobilenet_v2", {"input_shape": (224, 224, 0)}, "at least 1, got 0"),
        ("mobilenet_v2", {"width_mult": 0}, "width_mult"),
        ("vgg11", {"num_classes": 0}, "vgg11: num_classes must be at least 1, got 0"),
        ("vgg11", {"dropout": 1.0}, "p must be"),
        ("vgg11", {"hidden": 2.5}, "vgg11: hidden must be an integer, got 2.5"),
        ("alexnet_2012", {"groups": 3}, "groups must divide 32, got 3"),
        ("densenet121", {"groups": 3}, "no option 'groups'"),
    ],
)
def test_errors_name_net_argument_and_value(name, options, text):
    with pytest.raises(pc.ArgumentError, match=text):
        pc.models.create(name, **options)


SMALLEST = {"alexnet": 24, "alexnet_2012": 24, "zfnet": 24, "vgg11": 32, "squeezenet1_0": 17, "squeezenet1_1": 17}
SMALLEST |= {"densenet121": 8, "mobilenet_v2": 1}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_images_work_and_so_do_the_first_large_ones(name):
    for side in (SMALLEST[name], 63, 64, 66, 67):
        assert pc.models.create(name, input_shape=(side, side, 2), num_classes=2).input_shape == (side, side, 2)


def test_fresh_weights_follow_the_papers():
    def spread(net, name):
        values = net.get_module(name.rpartition(".")[0]).state_dict()[name.rpartition(".")[2]]
        return values.mean(), values.std()

    pc.manual_seed(0)
    net = pc.models.create("alexnet_2012", hidden=64, num_classes=10)
    for name in ("conv1.weight", "conv4.weight", "fc7.weight"):
        mean, std = spread(net, name)
        assert abs(mean) < 5e-4
        assert std == pytest.approx(0.01, rel=0.05)
    biases = {f"conv{i}": float(i in (2, 4, 5)) for i in range(1, 6)} | {"fc6": 1.0, "fc7": 1.0, "fc8": 0.0}
    for name, value in biases.items():
        assert (net.get_module(name).bias.numpy() == value).all(), name
    net = pc.models.create("vgg11", hidden=64)
    assert spread(net, "features.3.weight")[1] == pytest.approx(np.sqrt(2 / (128 * 9)), rel=0.02)
    assert spread(net, "classifier.3.weight")[1] == pytest.approx(0.01, rel=0.05)
    assert not net.features[0].bias.numpy().any()
    net = pc.models.create("squeezenet1_1")
    assert spread(net, "features.12.expand3x3.weight")[1] == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    assert spread(net, "classifier.1.weight")[1] == pytest.approx(0.01, rel=0.02)
    net = pc.models.create("mobilenet_v2")
    assert spread(net, "features.18.0.weight")[1] == pytest.approx(np.sqrt(2 / 1280), rel=0.02)
    net = pc.models.create("densenet121")
    assert spread(net, "features.transition3.conv.weight")[1] == pytest.approx(np.sqrt(2 / 1024), rel=0.02)
