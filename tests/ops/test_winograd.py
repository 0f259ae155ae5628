"""Convolution and its gradients by Winograd's minimal filtering: 3x3 in tiles of 2 and of 4, 5x5, groups."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, gradients, integers, isas, reals, run

import pycnn
from pycnn import functional, nn
from pycnn.errors import ArgumentError, UnsupportedError
from pycnn.program import compile_traced, plan_memory
from pycnn.tracing import trace

every_isa = pytest.mark.parametrize("path", isas())


@dataclass(frozen=True)
class Case:
    """Image (N, H, W, IC), output channels, and where the window goes."""

    image: tuple[int, int, int, int]
    out: int
    padding: int | tuple[int, ...] = 1
    window: int = 3
    groups: int = 1

    @property
    def weight(self):
        return (self.out, self.window, self.window, self.image[3] // self.groups)

    def variant(self, isa):
        """The kernel, without the op's name in front; one of other vectors if they fit the groups better."""
        lanes = {"baseline": 4, "avx2": 8, "avx512": 16}
        if self.groups == 1:
            return f"winograd.{isa}"
        for name in (isa, "avx2"):
            if lanes[name] <= lanes[isa] and self.weight[3] // lanes[name] in (1, 2, 4):
                return f"grouped.winograd.{name}"
        return f"grouped.{isa}"

    @property
    def output(self):
        top, bottom, left, right = reference.sides(self.padding)
        n, height, width, _ = self.image
        lost = self.window - 1
        return (n, height + top + bottom - lost, width + left + right - lost, self.out)

    @property
    def tile(self):
        return 2 if self.groups == 1 and (self.window == 5 or min(self.output[1:3]) <= 7) else 4

    def gradient_tile(self, sides):
        """The one with the fewest products for an image of these sides."""
        if self.groups > 1:
            return 4
        products = {tile: (tile + 2) ** 2 * math.prod(-(-side // tile) for side in sides) for tile in (2, 4)}
        return 4 if self.window == 3 and products[4] < products[2] else 2

    @property
    def grad_tile(self):
        return self.gradient_tile(self.image[1:3])

    @property
    def weight_tile(self):
        return self.gradient_tile(self.output[1:3])

    @property
    def grad_padding(self):
        return tuple(self.window - 1 - side for side in reference.sides(self.padding))

    def arrays(self, make, seed=0):
        rng = np.random.default_rng(seed)
        return [make(rng, self.image), make(rng, self.weight), make(rng, (self.out,))]

    def op(self, *tensors):
        return functional.conv2d(*tensors, padding=self.padding, groups=self.groups)


CASES = {
    "tile_2": Case((2, 7, 8, 17), 35),
    "tile_2_smallest": Case((3, 4, 4, 16), 16),
    "tile_2_unpadded": Case((1, 7, 9, 40), 17, padding=0),
    "tile_2_padded_by_2": Case((1, 5, 6, 16), 24, padding=2),
    "tile_2_wide": Case((1, 5, 33, 18), 20),
    "tile_2_tall": Case((1, 33, 4, 16), 16),
    "tile_2_backward": Case((2, 6, 5, 17), 35),
    "tile_4_backward": Case((3, 7, 7, 24), 260),  # only there
    "tile_2_split": Case((1, 6, 6, 24), 260),  # too few tiles for all cores: output channels are shared out
    "tile_4": Case((2, 9, 11, 17), 35),
    "tile_4_whole": Case((1, 12, 12, 16), 32),
    "tile_4_unpadded": Case((1, 15, 16, 40), 17, padding=0),
    "tile_4_padded_by_2": Case((1, 10, 9, 16), 19, padding=2),
    "tile_4_four_pads": Case((1, 10, 11, 33), 16, padding=(0, 1, 2, 1)),
    "tile_4_wide": Case((1, 9, 38, 16), 17),
    "tile_4_split": Case((1, 14, 14, 20), 130),
    "tile_4_many": Case((4, 45, 46, 32), 32),  # chunks of tiles for each core
    "empty_batch": Case((0, 12, 12, 16), 16),
    "tiles_differ": Case((1, 7, 9, 16), 16, padding=2),  # 4 forward, 2 backward
    "window_5": Case((2, 9, 10, 17), 35, padding=2, window=5),
    "window_5_smallest": Case((3, 4, 5, 16), 16, padding=2, window=5),
    "window_5_unpadded": Case((1, 11, 12, 24), 17, padding=0, window=5),
    "window_5_padded_by_4": Case((1, 5, 6, 16), 19, padding=4, window=5),
    "window_5_four_pads": Case((1, 8, 9, 33), 16, padding=(0, 1, 3, 2), window=5),
    "window_5_split": Case((1, 7, 7, 20), 130, padding=2, window=5),
    "window_5_many": Case((3, 27, 28, 16), 32, padding=2, window=5),
    "groups_of_8": Case((2, 11, 11, 24), 24, groups=3),
    "groups_of_16": Case((1, 14, 13, 48), 48, groups=3),
    "groups_of_32": Case((2, 10, 9, 96), 96, groups=3),
    "groups_of_64": Case((1, 8, 9, 128), 128, groups=2),
    "groups_smallest": Case((5, 4, 4, 32), 32, groups=2),  # tiles of several images at once
    "groups_small": Case((3, 7, 7, 64), 64, groups=2),
    "groups_unpadded": Case((2, 13, 16, 32), 32, padding=0, groups=2),
    "groups_padded_by_2": Case((1, 10, 9, 16), 16, padding=2, groups=2),
    "groups_four_pads": Case((1, 10, 11, 32), 32, padding=(0, 1, 2, 1), groups=2),
    "groups_wide": Case((1, 11, 70, 16), 16, groups=2),  # several strips of tiles in a row
    "groups_many": Case((4, 29, 30, 192), 192, groups=12),
    "groups_empty_batch": Case((0, 12, 12, 32), 32, groups=2),
}
cases = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in CASES.items()])


def few(rng, shape):
    """Ones, minus ones and many zeros."""
    return (rng.integers(-1, 2, shape) * (rng.random(shape) < 0.3)).astype(np.float32)


def sparse(rng, shape):
    """As `few`, about five hundred of them."""
    return few(rng, shape) * (rng.random(shape) < 2000 / max(math.prod(shape), 1)).astype(np.float32)


def whole(case, make=few, seed=0):
    """Numbers for which nothing is rounded: tiles of 4 divide the weights by up to 24, twice.

    What is a multiple of 36 becomes a multiple of 1/16 then.
    """
    x, weight, bias = case.arrays(make, seed)
    return x, 36 * weight, bias


def assert_nothing_is_rounded(x, weight, tile, padding, groups=1):
    """All intermediate numbers are multiples of 1/16 and fit float32."""
    if x.size:
        largest = reference.winograd(x, weight, tile, padding=padding, groups=groups, magnitude=True).max()
        assert 16 * largest < 2**24


def flipped(weight, groups=1):
    """The weights with which the gradient for the input is a convolution."""
    return np.concatenate([part[:, ::-1, ::-1].transpose(3, 1, 2, 0) for part in np.split(weight, groups)])


@pytest.mark.parametrize(("tile", "window"), reference.WINOGRAD)
def test_the_reference_matrices_are_a_convolution(tile, window):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 7, 9, 3)), rng.standard_normal((4, window, window, 3))
    expected = reference.conv2d(x, weight, padding=(0, 1, 2, 1))
    np.testing.assert_allclose(reference.winograd(x, weight, tile, padding=(0, 1, 2, 1)), expected, rtol=0, atol=1e-12)


@cases
@every_isa
def test_forward_is_exact_on_whole_numbers(case, path):
    x, weight, bias = whole(case)
    assert_nothing_is_rounded(x, weight, case.tile, case.padding, case.groups)
    program = build(case.op, x, weight, bias, path=path)
    assert f" conv2d.{case.variant(path.isa)}  " in program.explain()
    expected = reference.conv2d(x, weight, bias, padding=case.padding, groups=case.groups)
    tolerances.assert_exact(program(x, weight, bias), expected)


@cases
@every_isa
def test_input_gradient_is_exact_on_whole_numbers(case, path):
    x, weight, bias = whole(case)
    grad = few(np.random.default_rng(2), case.output)
    assert_nothing_is_rounded(grad, flipped(weight, case.groups), case.grad_tile, case.grad_padding, case.groups)
    (found,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, padding=case.padding, groups=case.groups)
    tolerances.assert_exact(found, expected)


WEIGHED = {
    name: case for name, case in CASES.items() if case.image[0] and (case.image[3] * case.out >= 512 or case.groups > 1)
}
weighed = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in WEIGHED.items()])


@weighed
@every_isa
def test_weight_gradient_is_exact_on_whole_numbers(case, path):
    x, weight, bias = case.arrays(few)
    grad = 36 * sparse(np.random.default_rng(2), case.output)
    where = {"padding": case.padding, "groups": case.groups}
    magnitude = reference.winograd_grad_weight(x, grad, case.weight_tile, case.window, **where, magnitude=True)
    assert 16 * magnitude.max() < 2**24
    found, found_bias = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(1, 2))
    tolerances.assert_exact(found, reference.conv2d_grad_weight(x, grad, case.weight[1:3], **where))
    tolerances.assert_exact(found_bias, grad.sum((0, 1, 2), np.float64))


@cases
@every_isa
def test_forward_is_within_the_bound(case, path):
    x, weight, bias = case.arrays(reals, seed=1)
    where = {"padding": case.padding, "groups": case.groups}
    magnitude = reference.winograd(x, weight, case.tile, **where, magnitude=True) + np.abs(bias)
    bound = tolerances.winograd_bound(magnitude, case.weight[3])
    found = run(case.op, x, weight, bias, path=path)
    tolerances.assert_within(found, reference.conv2d(x, weight, bias, **where), bound)


@cases
@every_isa
def test_input_gradient_is_within_the_bound(case, path):
    x, weight, bias = case.arrays(reals, seed=3)
    grad = reals(np.random.default_rng(4), case.output)
    (found,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, padding=case.padding, groups=case.groups)
    where = {"padding": case.grad_padding, "groups": case.groups}
    magnitude = reference.winograd(grad, flipped(weight, case.groups), case.grad_tile, **where, magnitude=True)
    tolerances.assert_within(found, expected, tolerances.winograd_bound(magnitude, case.out // case.groups))


@weighed
@every_isa
def test_weight_gradient_is_within_the_bound(case, path):
    x, weight, bias = case.arrays(reals, seed=3)
    grad = reals(np.random.default_rng(4), case.output)
    found, found_bias = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(1, 2))
    where = {"padding": case.padding, "groups": case.groups}
    expected = reference.conv2d_grad_weight(x, grad, case.weight[1:3], **where)
    magnitude = reference.winograd_grad_weight(x, grad, case.weight_tile, case.window, **where, magnitude=True)
    tiles = case.output[0] * math.prod(-(-side // case.weight_tile) for side in case.output[1:3])
    tolerances.assert_within(found, expected, tolerances.winograd_bound(magnitude, tiles))
    pixels = math.prod(case.output[:3])
    bound = tolerances.sum_bound(np.abs(grad).sum((0, 1, 2)), pixels)
    tolerances.assert_within(found_bias, grad.sum((0, 1, 2), np.float64), bound)


@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.parametrize(("side", "window"), [(7, 3), (12, 3), (10, 5)])
@every_isa
def test_errors_on_usual_data_are_of_the_documented_size(channels, side, window, path):
    rng = np.random.default_rng(channels)
    case = Case((1, side, side, channels), channels, padding=window // 2, window=window)
    x = np.maximum(reals(rng, case.image), 0)
    weight = reals(rng, case.weight) * np.float32(np.sqrt(2 / (window**2 * channels)))
    expected = reference.conv2d(x, weight, padding=case.padding)
    largest = np.abs(expected).max()
    for winograd, size in ((True, (case.tile, window)), (False, (1, window))):
        found = run(case.op, x, weight, path=path, winograd=winograd)
        tolerances.assert_within(found, expected, tolerances.CONVOLUTION[size] * largest, f"winograd={winograd}")


@pytest.mark.parametrize("channels", [8, 16, 32, 64])
@pytest.mark.parametrize("side", [7, 14])
@every_isa
def test_errors_within_groups_are_of_the_documented_size(channels, side, path):
    rng = np.random.default_rng(channels)
    case = Case((1, side, side, 2 * channels), 2 * channels, groups=2)
    x = np.maximum(reals(rng, case.image), 0)
    weight = reals(rng, case.weight) * np.float32(np.sqrt(2 / (9 * channels)))
    expected = reference.conv2d(x, weight, padding=1, groups=2)
    largest = np.abs(expected).max()
    for winograd, bound in ((True, tolerances.GROUPED_CONVOLUTION), (False, tolerances.CONVOLUTION[1, 3])):
        found = run(case.op, x, weight, path=path, winograd=winograd)
        tolerances.assert_within(found, expected, bound * largest, f"winograd={winograd}")


# ---- Properties

SHARED = ("tile_2", "tile_2_split", "tile_4", "tile_4_split", "tile_4_many", "tile_4_four_pads", "window_5_many")
SHARED += ("groups_of_8", "groups_smallest", "groups_wide", "groups_many")


@pytest.mark.parametrize("name", SHARED)
@every_isa
def test_any_number_of_threads_gives_the_same_bits(name, path):
    case = CASES[name]
    arrays = case.arrays(reals, seed=6)
    grad = reals(np.random.default_rng(7), case.output)
    first = run(case.op, *arrays, path=path, threads=1)
    expected = gradients(case.op, *arrays, grad=grad, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(case.op, *arrays, path=path, threads=threads), first, f"{threads} threads")
        for got, want in zip(gradients(case.op, *arrays, grad=grad, path=path, threads=threads), expected, strict=True):
            tolerances.assert_bits(got, want, f"{threads} threads")


@pytest.mark.parametrize("name", SHARED)
@every_isa
def test_a_batch_has_the_bits_of_its_images_alone(name, path):
    case = replace(CASES[name], image=(5, *CASES[name].image[1:]))
    x, weight, bias = case.arrays(reals)
    grad = reals(np.random.default_rng(1), case.output)
    whole_batch = run(case.op, x, weight, bias, path=path)
    (whole_grad,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    for i in range(5):
        one = slice(i, i + 1)
        tolerances.assert_bits(run(case.op, x[one], weight, bias, path=path), whole_batch[one])
        (alone,) = gradients(case.op, x[one], weight, bias, grad=grad[one], path=path, wrt=(0,))
        tolerances.assert_bits(alone, whole_grad[one])


@every_isa
def test_weight_gradients_of_more_tiles_than_one_step_are_right(path):
    case = Case((40, 33, 34, 48), 64)  # 3,240 tiles
    x, weight, bias = case.arrays(few)
    grad = 36 * sparse(np.random.default_rng(2), case.output)
    found, found_bias = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(1, 2))
    tolerances.assert_exact(found, reference.conv2d_grad_weight(x, grad, (3, 3), padding=1))
    tolerances.assert_exact(found_bias, grad.sum((0, 1, 2), np.float64))


def test_the_cases_reach_both_orders_of_work():
    def scratch(name, images):
        case = replace(CASES[name], image=(images, *CASES[name].image[1:]))
        return build(case.op, *case.arrays(integers), threads=1).memory["scratch_bytes"]

    for name in ("tile_2_split", "tile_4_split"):  # transformed inputs of all tiles
        assert scratch(name, 2) > scratch(name, 1)
    # Those of one core, of which a chunk holds more or fewer by rounding.
    assert scratch("tile_4_many", 40) < 1.1 * scratch("tile_4_many", 20)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
    "scaled_tanh": functional.scaled_tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["tile_2", "tile_4", "tile_4_whole", "tile_4_split", "window_5", "groups_of_16"])
@every_isa
def test_a_fused_epilogue_computes_what_the_ops_say(activation, residual, name, path):
    case = CASES[name]
    x, weight, bias = case.arrays(reals)
    other = reals(np.random.default_rng(8), case.output)

    def block(x, weight, bias, other):
        y = case.op(x, weight, bias)
        return ACTIVATIONS[activation](y + other if residual else y)

    fused = build(block, x, weight, bias, other, path=path)
    plain = build(block, x, weight, bias, other, path=path, fuse=False)
    for program in (fused, plain):
        assert "winograd" in program.explain()
    for part in ("activation.", "add."):
        assert part not in fused.explain()
    arrays = [x, weight, bias, other] if residual else [x, weight, bias]
    tolerances.assert_bits(fused(*arrays), plain(*arrays))


@every_isa
def test_reusing_memory_changes_no_bit(path):
    rng = np.random.default_rng(0)
    x, first, second = reals(rng, (2, 13, 9, 16)), reals(rng, (16, 3, 3, 16)), reals(rng, (16, 3, 3, 16))

    def net(x, first, second):
        x = functional.tanh(x)
        y = functional.relu(functional.conv2d(x, first, padding=1))
        return functional.max_pool2d(functional.relu(functional.conv2d(y, second, padding=1) + x), kernel_size=2)

    shared = build(net, x, first, second, path=path)
    apart = build(net, x, first, second, path=path, reuse_memory=False)
    assert shared.memory["arena_bytes"] < apart.memory["arena_bytes"]
    assert shared.explain().count("conv2d.winograd") >= 2
    tolerances.assert_bits(shared(x, first, second), apart(x, first, second))


@pytest.mark.parametrize(("side", "tile", "window"), [(7, 2, 3), (13, 4, 3), (11, 2, 5)])
@every_isa
def test_nan_reaches_the_tiles_that_see_it_and_its_own_field_without_winograd(side, tile, window, path):
    rng = np.random.default_rng(0)
    reach = window // 2
    x, weight = reals(rng, (2, side, side, 16)), reals(rng, (18, window, window, 16))

    def op(x, w):
        return functional.conv2d(x, w, padding=reach)

    for winograd in (True, False):
        clean = run(op, x, weight, path=path, winograd=winograd)
        spoiled = x.copy()
        spoiled[1, 4, 5, 2] = np.nan
        hit = run(op, spoiled, weight, path=path, winograd=winograd)
        field = np.zeros(clean.shape, bool)
        field[1, 4 - reach : 5 + reach, 5 - reach : 6 + reach] = True
        assert np.isnan(hit[field]).all()
        if winograd:
            for i in range(0, side, tile):
                for j in range(0, side, tile):
                    part = field[1, i : i + tile, j : j + tile]
                    part |= part.any()
        tolerances.assert_bits(hit[~field], clean[~field])


@every_isa
def test_many_threads_may_run_one_program_at_once(path):
    case = CASES["tile_4_split"]
    x, weight, bias = case.arrays(reals)
    program = build(case.op, x, weight, bias, path=path, threads=2)
    images = [reals(np.random.default_rng(i), case.image) for i in range(4)]
    expected = [program(image, weight, bias) for image in images]
    found = [[] for _ in images]

    def work(i):
        found[i] = [program(images[i], weight, bias) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, want in zip(found, expected):
        assert len(results) == 5
        for got in results:
            tolerances.assert_bits(got, want)


# ---- The choice


def traced(case, **geometry):
    return trace(
        lambda x, w: functional.conv2d(x, w, **{"padding": case.padding, **geometry}),
        {"x": (case.image, "float32"), "w": (case.weight, "float32")},
    )


@every_isa
def test_winograd_false_gives_plain_sums_and_says_so(path):
    explained = compile_traced(traced(CASES["tile_4"]), isa=path.isa, winograd=False).explain()
    assert f"conv2d.implicit_gemm.{path.isa}" in explained
    assert f"conv2d.winograd.{path.isa}: winograd is off" in explained


def test_a_pin_against_the_option_is_refused_with_both_names():
    pins = {"conv2d": "conv2d.winograd.baseline"}
    compile_traced(traced(CASES["tile_4"]), variants=pins)
    with pytest.raises(UnsupportedError, match=r"conv2d\.winograd\.baseline: winograd is off"):
        compile_traced(traced(CASES["tile_4"]), variants=pins, winograd=False)


@pytest.mark.parametrize(
    ("case", "geometry", "reason"),
    [
        (Case((1, 12, 12, 15), 16), {}, "fewer than 16 channels"),
        (Case((1, 12, 12, 16), 15), {}, "fewer than 16 channels"),
        (Case((1, 3, 12, 16), 16), {}, "an output side is below 4"),
        (CASES["tile_4"], {"stride": 2}, "the stride is not 1"),
        (CASES["tile_4"], {"dilation": 2}, "the window is dilated"),
        (Case((1, 12, 12, 16), 16, window=1), {}, "the window is neither 3x3 nor 5x5"),
        (Case((1, 12, 12, 16), 16, window=7), {}, "the window is neither 3x3 nor 5x5"),
    ],
)
def test_explain_says_why_not(case, geometry, reason):
    explained = compile_traced(traced(case, **geometry), isa="baseline").explain()
    assert f"conv2d.winograd.baseline: {reason}" in explained


def test_the_choice_does_not_depend_on_the_batch():
    def chosen(case, images):
        program = compile_traced(traced(replace(case, image=(images, *case.image[1:]))), isa="baseline")
        return "conv2d.winograd.baseline" in program.explain(), program.memory["prepared_bytes"]

    for case in (CASES["tile_2"], CASES["tile_4"], Case((1, 3, 12, 16), 16)):
        assert chosen(case, 1) == chosen(case, 33)


@pytest.mark.parametrize("winograd", [True, False])
def test_the_plan_of_memory_is_what_the_program_takes(winograd):
    recorded = traced(CASES["tile_4"])
    program = compile_traced(recorded, winograd=winograd, threads=2)
    plan = plan_memory(recorded, winograd=winograd, threads=2)
    assert {key: plan[key] for key in program.memory} == program.memory


@pytest.mark.parametrize("value", ["yes", 1, None, 0.0])
def test_the_option_is_true_or_false(value):
    with pytest.raises(ArgumentError, match="compile: winograd must be True or False, got "):
        compile_traced(traced(CASES["tile_4"]), winograd=value)
    with pytest.raises(ArgumentError, match="compile: winograd must be True or False, got "):
        plan_memory(traced(CASES["tile_4"]), winograd=value)


def small_net():
    pycnn.manual_seed(3)
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GlobalAvgPool2d(), nn.Linear(16, 3))


def test_compile_gradients_and_trainer_take_the_option():
    rng = np.random.default_rng(0)
    x, weight = reals(rng, (4, 12, 12, 16)), reals(rng, (16, 3, 3, 16))

    def loss(x, w):
        return functional.sum(functional.conv2d(x, w, padding=1))

    found = {}
    for winograd in (True, False):
        program = pycnn.compile(small_net(), x.shape, winograd=winograd)
        (line,) = (line for line in program.explain().splitlines() if " conv2d  " in line)
        assert ("conv2d.winograd" in line) == winograd
        _, gradient = pycnn.value_and_grad(loss, winograd=winograd)(x, weight)
        trainer = pycnn.Trainer(small_net(), winograd=winograd, seed=0)
        trainer.train_batch(x, np.array([0, 1, 2, 0], np.int32))
        found[winograd] = [gradient, trainer.net[0].weight.numpy(), trainer.net(x)]
    for fast, plain in zip(found[True], found[False]):  # equal but for rounding, which shows that both ran
        assert np.any(fast != plain)
        np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-4 * np.abs(plain).max())
