"""How far a result may lie from the truth: functions of element type and length of the sum, nothing else.

Condition mode: |y - y64| <= (4 + 2 sqrt(n)) u S, where S is the same op applied to absolute values and n the length of
its sums. Cancellation cannot raise a false alarm then, and a path in lower precision cannot pass.
"""

from __future__ import annotations

import math

import numpy as np

# Relative error allowed between an analytic gradient and finite differences, both in float64.
GRADIENT = 1e-6
# Share of the norm of a whole net's gradient by which ReLUs near zero that fall the other way in float32 may change it;
# PyTorch's own float32 gradients lie up to half as far from its float64 ones.
KINKS = 0.05
# Largest error of a convolution of 16 to 512 channels over its largest result, for ReLU's results times He's weights,
# by tile and window: plain sums (tile 1) and Winograd's. Twice what was measured, see docs/design.md.
CONVOLUTION = {(1, 3): 4.4e-6, (2, 3): 1.8e-6, (4, 3): 3.2e-5, (1, 5): 6.6e-6, (2, 5): 2e-5}
# The same in groups of 8 to 64 channels, in tiles of 4.
GROUPED_CONVOLUTION = 1.2e-5

# The same of 1x1 windows of 128 to 2,048 channels, by `winograd`: plain sums, and Strassen's algorithm.
POINTWISE = {False: 3e-6, True: 1.5e-5}

# The same of the gradient of weights of 1x1 windows over 784 to 50,176 pixels: by plain sums, by Strassen's algorithm.
POINTWISE_GRADIENT = {False: 8e-7, True: 1.5e-6}

# Share of the largest by which results and gradients of a small net in float64 may move when its sums are made
# otherwise: twice what they move by when each value of the images changes by one unit in the last place.
NET_IN_FLOAT64 = 2.0**-46

# Largest error of a random net's scores over the largest score (see random_nets.py): about three times, with bfloat16
# six times what was measured.
RANDOM_NET = 6e-6
BFLOAT16_RANDOM_NET = 0.025

# Half the distance from 1 to the next bfloat16.
BFLOAT16 = 2.0**-8
# Of whole nets in bfloat16, against float32, about twice what was measured on the nets of tests/test_bfloat16.py (see
# docs/design.md): scores over the largest score, and a gradient's error over its norm. Gradients through the statistics
# of a batch cancel, and ReLUs near zero fall the other way; PyTorch's autocast differs as much.
BFLOAT16_SCORES = 0.02
BFLOAT16_GRADIENT = {"plain": 0.012, "batch statistics": 0.4}


def unit(dtype=np.float32):
    """Half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def smallest(dtype=np.float32):
    """The smallest normal number: what is below may be flushed to zero."""
    return float(np.finfo(dtype).tiny)


def sum_bound(magnitude, length, dtype=np.float32):
    """Bound of a sum of `length` products; magnitude is the sum of their absolute values."""
    return (4 + 2 * math.sqrt(length)) * unit(dtype) * np.abs(magnitude) + smallest(dtype)


def winograd_bound(magnitude, channels, dtype=np.float32):
    """Bound of a convolution by Winograd's minimal filtering over so many channels.

    Of its three steps one after another, statistical as `sum_bound` is: magnitude is
    `reference.winograd(..., magnitude=True)`, through which an error of one unit in any number of a step grows at
    most. A number is rounded up to 6 times by the transform of the weights (two passes of one or two sums and a
    constant that float32 does not hold), 6 times by that of the input, once for each channel, 6 times by that of the
    output, and twice by bias and residual.
    """
    return (20 + 2 * math.sqrt(channels)) * unit(dtype) * np.abs(magnitude) + smallest(dtype)


def strassen_bound(magnitude, channels, levels=1, dtype=np.float32):
    """Bound of a 1x1 convolution by Strassen's algorithm over so many channels.

    As `winograd_bound`, with `reference.strassen(..., magnitude=True)`: a number is rounded up to three times by the
    sums of either side, once for each channel, and up to five times by what is added to its product; all but the
    channels once more at each further level.
    """
    return (11 * levels + 2 * math.sqrt(channels)) * unit(dtype) * np.abs(magnitude) + smallest(dtype)


def elementwise_bound(magnitude, dtype=np.float32):
    """Bound of an element-wise function; magnitude is |y| plus what cancels inside."""
    return 12 * unit(dtype) * np.abs(magnitude) + smallest(dtype)


def strassen_grad_bound(magnitude, pixels, dtype=np.float32):
    """Bound of the weight gradient of 1x1 windows by Strassen's algorithm over so many pixels.

    As `winograd_bound`, with `reference.strassen_grad_weight(..., magnitude=True)`: a number is rounded up to three
    times by the sums of either side, once for each pair of pixels, and up to five times by what is added to its sum.
    """
    return (11 + 2 * math.sqrt(pixels / 2)) * unit(dtype) * np.abs(magnitude) + smallest(dtype)


def bfloat16_bound(expected, bound):
    """Bound of what was computed within a bound in float32 and rounded to bfloat16."""
    return BFLOAT16 * (np.abs(expected) + bound) + bound


def assert_within(actual, expected, bound, what=""):
    """Every element lies within the bound; NaN and infinity must agree."""
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what} shape is {actual.shape}, expected {expected.shape}"
    bound = np.broadcast_to(np.asarray(bound, np.float64), expected.shape)
    found = actual.astype(np.float64)
    odd = ~np.isfinite(expected)
    same = np.array_equal(found[odd], expected[odd], equal_nan=True)
    assert same, f"{what} NaN and infinity differ: {found[odd][:8]}, expected {expected[odd][:8]}"
    with np.errstate(invalid="ignore"):
        error = np.where(odd, 0.0, np.abs(found - expected))
    bad = ~(error <= np.where(odd, np.inf, bound))
    if bad.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(bad, np.nan_to_num(error / bound, nan=np.inf), 0.0)
        worst = np.unravel_index(np.argmax(ratio), ratio.shape) if ratio.ndim else ()
        raise AssertionError(
            f"{what} {int(bad.sum())} of {bad.size} elements are off; the worst at {tuple(map(int, worst))} is "
            f"{found[worst]!r}, expected {expected[worst]!r}: error {error[worst]:.3g}, bound {bound[worst]:.3g}"
        )


def assert_exact(actual, expected, what=""):
    """Same values, threshold 0; the sign of zero does not count."""
    assert_within(actual, expected, 0.0, what)


def assert_bits(actual, expected, what=""):
    """Same type, same shape, same bits."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), what
    if actual.tobytes() != expected.tobytes():
        different = np.flatnonzero(actual.ravel() != expected.ravel())
        raise AssertionError(
            f"{what} {len(different)} of {actual.size} elements differ in their bits, first {different[:5]}"
        )
