"""The nets that torchvision has too: names and shapes of weights, and the same outputs from the same file."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torchvision_names

import pycnn as pc
from pycnn import checkpoint

SHARED = [name for name in torchvision_names.GOLDEN if name in pc.models.list()]
# One net of each family; the others differ in counts only, which the names tell.
RUN = ("alexnet", "vgg11_bn", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "densenet121")
RUN += ("googlenet", "inception_v3", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2")


def disk_shapes(net):
    return {name: tensor.disk_shape for name, tensor in net.named_tensors()}


@pytest.mark.parametrize("name", SHARED)
def test_names_and_shapes_of_weights_are_torchvisions(name):
    golden = torchvision_names.GOLDEN[name]
    net = pc.models.create(name)
    shapes = disk_shapes(net)
    assert len(shapes) == golden.tensors
    assert net.num_parameters == golden.parameters
    assert torchvision_names.digest(shapes) == golden.digest


def test_every_net_of_torchvision_that_is_promised_is_compared():
    promised = {"alexnet", "vgg11", "vgg19_bn", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "densenet121"}
    assert promised <= set(SHARED)


def test_a_digest_tells_a_changed_name_or_shape():
    shapes = disk_shapes(pc.models.create("alexnet"))
    renamed = {name.replace("features.0.", "features.conv1."): shape for name, shape in shapes.items()}
    other = shapes | {"features.0.weight": (64, 11, 11, 3)}
    tracked = shapes | {"features.1.num_batches_tracked": ()}
    digests = {torchvision_names.digest(s) for s in (shapes, renamed, other, tracked)}
    assert len(digests) == 3


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("side", [224, 193])
def test_a_file_of_torchvisions_weights_gives_torchvisions_scores(name, side, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    # Theirs warns where nobody says how these two start.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    theirs = getattr(torchvision.models, name)(weights=None, **options).eval()
    checkpoint.write_tensors(tmp_path / "weights.safetensors", {k: v.numpy() for k, v in theirs.state_dict().items()})
    net = pc.models.create(name)
    net.load_state_dict(checkpoint.read_tensors(tmp_path / "weights.safetensors")[0])
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    bound = tolerances.sum_bound(np.abs(expected).max(), 10**6)
    tolerances.assert_within(net(images), expected, bound)
