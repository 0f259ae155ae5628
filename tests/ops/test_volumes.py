"""Convolution of volumes, forward and transposed, and products of stacks of matrices."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import isas, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.testing import check_gradients

# Volume, window, output channels, geometry.
VOLUMES = {
    "1x1x1": ((2, 1, 1, 1, 3), (1, 1, 1), 4, {}),
    "cube": ((2, 4, 5, 6, 3), (3, 3, 3), 5, {"padding": (1,) * 6}),
    "asymmetric": ((1, 5, 4, 7, 2), (2, 3, 1), 3, {"padding": (0, 2, 1, 0, 3, 1), "stride": (2, 1, 3)}),
    "dilated": ((2, 7, 6, 5, 4), (3, 2, 2), 6, {"dilation": (2, 3, 1), "padding": (2, 1, 1, 1, 0, 0)}),
    "grouped": ((1, 6, 5, 4, 6), (2, 2, 3), 9, {"groups": 3, "stride": (3, 2, 1)}),
    "depthwise": ((2, 3, 4, 5, 5), (2, 3, 2), 5, {"groups": 5, "stride": 2, "padding": (1, 1, 1, 1, 1, 1)}),
}
volumes = pytest.mark.parametrize(("shape", "window", "channels", "geometry"), VOLUMES.values(), ids=VOLUMES)


def operands(shape, window, channels, geometry, *, transposed=False, dtype=np.float32):
    rng, groups = np.random.default_rng(0), geometry.get("groups", 1)
    weight = (shape[4], *window, channels // groups) if transposed else (channels, *window, shape[4] // groups)
    return reals(rng, shape, dtype), reals(rng, weight, dtype), reals(rng, (channels,), dtype)


@volumes
@pytest.mark.parametrize("path", isas())
def test_convolution_of_volumes(shape, window, channels, geometry, path):
    arrays = operands(shape, window, channels, geometry)
    found = run(lambda x, w, b: functional.conv3d(x, w, b, **geometry), *arrays, path=path)
    expected = reference.conv3d(*arrays, **geometry)
    bound = tolerances.sum_bound(reference.conv3d(*map(np.abs, arrays), **geometry), arrays[1][0].size + 1)
    if window == (3, 3, 3):  # by Winograd's filtering, where the path has it
        bound = np.maximum(bound, tolerances.CONVOLUTION[(4, 3)] * np.abs(expected).max())
    tolerances.assert_within(found, expected, bound)


@volumes
def test_gradients_of_convolution_of_volumes_agree_with_finite_differences(shape, window, channels, geometry):
    arrays = operands(shape, window, channels, geometry, dtype=np.float64)
    check_gradients(lambda x, w, b: functional.conv3d(x, w, b, **geometry), *arrays, elements=5)


MORE = {"cube": {"stride": (2, 3, 2), "output_padding": (1, 2, 0)}, "grouped": {"output_padding": (2, 1, 0)}}


@volumes
def test_transposed_convolution_of_volumes(shape, window, channels, geometry, request):
    name = request.node.callspec.id
    geometry = geometry | MORE.get(name, {})
    if name == "asymmetric":
        geometry = geometry | {"padding": (0, 1, 1, 0, 0, 1)}
    arrays = operands(shape, window, channels, geometry, transposed=True)
    found = functional.conv_transpose3d(*arrays, **geometry)
    expected = reference.conv_transpose3d(*arrays, **geometry)
    magnitude = reference.conv_transpose3d(*map(np.abs, arrays), **geometry)
    tolerances.assert_within(found, expected, tolerances.sum_bound(magnitude, arrays[1].size))
    wide = operands(shape, window, channels, geometry, transposed=True, dtype=np.float64)
    check_gradients(lambda x, w, b: functional.conv_transpose3d(x, w, b, **geometry), *wide, elements=4)


def test_volumes_refuse_what_does_not_fit():
    x, weight = np.zeros((1, 4, 4, 4, 3), np.float32), np.zeros((2, 2, 2, 2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"\(N, D, H, W, C\)"):
        functional.conv3d(x[0], weight)
    with pytest.raises(ShapeError, match="has 3 channels, weight .* expects 6"):
        functional.conv3d(x, weight, groups=2)
    with pytest.raises(ShapeError, match="no output is left of a depth of 4"):
        functional.conv3d(x, weight, dilation=(4, 1, 1))
    with pytest.raises(ArgumentError, match="three or six"):
        functional.conv3d(x, weight, padding=(1, 1))
    with pytest.raises(ArgumentError, match="must be positive"):
        functional.conv3d(x, weight, stride=0)
    turned = np.zeros((3, 2, 2, 2, 2), np.float32)
    with pytest.raises(ArgumentError, match="output_padding"):
        functional.conv_transpose3d(x, turned, output_padding=1)
    with pytest.raises(ShapeError, match="no output is left"):
        functional.conv_transpose3d(x, turned, padding=(3, 3, 0, 0, 0, 0))


# ---- Stacks of matrices

FACTORS = [
    ((3,), (3,)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (4,)),
    ((5, 4), (4, 3)),
    ((2, 5, 4), (4, 3)),
    ((2, 3, 4), (2, 4, 5)),
    ((3, 4), (2, 4, 5)),
    ((3, 1, 3, 4), (1, 2, 4, 5)),
    ((2, 1, 7), (3, 1, 7, 2)),
    ((1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize(("first", "second"), FACTORS)
@pytest.mark.parametrize("path", isas())
def test_matmul_is_that_of_numpy(first, second, path):
    rng = np.random.default_rng(0)
    a, b = reals(rng, first), reals(rng, second)
    found = run(functional.matmul, a, b, path=path)
    magnitude = np.abs(reference.f64(a)) @ np.abs(reference.f64(b))
    tolerances.assert_within(found, reference.f64(a) @ reference.f64(b), tolerances.sum_bound(magnitude, first[-1]))


@pytest.mark.parametrize(("first", "second"), FACTORS)
def test_gradients_of_matmul_agree_with_finite_differences(first, second):
    rng = np.random.default_rng(0)
    check_gradients(functional.matmul, reals(rng, first, np.float64), reals(rng, second, np.float64), elements=5)


def test_matmul_refuses_what_does_not_fit():
    for first, second in [((3, 4), (3, 4)), ((), (3,)), ((3,), (4, 3)), ((2, 3, 4), (3, 4, 5))]:
        with pytest.raises(ShapeError, match="matmul"):
            functional.matmul(np.zeros(first, np.float32), np.zeros(second, np.float32))
