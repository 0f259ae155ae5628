"""Tables of the known nets: they add up, and the figures that everybody knows are in them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pycnn as pc

# The larger ones of a family take seconds and have no layer of another kind.
TOO_MANY_LAYERS = ("densenet161", "densenet169", "densenet201", "resnet152", "cifar_resnet110", "cifar_preresnet110")
NAMES = [name for name in pc.models.list() if name not in TOO_MANY_LAYERS]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_adds_up(name):
    net = pc.models.create(name)
    # Inception v3's auxiliary head has a batch norm over one number of each image.
    summary = net.summary(compact=True, batch=2)
    assert summary.parameters == net.num_parameters == sum(row.parameters for row in summary.rows)
    counted = [row for row in summary.rows if not row.training_only]
    for total in ("macs", "other_flops", "activations", "activation_bytes"):
        assert getattr(summary, total) == sum(getattr(row, total) for row in counted), total
    assert summary.other_flops == sum(summary.other_flops_by_group.values())
    assert len({row.layer for row in summary.rows}) == len(summary.rows)
    # A net that reuses memory needs less than one that gives every result a place of its own, and training needs more.
    assert summary.inference.arena_bytes < summary.inference.unshared_bytes
    assert summary.inference.arena_bytes < summary.training.arena_bytes < summary.training.unshared_bytes
    assert summary.training.variable_bytes > 2 * 4 * summary.parameters
    json.dumps(summary.to_dict())
    assert str(summary).count("\n") > len(summary.rows)


# Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks": field and stride of the
# last feature map. Of the residual nets those with the stride in the first 1x1 are listed there, not torchvision's.
FIELDS = {
    "alexnet": ("features.12", 195, 32),
    "vgg16": ("features.30", 212, 32),
    "inception_v3": ("Mixed_7c", 1311, 32),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_are_the_published_ones(name):
    layer, field, stride = FIELDS[name]
    (row,) = [row for row in pc.models.create(name).summary(compact=True).rows if row.layer == layer]
    assert row.receptive_field == (field, field)
    assert row.stride == (stride, stride)


def test_vgg16_shows_where_memory_and_parameters_are():
    """The slide: INPUT, thirteen convolutions, five pools, three dense layers; 15.2 M activations, 138 M parameters."""
    summary = pc.models.create("vgg16").summary(compact=True)
    assert [row.kind.split(",")[0] for row in summary.rows] == (
        ["Conv2d", "Conv2d", "MaxPool2d"] * 2 + ["Conv2d", "Conv2d", "Conv2d", "MaxPool2d"] * 3 + ["Linear"] * 3
    )
    assert summary.input_activations + summary.activations == 15_237_608
    assert summary.rows[3].weights == 73_728
    assert summary.rows[6].weights == 294_912
    assert [s.layer for s in summary.most_activations] == ["features.0", "features.2", "features.5"]
    assert [s.layer for s in summary.most_parameters] == ["classifier.0", "classifier.3", "classifier.6"]


def test_squeeze_layers_are_tight_and_vggs_pools_are_not():
    tight = pc.models.create("squeezenet1_1").summary().bottlenecks
    assert tight
    assert all(b.layer.endswith("squeeze") and b.ratio < 0.2 for b in tight)
    assert pc.models.create("vgg16").summary().bottlenecks == ()


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v2"])
def test_nets_can_be_looked_into(name):
    net = pc.models.create(name, num_classes=5, input_shape=(64, 64, 3))
    x = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    layer = pc.inspect.default_cam_layer(net, (64, 64, 3))
    (values,) = pc.inspect.activations(net, x, [layer]).values()
    assert values.shape[1] > 1
    assert pc.inspect.grad_cam(net, x, classes=3).shape == (1, 64, 64)
    plain, guided = pc.inspect.input_gradients(net, x, 3), pc.inspect.guided_backpropagation(net, x, 3)
    assert np.abs(plain).max() > 0
    assert not np.array_equal(plain, guided)
