"""Activations and elementary functions that stand alone, and functions of two tensors."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, distinct, gradients, in_bfloat16, isas, paths, reals, run

import pycnn
from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients

# Function, arguments, float64 reference (None: tests/reference.py), what cancels inside, least argument.
CASES = {
    "abs": ("abs", {}, np.abs, 0, -9),
    "celu": ("celu", {"alpha": 0.75}, None, 0, -9),
    "clip": ("clip", {"min": -1.25, "max": 3.5}, None, 0, -9),
    "clip_below": ("clip", {"max": 0.5}, None, 0, -9),
    "elu": ("elu", {"alpha": 1.5}, None, 0, -9),
    "erf": ("erf", {}, None, 0, -9),
    "exp": ("exp", {}, np.exp, 0, -9),
    "gelu": ("gelu", {}, None, 1, -9),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}, None, 1, -9),
    "hardsigmoid": ("hardsigmoid", {}, None, 1, -9),
    "hardsigmoid_onnx": ("hardsigmoid", {"alpha": 0.2, "beta": 0.4}, None, 1, -9),
    "hardswish": ("hardswish", {}, None, 1, -9),
    "log": ("log", {}, np.log, 0, 0.05),
    "mish": ("mish", {}, None, 0, -9),
    "power_2": ("power", {"b": 2}, np.square, 0, -9),
    "power_3": ("power", {"b": 3}, lambda x: x**3, 0, -9),
    "power_2.5": ("power", {"b": 2.5}, lambda x: x**2.5, 0, 0.05),
    "power_0.5": ("power", {"b": 0.5}, np.sqrt, 0, 0.05),
    "reciprocal": ("reciprocal", {}, lambda x: 1 / x, 0, 0.05),
    "rsqrt": ("rsqrt", {}, lambda x: 1 / np.sqrt(x), 0, 0.05),
    "selu": ("selu", {}, None, 0, -9),
    "silu": ("silu", {}, None, 0, -9),
    "softplus": ("softplus", {"beta": 1.25}, None, 0, -9),
    "softsign": ("softsign", {}, None, 0, -9),
    "sqrt": ("sqrt", {}, np.sqrt, 0, 0.05),
    "threshold": ("threshold", {"threshold": 0.5, "value": -2.0}, None, 0, -9),
}
names = pytest.mark.parametrize("name", CASES)
SHAPES = [(), (1,), (0, 3), (7,), (2, 3, 5, 17), (3, 2049)]


def parts(name):
    function, options, expected, cancels, least = CASES[name]
    formula = expected or (lambda x: getattr(reference, function)(x, **options))
    return lambda x: getattr(functional, function)(x, **options), formula, cancels, least


def arguments(rng, shape, least, dtype=np.float32):
    return np.asarray(rng.uniform(least, 9, shape), dtype)


@names
@pytest.mark.parametrize("path", paths("unary"))
def test_forward(name, path):
    op, formula, cancels, least = parts(name)
    for shape in SHAPES:
        x = arguments(np.random.default_rng(0), shape, least)
        expected = formula(reference.f64(x))
        bound = tolerances.elementwise_bound(np.abs(expected) + cancels)
        tolerances.assert_within(run(op, x, path=path), expected, bound)


@names
def test_gradients_agree_with_finite_differences(name):
    op, _, _, least = parts(name)
    x = distinct(np.random.default_rng(0), (5, 7), 0.437)
    check_gradients(op, np.abs(x) + 0.1 if least > 0 else x, rtol=3e-6)


@names
@pytest.mark.parametrize("path", paths("unary_grad"))
def test_gradient_is_that_of_float64(name, path):
    op, _, _, least = parts(name)
    rng = np.random.default_rng(1)
    for shape in [(7,), (3, 2049)]:
        x, grad = arguments(rng, shape, least), reals(rng, shape)
        (found,) = gradients(op, x, grad=grad, path=path)
        (expected,) = gradients(op, reference.f64(x), grad=reference.f64(grad))
        bound = tolerances.elementwise_bound(np.abs(expected) + 8 * np.abs(grad))
        tolerances.assert_within(found, expected, bound)


@names
@pytest.mark.parametrize("path", isas())
def test_threads_and_cuts_give_the_same_bits(name, path):
    op, _, _, least = parts(name)
    x = arguments(np.random.default_rng(0), (3, 10_007), least)
    whole = run(op, x, path=path, threads=1)
    (grad,) = gradients(op, x, grad=x, path=path, threads=1)
    for threads in (2, 3):
        tolerances.assert_bits(run(op, x, path=path, threads=threads), whole)
        tolerances.assert_bits(gradients(op, x, grad=x, path=path, threads=threads)[0], grad)
    piece = np.ascontiguousarray(x[:, 5:45])  # an element's bits do not depend on its place
    tolerances.assert_bits(run(op, piece, path=path), whole[:, 5:45])


@names
@pytest.mark.parametrize("path", isas())
def test_bfloat16_is_float32_rounded(name, path):
    op, _, _, least = parts(name)
    x = reference.bfloat16(arguments(np.random.default_rng(0), (3, 37), least))
    tolerances.assert_bits(run(in_bfloat16(op), x, path=path), reference.bfloat16(run(op, x, path=path)))


@names
def test_rejects_integers_and_keeps_nan(name):
    op = parts(name)[0]
    with pytest.raises(DTypeError, match="u8"):
        op(np.zeros(3, np.uint8))
    assert np.isnan(op(np.array([np.nan, 1], np.float32))[0])


def test_it_writes_straight_into_its_part_of_a_concat_and_over_its_input():
    rng = np.random.default_rng(0)
    x, weight = reals(rng, (2, 6, 5, 4)), reals(rng, (8, 3, 3, 4))

    def net(x, weight):
        y = functional.conv2d(x, weight, padding=1)
        return functional.relu(functional.concat([functional.silu(y), functional.mish(functional.relu(y))]))

    program = build(net, x, weight)
    assert "concat" not in program.explain()
    tolerances.assert_bits(program(x, weight), build(net, x, weight, reuse_memory=False)(x, weight))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: functional.softplus(x, beta=0.0), "a is 0"),
        (lambda x: functional.celu(x, alpha=-1.0), "a is -1"),
        (lambda x: functional.elu(x, alpha=float("inf")), "a is inf"),
        (lambda x: functional.clip(x, min=float("nan")), "a is nan"),
        (lambda x: functional.gelu(x, approximate="erf"), "'erf'"),
        (lambda x: functional.threshold(x, threshold="1", value=0), "threshold must be a number"),
    ],
)
def test_rejects_constants_out_of_range(call, words):
    with pytest.raises(ArgumentError, match=words):
        call(np.zeros(3, np.float32))


# ---- Two tensors

PAIRS = {
    "divide": (np.divide, 0.3),
    "maximum": (np.maximum, -2),
    "minimum": (np.minimum, -2),
    "power": (np.power, 0.3),
    "prelu": (reference.prelu, -2),
}
pairs = pytest.mark.parametrize("name", PAIRS)
BROADCASTS = [((7,), (7,)), ((2, 5, 4, 17), (17,)), ((3, 1, 5), (1, 4, 1)), ((2, 33), ()), ((0, 3), (3,)), ((1,), (9,))]


@pairs
@pytest.mark.parametrize("path", paths("binary"))
def test_pairs_broadcast(name, path):
    formula, least = PAIRS[name]
    rng = np.random.default_rng(0)
    for a_shape, b_shape in BROADCASTS:
        a, b = (np.asarray(rng.uniform(least, 2, shape), np.float32) for shape in (a_shape, b_shape))
        expected = formula(reference.f64(a), reference.f64(b))
        found = run(getattr(functional, name), a, b, path=path)
        tolerances.assert_within(found, expected, tolerances.elementwise_bound(expected))


@pairs
@pytest.mark.parametrize(("a_shape", "b_shape"), [((3, 4, 5), (5,)), ((5,), (3, 4, 5)), ((2, 1), (1, 3)), ((), (4,))])
def test_gradients_of_pairs_agree_with_finite_differences(name, a_shape, b_shape):
    rng = np.random.default_rng(0)
    a, b = distinct(rng, a_shape, 0.437), distinct(rng, b_shape, 0.291) + 0.013
    if PAIRS[name][1] > 0:
        a, b = np.abs(a) + 0.5, np.abs(b) / 3 + 0.5
    check_gradients(getattr(functional, name), a, b)


@pairs
@pytest.mark.parametrize("path", isas())
def test_pairs_give_the_same_bits_on_any_threads(name, path):
    rng = np.random.default_rng(0)
    a, b = (np.asarray(rng.uniform(0.3, 2, shape), np.float32) for shape in ((37, 1009), (1009,)))
    op = getattr(functional, name)
    first = run(op, a, b, path=path, threads=1)
    grads = gradients(op, a, b, grad=a, path=path, threads=1)
    for threads in (2, 3):
        tolerances.assert_bits(run(op, a, b, path=path, threads=threads), first)
        for found, expected in zip(gradients(op, a, b, grad=a, path=path, threads=threads), grads, strict=True):
            tolerances.assert_bits(found, expected)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_equal_numbers_share_the_gradient_and_nan_wins(name):
    x, nan = np.array([1.0, 2.0], np.float32), np.array([np.nan, 1.0], np.float32)
    op = getattr(functional, name)
    a, b = gradients(op, x, x.copy(), grad=np.array([1, 3], np.float32))
    assert a.tolist() == b.tolist() == [0.5, 1.5]
    assert np.isnan(op(x, nan)[0])
    assert np.isnan(op(nan, x)[0])


def test_power_of_zero_has_finite_gradients():
    base, exponent = np.array([0.0, 2.0]), np.array([2.0, 0.0])
    to_base, to_exponent = gradients(functional.power, base, exponent, grad=np.ones(2))
    assert to_base.tolist() == [0, 0]
    tolerances.assert_within(to_exponent, [0, np.log(2)], tolerances.elementwise_bound(1, np.float64))


def test_symbols_divide():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 2, (3, 4)).astype(np.float32), rng.uniform(0.5, 2, (4,)).astype(np.float32)
    bound = tolerances.elementwise_bound(4)
    tolerances.assert_within(run(lambda a, b: a / b, a, b), reference.f64(a) / b, bound)
    tolerances.assert_within(run(lambda a: 2 / a, a), 2 / reference.f64(a), bound)
    tolerances.assert_within(run(lambda a: b / a, a), b / reference.f64(a), bound)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ShapeError, match=r"binary(.|\n)*\(2, 3\) and \(4\) do not broadcast"):
        functional.divide(np.zeros((2, 3), np.float32), np.zeros(4, np.float32))


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    pairs = [
        (functional.elu, f.elu), (functional.celu, f.celu), (functional.selu, f.selu), (functional.silu, f.silu),
        (functional.mish, f.mish), (functional.gelu, f.gelu), (functional.hardsigmoid, f.hardsigmoid),
        (functional.hardswish, f.hardswish), (functional.softplus, f.softplus), (functional.softsign, f.softsign),
        (lambda x: functional.gelu(x, approximate="tanh"), lambda x: f.gelu(x, approximate="tanh")),
        (lambda x: functional.clip(x, min=-1, max=2), lambda x: torch.clamp(x, -1, 2)),
        (lambda x: functional.threshold(x, threshold=0.1, value=2), lambda x: f.threshold(x, 0.1, 2)),
    ]  # fmt: skip
    x = np.random.default_rng(0).uniform(-5, 5, (2, 101)).astype(np.float32)
    for ours, theirs in pairs:
        image = torch.from_numpy(x.copy()).requires_grad_()
        result = theirs(image)
        result.sum().backward()
        tolerances.assert_within(ours(x), result.detach().numpy(), tolerances.elementwise_bound(np.abs(x) + 1) * 2)
        found = pycnn.grad(lambda x, ours=ours: functional.sum(ours(x)))(x)
        tolerances.assert_within(found, image.grad.numpy(), tolerances.elementwise_bound(4))
