"""Batch norms that take what a convolution measured of its result (`compile/measure_outputs.cpp`): where that is so,
and trainings with it. As `test_device_training.py`, this needs no GPU where the emulated module is named.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

import pycnn as pc
from pycnn import functional, nn, optim
from pycnn.config import manual_seed
from pycnn.program import compile_traced
from pycnn.tracing import trace

pytestmark = pytest.mark.cuda

EMULATED = "emulated" in os.environ.get("PYCNN_CUDA_MODULE", "")
STEPS = 20
# For bits, which on a GPU chance may change in any step.
BIT_STEPS = 3 if EMULATED else STEPS
IMAGE = (9, 7, 3)  # a batch of 6 is no multiple of a tile


@pytest.fixture(autouse=True)
def same_kernels_every_time(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")


def conv(size=3, **options):
    return nn.Conv2d(8, 8, size, padding=size // 2, bias=False, **options)


def norm(**options):
    return nn.BatchNorm2d(8, **options)


class Sum(nn.Module):
    """Of what two branches make of the same image."""

    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x):
        return self.left(x) + self.right(x)


# Layers between a first convolution and a classifier; how many moments are measured; the activations through which sums
# of gradients are. There are none for the first convolution: nobody wants the gradient of images.
NETS = {
    "relu behind": (lambda: [conv(), norm(), nn.ReLU(), conv(), norm(), nn.ReLU()], 2, ["relu"]),
    "leaky relu behind": (lambda: [conv(), norm(), nn.LeakyReLU(0.2), conv(1), norm()], 2, ["leaky_relu"]),
    "relu6 behind": (lambda: [conv(), norm(), nn.ReLU6(), conv(1), norm()], 2, ["relu6"]),
    "nothing behind": (lambda: [conv(), norm(), conv(), norm()], 2, ["identity"]),
    "relu before": (lambda: [conv(), nn.ReLU(), norm(), conv(), nn.ReLU(), norm()], 2, ["identity"]),
    "norm, then convolution": (lambda: [norm(), nn.ReLU(), conv(), norm(), conv()], 2, ["relu", "identity"]),
    "groups": (lambda: [conv(groups=4), norm(), nn.ReLU(), conv(groups=8), norm()], 2, ["relu"]),
    "siblings": (
        lambda: [Sum(nn.Sequential(conv(1), norm(), nn.ReLU(), conv(), norm()), nn.Sequential(conv(1), norm()))],
        2,
        ["relu"],
    ),
    "norm before siblings": (
        lambda: [conv(), norm(), nn.ReLU(), Sum(conv(1), nn.Sequential(conv(1), norm()))],
        2,
        ["relu"],
    ),
    "strides": (lambda: [conv(stride=2), norm(), nn.ReLU(), conv(stride=2), norm()], 2, ["relu"]),
    # Between the blocks the gradient that goes on is the sum of two, finished by the convolution that made one of them.
    "blocks": (lambda: [nn.BasicBlock(8, 8), nn.BasicBlock(8, 8)], 4, ["relu", "identity", "relu"]),
    "sum before": (lambda: [Sum(conv(), nn.Identity()), norm()], 1, []),
    "two norms of a result": (lambda: [conv(), Sum(norm(), norm())], 1, []),
    # What comes back is a sum of two gradients: the convolution whose gradient is the later one adds the other.
    "two readers of a norm": (lambda: [conv(), norm(), nn.ReLU(), Sum(conv(3), conv(1))], 1, ["relu"]),
    "sigmoid behind": (lambda: [conv(), norm(), nn.Sigmoid(), conv(), norm()], 2, []),
    "pool between": (lambda: [conv(), nn.MaxPool2d(2), norm(), nn.MaxPool2d(2), conv()], 0, []),
    "frozen": (lambda: [conv(), norm(frozen=True), nn.ReLU(), conv(), norm(frozen=True)], 0, []),
    "no norm": (lambda: [conv(), nn.ReLU(), conv()], 0, []),
}


def net(name):
    manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 1), *NETS[name][0](), nn.GlobalAvgPool2d(), nn.Linear(8, 3))


def batch(step, count=6):
    rng = np.random.default_rng(step)
    y = rng.integers(0, 3, count)
    x = rng.standard_normal((count, *IMAGE), np.float32)
    x[np.arange(count), :, :, y] += 1
    return x, y


def train(name, device="cuda", steps=STEPS, **options):
    training = pc.Trainer(net(name), optimizer=optim.SGD(0.02, momentum=0.9), device=device, seed=1, **options)
    losses = [training.step(*batch(step))["loss"] for step in range(steps)]
    arrays = {key: np.array(training.variables[key].numpy()) for key in training.variables}
    return losses, arrays, training._training.get(*batch(0)).program.graph_text()


def measured(text):
    return text.count(", moments)"), re.findall(r"sums=\((\w+)", text)


@pytest.mark.parametrize("name", NETS)
def test_convolutions_measure_what_batch_norms_next_to_them_want_and_no_more(name):
    _, actual, text = train(name, steps=1)
    _, moments, sums = NETS[name]
    # The backward pass goes through the layers from the last to the first.
    assert measured(text) == (moments, sums[::-1])
    assert len(re.findall(r"batch_norm_statistics\([^)]*(?::1|\.moments\")\)", text)) >= moments
    if "siblings" in name:
        assert ".merged" in text
        assert len(re.findall(r"\.moments\" = slice\(", text)) == (2 if name == "siblings" else 1)
    _, expected, _ = train(name, "cpu", steps=1)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        # The gradient of a bias before a batch norm is what rounding leaves of zero.
        error = (1e-5 if "running" in key else 1e-4) * (np.abs(value).max() + 1e-3)
        np.testing.assert_allclose(actual[key], value, rtol=0, atol=error, err_msg=key)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["groups", "blocks", "frozen"])
def test_16_bits_measure_the_same(name, dtype):
    *_, text = train(name, dtype=dtype, steps=1)
    assert measured(text) == (NETS[name][1], NETS[name][2][::-1])


@pytest.mark.parametrize("name", ["relu behind", "blocks"])
def test_the_cpu_and_inference_measure_nothing(name):
    *_, text = train(name, "cpu", steps=1)
    assert measured(text) == (0, [])
    assert measured(pc.compile(net(name), (2, *IMAGE), device="cuda").graph_text()) == (0, [])


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ({}, (2, ["relu"])),
        ({"conv2d": "reference"}, (0, ["relu"])),
        ({"conv2d_grad_input": "reference"}, (2, [])),
        ({"1": "reference"}, (1, ["relu"])),
        ({"batch_norm_statistics": "reference"}, (2, ["relu"])),
    ],
    ids=["none", "forward", "backward", "one", "norms"],
)
def test_a_convolution_whose_kernel_is_named_does_not_measure(pins, expected):
    root = net("relu behind")
    inputs = {"x": ((6, *IMAGE), "float32"), "y": ((6,), "int64")}
    traced = trace(lambda x, y: {"loss": functional.cross_entropy(root(x), y)}, inputs, root=root)
    spec = optim.SGD(0.1).spec({key: value for key, value in traced.parameters.items() if not value.is_buffer})
    program = compile_traced(traced, mode="training", optimizer=spec, device="cuda", variants=pins)
    assert measured(program.graph_text()) == expected
    program.run(*batch(0))


FLOAT32 = [(name, "float32", 1e-3) for name, (_, moments, _) in NETS.items() if moments]
NARROW = [(name, *kind) for name in ("groups", "blocks") for kind in (("bfloat16", 0.03), ("float16", 0.01))]


@pytest.mark.parametrize(("name", "dtype", "error"), FLOAT32 + NARROW)
def test_twenty_steps_give_the_losses_of_the_cpu(name, dtype, error):
    expected, _, _ = train(name, "cpu")
    actual, _, _ = train(name, dtype=dtype)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=error * expected[0])
    assert expected[-1] < 0.9 * expected[0]


@pytest.mark.skipif(not EMULATED, reason="needs the emulated module")
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("bfloat16", 0.03)])
def test_kernels_that_leave_the_sums_of_one_tile_give_the_losses_of_the_cpu(dtype, error, monkeypatch):
    """As those of a library that measure what they make."""
    expected, _, _ = train("blocks", "cpu")
    monkeypatch.setenv("PYCNN_EMULATED_MEASURE", "1")
    training = pc.Trainer(net("blocks"), optimizer=optim.SGD(0.02, momentum=0.9), device="cuda", seed=1, dtype=dtype)
    actual = [training.step(*batch(step))["loss"] for step in range(STEPS)]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=error * expected[0])
    assert "measured" in training._training.get(*batch(0)).program.explain()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["groups", "blocks"])
def test_two_trainings_have_the_same_bits(name, dtype):
    first, second = (train(name, dtype=dtype, steps=BIT_STEPS) for _ in range(2))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][key], second[1][key]) for key in first[1])


@pytest.mark.parametrize("name", ["relu behind", "blocks"])
def test_results_that_are_computed_again_have_the_same_bits(name):
    (losses, arrays, text), *others = (train(name, recompute=way, steps=BIT_STEPS) for way in ("none", "cheap", "sqrt"))
    assert ".again" not in text
    assert ".again" in others[1][2]
    for other_losses, other, _ in others:
        assert other_losses == losses
        assert all(np.array_equal(other[key], arrays[key]) for key in arrays)
