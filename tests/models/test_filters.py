"""The classical filters, on arrays whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn.models.filters import FILTERS, apply_filter


def test_first_example_of_the_lecture_is_four():
    image = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    expected = [[4, 3, 4], [2, 4, 3], [2, 3, 4]]
    assert np.array_equal(apply_filter(image, "cross", padding="valid"), expected)


def test_filters_sum_to_what_keeps_or_removes_brightness():
    for name, kernel in FILTERS.items():
        total = 0.0 if name.startswith("edges") else 5.0 if name == "cross" else 1.0
        assert kernel.sum() == pytest.approx(total, abs=1e-6), name
        assert not kernel.flags.writeable


def test_identity_keeps_every_channel_of_a_photograph():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    assert np.array_equal(apply_filter(image, "identity"), image.astype(np.float32))


def test_channels_are_filtered_by_themselves():
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    whole = apply_filter(image, "edges")
    for channel in range(3):
        assert np.array_equal(whole[..., channel], apply_filter(image[..., channel], "edges"))


def test_box_blur_is_the_mean_of_the_window():
    image = np.random.default_rng(0).random((6, 6))
    result = apply_filter(image, "box_blur", padding="valid")
    assert result[2, 3] == pytest.approx(image[2:5, 3:6].mean(), rel=1e-6)


def test_batches_and_even_kernels():
    images = np.ones((2, 4, 4, 2), np.float32)
    assert apply_filter(images, np.ones((2, 2))).shape == (2, 4, 4, 2)
    assert np.array_equal(apply_filter(images, np.ones((2, 2)))[0, :3, :3, 0], np.full((3, 3), 4))


@pytest.mark.parametrize(
    ("image", "kernel", "options", "error"),
    [
        (np.ones(5), "edges", {}, pc.ShapeError),
        (np.ones((5, 5)), np.ones(3), {}, pc.ShapeError),
        (np.ones((2, 2)), "edges", {"padding": "valid"}, pc.ShapeError),
        (np.ones((5, 5)), "emboss", {}, pc.ArgumentError),
        (np.ones((5, 5)), "edges", {"padding": "full"}, pc.ArgumentError),
    ],
)
def test_bad_input_is_refused(image, kernel, options, error):
    with pytest.raises(error):
        apply_filter(image, kernel, **options)
