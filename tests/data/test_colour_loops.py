"""The Cython loops of colours, windows, mixing and sums against NumPy in float64."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from pycnn.data import _image
from pycnn.data._resize import resize, resize_taps

U = 2.0**-24
ROUNDING = {np.uint8: 0.5, np.float32: 0.0}
SHAPES = [(1, 1, 3), (1, 1, 1), (7, 5, 3), (1, 9, 1), (6, 1, 3)]


def random_images(rng, shape, dtype):
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.uniform(0, 1, shape).astype(np.float32)


def test_normal_is_box_muller_of_its_own_words():
    index = np.array([5, 2**40, 5], np.int64)
    out = np.empty((3, 7))
    _image.normal(3, 1, 2, index, out)
    for row, sample in zip(out, index.tolist(), strict=True):
        # NumPy increments the 256-bit counter before the first block, so start one below.
        counter = ((sample << 64 | 2 << 128 | 2 << 192) - 1) % 2**256
        words = np.random.Philox(counter=counter, key=np.array([3, 1], np.uint64)).random_raw(8)
        unit = (words >> np.uint64(11)) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(1 - unit[::2])), 2 * np.pi * unit[1::2]
        expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:7]
        assert np.abs(row - expected).max() <= 8 * 2.0**-53 * 10


def test_normal_has_the_moments_of_the_normal_distribution():
    out = np.empty((20000, 3))
    _image.normal(0, 0, 0, np.arange(20000, dtype=np.int64), out)
    count = out.size
    # Six standard deviations of each estimate.
    assert abs(out.mean()) < 6 / np.sqrt(count)
    assert abs(out.var() - 1) < 6 * np.sqrt(2 / count)
    assert abs((out**4).mean() - 3) < 6 * np.sqrt(96 / count)
    assert np.abs(np.corrcoef(out.T) - np.eye(3)).max() < 6 / np.sqrt(20000)


def dense(source, target, antialias):
    """The bilinear filter as a matrix, in float64."""
    if antialias:
        start, taps = resize_taps(source, target, "bilinear")
        matrix = np.zeros((target, source))
        for i in range(target):
            matrix[i, start[i] : start[i] + taps.shape[1]] = taps[i]
        return matrix
    centre = (np.arange(target) + 0.5) * source / target
    weight = np.maximum(0, 1 - np.abs(np.arange(source) + 0.5 - centre[:, None]))
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("shape", "window", "size"),
    [
        ((1, 1, 3), (0, 0, 1, 1), (1, 1)),
        ((1, 1, 1), (0, 0, 1, 1), (4, 3)),
        ((9, 12, 3), (0, 0, 9, 12), (9, 12)),
        ((9, 12, 3), (2, 3, 6, 8), (4, 4)),
        ((20, 31, 3), (1, 2, 19, 29), (5, 3)),
        ((20, 31, 1), (19, 30, 1, 1), (3, 2)),
        ((7, 40, 4), (0, 1, 7, 37), (11, 6)),
    ],
)
def test_crop_resize_is_two_matrix_products(rng, shape, window, size, dtype, antialias):
    image = random_images(rng, shape, dtype)
    top, left, height, width = window
    out = np.empty((*size, shape[2]), dtype)
    _image.crop_resize(image, top, left, height, width, antialias, out)
    part = image[top : top + height, left : left + width].astype(np.float64)
    rows, columns = dense(height, size[0], antialias), dense(width, size[1], antialias)
    expected = np.einsum("yh,hwc,xw->yxc", rows, part, columns)
    terms = np.einsum("yh,hwc,xw->yxc", abs(rows), abs(part), abs(columns))
    bound = ROUNDING[dtype] + (8 + 2 * np.sqrt(height + width)) * U * terms
    assert (np.abs(out - expected) <= bound).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_resize_of_everything_is_resize(rng, dtype):
    image = random_images(rng, (17, 23, 3), dtype)
    out = np.empty((9, 30, 3), dtype)
    _image.crop_resize(image, 0, 0, 17, 23, True, out)
    expected = resize(image[None], (9, 30))[0]
    bound = 1 if dtype == np.uint8 else (8 + 2 * np.sqrt(40)) * U * 2
    assert np.abs(out.astype(float) - expected).max() <= bound


def test_crop_resize_agrees_with_pillow(rng):
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow as the oracle")
    image = rng.uniform(0, 1, (40, 33)).astype(np.float32)
    out = np.empty((12, 50, 1), np.float32)
    _image.crop_resize(image[..., None], 3, 4, 30, 25, True, out)
    # Pillow's box of whole pixels still reads beside it; cut first, as torchvision does.
    expected = pillow.fromarray(image[3:33, 4:29]).resize((50, 12), pillow.Resampling.BILINEAR)
    assert np.abs(out[..., 0] - np.asarray(expected)).max() <= (8 + 2 * np.sqrt(55)) * U * 2


def test_crop_resize_of_part_pixels_samples_between_them(rng):
    # Of a ramp, bilinear sampling gives the coordinate back, wherever the window begins.
    ramp = np.tile(np.arange(60, dtype=np.float32)[None, :, None], (50, 1, 1))
    out = np.empty((7, 9, 1), np.float32)
    top, left, height, width = 3.25, 10.75, 20.5, 30.125
    _image.crop_resize(ramp, top, left, height, width, False, out)
    expected = left + (np.arange(9) + 0.5) * width / 9 - 0.5
    assert np.abs(out[..., 0] - expected).max() <= 8 * U * 60
    _image.crop_resize(ramp, top, left, height, width, True, out)
    assert np.abs(out[:, 1:-1, 0] - expected[1:-1]).max() <= 0.15


@pytest.mark.parametrize(
    "window", [(-1, 0, 2, 2), (0, 3, 2, 3), (4, 0, 2, 2), (0, 0, 0, 1), (2**62, 0, 2**62, 1), (0, 0, float("nan"), 1)]
)
def test_crop_resize_refuses_a_window_that_leaves_the_image(window):
    with pytest.raises(ValueError, match="the window leaves the image"):
        _image.crop_resize(np.zeros((5, 5, 1), np.uint8), *window, True, np.zeros((2, 2, 1), np.uint8))


def grey_of(image):
    return image @ [0.299, 0.587, 0.114] if image.shape[-1] == 3 else image[..., 0]


def jitter_reference(image, factors, order):
    """In float64, on 0..1, hue by the standard library."""
    for what in order:
        if what == 0:
            image = image * factors[0]
        elif what == 1:
            image = factors[1] * image + (1 - factors[1]) * grey_of(image).mean()
        elif what == 2 and image.shape[-1] == 3:
            image = factors[2] * image + (1 - factors[2]) * grey_of(image)[..., None]
        elif what == 3 and image.shape[-1] == 3:
            flat = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3).tolist()]
            turned = [colorsys.hsv_to_rgb((h + factors[3]) % 1.0, s, v) for h, s, v in flat]
            image = np.array(turned).reshape(image.shape)
        image = np.clip(image, 0, 1)
    return image


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_jitter_equals_the_definitions_in_float64(rng, shape, dtype):
    count = 24
    images = random_images(rng, (count, *shape), dtype)
    factors = np.column_stack([rng.uniform(0.3, 1.8, (count, 3)), rng.uniform(-0.5, 0.5, count)])
    order = np.array([rng.permutation(4) for _ in range(count)], np.uint8)
    out = np.empty_like(images)
    _image.jitter(images, factors, order, out)
    unit = 255.0 if dtype == np.uint8 else 1.0
    for n in range(count):
        expected = unit * jitter_reference(images[n] / np.float64(unit), factors[n], order[n])
        # Factors up to 1.8, four steps, each of a few roundings; hue is continuous across sectors.
        bound = ROUNDING[dtype] + 200 * U * unit
        assert np.abs(out[n] - expected).max() <= bound


def test_jitter_of_nothing_keeps_the_bits(rng):
    images = random_images(rng, (3, 4, 4, 3), np.float32) * 7 - 3
    out = np.empty_like(images)
    order = np.tile(np.arange(4, dtype=np.uint8), (3, 1))
    _image.jitter(images, np.tile([1.0, 1.0, 1.0, 0.0], (3, 1)), order, out)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("turn", [-0.5, -1 / 3, 0.0, 1 / 6, 0.5])
def test_hue_of_the_six_corners_goes_around_the_hexagon(turn):
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], np.float32)
    image = corners.reshape(1, 1, 6, 3)
    out = np.empty_like(image)
    _image.jitter(image, np.array([[1, 1, 1, turn]]), np.array([[3, 0, 1, 2]], np.uint8), out)
    expected = np.roll(corners, -round(6 * turn), axis=0)
    assert np.abs(out[0, 0] - expected).max() <= 16 * U


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 2)])
def test_add_colour_adds_and_clamps_bytes(rng, shape, dtype):
    images = random_images(rng, (6, *shape), dtype)
    shift = (rng.normal(0, 40, (6, shape[2]))).astype(np.float32)
    out = np.empty_like(images)
    _image.add_colour(images, shift, out)
    expected = images.astype(np.float64) + shift[:, None, None]
    if dtype == np.uint8:
        expected = expected.clip(0, 255)
    bound = ROUNDING[dtype] + 2 * U * (np.abs(expected) + 300)
    assert (np.abs(out - expected) <= bound).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 2)])
def test_erase_fills_the_box_inside_of_the_image(rng, shape, dtype):
    images = random_images(rng, (8, *shape), dtype)
    boxes = rng.integers(-4, 12, (8, 4)).astype(np.int64)
    fill = np.arange(shape[2], dtype=np.float32) + 3
    out = np.empty_like(images)
    _image.erase(images, boxes, fill, out)
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    for n, (y0, y1, x0, x1) in enumerate(boxes):
        inside = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
        np.testing.assert_array_equal(out[n], np.where(inside[..., None], fill, images[n]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mix_is_the_weighted_sum_of_two_rows(rng, dtype):
    rows = random_images(rng, (5, 13), dtype)
    partner, weight = np.array([4, 1, 0, 0, 2], np.int64), rng.uniform(0, 1, 5).astype(np.float32)
    weight[1] = 1
    out = np.empty_like(rows)
    _image.mix(rows, partner, weight, out)
    w = weight[:, None].astype(np.float64)
    expected = w * rows + (1 - w) * rows[partner]
    assert (np.abs(out - expected) <= ROUNDING[dtype] + 4 * U * 256).all()
    np.testing.assert_array_equal(out[1], rows[1])
    with pytest.raises(IndexError, match="partner 5 at position 0, there are 5 rows"):
        _image.mix(rows, np.full(5, 5), weight, out)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 5)])
def test_moments_are_sums_of_values_and_products(rng, shape, dtype):
    images = random_images(rng, (4, *shape), dtype)
    channels = shape[2]
    flat = images.reshape(-1, channels).astype(np.float64)
    total, product = np.ones(channels), np.ones((channels, channels))
    _image.moments(images, True, total, product)
    assert np.abs(total - 1 - flat.sum(axis=0)).max() <= 4 * len(flat) * 2.0**-53 * (1 + flat.sum(axis=0).max())
    bound = 4 * len(flat) * 2.0**-53 * (1 + (flat.T @ flat).max())
    assert np.abs(product - 1 - flat.T @ flat).max() <= bound
    total, product = np.zeros(channels), np.zeros((channels, channels))
    _image.moments(images, False, total, product)
    assert not (product - np.diag(np.diagonal(product))).any()


@pytest.mark.parametrize(
    "call",
    [
        lambda a: _image.jitter(a, np.ones((2, 3)), np.zeros((2, 4), np.uint8), np.empty_like(a)),
        lambda a: _image.jitter(a, np.ones((2, 4)), np.zeros((1, 4), np.uint8), np.empty_like(a)),
        lambda a: _image.jitter(a[..., :2].copy(), np.ones((2, 4)), np.zeros((2, 4), np.uint8), a[..., :2].copy()),
        lambda a: _image.add_colour(a, np.ones((2, 2), np.float32), np.empty_like(a)),
        lambda a: _image.erase(a, np.zeros((2, 4), np.int64), np.ones(2, np.float32), np.empty_like(a)),
        lambda a: _image.erase(a, np.zeros((1, 4), np.int64), np.ones(3, np.float32), np.empty_like(a)),
        lambda a: _image.mix(a.reshape(2, -1), np.zeros(1, np.int64), np.ones(2, np.float32), a.reshape(2, -1)),
        lambda a: _image.moments(a, True, np.zeros(2), np.zeros((3, 3))),
        lambda a: _image.crop_resize(a[0], 0, 0, 1, 1, True, np.empty((2, 2, 1), np.uint8)),
    ],
)
def test_loops_refuse_shapes_that_would_leave_a_buffer(call):
    with pytest.raises(ValueError, match=r"pycnn\.data\._image"):
        call(np.zeros((2, 4, 4, 3), np.uint8))
