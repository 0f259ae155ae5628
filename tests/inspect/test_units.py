"""Occlusion, preferred inputs, patches, filters, predictions."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import inspect, nn
from pycnn.data import ArrayDataset


@pytest.fixture(scope="module")
def net():
    pc.manual_seed(7)
    layers = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(3, 3))
    net.build((12, 10, 1))
    return net


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (23, 12, 10, 1)).astype(np.uint8)
    return ArrayDataset(images, rng.integers(0, 3, 23), class_names=("a", "b", "c"))


# ---- Occlusion


def test_occlusion_is_the_mean_fall_over_the_squares_on_a_pixel(net):
    image = np.random.default_rng(0).random((1, 12, 10, 1), np.float32)
    found = inspect.occlusion(net, image, 2, size=5, stride=3, fill=0.25, batch_size=4)
    before = net.predict_proba(image)[0, 2]
    falls, covered = np.zeros((12, 10)), np.zeros((12, 10))
    for top in (0, 3, 6, 7):
        for left in (0, 3, 5):
            part = image.copy()
            part[0, top : top + 5, left : left + 5] = 0.25
            falls[top : top + 5, left : left + 5] += before - net.predict_proba(part)[0, 2]
            covered[top : top + 5, left : left + 5] += 1
    tolerances.assert_within(found[0], falls / covered, tolerances.sum_bound(1.0, 16))
    assert found.shape == (1, 12, 10)
    assert np.abs(found).max() > 1e-5


def test_occlusion_of_a_blank_image_changes_nothing(net):
    blank = np.full((2, 12, 10, 1), 0.5, np.float32)
    tolerances.assert_within(inspect.occlusion(net, blank), np.zeros((2, 12, 10)), tolerances.sum_bound(1.0, 16))


def test_squares_that_do_not_fit_are_refused(net):
    image = np.zeros((1, 12, 10, 1), np.float32)
    with pytest.raises(pc.ArgumentError, match="11 does not fit.*12 x 10"):
        inspect.occlusion(net, image, size=11)
    with pytest.raises(pc.ArgumentError, match="stride"):
        inspect.occlusion(net, image, stride=0)


# ---- Preferred inputs


def test_gradient_ascent_raises_what_it_is_asked_to(net):
    start = inspect.maximize(net, [0, 1, 2], steps=0)
    made = inspect.maximize(net, [0, 1, 2], steps=30)
    assert made.shape == (3, 12, 10, 1)
    assert made.dtype == np.float32
    assert made.min() >= 0 <= made.max() <= 1
    rise = net(made)[np.arange(3), np.arange(3)] - net(start)[np.arange(3), np.arange(3)]
    assert (rise > 0).all()
    channel = inspect.maximize(net, [1], "2", steps=30)
    maps = [inspect.activations(net, x, ["2"])["2"][..., 1].mean() for x in (start[:1], channel)]
    assert maps[1] > maps[0]


def test_the_seed_alone_decides(net):
    one, again, other = (inspect.maximize(net, [1], steps=5, seed=seed) for seed in (4, 4, 5))
    tolerances.assert_bits(one, again)
    assert not np.array_equal(one, other)


def test_a_unit_that_is_not_there_is_refused(net):
    with pytest.raises(pc.ArgumentError, match="0 to 2"):
        inspect.maximize(net, [3])
    with pytest.raises(pc.ArgumentError, match="0 to 3"):
        inspect.maximize(net, [-1], "0")
    with pytest.raises(pc.ArgumentError, match="no layer"):
        inspect.maximize(net, [0], "9")
    with pytest.raises(pc.ArgumentError, match="steps"):
        inspect.maximize(net, [0], steps=-1)
    with pytest.raises(pc.ArgumentError, match="step_size"):
        inspect.maximize(net, [0], step_size=0)


# ---- Patches


def test_patches_are_what_the_strongest_units_see(net, data):
    found = inspect.top_patches(net, data, "2", [2, 0], count=5, batch_size=10)
    maps = inspect.activations(net, data.images[:], ["2"])["2"]
    field = inspect.receptive_field(net, "2")
    assert found.patches.shape == (2, 5, *field.size, 1) == (2, 5, 7, 7, 1)
    for row, channel in enumerate((2, 0)):
        strongest = maps[..., channel].max(axis=(1, 2))
        order = np.argsort(-strongest, kind="stable")[:5]
        assert found.images[row].tolist() == order.tolist()
        tolerances.assert_bits(found.values[row], strongest[order])
        for position, image in enumerate(order):
            unit = tuple(int(i) for i in found.units[row, position])
            assert maps[(image, *unit, channel)] == strongest[image]
            top, left, bottom, right = field.box(unit)
            if top >= 0 and left >= 0 and bottom <= 12 and right <= 10:
                expected = data.images[int(image)][top:bottom, left:right]
                tolerances.assert_bits(found.patches[row, position], expected)


def test_more_patches_than_images_are_refused(net, data):
    with pytest.raises(pc.ArgumentError, match="23 images"):
        inspect.top_patches(net, data, "2", [0], count=24)


# ---- Filters


def test_filters_are_the_weights_as_images_lie(net):
    weight = net.state_dict()["2.weight"]
    found = inspect.filters(net, "2")
    tolerances.assert_bits(found, np.ascontiguousarray(weight.transpose(0, 2, 3, 1)))
    assert inspect.filters(net).shape == (4, 3, 3, 1)
    with pytest.raises(pc.ArgumentError, match="'0'"):
        inspect.filters(net, "0.weight")
    with pytest.raises(pc.ArgumentError, match="no convolution"):
        inspect.filters(nn.Sequential(nn.Linear(2, 2)))


def test_filter_pictures_have_zero_in_middle_grey():
    weights = np.zeros((2, 1, 2, 3), np.float32)
    weights[1, 0, 1] = [-2, 1, 0]
    colour = inspect.filter_pictures(weights)
    assert colour.shape == (2, 1, 2, 3)
    np.testing.assert_allclose(colour[1, 0], [[0.5, 0.5, 0.5], [0.0, 0.75, 0.5]])
    grey = inspect.filter_pictures(weights.transpose(0, 1, 3, 2))
    assert grey.shape == (4, 1, 3, 1)
    np.testing.assert_allclose(grey[3, 0, :, 0], [0.0, 0.75, 0.5])
    assert inspect.filter_pictures(np.zeros((9, 3, 3, 2)), limit=7).shape == (7, 3, 3, 1)


# ---- Predictions


class Fixed(nn.Module):
    """Reads the scores from the pixels."""

    def __init__(self):
        self.flatten = nn.Flatten()

    def forward(self, x):
        return self.flatten(x)


def test_confusion_matrix_and_mistakes_by_hand():
    scores = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.05, 0.05, 0.9], [0.4, 0.3, 0.3]]))
    images = scores.astype(np.float32).reshape(5, 1, 1, 3)
    data = ArrayDataset(images, np.array([0, 0, 1, 1, 2]), class_names=("x", "y", "z"))
    found = inspect.predictions(Fixed(), data, batch_size=2)
    assert found.confusion_matrix().tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert found.accuracy == 0.4
    wrong = found.mistakes(2)
    assert (wrong.images.tolist(), wrong.labels.tolist(), wrong.predicted.tolist()) == ([3, 1], [1, 0], [2, 1])
    np.testing.assert_allclose(wrong.probability, [0.9, 0.8], rtol=1e-5)
    assert len(found.mistakes(99).images) == 3
    with pytest.raises(pc.ArgumentError, match="count"):
        found.mistakes(0)


def test_labels_beyond_the_classes_are_refused():
    images = np.zeros((2, 1, 1, 3), np.float32)
    data = ArrayDataset(images, np.array([0, 3]), class_names=tuple("wxyz"))
    with pytest.raises(pc.LabelError, match="label 3.*0 to 2"):
        inspect.predictions(Fixed(), data)


# ---- Filter chains


def test_three_small_filters_see_as_much_as_a_large_one_and_cost_less():
    seven, three, thin = inspect.compare_filters(["7x7", "3x3, 3x3,3x3", "1x7,7x1"], channels=16, size=(10, 12)).chains
    assert (seven.weights, three.weights, thin.weights) == (49 * 256, 27 * 256, 14 * 256)
    assert (seven.parameters, three.parameters) == (49 * 256 + 16, 27 * 256 + 48)
    assert (seven.macs, three.macs) == (120 * 49 * 256, 120 * 27 * 256)
    assert (seven.activations, three.activations) == (120 * 16, 3 * 120 * 16)
    assert seven.receptive_field == three.receptive_field == thin.receptive_field == (7, 7)
    assert (three.layers, three.filters) == (3, "3x3,3x3,3x3")


def test_the_table_of_chains_names_the_cheapest_of_equals():
    table = inspect.compare_filters(["5x5", "3x3,3x3", "3"], channels=8, size=9)
    assert "x 0.72" in str(table)
    assert "3x3,3x3 needs the fewest" in str(table)
    assert table.to_dict()["chains"][2]["receptive_field"] == (3, 3)


@pytest.mark.parametrize(
    ("chains", "options", "text"),
    [
        (["7y7"], {}, "7y7"),
        (["4x4"], {}, "odd sides"),
        (["3x3,"], {}, "no window"),
        ("7x7", {}, "list"),
        (["3x3"], {"channels": 0}, "channels"),
        (["3x3"], {"size": (5, 0)}, "size"),
    ],
)
def test_chains_that_cannot_be_read_are_refused(chains, options, text):
    with pytest.raises(pc.ArgumentError, match=text):
        inspect.compare_filters(chains, **options)
