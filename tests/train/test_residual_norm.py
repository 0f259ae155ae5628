"""Blocks with a projection: one step applies both batch norms and adds, with the bits of two steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tolerances
from kernel_paths import ISAS

import pycnn
from pycnn import functional, nn
from pycnn.program import compile_traced
from pycnn.tracing import trace

IMAGES = (3, 10, 9, 4)
BLOCKS, NORMS = 2, 7
# A kernel that is asked for by name: these steps stay two.
APART = {"batch_norm_apply": f"batch_norm_apply.chunked.{ISAS[-1]}"}


def train(device: str = "cpu", steps: int = 3, **options):
    pycnn.manual_seed(5)
    net = nn.Sequential(
        nn.BasicBlock(None, 16, stride=2), nn.Bottleneck(None, 40, stride=2), nn.GlobalAvgPool2d(), nn.Linear(None, 10)
    )
    net.build(IMAGES[1:])
    rng = np.random.default_rng(1)
    traced = trace(
        lambda x, y: {"loss": functional.cross_entropy(net(x), y)},
        {"x": (IMAGES, "float32"), "y": ((IMAGES[0],), "int64")},
        root=net,
    )
    spec = pycnn.optim.SGD(lr=0.02, momentum=0.9).spec(dict(net.named_parameters()))
    program = compile_traced(traced, mode="training", optimizer=spec, device=device, **options)
    losses = []
    for _ in range(steps):
        x = rng.standard_normal(IMAGES, np.float32)
        losses.append(program(x, rng.integers(0, 10, IMAGES[0]))["loss"])
    return np.array(losses, np.float32), net.state_dict(), Counter(step["op"] for step in program.steps())


@pytest.mark.parametrize("recompute", ["none", "cheap", "sqrt"])
def test_one_step_has_the_bits_of_two(recompute):
    found = train(recompute=recompute)
    expected = train(recompute=recompute, variants=APART)
    assert expected[2]["batch_norm_apply"] - found[2]["batch_norm_apply"] >= BLOCKS
    tolerances.assert_bits(found[0], expected[0], "losses")
    for name, array in expected[1].items():
        tolerances.assert_bits(found[1][name], array, name)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_threads(threads):
    found, expected = train(threads=threads), train(threads=2)
    tolerances.assert_bits(found[0], expected[0], "losses")


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_does_the_same(dtype):
    found, expected = train("cuda:0", dtype=dtype), train()
    assert found[2]["batch_norm_apply"] == NORMS - BLOCKS
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4 if dtype == "float32" else 0.02)
