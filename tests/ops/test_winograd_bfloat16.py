"""Convolution of bfloat16 images by Winograd's minimal filtering, tiles of 2: its rounding, NaN, when it is chosen.

tests/cpp/backends/test_conv2d_bfloat16.cpp has whole numbers, epilogues, batches and threads.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import UNITS, Path, bfloat16_paths, build, gradients, in_bfloat16, reals, run

import pycnn
from pycnn import functional, nn
from pycnn.errors import UnsupportedError
from pycnn.program import compile_traced
from pycnn.tracing import trace

OPS = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")
paths = pytest.mark.parametrize("path", [p for p in bfloat16_paths(*OPS) if "winograd" in p.id])

# Error over result, both RMS: half as much again as docs/design.md has measured. A wrong edge makes more.
RMS = 0.006
# Image, output channels, padding.
CASES = {
    "odd": ((2, 7, 9, 45), 70, 1),
    "even": ((1, 8, 6, 64), 32, 1),
    "unpadded": ((1, 6, 7, 33), 40, 0),
    "four_pads": ((1, 9, 8, 40), 33, (0, 1, 2, 1)),
    "smallest": ((3, 4, 4, 32), 32, 1),
    "many": ((2, 31, 30, 32), 32, 1),
    "deep": ((1, 5, 6, 300), 40, 1),
    "empty_batch": ((0, 8, 8, 32), 32, 1),
}
FIVE_CASES = {
    "odd": ((2, 9, 11, 45), 70, 2),
    "alexnet": ((1, 27, 27, 64), 40, 2),
    "unpadded": ((1, 13, 12, 33), 40, 0),
    "four_pads": ((1, 12, 10, 40), 33, (1, 2, 3, 4)),
    "long": ((1, 8, 37, 32), 32, 2),
    "deep": ((1, 8, 9, 300), 40, 2),
    "empty_batch": ((0, 8, 8, 32), 32, 2),
}
cases = pytest.mark.parametrize(("shape", "out", "padding"), CASES.values(), ids=CASES)
five_cases = pytest.mark.parametrize(("shape", "out", "padding"), FIVE_CASES.values(), ids=FIVE_CASES)


def bound_of(x, weight, padding, expected):
    """Image and weight are rounded to bfloat16 after their transforms, the result at the end; sums are float32."""
    magnitude = reference.winograd(x, weight, 2, padding=padding, magnitude=True)
    once = tolerances.BFLOAT16
    between = (2 * once + once**2) * magnitude + tolerances.winograd_bound(magnitude, x.shape[3])
    return tolerances.bfloat16_bound(expected, between)


def five_bound_of(x, weight, padding, expected):
    """The same for a 5x5 window, which is computed as four: of 2 and 3 taps along each side."""
    top, bottom, left, right = reference.sides(padding)
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    magnitude = np.zeros(expected.shape)
    for r, c in itertools.product((0, 2), repeat=2):
        part = np.zeros((len(weight), 3, 3, weight.shape[3]))
        taps = weight[:, r : 2 if r == 0 else 5, c : 2 if c == 0 else 5]
        part[:, : taps.shape[1], : taps.shape[2]] = taps
        seen = x[:, r : r + expected.shape[1] + 2, c : c + expected.shape[2] + 2]
        magnitude += reference.winograd(seen, part, 2, magnitude=True)
    once = tolerances.BFLOAT16
    between = (2 * once + once**2) * magnitude + tolerances.winograd_bound(magnitude, 4 * x.shape[3])
    return tolerances.bfloat16_bound(expected, between)


def flipped(weight):
    return np.ascontiguousarray(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))


def relative(found, expected):
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


@cases
@paths
def test_forward_is_within_the_bound(shape, out, padding, path):
    rng = np.random.default_rng(1)
    x, weight = reference.bfloat16(reals(rng, shape)), reals(rng, (out, 3, 3, shape[3]))
    expected = reference.conv2d(x, weight, padding=padding)
    program = build(in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=padding)), x, weight, path=path)
    assert path.pins["conv2d"] in program.explain()
    found = program(x, weight)
    tolerances.assert_within(found, expected, bound_of(x, weight, padding, expected))
    assert relative(found, expected) < RMS


@cases
@paths
def test_input_gradient_is_within_the_bound(shape, out, padding, path):
    rng = np.random.default_rng(2)
    x, weight = reference.bfloat16(reals(rng, shape)), reals(rng, (out, 3, 3, shape[3]))
    grad = reference.bfloat16(reals(rng, reference.conv2d(x, weight, padding=padding).shape))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, padding=padding)
    op = in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=padding))
    # By itself: a pin that is refused is then the last one, and no other kernel is tested instead.
    only = Path(path.isa, {"conv2d_grad_input": path.pins["conv2d_grad_input"]})
    (found,) = gradients(op, x, weight, grad=grad, path=only, wrt=(0,))
    sides = tuple(2 - side for side in reference.sides(padding))
    tolerances.assert_within(found, expected, bound_of(grad, flipped(weight), sides, expected))
    assert relative(found, expected) < RMS


@five_cases
@paths
def test_five_taps_are_within_the_bound(shape, out, padding, path):
    rng = np.random.default_rng(5)
    x, weight = reference.bfloat16(reals(rng, shape)), reals(rng, (out, 5, 5, shape[3]))
    expected = reference.conv2d(x, weight, padding=padding)
    op = in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=padding))
    forward = Path(path.isa, {"conv2d": path.pins["conv2d"]})
    found = run(op, x, weight, path=forward)
    tolerances.assert_within(found, expected, five_bound_of(x, weight, padding, expected))
    assert relative(found, expected) < RMS

    grad = reference.bfloat16(reals(rng, expected.shape))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, padding=padding)
    backward = Path(path.isa, {"conv2d_grad_input": path.pins["conv2d_grad_input"]})
    (found,) = gradients(op, x, weight, grad=grad, path=backward, wrt=(0,))
    sides = tuple(4 - side for side in reference.sides(padding))
    tolerances.assert_within(found, expected, five_bound_of(grad, flipped(weight), sides, expected))
    assert relative(found, expected) < RMS


def weight_gradient(x, weight, grad, padding, path, **options):
    def convolved(x, w, b):
        return functional.conv2d(x, w, b, padding=padding)

    only = Path(path.isa, {"conv2d_grad_weight": path.pins["conv2d_grad_weight"]})
    bias = np.zeros(len(weight), np.float32)
    return gradients(in_bfloat16(convolved), x, weight, bias, grad=grad, path=only, wrt=(1, 2), **options)


@pytest.mark.parametrize(("shape", "out", "padding"), [case for case in CASES.values() if case[0][0] > 0])
@paths
def test_weight_gradient_is_within_the_bound(shape, out, padding, path):
    """Points of both sides are rounded to bfloat16; the sums over tiles, and the bias's as a whole, are float32."""
    rng = np.random.default_rng(3)
    x, weight = reference.bfloat16(reals(rng, shape)), reals(rng, (out, 3, 3, shape[3]))
    grad = reference.bfloat16(reals(rng, reference.conv2d(x, weight, padding=padding).shape))
    found, found_bias = weight_gradient(x, weight, grad, padding, path)
    expected = reference.conv2d_grad_weight(x, grad, (3, 3), padding=padding)
    magnitude = reference.winograd_grad_weight(x, grad, 2, 3, padding=padding, magnitude=True)
    once, tiles = tolerances.BFLOAT16, grad.shape[0] * -(-grad.shape[1] // 2) * -(-grad.shape[2] // 2)
    bound = (2 * once + once**2) * magnitude + tolerances.winograd_bound(magnitude, tiles)
    tolerances.assert_within(found, expected, bound)
    assert relative(found, expected) < RMS
    pixels = grad.shape[0] * grad.shape[1] * grad.shape[2]
    bound = tolerances.sum_bound(np.abs(grad).sum((0, 1, 2)), pixels)
    tolerances.assert_within(found_bias, grad.sum((0, 1, 2), np.float64), bound)


@paths
def test_weight_gradients_of_several_steps_have_the_same_bits_with_any_threads(path):
    rng = np.random.default_rng(6)
    shape, out = (3, 61, 64, 64), 288  # 2,976 tiles of 352 numbers a point: four steps
    x, weight = reference.bfloat16(reals(rng, shape)), np.zeros((out, 3, 3, 64), np.float32)
    grad = reference.bfloat16(reals(rng, (*shape[:3], out)))
    found = weight_gradient(x, weight, grad, 1, path, threads=1)
    for got, want in zip(weight_gradient(x, weight, grad, 1, path, threads=3), found, strict=True):
        tolerances.assert_bits(got, want)
    expected = reference.conv2d_grad_weight(x, grad, (3, 3), padding=1)
    assert relative(found[0], expected) < RMS


@pytest.mark.parametrize(("channels", "window"), [(32, 3), (128, 3), (512, 3), (64, 5)])
@paths
def test_the_error_is_below_twice_that_of_plain_sums(channels, window, path):
    """As docs/design.md says: RMS error over RMS result, on inputs after ReLU and He's weights."""
    rng = np.random.default_rng(channels)
    x = reference.bfloat16(np.maximum(reals(rng, (1, 8, 8, channels)), 0))
    weight = reals(rng, (32, window, window, channels)) * np.float32(np.sqrt(2 / window**2 / channels))
    padding = window // 2
    expected = reference.conv2d(x, weight, padding=padding)
    plain = reference.bfloat16(reference.conv2d(x, reference.bfloat16(weight), padding=padding))
    forward = Path(path.isa, {"conv2d": path.pins["conv2d"]})
    found = run(in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=padding)), x, weight, path=forward)

    def error(y):
        return np.linalg.norm(y - expected) / np.linalg.norm(expected)

    assert 0.0015 < error(plain) < error(found) < 2 * error(plain) < 0.006


@paths
def test_nan_reaches_the_tiles_that_see_it(path):
    rng = np.random.default_rng(0)
    x, weight = reference.bfloat16(reals(rng, (2, 7, 8, 33))), reals(rng, (40, 3, 3, 33))
    op = in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=1))
    clean = run(op, x, weight, path=path)
    x[1, 4, 5, 2] = np.nan
    hit = run(op, x, weight, path=path)
    spoiled = np.zeros(clean.shape, bool)
    spoiled[1, 2:6, 4:8] = True  # whole tiles of the field of rows 3 to 5, columns 4 to 6
    assert np.isnan(hit[1, 3:6, 4:7]).all()
    tolerances.assert_bits(hit[~spoiled], clean[~spoiled])


@paths
def test_nan_reaches_the_tiles_whose_five_taps_see_it(path):
    rng = np.random.default_rng(7)
    x, weight = reference.bfloat16(reals(rng, (2, 9, 11, 33))), reals(rng, (40, 5, 5, 33))
    op = in_bfloat16(lambda x, w: functional.conv2d(x, w, padding=2))
    forward = Path(path.isa, {"conv2d": path.pins["conv2d"]})
    clean = run(op, x, weight, path=forward)
    x[1, 4, 5, 2] = np.nan
    hit = run(op, x, weight, path=forward)
    spoiled = np.zeros(clean.shape, bool)
    spoiled[1, 2:8, 2:8] = True  # whole tiles of the field of rows 2 to 6, columns 3 to 7
    assert np.isnan(hit[1, 2:7, 3:8]).all()
    tolerances.assert_bits(hit[~spoiled], clean[~spoiled])


@paths
def test_images_may_be_slices_and_results_places_of_a_concat(path):
    rng = np.random.default_rng(4)
    x = reference.bfloat16(reals(rng, (2, 7, 9, 80)))
    weights = reals(rng, (40, 3, 3, 40)), reals(rng, (33, 3, 3, 40))

    def convolved(x, w):
        return functional.relu(functional.conv2d(x, w, padding=1))

    def parts(x, *weights):
        x = functional.relu(x)
        halves = (functional.slice(x, begin=(0, 0, 0, at), size=(-1, -1, -1, 40)) for at in (0, 40))
        return functional.concat([convolved(half, w) for half, w in zip(halves, weights)])

    whole = run(in_bfloat16(parts), x, *weights, path=path)
    apart = [
        run(in_bfloat16(convolved), np.maximum(x[..., at : at + 40], 0), w, path=path)
        for at, w in zip((0, 40), weights)
    ]
    tolerances.assert_bits(whole, np.concatenate(apart, axis=3))


@pytest.mark.parametrize(
    ("shape", "out", "options", "reason"),
    [
        ((1, 8, 8, 31), 32, {}, "fewer than 32 channels"),
        ((1, 8, 8, 32), 31, {}, "fewer than 32 channels"),
        ((1, 3, 8, 32), 32, {}, "an output side is below 4"),
        ((1, 8, 8, 32), 32, {"stride": 2}, "the stride is not 1"),
        ((1, 8, 8, 32), 32, {"window": 7}, "the window is neither 3x3 nor 5x5"),
        ((1, 7, 9, 32), 32, {"window": 5}, "an output side of a 5x5 window is below 8"),
    ],
)
def test_a_pin_that_does_not_fit_is_refused_with_the_reason(shape, out, options, reason):
    geometry = dict(options)
    window = geometry.pop("window", 3)

    def op(x, w):
        return functional.conv2d(functional.cast(x, dtype="bfloat16"), w, padding=window // 2, **geometry)

    traced = trace(op, {"x": (shape, "float32"), "w": ((out, window, window, shape[3]), "float32")})
    with pytest.raises(UnsupportedError, match=reason):
        compile_traced(traced, variants={"conv2d": "conv2d.bfloat16.winograd.portable"})


@paths
def test_winograd_false_turns_it_off(path):
    def op(x, w):
        return functional.conv2d(functional.cast(x, dtype="bfloat16"), w, padding=1)

    traced = trace(op, {"x": ((1, 8, 8, 32), "float32"), "w": ((32, 3, 3, 32), "float32")})
    pins = {"conv2d": path.pins["conv2d"]}
    assert pins["conv2d"] in compile_traced(traced, variants=pins).explain()
    with pytest.raises(UnsupportedError, match="winograd is off"):
        compile_traced(traced, variants=pins, winograd=False)


def test_widened_images_are_summed_plainly_and_nobody_is_told_that_it_was_his_wish():
    def explained(winograd):
        net = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
        options = {"dtype": "bfloat16", "emulate_bfloat16": True, "isa": "baseline"}
        return pycnn.compile(net, (1, 8, 8, 32), winograd=winograd, **options).explain()

    assert "conv2d.winograd.baseline: bfloat16 is summed plainly" in explained(True)
    assert "winograd is off" not in explained(True)
    assert "conv2d.winograd.baseline: winograd is off" in explained(False)


HERE = [unit for unit, name in UNITS.items() if name in pycnn.config.machine()["bfloat16_units"]]


@pytest.mark.skipif(not HERE, reason="nothing here multiplies bfloat16")
def test_the_shape_chooses_among_the_kernels_of_the_best_unit():
    def chosen(groups):
        conv = nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)
        net = nn.Sequential(nn.ReLU(), conv, nn.GlobalAvgPool2d())
        return pycnn.compile(net, (1, 8, 8, 64), dtype="bfloat16").explain()

    amx = HERE[0] == "amx"
    assert ("conv2d.bfloat16.amx" if amx else "conv2d.bfloat16.winograd.avx512_bf16") in chosen(1)
    for groups in (2, 8, 16):
        assert ("conv2d.bfloat16.amx" if amx else "conv2d.bfloat16.grouped.avx512_bf16") in chosen(groups)
    assert ("conv2d.bfloat16.amx" if amx else ".widened") in chosen(64)
