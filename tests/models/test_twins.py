"""Every family against the same net in PyTorch: outputs, gradients for input and weights, batch statistics."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import functional
from pycnn.models.densenet import DenseNet
from pycnn.models.vgg import VGG

pytestmark = pytest.mark.interop
torch = pytest.importorskip("torch")
import torch_twins as twins  # noqa: E402
from twin_checks import (  # noqa: E402
    assert_close,
    assert_gradients_close,
    assert_same_statistics,
    share_weights,
    torch_images,
)

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
    twin = share_weights(net, make_twin(), rng)
    count = 4 if name in WITH_STATISTICS else 2
    return net, twin, rng.standard_normal((count, *size, 3)), rng.integers(0, CLASSES, count)


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
    # What batch norm takes out again, a bias before it, has no gradient but the rounding of the others'.
    scale = max(np.abs(p.grad.numpy()).max() for p in twin.parameters()) if training else 0.0
    assert_gradients_close(by_name, twin, scale=scale)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_equal_torch(name):
    compare(name, training=False)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_gradients_with_batch_statistics_equal_torch(name):
    compare(name, training=True)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_training_step_leaves_the_same_running_statistics(name):
    net, twin, images, labels = pair(name)
    assert_same_statistics(net, twin, images, labels, twin)
