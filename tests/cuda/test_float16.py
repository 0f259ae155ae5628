"""float16 with a scaled loss. As `test_device_training.py`, this needs no GPU where the emulated module is named."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import pycnn as pc
from pycnn import functional as F
from pycnn import nn, optim
from pycnn.checkpoint import load_model
from pycnn.cli import main
from pycnn.config import manual_seed

pytestmark = pytest.mark.cuda

START = 65536.0
# What a step that changes nothing changes all the same.
OWN = {"train.loss_scale", "train.good_steps"}


def data(count=48, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.random((count, 8, 8, 2), np.float32)
    x[np.arange(count), y, y] += 2
    return x, y


def plain():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(108, 3),
    )


def normed():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(128, 3),
    )  # fmt: skip


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.concat([F.relu(self.grouped(x) + x), F.sigmoid(self.point(x))])
        return self.head(F.global_avg_pool2d(x))


NETS = {"plain": plain, "normed": normed, "branches": Branches}
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda: optim.AdamW(0.002),
    "muon": lambda: optim.Muon(0.01),
}


def trainer(net="normed", device="cuda", dtype="float16", optimizer="sgd", **options):
    manual_seed(3)
    return pc.Trainer(NETS[net](), device=device, dtype=dtype, optimizer=OPTIMIZERS[optimizer](), seed=1, **options)


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = data()
    for _ in range(count):
        part = rng.permutation(48)[:16]
        yield x[part], y[part]


def steps(training, count, seed=0):
    return [training.step(x, y)["loss"] for x, y in batches(count, seed)]


def arrays(training):
    return {name: np.array(training.variables[name].numpy()) for name in training.variables}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_twenty_steps_give_the_losses_of_float32(net, optimizer):
    expected = steps(trainer(net, "cpu", "float32", optimizer), 20)
    training = trainer(net, optimizer=optimizer)
    actual = steps(training, 20)
    np.testing.assert_allclose(actual, expected, rtol=0.01)
    assert expected[-1] < 0.9 * expected[0]
    assert training.variables["train.step"].numpy()[0] + np.log2(START / training.loss_scale) == 20


@pytest.mark.parametrize("net", NETS)
def test_scores_are_nearer_to_float32_than_those_of_bfloat16(net):
    manual_seed(3)
    module = NETS[net]()
    x, _ = data(12)
    expected = pc.compile(module, x.shape)(x)
    errors = {}
    for dtype in ("float16", "bfloat16"):
        program = pc.compile(module, x.shape, dtype=dtype, device="cuda")
        errors[dtype] = np.abs(program(x) - expected).max() / np.abs(expected).max()
    assert 0 < errors["float16"] < 2e-3
    assert errors["float16"] < errors["bfloat16"]


def test_images_may_be_float16_and_bytes():
    manual_seed(3)
    module = plain()
    x = data(4)[0].astype(np.float16)
    wide = pc.compile(module, x.shape, dtype="float16", device="cuda")
    narrow = pc.compile(module, x.shape, dtype="float16", input_dtype="float16", device="cuda")
    assert np.array_equal(narrow(x), wide(x.astype(np.float32)))
    pixels = (100 * x).astype(np.uint8)
    program = pc.compile(module, x.shape, dtype="float16", input_dtype="uint8", device="cuda")
    expected = pc.compile(module, x.shape, dtype="uint8")(pixels)
    np.testing.assert_allclose(program(pixels), expected, atol=2e-3 * np.abs(expected).max())
    with pytest.raises(pc.DTypeError, match="float16"):
        wide(x)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_overflows_halves_the_scale_and_changes_nothing_else(optimizer):
    training = trainer(optimizer=optimizer, clip_norm=5.0, ema_decay=0.9)
    steps(training, 4)
    training.variables["train.loss_scale"] = np.array(2.0**24, np.float32)
    before = arrays(training)
    assert np.isfinite(steps(training, 1, 1)).all()  # the loss itself is what it was
    after = arrays(training)
    assert changed(before, after) == OWN
    assert training.loss_scale == 2.0**23
    assert after["train.good_steps"].tolist() == [0]
    for _ in range(24):
        steps(training, 1, 2)
        if changed(before, arrays(training)) > OWN:
            break
    later = arrays(training)
    assert {"0.weight", "train.step", "ema.0.weight", "1.running_mean"} < changed(before, later)
    assert later["train.step"] == before["train.step"] + 1
    kept = training.loss_scale
    assert kept >= 1024
    assert all(np.isfinite(value).all() for value in later.values())
    losses = steps(training, 12, 3)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert training.loss_scale == kept


def test_a_broken_image_spoils_neither_weights_nor_running_statistics():
    training = trainer()
    steps(training, 3)
    before = arrays(training)
    scale = training.loss_scale
    x, y = data(16)
    x[3, 2, 2, 0] = np.inf
    with pytest.warns(RuntimeWarning, match="the loss is nan at step 4; the step changed no weight"):
        training.step(x, y)
    assert changed(before, arrays(training)) == OWN
    assert training.loss_scale == scale / 2


def test_steps_begun_ahead_decide_for_themselves():
    training, other = trainer(), trainer()
    steps(training, 4)
    steps(other, 4)
    scale = training.loss_scale
    given = list(batches(5, 1))
    broken = given[2][0].copy()
    broken[...] = np.nan
    begun = [training.begin_batch(broken if i == 2 else x, y) for i, (x, y) in enumerate(given)]
    losses = [each.wait()["loss"] for each in begun]
    assert np.isnan(losses[2])
    assert np.isfinite(losses[3:]).all()
    for x, y in given[:2]:
        other.step(x, y)
    other.variables["train.loss_scale"] = np.array(scale / 2, np.float32)
    other.variables["train.good_steps"] = np.array([0], np.int64)
    for x, y in given[3:]:
        other.step(x, y)
    assert not changed(arrays(training), arrays(other))
    assert training.loss_scale == scale / 2


def test_the_scale_is_doubled_after_two_thousand_good_steps():
    training = trainer()
    steps(training, 4)
    training.variables["train.loss_scale"] = np.array(512, np.float32)
    training.variables["train.good_steps"] = np.array([1998], np.int64)
    steps(training, 1)
    assert (training.loss_scale, training.variables["train.good_steps"].numpy().tolist()) == (512, [1999])
    steps(training, 1)
    assert (training.loss_scale, training.variables["train.good_steps"].numpy().tolist()) == (1024, [0])


def tiny_loss(scores, y):
    return 1e-7 * F.cross_entropy(scores, y)


def test_gradients_below_the_range_of_float16_count():
    def moved(dtype, device, scale=None):
        manual_seed(3)
        net = plain()
        start = net.state_dict()
        training = pc.Trainer(net, loss=tiny_loss, optimizer=optim.SGD(1e5), dtype=dtype, device=device, metrics=())
        if scale is not None:
            training.variables["train.loss_scale"] = np.array(scale, np.float32)
        for x, y in batches(3):
            training.step(x, y)
        return {name: value - start[name] for name, value in net.state_dict().items()}

    expected = moved("float32", "cpu")
    actual = moved("float16", "cuda")
    unscaled = moved("float16", "cuda", 1.0)
    for name, step in expected.items():
        size = np.linalg.norm(step)
        assert np.linalg.norm(actual[name] - step) < 0.03 * size, name
    assert np.linalg.norm(unscaled["0.weight"] - expected["0.weight"]) > 0.2 * np.linalg.norm(expected["0.weight"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_goes_on_with_the_scale(optimizer, tmp_path):
    first, resumed = trainer(optimizer=optimizer), trainer(optimizer=optimizer)
    first.variables["train.loss_scale"] = np.array(2.0**24, np.float32)  # some steps in vain
    steps(first, 13)
    first.save_checkpoint(tmp_path / "last.safetensors")
    _, tensors, _ = load_model(tmp_path / "last.safetensors")
    assert float(tensors["train.loss_scale"].numpy()) == first.loss_scale < 2.0**24
    assert tensors["train.good_steps"].numpy().tolist() == first.variables["train.good_steps"].numpy().tolist() > [0]
    resumed.load_checkpoint(tmp_path / "last.safetensors")
    assert resumed.loss_scale == first.loss_scale
    assert steps(resumed, 4, 5) == steps(first, 4, 5)
    assert not changed(arrays(first), arrays(resumed))
    # The file is that of a net, which is float32.
    assert pc.load(tmp_path / "last.safetensors").state_dict()["0.weight"].dtype == np.float32


def test_history_and_progress_show_the_scale(capsys):
    training = trainer("plain")
    history = training.fit(data(), val=data(seed=1), epochs=2, batch_size=16)
    assert history["loss_scale"] == [training.loss_scale] * 2
    assert f"scale {training.loss_scale:g}" in capsys.readouterr().err
    assert trainer("plain", dtype="bfloat16").fit(data(), epochs=1, progress=False).columns.count("loss_scale") == 0
    x, _ = data(seed=1)
    program = pc.compile(training.net, x.shape, dtype="float16", device="cuda")
    assert training.predict(x).tolist() == program(x).argmax(axis=1).tolist()
    # Which the CPU refuses.
    assert [dict(key[2])["dtype"] for key in training.net._private.cache._runners] == ["float16"]


@pytest.mark.parametrize("scale", [0.0, -8.0, np.nan, np.inf])
def test_a_scale_that_is_none_spoils_nothing_and_is_replaced(scale):
    training = trainer("plain")
    steps(training, 2)
    before = arrays(training)
    training.variables["train.loss_scale"] = np.array(scale, np.float32)
    steps(training, 1)
    assert changed(before, arrays(training)) == OWN
    assert training.loss_scale == (2.0**24 if np.isnan(scale) or scale > 0 else 2.0**-24)
    training.variables["train.loss_scale"] = np.array(512, np.float32)
    steps(training, 1)
    assert "0.weight" in changed(before, arrays(training))


def test_an_epoch_in_vain_is_told():
    training = trainer("plain")
    training.variables["train.loss_scale"] = np.array(2.0**24, np.float32)
    with pytest.warns(RuntimeWarning, match=r"epoch 1 changed no weight .* float16 \(the loss is scaled by 8.388"):
        training.fit(data(16), epochs=1, batch_size=16, progress=False)


def test_on_the_cpu_it_is_refused_with_the_alternative():
    for make in (
        lambda: steps(trainer(device="cpu"), 1),
        lambda: pc.compile(plain(), (1, 8, 8, 2), dtype="float16"),
        lambda: plain().predict(data(2)[0], dtype="float16"),
    ):
        with pytest.raises(pc.UnsupportedError, match=r"float16 is computed on GPUs only.*\n.*bfloat16"):
            make()


def test_the_command_line_trains_in_float16(tmp_path, capfd, image_loops):
    if "emulated" in os.environ.get("PYCNN_CUDA_MODULE", ""):
        pytest.skip("an epoch of LeNet-5 takes the emulated device minutes")
    words = ["--data", "digits", "--epochs", "1", "--seed", "1", "--device", "cuda", "--run-dir", str(tmp_path / "run")]
    code = main(["train", "lenet5", *words, "--dtype", "float16", "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "scale " in err
    assert json.loads(out)["test_accuracy"] > 0.5
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert "loss_scale" in history[0].split(",")
