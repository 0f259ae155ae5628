"""Normalisation across channels."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import gradients, isas, paths, reals, run

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.testing import check_gradients

CASES = {
    "one_channel": ((2, 3, 3, 1), {}),
    "fewer_channels_than_window": ((1, 2, 2, 3), {"size": 5, "alpha": 0.5}),
    "window_of_one": ((1, 2, 2, 17), {"size": 1, "alpha": 0.5}),
    "even_window": ((1, 2, 3, 17), {"size": 4, "alpha": 1.0, "beta": 0.5}),
    "odd_window": ((2, 3, 3, 33), {"size": 5, "alpha": 1.0}),
    "window_above_lanes": ((1, 2, 2, 65), {"size": 19, "alpha": 2.0, "beta": 1.0}),
    "alexnet": ((1, 4, 4, 96), {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}),
    "beta_0": ((1, 2, 2, 5), {"beta": 0.0}),
    "many_channels": ((1, 1, 1, 2049), {"size": 3, "alpha": 1.0, "beta": 0.6}),
    "empty_batch": ((0, 4, 4, 3), {}),
    "rank_2": ((3, 20), {"alpha": 0.3}),
}
cases = pytest.mark.parametrize(("shape", "options"), [pytest.param(*c, id=name) for name, c in CASES.items()])


def norm(options):
    return lambda x: functional.local_response_norm(x, **options)


@cases
@pytest.mark.parametrize("path", paths("local_response_norm"))
def test_forward(shape, options, path):
    x = reals(np.random.default_rng(0), shape) * 2
    expected = reference.local_response_norm(x, **options)
    # Terms are positive; the power multiplies the relative error of the sum by beta.
    bound = tolerances.sum_bound(expected, options.get("size", 5)) + tolerances.elementwise_bound(expected)
    tolerances.assert_within(run(norm(options), x, path=path), expected, bound)


@cases
@pytest.mark.parametrize("path", paths("local_response_norm_grad"))
def test_gradient_agrees_with_float64(shape, options, path):
    rng = np.random.default_rng(1)
    x, grad = reals(rng, shape) * 2, reals(rng, shape)
    doubles = x.astype(np.float64), grad.astype(np.float64)
    (want,) = gradients(norm(options), doubles[0], grad=doubles[1])
    (found,) = gradients(norm(options), x, grad=grad, path=path)
    # g / d^beta minus a sum over the window of products.
    size, alpha, beta = options.get("size", 5), options.get("alpha", 1e-4), options.get("beta", 0.75)
    scaled = np.abs(grad) * np.abs(reference.local_response_norm(np.ones_like(x), **{**options, "alpha": 0.0}))
    padded = np.pad(np.abs(x * grad), [(0, 0)] * (x.ndim - 1) + [(size, size)])
    window = sum(padded[..., k : k + x.shape[-1]] for k in range(2 * size + 1))
    magnitude = scaled + 2 * alpha / size * beta * np.abs(x) * window
    bound = tolerances.sum_bound(magnitude, size) + tolerances.elementwise_bound(magnitude)
    tolerances.assert_within(found, want, bound)


@pytest.mark.parametrize("name", ["one_channel", "fewer_channels_than_window", "even_window", "odd_window", "rank_2"])
def test_gradient_agrees_with_finite_differences(name):
    shape, options = CASES[name]
    check_gradients(norm(options), reals(np.random.default_rng(2), shape))


@pytest.mark.parametrize("path", isas())
def test_threads_and_batch_splits_give_the_same_bits(path):
    x = reals(np.random.default_rng(0), (8, 6, 7, 37))
    op = norm({"alpha": 0.7})
    whole = run(op, x, path=path, threads=1)
    (grad,) = gradients(op, x, grad=x, path=path, threads=1)
    for threads in (2, 3, 7):
        tolerances.assert_bits(run(op, x, path=path, threads=threads), whole)
        tolerances.assert_bits(gradients(op, x, grad=x, path=path, threads=threads)[0], grad)
    for i in range(8):
        tolerances.assert_bits(run(op, x[i : i + 1], path=path), whole[i : i + 1])


@pytest.mark.parametrize("path", paths("local_response_norm"))
def test_nan_reaches_the_channels_around_it(path):
    x = np.ones((1, 1, 2, 40), np.float32)
    x[0, 0, 1, 20] = np.nan
    hit = np.isnan(run(norm({"size": 4}), x, path=path))
    # The window of c is c - 2 to c + 1.
    assert np.flatnonzero(hit).tolist() == [40 + 19, 40 + 20, 40 + 21, 40 + 22]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "size is 0"),
        ({"k": 0.0}, "k is 0"),
        ({"alpha": -1.0}, "alpha is -1"),
        ({"beta": float("nan")}, "beta is nan"),
    ],
)
def test_rejects_numbers_out_of_range(options, text):
    with pytest.raises(ArgumentError, match=text):
        functional.local_response_norm(np.zeros((1, 2, 2, 3), np.float32), **options)


@pytest.mark.interop
@pytest.mark.parametrize("name", ["alexnet", "even_window", "odd_window", "fewer_channels_than_window"])
def test_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    shape, options = CASES[name]
    x = reals(np.random.default_rng(0), shape, np.float64)
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    arguments = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0} | options
    output = torch.nn.functional.local_response_norm(tensor, **arguments)
    output.sum().backward()
    found = run(norm(options), x)
    bound = tolerances.sum_bound(np.abs(x), 20, np.float64)
    tolerances.assert_within(found, output.permute(0, 2, 3, 1).detach().numpy(), bound)
    (grad,) = gradients(norm(options), x, grad=np.ones_like(x))
    bound = tolerances.sum_bound(10.0, 20, np.float64)
    tolerances.assert_within(grad, tensor.grad.permute(0, 2, 3, 1).numpy(), bound)
