"""Training in bfloat16: float32's accuracy without scaling the loss; what a resumed training compares."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import models, optim

EMULATED = {"dtype": "bfloat16", "emulate_bfloat16": True}


def trained(train, test, *, epochs, **options):
    pc.manual_seed(1)
    trainer = pc.Trainer(models.lenet5(), optimizer=optim.SGD(0.05, momentum=0.9), seed=1, **options)
    trainer.fit(train, epochs=epochs, batch_size=64, progress=False)
    return trainer, trainer.evaluate(test)


def test_digits_are_learned_as_well_as_in_float32():
    train, test = pc.data.digits(seed=0)
    _, single = trained(train, test, epochs=4)
    trainer, half = trained(train, test, epochs=4, **EMULATED)
    assert single["accuracy"] > 0.9
    assert half["accuracy"] >= single["accuracy"] - 0.015
    assert abs(half["loss"] - single["loss"]) <= 0.15 * single["loss"] + 0.02
    predicted = trainer.predict(test.images)
    assert np.mean(predicted == test.labels) == pytest.approx(half["accuracy"])


def test_mnist_is_learned_as_well_as_in_float32(shared_data):
    train, test = pc.data.mnist(shared_data / "mnist")
    train, test = ((part.images[:count], part.labels[:count]) for part, count in ((train, 6000), (test, 2000)))
    _, single = trained(train, test, epochs=2)
    _, half = trained(train, test, epochs=2, **EMULATED)
    assert single["accuracy"] > 0.9
    assert half["accuracy"] >= single["accuracy"] - 0.01


def small_data(n=24):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 6, 6, 1), np.float32)
    x[np.arange(n), y, y] += 2
    return x, y


def make(**options):
    pc.manual_seed(0)
    net = pc.nn.Sequential(
        pc.nn.Conv2d(1, 4, 3),
        pc.nn.BatchNorm2d(4),
        pc.nn.ReLU(),
        pc.nn.Dropout(0.3),
        pc.nn.Flatten(),
        pc.nn.Linear(64, 3),
    )
    return pc.Trainer(net, optimizer=optim.SGD(0.1, momentum=0.9), seed=5, **options)


def test_interrupted_and_resumed_it_has_the_same_bits(tmp_path):
    whole, first, second = make(**EMULATED), make(**EMULATED), make(**EMULATED)
    whole.fit(small_data(), epochs=4, batch_size=8, progress=False)
    first.fit(small_data(), epochs=2, batch_size=8, progress=False, checkpoint_dir=tmp_path)
    second.fit(small_data(), epochs=4, batch_size=8, progress=False, checkpoint_dir=tmp_path, resume=True)
    assert second.fingerprint() == whole.fingerprint()


def test_any_number_of_threads_gives_the_same_bits():
    found = set()
    for threads in (1, 2, 3):
        trainer = make(threads=threads, **EMULATED)
        trainer.fit(small_data(), epochs=2, batch_size=8, progress=False)
        found.add(trainer.fingerprint())
    assert len(found) == 1


def test_computing_results_again_gives_the_same_bits():
    found = set()
    for recompute in ("none", "cheap", "sqrt"):
        trainer = make(recompute=recompute, **EMULATED)
        trainer.fit(small_data(), epochs=2, batch_size=8, progress=False)
        found.add(trainer.fingerprint())
    assert len(found) == 1


def test_batch_norm_and_what_goes_by_element_have_kernels_for_it():
    trainer = make(**EMULATED)
    x, y = small_data(8)
    trainer.train_batch(x, y)
    (program,) = (p.program for p in trainer._training._programs.values())
    widened = {step["op"] for step in program.steps() if step["variant"].endswith(".widened")}
    assert widened <= {"conv2d", "conv2d_grad_weight", "dense", "dense_grad_input", "dense_grad_weight"}


def wide_trainer(**options):
    pc.manual_seed(0)
    net = pc.nn.Sequential(
        pc.nn.Flatten(), pc.nn.Linear(36, 1024), pc.nn.ReLU(), pc.nn.Linear(1024, 1056), pc.nn.Linear(1056, 3)
    )
    return pc.Trainer(net, optimizer=optim.SGD(0.02, momentum=0.9, weight_decay=1e-4), seed=5, **EMULATED, **options)


def test_an_update_joined_to_its_gradient_learns_as_the_two_steps():
    joined, apart = wide_trainer(), wide_trainer(clip_norm=1e6)  # which needs all gradients first, and clips none
    x, y = small_data()
    losses = [[trainer.train_batch(x, y)["loss"] for _ in range(6)] for trainer in (joined, apart)]
    ops = [[step["op"] for step in next(iter(t._training._programs.values())).program.steps()] for t in (joined, apart)]
    assert [names.count("dense_sgd_update") for names in ops] == [1, 0]
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


@pytest.mark.parametrize(
    ("written", "read", "text"),
    [
        (EMULATED, {}, "dtype bfloat16, goes on with float32"),
        ({}, EMULATED, "dtype float32, goes on with bfloat16"),
        ({"winograd": False}, {}, "winograd False, goes on with True"),
        ({"tf32": True}, {}, "tf32 True, goes on with False"),
    ],
)
def test_resuming_otherwise_is_told(written, read, text, tmp_path):
    path = tmp_path / "a.safetensors"
    trainer = make(**written)
    trainer.fit(small_data(), epochs=1, batch_size=8, progress=False)
    trainer.save_checkpoint(path)
    with pytest.warns(UserWarning, match=text):
        make(**read).load_checkpoint(path)
    make(**written).load_checkpoint(path)  # without a warning


def test_predict_computes_as_training_does():
    x = np.random.default_rng(0).standard_normal((64, 12, 12, 16)).astype(np.float32)
    pc.manual_seed(0)
    net = pc.nn.Sequential(pc.nn.Conv2d(16, 16, 3, padding=1), pc.nn.GlobalAvgPool2d(), pc.nn.Linear(16, 3))
    net.build((12, 12, 16))
    for options in ({"winograd": False}, EMULATED, {}):
        trainer = pc.Trainer(net, **options)
        dtype, emulated = options.get("dtype", "float32"), options.get("emulate_bfloat16", False)
        program = pc.compile(net, x.shape, dtype, winograd=options.get("winograd", True), emulate_bfloat16=emulated)
        assert trainer.predict(x).tolist() == program(x).argmax(axis=1).tolist()
        numerics = {"device": "cpu", "threads": None, **trainer.numerics}
        (runner,) = (r for key, r in net._private.cache._runners.items() if dict(key[2]) == numerics)
        assert [s["variant"] for s in runner.program.steps()] == [s["variant"] for s in program.steps()]
    with pytest.raises(pc.DeviceError):
        pc.Trainer(net, device="cuda:99").predict(x)
