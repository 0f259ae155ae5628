"""Transposed convolution, resizing, power-average pooling, padding with what is next to the border."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import gradients, in_bfloat16, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.testing import check_gradients

# Image, window, output channels, geometry.
TRANSPOSED = {
    "1x1": ((2, 1, 1, 3), (1, 1), 5, {}),
    "doubles": ((2, 5, 4, 17), (2, 2), 9, {"stride": 2}),
    "overlapping": ((1, 6, 7, 33), (3, 3), 16, {"stride": 2, "padding": 1, "output_padding": 1}),
    "asymmetric": ((2, 4, 5, 3), (3, 2), 4, {"stride": (2, 3), "padding": (1, 0, 0, 1), "output_padding": (0, 2)}),
    "dilated": ((1, 5, 4, 6), (3, 2), 8, {"dilation": (2, 3), "padding": (2, 1)}),
    "grouped": ((2, 4, 3, 6), (3, 3), 9, {"stride": 2, "groups": 3, "padding": 1}),
    "depthwise": ((1, 5, 5, 17), (4, 4), 17, {"stride": 2, "groups": 17, "padding": 1}),
    "stride_1": ((1, 7, 6, 16), (3, 3), 32, {"padding": 1}),
    "stride_above_window": ((1, 3, 4, 5), (2, 1), 3, {"stride": 3, "output_padding": 2}),
}
transposed = pytest.mark.parametrize(("shape", "window", "channels", "geometry"), TRANSPOSED.values(), ids=TRANSPOSED)


def operands(shape, window, channels, geometry, dtype=np.float32):
    rng = np.random.default_rng(0)
    weight = (shape[3], *window, channels // geometry.get("groups", 1))
    return reals(rng, shape, dtype), reals(rng, weight, dtype), reals(rng, (channels,), dtype)


@transposed
@pytest.mark.parametrize("path", paths("conv2d_grad_input"))
def test_transposed_convolution(shape, window, channels, geometry, path):
    arrays = operands(shape, window, channels, geometry)
    found = run(lambda x, w, b: functional.conv_transpose2d(x, w, b, **geometry), *arrays, path=path)
    expected = reference.conv_transpose2d(*arrays, **geometry)
    magnitude = reference.conv_transpose2d(*map(np.abs, arrays), **geometry)
    terms = shape[3] // geometry.get("groups", 1) * window[0] * window[1] + 1
    bound = tolerances.sum_bound(magnitude, terms)
    if geometry == {"padding": 1}:  # by Winograd's filtering, where the path has it
        bound = np.maximum(bound, tolerances.CONVOLUTION[(4, 3)] * magnitude.max())
    tolerances.assert_within(found, expected, bound)


@transposed
def test_gradients_of_transposed_convolution_agree_with_finite_differences(shape, window, channels, geometry):
    arrays = operands(shape, window, channels, geometry, np.float64)
    check_gradients(lambda x, w, b: functional.conv_transpose2d(x, w, b, **geometry), *arrays, elements=6)


@pytest.mark.parametrize("path", isas())
def test_gradients_of_transposed_convolution_are_those_of_float64_on_any_threads(path):
    geometry = {"stride": 2, "padding": 1, "output_padding": 1}
    x, weight, _ = operands((3, 6, 5, 17), (3, 3), 16, geometry)

    def op(x, weight):
        return functional.conv_transpose2d(x, weight, **geometry)

    grad = reals(np.random.default_rng(1), (3, 12, 10, 16))
    found = gradients(op, x, weight, grad=grad, path=path, threads=1)
    wide = [reference.f64(a) for a in (x, weight)]
    expected = gradients(op, *wide, grad=reference.f64(grad))
    magnitude = gradients(op, *map(np.abs, wide), grad=np.abs(reference.f64(grad)))
    for i, terms in enumerate((9 * 16, 3 * 6 * 5)):
        tolerances.assert_within(found[i], expected[i], tolerances.sum_bound(magnitude[i], terms))
    for threads in (2, 3):
        again = gradients(op, x, weight, grad=grad, path=path, threads=threads)
        for i in (0, 1):
            tolerances.assert_bits(again[i], found[i])


def test_transposed_convolution_undoes_the_sizes_of_a_convolution():
    x, weight = np.zeros((1, 11, 8, 3), np.float32), np.zeros((5, 3, 3, 3), np.float32)
    small = functional.conv2d(x, weight, stride=2, padding=1)
    assert functional.conv_transpose2d(small, weight, stride=2, padding=1, output_padding=(0, 1)).shape == x.shape


def test_transposed_convolution_refuses_what_does_not_fit():
    x, weight = np.zeros((1, 4, 4, 3), np.float32), np.zeros((3, 2, 2, 6), np.float32)
    with pytest.raises(ShapeError, match="input has 3 channels, weight expects 6"):
        functional.conv_transpose2d(x, np.zeros((6, 2, 2, 3), np.float32))
    with pytest.raises(ArgumentError, match=r"output_padding \(2, 2\) .* below stride \(2, 2\)"):
        functional.conv_transpose2d(x, weight, stride=2, output_padding=2)
    with pytest.raises(ShapeError, match="no output is left"):
        functional.conv_transpose2d(x, weight, padding=3)
    with pytest.raises(ShapeError, match=r"\(N, H, W, C\)"):
        functional.conv_transpose2d(x[0], weight)
    with pytest.raises(ShapeError, match="not divisible by groups 2"):
        functional.conv_transpose2d(x, weight, groups=2)


# ---- Resizing

SIZES = [((2, 4, 8, 17), (8, 4)), ((1, 5, 7, 3), (13, 3)), ((2, 1, 1, 4), (2, 3)), ((1, 9, 6, 33), (1, 6))]
MODES = [
    ("bilinear", "half_pixel", None),
    ("bilinear", "align_corners", None),
    ("bilinear", "asymmetric", None),
    ("bilinear", "pytorch_half_pixel", None),
    ("nearest", "asymmetric", "floor"),
    ("nearest-exact", "half_pixel", "round_up"),
    ("nearest", "half_pixel", "round_down"),
    ("nearest", "align_corners", "ceil"),
]


@pytest.mark.parametrize(("mode", "grid", "rounding"), MODES)
@pytest.mark.parametrize("path", paths("resize2d"))
def test_resize(mode, grid, rounding, path):
    for shape, size in SIZES if mode == "bilinear" else SIZES[:1]:  # exact places where nearest has one answer
        x = reals(np.random.default_rng(0), shape)
        options = {"size": size, "mode": mode, "grid": grid, "rounding": rounding}
        found = run(lambda x: functional.resize(x, **options), x, path=path)
        expected = reference.resize(x, size=size, mode=mode, grid=grid, rounding=rounding)
        tolerances.assert_within(found, expected, tolerances.elementwise_bound(np.abs(x).max()))


@pytest.mark.parametrize(("mode", "grid", "rounding"), MODES)
def test_gradients_of_resize_agree_with_finite_differences(mode, grid, rounding):
    for shape, size in SIZES:
        x = reals(np.random.default_rng(0), shape, np.float64)
        check_gradients(lambda x: functional.resize(x, size=size, mode=mode, grid=grid, rounding=rounding), x)


@pytest.mark.parametrize("path", isas())
def test_resize_on_any_threads_and_in_bfloat16(path):
    x = reference.bfloat16(reals(np.random.default_rng(0), (3, 9, 7, 17)))

    def op(x):
        return functional.resize(x, scale_factor=(1.7, 2.3), mode="bilinear")

    first = run(op, x, path=path, threads=1)
    assert first.shape == (3, 15, 16, 17)
    grad = np.ones_like(first)
    (back,) = gradients(op, x, grad=grad, path=path, threads=1)
    for threads in (2, 3):
        tolerances.assert_bits(run(op, x, path=path, threads=threads), first)
        tolerances.assert_bits(gradients(op, x, grad=grad, path=path, threads=threads)[0], back)
    tolerances.assert_bits(run(in_bfloat16(op), x, path=path), reference.bfloat16(first))


def test_resize_agrees_with_torch():
    torch = pytest.importorskip("torch")
    x = reals(np.random.default_rng(0), (2, 7, 5, 3))
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    for ours, theirs in [
        ({"size": (11, 4), "mode": "bilinear"}, {"align_corners": False}),
        ({"size": (11, 4), "mode": "bilinear", "grid": "align_corners"}, {"align_corners": True}),
        ({"scale_factor": (1.7, 0.6), "mode": "bilinear"}, {"align_corners": False}),
        ({"scale_factor": 3.0, "mode": "nearest"}, {}),
        ({"size": (14, 9), "mode": "nearest-exact"}, {}),
    ]:
        options = {key: value for key, value in ours.items() if key != "grid"}
        expected = torch.nn.functional.interpolate(image, **options, **theirs).permute(0, 2, 3, 1).numpy()
        bound = tolerances.elementwise_bound(8 * np.abs(x).max())  # its places are of float32
        tolerances.assert_within(functional.resize(x, **ours), expected, bound)


SMOOTH = [
    {"mode": "bicubic", "size": (3, 11)},
    {"mode": "bicubic", "scale_factor": (1.7, 0.6), "cubic": -0.5, "exclude_outside": True},
    {"mode": "bicubic", "size": (2, 9), "antialias": True},
    {"mode": "bilinear", "size": (3, 2), "antialias": True, "exclude_outside": True},
    {"mode": "bilinear", "scale_factor": (1.3, 0.7), "grid": "half_pixel_symmetric"},
]


@pytest.mark.parametrize("options", SMOOTH)
def test_gradients_of_smooth_resizing_agree_with_finite_differences(options):
    x = reals(np.random.default_rng(0), (2, 7, 5, 3), np.float64)
    check_gradients(lambda x: functional.resize(x, **options), x)


def test_gradients_of_a_resized_region_agree_with_finite_differences():
    x = reals(np.random.default_rng(0), (2, 7, 5, 3), np.float64)
    region = {"region": (0.1, -0.4, 0.9, 1.2), "size": (4, 6), "value": 0.5}
    for mode in ("bilinear", "bicubic", "nearest"):
        check_gradients(lambda x, mode=mode: functional.crop_and_resize(x, mode=mode, **region), x)


def test_smooth_resizing_agrees_with_torch():
    torch = pytest.importorskip("torch")
    x = reals(np.random.default_rng(0), (2, 9, 7, 3))
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    like_pillow = {"antialias": True, "exclude_outside": True, "cubic": -0.5}
    for ours, theirs in [
        ({"size": (13, 4), "mode": "bicubic"}, {"align_corners": False}),
        ({"size": (13, 4), "mode": "bicubic", "grid": "align_corners"}, {"align_corners": True}),
        ({"size": (4, 3), "mode": "bicubic", **like_pillow}, {"antialias": True}),
        ({"size": (2, 11), "mode": "bilinear", **like_pillow}, {"antialias": True}),
    ]:
        options = {key: ours[key] for key in ("size", "mode")}
        expected = torch.nn.functional.interpolate(image, **options, **theirs).permute(0, 2, 3, 1).numpy()
        bound = tolerances.elementwise_bound(16 * np.abs(x).max())  # its places are of float32
        tolerances.assert_within(functional.resize(x, **ours), expected, bound)


def test_resize_refuses_what_it_does_not_know():
    x = np.zeros((1, 4, 4, 1), np.float32)
    for options, words in [
        ({}, "size or scale_factor"),
        ({"size": 2, "mode": "cubic"}, "'cubic' is unknown"),
        ({"size": 2, "grid": "tf"}, "'tf' is unknown"),
        ({"size": 2, "rounding": "even"}, "'even' is unknown"),
        ({"size": 0}, "output_size"),
        ({"size": 0, "mode": "bicubic"}, "output_size"),
        ({"size": 2, "antialias": True}, "antialias does not go with mode 'nearest'"),
        ({"size": 2**30, "mode": "bicubic"}, "are more than"),
        ({"size": 2, "scale_factor": 1e-9, "mode": "bicubic"}, "leaves nothing of 4 pixels"),
        ({"scale_factor": (2.0, -1.0)}, "positive"),
        ({"scale_factor": 0.1}, "output_size"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            functional.resize(x, **options)


# ---- Power-average pooling

POOLS = [
    {"norm_type": 2, "kernel_size": 2},
    {"norm_type": 1, "kernel_size": 3, "stride": 2},
    {"norm_type": 3, "kernel_size": (3, 2), "stride": (2, 1), "padding": 1},
    {"norm_type": 2, "kernel_size": 2, "stride": 3, "padding": (0, 1, 1, 0), "ceil_mode": True},
    {"norm_type": 1.5, "kernel_size": 3, "stride": 2, "ceil_mode": True},
]


@pytest.mark.parametrize("geometry", POOLS)
@pytest.mark.parametrize("path", isas())
def test_power_average_pooling(geometry, path):
    x = reals(np.random.default_rng(0), (2, 8, 7, 5))
    expected = reference.lp_pool2d(x, **geometry)
    found = run(lambda x: functional.lp_pool2d(x, **geometry), x, path=path)
    tolerances.assert_within(found, expected, tolerances.sum_bound(expected, 30))


@pytest.mark.parametrize("geometry", POOLS)
def test_gradients_of_power_average_pooling_agree_with_finite_differences(geometry):
    x = reals(np.random.default_rng(0), (1, 8, 7, 2), np.float64)
    check_gradients(lambda x: functional.lp_pool2d(x, **geometry), x)


def test_power_average_of_zeros_has_a_gradient_of_zero():
    x = np.zeros((1, 4, 4, 2), np.float32)
    (found,) = gradients(
        lambda x: functional.lp_pool2d(x, norm_type=2, kernel_size=2), x, grad=np.ones((1, 2, 2, 2), np.float32)
    )
    assert not found.any()
    with pytest.raises(ArgumentError, match="norm_type must be a positive number"):
        functional.lp_pool2d(x, norm_type=0, kernel_size=2)


# ---- Padding


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_padding_with_what_is_next_to_the_border(mode):
    rng = np.random.default_rng(0)
    for shape, before, after in [
        ((2, 5, 4, 3), (0, 2, 1, 0), (0, 1, 3, 0)),
        ((1, 2, 3, 17), (0, 1, 2, 0), (0, 0, 0, 0)),
        ((4,), (3,), (2,)),
        ((3, 3), (0, 0), (0, 0)),
    ]:
        x = reals(rng, shape)
        found = run(lambda x: functional.pad(x, before=before, after=after, mode=mode), x)
        tolerances.assert_bits(found, np.pad(x, list(zip(before, after, strict=True)), mode=mode))
        check_gradients(lambda x: functional.pad(x, before=before, after=after, mode=mode), x)


def test_padding_refuses_what_cannot_be_had():
    x = np.zeros((1, 3, 3, 1), np.float32)
    with pytest.raises(ArgumentError, match="axis 1 of 3 by reflect"):
        functional.pad(x, before=(0, 3, 0, 0), after=(0, 0, 0, 0), mode="reflect")
    with pytest.raises(ArgumentError, match="'wrap' is unknown"):
        functional.pad(x, before=(0, 1, 0, 0), after=(0, 0, 0, 0), mode="wrap")
    with pytest.raises(ArgumentError, match="must have 4 numbers"):
        functional.pad(x, before=(1, 0), after=(0, 0), mode="edge")
