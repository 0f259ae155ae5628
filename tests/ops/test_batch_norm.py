"""Batch normalisation: training, inference, folding into the layer before it."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import build, gradients, isas, paths, reals, run

import pycnn
from pycnn import _core, functional
from pycnn.errors import ArgumentError, GraphError, ShapeError
from pycnn.program import OptimizerSpec, compile_traced
from pycnn.tensor import Parameter
from pycnn.testing import check_gradients
from pycnn.tracing import emit, trace

SHAPES = [
    (2, 1, 1, 1),
    (2, 1, 1, 17),
    (1, 2, 1, 3),
    (3, 5, 7, 1),
    (3, 5, 7, 2),
    (2, 9, 4, 15),
    (2, 6, 5, 16),
    (4, 3, 3, 33),
    (1, 8, 8, 65),
    (2, 3, 1000),
    (33, 7),
    (300, 3),
    (2, 2, 1, 2049),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))


def make_arrays(shape, seed=0, dtype=np.float32):
    """Input, scale, shift, running mean and variance."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    x = reals(rng, shape) * 2 + 1
    statistics = [reals(rng, (channels,)), np.abs(reals(rng, (channels,))) + 0.5]
    return [a.astype(dtype) for a in (x, reals(rng, (channels,)) + 1, reals(rng, (channels,)), *statistics)]


def train(*tensors, **options):
    """All five results of the training op, by number."""
    results = emit(_core.BatchNormTrain(**options), list(tensors), outputs=5)
    return {str(i): result for i, result in enumerate(results)}


def infer(*tensors):
    return emit(_core.BatchNormInference(), list(tensors))


def output_magnitude(x, scale, shift, mean, inv_std):
    return (np.abs(reference.f64(x)) + np.abs(mean)) * inv_std * np.abs(scale) + np.abs(shift)


@shapes
@pytest.mark.parametrize("path", paths("batch_norm_train"))
def test_training_normalises_and_tracks(shape, path):
    arrays = make_arrays(shape)
    x, scale, shift, running_mean, running_var = arrays
    options = {"eps": 1e-3, "momentum": 0.25}
    output, mean, inv_std, new_mean, new_var = reference.batch_norm_train(*arrays, **options)
    found = run(lambda *s: train(*s, **options), *arrays, path=path)
    count = x.size // shape[-1]
    absolute = np.abs(reference.f64(x)).reshape(-1, shape[-1]).mean(axis=0)
    tolerances.assert_within(found["1"], mean, tolerances.sum_bound(absolute, count), "mean")
    # Deviations are exact to the rounding of x - mean, their squares add up.
    variance = 1 / inv_std**2
    spread = tolerances.sum_bound(variance + absolute * np.sqrt(variance), count)
    slack = spread * inv_std**3
    tolerances.assert_within(found["2"], inv_std, slack + tolerances.elementwise_bound(inv_std), "inv_std")
    mean_bound = tolerances.sum_bound(np.abs(running_mean) + absolute, count)
    tolerances.assert_within(found["3"], new_mean, mean_bound, "running mean")
    tolerances.assert_within(found["4"], new_var, 2 * spread + tolerances.elementwise_bound(running_var), "running var")
    bound = tolerances.sum_bound(output_magnitude(x, scale, shift, mean, inv_std), count)
    # The error of the spread acts on what it divides.
    bound = bound + np.abs((x - mean) * scale) * slack
    tolerances.assert_within(found["0"], output, bound, "output")


@pytest.mark.parametrize("path", paths("batch_norm_train"))
@pytest.mark.parametrize("channels", [1, 3, 16, 33])
def test_running_variance_is_unbiased_and_the_output_is_not(channels, path):
    # Two values, one apart each side of the mean: variance 1 of two values, unbiased 2.
    x = np.stack([np.full(channels, 4.0), np.full(channels, 6.0)]).astype(np.float32)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    found = run(lambda *s: train(*s, eps=1e-12, momentum=0.5), x, ones, zeros, zeros, zeros, path=path)
    tolerances.assert_exact(found["4"], np.full(channels, 1.0), "0.5 * unbiased variance of 2")
    tolerances.assert_exact(found["3"], np.full(channels, 2.5))
    tolerances.assert_exact(found["2"], np.ones(channels))
    tolerances.assert_exact(found["0"], x - 5.0)


@pytest.mark.parametrize("path", paths("batch_norm_train"))
@pytest.mark.parametrize("shape", [(40, 3), (7, 6, 6, 17), (2, 50, 50, 1), (3000, 2), (2, 8, 8, 64)])
def test_a_large_mean_does_not_swallow_the_spread(shape, path):
    rng = np.random.default_rng(0)
    sign = np.ones(shape[:-1]).ravel()
    sign[: sign.size // 2] = -1
    sign = rng.permutation(sign).reshape(*shape[:-1], 1)
    x = np.broadcast_to(3000.0 + sign, shape).astype(np.float32)  # mean 3000, deviation 1, both exact
    channels = shape[-1]
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    found = run(lambda *s: train(*s), x, ones, zeros, zeros, ones, path=path)
    expected = reference.batch_norm_train(x, ones, zeros, zeros, ones)
    for i, want in enumerate(expected):
        # The mean may be rounded once to float32, no more.
        bound = tolerances.elementwise_bound(want) + (3000 * tolerances.unit() if i == 0 else 0)
        tolerances.assert_within(found[str(i)], want, bound, f"result {i}")


@pytest.mark.parametrize("path", paths("batch_norm_train"))
def test_noise_around_a_large_mean(path):
    x = (reals(np.random.default_rng(0), (8, 10, 10, 5), np.float64) + 3000).astype(np.float32)
    ones, zeros = np.ones(5, np.float32), np.zeros(5, np.float32)
    found = run(lambda *s: train(*s), x, ones, zeros, zeros, ones, path=path)
    inv_std = reference.batch_norm_train(x, ones, zeros, zeros, ones)[2]
    # Each deviation carries the rounding of the mean, which the variance sees squared or averaged out.
    bound = tolerances.sum_bound(inv_std, 800)
    tolerances.assert_within(found["2"], inv_std, 2 * bound)


@shapes
@pytest.mark.parametrize("path", paths("batch_norm_inference"))
def test_inference_uses_the_running_statistics(shape, path):
    arrays = make_arrays(shape)
    x, scale, shift, mean, var = arrays
    magnitude = output_magnitude(x, scale, shift, mean, 1 / np.sqrt(reference.f64(var) + 1e-5))
    found = run(functional.batch_norm, *arrays, path=path)
    tolerances.assert_within(found, reference.batch_norm_inference(*arrays), tolerances.elementwise_bound(magnitude))


@pytest.mark.parametrize("path", paths("batch_norm_inference"))
def test_empty_batch(path):
    arrays = make_arrays((1, 4, 4, 3))
    arrays[0] = arrays[0][:0]
    assert run(functional.batch_norm, *arrays, path=path).shape == (0, 4, 4, 3)


# ---- Gradients


def train_output(*tensors):
    return emit(_core.BatchNormTrain(), list(tensors), outputs=5)[0]


@shapes
@pytest.mark.parametrize("path", paths("batch_norm_train_grad"))
def test_gradients_of_training_agree_with_float64(shape, path):
    x, scale, shift, mean, var = make_arrays(shape, seed=1)
    grad = reals(np.random.default_rng(2), shape)
    doubles = [a.astype(np.float64) for a in (x, scale, shift, mean, var)]
    want = gradients(train_output, *doubles, grad=grad.astype(np.float64), wrt=(0, 1, 2))
    found = gradients(train_output, x, scale, shift, mean, var, grad=grad, path=path, wrt=(0, 1, 2))
    channels, count = shape[-1], x.size // shape[-1]
    rows, grads = doubles[0].reshape(-1, channels), np.abs(grad.astype(np.float64)).reshape(-1, channels)
    center = rows.mean(axis=0)
    inv_std = 1 / np.sqrt(((rows - center) ** 2).mean(axis=0) + 1e-5)
    normal = (np.abs(rows) + np.abs(center)) * inv_std
    # What the statistics lose when few values lie close together: their error relative to the spread.
    condition = 1 + (np.abs(rows).mean(axis=0) * inv_std) ** 2
    sums, products = grads.sum(axis=0), (grads * normal).sum(axis=0)
    magnitude = np.abs(scale) * inv_std * (grads + sums / count + normal * products / count) * condition
    bounds = (magnitude.reshape(shape), products * condition, sums)
    for name, got, truth, magnitude in zip(("input", "scale", "shift"), found, want, bounds):
        tolerances.assert_within(got, truth, tolerances.sum_bound(magnitude, count), name)


@shapes
@pytest.mark.parametrize("path", paths("batch_norm_inference_grad"))
def test_gradients_of_inference_agree_with_float64(shape, path):
    arrays = make_arrays(shape, seed=1)
    grad = reals(np.random.default_rng(2), shape)
    doubles = [a.astype(np.float64) for a in arrays]
    want = gradients(infer, *doubles, grad=grad.astype(np.float64), wrt=(0, 1, 2))
    found = gradients(infer, *arrays, grad=grad, path=path, wrt=(0, 1, 2))
    x, scale, _, mean, var = doubles
    inv_std = 1 / np.sqrt(var + 1e-5)
    axes = tuple(range(len(shape) - 1))
    products = (np.abs(grad) * (np.abs(x) + np.abs(mean)) * inv_std).sum(axis=axes)
    bounds = (np.abs(grad) * np.abs(scale) * inv_std, products, np.abs(grad).astype(np.float64).sum(axis=axes))
    for name, got, truth, magnitude in zip(("input", "scale", "shift"), found, want, bounds):
        tolerances.assert_within(got, truth, tolerances.sum_bound(magnitude, x.size // shape[-1]), name)


@pytest.mark.parametrize("shape", [(3, 1), (2, 3, 4, 3), (5, 17)])
def test_gradients_agree_with_finite_differences(shape):
    arrays = make_arrays(shape, seed=3, dtype=np.float64)
    check_gradients(train_output, *arrays, argnums=(0, 1, 2))
    check_gradients(infer, *arrays, argnums=(0, 1, 2))


def norm_with_parameters(channels, **options):
    rng = np.random.default_rng(5)
    scale, shift = (Parameter((channels,), init=reals(rng, (channels,))) for _ in range(2))
    mean = Parameter((channels,), init=reals(rng, (channels,)), trainable=False)
    var = Parameter((channels,), init=np.abs(reals(rng, (channels,))) + 1, trainable=False)
    for name, parameter in zip(("scale", "shift", "mean", "var"), (scale, shift, mean, var)):
        parameter.name = name
    return (scale, shift, mean, var), lambda x: functional.batch_norm(x, scale, shift, mean, var, **options)


@pytest.mark.parametrize("options", [{"training": True}, {"training": False}])
def test_gradients_of_the_recorded_op_agree_with_finite_differences(options):
    _, norm = norm_with_parameters(3)
    check_gradients(norm, reals(np.random.default_rng(0), (2, 3, 3, 3)), parameters=(), **options)


def test_frozen_uses_the_running_statistics_while_training():
    (_, _, mean, var), norm = norm_with_parameters(3, frozen=True)
    x = reals(np.random.default_rng(0), (2, 3, 3, 3))
    before = mean.numpy(), var.numpy()
    traced = trace(lambda x: norm(x), {"x": (x.shape, "float32")})
    trained = compile_traced(traced, mode="training")(x)
    tolerances.assert_bits(trained, compile_traced(traced)(x))
    tolerances.assert_bits(mean.numpy(), before[0])
    tolerances.assert_bits(var.numpy(), before[1])


@pytest.mark.parametrize("path", isas())
def test_a_training_program_updates_the_running_statistics(path):
    parameters, norm = norm_with_parameters(17, momentum=0.3)
    start = [p.numpy() for p in parameters]
    x = reals(np.random.default_rng(0), (4, 5, 5, 17))
    traced = trace(lambda x: norm(x), {"x": (x.shape, "float32")})
    program = compile_traced(traced, mode="training", **path.options)
    mean, var = start[2:]
    for _ in range(3):
        program(x)
        _, _, _, mean, var = reference.batch_norm_train(x, *start[:2], mean, var, momentum=0.3)
    bound = tolerances.sum_bound(np.abs(x).max() + np.abs(mean) + var, 3 * 100)
    tolerances.assert_within(parameters[2].numpy(), mean, bound)
    tolerances.assert_within(parameters[3].numpy(), var, bound)


def test_a_layer_used_twice_tracks_twice():
    parameters, norm = norm_with_parameters(3)
    start = [p.numpy() for p in parameters]
    x = reals(np.random.default_rng(0), (4, 5, 5, 3))
    traced = trace(lambda x: norm(norm(x)), {"x": (x.shape, "float32")})
    compile_traced(traced, mode="training")(x)
    middle, _, _, mean, var = reference.batch_norm_train(x, *start)
    _, _, _, mean, var = reference.batch_norm_train(middle, *start[:2], mean, var)
    bound = tolerances.sum_bound(np.abs(x).max() * (1 + np.abs(mean) + var), 100)
    tolerances.assert_within(parameters[2].numpy(), mean, bound)
    tolerances.assert_within(parameters[3].numpy(), var, bound)


def test_asking_for_gradients_leaves_the_running_statistics_alone():
    (_, _, mean, var), norm = norm_with_parameters(3)
    before = mean.numpy(), var.numpy()
    x = reals(np.random.default_rng(0), (4, 5, 5, 3))
    pycnn.grad(lambda x: functional.sum(norm(x)), training=True)(x)
    tolerances.assert_bits(mean.numpy(), before[0])
    tolerances.assert_bits(var.numpy(), before[1])


# ---- Folding


@pytest.mark.parametrize("path", paths("fold_batch_norm"))
@pytest.mark.parametrize(("shape", "bias"), [((17, 3, 3, 5), True), ((1, 1, 1, 1), False), ((33, 7), True)])
def test_folded_weights(shape, bias, path):
    rng = np.random.default_rng(0)
    _, scale, shift, mean, var = make_arrays((2, shape[0]))
    arrays = [reals(rng, shape), scale, shift, mean, var] + ([reals(rng, shape[:1])] if bias else [])

    def fold(*tensors):
        weight, folded_bias = emit(_core.FoldBatchNorm(), list(tensors), outputs=2)
        return {"weight": weight, "bias": folded_bias}

    found = run(fold, *arrays, path=path)
    weight, folded_bias = reference.fold_batch_norm(*arrays)
    factor = np.abs(scale) / np.sqrt(var + 1e-5)
    magnitude = (np.abs(arrays[5] if bias else 0) + np.abs(mean)) * factor + np.abs(shift)
    tolerances.assert_within(found["weight"], weight, tolerances.elementwise_bound(weight))
    tolerances.assert_within(found["bias"], folded_bias, tolerances.elementwise_bound(magnitude))


@pytest.mark.parametrize("path", isas())
@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_inference_folds_into_the_layer_before(kind, path):
    rng = np.random.default_rng(0)
    groups = 17 if kind == "depthwise" else 1
    weight_shape = {"conv": (17, 3, 3, 17), "depthwise": (17, 3, 3, 1), "dense": (17, 17)}[kind]
    weight = Parameter(weight_shape, init=reals(rng, weight_shape))
    bias = Parameter((17,), init=reals(rng, (17,)))
    weight.name, bias.name = "weight", "bias"
    parameters, norm = norm_with_parameters(17)
    x = reals(rng, (3, 17) if kind == "dense" else (2, 6, 6, 17))

    def layer(x):
        if kind == "dense":
            return functional.relu(norm(functional.linear(x, weight, bias)))
        return functional.relu(norm(functional.conv2d(x, weight, bias, padding=1, groups=groups)))

    fused = build(layer, x, path=path)
    plain = build(layer, x, path=path, fuse=False)
    assert "batch_norm_inference" not in fused.explain()
    assert "batch_norm_inference" in plain.explain()
    scale, shift, mean, var = (p.numpy() for p in parameters)
    absolute = np.abs(x), np.abs(weight.numpy() if kind == "dense" else weight.core.view()), np.abs(bias.numpy())
    linear = reference.linear if kind == "dense" else reference.conv2d
    options = {} if kind == "dense" else {"padding": 1, "groups": groups}
    magnitude = (linear(*absolute, **options) + np.abs(mean)) * np.abs(scale) / np.sqrt(var) + np.abs(shift)
    bound = tolerances.sum_bound(magnitude, np.prod(weight_shape[1:]))
    tolerances.assert_within(fused(x), reference.f64(plain(x)), bound)
    # Changed weights are folded again.
    before = fused(x)
    parameters[0].copy_(scale * 2)
    tolerances.assert_within(fused(x), reference.f64(plain(x)), 2 * bound)
    assert not np.array_equal(before, fused(x))


# ---- Properties


@pytest.mark.parametrize("path", isas())
@pytest.mark.parametrize("shape", [(9, 11, 13, 3), (4, 8, 8, 33), (2000, 5), (8, 16, 16, 64)])
def test_any_number_of_threads_gives_the_same_bits(shape, path):
    arrays = make_arrays(shape)
    grad = reals(np.random.default_rng(1), shape)
    first = run(lambda *s: train(*s), *arrays, path=path, threads=1)
    expected = gradients(train_output, *arrays, grad=grad, path=path, wrt=(0, 1, 2), threads=1)
    inferred = gradients(infer, *arrays, grad=grad, path=path, wrt=(0, 1, 2), threads=1)
    for threads in (2, 3, 7):
        again = run(lambda *s: train(*s), *arrays, path=path, threads=threads)
        for name in first:
            tolerances.assert_bits(again[name], first[name])
        found = gradients(train_output, *arrays, grad=grad, path=path, wrt=(0, 1, 2), threads=threads)
        found += gradients(infer, *arrays, grad=grad, path=path, wrt=(0, 1, 2), threads=threads)
        for got, want in zip(found, (*expected, *inferred)):
            tolerances.assert_bits(got, want)


@pytest.mark.parametrize("path", isas())
def test_inference_of_a_batch_has_the_bits_of_its_images_alone(path):
    arrays = make_arrays((8, 5, 7, 19))
    whole = run(functional.batch_norm, *arrays, path=path)
    for i in range(8):
        one = run(functional.batch_norm, arrays[0][i : i + 1], *arrays[1:], path=path)
        tolerances.assert_bits(one, whole[i : i + 1])


@pytest.mark.parametrize("path", paths("batch_norm_train", "batch_norm_inference"))
def test_nan_reaches_its_channel_only(path):
    arrays = make_arrays((2, 3, 4, 18))
    arrays[0][1, 2, 3, 7] = np.nan
    found = run(lambda *s: train(*s), *arrays, path=path)
    for name in ("0", "1", "2", "3", "4"):
        hit = np.isnan(found[name])
        assert hit[..., 7].all(), name
        assert not np.delete(hit, 7, axis=-1).any(), name
    hit = np.isnan(run(functional.batch_norm, *arrays, path=path))
    assert hit[1, 2, 3, 7]
    assert hit.sum() == 1


@pytest.mark.parametrize("path", paths("batch_norm_train"))
def test_a_constant_channel_becomes_the_shift(path):
    x = np.full((2, 4, 4, 5), 0.1, np.float32)
    scale, shift = np.full(5, 2.0, np.float32), np.arange(5, dtype=np.float32)
    zeros = np.zeros(5, np.float32)
    found = run(lambda *s: train(*s), x, scale, shift, zeros, zeros, path=path)
    # The mean of equal values may be off by their rounding, which 1 / sqrt(eps) magnifies.
    bound = tolerances.sum_bound(0.1 / np.sqrt(1e-5) * 2 + shift, 32)
    tolerances.assert_within(found["0"], np.broadcast_to(shift, x.shape), bound)


# ---- Errors


def test_rejects_channel_mismatch_with_the_numbers():
    x = np.zeros((2, 4, 4, 3), np.float32)
    three, four = np.ones(3, np.float32), np.ones(4, np.float32)
    with pytest.raises(ShapeError, match=r"input has 3 channels, shift is \(4,?\)"):
        functional.batch_norm(x, three, four, three, three)
    with pytest.raises(ShapeError, match="channels-last"):
        functional.batch_norm(x.transpose(0, 3, 1, 2), three, three, three, three)


def test_rejects_a_single_value_per_channel_while_training():
    _, norm = norm_with_parameters(3)
    traced = trace(lambda x: norm(x), {"x": ((1, 1, 1, 3), "float32")})
    compile_traced(traced)
    with pytest.raises(ArgumentError, match=r"at least 2 values per channel"):
        compile_traced(traced, mode="training")


@pytest.mark.parametrize("options", [{"eps": -1.0}, {"momentum": 1.5}, {"momentum": float("nan")}])
def test_rejects_numbers_out_of_range(options):
    (name, value), one = next(iter(options.items())), np.ones(3, np.float32)
    with pytest.raises(ArgumentError, match=f"{name} is {value:g}"):
        functional.batch_norm(np.zeros((2, 3), np.float32), one, one, one, one, **options)


def test_training_needs_buffers_for_the_statistics():
    x = np.zeros((4, 3), np.float32)

    def norm(x, mean):
        ones = np.ones(3, np.float32)
        return functional.batch_norm(x, ones, ones, mean, ones)

    with pytest.raises(GraphError, match="running statistics"):
        build(norm, x, x[0], mode="training", optimizer=OptimizerSpec())


# ---- Another library


@pytest.mark.interop
def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    arrays = make_arrays((4, 5, 6, 7), dtype=np.float64)
    x, scale, shift, mean, var = (torch.from_numpy(a.copy()) for a in arrays)
    image = x.permute(0, 3, 1, 2).requires_grad_()
    scale.requires_grad_()
    shift.requires_grad_()
    output = torch.nn.functional.batch_norm(image, mean, var, scale, shift, training=True)  # its default eps, momentum
    grad = reals(np.random.default_rng(1), (4, 5, 6, 7), np.float64)
    output.backward(torch.from_numpy(grad).permute(0, 3, 1, 2))
    found = run(lambda *s: train(*s), *arrays)
    truth = {"0": output.permute(0, 2, 3, 1).detach().numpy(), "3": mean.numpy(), "4": var.numpy()}
    for name, want in truth.items():
        bound = tolerances.sum_bound(np.abs(arrays[0]).max() * 4, 120, np.float64)
        tolerances.assert_within(found[name], want, bound, name)
    wants = (image.grad.permute(0, 2, 3, 1), scale.grad, shift.grad)
    for got, want in zip(gradients(train_output, *arrays, grad=grad, wrt=(0, 1, 2)), wants):
        bound = tolerances.sum_bound(np.abs(grad).sum() * 4, 120, np.float64)
        tolerances.assert_within(got, want.numpy(), bound)
