"""Max, average and global pooling."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_paths import ISAS, Path, build, distinct, gradients, integers, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients
from pycnn.testing import strategies as edges

# Image and geometry, for both kinds of pooling.
CASES = {
    "lenet_s2": ((2, 28, 28, 6), {"kernel_size": 2}),
    "1x1_image": ((1, 1, 1, 1), {"kernel_size": 1}),
    "1x1_image_padded": ((2, 1, 1, 3), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "empty_batch": ((0, 4, 4, 3), {"kernel_size": 2}),
    "one_channel": ((3, 9, 7, 1), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "channels_3": ((2, 7, 8, 3), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    "channels_17": ((1, 6, 17, 17), {"kernel_size": 2, "stride": 1}),
    "channels_33": ((1, 7, 7, 33), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "channels_65": ((2, 5, 5, 65), {"kernel_size": 3, "stride": 2}),
    "channels_2049": ((1, 2, 2, 2049), {"kernel_size": 2}),
    "window_is_image": ((2, 5, 6, 4), {"kernel_size": (5, 6)}),
    "window_above_image": ((1, 3, 2, 5), {"kernel_size": 4, "stride": 1, "padding": 2}),
    "stride_above_window": ((1, 11, 13, 3), {"kernel_size": 2, "stride": (3, 5)}),
    "stride_50": ((1, 3, 60, 2), {"kernel_size": 3, "stride": 50, "padding": 1}),
    "four_pads": ((2, 6, 5, 3), {"kernel_size": 4, "stride": (2, 3), "padding": (0, 1, 2, 1)}),
    "ceil": ((1, 6, 7, 4), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil_padded": ((2, 8, 9, 3), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil_drops_a_window": ((1, 5, 4, 2), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
    "ceil_without_room": ((1, 2, 2, 3), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "one_row": ((2, 1, 19, 5), {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1)}),
    "width_16_of_output": ((1, 4, 33, 8), {"kernel_size": 3, "stride": 2, "padding": (1, 0)}),
    "global_window": ((2, 7, 7, 33), {"kernel_size": 7}),
}
DILATED = {
    "dilation_2": ((1, 9, 8, 5), {"kernel_size": 3, "stride": 1, "dilation": 2, "padding": 2}),
    "dilation_3_2": ((2, 10, 9, 17), {"kernel_size": 2, "stride": 2, "dilation": (3, 2)}),
    "dilation_9": ((1, 12, 20, 3), {"kernel_size": (2, 3), "stride": 1, "dilation": 9, "padding": (1, 0)}),
    "dilation_ceil": ((1, 9, 10, 4), {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True}),
}


def geometries(cases):
    return pytest.mark.parametrize(("image", "geometry"), [pytest.param(*c, id=name) for name, c in cases.items()])


def max_pool(geometry):
    return lambda x: functional.max_pool2d(x, **geometry)


def avg_pool(geometry):
    return lambda x: functional.avg_pool2d(x, **geometry)


def window_size(geometry):
    return int(np.prod(reference.pair(geometry["kernel_size"])))


# ---- Maximum


@geometries(CASES | DILATED)
@pytest.mark.parametrize("path", paths("max_pool2d", "max_pool2d_grad"))
def test_maximum_and_its_gradient_are_exact(image, geometry, path):
    rng = np.random.default_rng(0)
    x = integers(rng, image, -20, 21)  # with many ties
    expected = reference.max_pool2d(x, **geometry)
    tolerances.assert_exact(run(max_pool(geometry), x, path=path), expected)
    grad = integers(rng, expected.shape)
    (found,) = gradients(max_pool(geometry), x, grad=grad, path=path)
    tolerances.assert_exact(found, reference.max_pool2d_grad(x, grad, **geometry))


@geometries({name: CASES[name] for name in ("channels_3", "four_pads", "ceil_padded", "1x1_image_padded")} | DILATED)
def test_gradient_of_the_maximum_agrees_with_finite_differences(image, geometry):
    check_gradients(max_pool(geometry), distinct(np.random.default_rng(1), image, 0.02))


@pytest.mark.parametrize("path", paths("max_pool2d", "max_pool2d_grad"))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_ties_go_to_the_first_cell(stride, path):
    geometry = {"kernel_size": 3, "stride": stride, "padding": 1}
    x = np.zeros((1, 6, 6, 5), np.float32)
    expected = reference.max_pool2d(x, **geometry)
    grad = np.ones(expected.shape, np.float32)
    (found,) = gradients(max_pool(geometry), x, grad=grad, path=path)
    tolerances.assert_exact(found, reference.max_pool2d_grad(x, grad, **geometry))


@pytest.mark.parametrize("path", paths("max_pool2d"))
def test_nan_wins_and_padding_never_does(path):
    rng = np.random.default_rng(0)
    x = -1 - np.abs(reals(rng, (2, 6, 7, 19)))
    x[0, 2, 3, 4] = np.nan
    x[1, 0, 0, 18] = -np.inf
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1}
    expected = reference.max_pool2d(x, **geometry)
    assert np.isnan(expected).any()
    assert (expected[~np.isnan(expected)] < 0).all()
    tolerances.assert_exact(run(max_pool(geometry), x, path=path), expected)


@pytest.mark.parametrize("path", paths("max_pool2d", "max_pool2d_grad"))
@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_goes_to_the_first_nan(stride, path):
    x = np.zeros((1, 4, 4, 17), np.float32)
    x[0, 1, 1, 3] = x[0, 1, 0, 3] = np.nan
    x[0, 2, 2, 5] = -np.inf
    geometry = {"kernel_size": 2, "stride": stride}
    grad = integers(np.random.default_rng(0), reference.max_pool2d(x, **geometry).shape, 1, 5)
    (found,) = gradients(max_pool(geometry), x, grad=grad, path=path)
    tolerances.assert_exact(found, reference.max_pool2d_grad(x, grad, **geometry))


def test_a_window_of_minus_infinity_gives_it():
    x = np.full((1, 2, 2, 3), -np.inf, np.float32)
    assert (functional.max_pool2d(x, kernel_size=2) == -np.inf).all()


# ---- Mean


@geometries(CASES)
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("path", paths("avg_pool2d", "avg_pool2d_grad"))
def test_mean_and_its_gradient(image, geometry, count_include_pad, path):
    geometry = {**geometry, "count_include_pad": count_include_pad}
    rng = np.random.default_rng(0)
    x = reals(rng, image)
    expected = reference.avg_pool2d(x, **geometry)
    bound = tolerances.sum_bound(reference.avg_pool2d(np.abs(x), **geometry), window_size(geometry))
    tolerances.assert_within(run(avg_pool(geometry), x, path=path), expected, bound)
    # The gradient is the transposed map, which finite differences check below against float64.
    grad = reals(rng, expected.shape)
    doubles = [a.astype(np.float64) for a in (x, grad)]
    (want,) = gradients(avg_pool(geometry), doubles[0], grad=doubles[1])
    (magnitude,) = gradients(avg_pool(geometry), doubles[0], grad=np.abs(doubles[1]))
    (found,) = gradients(avg_pool(geometry), x, grad=grad, path=path)
    tolerances.assert_within(found, want, tolerances.sum_bound(magnitude, window_size(geometry)))


@geometries(CASES)
@pytest.mark.parametrize("path", paths("avg_pool2d"))
def test_mean_is_exact_where_the_division_is(image, geometry, path):
    counts = reference.avg_pool2d_counts(image, **geometry)
    x = integers(np.random.default_rng(0), image) * np.float32(np.lcm.reduce(counts.astype(int).ravel()))
    if np.abs(x).max(initial=0) * window_size(geometry) < 2**24:
        # Exact up to the rounding of a reciprocal, which some counts do not have.
        expected = reference.avg_pool2d(x, **geometry)
        found = run(avg_pool(geometry), x, path=path)
        tolerances.assert_within(found, expected, 2 * tolerances.unit() * np.abs(expected))


@geometries(CASES)
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_gradient_of_the_mean_agrees_with_finite_differences(image, geometry, count_include_pad):
    x = reals(np.random.default_rng(1), image)
    pool = avg_pool({**geometry, "count_include_pad": count_include_pad})
    check_gradients(pool, x, elements=8 if x.size < 1000 else 2)


# ---- Mean of windows that cover the image evenly

EVEN = {
    "divides": ((2, 14, 14, 17), (7, 7)),
    "overlaps": ((1, 5, 7, 3), (3, 2)),
    "vgg_at_odd_size": ((2, 9, 10, 33), (7, 7)),
    "larger_than_the_image": ((2, 3, 4, 8), (7, 6)),
    "empty_batch": ((0, 3, 3, 4), (2, 2)),
    "1x1_image": ((1, 1, 1, 1), (3, 1)),
    "channels_65": ((1, 13, 6, 65), (6, 6)),
    "global": ((3, 9, 11, 5), (1, 1)),
    "nothing_to_do": ((2, 7, 6, 16), (7, 6)),
    "one_row": ((2, 1, 19, 9), (1, 4)),
}
even = pytest.mark.parametrize(("image", "size"), [pytest.param(*c, id=name) for name, c in EVEN.items()])


def adaptive(size):
    return lambda x: functional.adaptive_avg_pool2d(x, output_size=size)


@even
@pytest.mark.parametrize("path", paths("adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"))
def test_adaptive_mean_and_its_gradient(image, size, path):
    rng = np.random.default_rng(0)
    x = reals(rng, image)
    expected = reference.adaptive_avg_pool2d(x, output_size=size)
    bound = tolerances.sum_bound(reference.adaptive_avg_pool2d(np.abs(x), output_size=size), image[1] * image[2])
    tolerances.assert_within(run(adaptive(size), x, path=path), expected, bound)
    grad = reals(rng, expected.shape)
    (found,) = gradients(adaptive(size), x, grad=grad, path=path)
    want, magnitude = (reference.adaptive_avg_pool2d_grad(g, image) for g in (grad, np.abs(grad)))
    tolerances.assert_within(found, want, tolerances.sum_bound(magnitude, size[0] * size[1]))


@even
def test_gradient_of_the_adaptive_mean_agrees_with_finite_differences(image, size):
    check_gradients(adaptive(size), reals(np.random.default_rng(1), image), elements=6)


@pytest.mark.parametrize("path", isas())
def test_adaptive_mean_equals_the_pools_it_generalises(path):
    x = integers(np.random.default_rng(0), (2, 8, 12, 5))
    by_window = run(avg_pool({"kernel_size": (2, 4)}), x, path=path)
    tolerances.assert_exact(run(adaptive((4, 3)), x, path=path), by_window)
    whole = run(functional.global_avg_pool2d, x, path=path)
    tolerances.assert_bits(run(adaptive(1), x, path=path)[:, 0, 0], whole)
    tolerances.assert_bits(run(adaptive((8, 12)), x, path=path), x)


def test_an_image_of_the_right_size_costs_no_step():
    x = reals(np.random.default_rng(0), (1, 7, 7, 4))
    program = build(lambda x: functional.relu(adaptive(7)(functional.relu(x))), x)
    assert "adaptive" not in program.explain()
    assert "adaptive" in build(lambda x: functional.relu(adaptive(6)(functional.relu(x))), x).explain()


@pytest.mark.parametrize(
    ("error", "text", "shape", "size"),
    [
        (ArgumentError, r"output_size is \(0, 2\)", (1, 4, 4, 1), (0, 2)),
        (ArgumentError, "output_size: ", (1, 4, 4, 1), (1, 2, 3)),
        (ShapeError, "3 axes", (4, 4, 1), 2),
        (ShapeError, "no pixel", (1, 4, 0, 1), 2),
    ],
)
def test_adaptive_mean_rejects_bad_arguments_with_the_numbers(error, text, shape, size):
    with pytest.raises(error, match=text):
        functional.adaptive_avg_pool2d(np.zeros(shape, np.float32), output_size=size)


@pytest.mark.interop
@even
def test_adaptive_mean_agrees_with_torch(image, size):
    torch = pytest.importorskip("torch")
    x = reals(np.random.default_rng(0), image, np.float64)
    if not x.size:
        pytest.skip("torch refuses an empty batch")
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), size)
    bound = tolerances.sum_bound(np.abs(x).max(), image[1] * image[2], np.float64)
    tolerances.assert_within(run(adaptive(size), x), expected.permute(0, 2, 3, 1).numpy(), bound)


# ---- Global pooling

GLOBAL = [(1, 1, 1, 1), (0, 3, 3, 4), (2, 5, 6, 3), (1, 7, 7, 17), (3, 4, 1, 33), (2, 1, 9, 65), (1, 33, 31, 2)]


@pytest.mark.parametrize("image", GLOBAL)
@pytest.mark.parametrize("path", paths("global_max_pool2d", "global_max_pool2d_grad"))
def test_global_maximum_and_its_gradient_are_exact(image, path):
    rng = np.random.default_rng(0)
    x = integers(rng, image, -9, 10)
    tolerances.assert_exact(run(functional.global_max_pool2d, x, path=path), reference.global_max_pool2d(x))
    grad = integers(rng, (image[0], image[3]))
    (found,) = gradients(functional.global_max_pool2d, x, grad=grad, path=path)
    window = {"kernel_size": image[1:3]}
    want = reference.max_pool2d_grad(x, grad[:, None, None], **window)
    tolerances.assert_exact(found, want)


@pytest.mark.parametrize("image", GLOBAL)
@pytest.mark.parametrize("path", paths("global_avg_pool2d", "global_avg_pool2d_grad"))
def test_global_mean_and_its_gradient(image, path):
    rng = np.random.default_rng(0)
    x = reals(rng, image)
    bound = tolerances.sum_bound(reference.global_avg_pool2d(np.abs(x)), image[1] * image[2])
    found = run(functional.global_avg_pool2d, x, path=path)
    tolerances.assert_within(found, reference.global_avg_pool2d(x), bound)
    grad = reals(rng, (image[0], image[3]))
    (found,) = gradients(functional.global_avg_pool2d, x, grad=grad, path=path)
    want = np.broadcast_to(reference.f64(grad)[:, None, None] / (image[1] * image[2]), image)
    tolerances.assert_within(found, want, tolerances.elementwise_bound(want))


@pytest.mark.parametrize("image", GLOBAL)
def test_gradients_of_global_pools_agree_with_finite_differences(image):
    x = distinct(np.random.default_rng(2), image, 0.02)
    check_gradients(functional.global_avg_pool2d, x, elements=6)
    check_gradients(functional.global_max_pool2d, x, elements=6)


@pytest.mark.parametrize("path", paths("global_avg_pool2d"))
def test_global_mean_of_many_large_values_keeps_its_digits(path):
    x = np.full((1, 200, 200, 3), 1000.1, np.float32)  # every rounding goes the same way
    expected = np.full((1, 3), x.flat[0], np.float64)
    found = run(functional.global_avg_pool2d, x, path=path)
    tolerances.assert_within(found, expected, tolerances.sum_bound(expected, 40_000))


@pytest.mark.parametrize("path", paths("global_max_pool2d", "global_avg_pool2d"))
def test_nan_reaches_its_own_image_and_channel_only(path):
    x = reals(np.random.default_rng(0), (2, 3, 4, 18))
    x[1, 2, 3, 17] = np.nan
    for pool in (functional.global_max_pool2d, functional.global_avg_pool2d):
        hit = np.isnan(run(pool, x, path=path))
        assert hit[1, 17]
        assert hit.sum() == 1


# ---- Properties

POOLS = {
    "max": (functional.max_pool2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
    "max_disjoint": (functional.max_pool2d, {"kernel_size": 2}),
    "avg": (functional.avg_pool2d, {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    "global_max": (functional.global_max_pool2d, {}),
    "global_avg": (functional.global_avg_pool2d, {}),
    "adaptive_avg": (functional.adaptive_avg_pool2d, {"output_size": (6, 5)}),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("path", isas())
def test_threads_and_batch_splits_give_the_same_bits(name, path):
    pool, geometry = POOLS[name]
    x = reals(np.random.default_rng(0), (8, 13, 14, 37))

    def op(x):
        return pool(x, **geometry)

    first = run(op, x, path=path, threads=1)
    grad = reals(np.random.default_rng(1), first.shape)
    (expected,) = gradients(op, x, grad=grad, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(op, x, path=path, threads=threads), first)
        tolerances.assert_bits(gradients(op, x, grad=grad, path=path, threads=threads)[0], expected)
    for i in range(8):
        one = slice(i, i + 1)
        tolerances.assert_bits(run(op, x[one], path=path), first[one])
        tolerances.assert_bits(gradients(op, x[one], grad=grad[one], path=path)[0], expected[one])


@pytest.mark.parametrize("path", isas())
def test_one_window_over_the_image_is_a_global_pool(path):
    x = integers(np.random.default_rng(0), (2, 4, 8, 5))
    window = {"kernel_size": (4, 8)}
    tolerances.assert_bits(
        run(max_pool(window), x, path=path)[:, 0, 0], run(functional.global_max_pool2d, x, path=path)
    )
    tolerances.assert_exact(
        run(avg_pool(window), x, path=path)[:, 0, 0], run(functional.global_avg_pool2d, x, path=path)
    )


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_problems(data):
    image = data.draw(edges.images(max_size=10, max_channels=35))
    window = data.draw(edges.windows(*image[1:3]))
    window["ceil_mode"] = data.draw(st.booleans())
    extents = [(k - 1) * d + 1 for k, d in zip(window["kernel_size"], window["dilation"])]
    window["padding"] = tuple(min(p, extents[i // 2] // 2) for i, p in enumerate(window["padding"]))
    assume(all(s + sum(window["padding"][2 * i : 2 * i + 2]) >= extents[i] for i, s in enumerate(image[1:3])))
    path = Path(data.draw(st.sampled_from(ISAS)))
    x = integers(np.random.default_rng(image[1]), image)
    try:
        found = run(max_pool(window), x, path=path)
    except ShapeError as error:
        assert "step over the image" in str(error)  # noqa: PT017
        assume(False)
    expected = reference.max_pool2d(x, **window)
    tolerances.assert_exact(found, expected)
    grad = integers(np.random.default_rng(1), expected.shape)
    (found,) = gradients(max_pool(window), x, grad=grad, path=path)
    tolerances.assert_exact(found, reference.max_pool2d_grad(x, grad, **window))
    if window.pop("dilation") == (1, 1):
        window["count_include_pad"] = data.draw(st.booleans())
        bound = tolerances.sum_bound(reference.avg_pool2d(np.abs(x), **window), window_size(window))
        tolerances.assert_within(run(avg_pool(window), x, path=path), reference.avg_pool2d(x, **window), bound)


# ---- Errors


@pytest.mark.parametrize("pool", [functional.max_pool2d, functional.avg_pool2d])
@pytest.mark.parametrize(
    ("error", "text", "shape", "options"),
    [
        (
            ArgumentError,
            r"padding \(3, 3, 3, 3\) exceeds half of kernel_size \(2, 2\); a window would lie fully outside the image",
            (1, 4, 4, 1),
            {"kernel_size": 2, "padding": 3},
        ),
        (ArgumentError, "kernel_size is", (1, 4, 4, 1), {"kernel_size": 0}),
        (ArgumentError, r"stride is \(0, 0\)", (1, 4, 4, 1), {"kernel_size": 2, "stride": 0}),
        (ArgumentError, r"padding is \(-1", (1, 4, 4, 1), {"kernel_size": 2, "padding": -1}),
        (ArgumentError, "kernel_size: ", (1, 4, 4, 1), {"kernel_size": "22"}),
        (ShapeError, "N = 2.*F = 5", (1, 4, 2, 1), {"kernel_size": (2, 5)}),
        (ShapeError, "3 axes.*reshape it to", (4, 4, 1), {"kernel_size": 2}),
        (ShapeError, "no pixel", (1, 4, 0, 1), {"kernel_size": 2}),
    ],
)
def test_rejects_bad_arguments_with_the_numbers(pool, error, text, shape, options):
    with pytest.raises(error, match=f"(?s){text}"):
        pool(np.zeros(shape, np.float32), **options)


@pytest.mark.parametrize("pool", [functional.global_avg_pool2d, functional.global_max_pool2d])
def test_global_pools_reject_what_is_no_float_image(pool):
    with pytest.raises(ShapeError, match="3 axes"):
        pool(np.zeros((4, 4, 1), np.float32))
    with pytest.raises(DTypeError, match="u8"):
        pool(np.zeros((1, 4, 4, 1), np.uint8))


# ---- Another library


@pytest.mark.interop
@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (7, {"kernel_size": 3, "stride": 2, "padding": 1}),
        (7, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        (8, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        (5, {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        (6, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        (2, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        (9, {"kernel_size": 2, "stride": 4, "ceil_mode": True}),
    ],
)
def test_agrees_with_torch(size, geometry):
    torch = pytest.importorskip("torch")
    x = reals(np.random.default_rng(0), (2, size, size + 1, 3), np.float64)
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    if size == 2:  # torch takes no window above the padded image there
        geometry, image = {**geometry, "padding": 1}, image

    def compare(pool, theirs, options):
        expected = theirs(image, **options).permute(0, 2, 3, 1).numpy()
        bound = tolerances.sum_bound(expected, window_size(geometry), np.float64)
        tolerances.assert_within(run(lambda x: pool(x, **options), x), expected, bound)

    compare(functional.max_pool2d, torch.nn.functional.max_pool2d, geometry)
    for count_include_pad in (True, False):
        options = {**geometry, "count_include_pad": count_include_pad}
        compare(functional.avg_pool2d, torch.nn.functional.avg_pool2d, options)


@pytest.mark.interop
def test_dilated_maximum_agrees_with_torch():
    torch = pytest.importorskip("torch")
    x = reals(np.random.default_rng(0), (2, 11, 12, 3), np.float64)
    options = {"kernel_size": (3, 2), "stride": (2, 3), "dilation": (2, 3), "padding": (1, 1), "ceil_mode": True}
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), **options)
    tolerances.assert_exact(run(max_pool(options), x), expected.permute(0, 2, 3, 1).numpy())
