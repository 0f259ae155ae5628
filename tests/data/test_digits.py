"""The embedded data set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pycnn.data
from pycnn.data import digits
from pycnn.errors import ArgumentError


def test_digits_are_divided_and_sized_as_documented():
    train, test = digits()
    assert train.images.shape == (1347, 28, 28, 1)
    assert test.images.shape == (450, 28, 28, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert train.class_names == tuple("0123456789")
    for part in (train, test):
        shares = np.bincount(part.labels) / len(part)
        assert abs(shares - 0.1).max() < 0.005


def test_digits_use_the_whole_range_of_grey():
    train, _ = digits()
    assert train.images.min() == 0
    assert train.images.max() == 255


def test_digits_split_follows_the_seed():
    first, again, other = digits(0), digits(0), digits(1)
    np.testing.assert_array_equal(first[1].images, again[1].images)
    assert (first[1].images != other[1].images).any()


def test_digits_share_no_image_between_train_and_test_indices():
    train, test = digits(size=8)
    whole = np.concatenate([train.images, test.images]).reshape(1797, -1)
    expected = np.load(Path(pycnn.data.__file__).parent / "digits.npz")["images"]
    levels = np.floor(expected.reshape(1797, -1) * np.float32(255 / 16) + 0.5).astype(np.uint8)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, levels))


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 8, 1)), (32, (32, 32, 1)), ((9, 30), (9, 30, 1))])
def test_digits_are_resized(size, shape):
    assert digits(size=size)[0].image_shape == shape


def test_digits_keep_their_brightness_when_resized():
    small, large = digits(size=8)[0].images, digits(size=28)[0].images
    means = small.mean(axis=(1, 2, 3)), large.mean(axis=(1, 2, 3))
    assert np.abs(means[0] - means[1]).max() < 4


def test_digits_equal_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn as the oracle")
    source = datasets.load_digits()
    with np.load(Path(pycnn.data.__file__).parent / "digits.npz") as stored:
        np.testing.assert_array_equal(stored["images"], source.images)
        np.testing.assert_array_equal(stored["labels"], source.target)


def test_digits_file_is_small_and_attributed():
    folder = Path(pycnn.data.__file__).parent
    assert (folder / "digits.npz").stat().st_size <= 80_000
    text = (folder / "DIGITS_LICENSE").read_text()
    for word in ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49", "Changes"):
        assert word in text


def test_digits_need_neither_pillow_nor_scikit_learn():
    code = (
        "import sys; sys.modules.update(PIL=None, sklearn=None, scipy=None)\n"
        "from pycnn.data import digits\n"
        "print(len(digits()[0]))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1347"


@pytest.mark.parametrize(
    "keywords",
    [{"seed": -1}, {"size": 0}, {"size": 2.5}, {"test_fraction": 0}, {"test_fraction": 1}],
)
def test_digits_refuse_bad_arguments(keywords):
    with pytest.raises(ArgumentError, match=next(iter(keywords))):
        digits(**keywords)
