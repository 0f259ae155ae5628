"""Each op's gradients in every form: for one operand alone, of a gradient that is zero, and of one in any layout."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from kernel_paths import gradients, isas, reals

from pycnn import functional as F

RNG = np.random.default_rng(11)


def arrays(*shapes):
    return [reals(RNG, shape) for shape in shapes]


IMAGE = (2, 5, 6, 3)

# The function, its arrays that are differentiated for, and the longest sum behind an element of a gradient.
CASES = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1, stride=2), arrays(IMAGE, (4, 3, 3, 3), (4,)), 120),
    "depthwise": (lambda x, w, b: F.conv2d(x, w, b, groups=3), arrays(IMAGE, (3, 2, 2, 1), (3,)), 60),
    "linear": (F.linear, arrays((7, 5), (4, 5), (4,)), 7),
    "max_pool2d": (lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1), arrays(IMAGE), 9),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, kernel_size=3, stride=2, padding=1), arrays(IMAGE), 9),
    "global_avg_pool2d": (F.global_avg_pool2d, arrays(IMAGE), 1),
    "global_max_pool2d": (F.global_max_pool2d, arrays(IMAGE), 1),
    "batch_norm": (lambda x, s, o, m, v: F.batch_norm(x, s, o, m, F.multiply(v, v)), arrays(IMAGE, *[(3,)] * 4), 60),
    "local_response_norm": (F.local_response_norm, arrays((2, 3, 4, 9)), 9),
    "relu": (F.relu, arrays(IMAGE), 1),
    "sigmoid": (F.sigmoid, arrays(IMAGE), 1),
    "softmax": (F.softmax, arrays((3, 5)), 5),
    "log_softmax": (F.log_softmax, arrays((3, 5)), 5),
    "add": (F.add, arrays(IMAGE, (6, 1)), 60),
    "multiply": (F.multiply, arrays(IMAGE, (3,)), 60),
    "concat": (lambda a, b: F.concat([a, b], axis=1), arrays((2, 3, 2), (2, 4, 2)), 1),
    "transpose": (lambda x: F.transpose(x, permutation=(2, 0, 1)), arrays((2, 3, 4)), 1),
    "pad": (lambda x: F.pad(x, before=(0, 1), after=(2, 0)), arrays((2, 3)), 1),
    "mean": (lambda x: F.mean(x, axes=(0, 2)), arrays((2, 3, 4)), 1),
    "cross_entropy": (F.cross_entropy, [reals(RNG, (3, 5)), np.full((3, 5), 0.2, np.float32)], 5),
    "mse_loss": (F.mse_loss, arrays((3, 5), (3, 5)), 1),
}

# Operands that have a gradient at all: running statistics have none.
WANTED = {"batch_norm": (0, 1, 2), "cross_entropy": (0,)}


def wanted(name):
    return WANTED.get(name, tuple(range(len(CASES[name][1]))))


def upstream(name):
    fn, inputs, _ = CASES[name]
    return reals(np.random.default_rng(3), np.shape(fn(*inputs)))


@pytest.mark.parametrize("path", isas())
@pytest.mark.parametrize("name", CASES)
def test_for_one_operand_alone_the_gradient_is_that_for_all(name, path):
    fn, inputs, length = CASES[name]
    grad = upstream(name)
    together = gradients(fn, *inputs, grad=grad, path=path, wrt=wanted(name))
    magnitudes = gradients(fn, *map(np.abs, inputs), grad=np.abs(grad), path=path, wrt=wanted(name))
    for position, expected, magnitude in zip(wanted(name), together, magnitudes):
        (alone,) = gradients(fn, *inputs, grad=grad, path=path, wrt=(position,))
        # A plain sum may have an order of its own when it is alone.
        bound = tolerances.sum_bound(np.abs(magnitude) + np.abs(expected), length)
        tolerances.assert_within(alone, expected, bound, f"operand {position}")


@pytest.mark.parametrize("path", isas())
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_of_zero_gives_zeros_everywhere(name, path):
    fn, inputs, _ = CASES[name]
    grad = np.zeros_like(upstream(name))
    for position, found in zip(wanted(name), gradients(fn, *inputs, grad=grad, path=path, wrt=wanted(name))):
        tolerances.assert_exact(found, np.zeros(inputs[position].shape), f"operand {position}")


@pytest.mark.parametrize("name", [name for name in CASES if np.ndim(upstream(name)) > 1])
@pytest.mark.filterwarnings("ignore:.*copied because")
def test_a_gradient_in_another_layout_gives_the_bits_of_a_plain_copy(name):
    fn, inputs, _ = CASES[name]
    grad = upstream(name)
    expected = gradients(fn, *inputs, grad=grad, wrt=wanted(name))
    strided = np.repeat(grad, 2, axis=-1)[..., ::2]
    for other in (np.asfortranarray(grad), strided, grad[::-1].copy()[::-1]):
        assert not other.flags.c_contiguous
        for position, found, want in zip(wanted(name), gradients(fn, *inputs, grad=other, wrt=wanted(name)), expected):
            tolerances.assert_bits(found, want, f"operand {position}")
