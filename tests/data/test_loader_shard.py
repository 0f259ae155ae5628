"""The parts of batches that several ranks get: together, what one would see."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_bits

from pycnn.data import ArrayDataset, Loader
from pycnn.data.transforms import Compose, Mixup, RandomCrop
from pycnn.errors import ArgumentError


def dataset(count=23):
    rng = np.random.default_rng(1)
    return ArrayDataset(rng.integers(0, 256, (count, 9, 8, 2), np.uint8), rng.integers(0, 4, count))


TRANSFORMS = {
    "none": None,
    "crop": RandomCrop(6, padding=2),
    "mixup": Mixup(1.0),
    "both": Compose([RandomCrop(6, padding=2), Mixup(0.4)]),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_parts_of_a_batch_are_the_batch(transform, size, workers):
    data = dataset()
    options = {"batch_size": 6, "seed": 4, "transform": transform, "workers": workers}
    whole, *parts = (Loader(data, **options, shard=shard) for shard in [(0, 1), *((r, size) for r in range(size))])
    for epoch in range(2):
        for loader in (whole, *parts):
            loader.seek(epoch, 1)
        for number, (batch, *shares) in enumerate(zip(whole, *parts, strict=True), 1):
            images = np.concatenate([share.images for share in shares])
            assert_bits(images, batch.images, f"batch {number}")
            assert_bits(np.concatenate([share.labels for share in shares]), batch.labels)
            counts = [loader.samples(number) for loader in parts]
            assert counts == [(len(share.images), len(batch.images)) for share in shares]
            assert all(share.images.flags.c_contiguous for share in shares)


@pytest.mark.parametrize("transform", [None, Mixup(1.0)], ids=["none", "mixup"])
def test_who_would_have_no_sample_gets_the_first(transform):
    data = dataset(8)
    whole = list(Loader(data, 6, seed=1, transform=transform))[1]
    loaders = [Loader(data, 6, seed=1, transform=transform, shard=(rank, 3)) for rank in range(3)]
    last = [list(loader)[1] for loader in loaders]
    assert [loader.samples(1) for loader in loaders] == [(0, 2), (1, 2), (1, 2)]
    for part, position in zip(last, (0, 0, 1), strict=True):
        assert_bits(part.images, whole.images[position : position + 1])
        assert_bits(part.labels, whole.labels[position : position + 1])


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), (0,), 1])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(ArgumentError, match="Loader: shard"):
        Loader(dataset(), 4, shard=shard)
