"""Instance, group and layer normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import isas, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.testing import check_gradients

NORMS = {
    "instance": (functional.instance_norm, reference.instance_norm),
    "group_1": (lambda x, *p: functional.group_norm(x, 1, *p), lambda x, *p: reference.group_norm(x, 1, *p)),
    "group_3": (lambda x, *p: functional.group_norm(x, 3, *p), lambda x, *p: reference.group_norm(x, 3, *p)),
    "group_6": (lambda x, *p: functional.group_norm(x, 6, *p), lambda x, *p: reference.group_norm(x, 6, *p)),
    "layer": (functional.layer_norm, reference.layer_norm),
    "layer_of_images": (
        lambda x, *p: functional.layer_norm(x, *p, axes=(1, 2, 3)),
        lambda x, *p: reference.layer_norm(x, *p, axes=(1, 2, 3)),
    ),
}
norms = pytest.mark.parametrize("name", NORMS)


def operands(dtype=np.float32, shape=(3, 7, 5, 6), mean=0.0):
    rng = np.random.default_rng(0)
    return (reals(rng, shape) + mean).astype(dtype), reals(rng, shape[-1:], dtype), reals(rng, shape[-1:], dtype)


@norms
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("path", isas())
def test_forward(name, mean, path):
    op, expected = NORMS[name]
    arrays = operands(mean=mean)
    wanted = expected(*map(reference.f64, arrays))
    # The mean's rounding error is that of the numbers over their spread.
    magnitude = np.abs(wanted).max() + (1 + mean) * np.abs(arrays[1]).max() * 2
    tolerances.assert_within(run(op, *arrays, path=path), wanted, tolerances.sum_bound(magnitude, 7 * 5 * 6))
    plain = expected(reference.f64(arrays[0]))
    tolerances.assert_within(
        run(op, arrays[0], path=path), plain, tolerances.sum_bound(magnitude + 2 * mean, 7 * 5 * 6)
    )


@norms
def test_gradients_agree_with_finite_differences(name):
    check_gradients(NORMS[name][0], *operands(np.float64, (2, 3, 4, 6)), rtol=5e-6)


@norms
def test_threads_give_the_same_bits_and_constant_images_give_zeros(name):
    op = NORMS[name][0]
    arrays = operands(shape=(4, 13, 11, 30))
    first = run(op, *arrays, threads=1)
    tolerances.assert_bits(run(op, *arrays, threads=3), first)
    assert not op(np.full((2, 3, 3, 6), 0.1, np.float32)).round(2).any()


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    x, weight, bias = (torch.from_numpy(a) for a in operands())
    image = x.permute(0, 3, 1, 2)
    f = torch.nn.functional
    for ours, theirs in [
        (functional.instance_norm(*operands()), f.instance_norm(image, weight=weight, bias=bias)),
        (NORMS["group_3"][0](*operands()), f.group_norm(image, 3, weight, bias)),
    ]:
        tolerances.assert_within(ours, theirs.permute(0, 2, 3, 1).numpy(), tolerances.sum_bound(16, 100))
    expected = f.layer_norm(x, (6,), weight, bias).numpy()
    tolerances.assert_within(functional.layer_norm(*operands()), expected, tolerances.sum_bound(16, 100))


def test_refuses_what_does_not_fit():
    x = np.zeros((2, 3, 3, 4), np.float32)
    with pytest.raises(ShapeError, match="in 3 groups"):
        functional.group_norm(x, 3)
    with pytest.raises(ShapeError, match="3 axes at least"):
        functional.instance_norm(x[0, 0])
    with pytest.raises(ArgumentError, match="eps must be a positive number"):
        functional.layer_norm(x, eps=0)
    with pytest.raises(ArgumentError, match="out of range"):
        functional.layer_norm(x, axes=4)
