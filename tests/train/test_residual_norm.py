"""Blocks with a projection: one step applies both batch norms and adds, with the bits of two steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import short_trainings
import tolerances
from kernel_paths import ISAS

from pycnn import nn

IMAGES = (3, 10, 9, 4)
BLOCKS, NORMS = 2, 7
# A kernel that is asked for by name: these steps stay two.
APART = {"batch_norm_apply": f"batch_norm_apply.chunked.{ISAS[-1]}"}


def make():
    return nn.Sequential(
        nn.BasicBlock(None, 16, stride=2), nn.Bottleneck(None, 40, stride=2), nn.GlobalAvgPool2d(), nn.Linear(None, 10)
    )


def train(**options):
    losses, state, program = short_trainings.train(make, IMAGES, **options)
    return losses, state, Counter(step["op"] for step in program.steps())


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
    found, expected = train(device="cuda:0", dtype=dtype), train()
    assert found[2]["batch_norm_apply"] == NORMS - BLOCKS
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4 if dtype == "float32" else 0.02)
