"""The whitening of patches: what its outputs are, what it refuses, and that recipes keep it."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import train
from pycnn.data import ArrayDataset


def correlated(count=60, side=9, channels=2, dtype=np.uint8):
    """Images whose neighbouring pixels and channels are alike."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, side + 2, side + 2, channels))
    smooth = sum(noise[:, i : i + side, j : j + side] for i in range(3) for j in range(3))
    images = 128 + 15 * (smooth + 0.5 * smooth[..., ::-1])
    return ArrayDataset(np.clip(images, 0, 255).astype(dtype), np.zeros(count, np.int32))


def outputs(conv, images, mean, std):
    """What the convolution gives for all patches, in float64."""
    x = (images.read(np.arange(len(images))).astype(np.float64) / 255 - mean) / std
    weight = conv.weight.numpy().astype(np.float64).transpose(0, 2, 3, 1)  # (OC, KH, KW, C)
    _, height, width, _ = weight.shape
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = np.stack([x[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)], axis=3)
    return np.einsum("nhwpc,opc->nhwo", patches, weight.reshape(len(weight), height * width, -1)).reshape(
        -1, len(weight)
    )


@pytest.mark.parametrize("window", [(2, 2), (3, 1)])
def test_outputs_are_uncorrelated_and_of_one_size(window):
    images = correlated()
    conv = pc.nn.Conv2d(2, 2 * window[0] * window[1] * 2, kernel_size=window)
    mean, std = (0.4, 0.55), (0.2, 0.3)
    train.whiten(conv, images, mean=mean, std=std, eps=1e-12)
    found = outputs(conv, images, np.array(mean), np.array(std))
    half = found.shape[1] // 2
    np.testing.assert_allclose(found[:, :half].T @ found[:, :half] / len(found), np.eye(half), atol=1e-4)
    np.testing.assert_array_equal(conv.weight.numpy()[half:], -conv.weight.numpy()[:half])
    np.testing.assert_array_equal(conv.bias.numpy(), np.zeros(2 * half))
    # The net's own convolution agrees.
    net = pc.nn.Sequential(pc.nn.Normalize(mean, std), conv)
    first = net(images.read(np.arange(4))).reshape(-1, 2 * half)
    np.testing.assert_allclose(first, found[: len(first)], atol=1e-4)


def test_fewer_filters_keep_the_largest_directions():
    images = correlated()
    whole, few = pc.nn.Conv2d(2, 16, kernel_size=2), pc.nn.Conv2d(2, 6, kernel_size=2, bias=False)
    for conv in (whole, few):
        train.whiten(conv, images)
    np.testing.assert_array_equal(few.weight.numpy()[:3], whole.weight.numpy()[:3])
    sizes = np.sqrt((whole.weight.numpy()[:8].astype(np.float64) ** 2).sum((1, 2, 3)))
    assert (np.diff(sizes) > 0).all()  # small deviations are enlarged most


def test_images_of_float_are_taken_as_they_are():
    bytes_, floats = correlated(), correlated(dtype=np.float32)
    scaled = ArrayDataset(floats.read(np.arange(60)).astype(np.uint8).astype(np.float32) / 255, np.zeros(60, np.int32))
    first, second = pc.nn.Conv2d(2, 8, kernel_size=2), pc.nn.Conv2d(2, 8, kernel_size=2)
    train.whiten(first, bytes_)
    train.whiten(second, scaled)
    np.testing.assert_allclose(first.weight.numpy(), second.weight.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("conv", "options", "message"),
    [
        (lambda: pc.nn.Conv2d(2, 7, kernel_size=2), {}, "7 filters, expected an even number of at most 16"),
        (lambda: pc.nn.Conv2d(2, 18, kernel_size=2), {}, "18 filters, expected an even number of at most 16"),
        (lambda: pc.nn.Conv2d(3, 8, kernel_size=2), {}, "60 images of 9x9x2, expected some of 3 channels"),
        (lambda: pc.nn.Conv2d(2, 8, kernel_size=11), {}, "at least 11x11 pixels"),
        (lambda: pc.nn.Conv2d(2, 8, kernel_size=2, groups=2), {}, "one group"),
        (lambda: pc.nn.Linear(2, 8), {}, "conv must be a Conv2d"),
        (lambda: pc.nn.Conv2d(2, 8, kernel_size=2), {"mean": (1, 2, 3)}, "mean is .1, 2, 3., expected one number or 2"),
        (lambda: pc.nn.Conv2d(2, 8, kernel_size=2), {"std": (0.0,)}, "std is"),
        (lambda: pc.nn.Conv2d(2, 8, kernel_size=2), {"eps": 0.0}, "eps"),
    ],
)
def test_what_cannot_be_whitened_is_refused(conv, options, message):
    with pytest.raises(pc.ArgumentError, match=message):
        train.whiten(conv(), correlated(), **options)


def test_a_recipe_whitens_a_fresh_net_and_training_leaves_it():
    rng = np.random.default_rng(0)
    data = ArrayDataset(rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 64).astype(np.int32))
    way = train.recipe("cifar10-speed", epochs=1, batch_size=32, option={"widths": [8, 8, 8]})
    net = way.make_net()
    trainer = way.make_trainer(net, data)
    expected = pc.nn.Conv2d(3, 24, kernel_size=2)
    train.whiten(expected, data, mean=way.mean, std=way.std)
    np.testing.assert_array_equal(net.conv1.weight.numpy(), expected.weight.numpy())
    before = net.state_dict()
    trainer.fit(data, progress=False, **way.fit_options(data))
    after = trainer.net.state_dict()
    for name in before:
        moved = not np.array_equal(before[name], after[[key for key in after if key.endswith(name)][0]])
        fixed = name in ("conv1.weight",) or name.endswith(("norm1.weight", "norm2.weight"))
        assert moved != fixed or name.endswith("num_batches_tracked"), name
    with pytest.raises(pc.ArgumentError, match="'whiten' is true, and there are no images"):
        way.make_trainer(way.make_net(), 64)
    other = way.make_net()
    drawn = other.conv1.weight.numpy().copy()
    way.make_trainer(other, data, normalize=False)  # a net of a file has its own
    np.testing.assert_array_equal(other.conv1.weight.numpy(), drawn)
