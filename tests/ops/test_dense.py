"""Dense (linear) layers and their two gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_paths import (
    ISAS,
    Path,
    bfloat16_paths,
    build,
    gradients,
    in_bfloat16,
    integers,
    isas,
    paths,
    reals,
    run,
)

from pycnn import functional
from pycnn.errors import DTypeError, ShapeError
from pycnn.testing import check_gradients
from pycnn.testing import strategies as edges

OPS = ("dense", "dense_grad_input", "dense_grad_weight")

# Input shape, outputs, bias.
CASES = {
    "one": ((1, 1), 1, True),
    "empty_batch": ((0, 5), 3, True),
    "one_row": ((1, 400), 120, True),
    "lenet_output": ((5, 84), 10, True),
    "odd": ((3, 17), 33, True),
    "no_bias": ((4, 31), 15, False),
    "one_output": ((33, 65), 1, True),
    "one_input": ((16, 1), 17, True),
    "wide": ((2, 1000), 3, True),
    "many_outputs": ((2, 3), 2049, True),
    "tall": ((257, 16), 9, True),
    "rank_3": ((2, 3, 7), 5, True),
    "rank_4": ((2, 1, 3, 33), 4, False),
    "large": ((5, 2080), 509, True),  # from here on weights are read as they are
    "large_odd": ((3, 1051), 1009, False),
    "large_empty": ((0, 1056), 1000, True),
    "large_batch": ((67, 1120), 940, True),
}
cases = pytest.mark.parametrize(("shape", "out", "bias"), [pytest.param(*c, id=name) for name, c in CASES.items()])


def make_arrays(make, shape, out, bias, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [make(rng, shape), make(rng, (out, shape[-1]))]
    return [*arrays, make(rng, (out,))] if bias else arrays


def expected_gradients(arrays, grad):
    x, weight = (reference.f64(a) for a in arrays[:2])
    rows, grads = x.reshape(-1, x.shape[-1]), reference.f64(grad).reshape(-1, weight.shape[0])
    result = [(grads @ weight).reshape(x.shape), grads.T @ rows]
    return [*result, grads.sum(axis=0)] if len(arrays) == 3 else result


@cases
@pytest.mark.parametrize("path", paths(*OPS))
def test_forward_and_gradients_are_exact_on_whole_numbers(shape, out, bias, path):
    arrays = make_arrays(integers, shape, out, bias)
    expected = reference.linear(*arrays)
    tolerances.assert_exact(run(functional.linear, *arrays, path=path), expected)
    grad = integers(np.random.default_rng(1), expected.shape)
    found = gradients(functional.linear, *arrays, grad=grad, path=path)
    for name, got, want in zip(("input", "weight", "bias"), found, expected_gradients(arrays, grad)):
        tolerances.assert_exact(got, want, name)


@cases
@pytest.mark.parametrize("path", paths(*OPS))
def test_forward_and_gradients_are_within_the_bounds_of_their_sums(shape, out, bias, path):
    arrays = make_arrays(reals, shape, out, bias, seed=2)
    absolute = [np.abs(a) for a in arrays]
    expected = reference.linear(*arrays)
    bound = tolerances.sum_bound(reference.linear(*absolute), shape[-1] + 1)
    tolerances.assert_within(run(functional.linear, *arrays, path=path), expected, bound)
    grad = reals(np.random.default_rng(3), expected.shape)
    found = gradients(functional.linear, *arrays, grad=grad, path=path)
    magnitudes = expected_gradients(absolute, np.abs(grad))
    rows = expected.size // out
    for length, got, want, magnitude in zip((out, rows, rows), found, expected_gradients(arrays, grad), magnitudes):
        tolerances.assert_within(got, want, tolerances.sum_bound(magnitude, length))


@cases
@pytest.mark.parametrize("path", bfloat16_paths(*OPS))
def test_bfloat16_is_exact_on_whole_numbers_but_for_the_last_rounding(shape, out, bias, path):
    arrays = make_arrays(integers, shape, out, bias)
    expected = reference.linear(*arrays)
    op = in_bfloat16(functional.linear)
    tolerances.assert_exact(run(op, *arrays, path=path), reference.bfloat16(expected))
    grad = integers(np.random.default_rng(1), expected.shape)
    found = gradients(op, *arrays, grad=grad, path=path)
    to_input, *rest = expected_gradients(arrays, grad)
    for name, got, want in zip(("input", "weight", "bias"), found, [reference.bfloat16(to_input), *rest]):
        tolerances.assert_exact(got, want, name)


@pytest.mark.parametrize("name", ["one", "odd", "no_bias", "rank_3", "rank_4"])
def test_gradients_agree_with_finite_differences(name):
    shape, out, bias = CASES[name]
    check_gradients(functional.linear, *make_arrays(reals, shape, out, bias))


# ---- Properties


@pytest.mark.parametrize("path", paths(*OPS))
@pytest.mark.parametrize("name", ["lenet_output", "odd", "tall", "many_outputs", "wide", "large"])
def test_any_number_of_threads_gives_the_same_bits(name, path):
    arrays = make_arrays(reals, *CASES[name])
    first = run(functional.linear, *arrays, path=path, threads=1)
    grad = reals(np.random.default_rng(1), first.shape)
    expected = gradients(functional.linear, *arrays, grad=grad, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(functional.linear, *arrays, path=path, threads=threads), first)
        found = gradients(functional.linear, *arrays, grad=grad, path=path, threads=threads)
        for got, want in zip(found, expected):
            tolerances.assert_bits(got, want)


@pytest.mark.parametrize("path", paths(*OPS))
@pytest.mark.parametrize("features", [(84, 10), (400, 120), (17, 33), (1000, 3), (3, 2049), (2080, 509)])
def test_a_batch_has_the_bits_of_its_rows_alone(features, path):
    x, weight, bias = make_arrays(reals, (8, features[0]), features[1], True)
    whole = run(functional.linear, x, weight, bias, path=path)
    grad = reals(np.random.default_rng(1), whole.shape)
    (whole_grad,) = gradients(functional.linear, x, weight, bias, grad=grad, path=path, wrt=(0,))
    for i in range(8):
        one = slice(i, i + 1)
        tolerances.assert_bits(run(functional.linear, x[one], weight, bias, path=path), whole[one])
        (alone,) = gradients(functional.linear, x[one], weight, bias, grad=grad[one], path=path, wrt=(0,))
        tolerances.assert_bits(alone, whole_grad[one])


@pytest.mark.parametrize("path", isas())
def test_further_axes_are_further_rows(path):
    x, weight, bias = make_arrays(reals, (2, 3, 5, 17), 9, True)
    flat = run(functional.linear, x.reshape(30, 17), weight, bias, path=path)
    tolerances.assert_bits(run(functional.linear, x, weight, bias, path=path).reshape(30, 9), flat)


@pytest.mark.parametrize(("inputs", "out"), [(17, 33), (2080, 509)])
@pytest.mark.parametrize("path", isas())
def test_a_fused_epilogue_computes_what_the_ops_say(inputs, out, path):
    x, weight, bias = make_arrays(integers, (5, inputs), out, True)
    x = x / np.float32(inputs)  # not all of them saturate
    other = integers(np.random.default_rng(1), (5, out))
    for activation in (functional.relu, functional.relu6, functional.leaky_relu, functional.tanh, functional.sigmoid):

        def layer(x, weight, bias, other, f=activation):
            return f(functional.linear(x, weight, bias) + other)

        fused = build(layer, x, weight, bias, other, path=path)
        plain = build(layer, x, weight, bias, other, path=path, fuse=False)
        assert "activation." not in fused.explain()
        assert "activation." in plain.explain()
        tolerances.assert_bits(fused(x, weight, bias, other), plain(x, weight, bias, other))


@pytest.mark.parametrize("path", paths("dense"))
def test_nan_stays_in_its_row(path):
    x, weight, bias = make_arrays(reals, (7, 33), 20, True)
    clean = run(functional.linear, x, weight, bias, path=path)
    x[4, 32] = np.nan
    hit = run(functional.linear, x, weight, bias, path=path)
    assert np.isnan(hit[4]).all()
    others = [0, 1, 2, 3, 5, 6]
    tolerances.assert_bits(hit[others], clean[others])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=edges.channels(max_value=70),
    features=edges.channels(max_value=140),
    out=edges.channels(max_value=140),
    isa=st.sampled_from(ISAS),
)
def test_random_problems_are_exact(rows, features, out, isa):
    arrays = make_arrays(integers, (rows, features), out, True)
    expected = reference.linear(*arrays)
    tolerances.assert_exact(run(functional.linear, *arrays, path=Path(isa)), expected)
    grad = integers(np.random.default_rng(1), expected.shape)
    found = gradients(functional.linear, *arrays, grad=grad, path=Path(isa))
    for got, want in zip(found, expected_gradients(arrays, grad)):
        tolerances.assert_exact(got, want)


# ---- Errors


@pytest.mark.parametrize(
    ("error", "text", "shapes"),
    [
        (ShapeError, "input has 5 features, weight expects 4", [(2, 5), (3, 4)]),
        (ShapeError, r"bias is \(4,?\), expected \(3,?\)", [(2, 5), (3, 5), (4,)]),
        (ShapeError, "weight .* 1 axis", [(2, 5), (5,)]),
        (ShapeError, "at least 2", [(5,), (3, 5)]),
        (ShapeError, "no feature", [(2, 0), (3, 0)]),
        (ShapeError, "empty axis", [(2, 5), (0, 5)]),
    ],
)
def test_rejects_bad_shapes_with_the_numbers(error, text, shapes):
    with pytest.raises(error, match=text):
        functional.linear(*(np.zeros(shape, np.float32) for shape in shapes))


def test_hints_at_a_missing_flatten():
    with pytest.raises(ShapeError, match="flatten"):
        functional.linear(np.zeros((2, 4, 4, 3), np.float32), np.zeros((10, 48), np.float32))


def test_rejects_mixed_element_types():
    with pytest.raises(DTypeError, match="f64"):
        functional.linear(np.zeros((2, 5), np.float32), np.zeros((3, 5), np.float64))
