"""Augmentation of photographs: distributions of the random choices, definitions, policies, mixup, ten crops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycnn.data import ArrayDataset, Loader
from pycnn.data import transforms as T  # noqa: N812
from pycnn.data.transforms import Draw
from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError

COUNT = 20000


@pytest.fixture
def draw():
    return Draw(7, 3, np.arange(COUNT))


def chi_square(values, bins, low, high):
    """Statistic of equal bins for values that should be uniform in low..high, and how large it may be."""
    counts, _ = np.histogram(values, bins, (low, high))
    assert counts.sum() == len(values)
    expected = len(values) / bins
    statistic = ((counts - expected) ** 2 / expected).sum()
    # Mean bins - 1, variance 2 (bins - 1): six standard deviations above.
    return statistic, bins - 1 + 6 * math.sqrt(2 * (bins - 1))


def assert_uniform(values, low, high, bins=20):
    statistic, limit = chi_square(values, bins, low, high)
    assert statistic < limit


# ---- RandomResizedCrop


def windows(step, height, width, draw):
    plan = step.plan(draw)
    return np.array([plan.window(n, height, width) for n in range(len(draw.indices))])


def test_resized_crop_draws_area_ratio_and_place_as_documented(draw):
    # So small that the first try always fits, so large that rounding hardly counts.
    side = 40000
    step = T.RandomResizedCrop(8, scale=(0.1, 0.3), ratio=(0.5, 2.0))
    top, left, height, width = windows(step, side, side, draw).T.astype(float)
    assert_uniform(height * width / side**2, 0.1 - 1e-4, 0.3 + 1e-4)
    assert_uniform(np.log(width / height), math.log(0.5) - 1e-4, math.log(2) + 1e-4)
    assert_uniform(top / (side - height + 1), 0, 1)
    assert_uniform(left / (side - width + 1), 0, 1)
    assert abs(np.corrcoef(top / (side - height), left / (side - width))[0, 1]) < 6 / math.sqrt(COUNT)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (11, 7), (5, 300), (300, 5)])
def test_resized_crop_windows_lie_inside(height, width, draw):
    part = Draw(draw.seed, draw.epoch, draw.indices[:500])
    top, left, h, w = windows(T.RandomResizedCrop(8), height, width, part).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(("shape", "window"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_resized_crop_falls_back_to_the_middle_when_nothing_fits(shape, window, draw):
    part = Draw(draw.seed, draw.epoch, draw.indices[:20])
    step = T.RandomResizedCrop(8, scale=(1, 1))
    assert {tuple(row) for row in windows(step, *shape, part).tolist()} == {window}


def test_resized_crop_of_everything_to_its_own_size_is_the_identity(rng):
    images = rng.integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(T.RandomResizedCrop(6, scale=(1, 1), ratio=(1, 1))(images), images)


def test_resized_crop_first_in_a_pipeline_gives_the_same_bits_in_a_loader(rng):
    images = rng.integers(0, 256, (9, 12, 10, 3)).astype(np.uint8)
    for transform in (
        T.RandomResizedCrop(5),
        T.Compose([T.RandomResizedCrop(5), T.RandomHorizontalFlip(), T.ColorJitter(0.5, hue=0.1)]),
    ):
        loader = Loader(ArrayDataset(images, np.zeros(9, int)), 4, shuffle=False, seed=5, transform=transform)
        got = np.concatenate([x for x, _ in loader])
        np.testing.assert_array_equal(got, transform(images, seed=5, epoch=0))


# ---- Colours


def test_jitter_draws_factors_and_orders_uniformly(draw):
    factors, order = T.ColorJitter(0.4, (0.2, 0.6), 2.0, 0.25).draw_parameters(draw)
    for column, (low, high) in enumerate([(0.6, 1.4), (0.2, 0.6), (0.0, 3.0), (-0.25, 0.25)]):
        assert_uniform(factors[:, column], low, high)
    kinds, counts = np.unique(order, axis=0, return_counts=True)
    assert len(kinds) == 24
    assert ((counts - COUNT / 24) ** 2 / (COUNT / 24)).sum() < 23 + 6 * math.sqrt(46)


def test_jitter_by_hand():
    image = np.array([[[100, 100, 100], [200, 100, 0]]], np.uint8)
    np.testing.assert_array_equal(T.ColorJitter(brightness=(1.5, 1.5))(image)[0], [[150, 150, 150], [255, 150, 0]])
    grey = T.ColorJitter(saturation=(0, 0))(image)[0]
    np.testing.assert_array_equal(grey, [[100] * 3, [119] * 3])
    flat = T.ColorJitter(contrast=(0, 0))(image)[0]
    np.testing.assert_array_equal(flat, [[round((100 + 118.5) / 2)] * 3] * 2)
    np.testing.assert_array_equal(T.ColorJitter(hue=(0.5, 0.5))(image)[0], [[100] * 3, [0, 100, 200]])


def test_lighting_moves_along_the_components_as_far_as_documented(draw):
    step = T.PCALighting(0.1)
    shifts = step.shifts(draw)
    vectors, values = np.array(T.IMAGENET_EIGENVECTORS), np.array(T.IMAGENET_EIGENVALUES)
    amplitude = np.linalg.solve(vectors, shifts.T) / values[:, None]
    assert np.abs(amplitude.mean(axis=1)).max() < 6 * 0.1 / math.sqrt(COUNT)
    assert np.abs(amplitude.std(axis=1) / 0.1 - 1).max() < 6 / math.sqrt(2 * COUNT)
    assert np.abs(np.corrcoef(amplitude) - np.eye(3)).max() < 6 / math.sqrt(COUNT)
    # The published vectors are orthonormal to the digits that are given.
    assert np.abs(vectors.T @ vectors - np.eye(3)).max() < 3e-4
    image = np.full((1, 2, 2, 3), 128, np.uint8)
    moved = T.PCALighting(0.1)(image, seed=7, epoch=3)
    np.testing.assert_array_equal(moved[0, 0, 0], np.floor(128 + 255 * shifts[0] + 0.5))


def test_lighting_of_a_data_set_diagonalises_its_colours(rng):
    mixed = rng.normal(0, 1, (50, 6, 4, 3)) * [30, 10, 3] @ np.linalg.qr(rng.normal(0, 1, (3, 3)))[0] + 128
    images = mixed.clip(0, 255).astype(np.uint8)
    step = T.PCALighting.of(ArrayDataset(images, np.zeros(50, int)))
    flat = images.reshape(-1, 3) / 255
    vectors = np.array(step.eigenvectors)
    expected = vectors.T @ np.cov(flat.T, bias=True) @ vectors
    assert np.abs(expected - np.diag(step.eigenvalues)).max() < 1e-12
    assert step.eigenvalues[0] > step.eigenvalues[1] > step.eigenvalues[2] > 0


# ---- Cutout


def test_cutout_centres_are_uniform_and_squares_have_their_size(draw):
    step = T.Cutout(6, p=0.7)
    top, bottom, left, right = step.boxes(11, 9, draw).T
    used = bottom > top
    assert abs(used.mean() - 0.7) < 6 * math.sqrt(0.21 / COUNT)
    assert set(bottom - top) == set(right - left) == {0, 6}
    for first, side in ((top, 11), (left, 9)):
        places = np.bincount(first + 3, minlength=side)
        assert len(places) == side
        assert ((places - COUNT / side) ** 2 / (COUNT / side)).sum() < side - 1 + 6 * math.sqrt(2 * (side - 1))


def test_cutout_hides_a_square_and_nothing_else(rng):
    images = rng.integers(1, 256, (30, 8, 8, 3)).astype(np.uint8)
    out = T.Cutout(3)(images)
    hidden = (out == 0).all(axis=3)
    assert (out[~hidden] == images[~hidden]).all()
    assert hidden.sum(axis=(1, 2)).min() >= 4
    assert hidden.sum(axis=(1, 2)).max() == 9
    assert (T.Cutout(40)(images) == 0).all()


# ---- Mixup


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_mixup_weights_follow_the_beta_distribution(alpha):
    weights = np.array([T.Mixup(alpha).weight(3, 0, batch) for batch in range(4000)])
    assert weights.min() >= 0
    assert weights.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 6 * math.sqrt(variance / 4000)
    # Fourth central moment of Beta(a, a): 3 / (16 (2a + 1) (2a + 3)).
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(weights.var() - variance) < 6 * math.sqrt((fourth - variance**2) / 4000)
    if alpha == 1.0:
        assert_uniform(weights, 0, 1)


def test_mixup_blends_images_and_labels_alike(rng):
    images = rng.uniform(0, 1, (6, 3, 4, 2)).astype(np.float32)
    labels = np.arange(6)
    out, target = T.Mixup(1.0)(images, labels, num_classes=6, seed=4, epoch=2, batch=9)
    weight = T.Mixup(1.0).weight(4, 2, 9)
    assert 0.01 < weight < 0.99
    assert np.abs(target.sum(axis=1) - 1).max() < 1e-6
    # Row n of the target says whose images were added, and how much of each.
    expected = np.einsum("nk,khwc->nhwc", target.astype(np.float64), images)
    assert np.abs(out - expected).max() < 1e-6
    assert np.isclose(np.diagonal(target), weight).sum() >= 5
    partners = (target - np.eye(6) * np.diagonal(target)).argmax(axis=1)
    assert len(set(partners)) >= 5
    same, one = T.Mixup(1.0)(images, np.full(6, 2), num_classes=3)
    assert same.shape == images.shape
    np.testing.assert_array_equal(one, np.eye(3)[np.full(6, 2)])


def test_mixup_in_a_loader_has_the_same_bits_for_any_workers_and_when_resumed(rng):
    data = ArrayDataset(rng.integers(0, 256, (23, 6, 6, 3)).astype(np.uint8), rng.integers(0, 4, 23))
    transform = T.Compose([T.RandomCrop(padding=1), T.RandomHorizontalFlip(), T.Mixup(0.4)])

    def batches(**keywords):
        start = keywords.pop("start", 0)
        loader = Loader(data, 5, seed=2, transform=transform, **keywords)
        loader.seek(1, start)
        return [(x.tobytes(), y.tobytes()) for x, y in loader]

    whole = batches(workers=0)
    assert len(whole) == 5
    assert batches(workers=1) == batches(workers=3, prefetch=4) == whole
    assert batches(workers=2, start=3) == whole[3:]
    images, labels = next(iter(Loader(data, 5, transform=transform, normalize=(0.5, 0.25))))
    assert images.dtype == labels.dtype == np.float32
    assert labels.shape == (5, 4)


def test_mixup_comes_last_and_needs_labels(rng):
    images = np.zeros((2, 4, 4, 1), np.uint8)
    with pytest.raises(ArgumentError, match="Mixup is step 0, but it must be the last one"):
        T.Compose([T.Mixup(), T.RandomHorizontalFlip()])
    with pytest.raises(ArgumentError, match=r"cannot run on images alone\n  hint: give it to a Loader"):
        T.Compose([T.RandomHorizontalFlip(), T.Mixup()])(images)
    with pytest.raises(LabelError, match=r"label 3 at position 1 is outside of 0\.\.2"):
        T.Mixup()(images, [0, 3], num_classes=3)
    with pytest.raises(ShapeError, match="2 images but 3 labels"):
        T.Mixup()(images, [0, 1, 2], num_classes=3)
    with pytest.raises(DTypeError, match="labels must be integers"):
        T.Mixup()(images, [0.5, 1], num_classes=3)


# ---- Ten crops


def test_ten_crops_are_corners_middle_and_mirror_images():
    image = np.arange(35, dtype=np.uint8).reshape(1, 5, 7, 1)
    out = T.ten_crop(image, (3, 4))
    assert out.shape == (1, 10, 3, 4, 1)
    plain = [image[0, y : y + 3, x : x + 4] for y, x in [(0, 0), (0, 3), (2, 0), (2, 3), (1, 2)]]
    np.testing.assert_array_equal(out[0, :5], plain)
    np.testing.assert_array_equal(out[0, 5:], [crop[:, ::-1] for crop in plain])
    np.testing.assert_array_equal(T.five_crop(image, (3, 4)), out[:, :5])
    whole = T.ten_crop(image, (5, 7))
    assert (whole[0, :5] == image[0]).all()


def test_ten_crop_refuses_windows_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"ten_crop: windows \(6, 6\) exceed the images \(5, 7\)"):
        T.ten_crop(np.zeros((1, 5, 7, 1), np.uint8), 6)
    with pytest.raises(DTypeError, match="float64"):
        T.ten_crop(np.zeros((1, 5, 7, 1)), 3)


# ---- Policies


@pytest.mark.parametrize("name", [*T.POLICIES, "resized-crop+jitter+lighting+cutout", "mirror+cutout"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 24, 1)])
def test_every_policy_keeps_the_shape_of_its_images(name, shape, rng):
    step = T.policy(name, shape)
    if name == "none" or (name == "lighting" and shape[2] == 1):
        assert step is None
        return
    data = ArrayDataset(rng.integers(0, 256, (6, *shape)).astype(np.uint8), np.arange(6) % 2)
    images, _ = next(iter(Loader(data, 6, transform=step)))
    assert images.shape == (6, *shape)
    assert images.dtype == np.uint8


def test_policies_are_carried_out_in_their_own_order():
    step = T.policy("mixup+cutout+jitter+crop-mirror", (32, 32, 3))
    kinds = [type(s).__name__ for s in step.steps]
    assert kinds == ["RandomCrop", "RandomHorizontalFlip", "ColorJitter", "Cutout", "Mixup"]
    assert step.steps[0] == T.RandomCrop(padding=4)
    assert step.steps[3].size == 16


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: T.policy("sharp", (8, 8, 3)), "augmentation 'sharp' is not known; there is none, light"),
        (lambda: T.policy("", (8, 8, 3)), "augmentation '' is not known"),
        (lambda: T.policy("mirror+mirror", (8, 8, 3)), "'mirror' comes twice"),
        (lambda: T.policy("light+resized-crop", (8, 8, 3)), "'light' and 'resized-crop' exclude each other"),
        (lambda: T.RandomResizedCrop(8, scale=(0, 1)), r"scale must be finite and in \[1e-06, 1\], got 0"),
        (lambda: T.RandomResizedCrop(8, scale=(0.5, 1.5)), "scale must be finite"),
        (lambda: T.RandomResizedCrop(8, scale=0.5), r"scale must be \(low, high\), got 0.5"),
        (lambda: T.RandomResizedCrop(8, ratio=(2, 0.5)), "ratio has low 2.0 above high 0.5"),
        (lambda: T.RandomResizedCrop(0), "size must be in 1..65536"),
        (lambda: T.ColorJitter(brightness=-0.1), r"brightness must be finite and in \[0, 100\], got -0.1"),
        (lambda: T.ColorJitter(contrast=(0.5, 0.2)), "contrast has low 0.5 above high 0.2"),
        (lambda: T.ColorJitter(hue=0.6), r"hue must be finite and in \[0, 0.5\], got 0.6"),
        (lambda: T.ColorJitter(saturation=(1, 2, 3)), r"saturation must be a number or \(low, high\)"),
        (lambda: T.PCALighting(-1), "std must be finite"),
        (lambda: T.PCALighting(0.1, (1.0, 2.0)), "2 eigenvalues need as many rows and columns"),
        (lambda: T.PCALighting(0.1, (1.0,), ((float("nan"),),)), "eigenvectors finite"),
        (lambda: T.PCALighting(0.1, ("a",), ((1.0,),)), "must be numbers"),
        (lambda: T.Cutout(0), "size must be in 1..65536"),
        (lambda: T.Cutout(4, p=2), r"p must be finite and in \[0, 1\], got 2"),
        (lambda: T.Cutout(4, fill=()), "fill must be one number or one per channel"),
        (lambda: T.Cutout(4, fill=(1, "x")), "fill must be a number"),
        (lambda: T.Mixup(0), "alpha must be above 0, got 0"),
        (lambda: T.Mixup(float("inf")), "alpha must be finite"),
    ],
)
def test_bad_arguments_are_refused_when_made(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (T.ColorJitter(0.1), "must have 1 or 3 channels, got 2"),
        (T.PCALighting(), "3 components, the images have 2 channels"),
        (T.Cutout(3, fill=(1, 2, 3)), "fill has 3 values, the images have 2 channels"),
    ],
)
def test_steps_that_do_not_fit_the_channels_say_so(step, text):
    with pytest.raises(ShapeError, match=text):
        step(np.zeros((2, 5, 5, 2), np.uint8))
