"""Images with given features."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import inspect, nn
from pycnn.errors import ArgumentError


@pytest.fixture(scope="module")
def digits():
    _, test = pc.data.digits(seed=0)
    return test.images[:3]


@pytest.fixture(scope="module")
def net():
    pc.manual_seed(1)
    return pc.models.lenet5().build((28, 28, 1))


def correlation(images, others):
    return [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, others, strict=True)]


def test_what_a_layer_keeps_comes_back(net, digits):
    found = inspect.invert_features(net, digits, "conv1", steps=100, total_variation=0.1, l2=0.01)
    assert found.images.shape == digits.shape
    assert found.images.dtype == np.float32
    assert 0 <= found.images.min() <= found.images.max() <= 1
    assert max(found.errors) < 0.01
    assert min(correlation(found.images, digits)) > 0.98


def test_late_layers_forget_what_early_ones_keep(net, digits):
    def measure(layer):
        return np.mean(correlation(inspect.invert_features(net, digits, layer, steps=60).images, digits))

    kept = [measure(layer) for layer in ("conv1", "conv2", "fc3")]
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < 0.9


def test_errors_are_those_of_the_features(net, digits):
    found = inspect.invert_features(net, digits, "conv2", steps=10)
    wanted = inspect.activations(net, digits, ["conv2"])["conv2"]
    given = inspect.activations(net, found.images, ["conv2"])["conv2"]
    off = np.square(wanted - given).sum((1, 2, 3)) / np.square(wanted).sum((1, 2, 3))
    assert found.errors == pytest.approx(off, rel=1e-4)
    start = inspect.invert_features(net, digits, "conv2", steps=0)
    assert (found.errors < 0.5 * start.errors).all()


@pytest.mark.parametrize("prior", ["total_variation", "l2"])
def test_priors_do_what_they_are_for(net, digits, prior):
    def measure(weight):
        weights = {"total_variation": 0.0, "l2": 0.0, prior: weight}
        images = inspect.invert_features(net, digits, "conv1", steps=60, **weights).images
        rough = np.square(np.diff(images, axis=1)).mean() + np.square(np.diff(images, axis=2)).mean()
        return rough if prior == "total_variation" else np.square(images - 0.5).mean()

    values = [measure(weight) for weight in (0.0, 1.0, 100.0)]
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.1 * values[0]


def test_minimum_of_the_objective_is_that_of_the_formula():
    """Where the features are the pixels, it has a closed form: a mean of image and grey."""
    net = nn.Sequential(nn.Flatten()).build((3, 5, 1))
    rng = np.random.default_rng(2)
    x = rng.uniform(0.3, 0.7, (2, 3, 5, 1)).astype(np.float32)
    l2, layer = 0.7, inspect.layer_names(net)[-1]
    found = inspect.invert_features(net, x, layer, steps=600, step_size=0.02, total_variation=0.0, l2=l2).images
    for image, given in zip(found, x, strict=True):
        data, grey = 1 / np.square(given).sum(), 12 * l2 / given.size
        expected = (data * given + grey * 0.5) / (data + grey)
        assert image == pytest.approx(expected, abs=1e-3)


def test_result_depends_on_seed_only(net, digits):
    both = inspect.invert_features(net, digits[:2], "conv2", steps=3, seed=5).images
    alone = inspect.invert_features(net, digits[1:2], "conv2", steps=3, seed=5).images
    np.testing.assert_array_equal(both[1:], alone)
    other = inspect.invert_features(net, digits[1:2], "conv2", steps=3, seed=6).images
    assert (other != alone).any()


def test_the_range_of_one_image_is_nothing_to_the_others(net, digits):
    images = digits[:3].astype(np.float32) / 255
    images[0] = 9 * images[0] - 2
    together = inspect.invert_features(net, images, "conv2", steps=3)
    for index in range(3):
        alone = inspect.invert_features(net, images[index : index + 1], "conv2", steps=3)
        np.testing.assert_array_equal(together.images[index], alone.images[0])
    assert 1 < together.images[0].max() <= 7
    assert 0 <= together.images[1:].min() <= together.images[1:].max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(net, digits, value):
    images = np.repeat(digits.astype(np.float32) / 255, 7, axis=0)  # more than one batch
    images[18, 3, 4, 0] = value
    with pytest.raises(ArgumentError, match="invert_features: image 18 holds NaN or infinity"):
        inspect.invert_features(net, images, "conv2", steps=1)


def test_floats_beyond_0_to_1_keep_their_range(net, digits):
    x = digits.astype(np.float32) / 255 * 4 - 2
    found = inspect.invert_features(net, x, "conv1", steps=60)
    assert found.images.min() < -1.5
    assert found.images.max() > 1.5
    assert min(correlation(found.images, x)) > 0.95


def test_images_narrower_than_two_pixels_have_no_neighbours():
    net = nn.Sequential(nn.Conv2d(1, 2, 1)).build((1, 1, 1))
    layer = next(iter(inspect.activations(net, np.ones((1, 1, 1, 1), np.float32), inspect.layer_names(net))))
    found = inspect.invert_features(net, np.full((1, 1, 1, 1), 0.75, np.float32), layer, l2=0.0)
    assert found.images[0, 0, 0, 0] == pytest.approx(0.75, abs=1e-2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer": "conv9"}, "'conv9'\n.*'conv2'"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"step_size": 0}, "step_size must be finite and above 0"),
        ({"total_variation": -1}, "total_variation must be finite and at least 0"),
        ({"l2": float("nan")}, "l2 must be finite"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_arguments_are_checked(net, digits, options, text):
    with pytest.raises(pc.ArgumentError, match=text):
        inspect.invert_features(net, digits, **{"layer": "conv1", **options})


def test_features_that_are_all_0_are_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU()).build((6, 6, 1))
    image = np.ones((2, 6, 6, 1), np.float32)
    image[1] = 0
    with pytest.raises(pc.ArgumentError, match="are 0 for image 1"):
        inspect.invert_features(net, image, inspect.layer_names(net)[0])
