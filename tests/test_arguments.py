"""Checks of single arguments that all rooms share."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import pycnn as pc
from pycnn.arguments import as_flag, as_number, as_path


@pytest.mark.parametrize(
    ("limits", "good", "bad", "text"),
    [
        ({}, [-1e300, 0, 3], [math.inf, math.nan], "a: b must be finite, got"),
        ({"low": 0}, [0, 1e300], [-1, math.inf], "a: b must be finite and at least 0, got"),
        ({"low": 0, "above": True}, [1e-300], [0, -1], "a: b must be finite and above 0, got"),
        ({"high": 2}, [-9, 2], [2.5, -math.inf], "a: b must be finite and at most 2, got"),
        ({"high": 2, "below": True}, [1.9], [2], "a: b must be finite and below 2, got"),
        ({"low": 0, "high": 0.5}, [0, 0.5], [-1, 1, math.nan], r"a: b must be finite and in \[0, 0.5\], got"),
        ({"low": 0, "high": 1, "above": True, "below": True}, [0.5], [0, 1], r"and in \(0, 1\), got"),
        ({}, [np.float32(2), np.int8(3)], [True, "1", None, [1]], "a: b must be a number, got"),
    ],
)
def test_numbers_are_checked_and_messages_tell_the_limits(limits, good, bad, text):
    for value in good:
        found = as_number(value, who="a", name="b", **limits)
        assert type(found) is float
        assert found == value
    for value in bad:
        with pytest.raises(pc.ArgumentError, match=text) as caught:
            as_number(value, who="a", name="b", **limits)
        assert repr(value) in str(caught.value)


def test_numbers_of_numpy_are_shown_as_numbers():
    with pytest.raises(pc.ArgumentError, match=r"a: b must be finite and above 0, got 0$"):
        as_number(np.int64(0), who="a", name="b", low=0, above=True)
    with pytest.raises(pc.ArgumentError, match=r"got nan$"):
        as_number(np.float64("nan"), who="a", name="b")


def test_flags_are_true_or_false():
    assert as_flag(True, who="a", name="b") is True
    assert as_flag(np.bool_(False), who="a", name="b") is False
    for value in ("no", 0, 1.0, None, [True]):
        with pytest.raises(pc.ArgumentError) as caught:
            as_flag(value, who="a", name="b")
        assert str(caught.value) == f"a: b must be True or False, got {value!r}"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: pc.nn.Conv2d(1, 4, 3, bias="no"), "Conv2d: bias"),
        (lambda: pc.nn.ConvTranspose2d(1, 4, 3, bias="no"), "ConvTranspose2d: bias"),
        (lambda: pc.nn.Linear(1, 4, bias="no"), "Linear: bias"),
        (lambda: pc.nn.MaxPool2d(2, ceil_mode="no"), "MaxPool2d: ceil_mode"),
        (lambda: pc.nn.AvgPool2d(2, count_include_pad="no"), "AvgPool2d: count_include_pad"),
        (lambda: pc.optim.SGD(0.1, momentum=0.9, nesterov="no"), "SGD: nesterov"),
        (lambda: pc.optim.Muon(0.1, nesterov="no"), "Muon: nesterov"),
        (lambda: pc.optim.Group("*", frozen="no"), "Group: frozen"),
    ],
)
def test_a_text_is_no_flag(make, name):
    with pytest.raises(pc.ArgumentError, match=f"{name} must be True or False, got 'no'"):
        make()


def test_paths_are_texts_bytes_or_paths():
    for value in ("a/b", b"a/b", Path("a/b")):
        assert as_path(value, who="x") == Path("a/b")
    with pytest.raises(pc.ArgumentError, match="x: expected a path, got 3"):
        as_path(3, who="x")


NUL = "folder/a\0b.toml"
IMAGES = np.zeros((2, 28, 28, 1), np.float32), [0, 1]
READERS_AND_WRITERS = {
    "load": lambda net: pc.load(NUL),
    "load_weights": lambda net: pc.load_weights(net, NUL),
    "fetch": lambda net: pc.download.fetch(NUL),
    "fetch, digest": lambda net: pc.download.fetch(Path(NUL), sha256="0" * 64),
    "save": lambda net: pc.save(net, NUL),
    "write_tensors": lambda net: pc.checkpoint.write_tensors(NUL, {}),
    "Ensemble": lambda net: pc.Ensemble.load(NUL),
    "recipe": lambda net: pc.train.recipe(NUL),
    "read_idx": lambda net: pc.data.read_idx(NUL),
    "ImageFolder": lambda net: pc.data.ImageFolder(NUL, size=3),
    "CSVLogger": lambda net: pc.train.CSVLogger(NUL),
    "JSONLines": lambda net: pc.train.JSONLines(NUL),
    "to_csv": lambda net: pc.train.History([]).to_csv(NUL),
    "checkpoint_dir": lambda net: pc.Trainer(net).fit(IMAGES, epochs=1, checkpoint_dir=NUL, progress=False),
    "resume": lambda net: pc.Trainer(net).fit(IMAGES, epochs=1, resume=NUL, progress=False),
}


@pytest.mark.parametrize("call", READERS_AND_WRITERS.values(), ids=READERS_AND_WRITERS)
def test_a_path_with_a_null_character_is_refused_by_name(call):
    with pytest.raises(pc.ArgumentError, match=r"'folder/a\\x00b.toml' contains a NUL character"):
        call(pc.models.lenet5())


def test_weights_without_a_network_are_pointed_to_python(tmp_path):
    path, net = tmp_path / "weights.safetensors", pc.models.lenet5().build((28, 28, 1))
    pc.checkpoint.write_tensors(path, net.state_dict())
    for read in (pc.load, pc.checkpoint.load_model, pc.Trainer(net).load_checkpoint):
        with pytest.raises(pc.FormatError, match=r"hint: .*pycnn\.load_weights\(net, path\)") as caught:
            read(path)
        assert "read_checkpoint" not in str(caught.value)
