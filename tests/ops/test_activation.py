"""ReLU and its relatives, sigmoid, tanh."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, distinct, gradients, isas, paths, reals, run

import pycnn
from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError
from pycnn.testing import check_gradients

NAMES = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "scaled_tanh")
EXACT = ("relu", "relu6")
names = pytest.mark.parametrize("name", NAMES)
SHAPES = [(), (1,), (0, 3), (7,), (2, 3, 5, 17), (33, 65), (3, 2049)]
# Tails, the neighbourhood of zero, overflow of exp, and both zeros.
HARD = np.array(
    [s * v for v in (0.0, 1e-30, 1e-8, 1e-3, 0.5, 1, 9, 20, 88, 104, 1e4, 3e38) for s in (1, -1)], np.float32
)


def derivative(name, x):
    x = reference.f64(x)
    if name in ("relu", "leaky_relu"):
        return np.where(x > 0, 1.0, 0.0 if name == "relu" else 0.01)
    if name == "relu6":
        return np.where((x > 0) & (x < 6), 1.0, 0.0)
    y = getattr(reference, name)(x)
    if name == "sigmoid":
        return y * (1 - y)
    if name == "tanh":
        return 1 - y**2
    return 2 / 3 * (1.7159 - y**2 / 1.7159)


@names
@pytest.mark.parametrize("path", paths("activation"))
def test_forward(name, path):
    rng = np.random.default_rng(0)
    for x in [*(reals(rng, shape) * 3 for shape in SHAPES), HARD]:
        x = np.asarray(x, np.float32)
        expected = getattr(reference, name)(x)
        found = run(getattr(functional, name), x, path=path)
        tolerances.assert_within(found, expected, 0 if name in EXACT else tolerances.elementwise_bound(expected))


@names
@pytest.mark.parametrize("path", paths("activation"))
def test_nan_stays_and_infinity_saturates(name, path):
    x = np.zeros(37, np.float32)
    x[[3, 16, 36]] = np.nan
    x[[5, 6]] = np.inf, -np.inf
    found = run(getattr(functional, name), x, path=path)
    assert np.isnan(found[[3, 16, 36]]).all()
    assert np.isnan(found).sum() == 3
    top = {"relu6": 6.0, "sigmoid": 1.0, "tanh": 1.0, "scaled_tanh": np.float32(1.7159)}.get(name, np.inf)
    low = {"relu": 0.0, "relu6": 0.0, "sigmoid": 0.0, "leaky_relu": -np.inf}.get(name, -top)
    assert found[5] == top
    assert found[6] == low


@names
@pytest.mark.parametrize("path", paths("activation_grad"))
def test_gradient(name, path):
    rng = np.random.default_rng(1)
    for shape in SHAPES[1:]:
        x, grad = reals(rng, shape) * 4, reals(rng, shape)
        (found,) = gradients(getattr(functional, name), x, grad=grad, path=path)
        expected = grad * derivative(name, x)
        # It is computed from the output: 1 - y * y cancels where y is near one.
        magnitude = expected if name in EXACT else np.abs(grad) * 2 + np.abs(expected)
        tolerances.assert_within(found, expected, tolerances.elementwise_bound(magnitude))


@pytest.mark.parametrize("path", paths("activation_grad"))
def test_gradient_of_relu_at_zero_is_zero(path):
    x = np.array([0.0, -0.0, 1e-38, -1e-38, np.nan] * 5, np.float32)
    (found,) = gradients(functional.relu, x, grad=np.ones_like(x), path=path)
    assert found[:4].tolist() == [0, 0, 1, 0]
    assert not found[[0, 1, 3]].any()


@names
def test_gradients_agree_with_finite_differences(name):
    check_gradients(getattr(functional, name), distinct(np.random.default_rng(0), (5, 7), 0.43))


@pytest.mark.parametrize("path", paths("activation_grad"))
def test_gradient_of_relu6_is_closed_at_both_ends(path):
    x = np.array([0.0, 6.0, 5.75, 1e-38, 7.0, np.nan] * 5, np.float32)
    grad = np.where(x == 6, np.inf, 1).astype(np.float32)
    (found,) = gradients(functional.relu6, x, grad=np.ones_like(x), path=path)
    assert found[:5].tolist() == [0, 0, 1, 1, 0]
    program = pycnn.value_and_grad(lambda x, g: functional.sum(functional.multiply(functional.relu6(x), g)))
    assert program(x[1:2], grad[1:2])[1].tolist() == [0]


@pytest.mark.parametrize("name", ["relu", "relu6"])
@pytest.mark.parametrize("path", isas())
def test_fused_into_a_layer_it_gives_the_same_bits(name, path):
    rng = np.random.default_rng(0)
    x, weight, bias = reals(rng, (2, 7, 6, 5)), reals(rng, (19, 3, 3, 5)), reals(rng, (19,)) * 4

    def net(x, weight, bias):
        return getattr(functional, name)(functional.conv2d(x, weight, bias, padding=1))

    program = build(net, x, weight, bias, path=path)
    assert "activation" not in program.explain()
    padded = run(lambda x, w, b: functional.conv2d(x, w, b, padding=1), x, weight, bias, path=path)
    tolerances.assert_bits(program(x, weight, bias), run(getattr(functional, name), padded, path=path))


# ---- Rules that make pictures instead of gradients

RULES = ("exact", "guided", "deconvnet")


def through(rule, x, top, grad):
    """What comes back through relu (top infinity) or relu6 (top 6)."""
    open_unit = (x > 0) & (x < top)
    positive = np.maximum(grad, 0)
    return {"exact": grad * open_unit, "guided": positive * open_unit, "deconvnet": positive}[rule]


@pytest.mark.parametrize("name", ["relu", "relu6"])
@pytest.mark.parametrize("rule", RULES)
def test_relu_rules_through_two_layers(rule, name):
    rng = np.random.default_rng(3)
    x, w1, w2, w3 = (reals(rng, s, np.float64) for s in [(3, 8), (9, 8), (7, 9), (7,)])
    w1 *= 2
    top = np.inf if name == "relu" else 6.0
    act = getattr(functional, name)

    def score(x, w1, w2, w3):
        hidden = act(functional.linear(x, w1))
        return functional.sum(functional.multiply(act(functional.linear(hidden, w2)), w3))

    value, found = pycnn.value_and_grad(score, relu_rule=rule)(x, w1, w2, w3)
    a1 = x @ w1.T
    a2 = np.clip(a1, 0, top) @ w2.T
    assert (a1 > top).any() or name == "relu"
    expected_value = (np.clip(a2, 0, top) * w3).sum()
    back = through(rule, a2, top, np.broadcast_to(w3, a2.shape)) @ w2
    expected = through(rule, a1, top, back) @ w1
    tolerances.assert_within(value, expected_value, tolerances.sum_bound(np.abs(expected_value) + 100, 100, np.float64))
    tolerances.assert_within(found, expected, tolerances.sum_bound(np.abs(expected) + 100, 100, np.float64))


def test_rules_change_relu_only_and_are_checked():
    x = reals(np.random.default_rng(0), (4, 5), np.float64)

    def score(x):
        return functional.sum(functional.multiply(functional.tanh(functional.leaky_relu(x)), -1.0 * x))

    exact = pycnn.grad(score)(x)
    tolerances.assert_bits(pycnn.grad(score, relu_rule="guided")(x), exact)
    with pytest.raises(ArgumentError, match="relu_rule 'guide'(.|\n)*exact, guided, deconvnet"):
        pycnn.grad(score, relu_rule="guide")(x)


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("path", paths("activation", "activation_grad"))
def test_leaky_relu_of_any_slope(slope, path):
    def leaky(x):
        return functional.leaky_relu(x, negative_slope=slope)

    x = reals(np.random.default_rng(0), (3, 35))
    expected = reference.leaky_relu(x, negative_slope=slope)
    tolerances.assert_within(run(leaky, x, path=path), expected, tolerances.elementwise_bound(expected))
    (found,) = gradients(leaky, x, grad=np.ones_like(x), path=path)
    want = np.where(x > 0, 1.0, slope)
    tolerances.assert_within(found, want, tolerances.elementwise_bound(want))


@names
@pytest.mark.parametrize("path", isas())
def test_threads_and_cuts_give_the_same_bits(name, path):
    x = reals(np.random.default_rng(0), (3, 10_007)) * 4
    op = getattr(functional, name)
    whole = run(op, x, path=path, threads=1)
    (grad,) = gradients(op, x, grad=x, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(op, x, path=path, threads=threads), whole)
        tolerances.assert_bits(gradients(op, x, grad=x, path=path, threads=threads)[0], grad)
    for cut in (1, 5, 17):  # an element's bits do not depend on its place
        piece = np.ascontiguousarray(x[:, cut : cut + 40])
        tolerances.assert_bits(run(op, piece, path=path), whole[:, cut : cut + 40])


def test_several_activations_in_place_change_no_bit():
    x = reals(np.random.default_rng(0), (4, 33))

    def net(x):
        y = functional.tanh(x)
        z = functional.sigmoid(y)
        return functional.relu(z - y) * y

    tolerances.assert_bits(build(net, x)(x), build(net, x, reuse_memory=False)(x))


@pytest.mark.parametrize("slope", [-0.1, float("nan"), float("inf")])
def test_rejects_a_slope_out_of_range(slope):
    with pytest.raises(ArgumentError, match="slope is"):
        functional.leaky_relu(np.zeros(3, np.float32), negative_slope=slope)


@names
def test_rejects_integers(name):
    with pytest.raises(DTypeError, match="u8"):
        getattr(functional, name)(np.zeros(3, np.uint8))
