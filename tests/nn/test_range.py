"""Images that are scaled otherwise than those of training are told."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim

RNG = np.random.default_rng(0)
UNIT = RNG.random((16, 16, 16, 1), np.float32)
BYTES = RNG.integers(0, 256, UNIT.shape, np.uint8)
AROUND_ZERO = (UNIT - 0.5) / 0.25
Y = RNG.integers(0, 3, 16)


def trained_on(x):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GlobalAvgPool2d(), nn.Linear(2, 3))
    pc.Trainer(net, optimizer=optim.SGD(1e-3)).step(x, Y)
    return net


@pytest.mark.parametrize(
    ("trained", "given", "hint"),
    [
        (UNIT, UNIT * 255, " to 25.*trained on 0.* to .*x / 255"),
        (BYTES, UNIT * 255, "trained on 0 to 1\n.*x / 255"),
        (UNIT * 255, UNIT, "trained on 0.* to 25.*normalise"),
        (UNIT * 255, BYTES, "0 to 1, but.*uint8 images are read as 0..1"),
        (UNIT, AROUND_ZERO, "from -.*normalise"),
        (AROUND_ZERO, UNIT, "trained on -.*nn.Normalize"),
        (AROUND_ZERO, BYTES, "uint8 images are read as 0..1"),
    ],
    ids=["unit-255", "bytes-255", "255-unit", "255-bytes", "unit-around0", "around0-unit", "around0-bytes"],
)
@pytest.mark.parametrize("use", ["call", "predict", "evaluate", "step"])
def test_another_scale_warns_once_also_after_loading(tmp_path, trained, given, hint, use):
    trained_on(trained).save(tmp_path / "n.safetensors")
    net = pc.load(tmp_path / "n.safetensors")
    if trained.dtype == np.float32:
        assert net.input_range == (float(trained.min()), float(trained.max()))
    trainer = pc.Trainer(net, optimizer=optim.SGD(1e-3))
    run = {
        "call": lambda: net(given),
        "predict": lambda: net.predict(given),
        "evaluate": lambda: trainer.evaluate((given, Y)),
        "step": lambda: trainer.step(given, Y),
    }[use]
    with pytest.warns(UserWarning, match="(?s)" + hint) as caught:
        run()
    assert [w.filename for w in caught] == [__file__]
    run()


@pytest.mark.parametrize(
    ("trained", "given"),
    [
        (UNIT, BYTES),
        (BYTES, UNIT),
        (UNIT, UNIT * 0.1),
        (UNIT, UNIT * 0),
        (UNIT, UNIT[:0]),
        (UNIT, UNIT * np.nan),
        (AROUND_ZERO, AROUND_ZERO * 0.5),
        (AROUND_ZERO, np.abs(AROUND_ZERO[:1])),
    ],
)
def test_usual_variation_is_silent(trained, given):
    trained_on(trained)(given)


@pytest.mark.parametrize("text", ["", "null", "[]", "[1]", "[0, NaN]", '["a", "b"]', "[2, 1]", "{", "[0, 1e999]"])
def test_nonsense_in_a_file_is_no_range(tmp_path, text):
    net = trained_on(UNIT)
    pc.save(net, tmp_path / "n.safetensors", metadata={"input_range": text})
    loaded = pc.load(tmp_path / "n.safetensors")
    assert loaded.input_range is None
    assert "input_range" not in loaded.metadata


def test_checkpoint_keeps_the_range(tmp_path):
    trainer = pc.Trainer(trained_on(UNIT), optimizer=optim.SGD(1e-3))
    trainer.step(UNIT, Y)
    trainer.save_checkpoint(tmp_path / "c.safetensors")
    again = pc.Trainer(trained_on(UNIT * 0.5), optimizer=optim.SGD(1e-3))
    again.load_checkpoint(tmp_path / "c.safetensors")
    assert again.net.input_range == trainer.net.input_range
