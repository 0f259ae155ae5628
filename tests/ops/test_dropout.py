"""Dropout: a mask that is a function of seed, step, layer and position."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import gradients, isas, paths, reals, run

import pycnn
from pycnn import _core, functional
from pycnn.errors import ArgumentError
from pycnn.program import compile_traced
from pycnn.testing import check_gradients
from pycnn.tracing import emit, trace


def drop(p, stream):
    return lambda x, seed, step: emit(_core.DropoutTrain(p=p, stream=stream), [x, seed, step])


def scalars(seed, step):
    return np.array([seed], np.int64), np.array([step], np.int64)


@pytest.mark.parametrize("path", paths("dropout_train"))
@pytest.mark.parametrize("shape", [(1,), (0, 3), (3,), (5, 7), (2, 3, 5, 17), (1025,)])
@pytest.mark.parametrize(
    ("p", "seed", "step", "stream"), [(0.5, 0, 0, 0), (0.1, 2**40 + 3, 7, 2**62 + 5), (0.9, 1, 2**33, 3)]
)
def test_mask_is_philox_of_seed_step_stream_and_position(shape, p, seed, step, stream, path):
    x = reals(np.random.default_rng(0), shape)
    found = run(drop(p, stream), x, *scalars(seed, step), path=path)
    expected = reference.dropout(x, p=p, seed=seed, step=step, stream=stream)
    tolerances.assert_within(found, expected, tolerances.elementwise_bound(expected))
    assert np.array_equal(found != 0, expected != 0)


def test_philox_has_the_published_values():
    # Known answers of Random123: counter and key of zeros, and of ones.
    assert reference.philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 2**64 - 1
    assert reference.philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("path", isas())
def test_gradient_has_the_same_mask(path):
    rng = np.random.default_rng(0)
    x, grad = reals(rng, (3, 5, 17)), reals(rng, (3, 5, 17))
    seed, step = scalars(5, 9)
    (found,) = gradients(drop(0.3, 11), x, seed, step, grad=grad, path=path, wrt=(0,))
    expected = reference.dropout(grad, p=0.3, seed=5, step=9, stream=11)
    tolerances.assert_within(found, expected, tolerances.elementwise_bound(expected))


def test_gradient_agrees_with_finite_differences():
    check_gradients(drop(0.4, 1), reals(np.random.default_rng(0), (4, 9)), *scalars(1, 2))
    check_gradients(lambda x: functional.dropout(x, p=0.4), reals(np.random.default_rng(0), (4, 9)), training=True)


@pytest.mark.parametrize("path", isas())
def test_any_number_of_threads_draws_the_same_mask(path):
    x = np.ones((3, 20_011), np.float32)
    first = run(drop(0.5, 3), x, *scalars(1, 2), path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(drop(0.5, 3), x, *scalars(1, 2), path=path, threads=threads), first)
    kept = np.count_nonzero(first) / x.size
    assert abs(kept - 0.5) < 0.01
    assert set(np.unique(first)) == {0.0, 2.0}


def test_instruction_sets_draw_the_same_mask():
    x = np.ones(4099, np.float32)
    results = [run(drop(0.25, 3), x, *scalars(1, 2), path=p.values[0]) for p in paths("dropout_train")]
    for result in results[1:]:
        tolerances.assert_bits(result, results[0])


def test_inference_passes_everything():
    x = reals(np.random.default_rng(0), (3, 9))
    tolerances.assert_bits(functional.dropout(x, p=0.7), x)
    tolerances.assert_bits(run(lambda x: functional.dropout(x, p=0.7) + 0.0, x), x)


def test_layers_of_one_program_draw_masks_of_their_own():
    x = np.ones((1, 400), np.float32)
    traced = trace(lambda x: {"a": functional.dropout(x), "b": functional.dropout(x)}, {"x": (x.shape, "float32")})
    first = compile_traced(traced, mode="training")(x)
    assert not np.array_equal(first["a"], first["b"])
    again = compile_traced(traced, mode="training")(x)
    tolerances.assert_bits(again["a"], first["a"])


def test_probability_0_keeps_everything():
    x = reals(np.random.default_rng(0), (3, 9))
    tolerances.assert_bits(run(drop(0.0, 1), x, *scalars(0, 0)), x)


@pytest.mark.parametrize("p", [1.0, -0.1, float("nan"), 2.0])
def test_rejects_a_probability_out_of_range(p):
    with pytest.raises(ArgumentError, match="p is .*, expected a probability"):
        functional.dropout(np.zeros(3, np.float32), p=p)


def test_value_and_grad_of_dropout_is_reproducible():
    both = pycnn.value_and_grad(lambda x: functional.sum(functional.dropout(x)), training=True)
    x = np.ones(100, np.float32)
    assert both(x)[0] == both(x)[0]
