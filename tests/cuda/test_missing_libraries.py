"""Where a GPU works and a library of NVIDIA's is missing, who compiles is told, and so is who asks `pycnn doctor`.

As `test_device_training.py`, this needs no GPU where the emulated module is named; with one it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.cli import main

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif("emulated" not in os.environ.get("PYCNN_CUDA_MODULE", ""), reason="what is there, is there"),
]
LINES = {
    "cuDNN": "pycnn's own kernels compute convolutions, likely slower; pip install 'pycnn[cuda]' brings it "
    "(nvidia-cudnn-cu13)",
    "NVRTC": "cuDNN has fewer kernels for convolutions, likely slower ones; pip install 'pycnn[cuda]' brings it "
    "(nvidia-cuda-nvrtc)",
    "cuBLASLt": "pycnn's own kernels compute dense layers, likely slower; pip install 'pycnn[cuda]' brings it "
    "(nvidia-cublas)",
}


def line(name):
    return f"{name} cannot be used (told to be missing): {LINES[name]}"


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)).build((6, 6, 1))


@pytest.fixture(autouse=True)
def none_told_yet(monkeypatch):
    monkeypatch.setattr("pycnn.program._warned", set())


@pytest.mark.parametrize("names", [["cuDNN"], ["NVRTC"], ["cuBLASLt"], ["cuDNN", "cuBLASLt"]])
def test_compiling_warns_once_for_each_library(monkeypatch, recwarn, names):
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", ", ".join(names))
    model = net()
    for _ in range(2):
        program = pc.compile(model, (1, 6, 6, 1), device="cuda")
        assert program.warnings == [line(name) for name in names]
    assert [str(warning.message) for warning in recwarn] == [f"compile: {line(name)}" for name in names]
    assert pc.compile(model, (1, 6, 6, 1)).warnings == []


def test_training_warns_too(monkeypatch):
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", "cuDNN")
    trainer = pc.Trainer(net(), optimizer=pc.optim.SGD(0.1), device="cuda")
    with pytest.warns(UserWarning, match="cuDNN cannot be used"):
        trainer.step(np.zeros((2, 6, 6, 1), np.float32), np.zeros(2, np.int64))


def test_a_program_tells_only_of_what_it_would_use(monkeypatch):
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", "cuDNN, NVRTC, cuBLASLt")
    assert pc.compile(nn.ReLU(), (1, 4), device="cuda").warnings == []
    dense = nn.Linear(4, 2)
    with pytest.warns(UserWarning, match="cuBLASLt"):
        assert pc.compile(dense, (1, 4), device="cuda").warnings == [line("cuBLASLt")]
    pinned = {"dense": "dense.cuda"}  # asked for by name
    assert pc.compile(dense, (1, 4), device="cuda", variants=pinned).warnings == []


def test_what_is_off_was_wanted_so(monkeypatch):
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", "cuDNN")
    monkeypatch.setenv("PYCNN_CUDNN", "off")
    assert pc.compile(net(), (1, 6, 6, 1), device="cuda").warnings == []


def test_the_doctor_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", "cuDNN, NVRTC, cuBLASLt")
    assert main(["doctor", "--no-speed", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["warnings"]
    for name in LINES:
        assert f"cuda:0: {line(name)}" in told
    monkeypatch.setenv("PYCNN_EMULATED_MISSING", "")
    assert main(["doctor", "--no-speed", "--json"]) == 0
    assert not [text for text in json.loads(capsys.readouterr().out)["warnings"] if "cuda" in text]


def test_other_tests_do_not_fail_for_it(root):
    """They make errors of warnings, but of these."""
    other = root / "tests/cuda/test_device_training.py::test_reading_gives_what_always_copying_gives"
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", other]
    missing = os.environ | {"PYCNN_EMULATED_MISSING": "cuDNN, NVRTC, cuBLASLt"}
    result = subprocess.run(command, env=missing, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
