"""Programs whose convolutions are not as written (`conv2d_rewrite.h`): by libraries on a GPU, or by our own kernels
where `PYCNN_CUDA_MODULE` names the emulated module, `pycnn_cuda_emulated.so` among the C++ tests.
"""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.config import manual_seed

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def rewritten(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_REWRITES", "always")
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")
    monkeypatch.setenv("PYCNN_EMULATED_REWRITE", "0")


def net():
    manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 10, 7, stride=2, padding=3), nn.ReLU(), nn.Flatten(), nn.Linear(640, 10))


def largest_difference(a, b):
    return np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max()


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_results_are_the_cpus_also_after_weights_changed(dtype, error):
    model, x = net(), np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
    program = pc.compile(model, x.shape, device="cuda", dtype=dtype)
    if "not conv2d.cudnn" not in program.explain():
        assert "conv2d.cudnn+blocks2x2" in program.explain()
    for _ in range(2):
        assert largest_difference(program(x), pc.compile(model, x.shape)(x)) < error
        for parameter in model.parameters():
            parameter.numpy()[...] *= 1.5


def test_a_training_is_the_cpus():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 16, 16, 3)).astype(np.float32), rng.integers(0, 10, 8)
    losses = []
    for device in ("cpu", "cuda"):
        trainer = pc.Trainer(net(), device=device, seed=1, optimizer=pc.optim.SGD(0.05, momentum=0.9))
        losses.append([float(trainer.step(x, y)["loss"]) for _ in range(5)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
