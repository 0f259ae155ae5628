"""The Cython loops against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from pycnn.data import _image
from pycnn.data._resize import resize, resize_taps
from pycnn.data.transforms._warp import _gaussian_taps

# Unit roundoff of float32; sums of n terms are judged by (4 + 2 sqrt(n)) U sum |terms|.
U = 2.0**-24
ROUNDING = {np.uint8: 0.5, np.float32: 0.0}


def random_images(rng, shape, dtype):
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def philox(seed, epoch, stream, sample, purpose, count):
    # NumPy increments the 256-bit counter before the first block, so start one below.
    counter = ((sample << 64 | stream << 128 | purpose << 192) - 1) % 2**256
    key = np.array([seed, epoch], np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count)


@pytest.mark.parametrize("count", [1, 4, 5, 17])
@pytest.mark.parametrize("key", [(0, 0, 1, 0), (5, 7, 3, 11), (2**64 - 1, 2**63, 2**32, 10**12)])
def test_random_words_equal_numpy_philox(key, count):
    out = np.empty(count, np.uint64)
    seed, epoch, stream, sample = key
    _image.random_words(seed, epoch, stream, sample, out)
    np.testing.assert_array_equal(out, philox(seed, epoch, stream, sample, 0, count))


def test_uniform_is_the_top_53_bits_of_each_samples_words():
    index = np.array([3, 9, 3], np.int64)
    out = np.empty((3, 6))
    _image.uniform(1, 2, 4, index, out)
    for row, sample in zip(out, index, strict=True):
        words = philox(1, 2, 4, int(sample), 0, 6)
        np.testing.assert_array_equal(row, (words >> np.uint64(11)) * 2.0**-53)
    assert ((out >= 0) & (out < 1)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 17, 64])
def test_gather_normalize_is_scale_and_shift_per_channel(rng, dtype, channels):
    images = random_images(rng, (5, 3, 7, channels), dtype)
    index = np.array([4, 0, 0, 2], np.int64)
    scale = rng.standard_normal(channels).astype(np.float32)
    shift = rng.standard_normal(channels).astype(np.float32)
    repeat = -(-48 // channels)
    out = np.full((4, 21 * channels), np.nan, np.float32)
    _image.gather_normalize(images.reshape(5, -1), index, np.tile(scale, repeat), np.tile(shift, repeat), out)
    product = images[index].astype(np.float64) * scale
    expected = product + shift
    bound = 2 * U * (np.abs(product) + np.abs(shift) + np.abs(expected))
    assert (np.abs(out.reshape(expected.shape) - expected) <= bound).all()


def test_gather_copies_rows_and_names_a_bad_index(rng):
    rows = rng.integers(0, 256, (6, 10)).astype(np.uint8)
    out = np.empty((3, 10), np.uint8)
    _image.gather(rows, np.array([5, 0, 5], np.int64), out)
    np.testing.assert_array_equal(out, rows[[5, 0, 5]])
    for bad in (-1, 6, 2**62):
        with pytest.raises(IndexError, match=f"index {bad} at position 1, there are 6 rows"):
            _image.gather(rows, np.array([5, bad, 5], np.int64), out)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(1, 1), (4, 9), (8, 8), (20, 3)])
def test_crop_equals_padding_then_slicing(rng, dtype, size):
    images = random_images(rng, (40, 6, 7, 3), dtype)
    margin = 25
    top = rng.integers(-margin, margin + 1 - 6, 40).astype(np.int64)
    left = rng.integers(-margin, margin + 1 - 7, 40).astype(np.int64)
    out = np.empty((40, *size, 3), dtype)
    _image.crop(images, top, left, 7.0, out)
    pads = ((0, 0), (margin, 60), (margin, 60), (0, 0))
    padded = np.pad(images, pads, constant_values=7)
    for n in range(40):
        y, x = top[n] + margin, left[n] + margin
        np.testing.assert_array_equal(out[n], padded[n, y : y + size[0], x : x + size[1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_mirrors_chosen_samples_only(rng, dtype):
    images = random_images(rng, (4, 3, 5, 2), dtype)
    out = np.empty_like(images)
    _image.flip(images, np.array([1, 0, 0, 1], np.uint8), out)
    np.testing.assert_array_equal(out[[1, 2]], images[[1, 2]])
    np.testing.assert_array_equal(out[[0, 3]], images[[0, 3], :, ::-1])


def warp_reference(images, matrices, field, fill):
    """Bilinear sampling in float64, and how far the coordinates of float32 may be off."""
    count, h, w, c = images.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    out = np.empty((count, h, w, c))
    slack = np.empty((count, h, w))
    for n in range(count):
        u, v = x + field[n, 0], y + field[n, 1]
        m = matrices[n].astype(np.float64)
        sx, sy = m[0] * u + m[1] * v + m[2], m[3] * u + m[4] * v + m[5]
        size = np.abs(m).max() * (np.abs(u) + np.abs(v) + 1)
        slack[n] = 8 * U * size
        wide = np.full((h + 4, w + 4, c), fill, np.float64)
        wide[2:-2, 2:-2] = images[n]
        cx, cy = np.clip(sx, -2, w), np.clip(sy, -2, h)
        x0, y0 = np.floor(cx).astype(int), np.floor(cy).astype(int)
        fx, fy = (cx - x0)[..., None], (cy - y0)[..., None]
        corner = [[wide[y0 + j + 2, x0 + i + 2] for i in (0, 1)] for j in (0, 1)]
        upper = corner[0][0] * (1 - fx) + corner[0][1] * fx
        lower = corner[1][0] * (1 - fx) + corner[1][1] * fx
        out[n] = upper * (1 - fy) + lower * fy
    return out, slack[..., None]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 7, 1), (8, 11, 3), (1, 6, 2)])
def test_warp_equals_bilinear_sampling_in_float64(rng, dtype, shape):
    images = random_images(rng, (6, *shape), dtype)
    matrices = rng.normal([1, 0, 0, 0, 1, 0], 0.4, (6, 6)).astype(np.float32)
    field = rng.normal(0, 2, (6, 2, *shape[:2])).astype(np.float32)
    out = np.empty_like(images)
    _image.warp(images, matrices, field, 3.0, out)
    expected, slack = warp_reference(images, matrices, field, 3.0)
    span = float(images.max()) - float(images.min()) + 6
    bound = ROUNDING[dtype] + 2 * slack * span + 8 * U * np.abs(images).max()
    assert (np.abs(out - expected) <= bound).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_warp_without_matrix_and_field_is_the_identity(rng, dtype):
    images = random_images(rng, (2, 5, 6, 3), dtype)
    out = np.empty_like(images)
    none = np.empty((0, 6), np.float32), np.empty((0, 2, 0, 0), np.float32)
    _image.warp(images, *none, 0.0, out)
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_warp_to_nowhere_gives_fill(rng, value):
    images = random_images(rng, (1, 4, 4, 1), np.uint8)
    out = np.empty_like(images)
    field = np.full((1, 2, 4, 4), value, np.float32)
    _image.warp(images, np.empty((0, 6), np.float32), field, 9.0, out)
    assert (out == 9).all()


def test_affine_matrices_invert_the_documented_forward_map(rng):
    parameters = np.column_stack(
        [
            rng.uniform(-3, 3, 20),
            rng.uniform(-1, 1, 20),
            rng.uniform(0.5, 2, 20),
            rng.uniform(-5, 5, (20, 2)),
        ]
    )
    out = np.empty((20, 6), np.float32)
    height, width = 12, 17
    _image.affine_matrices(parameters, height, width, out)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    point = np.array([3.0, 4.0])
    for (angle, shear, scale, tx, ty), row in zip(parameters, out, strict=True):
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        lean = np.array([[1, np.tan(shear)], [0, 1]])
        moved = centre + [tx, ty] + scale * rotate @ lean @ (point - centre)
        m = row.astype(np.float64).reshape(2, 3)
        bound = 2 * U * (np.abs(m) @ [*np.abs(moved), 1]) + 1e-12
        assert (np.abs(m @ [*moved, 1] - point) <= bound).all()


@pytest.mark.parametrize("sigma", [0.5, 4.0])
@pytest.mark.parametrize("size", [(1, 1), (9, 5), (28, 28)])
def test_displacement_is_smoothed_philox_noise(sigma, size):
    index = np.array([12, 3], np.int64)
    taps = _gaussian_taps(sigma)
    out = np.empty((2, 2, *size), np.float32)
    _image.displacement(1, 2, 3, index, 34.0, taps, out)
    whole = np.concatenate([taps[:0:-1], taps]).astype(np.float64)
    assert abs(whole.sum() - 1) <= len(whole) * U
    radius, plane = len(taps) - 1, size[0] * size[1]
    for n, sample in enumerate(index):
        words = philox(1, 2, 3, int(sample), 1, -(-2 * plane // 8) * 4)
        parts = np.stack([(words >> np.uint64(8)) & np.uint64(0xFFFFFF), words >> np.uint64(40)])
        noise = (parts.T.ravel()[: 2 * plane].astype(np.float64) - 2**23) * 2.0**-23
        for noisy, got in zip(noise.reshape(2, *size), out[n], strict=True):
            smooth, size_of_terms = (_separable(field, whole, radius) for field in (noisy, np.abs(noisy)))
            bound = 34 * (8 + 4 * np.sqrt(len(whole))) * U * size_of_terms
            assert (np.abs(got - 34 * smooth) <= bound).all()


def _separable(field, whole, radius):
    padded = np.pad(field, radius)
    rows = np.array([np.convolve(row, whole, "valid") for row in padded])
    return np.array([np.convolve(column, whole, "valid") for column in rows.T]).T


def dense(source, target, interpolation):
    start, taps = resize_taps(source, target, interpolation)
    matrix = np.zeros((target, source))
    for i in range(target):
        matrix[i, start[i] : start[i] + taps.shape[1]] = taps[i]
    return matrix


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("sizes", [(8, 28), (8, 32), (28, 9), (5, 1), (1, 6), (7, 7)])
def test_resize_is_two_matrix_products(rng, sizes, dtype, interpolation):
    source, target = sizes
    images = random_images(rng, (2, source, 11, 3), dtype)
    out = resize(images, (target, 4), interpolation=interpolation)
    rows, columns = dense(source, target, interpolation), dense(11, 4, interpolation)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=source * U)
    expected = np.einsum("yh,nhwc,xw->nyxc", rows, images, columns)
    terms = np.einsum("yh,nhwc,xw->nyxc", np.abs(rows), np.abs(images.astype(float)), abs(columns))
    if dtype == np.uint8:
        expected = np.clip(expected, 0, 255)
    bound = ROUNDING[dtype] + (8 + 2 * np.sqrt(2 * (source + 11))) * U * terms
    assert (np.abs(out - expected) <= bound).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sizes", [((8, 8), (28, 28)), ((30, 41), (9, 13)), ((5, 9), (5, 30))])
def test_resize_agrees_with_pillow(rng, sizes, interpolation):
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow as the oracle")
    source, target = sizes
    image = rng.uniform(0, 1, source).astype(np.float32)
    resample = pillow.Resampling[interpolation.upper()]
    expected = np.asarray(pillow.fromarray(image).resize(target[::-1], resample))
    got = resize(image[None, ..., None], target, interpolation=interpolation)[0, ..., 0]
    # Negative lobes of the cubic at most double the sum of the terms.
    bound = (8 + 2 * np.sqrt(sum(source))) * U * 2
    assert np.abs(got - expected).max() <= bound


@pytest.mark.parametrize(
    "call",
    [
        lambda a, i: _image.gather(a.reshape(2, -1), i[:1], np.empty((2, 32), np.uint8)),
        lambda a, i: _image.gather(a.reshape(2, -1), i, np.empty((2, 31), np.uint8)),
        lambda a, i: _image.crop(a, i[:1], i, 0.0, np.empty_like(a)),
        lambda a, i: _image.flip(a, np.zeros(1, np.uint8), np.empty_like(a)),
        lambda a, i: _image.flip(a, np.zeros(2, np.uint8), np.empty((2, 4, 5, 2), np.uint8)),
        lambda a, i: _image.warp(
            a,
            np.empty((1, 6), np.float32),
            np.empty((0, 2, 0, 0), np.float32),
            0.0,
            np.empty_like(a),
        ),
        lambda a, i: _image.resize(
            a,
            np.array([2, 2], np.int64),
            np.ones((2, 3), np.float32),
            i,
            np.ones((2, 1), np.float32),
            np.empty((2, 2, 2, 2), np.uint8),
        ),
    ],
)
def test_loops_refuse_shapes_that_would_leave_a_buffer(call):
    images, index = np.zeros((2, 4, 4, 2), np.uint8), np.array([0, 1], np.int64)
    with pytest.raises(ValueError, match=r"pycnn\.data\._image"):
        call(images, index)


def test_loops_accept_an_empty_batch():
    images, index = np.zeros((0, 4, 4, 2), np.uint8), np.zeros(0, np.int64)
    out = np.empty_like(images)
    _image.crop(images, index, index, 0.0, out)
    _image.flip(images, np.zeros(0, np.uint8), out)
    _image.warp(images, np.empty((0, 6), np.float32), np.empty((0, 2, 0, 0), np.float32), 0.0, out)
    assert resize(images, (3, 3)).shape == (0, 3, 3, 2)
