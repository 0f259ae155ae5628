"""Sums and means over axes, and repeating along axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_paths import ISAS, Path, distinct, gradients, integers, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients

SHAPES = [(1,), (7,), (3, 17), (2, 3, 5, 17), (4, 1, 33), (5, 2, 3, 2, 2), (2, 2049), (300, 3), (1000, 65)]


def subsets(rank):
    return [axes for n in range(rank + 1) for axes in itertools.combinations(range(rank), n)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", paths("reduce"))
def test_sum_and_mean_over_every_choice_of_axes(shape, path):
    rng = np.random.default_rng(0)
    whole, x = integers(rng, shape), reals(rng, shape)
    for axes in subsets(len(shape)):
        for keep_dims in (False, True):
            options = {"axes": axes, "keep_dims": keep_dims}
            expected = reference.f64(whole).sum(axis=axes, keepdims=keep_dims)
            found = run(lambda x: functional.sum(x, **options), whole, path=path)
            tolerances.assert_exact(found, expected, f"{axes}")
            count = int(np.prod([shape[a] for a in axes])) if axes else 1
            expected = reference.f64(x).mean(axis=axes, keepdims=keep_dims) if axes else reference.f64(x)
            magnitude = np.abs(reference.f64(x)).mean(axis=axes, keepdims=keep_dims) if axes else np.abs(x)
            found = run(lambda x: functional.mean(x, **options), x, path=path)
            tolerances.assert_within(found, expected, tolerances.sum_bound(magnitude, count), f"{axes}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", paths("reduce"))
def test_max_over_every_choice_of_axes(shape, path):
    x = reals(np.random.default_rng(0), shape) - 3
    for axes in subsets(len(shape)):
        found = run(lambda x: functional.max(x, axes=axes), x, path=path)
        tolerances.assert_exact(found, x.max(axis=axes) if axes else x, f"{axes}")


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (), None])
def test_gradient_of_max_goes_to_the_largest_which_share_it(axes):
    x = distinct(np.random.default_rng(0), (3, 4, 5))
    check_gradients(lambda x: functional.max(x, axes=axes, keep_dims=True), x)
    check_gradients(lambda x: functional.max(x, axes=axes), x)
    same = np.array([[1, 3, 3], [2, 2, 2]], np.float32)
    (found,) = gradients(lambda x: functional.max(x, axes=1), same, grad=np.array([1, 3], np.float32))
    tolerances.assert_exact(found, [[0, 0.5, 0.5], [1, 1, 1]])


def test_no_axes_means_all_and_negative_axes_count_from_the_end():
    x = integers(np.random.default_rng(0), (3, 4, 5))
    assert functional.sum(x) == x.sum()
    assert functional.mean(x * 60) == (x * 60).mean()
    tolerances.assert_exact(functional.sum(x, axes=-1), x.sum(axis=-1))
    tolerances.assert_exact(functional.sum(x, axes=(-1, 0)), x.sum(axis=(0, 2)))
    tolerances.assert_exact(functional.sum(x, axes=()), x)


def test_sums_of_nothing_are_0():
    x = np.zeros((0, 3), np.float32)
    assert functional.sum(x) == 0
    assert functional.sum(x, axes=0).tolist() == [0, 0, 0]
    assert functional.mean(x, axes=1).shape == (0,)


@pytest.mark.parametrize("path", isas())
@pytest.mark.parametrize("axes", [(), (0,), (1, 3), (0, 1, 2, 3)])
def test_gradient_spreads_over_the_axes(axes, path):
    rng = np.random.default_rng(0)
    x = reals(rng, (2, 3, 4, 17))
    for keep_dims in (False, True):
        grad = np.asarray(integers(rng, np.asarray(x.sum(axis=axes, keepdims=keep_dims)).shape))
        spread = np.broadcast_to(grad if keep_dims else np.expand_dims(grad, axes), x.shape)
        options = {"axes": axes, "keep_dims": keep_dims}
        (found,) = gradients(lambda x: functional.sum(x, **options), x, grad=grad, path=path)
        tolerances.assert_exact(found, spread)
        (found,) = gradients(lambda x: functional.mean(x, **options), x, grad=grad, path=path)
        expected = spread / np.prod([x.shape[a] for a in axes], dtype=np.float64)
        tolerances.assert_within(found, expected, tolerances.elementwise_bound(expected))


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 2), None])
def test_gradients_agree_with_finite_differences(axes):
    x = reals(np.random.default_rng(0), (3, 4, 5))
    check_gradients(lambda x: functional.mean(x, axes=axes), x)
    check_gradients(lambda x: functional.sum(x, axes=axes, keep_dims=True), x)


@pytest.mark.parametrize("path", isas())
def test_any_number_of_threads_gives_the_same_bits(path):
    x = reals(np.random.default_rng(0), (37, 53, 29))
    for axes in subsets(3):
        first = run(lambda x: functional.sum(x, axes=axes), x, path=path, threads=1)
        for threads in (2, 3, 7):
            again = run(lambda x: functional.sum(x, axes=axes), x, path=path, threads=threads)
            tolerances.assert_bits(again, first, f"{axes}")


@pytest.mark.parametrize("path", paths("reduce"))
def test_nan_and_infinity_come_through(path):
    x = np.zeros((3, 40), np.float32)
    x[0, 39], x[1, 5], x[2, [3, 4]] = np.nan, np.inf, (np.inf, -np.inf)
    found = run(lambda x: functional.sum(x, axes=1), x, path=path)
    assert np.isnan(found[0])
    assert found[1] == np.inf
    assert np.isnan(found[2])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 8, 17]), min_size=1, max_size=4),
    data=st.data(),
    isa=st.sampled_from(ISAS),
)
def test_random_sums_are_exact(shape, data, isa):
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    x = integers(np.random.default_rng(0), shape)
    found = run(lambda x: functional.sum(x, axes=axes), x, path=Path(isa))
    tolerances.assert_exact(found, x.sum(axis=axes, dtype=np.float64))


# ---- Where the largest is


@pytest.mark.parametrize("shape", [(7,), (3, 17), (2, 3, 5, 9)], ids=str)
def test_arg_max_is_numpys_along_every_axis(shape):
    x = integers(np.random.default_rng(0), shape, -1, 2)
    for axis in range(-len(shape), len(shape)):
        found = run(lambda x: functional.arg_max(x, axis=axis), x)
        tolerances.assert_bits(np.asarray(found), np.asarray(x.argmax(axis=axis), np.int64))
        last = run(lambda x: functional.arg_max(x, axis=axis, last=True, keep_dims=True), x)
        expected = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis=axis, keepdims=True)
        tolerances.assert_bits(last, expected.astype(np.int64))


def test_arg_max_refuses_what_has_none():
    with pytest.raises(ShapeError, match="is empty"):
        functional.arg_max(np.zeros((2, 0), np.float32))
    with pytest.raises(ShapeError, match="axis 2 is not one of input"):
        functional.arg_max(np.zeros((2, 3), np.float32), axis=2)


# ---- Broadcast

BROADCASTS = [
    ((3,), (2, 3)),
    ((2, 1), (2, 5)),
    ((1, 3, 1), (4, 3, 7)),
    ((), (2, 2)),
    ((0, 3), (2, 0, 3)),
    ((17,), (17,)),
]


@pytest.mark.parametrize(("shape", "target"), BROADCASTS)
@pytest.mark.parametrize("path", paths("broadcast"))
def test_broadcast_repeats(shape, target, path):
    x = np.asarray(reals(np.random.default_rng(0), shape), np.float32)
    found = run(lambda x: functional.broadcast(x, shape=target), x, path=path)
    tolerances.assert_bits(found, np.array(np.broadcast_to(x, target), order="C"))
    check_gradients(lambda x: functional.broadcast(x, shape=target), x)


# ---- Errors


def test_rejects_axes_out_of_range_or_named_twice():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ArgumentError, match="2 is out of range for 2 axes"):
        functional.sum(x, axes=2)
    with pytest.raises(ArgumentError, match="-3 is out of range"):
        functional.mean(x, axes=(0, -3))
    with pytest.raises(ArgumentError, match="twice"):
        functional.sum(x, axes=(0, -2))
    with pytest.raises(ArgumentError, match="1.5"):
        functional.sum(x, axes=(1.5,))


def test_rejects_a_mean_of_nothing():
    with pytest.raises(ShapeError, match=r"the mean of input \(0, 3\).* has no elements"):
        functional.mean(np.zeros((0, 3), np.float32))
    with pytest.raises(ShapeError, match=r"the max of input \(0, 3\).* has no elements"):
        functional.max(np.zeros((0, 3), np.float32))


def test_rejects_integers_and_impossible_broadcasts():
    with pytest.raises(DTypeError, match="i64"):
        functional.sum(np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 4\) do not broadcast"):
        functional.broadcast(np.zeros((2, 3), np.float32), shape=(2, 4))
