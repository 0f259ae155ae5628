"""1x1 convolutions and their gradients for the input by Strassen's algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import ISAS, Path, build, gradients, integers, reals, run

import pycnn
from pycnn import functional
from pycnn.errors import UnsupportedError
from pycnn.program import compile_traced
from pycnn.tracing import trace

# There are kernels for AVX-512 alone.
with_avx512 = pytest.mark.parametrize("path", [pytest.param(Path("avx512"), id="avx512")])
pytestmark = [pytest.mark.skipif("avx512" not in ISAS, reason="needs AVX-512"), pytest.mark.usefixtures("strassen")]


@dataclass(frozen=True)
class Case:
    """Image (N, H, W, IC), output channels and stride."""

    image: tuple[int, int, int, int]
    out: int
    stride: tuple[int, int] = (1, 1)

    @property
    def weight(self):
        return (self.out, 1, 1, self.image[3])

    @property
    def output(self):
        n, height, width, _ = self.image
        return (n, -(-height // self.stride[0]), -(-width // self.stride[1]), self.out)

    @property
    def levels(self):
        n, height, width, written = self.output
        return reference.strassen_levels(height * width, self.image[3], written)

    @property
    def gradient_levels(self):
        n, height, width, read = self.output
        return reference.strassen_levels(height * width, read, self.image[3])

    def arrays(self, make, seed=0):
        rng = np.random.default_rng(seed)
        return [make(rng, self.image), make(rng, self.weight), make(rng, (self.out,))]

    def op(self, *tensors):
        return functional.conv2d(*tensors, stride=self.stride)

    def seen(self, x):
        """The pixels of an image, or of its gradient, that the window meets."""
        return x[:, :: self.stride[0], :: self.stride[1]]


CASES = {
    "even": Case((2, 12, 12, 128), 128),
    "odd_pixels": Case((3, 11, 13, 128), 192),  # the last pixel of an image has no partner
    "odd_half": Case((1, 12, 11, 130), 128),
    "no_whole_vectors": Case((1, 13, 10, 146), 192),
    "one_row": Case((1, 1, 131, 160), 128),
    "one_column": Case((1, 129, 1, 128), 320),
    "strided": Case((2, 23, 25, 128), 128, (2, 2)),
    "strided_rows": Case((1, 24, 13, 132), 192, (2, 1)),
    "split": Case((1, 12, 11, 128), 512),  # too few pixels for all cores: output channels are shared out
    "many": Case((5, 33, 31, 128), 128),  # chunks of pairs for each core
    "streamed": Case((1, 11, 13, 384), 448),  # packed weights go past the caches
    "empty_batch": Case((0, 12, 12, 128), 128),
    # Two levels, for the gradient too where as many channels are written.
    "two_levels": Case((2, 12, 12, 256), 256),
    "two_levels_one_way": Case((1, 11, 12, 320), 128),
    "two_levels_strided": Case((1, 24, 27, 256), 384, (2, 2)),
    "two_levels_split": Case((1, 12, 11, 256), 1024),
    "two_levels_many": Case((3, 32, 31, 256), 256),
    "two_levels_empty": Case((0, 12, 12, 256), 256),
}
cases = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in CASES.items()])
# What a gradient writes is what the convolution reads.
turned = {name: case for name, case in CASES.items() if case.image[3] % 64 == 0}
gradient_cases = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in turned.items()])


def built(*args, **options):
    """As `build`, but for a convolution that some other kernel takes."""
    program = build(*args, **options)
    assert "conv2d.strassen.avx512  " in program.explain()
    return program


@cases
@with_avx512
def test_forward_is_exact_on_whole_numbers(case, path):
    x, weight, bias = case.arrays(integers)
    program = built(case.op, x, weight, bias, path=path)
    expected = reference.conv2d(x, weight, bias, stride=case.stride)
    tolerances.assert_exact(program(x, weight, bias), expected)


@gradient_cases
@with_avx512
def test_input_gradient_is_exact_on_whole_numbers(case, path):
    x, weight, bias = case.arrays(integers)
    grad = integers(np.random.default_rng(2), case.output)
    (found,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, stride=case.stride)
    tolerances.assert_exact(found, expected)


def test_the_reference_is_a_convolution():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((4, 1, 1, 6))
    np.testing.assert_allclose(reference.strassen(x, weight), reference.conv2d(x, weight), rtol=0, atol=1e-12)
    x, weight = rng.standard_normal((2, 2, 6, 12)), rng.standard_normal((8, 1, 1, 12))
    twice = reference.strassen(x, weight, levels=2)
    np.testing.assert_allclose(twice, reference.conv2d(x, weight), rtol=0, atol=1e-12)


@cases
@with_avx512
def test_forward_is_within_the_bound(case, path):
    x, weight, bias = case.arrays(reals, seed=1)
    magnitude = reference.strassen(case.seen(x), weight, levels=case.levels, magnitude=True) + np.abs(bias)
    found = built(case.op, x, weight, bias, path=path)(x, weight, bias)
    expected = reference.conv2d(x, weight, bias, stride=case.stride)
    tolerances.assert_within(found, expected, tolerances.strassen_bound(magnitude, case.image[3], case.levels))


@gradient_cases
@with_avx512
def test_input_gradient_is_within_the_bound(case, path):
    x, weight, bias = case.arrays(reals, seed=3)
    grad = reals(np.random.default_rng(4), case.output)
    (found,) = gradients(case.op, x, weight, bias, grad=grad, path=path, wrt=(0,))
    expected = reference.conv2d_grad_input(grad, weight, x.shape, stride=case.stride)
    # A gradient for an even number of channels has halves.
    magnitude = np.zeros(case.image)
    levels = case.gradient_levels
    case.seen(magnitude)[...] = reference.strassen(grad, weight.transpose(3, 1, 2, 0), levels=levels, magnitude=True)
    tolerances.assert_within(found, expected, tolerances.strassen_bound(magnitude, case.out, levels))


@pytest.mark.parametrize("channels", [128, 512])
@with_avx512
def test_errors_on_usual_data_are_of_the_documented_size(channels, path):
    rng = np.random.default_rng(channels)
    case = Case((1, 12, 12, channels), channels)
    x = np.maximum(reals(rng, case.image), 0)
    weight = reals(rng, case.weight) * np.float32(np.sqrt(2 / channels))
    expected = reference.conv2d(x, weight)
    largest = np.abs(expected).max()
    for winograd, bound in tolerances.POINTWISE.items():
        found = run(case.op, x, weight, path=path, winograd=winograd)
        tolerances.assert_within(found, expected, bound * largest, f"winograd={winograd}")


# ---- Properties

SHARED = ("odd_pixels", "strided", "split", "many", "two_levels_strided", "two_levels_split", "two_levels_many")


@pytest.mark.parametrize("name", SHARED)
@with_avx512
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
@with_avx512
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


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "tanh": functional.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["odd_pixels", "split", "two_levels", "two_levels_split"])
@with_avx512
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
        assert "conv2d.strassen" in program.explain()
    for part in ("activation.", "add."):
        assert part not in fused.explain()
    arrays = [x, weight, bias, other] if residual else [x, weight, bias]
    tolerances.assert_bits(fused(*arrays), plain(*arrays))


@with_avx512
def test_reusing_memory_changes_no_bit(path):
    rng = np.random.default_rng(0)
    x, first, second = reals(rng, (2, 13, 11, 128)), reals(rng, (128, 1, 1, 128)), reals(rng, (128, 1, 1, 128))

    def net(x, first, second):
        x = functional.tanh(x)
        y = functional.relu(functional.conv2d(x, first))
        return functional.max_pool2d(functional.relu(functional.conv2d(y, second) + x), kernel_size=2)

    shared = build(net, x, first, second, path=path)
    apart = build(net, x, first, second, path=path, reuse_memory=False)
    assert shared.memory["arena_bytes"] < apart.memory["arena_bytes"]
    assert shared.explain().count(f"conv2d.strassen.{path.isa}  ") >= 2
    tolerances.assert_bits(shared(x, first, second), apart(x, first, second))


@with_avx512
def test_slices_of_a_concatenation_are_written_and_read_in_place(path):
    rng = np.random.default_rng(0)
    x, first, second, third = (
        reals(rng, shape) for shape in [(2, 13, 11, 128), (128, 1, 1, 128), (192, 1, 1, 128), (128, 1, 1, 320)]
    )

    def net(x, first, second, third):
        y = functional.concat([functional.conv2d(x, first), functional.conv2d(x, second)], axis=-1)
        return functional.conv2d(functional.relu(y), third)

    program = build(net, x, first, second, third, path=path)
    ops = [step["op"] for step in program.profile(x, first, second, third, runs=1)]
    assert ops.count("conv2d") == 3
    assert "concat" not in ops
    assert program.explain().count(f" of {64 * 5} a pixel") == 2
    branches = np.concatenate([reference.conv2d(x, w) for w in (first, second)], axis=-1)
    expected = reference.conv2d(np.maximum(branches, 0), third)
    found = program(x, first, second, third)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@with_avx512
def test_a_fused_residual_is_written_beside_another_branch(path):
    case = CASES["odd_pixels"]
    x, weight, bias = case.arrays(reals)
    other = reals(np.random.default_rng(8), case.output)

    def net(x, weight, bias, other):
        return functional.concat([functional.relu(case.op(x, weight, bias) + other), other], axis=-1)

    fused = built(net, x, weight, bias, other, path=path)
    assert "add." not in fused.explain()
    plain = built(net, x, weight, bias, other, path=path, fuse=False)
    tolerances.assert_bits(fused(x, weight, bias, other), plain(x, weight, bias, other))


@gradient_cases
def test_no_gradient_of_these_is_refused(case):
    x, weight, bias = case.arrays(reals)

    def loss(x, weight, bias):
        return functional.sum(case.op(x, weight, bias))

    pins = {"conv2d_grad_input": "conv2d_grad_input.strassen.avx512"}
    pycnn.value_and_grad(loss, 0, variants=pins)(x, weight, bias)  # refused, it would raise


@with_avx512
def test_nan_reaches_the_pixel_beside_it_and_its_own_alone_without(path):
    case = CASES["odd_pixels"]
    x, weight, bias = case.arrays(reals)
    for winograd in (True, False):
        clean = run(case.op, x, weight, bias, path=path, winograd=winograd)
        spoiled = x.copy()
        spoiled[1, 4, 5, 2] = np.nan  # pixel 57: the second of its pair
        spoiled[2, 10, 12, 2] = np.nan  # the last one
        hit = run(case.op, spoiled, weight, bias, path=path, winograd=winograd)
        own = np.zeros(case.output[:3], bool)
        own[1, 4, 5] = own[2, 10, 12] = True
        beside = np.zeros_like(own)
        beside[1, 4, 4] = winograd
        assert np.isnan(hit[own]).all()
        tolerances.assert_bits(hit[~(own | beside)], clean[~(own | beside)])


@with_avx512
def test_nan_stays_with_the_four_pixels_of_two_levels(path):
    case = CASES["two_levels"]
    x, weight, bias = case.arrays(reals)
    clean = run(case.op, x, weight, bias, path=path)
    for column in range(4, 8):
        spoiled = x.copy()
        spoiled[1, 4, column, 2] = np.nan
        hit = run(case.op, spoiled, weight, bias, path=path)
        others = np.ones(case.output[:3], bool)
        others[1, 4, 4:8] = False
        assert np.isnan(hit[1, 4, column]).all()
        tolerances.assert_bits(hit[others], clean[others])


# ---- The choice


def traced(case, window=1, **geometry):
    shape = (case.out, window, window, case.image[3] // geometry.get("groups", 1))
    return trace(
        lambda x, w: functional.conv2d(x, w, **{"stride": case.stride, **geometry}),
        {"x": (case.image, "float32"), "w": (shape, "float32")},
    )


@with_avx512
def test_winograd_false_gives_plain_sums_and_says_so(path):
    explained = compile_traced(traced(CASES["even"]), isa=path.isa, winograd=False).explain()
    assert f"conv2d.implicit_gemm.{path.isa}  " in explained
    assert f"conv2d.strassen.{path.isa}: winograd is off" in explained


def test_a_pin_against_the_option_is_refused_with_both_names():
    pins = {"conv2d": "conv2d.strassen.avx512"}
    compile_traced(traced(CASES["even"]), variants=pins)
    with pytest.raises(UnsupportedError, match=r"conv2d\.strassen\.avx512: winograd is off"):
        compile_traced(traced(CASES["even"]), variants=pins, winograd=False)


@pytest.mark.parametrize(
    ("case", "geometry", "reason"),
    [
        (Case((1, 12, 12, 126), 128), {}, "fewer than 128 channels"),
        (Case((1, 12, 12, 128), 64), {}, "fewer than 128 channels"),
        (Case((1, 12, 12, 129), 128), {}, "an odd number of channels is read"),
        (Case((1, 12, 12, 128), 160), {}, "channels written are no multiple of 64"),
        (Case((1, 11, 11, 128), 128), {}, "fewer than 128 pixels"),
        (Case((1, 12, 12, 256), 256), {"groups": 2}, "there are groups"),
        (CASES["even"], {"padding": 1}, "there is padding"),
        (CASES["even"], {"padding": (0, 1, 0, 0)}, "there is padding"),
        (CASES["even"], {"window": 2}, "the window is not 1x1"),
    ],
)
def test_explain_says_why_not(case, geometry, reason):
    explained = compile_traced(traced(case, **geometry), isa="avx512").explain()
    assert f"conv2d.strassen.avx512: {reason}" in explained


@pytest.mark.parametrize(
    ("case", "levels"),
    [
        (CASES["two_levels"], 2),
        (CASES["two_levels_one_way"], 2),
        (Case((1, 11, 13, 256), 256), 1),  # pixels that are no multiple of 4
        (Case((1, 12, 12, 192), 256), 1),
        (Case((1, 12, 12, 288), 256), 1),
        (Case((1, 12, 12, 256), 192), 1),
    ],
)
@with_avx512
def test_weights_are_packed_for_so_many_levels(case, levels, path):
    assert case.levels == levels
    shapes = {"x": (case.image, "float32")}
    graph = trace(lambda x: functional.conv2d(x, np.ones(case.weight, np.float32)), shapes)
    prepared = compile_traced(graph, isa=path.isa).memory["prepared_bytes"]
    packed = 4 * case.image[3] * case.out * (7 / 4) ** levels
    assert packed <= prepared < packed + 4096


def test_the_choice_does_not_depend_on_the_batch():
    def chosen(case, images):
        program = compile_traced(traced(replace(case, image=(images, *case.image[1:]))), isa="avx512")
        return "conv2d.strassen.avx512  " in program.explain(), program.memory["prepared_bytes"]

    taken_by = (CASES["even"], CASES["split"], CASES["two_levels"])
    for case, taken in (*((c, True) for c in taken_by), (Case((1, 7, 7, 128), 512), False)):
        assert chosen(case, 1) == chosen(case, 33)
        assert chosen(case, 1)[0] == taken
