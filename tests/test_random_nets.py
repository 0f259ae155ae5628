"""Random nets: however a program is planned, its results have the same bits, and are those of float64."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from random_nets import RandomNet

import pycnn
from pycnn import functional
from pycnn.program import compile_traced
from pycnn.tracing import trace

SEEDS = range(8)
COPIES = {"concat": "concat.reference", "slice": "slice.reference"}  # else they are places in memory
KINDS = {
    "float32": {},
    "no_winograd": {"winograd": False},
    "bfloat16": {"dtype": "bfloat16", "emulate_bfloat16": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)
seeds = pytest.mark.parametrize("seed", SEEDS)


def make(seed):
    """A net whose biases and statistics are not those of a fresh one, images and labels."""
    pycnn.manual_seed(seed)
    net = RandomNet(seed)
    net.build(net.image)
    rng = np.random.default_rng(seed)
    for name, tensor in net.named_tensors():
        values = tensor.numpy()
        if values.ndim == 1:
            moved = values + 0.1 * rng.standard_normal(values.shape).astype(np.float32)
            tensor.copy_(np.abs(moved) + 0.5 if name.endswith("running_var") else moved)
    x = rng.standard_normal((3, *net.image)).astype(np.float32)
    return net, x, rng.integers(0, 5, 3)


def inference(net, x, **options):
    double = "float64" if x.dtype == np.float64 else None
    traced = trace(lambda x: net(x), {"x": (x.shape, x.dtype.name)}, root=net, parameter_dtype=double)
    return compile_traced(traced, **options)


def results(found):
    value, (to_input, by_name) = found
    return [value, to_input, *(by_name[name] for name in sorted(by_name))]


@kinds
@seeds
def test_scores_have_the_same_bits_however_they_are_planned(seed, kind):
    net, x, _ = make(seed)
    expected = inference(net, x, threads=1, **KINDS[kind])(x)
    exact = inference(net, x.astype(np.float64))(x.astype(np.float64))
    share = tolerances.BFLOAT16_RANDOM_NET if kind == "bfloat16" else tolerances.RANDOM_NET
    told = "\n".join(net.story)
    tolerances.assert_within(expected, exact, share * np.abs(exact).max(), told)
    for options in ({"threads": 3}, {"variants": COPIES}, {"reuse_memory": False}):
        tolerances.assert_bits(inference(net, x, **KINDS[kind], **options)(x), expected, f"{options} {told}")
    tolerances.assert_bits(inference(net, x[:1], **KINDS[kind])(x[:1]), expected[:1], told)


@kinds
@seeds
def test_gradients_have_the_same_bits_however_they_are_planned(seed, kind):
    net, x, y = make(seed)

    def run(*inputs, **options):
        def loss(x):
            return functional.cross_entropy(net(x), y)

        gradients = pycnn.value_and_grad(loss, parameters=(), training=True, **KINDS[kind], **options)
        return [results(gradients(x)) for x in inputs][-1]

    expected = run(x, threads=1, recompute="none")
    told = "\n".join(net.story)
    ways = [
        {"threads": 3},
        {"recompute": "sqrt"},
        {"variants": COPIES},
        {"variants": COPIES, "recompute": "sqrt", "threads": 2},
    ]
    for options in ways:
        for found, wanted in zip(run(x, **options), expected, strict=True):
            tolerances.assert_bits(found, wanted, f"{options} {told}")
    # What a run of NaN leaves in memory must not be read by the next one.
    for found, wanted in zip(run(np.full_like(x, np.nan), x), expected, strict=True):
        tolerances.assert_bits(found, wanted, told)
