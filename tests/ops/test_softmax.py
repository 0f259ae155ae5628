"""Softmax and its logarithm over the last axis."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import gradients, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import DTypeError, ShapeError
from pycnn.testing import check_gradients

NAMES = ("softmax", "log_softmax")
names = pytest.mark.parametrize("name", NAMES)
SHAPES = [(1, 1), (0, 5), (3, 2), (5, 10), (2, 3, 17), (4, 33), (1, 1000), (2, 2049), (2, 3, 4, 5), (7,)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def bound_of(name, x, expected):
    spread = x.max(axis=-1, keepdims=True, initial=0) - x  # x - max is rounded, exp makes that relative
    if name == "softmax":
        return tolerances.sum_bound(expected, x.shape[-1]) + tolerances.elementwise_bound(expected * (1 + spread))
    return tolerances.sum_bound(1.0, x.shape[-1]) + tolerances.elementwise_bound(np.abs(expected) + spread)


@names
@shapes
@pytest.mark.parametrize("path", paths("softmax", "log_softmax"))
def test_forward(name, shape, path):
    x = reals(np.random.default_rng(0), shape) * 5
    expected = getattr(reference, name)(x) if x.size else x
    found = run(getattr(functional, name), x, path=path)
    tolerances.assert_within(found, expected, bound_of(name, reference.f64(x), expected))


@names
@shapes
@pytest.mark.parametrize("path", paths("softmax_grad", "log_softmax_grad"))
def test_gradient(name, shape, path):
    rng = np.random.default_rng(1)
    x, grad = reals(rng, shape) * 2, reals(rng, shape)
    (found,) = gradients(getattr(functional, name), x, grad=grad, path=path)
    g, absolute = reference.f64(grad), np.abs(reference.f64(grad))
    y = reference.softmax(x) if x.size else reference.f64(x)
    if name == "softmax":
        expected = y * (g - (g * y).sum(axis=-1, keepdims=True))
        magnitude = y * (absolute + (absolute * y).sum(axis=-1, keepdims=True))
    else:
        expected = g - y * g.sum(axis=-1, keepdims=True)
        magnitude = absolute + y * absolute.sum(axis=-1, keepdims=True)
    spread = 1 + np.abs(x).max(initial=0)
    bound = tolerances.sum_bound(magnitude, shape[-1]) + tolerances.elementwise_bound(magnitude * spread)
    tolerances.assert_within(found, expected, bound)


@names
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 3, 7), (2, 17), (5,)], ids=str)
def test_gradient_agrees_with_finite_differences(name, shape):
    check_gradients(getattr(functional, name), reals(np.random.default_rng(0), shape))


@names
@pytest.mark.parametrize("path", paths("softmax", "log_softmax"))
def test_large_logits_neither_overflow_nor_underflow(name, path):
    x = np.array([[1e4, 1e4 - 1, 0], [-1e4, -1e4, -1e4], [3e38, -3e38, 0], [88, 89, 90]], np.float32)
    expected = getattr(reference, name)(x)
    found = run(getattr(functional, name), x, path=path)
    assert np.isfinite(found).all() or name == "log_softmax"
    assert not np.isnan(found).any()
    tolerances.assert_within(
        found[[0, 1, 3]], expected[[0, 1, 3]], bound_of(name, reference.f64(x), expected)[[0, 1, 3]]
    )


@pytest.mark.parametrize("path", paths("softmax"))
def test_minus_infinity_gets_probability_0(path):
    x = np.full((2, 19), -np.inf, np.float32)
    x[0, 4], x[1, [2, 18]] = 3.0, 1.0
    found = run(functional.softmax, x, path=path)
    assert found[0, 4] == 1
    assert found[1, [2, 18]].tolist() == [0.5, 0.5]
    assert np.count_nonzero(found) == 3


@names
@pytest.mark.parametrize("path", paths("softmax", "log_softmax"))
def test_nan_stays_in_its_row(name, path):
    x = reals(np.random.default_rng(0), (3, 18))
    x[1, 17] = np.nan
    hit = np.isnan(run(getattr(functional, name), x, path=path))
    assert hit[1].all()
    assert not hit[[0, 2]].any()


@names
@pytest.mark.parametrize("path", isas())
def test_threads_and_batch_splits_give_the_same_bits(name, path):
    op = getattr(functional, name)
    for shape in ((300, 10), (9, 1000)):
        x = reals(np.random.default_rng(0), shape)
        whole = run(op, x, path=path, threads=1)
        (grad,) = gradients(op, x, grad=x, path=path, threads=1)
        for threads in (2, 3, 7):
            tolerances.assert_bits(run(op, x, path=path, threads=threads), whole)
            tolerances.assert_bits(gradients(op, x, grad=x, path=path, threads=threads)[0], grad)
        for i in range(8):
            tolerances.assert_bits(run(op, x[i : i + 1], path=path), whole[i : i + 1])


@pytest.mark.parametrize("path", isas())
def test_probabilities_add_up_to_1(path):
    x = reals(np.random.default_rng(0), (50, 33)) * 10
    total = run(functional.softmax, x, path=path).astype(np.float64).sum(axis=1)
    tolerances.assert_within(total, np.ones(50), tolerances.sum_bound(np.ones(50), 33))


@names
def test_rejects_what_has_no_axis_of_classes(name):
    assert getattr(functional, name)(np.zeros((3, 0), np.float32)).shape == (3, 0)
    with pytest.raises(ShapeError):
        getattr(functional, name)(np.float32(3))
    with pytest.raises(DTypeError, match="i64"):
        getattr(functional, name)(np.zeros((3, 2), np.int64))
