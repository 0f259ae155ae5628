"""Saliency, guided back-propagation and Grad-CAM against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import inspect, nn
from pycnn.inspect._resize import enlarge
from pycnn.nn import functional as F
from pycnn.nn.receptive_field import ReceptiveField


class Small(nn.Module):
    """3x3 convolution without padding, ReLU, global mean, linear."""

    def __init__(self, softmax=False):
        self.conv = nn.Conv2d(2, 3, 3)
        self.fc = nn.Linear(3, 4)
        self.softmax = softmax

    def forward(self, x):
        x = self.fc(F.global_avg_pool2d(F.relu(self.conv(x))))
        return F.softmax(x) if self.softmax else x


@pytest.fixture(scope="module")
def net():
    pc.manual_seed(5)
    net = Small()
    net.build((7, 6, 2))
    return net


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).random((3, 7, 6, 2))


def maps_of(net, images):
    """The convolution's result in float64."""
    state = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    weight = state["conv.weight"].transpose(2, 3, 1, 0)
    height, width = images.shape[1] - 2, images.shape[2] - 2
    out = sum(images[:, i : i + height, j : j + width] @ weight[i, j] for i in range(3) for j in range(3))
    return out + state["conv.bias"], state


def test_saliency_is_the_slope_of_the_score(net, images):
    classes = np.array([3, 0, 1])
    found = inspect.input_gradients(net, images, classes, double=True)

    def score(x):
        maps, state = maps_of(net, x)
        scores = np.maximum(maps, 0).mean(axis=(1, 2)) @ state["fc.weight"].T + state["fc.bias"]
        return scores[np.arange(3), classes].sum()

    step = 1e-6
    for place in [(0, 0, 0, 0), (0, 3, 3, 1), (1, 2, 4, 0), (2, 6, 5, 1), (2, 4, 1, 0)]:
        up, down = images.copy(), images.copy()
        up[place] += step
        down[place] -= step
        expected = (score(up) - score(down)) / (2 * step)
        assert found[place] == pytest.approx(expected, rel=tolerances.GRADIENT, abs=1e-9), place
    tolerances.assert_exact(inspect.saliency(net, images, classes, double=True), np.abs(found).max(axis=3))


def test_the_predicted_class_is_explained_by_default(net, images):
    x = images.astype(np.float32)
    predicted = net.predict(x)
    tolerances.assert_bits(inspect.saliency(net, x), inspect.saliency(net, x, predicted))
    one = inspect.input_gradients(net, x, 2)
    tolerances.assert_bits(one, inspect.input_gradients(net, x, np.array([2, 2, 2])))
    # An image is explained by itself.
    tolerances.assert_bits(one[1:2], inspect.input_gradients(net, x[1:2], 2))


def test_uint8_images_are_read_as_0_to_1(net):
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 6, 2)).astype(np.uint8)
    tolerances.assert_bits(
        inspect.input_gradients(net, x, 1), inspect.input_gradients(net, x.astype(np.float32) / np.float32(255), 1)
    )


def test_scores_before_a_closing_softmax_are_meant(net, images):
    with_softmax = Small(softmax=True)
    with_softmax.build((7, 6, 2))
    with_softmax.load_state_dict(net.state_dict())
    x = images.astype(np.float32)
    tolerances.assert_bits(inspect.input_gradients(with_softmax, x, 1), inspect.input_gradients(net, x, 1))


def test_grad_cam_is_its_formula(net, images):
    classes = np.array([0, 2, 3])
    found = inspect.grad_cam(net, images, "activation", classes, upsample=False, double=True)
    maps, state = maps_of(net, images)
    maps = np.maximum(maps, 0)
    positions = maps.shape[1] * maps.shape[2]
    # The gradient of a score for every position of map k is fc.weight[class, k] / positions, and so is its mean.
    alpha = state["fc.weight"][classes] / positions
    expected = np.maximum(np.einsum("nk,nijk->nij", alpha, maps), 0)
    assert expected.max() > 0
    alpha_magnitude = np.abs(alpha).max() * np.abs(maps).max() * 3 * 10
    tolerances.assert_within(found, expected, tolerances.sum_bound(alpha_magnitude, 20 * 18, np.float64))
    single = inspect.grad_cam(net, images.astype(np.float32), "activation", classes, upsample=False)
    tolerances.assert_within(single, expected, tolerances.sum_bound(alpha_magnitude, 20 * 18))


def test_grad_cam_looks_at_the_last_map_before_pooling(net, images):
    assert inspect.default_cam_layer(net, (7, 6, 2)) == "activation"
    tolerances.assert_bits(
        inspect.grad_cam(net, images.astype(np.float32)), inspect.grad_cam(net, images.astype(np.float32), "activation")
    )
    lenet = pc.models.lenet5()
    assert inspect.default_cam_layer(lenet, (28, 28, 1)) == "activation_1"
    with pytest.raises(pc.ShapeError, match="no feature map"):
        inspect.default_cam_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (2, 2, 1))


def test_maps_are_enlarged_to_where_they_look():
    """A 3x3 convolution without padding: cell (i, j) looks at the pixel (i + 1, j + 1)."""
    maps = np.arange(12.0).reshape(1, 3, 4)
    large = enlarge(maps, (5, 6), ReceptiveField((3, 3), (1, 1), (0, 0)))
    tolerances.assert_exact(large[0, 1:4, 1:5], maps[0])
    tolerances.assert_exact(large[0, 0, 1:5], maps[0, 0])
    even = enlarge(np.array([[[0.0, 4.0]]]), (2, 4))
    tolerances.assert_exact(even, np.array([[[0.0, 1.0, 3.0, 4.0]] * 2]))


def test_guided_back_propagation_lets_only_what_speaks_for_it_through():
    pc.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    x = np.random.default_rng(4).random((1, 2, 3, 2)) - 0.3
    net.build((2, 3, 2))
    state = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    first = x.transpose(0, 3, 1, 2).reshape(1, -1) @ state["1.weight"].T + state["1.bias"]
    second = np.maximum(first, 0) @ state["3.weight"].T + state["3.bias"]
    back = np.zeros((1, 3))
    back[0, 1] = 1
    back = back @ state["5.weight"]
    back = np.where(second > 0, np.maximum(back, 0), 0) @ state["3.weight"]
    back = np.where(first > 0, np.maximum(back, 0), 0) @ state["1.weight"]
    expected = back.reshape(1, 2, 2, 3).transpose(0, 2, 3, 1)
    found = inspect.guided_backpropagation(net, x, 1, double=True)
    assert np.abs(expected).max() > 0
    tolerances.assert_within(found, expected, tolerances.sum_bound(np.abs(expected).max() * 10, 12, np.float64))
    assert not np.allclose(found, inspect.input_gradients(net, x, 1, double=True))


def test_wrong_classes_and_layers_are_refused(net, images):
    x = images.astype(np.float32)
    with pytest.raises(pc.LabelError, match="class 4.*0 to 3"):
        inspect.saliency(net, x, 4)
    with pytest.raises(pc.ShapeError, match="3 images"):
        inspect.saliency(net, x, [0, 1])
    with pytest.raises(pc.ShapeError, match="'fc' gives"):
        inspect.grad_cam(net, x, "fc")
    with pytest.raises(pc.ShapeError, match="class scores"):
        inspect.saliency(nn.Sequential(nn.Conv2d(2, 2, 3)), x)
