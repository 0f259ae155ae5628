"""Initializers: the numbers of the papers."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.nn import init


@pytest.mark.parametrize(
    ("rule", "std"),
    [
        (init.he_normal(), np.sqrt(2 / 72)),
        (init.he_uniform(), np.sqrt(2 / 72)),
        (init.he_normal(mode="fan_out"), np.sqrt(2 / (9 * 256))),
        (init.xavier_uniform(), np.sqrt(2 / (72 + 9 * 256))),
        (init.xavier_normal(gain=2.0), 2 * np.sqrt(2 / (72 + 9 * 256))),
        (init.lecun_1998(), 2.4 / 72 / np.sqrt(3)),
        (init.default, 1 / np.sqrt(72) / np.sqrt(3)),
        (init.normal(0.3), 0.3),
    ],
)
def test_spread_of_a_rule(rule, std):
    weight = nn.Conv2d(8, 256, 3, weight_init=rule).weight.numpy()
    assert weight.std() == pytest.approx(std, rel=0.02)
    assert abs(weight.mean()) < 0.03 * std


def test_truncated_normal_stays_within_two_deviations():
    weight = nn.Linear(100, 100, weight_init=init.truncated_normal(0.5)).weight.numpy()
    assert np.abs(weight).max() <= 1.0


def test_initialize_redraws_weights_and_leaves_norms():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).build((5, 5, 1))
    before = net.state_dict()
    init.initialize(net, weight=init.he_normal(), bias=init.constant(0.5))
    after = net.state_dict()
    assert not np.array_equal(before["0.weight"], after["0.weight"])
    assert np.array_equal(after["0.bias"], np.full(4, 0.5, np.float32))
    assert np.array_equal(after["1.weight"], np.ones(4))
    assert np.array_equal(after["1.bias"], np.zeros(4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: init.normal(-1.0),
        lambda: init.uniform(1.0, 0.0),
        lambda: init.he_normal(mode="fan"),
        lambda: init.constant(float("nan")),
        lambda: nn.Linear(2, 2, weight_init="he"),
    ],
)
def test_bad_rules_are_refused(make):
    with pytest.raises(pc.ArgumentError):
        make()
