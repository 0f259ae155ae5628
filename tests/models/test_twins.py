"""Every family against the same net in PyTorch: outputs, gradients for input and weights, batch statistics."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import functional
from pycnn.models.densenet import DenseNet
from pycnn.models.vgg import VGG

pytestmark = pytest.mark.interop
torch = pytest.importorskip("torch")
import torch_twins as twins  # noqa: E402

CLASSES = 5
# Narrow, but with a first and a last layer as in configuration C.
STAGES = (((4, 3),), ((5, 3), (6, 3)), ((7, 3), (8, 1)), ((6, 3), (9, 3)), ((5, 3),))
MOBILE = (8, 8, 8, 8, 16, 24, 40, 80, 1280)  # a quarter of each width, to multiples of 8


def vgg(size, **options):
    return lambda: VGG("vgg", STAGES, (*size, 3), CLASSES, dropout=0.0, hidden=9, **options).build((*size, 3))


def dense(size):
    options = {"growth": 3, "counts": (2, 3, 1), "filters": 6, "dropout": 0.0}
    return lambda: DenseNet((*size, 3), CLASSES, **options).build((*size, 3))


def ours(name, size, **options):
    return lambda: pc.models.create(name, num_classes=CLASSES, input_shape=(*size, 3), dropout=0.0, **options)


CASES = {
    "alexnet": ((71, 67), ours("alexnet", (71, 67), hidden=9), lambda: twins.alexnet(CLASSES, 9)),
    "alexnet_2012": (
        (75, 67),
        ours("alexnet_2012", (75, 67), hidden=9),
        lambda: twins.AlexNet2012(CLASSES, 9, 256, groups=2),
    ),
    "alexnet_simplified": (
        (67, 67),
        ours("alexnet_simplified", (67, 67), hidden=9),
        lambda: twins.AlexNet2012(CLASSES, 9, 256, pool_first=True),
    ),
    "zfnet": (
        (64, 71),
        ours("zfnet", (64, 71), hidden=9),
        lambda: twins.AlexNet2012(CLASSES, 9, 256, pool_first=True, zf=True),
    ),
    "vgg": ((70, 99), vgg((70, 99)), lambda: twins.vgg(CLASSES, 9, STAGES)),
    "vgg_lrn": ((64, 64), vgg((64, 64), lrn=True), lambda: twins.vgg(CLASSES, 9, STAGES, lrn=True)),
    "vgg_bn": ((64, 97), vgg((64, 97), batch_norm=True), lambda: twins.vgg(CLASSES, 9, STAGES, batch_norm=True)),
    "vgg_small_image": ((33, 40), vgg((33, 40)), lambda: twins.vgg(CLASSES, 9, STAGES, small=True)),
    "squeezenet1_0": (
        (64, 67),
        ours("squeezenet1_0", (64, 67)),
        lambda: twins.SqueezeNet(CLASSES, first=torch.nn.Conv2d(3, 96, 7, 2), pools=(0, 3, 7)),
    ),
    "squeezenet1_1": (
        (65, 64),
        ours("squeezenet1_1", (65, 64)),
        lambda: twins.SqueezeNet(CLASSES, first=torch.nn.Conv2d(3, 64, 3, 2), pools=(0, 2, 4)),
    ),
    "mobilenet_v2": (
        (64, 69),
        ours("mobilenet_v2", (64, 69), width_mult=0.25),
        lambda: twins.mobilenet(CLASSES, MOBILE),
    ),
    "mobilenet_v2_small_image": (
        (17, 24),
        ours("mobilenet_v2", (17, 24), width_mult=0.25),
        lambda: twins.mobilenet(CLASSES, MOBILE, strides=(1, 1, 1, 2, 2, 1, 2, 1)),
    ),
    "densenet": ((64, 67), dense((64, 67)), lambda: twins.densenet(CLASSES, growth=3, counts=(2, 3, 1), filters=6)),
}
WITH_STATISTICS = ("vgg_bn", "mobilenet_v2", "densenet")


def pair(name):
    """Our net and its twin with the same random weights, images and labels, in float64."""
    size, make, make_twin = CASES[name]
    rng = np.random.default_rng(len(name))
    net = make()
    state = {}
    for key, value in net.state_dict().items():
        drawn = rng.standard_normal(value.shape) * np.sqrt(2 / max(np.prod(value.shape[1:]), 1))
        if value.ndim == 1:
            drawn = rng.uniform(0.5, 1.5, value.shape) if key.endswith(("var", "weight")) else 0.1 * drawn
        state[key] = drawn.astype(np.float32)
    net.load_state_dict(state)
    twin = make_twin().double()
    missing = twin.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    count = 4 if name in WITH_STATISTICS else 2
    return net, twin, rng.standard_normal((count, *size, 3)), rng.integers(0, CLASSES, count)


def torch_images(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def assert_close(found, expected, what, dtype=np.float64, scale=0.0):
    """Up to the rounding of a million additions, at the scale of the largest element."""
    expected = np.asarray(expected)
    largest = max(np.abs(expected).max(initial=0.0), scale)
    tolerances.assert_within(found, expected, tolerances.sum_bound(largest, 10**6, dtype), what)


def compare(name, training):
    net, twin, images, labels = pair(name)
    twin.train(training)
    inputs = torch_images(images).requires_grad_()
    scores = twin(inputs)
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
    loss.backward()
    if not training:  # the fast kernels, fused
        assert_close(net(images.astype(np.float32)), scores.detach().numpy(), "scores", np.float32)

    def score(x, y):
        return functional.cross_entropy(net(x), y)

    value, (found, by_name) = pc.value_and_grad(score, parameters=(), training=training)(images, labels)
    assert_close(value, loss.item(), "loss")
    assert_close(found, inputs.grad.permute(0, 2, 3, 1).numpy(), "gradient of the images")
    expected = {key: parameter.grad.numpy() for key, parameter in twin.named_parameters()}
    assert set(by_name) == set(expected)
    # What batch norm takes out again, a bias before it, has no gradient but the rounding of the others'.
    scale = max(np.abs(want).max() for want in expected.values()) if training else 0.0
    for key, gradient in by_name.items():
        want = expected[key]
        assert_close(gradient.transpose(0, 3, 1, 2) if want.ndim == 4 else gradient, want, key, scale=scale)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_equal_torch(name):
    compare(name, training=False)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_gradients_with_batch_statistics_equal_torch(name):
    compare(name, training=True)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_training_step_leaves_the_same_running_statistics(name):
    net, twin, images, labels = pair(name)
    pc.Trainer(net, optimizer=pc.optim.SGD(lr=1e-3)).step(images.astype(np.float32), labels)
    twin.train()(torch_images(images))
    state = net.state_dict()
    for key, expected in twin.named_buffers():
        if not key.endswith("num_batches_tracked"):
            assert_close(state[key], expected.numpy(), key, np.float32)
