"""Batch norms that the 1x1 convolution behind them does on the way: the same bits in fewer steps."""

from __future__ import annotations

from collections import Counter

import pytest
import short_trainings
import tolerances
from kernel_paths import ISAS

from pycnn import functional, nn

pytestmark = [
    pytest.mark.skipif("avx512" not in ISAS, reason="the kernels that do it are for AVX-512"),
    pytest.mark.usefixtures("strassen"),
]

# An odd number of pixels: the last one of an image has no partner.
IMAGES = (3, 13, 11, 5)
CHANNELS = 128
APART = {f"batch_norm_{which}": f"batch_norm_{which}.chunked.avx512" for which in ("apply", "apply_grad", "train_grad")}


class Net(nn.Module):
    """Two blocks of 1x1 convolutions; the second halves the images."""

    def __init__(self, activation) -> None:
        super().__init__()
        self.activation = activation
        self.stem = nn.Conv2d(IMAGES[3], CHANNELS, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(CHANNELS)
        self.wide = nn.Conv2d(CHANNELS, 2 * CHANNELS, 1, bias=False)
        self.wide_norm = nn.BatchNorm2d(2 * CHANNELS)
        self.narrow = nn.Conv2d(2 * CHANNELS, CHANNELS, 1, bias=False)
        self.narrow_norm = nn.BatchNorm2d(CHANNELS)
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.last_norm = nn.BatchNorm2d(CHANNELS)
        self.shortcut = nn.Conv2d(CHANNELS, CHANNELS, 1, stride=2, bias=False)
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, x):
        x = self.activation(self.stem_norm(self.stem(x)))
        y = self.activation(self.wide_norm(self.wide(x)))
        x = functional.relu(self.narrow_norm(self.narrow(y)) + x)
        y = functional.relu(self.last_norm(self.last(x)) + x)
        y = functional.max_pool2d(y, kernel_size=1, stride=2)
        return self.head(functional.global_avg_pool2d(functional.relu(y + self.shortcut(x))))


def train(activation=functional.relu, images=IMAGES, **options):
    return short_trainings.train(lambda: Net(activation), images, isa="avx512", **options)


def assert_same(found, expected, what):
    tolerances.assert_bits(found[0], expected[0], what)
    for name, array in expected[1].items():
        tolerances.assert_bits(found[1][name], array, f"{what} {name}")


def steps_of(program):
    return Counter(step["op"] for step in program.steps())


@pytest.mark.parametrize(
    "activation",
    [functional.relu, functional.relu6, functional.leaky_relu, lambda x: x],
    ids=["relu", "relu6", "leaky_relu", "identity"],
)
def test_a_step_has_the_bits_of_batch_norms_by_themselves(activation):
    found, apart = train(activation), train(activation, variants=APART)
    assert_same(found, apart, "joined")
    fewer, all_of_them = steps_of(found[2]), steps_of(apart[2])
    for op in ("batch_norm_apply", "batch_norm_train_grad"):
        assert fewer[op] < all_of_them[op], op
    grads = ("batch_norm_apply_grad", "batch_norm_train_grad")
    assert sum(fewer[op] for op in grads) == sum(all_of_them[op] for op in grads) - 2


@pytest.mark.parametrize("images", [(16, 14, 14, 5), (40, 16, 16, 5), (1, 24, 20, 5)], ids=str)
def test_two_levels_and_many_chunks_have_the_bits_of_batch_norms_by_themselves(images):
    assert_same(train(images=images), train(images=images, variants=APART), str(images))


def test_explain_names_the_batch_norms_that_a_convolution_does():
    _, _, program = train(steps=0)
    absorbed = [op for step in program.steps() for _, op in step["absorbed"]]
    assert "batch_norm_apply" in absorbed
    assert "batch_norm_apply" in program.explain()


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_threads_do_not_show(threads, monkeypatch):
    monkeypatch.setenv("PYCNN_OVERSUBSCRIBE", "1")
    assert_same(train(threads=threads), train(threads=2), f"{threads} threads")


@pytest.mark.parametrize("options", [{"recompute": "none"}, {"recompute": "sqrt"}, {"reuse_memory": False}], ids=str)
def test_how_memory_is_planned_does_not_show(options):
    assert_same(train(**options), train(variants=APART), str(options))


def test_a_convolution_asked_for_by_name_does_nothing_else():
    pins = {"wide": "conv2d.strassen.avx512"}
    _, _, program = train(steps=0, variants=pins)
    assert steps_of(program)["batch_norm_apply"] > steps_of(train(steps=0)[2])["batch_norm_apply"]
