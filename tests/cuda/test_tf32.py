"""float32 on tensor cores, where a program is allowed to round it to TF32; the emulated device does so, too."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.benchmark import bench, bound
from pycnn.benchmark._device_peaks import device_peaks
from pycnn.config import manual_seed
from pycnn.errors import ArgumentError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    monkeypatch.delenv("PYCNN_CUDA_TF32", raising=False)
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")


def net():
    manual_seed(5)
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))


def images():
    return np.random.default_rng(0).standard_normal((4, 8, 8, 16)).astype(np.float32)


def scores(device, **options):
    return pc.compile(net(), images().shape, device=device, **options)(images())


def trained(device, **options):
    trainer = pc.Trainer(net(), device=device, **options)
    for _ in range(3):
        trainer.step(images(), np.arange(4))
    return trainer.fingerprint()


@pytest.mark.cuda
def test_a_program_alone_may_round(monkeypatch):
    exact, rounded = scores("cuda"), scores("cuda", tf32=True)
    expected = scores("cpu")
    size = np.abs(expected).max()
    assert np.abs(exact - expected).max() < 1e-5 * size
    assert 1e-5 * size < np.abs(rounded - expected).max() < 2e-3 * size
    assert (scores("cuda") == exact).all()  # packed weights of the other are not taken
    assert (scores("cuda", dtype="bfloat16", tf32=True) == scores("cuda", dtype="bfloat16")).all()
    monkeypatch.setenv("PYCNN_CUDA_TF32", "1")
    assert (scores("cuda") == rounded).all()


@pytest.mark.cuda
def test_a_training_may_round(monkeypatch):
    exact, rounded = trained("cuda"), trained("cuda", tf32=True)
    assert exact != rounded
    assert trained("cuda") == exact
    monkeypatch.setenv("PYCNN_CUDA_TF32", "1")
    assert trained("cuda") == rounded


def test_the_cpu_never_rounds():
    assert (scores("cpu", tf32=True) == scores("cpu")).all()
    assert trained("cpu", tf32=True) == trained("cpu")
    trainer = pc.Trainer(net(), tf32=True)
    assert trainer.predict(images()).shape == (4,)


@pytest.mark.parametrize("value", [1, None, "no"])
def test_anything_but_true_and_false_is_refused(value):
    with pytest.raises(ArgumentError, match=f"^compile: tf32 must be True or False, got {re.escape(repr(value))}"):
        scores("cpu", tf32=value)
    with pytest.raises(ArgumentError, match="^Trainer: tf32 must be True or False"):
        pc.Trainer(net(), tf32=value)
    with pytest.raises(ArgumentError, match="^bench: tf32 must be True or False"):
        bench(net(), input_shape=(8, 8, 16), tf32=value)


@pytest.mark.parametrize("device", DEVICES)
def test_a_benchmark_says_whether_it_was_allowed(device):
    report = bench(net(), input_shape=(8, 8, 16), device=device, tf32=True, rounds=1, peaks=None)
    assert report.tf32
    assert not bench(net(), input_shape=(8, 8, 16), device=device, rounds=1, peaks=None).tf32


@pytest.mark.cuda
def test_steps_that_may_round_are_held_against_the_peak_of_tf32(monkeypatch):
    monkeypatch.setattr("pycnn.benchmark._bench.device_peaks", functools.partial(device_peaks, width=32, side=16))
    report = bench(net(), input_shape=(8, 8, 16), device="cuda", tf32=True, rounds=1, layers=True)
    (peaks,) = report.peaks
    layer = next(layer for layer in report.layers if layer.op == "conv2d")
    assert report.multiplied == "tf32"
    assert layer.bound == bound(layer.flops, layer.bytes, peaks, dtype="tf32").seconds


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_may_round(device):
    model = net()
    model.build((8, 8, 16))

    def gradient(**options):
        return pc.grad(lambda x: pc.functional.sum(model(x)), device=device, **options)(images())

    assert (gradient(tf32=True) != gradient()).any() == (device == "cuda")
