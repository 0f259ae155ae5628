"""Fine-tuning: what is frozen stays, costs no backward pass, and nothing of it is stored."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_nets import EvenNet, coloured_images, make_tiny_net

import pycnn as pc
from pycnn.errors import ArgumentError, ShapeError
from pycnn.nn.files import save
from pycnn.transfer import Classifier, Encoder, depth_groups, finetune, fresh_head
from pycnn.transfer.tuning import chosen_groups

DATA = coloured_images(24)


def tune(net, part, **options):
    settings = {"epochs": 3, "head_epochs": 1, "batch_size": 8, **options}
    return finetune(net, DATA, part=part, **settings)


@pytest.mark.parametrize(
    ("part", "learning"),
    [
        ("head", ("fc",)),
        ("few", ("fc", "layer2")),
        ("more", ("fc", "layer2", "layer1", "conv1", "bn1")),
        (2, ("fc", "layer2")),
        (["layer1.*", "conv1"], ("fc", "layer1", "conv1")),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_only_what_shall_learn_changes(part, learning, from_file, tmp_path):
    net = make_tiny_net()
    if from_file:
        net.save(tmp_path / "net.safetensors")
        net = pc.load(tmp_path / "net.safetensors")
    before = net.state_dict()
    result = tune(net, part, statistics="train")
    after = net.state_dict()
    for name in before:
        changed = before[name].shape != after[name].shape or not np.array_equal(before[name], after[name])
        assert changed == name.startswith(learning), name
    assert result.trained == tuple(n for n, _ in net.named_parameters() if n.startswith(learning))
    assert set(result.trained) | set(result.frozen) == {n for n, _ in net.named_parameters()}
    assert len(result.history) == 3
    assert result.history["epoch"] == [1, 2, 3]
    assert result.val_accuracy is None


def learning(name, part, **options):
    net = pc.models.create(name, **options)
    if net.input_shape is None:
        net.build((224, 224, 3))
    groups = depth_groups(net)
    return len(chosen_groups(net, groups, part)) - 1, len(groups) - 1


def test_more_is_all_layers_where_the_lower_half_holds_few_weights():
    """A tenth of the weights below the head: ResNet-20 has 5 % in its lower half, GoogLeNet 18 %."""
    assert learning("cifar_resnet20", "more") == (4, 4)
    assert learning("resnet18", "more") == (5, 5)
    assert learning("googlenet", "more", num_classes=3) == (6, 12)
    assert learning("googlenet", "few", num_classes=3) == (3, 12)
    even = EvenNet().build((12, 12, 3))
    result = tune(even, "more")
    assert {name.partition(".")[0] for name in result.trained} == {"fc", "c4", "c3"}
    # The share is of the weights below the head, which starts anew whatever it was.
    wide = EvenNet(num_classes=500).build((12, 12, 3))
    assert len(chosen_groups(wide, depth_groups(wide), "more")) == 3
    # c1 and c2 hold 18 of 180 elements: not less than a tenth, until one is missing.
    for below, count in ((18, 3), (17, 5)):
        sizes = {"fc": 5, "c4": 100, "c3": 180 - 100 - below, "c2": 10, "c1": below - 10}
        net = Sized(sizes)
        assert len(chosen_groups(net, [(name,) for name in sizes], "more")) == count


class Sized:
    """Names and sizes of parameters."""

    def __init__(self, sizes):
        self.sizes = sizes

    def named_parameters(self):
        return [(name, SimpleNamespace(size=size)) for name, size in self.sizes.items()]


@pytest.mark.parametrize("part", ["head", "all", ["encoder.net.layer1"]])
def test_what_lies_behind_a_cut_is_no_part_of_the_training(part):
    net = make_tiny_net()
    net.layer2.get_module("0").bn1.freeze_statistics()
    cut = Classifier(Encoder(net, "layer1"), pc.nn.Linear(6, 3)).build((12, 12, 3))
    behind = {f"encoder.net.{n}": p for n, p in net.named_tensors() if n.startswith(("layer2", "fc"))}
    before = {name: (p.numpy().copy(), p.trainable, p.frozen) for name, p in behind.items()}
    result = tune(cut, part, statistics="train")
    used = {name for name, _ in cut.named_parameters()} - set(behind)
    assert set(result.trained) | set(result.frozen) == used
    assert set(result.trained) == {
        n for n in used if part == "all" or n.startswith("head") or (part != "head" and ".layer1." in n)
    }
    for name, tensor in behind.items():
        values, trainable, frozen = before[name]
        assert np.array_equal(tensor.numpy(), values), name
        assert (tensor.trainable, tensor.frozen) == (trainable, frozen), name
    with pytest.raises(ArgumentError, match="no parameter or module is called 'encoder.net.layer2'"):
        tune(cut, ["encoder.net.layer2"])


def test_small_batches_keep_all_statistics_unless_told_otherwise():
    for size, statistics, kept in ((8, "auto", True), (8, "train", False), (24, "frozen", True)):
        net = make_tiny_net()
        before = net.state_dict()
        tune(net, "all", batch_size=size, statistics=statistics)
        after = net.state_dict()
        for name, _ in net.named_buffers():
            assert np.array_equal(before[name], after[name]) == kept, (size, statistics, name)


def training_program(net, batch=8, side=24):
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1, momentum=0.9))
    x = np.zeros((batch, side, side, 3), np.float32)
    return trainer._training.get(x, np.zeros(batch, np.int64)).program


def test_frozen_layers_have_no_backward_pass_and_store_nothing():
    """The step of a net of which only the head learns: the forward pass, and the head's gradient and update."""
    steps, arenas, state = {}, {}, {}
    for part in ("head", "few", "all"):
        net = make_tiny_net()
        tune(net, part, epochs=1 if part == "head" else 2)
        program = training_program(net)
        text = program.explain()
        names = re.findall(r"^ +\d+  (\S+)  (\S+)", text[text.index("\nrun:") :], re.MULTILINE)
        steps[part], arenas[part] = [f"{name} {op}" for name, op in names], program.memory["arena_bytes"]
        state[part] = sorted(name for name in program.variables if name.startswith("optim."))
    backward = {part: [s for s in names if re.search(r"grad|sgd", s)] for part, names in steps.items()}
    of_layers = {
        part: {s.split()[0].removeprefix("grad.").split(".")[0] for s in names} for part, names in backward.items()
    }
    assert not of_layers["head"] & {"conv1", "bn1", "layer1", "layer2"}
    assert "layer2" in of_layers["few"]
    assert not of_layers["few"] & {"conv1", "bn1", "layer1"}
    assert {"conv1", "layer1", "layer2"} <= of_layers["all"]
    assert len(steps["head"]) < len(steps["few"]) < len(steps["all"])
    assert len(state["head"]) < len(state["few"]) < len(state["all"])
    # No map of a frozen layer is kept for later: little more than prediction needs.
    inference = pc.compile(make_tiny_net(), (8, 24, 24, 3)).memory["arena_bytes"]
    assert inference <= arenas["head"] < arenas["few"] <= 2 * inference
    assert arenas["all"] > 3 * inference


def test_lower_groups_learn_with_lower_rates(monkeypatch):
    made = []
    real = pc.optim.SGD

    def record(**options):
        made.append(options)
        return real(**options)

    monkeypatch.setattr("pycnn.transfer.tuning.SGD", record)
    tune(make_tiny_net(), "all", lr=0.02, lr_decay=0.5)
    head, all_ = made
    assert head["lr"] == all_["lr"] == 0.02
    assert head["groups"] == []
    assert [group.lr_scale for group in all_["groups"]] == [0.5, 0.25, 0.125]
    assert all_["groups"][-1].patterns == ("conv1.weight", "bn1.weight", "bn1.bias")


def test_the_same_seed_gives_the_same_bits_and_learns():
    first, again, other = (tune(make_tiny_net(), "few", seed=seed, lr=0.1, epochs=6) for seed in (4, 4, 5))
    assert first.history.fingerprint == again.history.fingerprint
    assert first.history.fingerprint != other.history.fingerprint
    assert first.history["loss"][-1] < first.history["loss"][0]
    val = coloured_images(12, seed=9)
    assert finetune(make_tiny_net(), DATA, val, epochs=2, head_epochs=1).val_accuracy in np.arange(13) / 12


def test_heads_are_fresh_whatever_they_were(tiny_net):
    old = tiny_net.state_dict()["fc.weight"]
    assert fresh_head(tiny_net, 4, seed=1) == ("fc.weight", "fc.bias")
    first = tiny_net.state_dict()["fc.weight"]
    assert not np.array_equal(old, first)
    assert np.abs(first).max() <= 1 / np.sqrt(10)
    fresh_head(tiny_net, 4, seed=1)
    assert np.array_equal(first, tiny_net.state_dict()["fc.weight"])
    fresh_head(tiny_net, 4, seed=2)
    assert not np.array_equal(first, tiny_net.state_dict()["fc.weight"])
    fresh_head(tiny_net, 7, seed=1)
    assert tiny_net.state_dict()["fc.weight"].shape == (7, 10)
    kept = make_tiny_net()
    images = DATA.images[:8], np.arange(8) % 4
    before = kept.state_dict()["fc.weight"]
    finetune(kept, images, part="head", epochs=1, lr=1e-5, keep_head=True, batch_size=8)
    np.testing.assert_array_equal(before.round(2), kept.state_dict()["fc.weight"].round(2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"part": "most"}, "part must be"),
        ({"part": 9}, "part must be in"),
        ({"part": ["layer9"]}, "no parameter or module"),
        ({"epochs": 2.5}, "epochs must be an integer"),
        ({"head_epochs": 3}, "head_epochs"),
        ({"head_epochs": -1}, "head_epochs"),
        ({"lr": 0.0}, "lr must be"),
        ({"lr_decay": 0}, "lr_decay must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"transform": "mirror"}, "transform is 'mirror'"),
        ({"statistics": "batch"}, "statistics must be"),
        ({"seed": -1}, "seed must be"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_a_refused_call_leaves_the_net_as_it_was(tiny_net, options, text):
    before = tiny_net.state_dict()
    settings = {"part": "all", "epochs": 3, "head_epochs": 1, "batch_size": 8, **options}
    with pytest.raises(ArgumentError, match=text):
        finetune(tiny_net, DATA, **settings)
    assert_unchanged(tiny_net, before)


def assert_unchanged(net, before):
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(parameter.trainable for parameter in net.parameters())


def test_images_that_do_not_fit_leave_the_net_as_it_was(tiny_net):
    before = tiny_net.state_dict()
    grey = np.zeros((6, 12, 12, 1), np.uint8), np.arange(6) % 3
    for train, val in ((grey, None), (DATA, grey)):
        names = DATA.class_names
        parts = [pc.data.ArrayDataset(*p, names) if isinstance(p, tuple) else p for p in (train, val)]
        with pytest.raises(ShapeError):
            finetune(tiny_net, *parts, epochs=2)
        assert_unchanged(tiny_net, before)


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (5, 1), (6, 2)])
def test_the_head_trains_alone_for_a_third_of_the_epochs(epochs, first, monkeypatch):
    fits = []
    monkeypatch.setattr("pycnn.Trainer.fit", lambda trainer, *_, epochs, **__: fits.append(epochs))
    finetune(make_tiny_net(), DATA, epochs=epochs)
    assert fits == [count for count in (first, epochs - first) if count]


def test_statistics_of_batches_that_the_data_cannot_fill_are_kept():
    """24 images make a batch of 24, whatever size is asked for."""
    net = make_tiny_net()
    before = net.state_dict()
    tune(net, "all", batch_size=64, statistics="auto")
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name, _ in net.named_buffers())


def test_a_head_that_is_kept_knows_the_same_classes(tmp_path):
    names = {"class_names": '["a", "b", "c", "d"]'}
    save(make_tiny_net(), tmp_path / "net.safetensors", metadata=names)
    images, labels = DATA.images[:8], np.arange(8) % 4
    options = {"part": "head", "epochs": 1, "keep_head": True}
    for names in (["b", "a", "c", "d"], ["a", "b", "c", "e"]):
        net = pc.load(tmp_path / "net.safetensors")
        with pytest.raises(ArgumentError, match=f"knows the classes a, b, c, d; the data has {', '.join(names)}"):
            finetune(net, pc.data.ArrayDataset(images, labels, names), **options)
    finetune(net, pc.data.ArrayDataset(images, labels, list("abcd")), **options)


def test_mistakes_are_named(tiny_net):
    with pytest.raises(ArgumentError, match=r"head_epochs \(3\) must be fewer than epochs \(3\)"):
        tune(tiny_net, "few", head_epochs=3)
    with pytest.raises(ArgumentError, match="'head', 'few', 'more', 'all', a number or patterns, got 'most'"):
        tune(tiny_net, "most")
    with pytest.raises(ArgumentError, match=r"part must be in 1\.\.4, got 5"):
        tune(tiny_net, 5)
    with pytest.raises(ArgumentError, match="no parameter or module is called 'layer9'"):
        tune(tiny_net, ["layer9"])
    with pytest.raises(ArgumentError, match=r"lr_decay must be finite and in \(0, 1\], got 2"):
        tune(tiny_net, "few", lr_decay=2)
    with pytest.raises(ArgumentError, match="keep_head, but the head gives 4 classes and the data has 3"):
        tune(make_tiny_net(), "few", keep_head=True)
    with pytest.raises(ArgumentError, match="all 8 images are of one class"):
        finetune(tiny_net, (DATA.images[:8], np.zeros(8, int)))
    with pytest.raises(ArgumentError, match="class '1' has no image"):
        finetune(tiny_net, (DATA.images[:8], np.arange(8) % 2 * 2))
    with pytest.raises(ArgumentError, match="the classes of train and val differ: class 0, class 1, class 2; 0, 1"):
        finetune(tiny_net, DATA, (DATA.images[:8], np.arange(8) % 2))
