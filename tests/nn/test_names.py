"""Names of layers: what can be trained can be saved and loaded, or the name is refused when it is given."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim

X = np.random.default_rng(0).random((4, 6, 6, 1), np.float32)
Y = np.array([0, 1, 2, 0])


def net_with(name):
    return nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "flat": nn.Flatten(), name: nn.Linear(32, 3)}).build((6, 6, 1))


def trainer_of(net):
    return pc.Trainer(net, optimizer=optim.SGD(0.1, momentum=0.9), ema_decay=0.9)


@pytest.mark.parametrize(
    "name", ["a/b", "größe", "\N{GRINNING FACE}", "a b", "/x", "1x", "_hidden", "weight", "loss", "output", "x" * 900]
)
def test_odd_names_survive_files_and_checkpoints_with_the_same_bits(tmp_path, name):
    trainer = trainer_of(net_with(name))
    trainer.step(X, Y)
    trainer.save_checkpoint(tmp_path / "c.safetensors")
    loaded = pc.load(tmp_path / "c.safetensors")
    assert list(loaded.state_dict()) == list(trainer.net.state_dict())
    assert np.array_equal(loaded(X), trainer.net(X))
    again = trainer_of(net_with(name))
    again.load_checkpoint(tmp_path / "c.safetensors")
    trainer.step(X, Y)
    again.step(X, Y)
    assert again.fingerprint() == trainer.fingerprint()


@pytest.mark.parametrize(
    "name",
    ["", "a.b", ".", "a\0b", "a\n", "\x85", "\ud800", "forward", "input_shape", "metadata", "_private", "layers"],
)
def test_names_that_could_not_be_kept_are_refused_by_name(name):
    with pytest.raises(pc.ArgumentError, match="cannot name a layer") as caught:
        net_with(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["optim", "ema", "train", "constant"])
def test_layers_called_like_a_trainers_own_arrays_are_refused_before_training(tmp_path, name):
    net = net_with(name)
    with pytest.raises(pc.ArgumentError, match=f"'{name}' something else"):
        trainer_of(net)
    with pytest.raises(pc.ArgumentError, match=rf"tensor '{name}\.weight'"):
        net.save(tmp_path / "n.safetensors")
    inside = nn.Sequential({"body": net}).build((6, 6, 1))
    trainer_of(inside).step(X, Y)
    inside.save(tmp_path / "n.safetensors")
    assert np.array_equal(pc.load(tmp_path / "n.safetensors")(X), inside(X))


def test_normalization_with_parameters_is_refused():
    net = net_with("fc")
    for layer in (nn.BatchNorm2d(1), nn.Conv2d(None, 1, 1)):
        with pytest.raises(pc.ArgumentError, match=r"normalization: \w+ has parameters"):
            net.normalization = layer
    net.normalization = nn.Normalize(0.5, 0.25)


def test_swapped_arguments_of_save_are_told(tmp_path):
    with pytest.raises(pc.ArgumentError, match=r"str is no pycnn.nn.Module; the order is save\(net, path\)"):
        pc.save(str(tmp_path / "n.safetensors"), net_with("fc"))


def test_metadata_goes_along_when_a_loaded_net_is_saved_again(tmp_path):
    path = tmp_path / "n.safetensors"
    pc.save(net_with("fc"), path, metadata={"class_names": '["a"]', "data": "mine"})
    pc.save(pc.load(path), path, metadata={"data": "other"})
    assert pc.load(path).metadata == {"class_names": '["a"]', "data": "other"}
