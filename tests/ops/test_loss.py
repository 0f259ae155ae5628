"""Cross-entropy, mean squared error, and counting hits."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, gradients, isas, paths, reals, run

import pycnn
from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.testing import check_gradients

SHAPES = [(1, 1), (1, 10), (5, 2), (17, 10), (3, 33), (2, 1000), (300, 17)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
KINDS = ("int64", "int32", "soft")
kinds = pytest.mark.parametrize("kind", KINDS)


def make_target(rng, shape, kind):
    if kind == "soft":
        return reference.softmax(reals(rng, shape)).astype(np.float32)
    return rng.integers(0, shape[1], shape[0]).astype(kind)


def cross_entropy(smoothing):
    return lambda logits, target: functional.cross_entropy(logits, target, label_smoothing=smoothing)


@shapes
@kinds
@smoothings
@pytest.mark.parametrize("path", paths("softmax_cross_entropy", "softmax_cross_entropy_grad"))
def test_cross_entropy_and_its_gradient(shape, kind, smoothing, path):
    rng = np.random.default_rng(0)
    x, target = reals(rng, shape) * 3, make_target(rng, shape, kind)
    expected = reference.cross_entropy(x, target, label_smoothing=smoothing)
    wanted = reference.soft_targets(target, shape[1], smoothing)
    # x - max, then the logarithm of a sum of at least one.
    spread = np.ptp(x, axis=1).max() + 1
    magnitude = (np.abs(wanted) * (np.abs(reference.log_softmax(x)) + spread)).sum(axis=1).mean()
    found = run(cross_entropy(smoothing), x, target, path=path)
    assert found.shape == ()
    tolerances.assert_within(found, expected, tolerances.sum_bound(magnitude, shape[1]))
    both = pycnn.value_and_grad(cross_entropy(smoothing), **path.options)
    value, got = both(x, target)
    tolerances.assert_within(value, expected, tolerances.sum_bound(magnitude, shape[1]))
    total = wanted.sum(axis=1, keepdims=True)
    y = reference.softmax(x) * total
    bound = tolerances.sum_bound((y * spread + wanted) / shape[0], shape[1])
    tolerances.assert_within(got, (y - wanted) / shape[0], bound)


@kinds
@smoothings
def test_gradient_agrees_with_finite_differences(kind, smoothing):
    rng = np.random.default_rng(0)
    x, target = reals(rng, (4, 7)), make_target(rng, (4, 7), kind)
    if kind == "soft":
        target = target.astype(np.float64)
    check_gradients(cross_entropy(smoothing), x, target, argnums=(0,))


@pytest.mark.parametrize("path", paths("softmax_cross_entropy"))
def test_large_logits_neither_overflow_nor_underflow(path):
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [0, 1e4, 0]], np.float32)
    for labels in ([0, 1, 1], [2, 0, 0]):
        target = np.array(labels, np.int64)
        expected = reference.cross_entropy(x, target)
        found = run(cross_entropy(0.0), x, target, path=path)
        tolerances.assert_within(found, expected, tolerances.sum_bound(abs(expected) + 1, 3))


@pytest.mark.parametrize("path", paths("softmax_cross_entropy", "softmax_cross_entropy_grad"))
def test_minus_infinity_at_other_classes_is_no_loss(path):
    x = np.full((2, 18), -np.inf, np.float32)
    x[0, 3], x[1, 17] = 2.0, -5.0
    target = np.array([3, 17])
    value, grad = pycnn.value_and_grad(cross_entropy(0.0), **path.options)(x, target)
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("path", paths("softmax_cross_entropy"))
def test_nan_gives_nan_and_labels_out_of_range_are_refused(path):
    x = reals(np.random.default_rng(0), (3, 5))
    for label in (-1, 5, 2**40):
        with pytest.raises(pycnn.LabelError, match=f"label {label} at position 1 .* 5 classes"):
            run(cross_entropy(0.0), x, np.array([0, label, 1]), path=path)
    x[1, 1] = np.nan
    assert np.isnan(run(cross_entropy(0.0), x, np.array([0, 1, 2]), path=path))


@pytest.mark.parametrize("path", isas())
def test_integer_labels_are_one_hot_targets(path):
    rng = np.random.default_rng(0)
    x, labels = reals(rng, (9, 10)), rng.integers(0, 10, 9)
    hot = np.eye(10, dtype=np.float32)[labels]
    first = run(cross_entropy(0.1), x, labels, path=path)
    bound = tolerances.sum_bound(reference.cross_entropy(x, labels) + 10, 10)
    tolerances.assert_within(run(cross_entropy(0.1), x, hot, path=path), reference.f64(first), bound)


@shapes
@pytest.mark.parametrize("path", paths("mean_squared_error", "mean_squared_error_grad"))
def test_mean_squared_error_and_its_gradients(shape, path):
    rng = np.random.default_rng(0)
    x, target = reals(rng, shape), reals(rng, shape)
    expected = reference.mse_loss(x, target)
    value, (first, second) = pycnn.value_and_grad(functional.mse_loss, (0, 1), **path.options)(x, target)
    magnitude = ((np.abs(reference.f64(x)) + np.abs(target)) ** 2).mean()
    tolerances.assert_within(value, expected, tolerances.sum_bound(magnitude, x.size))
    want = 2 * (reference.f64(x) - target) / x.size
    bound = tolerances.elementwise_bound(2 * (np.abs(x) + np.abs(target)) / x.size)
    tolerances.assert_within(first, want, bound)
    tolerances.assert_within(second, -want, bound)


def test_gradients_of_mean_squared_error_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    check_gradients(functional.mse_loss, reals(rng, (3, 7)), reals(rng, (3, 7)))


@pytest.mark.parametrize("path", isas())
def test_any_number_of_threads_gives_the_same_bits(path):
    rng = np.random.default_rng(0)
    for shape in ((3000, 10), (40, 1000)):
        x, labels, other = reals(rng, shape), rng.integers(0, shape[1], shape[0]), reals(rng, shape)
        losses = [(cross_entropy(0.1), labels), (functional.mse_loss, other)]
        for loss, target in losses:
            value, grad = pycnn.value_and_grad(loss, **path.options, threads=1)(x, target)
            for threads in (2, 3, 7):
                again, other_grad = pycnn.value_and_grad(loss, **path.options, threads=threads)(x, target)
                tolerances.assert_bits(again, value)
                tolerances.assert_bits(other_grad, grad)


@pytest.mark.parametrize("path", isas())
def test_a_scaled_loss_scales_the_gradient(path):
    rng = np.random.default_rng(0)
    x, labels = reals(rng, (5, 10)), rng.integers(0, 10, 5)
    (one,) = gradients(cross_entropy(0.0), x, labels, grad=np.float32(1), path=path, wrt=(0,))
    (four,) = gradients(cross_entropy(0.0), x, labels, grad=np.float32(4), path=path, wrt=(0,))
    tolerances.assert_exact(four, 4 * one)


# ---- Hits


@pytest.mark.parametrize("path", paths("top_k_correct"))
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_top_k_counts_ties_to_the_lower_index_and_no_nan(k, kind, path):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 9)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < 0.1] = np.nan
    scores[3] = np.nan
    labels = rng.integers(0, 9, 200).astype(kind)
    found = run(lambda s, y: functional.top_k_correct(s, y, k=k), scores, labels, path=path)
    assert float(found) == reference.top_k_correct(scores, labels, k=k)


def test_top_k_of_an_empty_batch_is_0():
    assert functional.top_k_correct(np.zeros((0, 5), np.float32), np.zeros(0, np.int64)) == 0


# ---- Errors


def test_rejects_labels_that_do_not_fit_with_the_numbers():
    x = np.zeros((4, 10), np.float32)
    with pytest.raises(ShapeError, match=r"labels are \(3,?\), expected \(4,?\): one per sample"):
        functional.cross_entropy(x, np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match="one-hot labels are soft targets"):
        functional.cross_entropy(x, np.zeros((4, 10), np.int64))
    with pytest.raises(DTypeError, match="labels are u8"):
        functional.cross_entropy(x, np.zeros(4, np.uint8))
    with pytest.raises(ShapeError, match=r"targets? .*\(4, 9\)"):
        functional.cross_entropy(x, np.zeros((4, 9), np.float32))
    with pytest.raises(ShapeError, match="empty"):
        functional.cross_entropy(x[:0], np.zeros(0, np.int64))
    with pytest.raises(ArgumentError, match="label_smoothing is 1.5"):
        functional.cross_entropy(x, np.zeros(4, np.int64), label_smoothing=1.5)
    with pytest.raises(ArgumentError, match="k is 11, .* 10"):
        functional.top_k_correct(x, np.zeros(4, np.int64), k=11)


def test_mean_squared_error_rejects_other_shapes():
    with pytest.raises(ShapeError, match=r"\(3, 4\).*\(3, 5\)|\(3, 5\).*\(3, 4\)"):
        functional.mse_loss(np.zeros((3, 4), np.float32), np.zeros((3, 5), np.float32))
    with pytest.raises(ShapeError, match="empty"):
        functional.mse_loss(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))


@pytest.mark.interop
@smoothings
def test_agrees_with_torch(smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, labels = reals(rng, (6, 10), np.float64), rng.integers(0, 10, 6)
    tensor = torch.from_numpy(x).requires_grad_()
    loss = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels), label_smoothing=smoothing)
    loss.backward()
    value, grad = pycnn.value_and_grad(cross_entropy(smoothing))(x, labels)
    tolerances.assert_within(value, loss.detach().numpy(), tolerances.sum_bound(10.0, 60, np.float64))
    tolerances.assert_within(grad, tensor.grad.numpy(), tolerances.sum_bound(10.0, 60, np.float64))


def test_the_value_of_a_program_with_several_losses():
    rng = np.random.default_rng(0)
    x, labels = reals(rng, (6, 10)), rng.integers(0, 10, 6)

    def metrics(x, y):
        return {"loss": cross_entropy(0.0)(x, y), "hits": functional.top_k_correct(x, y), "y": functional.softmax(x)}

    found = build(metrics, x, labels)(x, labels)
    assert float(found["hits"]) == reference.top_k_correct(x, labels)
    tolerances.assert_bits(found["loss"], functional.cross_entropy(x, labels))
    tolerances.assert_bits(found["y"], functional.softmax(x))
