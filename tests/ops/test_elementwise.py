"""Add, subtract, multiply with broadcasting; affine; images to numbers."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, gradients, integers, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients

BINARY = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}
binaries = pytest.mark.parametrize("name", BINARY)
PAIRS = [
    ((), ()),
    ((1,), (1,)),
    ((0, 3), (0, 3)),
    ((0, 3), (3,)),
    ((7,), ()),
    ((), (2, 5)),
    ((3, 33), (33,)),
    ((2, 5, 7, 17), (17,)),
    ((17,), (2, 5, 7, 17)),
    ((2, 5, 7, 17), (2, 1, 1, 17)),
    ((2, 5, 7, 17), (5, 1, 1)),
    ((2, 1, 7, 1), (1, 5, 1, 17)),
    ((4, 65), (4, 65)),
    ((3, 2049), (3, 1)),
    ((2, 3, 4, 5), (2, 3, 4, 1)),
    ((2, 3, 1, 5), (1, 3, 4, 1)),
]
pairs = pytest.mark.parametrize("shapes", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}".replace(" ", ""))


@binaries
@pairs
@pytest.mark.parametrize("path", paths("add", "subtract", "multiply"))
def test_forward_is_exact(name, shapes, path):
    rng = np.random.default_rng(0)
    a, b = integers(rng, shapes[0]), integers(rng, shapes[1])
    a, b = np.asarray(a), np.asarray(b)
    tolerances.assert_exact(run(getattr(functional, name), a, b, path=path), BINARY[name](a, b))
    a, b = np.asarray(reals(rng, shapes[0])), np.asarray(reals(rng, shapes[1]))
    expected = BINARY[name](a, b)  # one rounding: float32 is exact too
    tolerances.assert_exact(run(getattr(functional, name), a, b, path=path), expected)


def unbroadcast(grad, shape):
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)


@binaries
@pairs
@pytest.mark.parametrize("path", isas())
def test_gradients_sum_over_what_was_broadcast(name, shapes, path):
    rng = np.random.default_rng(1)
    a, b = np.asarray(integers(rng, shapes[0])), np.asarray(integers(rng, shapes[1]))
    grad = np.asarray(integers(rng, np.broadcast_shapes(*shapes)))
    found = gradients(getattr(functional, name), a, b, grad=grad, path=path)
    parts = {"add": (grad, grad), "subtract": (grad, -grad), "multiply": (grad * b, grad * a)}[name]
    for got, part, shape in zip(found, parts, shapes):
        tolerances.assert_exact(got, unbroadcast(reference.f64(part), shape))


@binaries
@pytest.mark.parametrize("shapes", [p for p in PAIRS if np.prod(np.broadcast_shapes(*p)) < 2000])
def test_gradients_agree_with_finite_differences(name, shapes):
    rng = np.random.default_rng(2)
    check_gradients(getattr(functional, name), *(np.asarray(reals(rng, s), np.float64) for s in shapes), elements=6)


def test_gradient_of_a_value_with_itself():
    x = np.array([1.0, -2.0, 3.0])
    check_gradients(lambda x: x * x + x - x * 2.0, x)
    (found,) = gradients(lambda x: functional.multiply(x, x), x, grad=np.ones(3))
    tolerances.assert_exact(found, 2 * x)


def test_operators_of_symbols_mean_the_ops():
    x = np.array([1.0, 2.0, 4.0], np.float32)
    b = np.array([3.0, 5.0, 7.0], np.float32)

    def everything(x):
        return {
            "add": x + b, "radd": b + x, "sub": x - b, "rsub": b - x, "mul": b * x, "neg": -x, "div": x / 2,
            "shift": 1 + x, "back": 1 - x, "scale": 3 * x,
        }  # fmt: skip

    wanted = {
        "add": x + b, "radd": b + x, "sub": x - b, "rsub": b - x, "mul": b * x, "neg": -x, "div": x / 2,
        "shift": 1 + x, "back": 1 - x, "scale": 3 * x,
    }  # fmt: skip
    for name, found in run(everything, x).items():
        tolerances.assert_exact(found, wanted[name], name)


@pytest.mark.parametrize("path", paths("affine"))
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (2.5, -3.0), (0.0, 1.0), (-0.1, 0.3)])
def test_affine(scale, offset, path):
    def op(x):
        return functional.affine(x, scale=scale, offset=offset)

    x = reals(np.random.default_rng(0), (3, 37))
    expected = reference.affine(x, scale=scale, offset=offset)
    bound = tolerances.elementwise_bound(np.abs(scale * x) + abs(offset))
    tolerances.assert_within(run(op, x, path=path), expected, bound)
    (found,) = gradients(op, x, grad=x, path=path)
    tolerances.assert_within(found, scale * reference.f64(x), tolerances.elementwise_bound(scale * x))
    check_gradients(op, x)


@pytest.mark.parametrize("path", isas())
def test_threads_give_the_same_bits(path):
    rng = np.random.default_rng(0)
    a, b = reals(rng, (7, 4001)), reals(rng, (4001,))

    def op(a, b):
        return functional.multiply(functional.add(a, b), b)

    first = run(op, a, b, path=path, threads=1)
    expected = gradients(op, a, b, grad=a, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(op, a, b, path=path, threads=threads), first)
        for got, want in zip(gradients(op, a, b, grad=a, path=path, threads=threads), expected):
            tolerances.assert_bits(got, want)


def test_a_long_chain_in_place_changes_no_bit():
    x = reals(np.random.default_rng(0), (3, 50))

    def chain(x):
        y = x
        for _ in range(40):
            y = functional.affine(y + x, scale=0.5)
        return y - x

    shared, apart = build(chain, x), build(chain, x, reuse_memory=False)
    assert shared.memory["arena_bytes"] < apart.memory["arena_bytes"]
    tolerances.assert_bits(shared(x), apart(x))


# ---- Images to numbers


@pytest.mark.parametrize("path", paths("normalize_image"))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {}),
        (1, {"scale": 1 / 255}),
        (3, {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        (3, {"mean": 100.0, "std": 50.0}),
        (4, {"std": [1.0, 2.0, 3.0, 4.0]}),
        (17, {"mean": list(range(17))}),
        (33, {"scale": 2.0, "std": 0.5}),
    ],
)
def test_normalize_image(channels, options, dtype, path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 5, 7, channels)).astype(dtype)
    expected = reference.normalize_image(x, **options)
    magnitude = (np.abs(x * options.get("scale", 1.0)) + np.abs(options.get("mean", 0.0))) / options.get("std", 1.0)
    found = run(lambda x: functional.normalize_image(x, **options), x, path=path)
    assert found.dtype == np.float32
    tolerances.assert_within(found, expected, tolerances.elementwise_bound(magnitude))


def test_gradient_of_normalize_image_agrees_with_finite_differences():
    x = reals(np.random.default_rng(0), (2, 3, 3, 3))
    check_gradients(lambda x: functional.normalize_image(x, scale=0.5, mean=[1, 2, 3], std=[0.5, 2, 4]), x)


def test_normalize_image_rejects_a_wrong_number_of_channels():
    with pytest.raises(ArgumentError, match="mean has 3 values, the image has 1 channel"):
        functional.normalize_image(np.zeros((1, 2, 2, 1), np.uint8), mean=[1, 2, 3])
    with pytest.raises(ArgumentError, match="std"):
        functional.normalize_image(np.zeros((1, 2, 2, 1), np.uint8), std=0.0)


# ---- Errors


@binaries
def test_rejects_shapes_that_do_not_broadcast(name):
    with pytest.raises(ShapeError, match=r"shapes \(2, 3\) and \(2, 4\) do not broadcast: axis -1 is 3 and 4"):
        getattr(functional, name)(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


@binaries
def test_rejects_mixed_element_types(name):
    with pytest.raises(DTypeError, match="f64"):
        getattr(functional, name)(np.zeros(3, np.float32), np.zeros(3, np.float64))
    with pytest.raises(DTypeError, match="i64"):
        getattr(functional, name)(np.zeros(3, np.int64), np.zeros(3, np.int64))
