"""The cut net: same values as inside of the whole, nothing behind the cut, usable as any module."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_nets import make_tiny_net
from tolerances import assert_within, sum_bound

import pycnn as pc
from pycnn.errors import ArgumentError, GraphError, ShapeError
from pycnn.transfer import Classifier, Encoder, depth_groups, stage_layers, top_layer
from pycnn.transfer.encoder import unit_rows

IMAGES = np.random.default_rng(3).random((3, 12, 15, 3), dtype=np.float32)


def close(found, expected, length=600):
    assert_within(found, expected, sum_bound(np.abs(expected).max(), length))


def test_taps_are_the_pooled_maps_of_the_whole_net(tiny_net):
    first, second = (tiny_net.features(IMAGES, layer=name).astype(np.float64) for name in ("layer1", "layer2"))
    encoder = Encoder(tiny_net, ["layer2", "conv1", "layer1"], pool={"layer1": "max", "conv1": "flatten"})
    found = encoder(IMAGES)
    assert list(found) == ["layer2", "conv1", "layer1"]
    close(found["layer2"], second.mean(axis=(1, 2)))
    close(found["layer1"], first.max(axis=(1, 2)))
    # C order: rows, in them columns, in them channels.
    close(found["conv1"], tiny_net.features(IMAGES, layer="conv1").reshape(3, -1))


def test_normalised_features_have_norm_one_and_zeros_stay_zero(tiny_net):
    plain = Encoder(tiny_net, "layer2")(IMAGES)["layer2"].astype(np.float64)
    normalised = Encoder(tiny_net, "layer2", normalize=True)(IMAGES)["layer2"]
    close(normalised, plain / np.linalg.norm(plain, axis=1, keepdims=True))
    tiny_net.layer2.get_module("0").bn2.weight.copy_(np.zeros(10, np.float32))
    tiny_net.layer1.get_module("0").bn2.weight.copy_(np.zeros(6, np.float32))
    tiny_net.bn1.weight.copy_(np.zeros(6, np.float32))
    tiny_net.bn1.bias.copy_(np.full(6, -1, np.float32))
    tiny_net.layer1.get_module("0").bn2.bias.copy_(np.zeros(6, np.float32))
    tiny_net.layer2.get_module("0").bn2.bias.copy_(np.full(10, -9, np.float32))
    dark = Encoder(tiny_net, "layer2", normalize=True)(np.zeros((1, 12, 12, 3), np.float32))["layer2"]
    assert np.array_equal(dark, np.zeros((1, 10)))


def test_normalising_has_the_right_gradient_and_takes_linear_time(tiny_net):
    """A window over all channels would make the work quadratic: 48 s for one map of 64 x 64 x 32."""
    pc.testing.check_gradients(unit_rows, np.random.default_rng(1).normal(0.3, 1.0, (3, 7)))
    images = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    encoders = [Encoder(tiny_net, "conv1", pool="flatten", normalize=n) for n in (False, True)]
    windows = [
        v for v in pc.compile(encoders[1], images.shape).graph_text().split() if "size=" in v and "kernel" not in v
    ]
    assert windows == ["{size=1,"]
    plain, found = (encoder(images)["conv1"].astype(np.float64) for encoder in encoders)
    assert plain.shape == (1, 64 * 64 * 6)
    close(found, plain / np.linalg.norm(plain), length=plain.size)


def test_nothing_behind_the_last_tap_is_computed_or_kept(tiny_net, tmp_path):
    encoder = Encoder(tiny_net, "layer1")
    text = pc.compile(encoder, (1, 12, 12, 3)).graph_text()
    assert "layer1.0.conv2" in text
    assert "layer2" not in text
    assert "fc" not in text
    encoder.save(tmp_path / "encoder.safetensors")
    names = {name for name, _ in pc.load(tmp_path / "encoder.safetensors").named_tensors()}
    assert names == {f"net.{n}" for n, _ in tiny_net.named_tensors() if n.startswith(("conv1", "bn1", "layer1"))}


def test_a_cut_net_counts_what_it_computes_with(tiny_net, tmp_path):
    sizes = {name: p.size for name, p in tiny_net.named_tensors() if not p.is_buffer}
    fixed = sum(p.size for name, p in tiny_net.named_buffers() if name.startswith(("bn1", "layer1")))
    front = sum(size for name, size in sizes.items() if name.startswith(("conv1", "bn1", "layer1")))
    encoder = Encoder(tiny_net, "layer1")
    assert encoder.num_parameters == front < sum(sizes.values())
    classifier = Classifier(encoder, pc.nn.Linear(6, 5)).build((12, 12, 3))
    assert classifier.num_parameters == front + 35
    summary = pc.nn.Sequential(classifier, pc.nn.ReLU()).summary(input_shape=(12, 12, 3))
    assert (summary.parameters, summary.buffers) == (front + 35, fixed)
    assert sum(row.parameters for row in summary.rows) == front + 35
    classifier.save(tmp_path / "net.safetensors")
    assert pc.load(tmp_path / "net.safetensors").num_parameters == front + 35

    class Both(pc.nn.Module):
        def __init__(self):
            self.first, self.second, self.whole = encoder, Encoder(tiny_net, "conv1"), tiny_net

    assert Both().num_parameters == sum(sizes.values())
    # Without a size nothing can be recorded.
    encoder.input_shape = None
    assert encoder.num_parameters == sum(sizes.values())


def test_uint8_normalization_and_other_sizes_go_through(tiny_net):
    tiny_net.normalization = pc.nn.Normalize(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 12, 3), dtype=np.uint8)
    expected = tiny_net.features(pixels, layer="layer1").astype(np.float64).mean(axis=(1, 2))
    close(Encoder(tiny_net, "layer1")(pixels)["layer1"], expected)


def test_weights_are_shared_with_the_net(tiny_net):
    encoder = Encoder(tiny_net, "conv1")
    before = encoder(IMAGES)["conv1"]
    tiny_net.conv1.weight.copy_(2 * tiny_net.conv1.weight.numpy())
    close(encoder(IMAGES)["conv1"], 2 * before)


def test_classifier_is_an_ordinary_net(tiny_net, tmp_path):
    encoder = Encoder(tiny_net, ["layer1", "layer2"], normalize=True)
    net = Classifier(encoder, pc.nn.Linear(16, 5))
    joined = np.concatenate(list(encoder(IMAGES).values()), axis=1)
    state = net.state_dict()
    close(net(IMAGES), joined @ state["head.weight"].T + state["head.bias"])
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    assert np.array_equal(loaded(IMAGES), net(IMAGES))
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1))
    first = trainer.step(IMAGES, np.array([0, 1, 2]))["loss"]
    assert min(trainer.step(IMAGES, np.array([0, 1, 2]))["loss"] for _ in range(5)) < first


def test_a_net_from_a_file_is_cut_by_the_names_of_its_parts(tiny_net, tmp_path):
    tiny_net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    expected = Encoder(tiny_net, ["layer1", "layer2"])(IMAGES)
    found = Encoder(loaded, ["layer1", "layer2"])(IMAGES)
    for name in expected:
        close(found[name], expected[name])
    assert [group[0] for group in depth_groups(loaded)] == [group[0] for group in depth_groups(tiny_net)]


def test_arrays_inside_of_a_net_do_not_meet_those_of_another():
    class Shifted(pc.nn.Module):
        def __init__(self):
            self.conv = pc.nn.Conv2d(3, 4, kernel_size=3)
            self.head = pc.nn.Linear(4, 2)

        def forward(self, x):
            return self.head(pc.functional.global_avg_pool2d(self.conv(x) + np.ones(4, np.float32)))

    class Two(pc.nn.Module):
        def __init__(self):
            self.a, self.b = (Encoder(Shifted().build((8, 8, 3)), "conv") for _ in range(2))
            self.c = Encoder(Shifted().build((8, 8, 3)), "add")

        def forward(self, x):
            parts = [next(iter(e(x).values())) for e in (self.a, self.b, self.c)]
            return pc.functional.concat(parts) * np.full(12, 3.0, np.float32)

    assert Two()(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 12)


class WithHead(pc.nn.Module):
    """A net with a head for training only."""

    def __init__(self):
        self.conv1 = pc.nn.Conv2d(3, 4, kernel_size=3)
        self.aux = pc.nn.Linear(4, 3)
        self.conv2 = pc.nn.Conv2d(4, 5, kernel_size=3)
        self.fc = pc.nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv1(x)
        pc.nn.auxiliary(self.aux, pc.functional.global_avg_pool2d(x), weight=0.3)
        return self.fc(pc.functional.global_avg_pool2d(self.conv2(x)))


def test_heads_for_training_stay_behind():
    net = WithHead().build((8, 8, 3))
    classifier = Classifier(Encoder(net, "conv2"), pc.nn.Linear(5, 3))
    before = net.state_dict()
    pc.Trainer(classifier, optimizer=pc.optim.SGD(lr=0.1)).step(
        np.ascontiguousarray(IMAGES[:, :8, :8]), np.array([0, 1, 2])
    )
    after = net.state_dict()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}


@pytest.mark.parametrize(
    ("name", "stages", "top"),
    [
        ("cifar_resnet20", ("layer1", "layer2", "layer3"), "layer3"),
        ("resnet18", ("relu", "layer1", "layer2", "layer3", "layer4"), "layer4"),
        ("alexnet", ("features.1", "features.4", "features.11", "avgpool", "classifier.5"), "classifier.5"),
        ("squeezenet1_1", ("features.1", "features.4", "features.7", "features"), "features"),
    ],
)
def test_stages_and_top_of_known_nets(name, stages, top):
    net = pc.models.create(name)
    assert stage_layers(net) == stages
    assert top_layer(net) == top


def test_depth_groups_hold_every_parameter_once_from_the_head_down():
    for name, first in (("cifar_resnet20", "conv1.weight"), ("vgg16_bn", "features.0.weight"), ("googlenet", None)):
        net = pc.models.create(name)
        groups = depth_groups(net)
        flat = [parameter for group in groups for parameter in group]
        assert sorted(flat) == sorted(n for n, _ in net.named_parameters())
        assert set(pc.nn.heads.head_names(net)) <= set(groups[0])
        assert first is None or first in groups[-1]
    # Scales of norms go with the convolution in front of them.
    vgg = depth_groups(pc.models.create("vgg16_bn"))
    assert vgg[-1] == ("features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias")


def test_mistakes_are_named(tiny_net):
    with pytest.raises(ArgumentError, match=r"no layer is called 'layer3'\n  hint: there is 'layer2'"):
        Encoder(tiny_net, "layer3")
    with pytest.raises(ArgumentError, match="'conv1' is named twice"):
        Encoder(tiny_net, ["conv1", "conv1"])
    with pytest.raises(ArgumentError, match="layers must be a name or several, got 5"):
        Encoder(tiny_net, 5)
    with pytest.raises(ArgumentError, match="layers must be a name or several, got 5"):
        Encoder(tiny_net, 5)
    with pytest.raises(ArgumentError, match="no layer is named"):
        Encoder(tiny_net, [])
    with pytest.raises(ArgumentError, match="average, max, flatten, got 'mean'"):
        Encoder(tiny_net, "conv1", pool="mean")
    with pytest.raises(ArgumentError, match="pool names 'conv2', which is none of the layers conv1"):
        Encoder(tiny_net, "conv1", pool={"conv2": "max"})
    with pytest.raises(ShapeError, match="the head takes 7 features, the encoder gives 10 from layer2"):
        Classifier(Encoder(tiny_net, "layer2"), pc.nn.Linear(7, 2))(IMAGES)
    with pytest.raises(ShapeError):
        Encoder(pc.models.create("alexnet"), "features.11")(np.zeros((1, 20, 20, 3), np.float32))
    with pytest.raises(GraphError, match="no dense layer or convolution gives the scores"):
        top_layer(pc.nn.Sequential(pc.nn.GlobalAvgPool2d()), (8, 8, 3))


def test_frozen_statistics_are_used_and_kept_in_training(tmp_path):
    for from_file in (False, True):
        net = make_tiny_net()
        if from_file:
            net.save(tmp_path / "net.safetensors")
            net = pc.load(tmp_path / "net.safetensors")
        names = net.freeze_statistics("bn1", "layer1")
        assert len(names) == 6
        before = net.state_dict()
        x, y = IMAGES, np.array([0, 1, 3])
        pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1)).step(x, y)
        after = net.state_dict()
        for name, buffer in net.named_buffers():
            assert np.array_equal(before[name], after[name]) == buffer.frozen, name
        # With all of them frozen the loss in training is that of prediction.
        net.freeze_statistics()
        trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1))
        expected = trainer.evaluate((x, y))["loss"]
        close(trainer.step(x, y)["loss"], expected)
        net.unfreeze_statistics("layer1")
        assert not net.get_module("layer1.0.bn1").running_mean.frozen


def test_frozen_statistics_are_no_part_of_the_file(tiny_net, tmp_path):
    tiny_net.freeze_statistics()
    tiny_net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    before = loaded.state_dict()["bn1.running_mean"]
    pc.Trainer(loaded).step(IMAGES, np.array([0, 1, 3]))
    assert not np.array_equal(before, loaded.state_dict()["bn1.running_mean"])


def test_frozen_statistics_need_a_name_that_is_there(tiny_net):
    with pytest.raises(ArgumentError, match=r"freeze_statistics: no parameter or module is called 'layer9"):
        tiny_net.freeze_statistics("layer9")


def test_a_classifier_can_be_looked_into():
    net = pc.nn.Sequential(pc.nn.Conv2d(3, 4, 3), pc.nn.ReLU(), pc.nn.Conv2d(4, 5, 3), pc.nn.GlobalAvgPool2d())
    net.build((9, 8, 3))
    joined = pc.transfer.Classifier(pc.transfer.Encoder(net, ["0", "2"]), pc.nn.Linear(9, 3))
    images = np.random.default_rng(0).random((2, 9, 8, 3), np.float32)
    joined(images)
    # The cut net's calls belong to a recording of their own.
    assert not {"0", "1", "2", "3"} & set(pc.inspect.layer_names(joined, images.shape[1:]))
    assert pc.inspect.saliency(joined, images).shape[:3] == images.shape[:3]
