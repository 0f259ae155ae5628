"""Windows of images: which pixels go where, whatever the place."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_paths import build, paths, run

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError

FAR = 2**62


def pictures(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(dtype)


def some_places(rng, count, images, spread):
    places = rng.integers(-spread, spread + 1, (count, 8))
    places[:, 0] = rng.integers(0, images, count)
    places[:, 3] = rng.integers(0, 2, count)
    return places


@pytest.mark.parametrize("path", paths("take_windows"))
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((3, 5, 7, 3), (5, 7)),
        ((2, 4, 6, 1), (7, 3)),
        ((1, 1, 1, 2), (1, 1)),
        ((4, 8, 8, 3), (6, 9)),
        ((2, 3, 9, 5), (2, 4)),
    ],
)
def test_windows_are_those_of_a_loop_over_pixels(shape, size, dtype, path):
    images = pictures(shape, dtype)
    places = some_places(np.random.default_rng(1), 23, shape[0], 6)
    box_fill = tuple(range(10, 10 + shape[3]))
    expected = reference.take_windows(images, places, size=size, fill=7, box_fill=box_fill)
    found = run(
        lambda x, p: functional.take_windows(x, p, size=size, fill=7, box_fill=box_fill), images, places, path=path
    )
    tolerances.assert_bits(found, expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_place_is_cut_without_reading_beside_the_images(data):
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(4))
    size = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    number = st.one_of(st.integers(-9, 9), st.sampled_from([-FAR, FAR, -(2**63), 2**63 - 1]))
    places = np.array([[data.draw(number) for _ in range(8)] for _ in range(data.draw(st.integers(0, 4)))], np.int64)
    places = places.reshape(-1, 8)
    images = pictures(shape, "uint8")
    found = functional.take_windows(images, places, size=size, fill=200, box_fill=3)
    tolerances.assert_bits(found, reference.take_windows(images, places, size=size, fill=200, box_fill=3))


def test_threads_change_no_bit():
    images, places = pictures((9, 32, 32, 3), "uint8"), some_places(np.random.default_rng(2), 300, 9, 8)

    def found(threads):
        cut = lambda x, p: functional.take_windows(x, p, size=(32, 32))  # noqa: E731
        return build(cut, images, places, threads=threads)(images, places)

    expected = found(1)
    tolerances.assert_bits(expected, reference.take_windows(images, places, size=(32, 32), fill=0, box_fill=0))
    for threads in (2, 3, 7):
        tolerances.assert_bits(found(threads), expected)


@pytest.mark.parametrize(
    ("images", "places", "options", "error", "match"),
    [
        ((2, 4, 4), (1, 8), {}, ShapeError, "images .* has 3 axes, expected 4"),
        ((2, 4, 4, 3), (1, 7), {}, ShapeError, "has 7 columns, expected 8"),
        ((2, 4, 4, 3), (8,), {}, ShapeError, "places .* has 1 axis, expected 2"),
        ((2, 4, 4, 3), (1, 8), {"size": (0, 4)}, ArgumentError, "size"),
        ((2, 4, 4, 3), (1, 8), {"fill": 256}, ArgumentError, "fill"),
        ((2, 4, 4, 3), (1, 8), {"fill": 0.5}, ArgumentError, "fill"),
        ((2, 4, 4, 3), (1, 8), {"box_fill": (1, 2)}, ArgumentError, "box_fill has 2 values, the images have 3"),
        ((2, 4, 4, 3), (1, 8), {"box_fill": -1}, ArgumentError, "box_fill"),
        ((2, 4, 4, 3), (1, 8), {"box_fill": "x"}, ArgumentError, "box_fill must be a number, got 'x'"),
        ((2, 4, 4, 3), (1, 8), {"box_fill": None}, ArgumentError, "box_fill must be a number, got None"),
        ((2, 4, 4, 3), (1, 8), {"box_fill": [[1, 2, 3]]}, ArgumentError, r"box_fill must be a number, got \[1, 2, 3\]"),
    ],
)
def test_what_does_not_fit_is_refused(images, places, options, error, match):
    with pytest.raises(error, match=match):
        functional.take_windows(np.zeros(images, np.uint8), np.zeros(places, np.int64), **{"size": 4, **options})


def test_other_types_are_refused():
    with pytest.raises(DTypeError, match="places is i32"):
        functional.take_windows(np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 8), np.int32), size=2)
    with pytest.raises(DTypeError, match="images is i64"):
        functional.take_windows(np.zeros((1, 2, 2, 1), np.int64), np.zeros((1, 8), np.int64), size=2)
