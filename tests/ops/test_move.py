"""Ops that move values and compute nothing: concat, slice, pad, reshape, flatten, transpose, take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_paths import build, gradients, integers, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients


def moves(op, expected, *arrays, path=None, back=None):
    """The op gives the expected bits; its gradient brings each value back where it came from."""
    found = run(op, *arrays, path=path)
    tolerances.assert_bits(found, np.array(expected, order="C"))
    # Number the results: the gradient of an input is the sum of the numbers of its copies.
    grad = np.arange(1, found.size + 1, dtype=np.float32).reshape(found.shape)
    for got, want in zip(gradients(op, *arrays, grad=grad, path=path), back(grad)):
        tolerances.assert_exact(got, want)


# ---- Concat


@pytest.mark.parametrize("path", paths("concat"))
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("sizes", [(3,), (1, 2), (17, 1, 4), (0, 5), (33, 33), (2,) * 9])
def test_concat(axis, sizes, path):
    rng = np.random.default_rng(0)
    shape = [2, 3, 5]
    arrays = []
    for size in sizes:
        shape[axis] = size
        arrays.append(reals(rng, shape))

    def op(*inputs):
        return functional.concat(inputs, axis=axis)

    cuts = np.cumsum(sizes)[:-1]
    moves(op, np.concatenate(arrays, axis=axis), *arrays, path=path, back=lambda g: np.split(g, cuts, axis=axis))


def test_concat_of_a_tensor_with_itself():
    x = reals(np.random.default_rng(0), (2, 3))
    moves(
        lambda x: functional.concat([x, x, x], axis=0),
        np.concatenate([x] * 3),
        x,
        back=lambda g: [g.reshape(3, 2, 3).sum(axis=0)],
    )


def test_concat_of_computed_parts_changes_no_bit_in_place():
    x = reals(np.random.default_rng(0), (2, 5, 5, 3))

    def net(x):
        parts = [
            functional.tanh(x),
            functional.relu(x),
            x,
            functional.max_pool2d(x, kernel_size=3, stride=1, padding=1),
        ]
        return functional.concat(parts) * 2.0

    tolerances.assert_bits(build(net, x)(x), build(net, x, reuse_memory=False)(x))


def test_concat_rejects_with_the_numbers():
    a, b = np.zeros((2, 3), np.float32), np.zeros((4, 5), np.float32)
    with pytest.raises(ShapeError, match=r"input 1 is \(4, 5\), input 0 is \(2, 3\); all axes but -1 must be equal"):
        functional.concat([a, b])
    with pytest.raises(ShapeError, match="axis 2 is not one of"):
        functional.concat([a, a], axis=2)
    with pytest.raises(DTypeError, match="input 1 is f64"):
        functional.concat([a, a.astype(np.float64)])
    with pytest.raises(ArgumentError, match="input"):
        functional.concat([])


# ---- Slice and pad


@pytest.mark.parametrize("path", paths("slice"))
@pytest.mark.parametrize(
    ("shape", "begin", "size"),
    [
        ((5,), (1,), (3,)),
        ((4, 6), (0, 2), (-1, -1)),
        ((3, 5, 7), (1, 0, 6), (2, 5, 1)),
        ((2, 9, 9, 17), (0, 2, 3, 1), (2, 5, 4, 15)),
        ((3, 4), (1, 1), (0, 2)),
        ((0, 4), (0, 1), (-1, 2)),
        ((2, 3), (0, 0), (2, 3)),
    ],
)
def test_slice(shape, begin, size, path):
    x = reals(np.random.default_rng(0), shape)
    box = tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size))

    def back(g):
        result = np.zeros(shape)
        result[box] = g
        return [result]

    moves(lambda x: functional.slice(x, begin=begin, size=size), x[box], x, path=path, back=back)


@pytest.mark.parametrize("path", paths("pad"))
@pytest.mark.parametrize("value", [0.0, -1.5])
@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        ((5,), (0,), (0,)),
        ((5,), (2,), (3,)),
        ((3, 4), (0, 1), (2, 0)),
        ((2, 5, 6, 17), (0, 1, 2, 0), (0, 3, 0, 0)),
        ((2, 3, 3, 3), (1, 0, 0, 2), (0, 0, 4, 1)),
        ((0, 4), (0, 1), (0, 1)),
        ((0, 2), (1, 0), (1, 0)),
    ],
)
def test_pad(shape, before, after, value, path):
    x = reals(np.random.default_rng(0), shape)
    around = list(zip(before, after))
    box = tuple(slice(b, b + n) for b, n in zip(before, shape))
    expected = np.pad(x, around, constant_values=value)

    def op(x):
        return functional.pad(x, before=before, after=after, value=value)

    moves(op, expected, x, path=path, back=lambda g: [g[box]])


def test_slice_and_pad_reject_with_the_numbers():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"axis 1: begin 2 and size 2 do not fit into 3"):
        functional.slice(x, begin=(0, 2), size=(2, 2))
    with pytest.raises(ShapeError, match="1 entries, input .* has 2 axes"):
        functional.slice(x, begin=(0,), size=(2,))
    with pytest.raises(ArgumentError, match="axis 0: padding -1 before and 0 after must not be negative"):
        functional.pad(x, before=(-1, 0), after=(0, 0))
    with pytest.raises(ShapeError, match="3 entries"):
        functional.pad(x, before=(0, 0, 0), after=(0, 0, 0))
    with pytest.raises(ShapeError, match="overflow|larger"):
        functional.pad(x, before=(0, 2**62), after=(0, 2**62))


# ---- Reshape and flatten


@pytest.mark.parametrize(
    ("shape", "target", "result"),
    [
        ((2, 3, 4), (6, 4), (6, 4)),
        ((2, 3, 4), (0, -1), (2, 12)),
        ((2, 3, 4), (-1,), (24,)),
        ((2, 3, 4), (0, 0, 2, 2), (2, 3, 2, 2)),
        ((1,), (), ()),
        ((), (1, 1), (1, 1)),
        ((0, 3), (0, 3, 1), (0, 3, 1)),
    ],
)
def test_reshape(shape, target, result):
    x = np.asarray(reals(np.random.default_rng(0), shape), np.float32)
    moves(lambda x: functional.reshape(x, shape=target), x.reshape(result), x, back=lambda g: [g.reshape(shape)])


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 1, 1, 7), (2, 4, 4, 1), (2, 5), (3, 4, 5), (0, 2, 2, 3)], ids=str)
def test_flatten_puts_channels_outermost(shape):
    x = reals(np.random.default_rng(0), shape)
    expected = reference.flatten(x)

    def back(g):
        if len(shape) != 4:
            return [g.reshape(shape)]
        n, h, w, c = shape
        return [g.reshape(n, c, h, w).transpose(0, 2, 3, 1)]

    moves(lambda x: functional.flatten(x), expected, x, back=back)
    tolerances.assert_bits(functional.flatten(x), np.array(expected, order="C"))


def test_reshape_rejects_with_the_numbers():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"input \(2, 3\) has 6 elements, they do not fill \(4, 2\)"):
        functional.reshape(x, shape=(4, 2))
    with pytest.raises(ShapeError, match="6 elements"):
        functional.reshape(x, shape=(-1, 4))
    with pytest.raises(ArgumentError, match="-1 at most once"):
        functional.reshape(x, shape=(-1, -1))
    with pytest.raises(ShapeError, match="keeps axis 2"):
        functional.reshape(x, shape=(2, 3, 0))
    with pytest.raises(ArgumentError, match=r"shape: 'ab'|shape"):
        functional.reshape(x, shape=5.0)


# ---- Transpose


@pytest.mark.parametrize("path", paths("transpose"))
@pytest.mark.parametrize(
    "shape", [(5,), (3, 4), (17, 33), (2, 3, 5), (2, 3, 5, 17), (0, 2, 3), (3, 1, 70, 2), (64, 65)], ids=str
)
def test_transpose_by_every_permutation(shape, path):
    x = reals(np.random.default_rng(0), shape)
    for permutation in itertools.permutations(range(len(shape))):
        moves(
            lambda x: functional.transpose(x, permutation=permutation),
            x.transpose(permutation),
            x,
            path=path,
            back=lambda g: [g.transpose(np.argsort(permutation))],
        )


@pytest.mark.parametrize("permutation", [(0, 0), (0,), (0, 2), (0, 1, 2), (-1, 0)])
def test_transpose_rejects_what_is_no_permutation(permutation):
    with pytest.raises(ArgumentError, match="expected each axis of input .* once, from 0 to 1"):
        functional.transpose(np.zeros((2, 3), np.float32), permutation=permutation)


# ---- Take


@pytest.mark.parametrize("path", paths("take", "take_grad"))
@pytest.mark.parametrize("indices", [(0,), (2, 0, 1), (-1, 1, -1), (1, 1, 1, 0), (2,) * 9, ()])
@pytest.mark.parametrize("shape", [(3, 5), (3,), (3, 2, 17)])
def test_take(indices, shape, path):
    x = reals(np.random.default_rng(0), shape)
    expected = reference.take(x, indices=indices) if indices else x[:0]
    moves(
        lambda x: functional.take(x, indices=indices),
        expected,
        x,
        path=path,
        back=lambda g: [reference.take_grad(g, indices=indices, rows=3)],
    )


def test_take_rejects_an_index_out_of_range():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(ShapeError, match="index 3 at position 1 is out of range: there are 3 rows"):
        functional.take(x, indices=(0, 3))
    with pytest.raises(ShapeError, match="index -2 at position 0"):
        functional.take(x, indices=(-2,))


# ---- All of them


def test_gradients_agree_with_finite_differences():
    x = reals(np.random.default_rng(0), (3, 4, 5))
    for op in (
        lambda x: functional.concat([x, functional.tanh(x)], axis=1),
        lambda x: functional.slice(x, begin=(1, 0, 2), size=(2, -1, 2)),
        lambda x: functional.pad(x, before=(0, 1, 2), after=(1, 0, 0), value=3.0),
        lambda x: functional.reshape(x, shape=(-1, 6)),
        lambda x: functional.transpose(x, permutation=(2, 0, 1)),
        lambda x: functional.take(x, indices=(2, -1, 0, 2)),
    ):
        check_gradients(op, x, elements=8)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_chain_of_moves_is_numpys(data):
    x = integers(np.random.default_rng(0), data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)))
    steps, expected = [], x
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["transpose", "pad", "slice", "concat", "flat"]))
        rank = expected.ndim
        if kind == "transpose":
            order = tuple(data.draw(st.permutations(range(rank))))
            steps.append(lambda s, order=order: functional.transpose(s, permutation=order))
            expected = expected.transpose(order)
        elif kind == "pad":
            before, after = (data.draw(st.lists(st.integers(0, 2), min_size=rank, max_size=rank)) for _ in range(2))
            steps.append(lambda s, b=before, a=after: functional.pad(s, before=b, after=a, value=7.0))
            expected = np.pad(expected, list(zip(before, after)), constant_values=7.0)
        elif kind == "slice":
            begin = [data.draw(st.integers(0, n - 1)) for n in expected.shape]
            size = [data.draw(st.integers(1, n - b)) for b, n in zip(begin, expected.shape)]
            steps.append(lambda s, b=begin, n=size: functional.slice(s, begin=b, size=n))
            expected = expected[tuple(slice(b, b + n) for b, n in zip(begin, size))]
        elif kind == "concat":
            axis = data.draw(st.integers(0, rank - 1))
            steps.append(lambda s, axis=axis: functional.concat([s, s], axis=axis))
            expected = np.concatenate([expected, expected], axis=axis)
        else:
            steps.append(lambda s: functional.reshape(s, shape=(0, -1)))
            expected = expected.reshape(expected.shape[0], -1)

    def chain(s):
        for step in steps:
            s = step(s)
        return s

    tolerances.assert_bits(run(chain, x), np.array(expected, order="C"))
