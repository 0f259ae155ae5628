"""Convolution and its two gradients; what fast algorithms round: test_winograd.py, test_strassen.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_paths import (
    ISAS,
    LATER,
    Path,
    bfloat16_paths,
    build,
    gradients,
    in_bfloat16,
    integers,
    is_for_bfloat16,
    isas,
    paths,
    reals,
    run,
)

from pycnn import _core, functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients
from pycnn.testing import strategies as edges
from pycnn.tracing import emit

OPS = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")


@dataclass(frozen=True)
class Case:
    """Image (N, H, W, IC), output channels, window, and where it goes."""

    image: tuple[int, int, int, int]
    out: int
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True

    @property
    def geometry(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def weight(self):
        return (self.out, *self.kernel, self.image[3] // self.groups)

    @property
    def length(self):
        return self.kernel[0] * self.kernel[1] * self.weight[3] + 1

    def arrays(self, make, seed=0):
        rng = np.random.default_rng(seed)
        arrays = [make(rng, self.image), make(rng, self.weight)]
        return [*arrays, make(rng, (self.out,))] if self.bias else arrays

    def op(self, *tensors):
        return functional.conv2d(*tensors, **self.geometry)

    def __str__(self):
        return "x".join(map(str, (*self.image, self.out))) + f"-k{self.kernel[0]}x{self.kernel[1]}"


CASES = {
    "1x1_image": Case((1, 1, 1, 1), 1, (1, 1)),
    "pointwise_wide": Case((1, 16, 17, 128), 128, (1, 1)),
    "1x1_image_padded_3x3": Case((2, 1, 1, 3), 17, (3, 3), padding=1),
    "1x1_image_padded_7x7": Case((1, 1, 1, 17), 3, (7, 7), padding=3),
    "empty_batch": Case((0, 5, 6, 3), 4, padding=1),
    "one_channel": Case((3, 9, 8, 1), 6, (5, 5)),
    "lenet_c1": Case((2, 28, 28, 1), 6, (5, 5), padding=2),
    "lenet_c3": Case((2, 14, 14, 6), 16, (5, 5)),
    "channels_2_15": Case((1, 6, 7, 2), 15, (3, 3), padding=1),
    "channels_3_16": Case((3, 7, 17, 3), 16, (3, 3), padding=1),
    "channels_17_33": Case((1, 5, 15, 17), 33, (3, 3), padding=1),
    "channels_33_31": Case((1, 4, 16, 33), 31, (3, 2), padding=1),
    "channels_64_65": Case((1, 4, 5, 64), 65, (1, 1)),
    # Weight gradients by copies of both sides, of which the first tiles are read as they lie: one row of pixels and
    # several, more pixels than go to one copy and fewer than are fetched ahead, whole tiles and rests on either side.
    "panels_of_one_row": Case((2, 17, 19, 48), 46, (1, 1)),
    "panels_of_rows": Case((2, 9, 61, 32), 28, (3, 3), stride=(1, 2), padding=1),
    "panels_of_short_rows": Case((3, 8, 5, 80), 29, (2, 2), bias=False),
    "panels_of_groups": Case((1, 6, 31, 96), 90, (1, 3), padding=(0, 1), groups=3),
    "blocks_of_gradients": Case((2, 11, 30, 33), 64, (2, 3), stride=2, padding=(0, 1)),
    "channels_1000": Case((1, 2, 3, 1000), 3, (1, 1)),
    "out_channels_2049": Case((1, 2, 2, 2), 2049, (1, 2)),
    "no_bias": Case((2, 6, 6, 5), 7, (3, 3), padding=1, bias=False),
    "one_row": Case((2, 1, 19, 4), 5, (1, 3), padding=(0, 1)),
    "one_column": Case((2, 19, 1, 4), 5, (3, 1), padding=(1, 0)),
    "kernel_is_image": Case((2, 6, 5, 3), 8, (6, 5)),
    "kernel_above_image": Case((1, 2, 3, 3), 4, (5, 5), padding=2),
    "stride_2": Case((2, 9, 10, 8), 12, (3, 3), stride=2, padding=1),
    "stride_above_kernel": Case((1, 11, 12, 3), 5, (2, 2), stride=(3, 4)),
    "stride_50": Case((1, 7, 60, 2), 3, (3, 3), stride=50, padding=1),
    "stride_2_1x1": Case((2, 7, 8, 16), 32, (1, 1), stride=2),
    "dilation_2": Case((1, 9, 9, 3), 4, (3, 3), padding=2, dilation=2),
    "dilation_3_2": Case((1, 10, 9, 3), 4, (3, 3), padding=1, dilation=(3, 2)),
    "dilation_9": Case((1, 12, 20, 2), 3, (2, 3), dilation=9, padding=1),
    "dilation_and_stride": Case((2, 13, 12, 4), 6, (3, 3), stride=(2, 3), padding=(1, 2, 3, 0), dilation=2),
    "four_pads": Case((2, 5, 6, 3), 5, (3, 3), padding=(0, 1, 2, 3)),
    "pad_above_kernel": Case((1, 3, 3, 2), 3, (2, 2), padding=4),
    "stride_over_padding": Case((1, 4, 4, 3), 3, (3, 3), stride=4, padding=(5, 2, 4, 3)),
    "groups_2": Case((2, 6, 6, 6), 10, (3, 3), padding=1, groups=2),
    "groups_32": Case((1, 5, 5, 64), 64, (3, 3), padding=1, groups=32),
    "depthwise": Case((2, 7, 6, 17), 17, (3, 3), padding=1, groups=17),
    "depthwise_multiplier_2": Case((1, 6, 6, 33), 66, (3, 3), padding=1, groups=33),
    "depthwise_stride_2": Case((1, 9, 9, 16), 16, (3, 3), stride=2, padding=1, groups=16),
    "groups_of_4": Case((2, 5, 28, 32), 32, (3, 3), padding=1, groups=8),
    "groups_of_4_stride_2": Case((1, 5, 29, 32), 32, (3, 3), stride=2, padding=1, groups=8),
    "groups_of_8": Case((1, 4, 15, 48), 48, (3, 5), padding=(1, 2), groups=6),
    "groups_of_8_stride_2": Case((2, 6, 9, 32), 32, (3, 3), stride=2, padding=1, groups=4),
    "groups_of_16_stride_2": Case((1, 5, 7, 32), 32, (3, 2), stride=2, padding=1, groups=2),
    "groups_odd": Case((1, 6, 5, 9), 6, (2, 3), stride=(1, 2), padding=(1, 0, 0, 2), groups=3),
    "resnet_stem": Case((1, 24, 24, 3), 64, (7, 7), stride=2, padding=3),
    "width_15": Case((1, 3, 15, 8), 16),
    "width_17_of_output": Case((1, 5, 19, 8), 16),
}
# Tiles of 4 are not exact on any whole numbers: test_winograd.py.
IN_TILES_OF_4 = Case((1, 6, 7, 32), 32, padding=1, groups=2)
GRADIENTS_IN_TILES_OF_4 = CASES["channels_17_33"]
cases = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in CASES.items()])


@cases
@pytest.mark.parametrize("path", paths("conv2d"))
def test_forward_is_exact_on_whole_numbers(case, path):
    arrays = case.arrays(integers)
    tolerances.assert_exact(run(case.op, *arrays, path=path), reference.conv2d(*arrays, **case.geometry))


@cases
@pytest.mark.parametrize("path", paths("conv2d"))
def test_forward_is_within_the_bound_of_its_sum(case, path):
    arrays = case.arrays(reals, seed=1)
    magnitude = reference.conv2d(*map(np.abs, arrays), **case.geometry)
    bound = tolerances.sum_bound(magnitude, case.length)
    found = run(case.op, *arrays, path=path, winograd=False)
    tolerances.assert_within(found, reference.conv2d(*arrays, **case.geometry), bound)


def expected_gradients(case, arrays, grad):
    x, weight = arrays[:2]
    result = [
        reference.conv2d_grad_input(grad, weight, x.shape, **case.geometry),
        reference.conv2d_grad_weight(x, grad, case.kernel, **case.geometry),
    ]
    return [*result, reference.f64(grad).sum(axis=(0, 1, 2))] if case.bias else result


@cases
@pytest.mark.parametrize("path", paths(*OPS))
def test_gradients_are_exact_on_whole_numbers(case, path):
    arrays = case.arrays(integers)
    output = reference.conv2d(*arrays, **case.geometry)
    grad = integers(np.random.default_rng(2), output.shape)
    rounds = case == GRADIENTS_IN_TILES_OF_4
    if rounds and "winograd" in str(path):
        pytest.skip("tiles of 4 round")
    found = gradients(case.op, *arrays, grad=grad, path=path, **({"winograd": False} if rounds else {}))
    for name, got, want in zip(("input", "weight", "bias"), found, expected_gradients(case, arrays, grad)):
        tolerances.assert_exact(got, want, name)


@cases
@pytest.mark.parametrize("path", paths(*OPS))
def test_gradients_are_within_the_bound_of_their_sums(case, path):
    arrays = case.arrays(reals, seed=3)
    output = reference.conv2d(*arrays, **case.geometry)
    grad = reals(np.random.default_rng(4), output.shape)
    found = gradients(case.op, *arrays, grad=grad, path=path, winograd=False)
    magnitudes = expected_gradients(case, [np.abs(a) for a in arrays], np.abs(grad))
    pixels = output.size // case.out
    lengths = (case.length * case.out, pixels, pixels)
    for name, got, want, magnitude, length in zip(
        ("input", "weight", "bias"), found, expected_gradients(case, arrays, grad), magnitudes, lengths
    ):
        tolerances.assert_within(got, want, tolerances.sum_bound(magnitude, length), name)


@cases
@pytest.mark.parametrize("path", bfloat16_paths(*OPS))
def test_bfloat16_is_exact_on_whole_numbers_but_for_the_last_rounding(case, path):
    arrays = case.arrays(integers)
    expected = reference.conv2d(*arrays, **case.geometry)
    op = in_bfloat16(case.op)
    tolerances.assert_exact(run(op, *arrays, path=path), reference.bfloat16(expected))
    grad = integers(np.random.default_rng(2), expected.shape)
    found = gradients(op, *arrays, grad=grad, path=path)
    to_input, *rest = expected_gradients(case, arrays, grad)
    for name, got, want in zip(("input", "weight", "bias"), found, [reference.bfloat16(to_input), *rest]):
        tolerances.assert_exact(got, want, name)


@pytest.mark.parametrize(
    "variant",
    [
        v
        for op in OPS
        for v in _core.variants(op)
        if v.rpartition(".")[2] not in LATER and not is_for_bfloat16(v)  # those accept every case
    ],
)
def test_some_case_reaches_each_variant(variant):
    pins = {variant.partition(".")[0]: variant}

    def accepted(case):
        arrays = case.arrays(integers)
        grad = np.zeros(reference.conv2d(*arrays, **case.geometry).shape, np.float32)
        try:
            return gradients(case.op, *arrays, grad=grad, path=Path(ISAS[-1], pins))
        except pytest.skip.Exception:
            return False

    assert any(map(accepted, [*CASES.values(), IN_TILES_OF_4]))


SMALL = [name for name, c in CASES.items() if np.prod(c.image) * c.out < 20_000]


@pytest.mark.parametrize("name", SMALL)
def test_gradients_agree_with_finite_differences(name):
    case = CASES[name]
    check_gradients(case.op, *case.arrays(reals, seed=5), elements=6)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_each_gradient_alone_has_the_same_bits(wanted):
    case = CASES["four_pads"]
    arrays = case.arrays(reals)
    grad = reals(np.random.default_rng(1), case.op(*arrays).shape)
    every = gradients(case.op, *arrays, grad=grad)
    for position, got in zip(wanted, gradients(case.op, *arrays, grad=grad, wrt=wanted)):
        if wanted == (2,) or wanted == (0, 2):  # a plain sum then, in an order of its own
            length = grad.size // case.out
            bound = tolerances.sum_bound(np.abs(grad).sum(axis=(0, 1, 2)) if position == 2 else 0, length)
            tolerances.assert_within(got, every[position], bound)
        else:
            tolerances.assert_bits(got, every[position], f"position {position}")


@pytest.mark.parametrize("path", isas())
def test_zero_gradient_gives_zeros(path):
    case = CASES["stride_over_padding"]
    arrays = case.arrays(reals)
    grad = np.zeros(reference.conv2d(*arrays, **case.geometry).shape, np.float32)
    for got in gradients(case.op, *arrays, grad=grad, path=path):
        assert not got.any()


# ---- Properties

MIDDLING = ("lenet_c3", "channels_17_33", "stride_2", "dilation_and_stride", "depthwise", "groups_2", "stride_2_1x1")


@pytest.mark.parametrize("name", MIDDLING)
@pytest.mark.parametrize("path", paths(*OPS))
def test_any_number_of_threads_gives_the_same_bits(name, path):
    case = CASES[name]
    case = Case((5, *case.image[1:]), case.out, case.kernel, **case.geometry)
    arrays = case.arrays(reals, seed=6)
    first = run(case.op, *arrays, path=path, threads=1)
    grad = reals(np.random.default_rng(7), first.shape)
    expected = gradients(case.op, *arrays, grad=grad, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(case.op, *arrays, path=path, threads=threads), first, f"{threads} threads")
        found = gradients(case.op, *arrays, grad=grad, path=path, threads=threads)
        for got, want in zip(found, expected):
            tolerances.assert_bits(got, want, f"{threads} threads")


@pytest.mark.parametrize("threads", [1, 3])
def test_sums_per_thread_are_right_and_only_a_pin_reaches_them(threads):
    rng = np.random.default_rng(5)
    x, grad = rng.standard_normal((9, 33, 31, 8)), rng.standard_normal((9, 33, 31, 16))
    op = _core.Conv2dGradWeight(kernel_size=(3, 3), padding=(1, 1, 1, 1))
    pin = f"conv2d_grad_weight.per_thread.{ISAS[-1]}"
    assert pin not in _core.variants("conv2d_grad_weight")
    arrays = [x.astype(np.float32), grad.astype(np.float32)]
    program = build(lambda x, grad: emit(op, [x, grad]), *arrays, threads=threads, variants={"conv2d_grad_weight": pin})
    assert pin in program.explain()
    wide = [a.astype(np.float64) for a in arrays]
    expected = reference.conv2d_grad_weight(*wide, (3, 3), padding=1)
    magnitude = reference.conv2d_grad_weight(*map(np.abs, wide), (3, 3), padding=1)
    tolerances.assert_within(program(*arrays), expected, tolerances.sum_bound(magnitude, 9 * 33 * 31))


@pytest.mark.parametrize("name", [*MIDDLING, "lenet_c1", "resnet_stem", "channels_1000", "1x1_image_padded_3x3"])
@pytest.mark.parametrize("path", paths("conv2d", "conv2d_grad_input"))
def test_a_batch_has_the_bits_of_its_images_alone(name, path):
    case = CASES[name]
    x, weight, bias = Case((8, *case.image[1:]), case.out, case.kernel, **case.geometry).arrays(reals)
    whole = run(case.op, x, weight, bias, path=path)
    grad = reals(np.random.default_rng(1), whole.shape)
    (whole_grad,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    for i in range(8):
        one = slice(i, i + 1)
        tolerances.assert_bits(run(case.op, x[one], weight, bias, path=path), whole[one])
        (alone,) = gradients(case.op, x[one], weight, bias, grad=grad[one], path=path, wrt=(0,))
        tolerances.assert_bits(alone, whole_grad[one])


@pytest.mark.parametrize("path", isas())
def test_is_linear_in_the_weight(path):
    case = CASES["dilation_and_stride"]
    rng = np.random.default_rng(0)
    x, first, second = integers(rng, case.image), integers(rng, case.weight), integers(rng, case.weight)
    whole = run(case.op, x, first + 2 * second, path=path)
    parts = run(case.op, x, first, path=path) + 2 * run(case.op, x, second, path=path)
    tolerances.assert_exact(whole, parts)


@pytest.mark.parametrize("path", isas())
def test_1x1_is_a_dense_layer(path):
    rng = np.random.default_rng(0)
    x, weight, bias = integers(rng, (3, 5, 7, 17)), integers(rng, (33, 1, 1, 17)), integers(rng, (33,))
    dense = run(functional.linear, x.reshape(-1, 17), weight.reshape(33, 17), bias, path=path)
    tolerances.assert_exact(run(functional.conv2d, x, weight, bias, path=path).reshape(-1, 33), dense)


@pytest.mark.parametrize("name", [name for name, c in CASES.items() if c.groups > 1 and c.bias])
def test_groups_are_convolutions_side_by_side(name):
    case = CASES[name]
    x, weight, bias = case.arrays(integers)
    geometry = {**case.geometry, "groups": 1}
    width, per_group = case.weight[3], case.out // case.groups
    parts = []
    for g in range(case.groups):
        rows = slice(g * per_group, (g + 1) * per_group)
        seen = np.ascontiguousarray(x[..., g * width : (g + 1) * width])
        parts.append(functional.conv2d(seen, weight[rows], bias[rows], **geometry))
    tolerances.assert_exact(case.op(x, weight, bias), np.concatenate(parts, axis=-1))


def test_a_shift_of_the_image_shifts_the_result():
    rng = np.random.default_rng(0)
    x, weight = integers(rng, (1, 12, 13, 3)), integers(rng, (4, 3, 3, 3))
    moved = np.roll(x, (2, 3), axis=(1, 2))
    inner = functional.conv2d(x, weight)[:, :-2, :-3]
    tolerances.assert_exact(functional.conv2d(moved, weight)[:, 2:, 3:], inner)


ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
    "scaled_tanh": functional.scaled_tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("path", [*isas(), pytest.param(Path(ISAS[-1], {"*": "reference"}), id="reference")])
def test_a_fused_epilogue_computes_what_the_ops_say(activation, residual, path):
    case = CASES["channels_17_33"]
    x, weight, bias = case.arrays(integers)
    other = integers(np.random.default_rng(8), (1, 5, 15, 33))

    def block(x, weight, bias, other):
        y = case.op(x, weight, bias)
        return ACTIVATIONS[activation](y + other if residual else y)

    fused = build(block, x, weight, bias, other, path=path)
    plain = build(block, x, weight, bias, other, path=path, fuse=False)
    assert "activation." not in fused.explain()
    assert "activation." in plain.explain()
    arrays = [x, weight, bias, other] if residual else [x, weight, bias]
    if path.pins and activation == "sigmoid":  # the reference's epilogue rounds once less
        want = plain(*arrays)
        tolerances.assert_within(fused(*arrays), want, tolerances.elementwise_bound(want))
    else:  # whole numbers: the sums are exact, and the function is the same
        tolerances.assert_bits(fused(*arrays), plain(*arrays))


@pytest.mark.parametrize("path", isas())
def test_reusing_memory_changes_no_bit(path):
    rng = np.random.default_rng(0)
    x, first, second = reals(rng, (2, 9, 9, 6)), reals(rng, (6, 3, 3, 6)), reals(rng, (6, 3, 3, 6))

    def net(x, first, second):
        y = functional.relu(functional.conv2d(x, first, padding=1))
        y = functional.relu(functional.conv2d(y, second, padding=1) + x)
        return functional.max_pool2d(functional.tanh(y), kernel_size=2)

    shared = build(net, x, first, second, path=path)
    apart = build(net, x, first, second, path=path, reuse_memory=False)
    assert shared.memory["arena_bytes"] < apart.memory["arena_bytes"]
    tolerances.assert_bits(shared(x, first, second), apart(x, first, second))


@pytest.mark.parametrize("path", paths("conv2d"))
def test_nan_reaches_its_receptive_field_only(path):
    rng = np.random.default_rng(0)
    x, weight = reals(rng, (2, 9, 20, 5)), reals(rng, (18, 3, 3, 5))
    clean = run(lambda x, w: functional.conv2d(x, w, padding=1), x, weight, path=path)
    x[1, 4, 7, 2] = np.nan
    hit = run(lambda x, w: functional.conv2d(x, w, padding=1), x, weight, path=path)
    field = np.zeros(clean.shape, bool)
    field[1, 3:6, 6:9] = True
    assert np.isnan(hit[field]).all()
    tolerances.assert_bits(hit[~field], clean[~field])


@pytest.mark.parametrize("path", paths("conv2d"))
def test_infinity_follows_ieee(path):
    x = np.zeros((1, 1, 3, 2), np.float32)
    x[0, 0, :, 0] = [np.inf, -np.inf, 1e38]
    weight = np.array([[1, 0], [10, 0]], np.float32).reshape(2, 1, 1, 2)
    with np.errstate(all="ignore"):
        expected = (x.reshape(3, 2) @ weight.reshape(2, 2).T).reshape(1, 1, 3, 2)
    found = run(lambda x, w: functional.conv2d(x, w), x, weight, path=path)
    assert found[0, 0, 0].tolist() == [np.inf, np.inf]
    assert found[0, 0, 1].tolist() == [-np.inf, -np.inf]
    assert found[0, 0, 2, 1] == np.inf
    tolerances.assert_within(found[0, 0, 2, 0], expected[0, 0, 2, 0], 0)


@pytest.mark.filterwarnings("ignore:.*copied because:UserWarning")
def test_inputs_of_any_layout_give_the_result_of_a_plain_copy():
    case = CASES["four_pads"]
    x, weight, bias = case.arrays(reals)
    expected = case.op(x, weight, bias)
    wide = np.zeros((2, 10, 12, 3), np.float32)
    wide[:, ::2, ::2] = x
    swapped = x.astype(">f4")
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(x), wide[:, ::2, ::2], x[::-1][::-1], swapped, unaligned, read_only):
        tolerances.assert_bits(case.op(other, weight, bias), expected)
    tolerances.assert_bits(case.op(x, np.asfortranarray(weight), bias), expected)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_problems_are_exact(data):
    n, height, width, channels = data.draw(edges.images(max_size=9, max_channels=20))
    groups = data.draw(st.sampled_from([1, channels] + [g for g in (2, 3) if channels % g == 0]))
    per_group = data.draw(st.integers(1, 4 if groups > 4 else 20))
    window = data.draw(edges.windows(height, width))
    kernel = window.pop("kernel_size")
    isa = data.draw(st.sampled_from(ISAS))
    case = Case((n, height, width, channels), groups * per_group, kernel, groups=groups, **window)
    arrays = case.arrays(integers, seed=n)
    expected = reference.conv2d(*arrays, **case.geometry)
    tolerances.assert_exact(run(case.op, *arrays, path=Path(isa), winograd=False), expected)
    grad = integers(np.random.default_rng(1), expected.shape)
    found = gradients(case.op, *arrays, grad=grad, path=Path(isa), winograd=False)
    for got, want in zip(found, expected_gradients(case, arrays, grad)):
        tolerances.assert_exact(got, want)


# ---- Errors


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_rejects_channel_mismatch_with_the_numbers():
    with pytest.raises(ShapeError, match=r"input has 4 channels, weight expects 3") as caught:
        functional.conv2d(zeros(1, 5, 5, 4), zeros(8, 3, 3, 3))
    assert "conv2d" in str(caught.value)
    assert "(1, 5, 5, 4)" in str(caught.value)
    assert "(8, 3, 3, 3)" in str(caught.value)


def test_names_the_line_of_the_users_file():
    with pytest.raises(ShapeError) as caught:
        run(lambda x, w: functional.conv2d(x, w), zeros(1, 5, 5, 4), zeros(8, 3, 3, 3))
    assert FilePath(__file__).name in str(caught.value)


def test_hints_at_channels_first_images():
    with pytest.raises(ShapeError, match=r"channels-last, try x\.transpose\(0, 2, 3, 1\)"):
        functional.conv2d(zeros(32, 3, 224, 224), zeros(64, 3, 3, 3))


def test_hints_at_channels_first_weights():
    with pytest.raises(ShapeError, match=r"try weight\.transpose\(0, 2, 3, 1\)"):
        functional.conv2d(zeros(1, 9, 9, 16), zeros(8, 16, 3, 3))


def test_rejects_a_kernel_beyond_the_padded_image_with_the_numbers():
    with pytest.raises(ShapeError, match=r"no output is left along the height") as caught:
        functional.conv2d(zeros(1, 3, 9, 2), zeros(4, 7, 3, 2), stride=2, padding=(1, 0))
    for part in ("N = 3", "P = 1 + 1", "F = 7", "stride = 2"):
        assert part in str(caught.value)


def test_counts_dilation_when_the_kernel_does_not_fit():
    with pytest.raises(ShapeError, match=r"F = 3 \(9 with dilation 4\)"):
        functional.conv2d(zeros(1, 9, 8, 2), zeros(4, 3, 3, 2), dilation=4)


X, K = zeros(1, 4, 4, 4), zeros(4, 1, 1, 4)


@pytest.mark.parametrize(
    ("error", "text", "arguments", "options"),
    [
        (ShapeError, r"weight expects 3 \(1 in each of 3 groups\)", (X, zeros(6, 1, 1, 1)), {"groups": 3}),
        (ShapeError, "channels 5 are not divisible by groups 2", (X, zeros(5, 1, 1, 2)), {"groups": 2}),
        (ArgumentError, "groups is 0", (X, K), {"groups": 0}),
        (ArgumentError, r"stride is \(0, 1\)", (X, K), {"stride": (0, 1)}),
        (ArgumentError, r"dilation is \(-1, -1\)", (X, K), {"dilation": -1}),
        (ArgumentError, r"padding is \(-1, -1, -1, -1\)", (X, K), {"padding": -1}),
        (ArgumentError, r"padding: \(1, 2, 3\)", (X, K), {"padding": (1, 2, 3)}),
        (ArgumentError, "stride: 1.5", (X, K), {"stride": 1.5}),
        (ArgumentError, "stride: True", (X, K), {"stride": True}),
        (ArgumentError, "padding is", (X, K), {"padding": 2**62}),
        (ShapeError, r"bias is \(3,?\), expected \(4,?\)", (X, K, zeros(3)), {}),
        (ShapeError, "3 axes", (zeros(4, 4, 4), K), {}),
        (ShapeError, "weight .* 2 axes", (X, zeros(5, 4)), {}),
        (ShapeError, "weight .* empty axis", (X, zeros(5, 0, 1, 4)), {}),
        (ShapeError, "no pixel", (zeros(1, 0, 4, 4), K), {}),
        (DTypeError, "normalize_image", (X.astype(np.uint8), K), {}),
        (DTypeError, "complex64", (X.astype(np.complex64), K), {}),
        (DTypeError, "weight is f64, input is f32", (X, K.astype(np.float64)), {}),
    ],
)
def test_rejects_bad_arguments_with_the_numbers(error, text, arguments, options):
    with pytest.raises(error, match=text):
        functional.conv2d(*arguments, **options)


# ---- Another library


@pytest.mark.interop
@pytest.mark.parametrize("name", ["lenet_c1", "four_pads", "dilation_and_stride", "groups_odd", "depthwise_stride_2"])
def test_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    case = CASES[name]
    arrays = case.arrays(lambda rng, shape: reals(rng, shape, np.float64))
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    top, bottom, left, right = reference.sides(case.padding)
    padded = torch.nn.functional.pad(tensors[0].permute(0, 3, 1, 2), (left, right, top, bottom))
    output = torch.nn.functional.conv2d(
        padded, tensors[1].permute(0, 3, 1, 2), tensors[2],
        stride=case.stride, dilation=case.dilation, groups=case.groups,
    )  # fmt: skip
    output = output.permute(0, 2, 3, 1)
    grad = reals(np.random.default_rng(1), tuple(output.shape), np.float64)
    output.backward(torch.from_numpy(grad))
    found = run(case.op, *arrays)
    length = case.length * max(case.out, grad.size // case.out)
    magnitudes = expected_gradients(case, [np.abs(a) for a in arrays], np.abs(grad))
    bound = tolerances.sum_bound(reference.conv2d(*map(np.abs, arrays), **case.geometry), length, np.float64)
    tolerances.assert_within(found, output.detach().numpy(), bound)
    for got, tensor, magnitude in zip(gradients(case.op, *arrays, grad=grad), tensors, magnitudes):
        bound = tolerances.sum_bound(magnitude, length, np.float64)
        tolerances.assert_within(got, tensor.grad.numpy(), bound)
