"""Transforms: what they do, and that it depends on (seed, epoch, sample index) only."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pycnn.data import transforms as T  # noqa: N812
from pycnn.errors import ArgumentError, DTypeError, ShapeError

U = 2.0**-24
BATCH = 12
SHAPE = (14, 11, 3)

RANDOM = [
    T.RandomCrop(9, padding=2),
    T.RandomCrop(padding=4, fill=9),
    T.RandomShift(3),
    T.RandomHorizontalFlip(),
    T.RandomAffine(degrees=20, translate=0.2, scale=(0.8, 1.25), shear=10),
    T.ElasticDistortion(alpha=30, sigma=3),
    T.RandomResizedCrop((9, 6)),
    T.RandomResizedCrop(20, scale=(0.3, 1), ratio=(0.5, 2), antialias=False),
    T.ColorJitter(0.4, 0.4, 0.4, 0.2),
    T.PCALighting(),
    T.Cutout(5, p=0.8, fill=(1, 2, 3)),
    T.Compose(
        [
            T.RandomShift(2),
            T.RandomShift(2),
            T.RandomAffine(15, 0.1),
            T.ElasticDistortion(20, 3),
            T.Resize((7, 8)),
            T.Normalize((0.1, 0.2, 0.3), 0.5),
        ]
    ),
]
FIXED = [T.CenterCrop((7, 5)), T.Resize((20, 5)), T.Resize(6, "bicubic"), T.Normalize(0.5, 0.25)]


def name(step):
    return type(step).__name__


@pytest.fixture(params=[np.uint8, np.float32], ids=["uint8", "float32"])
def images(request, rng):
    values = rng.integers(0, 256, (BATCH, *SHAPE)).astype(np.uint8)
    return values if request.param == np.uint8 else values.astype(np.float32) / 255


@pytest.mark.parametrize("step", RANDOM + FIXED, ids=name)
def test_result_has_the_announced_shape_and_dtype(step, images):
    out = step(images)
    assert out.shape == (BATCH, *step.output_shape(SHAPE))
    normalized = isinstance(step, (T.Normalize, T.Compose))
    assert out.dtype == (np.float32 if normalized else images.dtype)
    assert out.flags.c_contiguous


@pytest.mark.parametrize("step", RANDOM + FIXED, ids=name)
def test_input_is_never_modified(step, images):
    images.flags.writeable = False
    before = images.copy()
    step(images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("step", RANDOM, ids=name)
def test_samples_do_not_depend_on_their_batch(step, images):
    index = np.array([5, 0, 123456789012, 7, 8, 2, 1, 3, 5, 4, 6, 9])
    whole = step(images, seed=3, epoch=2, indices=index)
    for n in range(BATCH):
        alone = step(images[n : n + 1], seed=3, epoch=2, indices=index[n : n + 1])
        np.testing.assert_array_equal(alone[0], whole[n])
    order = np.arange(BATCH)[::-1]
    backwards = step(images[order], seed=3, epoch=2, indices=index[order])
    np.testing.assert_array_equal(backwards[::-1], whole)


@pytest.mark.parametrize("step", RANDOM, ids=name)
def test_seed_epoch_and_index_each_matter(step, images):
    same = step(images, seed=1, epoch=1)
    np.testing.assert_array_equal(same, step(images, seed=1, epoch=1, indices=range(BATCH)))
    for other in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        assert (step(images, **other) != same).any()
    assert (step(images, seed=1, epoch=1, indices=np.arange(BATCH) + 50) != same).any()


@pytest.mark.parametrize("step", RANDOM, ids=name)
def test_threads_give_the_same_bits(step, images):
    expected, results = step(images, seed=8), [None] * 4

    def work(i):
        results[i] = step(images, seed=8)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("step", RANDOM + FIXED, ids=name)
def test_memory_layout_does_not_matter(step, images):
    expected = step(images)
    for other in (
        np.asfortranarray(images),
        np.ascontiguousarray(images[::-1, :, ::-1])[::-1, :, ::-1],
        images.astype(images.dtype.newbyteorder(">")),
    ):
        np.testing.assert_array_equal(step(other), expected)


@pytest.mark.parametrize("step", RANDOM + FIXED, ids=name)
def test_one_image_is_a_batch_of_one(step, images):
    expected = step(images[4:5], seed=1, indices=[4])[0]
    np.testing.assert_array_equal(step(images[4], seed=1, indices=4), expected)


def test_equal_steps_of_a_pipeline_draw_different_numbers(images):
    once = T.RandomShift(5)(images)
    twice = T.Compose([T.RandomShift(5), T.RandomShift(0)])(images)
    np.testing.assert_array_equal(once, twice)
    later = T.Compose([T.RandomShift(0), T.RandomShift(5)])(images)
    assert (later != once).any()


def test_random_shift_reaches_every_offset_and_no_other():
    images = np.zeros((2000, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 1
    out = T.RandomShift(2)(images)
    seen = {tuple(where) for where in np.argwhere(out[..., 0])[:, 1:]}
    assert seen == {(y, x) for y in range(2, 7) for x in range(2, 7)}


def test_random_crop_cuts_a_window_of_the_padded_image(images):
    out = T.RandomCrop((9, 6), padding=3, fill=7)(images, seed=5)
    wide = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=7)
    view = np.lib.stride_tricks.sliding_window_view(wide, (9, 6), axis=(1, 2))
    windows = view.transpose(0, 1, 2, 4, 5, 3)
    for n in range(BATCH):
        assert (windows[n] == out[n]).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize(("p", "count"), [(0, 0), (1, BATCH)])
def test_flip_probability_is_exact_at_its_ends(images, p, count):
    out = T.RandomHorizontalFlip(p)(images)
    np.testing.assert_array_equal(out[:count], images[:count, :, ::-1])
    np.testing.assert_array_equal(out[count:], images[count:])


def test_flip_happens_as_often_as_asked():
    images = np.tile(np.array([0, 1], np.uint8)[None, None, :, None], (20000, 1, 1, 1))
    share = T.RandomHorizontalFlip(0.3)(images)[:, 0, 0, 0].mean()
    # Six standard deviations of a binomial share.
    assert abs(share - 0.3) < 6 * np.sqrt(0.3 * 0.7 / 20000)


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_alternating_flips_show_both_sides_in_two_epochs(p):
    images = np.tile(np.array([0, 1], np.uint8)[None, None, :, None], (20000, 1, 1, 1))
    step = T.RandomHorizontalFlip(p, alternate=True)
    epochs = [step(images, seed=3, epoch=epoch)[:, 0, 0, 0] for epoch in range(4)]
    for first, second in zip(epochs, epochs[1:]):
        np.testing.assert_array_equal(first + second, 1)
    assert abs(epochs[0].mean() - p) <= 6 * np.sqrt(p * (1 - p) / 20000)
    # Which images come first depends on the seed; a batch has what its images have in any other.
    other = step(images, seed=4)[:, 0, 0, 0]
    assert np.array_equal(other, epochs[0]) == (p in (0, 1))
    some = step(images[:5], seed=3, epoch=1, indices=np.arange(7, 12))[:, 0, 0, 0]
    np.testing.assert_array_equal(some, epochs[1][7:12])


def test_affine_quarter_turn_is_clockwise():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1) * 10
    out = T.RandomAffine(degrees=(90, 90))(image)
    np.testing.assert_array_equal(out[..., 0], np.rot90(image[..., 0], -1))


def test_affine_of_nothing_is_the_identity(images):
    np.testing.assert_array_equal(T.RandomAffine()(images), images)


def test_affine_scale_enlarges():
    image = np.zeros((21, 21, 1), np.uint8)
    image[8:13, 8:13] = 255
    grown = T.RandomAffine(scale=(2, 2))(image)
    shrunk = T.RandomAffine(scale=(0.5, 0.5))(image)
    assert shrunk.sum() < image.sum() < grown.sum()


def test_affine_translation_stays_within_its_part():
    images = np.zeros((500, 21, 21, 1), np.float32)
    images[:, 10, 10] = 1
    out = T.RandomAffine(translate=(0.2, 0))(images)
    columns = (out[..., 0] * np.arange(21)).sum(axis=(1, 2)) - 10
    assert np.abs(columns).max() <= 0.2 * 21 + 21 * 100 * U
    assert np.abs(columns).max() > 0.15 * 21
    # Only rows 10 are touched.
    assert not out[:, :10].any()
    assert not out[:, 11:].any()


def test_elastic_displacement_has_the_documented_size():
    step = T.ElasticDistortion(alpha=34, sigma=4)
    draw = T.Draw(0, 0, np.arange(40))
    field = step.field(np.zeros((40, 60, 60, 1), np.uint8), draw)[:, :, 15:-15, 15:-15]
    # The field has about (30 / 4)^2 independent spots in each of 80 planes.
    assert abs(field.std() / (0.163 * 34 / 4) - 1) < 6 / np.sqrt(2 * 80 * 7.5**2)


def test_elastic_of_strength_zero_is_the_identity(images):
    np.testing.assert_array_equal(T.ElasticDistortion(alpha=0)(images), images)


def test_affine_and_elastic_are_resampled_once(images):
    affine, still = T.RandomAffine(20, 0.1), T.ElasticDistortion(alpha=0)
    np.testing.assert_array_equal(T.Compose([affine, still])(images, seed=2), affine(images, seed=2))
    apart = T.Compose([affine, T.ElasticDistortion(alpha=0, fill=1)])(images, seed=2)
    np.testing.assert_array_equal(apart, affine(images, seed=2))


def test_normalize_gives_zero_mean_and_unit_deviation(rng):
    images = rng.integers(0, 256, (3, 20, 20, 3)).astype(np.uint8)
    unit = images.astype(np.float64) / 255
    mean, std = unit.mean(axis=(0, 1, 2)), unit.std(axis=(0, 1, 2))
    step = T.Normalize(tuple(mean), tuple(std))
    expected = (unit - mean) / std
    bound = 4 * U * ((unit + mean) / std)
    assert (np.abs(step(images) - expected) <= bound).all()
    # The same numbers serve images that are float32 in 0..1 already.
    assert (np.abs(step(unit.astype(np.float32)) - expected) <= 2 * bound).all()


def test_center_crop_takes_the_middle():
    image = np.arange(49, dtype=np.uint8).reshape(7, 7, 1)
    np.testing.assert_array_equal(T.CenterCrop(3)(image), image[2:5, 2:5])
    np.testing.assert_array_equal(T.CenterCrop((2, 7))(image), image[2:4])


def test_nan_stays_where_it_was():
    images = np.zeros((1, 6, 6, 1), np.float32)
    images[0, 2, 3] = np.nan
    for step in (T.RandomShift(0), T.RandomHorizontalFlip(0), T.Normalize(), T.CenterCrop(6)):
        np.testing.assert_array_equal(np.argwhere(np.isnan(step(images))), [[0, 2, 3, 0]])


def test_transforms_compare_hash_and_print():
    assert T.RandomShift(2) == T.RandomShift(2) != T.RandomShift(3)
    assert T.Normalize(0.5) == T.Normalize((0.5,))
    assert len({T.Compose([T.RandomShift(2)]), T.Compose([T.RandomShift(2)])}) == 1
    assert repr(T.RandomCrop(padding=4)) == "RandomCrop(size=None, padding=4, fill=0.0)"
    nested = T.Compose([T.Compose([T.RandomShift(1)]), T.CenterCrop(3)])
    assert nested.steps == (T.RandomShift(1), T.CenterCrop(3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: T.RandomCrop(0), "RandomCrop: size must be in 1..65536, got 0"),
        (lambda: T.RandomCrop((3, 4, 5)), r"size must be one integer or \(height, width\)"),
        (lambda: T.RandomCrop(3.5), "size must be an integer, got 3.5"),
        (lambda: T.RandomCrop(padding=-1), "padding must be in 0..65536, got -1"),
        (lambda: T.RandomCrop(fill=float("nan")), "fill must be finite"),
        (lambda: T.RandomShift(-1), "max_px must be in 0..65536, got -1"),
        (lambda: T.RandomShift(True), "max_px must be an integer, got True"),
        (lambda: T.RandomHorizontalFlip(1.5), r"p must be finite and in \[0, 1\], got 1.5"),
        (lambda: T.RandomHorizontalFlip(alternate=1), "alternate must be True or False, got 1"),
        (lambda: T.RandomAffine(degrees=-5), r"degrees must be finite and in \[0, 360\], got -5"),
        (lambda: T.RandomAffine(degrees=(5, -5)), "degrees has low 5.0 above high -5.0"),
        (lambda: T.RandomAffine(degrees="10x"), "degrees must be a number, got '10x'"),
        (lambda: T.RandomAffine(shear=90), r"shear must be finite and in \[0, 60\]"),
        (lambda: T.RandomAffine(translate=2), r"translate must be finite and in \[0, 1\], got 2"),
        (lambda: T.RandomAffine(translate=(1, 0, 0)), r"translate must be a number or"),
        (lambda: T.RandomAffine(scale=(0, 1)), r"scale must be finite and in \[0.01, 100\], got 0"),
        (lambda: T.RandomAffine(scale=1.1), r"scale must be \(low, high\), got 1.1"),
        (lambda: T.RandomAffine(scale=(2, 1)), "scale has low 2.0 above high 1.0"),
        (lambda: T.ElasticDistortion(alpha=-1), "alpha must be finite and in"),
        (lambda: T.ElasticDistortion(sigma=0), "sigma must be finite and in"),
        (lambda: T.ElasticDistortion(sigma=float("inf")), "sigma must be finite and in"),
        (lambda: T.Resize(8, "lanczos"), "interpolation must be one of"),
        (lambda: T.CenterCrop(-1), "size must be in 1..65536, got -1"),
        (lambda: T.Normalize(std=0), "std must be finite and at least 1e-12, got"),
        (lambda: T.Normalize(mean=()), "mean must be one number or one per channel"),
        (lambda: T.Normalize(mean=float("nan")), "mean must be finite"),
        (lambda: T.Compose([T.RandomShift(1), "flip"]), "step 1 is 'flip'"),
    ],
)
def test_bad_arguments_are_refused_when_made(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (T.RandomCrop(30, padding=2), r"window height 30 exceeds the image height 14 \+ 2 \* pad"),
        (T.CenterCrop((3, 12)), r"window \(3, 12\) exceeds the image \(14, 11\)"),
        (T.Normalize((0.1, 0.2)), "mean has 2 values, the images have 3 channels"),
        (T.Compose([T.CenterCrop(5), T.CenterCrop(6)]), r"window \(6, 6\) exceeds"),
    ],
)
def test_steps_that_do_not_fit_the_images_say_so(step, text, images):
    with pytest.raises(ShapeError, match=text):
        step(images)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (np.zeros((2, 3, 9, 9), np.uint8), ShapeError, "channels-last"),
        (np.zeros((9, 9), np.uint8), ShapeError, r"got \(9, 9\)"),
        (np.zeros((2, 9, 9, 1)), DTypeError, "must be uint8 or float32, got float64"),
        (np.zeros((2, 9, 9, 1), bool), DTypeError, "got bool"),
    ],
)
def test_transforms_refuse_what_is_no_image(value, error, text):
    with pytest.raises(error, match=text):
        T.RandomShift(1)(value)


@pytest.mark.parametrize(
    "keywords",
    [{"seed": -1}, {"seed": 2**64}, {"epoch": 1.5}, {"indices": [1]}, {"indices": [0.5] * BATCH}],
)
def test_transforms_refuse_bad_keys(keywords, images):
    with pytest.raises(ArgumentError, match=r"seed|epoch|indices"):
        T.RandomShift(1)(images, **keywords)


def test_transforms_accept_an_empty_batch():
    images = np.zeros((0, *SHAPE), np.uint8)
    for step in RANDOM + FIXED:
        assert step(images).shape == (0, *step.output_shape(SHAPE))
