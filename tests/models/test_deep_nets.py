"""GoogLeNet, Inception, ResNet: published parameters and multiply-adds, small images, fresh weights, errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from recorded_nodes import maps, nodes_of

import pycnn as pc
from pycnn.models.inception_v3 import InceptionV3

# name: parameters, multiply-adds of one image in billions at three digits.
FACTS = {
    "cifar_resnet20": (269_722, 0.041),
    "cifar_resnet32": (464_154, 0.069),
    "cifar_resnet44": (658_586, 0.097),
    "cifar_resnet56": (853_018, 0.125),
    "cifar_resnet110": (1_727_962, 0.253),
    "googlenet": (13_004_888, 1.498),
    "googlenet_paper": (13_378_280, 1.583),
    "inception_v3": (27_161_264, 5.713),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50_32x4d": (25_028_904, 4.230),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_64x4d": (83_455_272, 15.460),
    "wide_resnet50_2": (68_883_240, 11.398),
    "wide_resnet101_2": (126_886_696, 22.753),
}
# Table 1 of the paper: inputs, filters 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool, side of the maps, and what it says
# for weights (in units of 1,024) and multiply-adds (in millions).
TABLE = {
    "3a": (192, 64, 96, 128, 16, 32, 32, 28, 159, 128),
    "3b": (256, 128, 128, 192, 32, 96, 64, 28, 380, 304),
    "4a": (480, 192, 96, 208, 16, 48, 64, 14, 364, 73),
    "4b": (512, 160, 112, 224, 24, 64, 64, 14, 437, 88),
    "4c": (512, 128, 128, 256, 24, 64, 64, 14, 463, 100),
    "4d": (512, 112, 144, 288, 32, 64, 64, 14, 580, 119),
    "4e": (528, 256, 160, 320, 32, 128, 128, 14, 840, 170),
    "5a": (832, 256, 160, 320, 32, 128, 128, 7, 1072, 54),
    "5b": (832, 384, 192, 384, 48, 128, 128, 7, 1388, 71),
}
RESIDUAL = [name for name in FACTS if "res" in name]


@pytest.mark.parametrize("name", FACTS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    parameters, billions = FACTS[name]
    net = pc.models.create(name)
    assert net.num_parameters == parameters
    macs = sum(node.get("macs", 0) for node in nodes_of(net))
    assert round(macs / 1e9, 3) == billions
    text = inspect.getdoc(getattr(pc.models, name))
    assert f"{parameters:,}" in text
    assert f"{billions:.3f} G" in text


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_small_images_have_a_stem_of_their_own(name):
    net = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3))
    assert net.conv1.weight.disk_shape == (64, 3, 3, 3)
    assert maps(net, "max_pool2d") == []
    assert maps(net, "conv2d")[0] == (32, 32, 64)
    assert maps(net, "conv2d")[-1][:2] == (4, 4)
    large = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3), stem="imagenet")
    assert maps(large, "max_pool2d") == [(8, 8, 64)]
    assert pc.models.create(name, stem="small").conv1.weight.disk_shape == (64, 3, 3, 3)
    assert pc.models.create(name, input_shape=(64, 96, 1)).conv1.weight.disk_shape == (64, 1, 7, 7)


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_nets_start_as_he_proposed_and_blocks_as_the_identity_if_wished(name):
    net = pc.models.create(name, zero_init_residual=True)
    stem = net.conv1.weight
    deviation = np.sqrt(2 / (stem.shape[0] * stem.shape[1] * stem.shape[2]))
    assert stem.numpy().std() == pytest.approx(deviation, rel=0.15)
    last = net.layer3[-1]
    weight = last.conv2.weight
    fan_out = weight.shape[0] * 9
    assert weight.numpy().std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)
    norm = last.bn3 if hasattr(last, "bn3") else last.bn2
    assert (norm.weight.numpy() == 0).all()
    assert (last.bn1.weight.numpy() == 1).all()
    ordinary = pc.models.create(name).layer3[-1]
    assert ((ordinary.bn3 if hasattr(last, "bn3") else ordinary.bn2).weight.numpy() == 1).all()


def test_a_bottleneck_strides_in_its_3x3_convolution():
    nodes = {node["name"]: node for node in nodes_of(pc.models.create("resnet50"))}
    assert nodes["layer2.0.conv1"]["op"].attributes()["stride"] == (1, 1)
    assert nodes["layer2.0.conv2"]["op"].attributes()["stride"] == (2, 2)


def test_cifar_nets_have_no_weights_in_their_shortcuts_unless_asked():
    net = pc.models.create("cifar_resnet20")
    assert not [name for name in net.state_dict() if "downsample" in name]
    assert maps(net, "pad") == [(16, 16, 32), (8, 8, 64)]
    projected = pc.models.create("cifar_resnet20", shortcut="projection")
    assert projected.num_parameters == 269_722 + 16 * 32 + 64 + 32 * 64 + 128
    assert [len(getattr(pc.models.create("cifar_resnet110"), f"layer{i}")) for i in (1, 2, 3)] == [18, 18, 18]


def test_a_pre_activated_net_ends_in_norm_and_relu():
    net = pc.models.create("cifar_resnet20", pre_activation=True, num_classes=7, input_shape=(21, 20, 1))
    assert net.bn1.weight.shape == (64,)
    ops = [(node["name"], node["op"].name) for node in nodes_of(net) if node["kind"] == "op"]
    assert ops[0] == ("conv1", "conv2d")
    assert [op for _, op in ops[-4:]] == ["batch_norm", "activation", "global_avg_pool2d", "dense"]
    assert net(np.zeros((2, 21, 20, 1), np.float32)).shape == (2, 7)


def test_googlenets_modules_have_the_rows_of_the_papers_table():
    net = pc.models.create("googlenet_paper")
    nodes = nodes_of(net)
    for name, (inputs, one, reduce3, three, reduce5, five, pool, side, kilo, million) in TABLE.items():
        module = getattr(net, f"inception{name}")
        weights = sum(p.size for key, p in module.named_parameters() if key.endswith("weight"))
        macs = sum(node["macs"] for node in nodes if node["kind"] == "op" and f"inception{name}." in node["name"])
        assert weights == inputs * (one + reduce3 + reduce5 + pool) + 9 * reduce3 * three + 25 * reduce5 * five
        assert macs == weights * side**2
        # The paper's own sums are off by some percent, most in 4c and 5a.
        assert weights / 1024 == pytest.approx(kilo, rel=0.08), name
        assert macs / 1e6 == pytest.approx(million, rel=0.06), name
    assert maps(net, "concat") == [
        (28, 28, 256), (28, 28, 480), (14, 14, 512), (14, 14, 512), (14, 14, 512), (14, 14, 528), (14, 14, 832),
        (7, 7, 832), (7, 7, 1024),
    ]  # fmt: skip
    assert net.conv1.weight.size == 9408  # the table's 2.7K is a slip
    assert pc.models.create("googlenet_paper", aux_logits=False).num_parameters == 6_998_552
    assert pc.models.create("googlenet", aux_logits=False).num_parameters == 6_624_904


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_both_googlenets_have_two_heads_for_training_with_a_weight_of_three_tenths(name):
    net = pc.models.create(name)
    with pc.nn.collect_auxiliary() as heads:
        nodes_of(net)
    assert [(head.output.shape, head.weight) for head in heads] == [((1, 1000), 0.3), ((1, 1000), 0.3)]
    assert net.aux1.fc1.weight.shape == (1024, 2048)
    assert (net.aux1.dropout.p, net.dropout.p) == (0.7, 0.4 if name == "googlenet_paper" else 0.2)
    assert not [node for node in nodes_of(net) if "aux" in node["name"]]
    other = pc.models.create(name, aux_weight=0.5, num_classes=3, input_shape=(48, 70, 1))
    with pc.nn.collect_auxiliary() as heads:
        nodes_of(other)
    assert [(head.output.shape, head.weight) for head in heads] == [((1, 3), 0.5), ((1, 3), 0.5)]


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_googlenets_for_small_images_keep_their_maps_larger(name):
    net = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3))
    first = net.conv1 if "paper" in name else net.conv1.conv
    assert first.weight.disk_shape == (64, 3, 3, 3)
    assert [shape[:2] for shape in maps(net, "concat")] == [*[(16, 16)] * 2, *[(8, 8)] * 5, *[(4, 4)] * 2]
    smallest = pc.models.create(name, num_classes=10, input_shape=(8, 8, 3))
    assert maps(smallest, "concat")[-1][:2] == (1, 1)


def test_inception_v3_has_the_maps_of_the_paper():
    net = pc.models.create("inception_v3")
    found = maps(net, "concat")
    assert found == [(35, 35, 256), (35, 35, 288), (35, 35, 288), (17, 17, 768), *[(17, 17, 768)] * 4, *found[-3:]]
    assert found[-3:] == [(8, 8, 1280), (8, 8, 2048), (8, 8, 2048)]
    norms = [node["op"] for node in nodes_of(net) if node["kind"] == "op" and node["op"].name == "batch_norm"]
    assert len(norms) == 94
    assert {norm.attributes()["eps"] for norm in norms} == {1e-3}


def test_published_inception_weights_can_have_their_input_converted():
    options = {"num_classes": 2, "input_shape": (75, 75, 3), "aux_logits": False, "width": 0.1}
    plain = InceptionV3(**options)
    converting = InceptionV3(**options, transform_input=True)
    converting.load_state_dict(plain.state_dict())
    pixels = np.random.default_rng(0).random((1, 75, 75, 3))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = plain(((pixels - 0.5) / 0.5).astype(np.float32))
    found = converting(((pixels - mean) / std).astype(np.float32))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    with pytest.raises(pc.ArgumentError, match="transform_input needs 3 channels"):
        pc.models.create("inception_v3", input_shape=(299, 299, 1), transform_input=True)


def test_arguments_out_of_range_are_refused_with_their_values():
    for name, options, message in (
        ("resnet18", {"stem": "tiny"}, "resnet18: stem must be 'imagenet' or 'small', got 'tiny'"),
        ("resnet18", {"num_classes": 0}, "resnet18: num_classes must be at least 1, got 0"),
        ("resnet18", {"input_shape": (224, 224)}, r"resnet18: input_shape must be \(H, W, C\)"),
        ("cifar_resnet20", {"shortcut": "none"}, "shortcut must be 'projection' or 'zero_pad', got 'none'"),
        ("cifar_resnet20", {"pre_activation": True, "zero_init_residual": True}, "zero_init_residual needs"),
        ("inception_v3", {"input_shape": (74, 300, 3)}, "at least 75x75"),
        ("inception_v3", {"input_shape": (298, 400, 3)}, "16 pixels a side for the auxiliary head, which needs 17"),
        ("inception_v3", {"aux_weight": -1}, "aux_weight must be"),
        ("googlenet", {"input_shape": (7, 32, 3)}, "googlenet: .* at least 8x8"),
        ("googlenet", {"input_shape": (32, 32, 1), "transform_input": True}, "transform_input needs 3 channels"),
        ("googlenet_paper", {"aux_weight": float("nan")}, "aux_weight must be"),
    ):
        with pytest.raises(pc.ArgumentError, match=message):
            pc.models.create(name, **options)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_fresh_googlenets_favour_no_class_much(name):
    net = pc.models.create(name, num_classes=10, input_shape=(32, 32, 3))
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    assert -np.log(net.predict_proba(images)).mean() < np.log(10) + 0.7
