"""Residual and inception families against the same net in PyTorch: outputs, gradients, batch statistics, heads."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_paths import run

import pycnn as pc
from pycnn import functional, nn
from pycnn.models.cifar_resnet import CifarResNet
from pycnn.models.googlenet import GoogLeNet
from pycnn.models.googlenet_paper import GoogLeNetPaper
from pycnn.models.inception_v3 import InceptionV3
from pycnn.models.resnet import ResNet

pytestmark = pytest.mark.interop
torch = pytest.importorskip("torch")
import deep_torch_twins as twins  # noqa: E402
from twin_checks import (  # noqa: E402
    assert_close,
    assert_gradients_close,
    assert_same_statistics,
    share_weights,
    torch_images,
)

CLASSES = 5
GROUPED = {"bottleneck": True, "groups": 2, "base_width": 32}
MODULES = {
    "3a": (2, 3, 4, 2, 3, 2),
    "3b": (3, 2, 3, 2, 2, 3),
    "4a": (2, 2, 3, 1, 2, 2),
    "4b": (3, 2, 2, 2, 3, 1),
    "4c": (2, 3, 3, 1, 2, 2),
    "4d": (1, 2, 4, 2, 2, 3),
    "4e": (2, 2, 3, 2, 3, 2),
    "5a": (3, 3, 2, 2, 2, 1),
    "5b": (2, 2, 3, 2, 2, 4),
}
GOOGLE = {"modules": MODULES, "filters": (3, 4, 5), "head": (2, 6)}


def residual(size, counts=(1, 2, 1, 1), **options):
    net = ResNet(counts, who="resnet", num_classes=CLASSES, input_shape=(*size, 3), channels=4, **options)
    stem = "small" if min(size) < 64 else "imagenet"
    return size, net, twins.ResNet(CLASSES, counts, 4, stem=stem, **options)


def cifar(size, **options):
    net = CifarResNet(8, who="cifar", num_classes=CLASSES, input_shape=(*size, 3), channels=4, **options)
    twin = {"pad": options.get("shortcut") != "projection", "pre": options.get("pre_activation", False)}
    return size, net, twins.ResNet(CLASSES, (1, 1, 1), 4, stem="small", **twin)


def google(size, make, paper):
    net = make(CLASSES, input_shape=(*size, 3), dropout=0.0, dropout_aux=0.0, **GOOGLE)
    return size, net, twins.GoogLeNet(CLASSES, *GOOGLE.values(), paper=paper, small=min(size) < 64)


def inception(size, aux):
    net = InceptionV3(CLASSES, input_shape=(*size, 3), dropout=0.0, aux_logits=aux, width=1 / 16)
    return size, net, twins.InceptionV3(CLASSES, 1 / 16, aux)


CASES = {
    "resnet_basic": lambda: residual((65, 71)),
    "resnet_bottleneck": lambda: residual((64, 71), bottleneck=True),
    "resnext": lambda: residual((64, 65), **GROUPED),
    "wide_resnet": lambda: residual((67, 64), bottleneck=True, base_width=128),
    "resnext_small_image": lambda: residual((17, 24), **GROUPED),
    "cifar_resnet": lambda: cifar((21, 16)),
    "cifar_resnet_projection": lambda: cifar((17, 20), shortcut="projection"),
    "cifar_resnet_pre_activated": lambda: cifar((20, 19), pre_activation=True),
    "googlenet": lambda: google((70, 101), GoogLeNet, paper=False),
    "googlenet_small_image": lambda: google((33, 40), GoogLeNet, paper=False),
    "googlenet_paper": lambda: google((97, 70), GoogLeNetPaper, paper=True),
    # Maps of 14x14 in front of the first head, as at full size.
    "googlenet_paper_14": lambda: google((56, 56), GoogLeNetPaper, paper=True),
    "inception_v3": lambda: inception((107, 139), aux=False),
    "inception_v3_head": lambda: inception((299, 299), aux=True),
}
WITH_HEADS = [name for name in CASES if "google" in name or "head" in name]
cases = pytest.mark.parametrize("name", CASES)


def pair(name):
    """Our net and its twin with the same random weights, images and labels, in float64."""
    size, net, twin = CASES[name]()
    rng = np.random.default_rng(len(name))
    net.build((*size, 3))
    twin = share_weights(net, twin, rng)
    return net, twin, rng.standard_normal((4, *size, 3)), rng.integers(0, CLASSES, 4)


@cases
def test_outputs_equal_torch(name):
    net, twin, images, _ = pair(name)
    expected = twin.eval()(torch_images(images)).detach().numpy()
    assert_close(run(net, images), expected, "float64")
    assert_close(net(images.astype(np.float32)), expected, "float32", np.float32)


@cases
@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_torch(name, training):
    """Of the loss with its heads: for the images and every weight; with batch statistics when training."""
    net, twin, images, labels = pair(name)
    twin.train(training)
    inputs, targets = torch_images(images).requires_grad_(), torch.from_numpy(labels)
    entropy = torch.nn.functional.cross_entropy
    if name in WITH_HEADS:
        scores, heads = twin.with_heads(inputs)
        loss = entropy(scores, targets) + 0.3 * sum(entropy(head, targets) for head in heads)
    else:
        loss = entropy(twin(inputs), targets)
    loss.backward()

    def score(x, y):
        with nn.collect_auxiliary() as heads:
            total = functional.cross_entropy(net(x), y)
        for head in heads:
            total = total + head.weight * functional.cross_entropy(head.output, y)
        return total

    value, (found, by_name) = pc.value_and_grad(score, parameters=(), training=training)(images, labels)
    # Each of up to 94 batch norms divides by a spread that a few pixels of a few images estimate: when the images
    # change by a unit in their last place, PyTorch's own gradients of the deepest net here move by up to 5e-12.
    length = 10**9 if training else 10**6
    assert_close(value, loss.item(), "loss", length=length)
    assert_close(found, inputs.grad.permute(0, 2, 3, 1).numpy(), "grad of the images", length=length)
    assert_gradients_close(by_name, twin, length=length)


@pytest.mark.parametrize("name", ["resnext", "cifar_resnet_pre_activated", "googlenet", "inception_v3"])
def test_a_training_step_leaves_the_same_running_statistics(name):
    net, twin, images, labels = pair(name)
    assert_same_statistics(net, twin, images, labels, twin.with_heads if name in WITH_HEADS else twin)
