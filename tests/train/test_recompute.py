"""Computing results again instead of keeping them: the same bits in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn
from pycnn import functional, nn
from pycnn.errors import ArgumentError
from pycnn.program import compile_traced, plan_memory
from pycnn.tracing import trace

WAYS = ("none", "cheap", "sqrt")
SIDE, CHANNELS = 16, 3


class Branches(nn.Module):
    """Two convolutions with batch norm and ReLU whose results stand side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.right = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.LeakyReLU(0.1)
        )

    def forward(self, x):
        return functional.concat([self.left(x), self.right(x)])


class Twice(nn.Module):
    """A layer used twice: its weight has a sum of two gradients, its running statistics move twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        for _ in range(2):
            x = functional.relu6(self.norm(self.conv(x)))
        return x


def make_net():
    pycnn.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.BasicBlock(16, 16),
        nn.BasicBlock(16, 16),
        nn.Dropout(0.3),
        Branches(8),
        Twice(16),
        nn.BasicBlock(16, 16),
        nn.BasicBlock(16, 32, stride=2),
        nn.Sigmoid(),
        nn.BasicBlock(32, 32),
        nn.GlobalAvgPool2d(),
        nn.Linear(32, 10),
    )


def sum_of_squares(x):
    return functional.sum(x * x)


def batch(step):
    rng = np.random.default_rng(step)
    return rng.standard_normal((4, SIDE, SIDE, CHANNELS), np.float32), rng.integers(0, 10, 4)


def train(recompute, freeze=(), **options):
    net = make_net()
    net.build((SIDE, SIDE, CHANNELS))
    for pattern in freeze:
        net.freeze(pattern)
    optimizer = pycnn.optim.SGD(lr=0.02, momentum=0.9, weight_decay=1e-3)
    trainer = pycnn.Trainer(net, optimizer=optimizer, recompute=recompute, seed=3, **options)
    losses = [trainer.step(*batch(step))["loss"] for step in range(3)]
    program = trainer._training.get(*batch(0)).program
    return losses, net.state_dict(), program


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"winograd": False},
        {"clip_norm": 0.5, "ema_decay": 0.9},
        {"threads": 1},
        {"freeze": ("0.*", "1.*", "3.*")},
        {"dtype": "bfloat16", "emulate_bfloat16": True},
    ],
    ids=["plain", "no_winograd", "clipped", "one_thread", "frozen", "bfloat16"],
)
def test_training_has_the_same_bits_and_takes_less_memory(options):
    results = {way: train(way, **options) for way in WAYS}
    losses, state, program = results["none"]
    assert ".again" not in program.graph_text()
    for way in WAYS[1:]:
        assert ".again" in results[way][2].graph_text()
        assert results[way][0] == losses
        for name, array in state.items():
            tolerances.assert_bits(results[way][1][name], array, f"{way} {name}")
    needed = [results[way][2].memory["arena_bytes"] for way in WAYS]
    assert needed[1] < 0.9 * needed[0]
    assert needed[2] < 0.8 * needed[0]


def test_memory_of_a_deep_net_grows_like_the_root_of_its_depth():
    def planned(blocks, recompute):
        pycnn.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            *(nn.BasicBlock(16, 16) for _ in range(blocks)),
            nn.GlobalAvgPool2d(),
            nn.Linear(16, 10),
        )
        traced = trace(
            lambda x, y: {"loss": functional.cross_entropy(net(x), y)},
            {"x": ((8, 32, 32, 3), "float32"), "y": ((8,), "int64")},
            root=net,
        )
        spec = pycnn.optim.SGD(lr=0.1).spec({k: p for k, p in traced.parameters.items() if not p.is_buffer})
        return plan_memory(traced, mode="training", optimizer=spec, recompute=recompute)["arena_bytes"]

    kept = planned(64, "none") / planned(16, "none")
    assert 3.5 < kept < 4.5
    # The root of 4 is 2.
    assert planned(64, "sqrt") / planned(16, "sqrt") < 2.6
    assert planned(64, "sqrt") < 0.25 * planned(64, "none")
    # Three tenths of what could be dropped stay.
    assert planned(64, "cheap") < 0.75 * planned(64, "none")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_grad_gives_the_same_bits(dtype):
    net = make_net()
    net.build((SIDE, SIDE, CHANNELS))
    x = batch(0)[0].astype(dtype)

    def loss(x):
        return sum_of_squares(net(x))

    found = {way: pycnn.value_and_grad(loss, parameters=(), training=True, recompute=way)(x) for way in WAYS}
    value, (grad, by_name) = found["none"]
    for way in WAYS[1:]:
        tolerances.assert_bits(found[way][0], value)
        tolerances.assert_bits(found[way][1][0], grad)
        for name, array in by_name.items():
            tolerances.assert_bits(found[way][1][1][name], array, f"{way} {name}")


def test_gradients_through_joined_batch_norms_agree_with_the_parts():
    net = make_net()
    net.build((SIDE, SIDE, CHANNELS))
    x = batch(0)[0].astype(np.float64)

    def loss(x):
        return sum_of_squares(net(x))

    # A pin keeps the batch norms, their activations and gradients apart.
    pins = {"batch_norm_train": "batch_norm_train.reference"}
    value, (grad, by_name) = pycnn.value_and_grad(loss, parameters=(), training=True)(x)
    expected, (wanted, wanted_by_name) = pycnn.value_and_grad(loss, parameters=(), training=True, variants=pins)(x)
    share = tolerances.NET_IN_FLOAT64
    tolerances.assert_within(value, expected, share * abs(expected))
    tolerances.assert_within(grad, wanted, share * np.abs(wanted).max())
    largest = max(np.abs(array).max() for array in wanted_by_name.values())
    for name, array in wanted_by_name.items():
        tolerances.assert_within(by_name[name], array, share * largest, name)


@pytest.mark.parametrize("value", ["all", "Sqrt", "", None, True, 1])
def test_unknown_ways_are_refused_with_those_that_there_are(value):
    words = r"recompute: .* is not one of 'none', 'cheap', 'sqrt'"
    x, _ = batch(0)
    with pytest.raises(ArgumentError, match=words):
        pycnn.Trainer(make_net(), recompute=value)
    with pytest.raises(ArgumentError, match=words):
        pycnn.value_and_grad(lambda x: functional.sum(x * x), recompute=value)(x)
    traced = trace(lambda x: x * x, {"x": (x.shape, "float32")})
    with pytest.raises(ArgumentError, match=words):
        compile_traced(traced, recompute=value)
    with pytest.raises(ArgumentError, match=words):
        plan_memory(traced, recompute=value)
