"""Numbers in other floating-point types."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import paths, reals, run

import pycnn
from pycnn import functional
from pycnn.errors import DTypeError

both_ways = pytest.mark.parametrize("path", paths("cast"))


def through(dtype):
    """To a type and back."""
    return lambda x: functional.cast(functional.cast(x, dtype=dtype), dtype="float32")


def float_bits(bits):
    return np.asarray(bits, np.uint32).view(np.float32)


@both_ways
@pytest.mark.parametrize("count", [0, 1, 7, 16, 33, 100_003])
def test_to_bfloat16_rounds_to_the_nearest_and_ties_to_even(count, path):
    rng = np.random.default_rng(count)
    x = float_bits(rng.integers(0, 2**32, count, np.uint32))
    tolerances.assert_exact(run(through("bfloat16"), x, path=path), reference.bfloat16(x))


@both_ways
def test_what_lies_between_two_bfloat16(path):
    lower = 0x3F80  # 1
    below, half, above = (float_bits([(lower << 16) + rest]) for rest in (0x7FFF, 0x8000, 0x8001))
    odd_half = float_bits([((lower + 1) << 16) + 0x8000])
    x = np.concatenate([below, half, above, odd_half, -half])
    found = run(through("bfloat16"), x, path=path)
    step = 2.0**-7
    assert found.tolist() == [1.0, 1.0, 1.0 + step, 1.0 + 2 * step, -1.0]


@both_ways
def test_special_numbers(path):
    largest = float_bits([0x7F7F0000])[0]  # of bfloat16
    x = np.array([0.0, -0.0, np.inf, -np.inf, largest, np.finfo(np.float32).max], np.float32)
    found = run(through("bfloat16"), x, path=path)
    assert found.tolist() == [0.0, -0.0, np.inf, -np.inf, largest, np.inf]
    assert np.signbit(found).tolist() == [False, True, False, True, False, False]
    # Cutting off the lower half of these would leave infinity.
    for nan in (0x7F800001, 0x7FFFFFFF, 0xFF800001, 0x7FC00000):
        assert np.isnan(run(through("bfloat16"), float_bits([nan] * 20), path=path)).all()


def test_a_subnormal_number_is_not_lost():
    x = float_bits([0x00010000, 0x00018000, 0x007F0000])
    assert run(through("bfloat16"), x).view(np.uint32).tolist() == [0x00010000, 0x00020000, 0x007F0000]


def test_float64_is_rounded_once():
    # Just above the middle between two bfloat16: float32, on the way, would take it for the middle.
    x = np.array([1.0 + 2.0**-8 + 2.0**-40, 1.0 + 2.0**-8, 1.0 + 2.0**-8 - 2.0**-40])
    found = functional_cast_of_float64(x, "bfloat16")
    assert found.tolist() == [1.0 + 2.0**-7, 1.0, 1.0]
    x = np.array([1.0 + 2.0**-11 + 2.0**-40, 1e6, -1e-9, 6e-8])
    with np.errstate(over="ignore"):
        assert functional_cast_of_float64(x, "float16").tolist() == x.astype(np.float16).tolist()


def functional_cast_of_float64(x, dtype):
    return run(lambda x: functional.cast(functional.cast(x, dtype=dtype), dtype="float64"), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("source", ["float32", "float64", "float16"])
def test_arrays_are_cast_as_numpy_does(source, dtype):
    x = (reals(np.random.default_rng(0), (5, 7)) * 100).astype(source)
    found = functional.cast(x, dtype=dtype)
    assert found.dtype == dtype
    tolerances.assert_bits(found, x.astype(dtype))


def test_the_gradient_is_cast_back():
    rng = np.random.default_rng(0)
    x, weights = reals(rng, (5, 3)), reals(rng, (5, 3))

    def loss(x):
        return functional.sum(through("bfloat16")(x) * weights)

    _, gradient = pycnn.value_and_grad(loss)(x)
    assert gradient.dtype == np.float32
    tolerances.assert_exact(gradient, reference.bfloat16(weights))


def test_other_types_are_refused():
    x = np.zeros(3, np.float32)
    with pytest.raises(DTypeError, match="NumPy has no bfloat16"):
        functional.cast(x, dtype="bfloat16")
    with pytest.raises(DTypeError, match="'int32' is not accepted here; expected one of float32"):
        functional.cast(x, dtype="int32")
    with pytest.raises(DTypeError, match="is unknown"):
        functional.cast(x, dtype="floaty")
    with pytest.raises(DTypeError, match=r"input is u8, expected f32, f64, bf16 or f16(.|\n)*normalize_image"):
        functional.cast(np.zeros(3, np.uint8), dtype="float32")
