"""The gradient check must find what is wrong, and say where."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

import pycnn
from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.tensor import Parameter
from pycnn.testing import check_gradients, gradients


def wrong(monkeypatch, change):
    """Let the check see gradients that were tampered with."""
    honest = gradients._Function.run

    def tampered(self):
        results = honest(self)
        return {k: change(v.copy()) if k.startswith("gradient") else v for k, v in results.items()}

    monkeypatch.setattr(gradients._Function, "run", tampered)


def test_accepts_right_gradients():
    x = np.random.default_rng(0).standard_normal((3, 4))
    check_gradients(lambda x: functional.sum(functional.tanh(x) * x), x)
    check_gradients(functional.sigmoid, x.astype(np.float32))


def test_finds_a_gradient_off_by_a_part_in_a_hundred_thousand(monkeypatch):
    wrong(monkeypatch, lambda g: g * (1 + 1e-5))
    with pytest.raises(AssertionError, match=r"argument 0 \(3, 4\), element \(0, 0\)"):
        check_gradients(functional.tanh, np.full((3, 4), 0.3))


def test_finds_one_wrong_element_of_many(monkeypatch):
    def change(g):
        g[17, 31] = 0
        return g

    wrong(monkeypatch, change)
    with pytest.raises(AssertionError, match="direction"):
        check_gradients(functional.tanh, np.random.default_rng(0).standard_normal((40, 40)), elements=2)


def test_says_when_a_kink_is_near():
    with pytest.raises(AssertionError, match="kink"):
        check_gradients(functional.relu, np.array([1.0, 2e-6, -1.0]))


def test_checks_parameters_and_integer_arguments_are_left_alone():
    weight = Parameter((3, 5), init=np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32))
    weight.name = "weight"
    before = weight.numpy()

    def loss(x, labels):
        return functional.cross_entropy(functional.linear(x, weight), labels)

    check_gradients(loss, np.random.default_rng(1).standard_normal((4, 5)), np.array([0, 2, 1, 0]), parameters=())
    assert np.array_equal(weight.numpy(), before)


def test_checks_a_whole_module():
    net = pycnn.nn.Sequential(pycnn.nn.Conv2d(2, 3, kernel_size=3), pycnn.nn.Tanh(), pycnn.nn.Flatten())
    check_gradients(net, np.random.default_rng(0).standard_normal((2, 5, 5, 2)), parameters=(), training=True)


def test_finds_a_wrong_parameter_gradient_by_name(monkeypatch):
    weight = Parameter((1, 5), init=np.ones((1, 5), np.float32))
    weight.name = "weight"
    wrong(monkeypatch, lambda g: g + 1e-3)
    with pytest.raises(AssertionError, match="parameter 'weight'"):
        check_gradients(lambda n: functional.linear(np.ones((2, 5)), weight), np.array([1]), argnums=(), parameters=())


def test_needs_something_to_check():
    with pytest.raises(ArgumentError, match="nothing|no argument is floating"):
        check_gradients(lambda n: n, np.array([1]))


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(gradients).failed == 0
    assert doctest.testmod(gradients).attempted > 0
