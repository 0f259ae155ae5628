"""Residual and inception blocks, and how passes treat them."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from kernel_paths import isas, reals

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.program import OptimizerSpec, compile_traced
from pycnn.tensor import Parameter
from pycnn.testing import check_gradients
from pycnn.tracing import trace

RESIDUAL = {
    "basic": {"kind": "basic", "in_channels": 5, "channels": 5},
    "basic_down": {"kind": "basic", "in_channels": 3, "channels": 4, "stride": 2},
    "bottleneck": {"kind": "bottleneck", "in_channels": 8, "channels": 2},
    "bottleneck_down": {"kind": "bottleneck", "in_channels": 3, "channels": 2, "stride": 2},
    "grouped": {"kind": "bottleneck", "in_channels": 16, "channels": 4, "groups": 2, "base_width": 32},
    "padded": {"kind": "basic", "in_channels": 3, "channels": 5, "stride": 2, "shortcut": "zero_pad"},
    "pre_activated": {
        "kind": "basic", "in_channels": 3, "channels": 4, "stride": 2, "shortcut": "zero_pad", "pre_activation": True
    },
    "pre_bottleneck": {"kind": "bottleneck", "in_channels": 3, "channels": 2, "stride": 2, "pre_activation": True},
}  # fmt: skip
INCEPTION = {
    "plain": {"in_channels": 5, "branch1": 2, "reduce3": 3, "branch3": 4, "reduce5": 1, "branch5": 2, "pool": 3},
    "normed": {
        "in_channels": 3, "branch1": 3, "reduce3": 2, "branch3": 3, "reduce5": 2, "branch5": 1, "pool": 2,
        "batch_norm": True, "branch5_kernel": 3,
    },
}  # fmt: skip
BLOCKS = {f"residual_{k}": ("residual", v) for k, v in RESIDUAL.items()}
BLOCKS |= {f"inception_{k}": ("inception", v) for k, v in INCEPTION.items()}
blocks = pytest.mark.parametrize("name", BLOCKS)


def make(name, seed=0):
    """Parameters by name with values away from all symmetry, and the block as a function of x."""
    kind, config = BLOCKS[name]
    rng = np.random.default_rng(seed)
    parameters = dict(getattr(functional, f"{kind}_parameters")(**config))
    for key, parameter in parameters.items():
        values = reals(rng, parameter.disk_shape) * 0.5
        if "running_var" in key:
            values = np.abs(values) + 0.5
        elif ("bn" in key or "downsample.1" in key) and key.endswith("weight"):
            values = values + 1
        parameter.name = key
        parameter.copy_(values)
    run = getattr(functional, f"{kind}_block")
    return parameters, lambda x: run(x, parameters, **config)


def image(name, size=5, batch=2, seed=1):
    return reals(np.random.default_rng(seed), (batch, size, size, BLOCKS[name][1]["in_channels"]))


@blocks
@pytest.mark.parametrize("training", [True, False])
def test_gradients_agree_with_finite_differences(name, training):
    # A seed whose values before each ReLU and within each pooling window keep clear of kinks and ties.
    for seed in range(8):
        _, block = make(name, seed)
        try:
            check_gradients(block, image(name, 4, seed=seed), parameters=(), training=training, elements=4)
            return
        except AssertionError as error:
            if "kink" not in str(error):
                raise
    pytest.fail("every seed has a kink nearby")


def torch_residual(torch, config, tensors, x, training):
    f = torch.nn.functional

    def norm(y, prefix):
        statistics = tensors[prefix + ".running_mean"], tensors[prefix + ".running_var"]
        return f.batch_norm(y, *statistics, tensors[prefix + ".weight"], tensors[prefix + ".bias"], training)

    stride, groups = config.get("stride", 1), config.get("groups", 1)
    if config.get("pre_activation"):
        first = y = f.relu(norm(x, "bn1"))
        count = 2 if config["kind"] == "basic" else 3
        for i in range(1, count + 1):
            y = f.relu(norm(y, f"bn{i}")) if i > 1 else y
            weight = tensors[f"conv{i}.weight"]
            steps = stride if i == count - 1 else 1
            y = f.conv2d(y, weight, stride=steps, padding=weight.shape[2] // 2)
        return y + torch_shortcut(torch, config, tensors, x, y, first)
    if config["kind"] == "basic":
        y = f.relu(norm(f.conv2d(x, tensors["conv1.weight"], stride=stride, padding=1), "bn1"))
        y = norm(f.conv2d(y, tensors["conv2.weight"], padding=1), "bn2")
    else:
        y = f.relu(norm(f.conv2d(x, tensors["conv1.weight"]), "bn1"))
        y = f.relu(norm(f.conv2d(y, tensors["conv2.weight"], stride=stride, padding=1, groups=groups), "bn2"))
        y = norm(f.conv2d(y, tensors["conv3.weight"]), "bn3")
    if config.get("shortcut") == "zero_pad":
        x = torch_shortcut(torch, config, tensors, x, y, None)
    elif "downsample.0.weight" in tensors:
        x = norm(f.conv2d(x, tensors["downsample.0.weight"], stride=stride), "downsample.1")
    return f.relu(y + x)


def torch_shortcut(torch, config, tensors, x, y, activated):
    if "downsample.0.weight" in tensors:
        return torch.nn.functional.conv2d(activated, tensors["downsample.0.weight"], stride=config["stride"])
    padded = torch.zeros_like(y)
    padded[:, : x.shape[1]] = x[:, :, :: config["stride"], :: config["stride"]]
    return padded


def torch_inception(torch, config, tensors, x, training):
    f = torch.nn.functional

    def conv(y, prefix):
        weight = tensors[prefix + ".conv.weight"]
        y = f.conv2d(y, weight, tensors.get(prefix + ".conv.bias"), padding=weight.shape[2] // 2)
        if config.get("batch_norm"):
            prefix += ".bn"
            statistics = tensors[prefix + ".running_mean"], tensors[prefix + ".running_var"]
            y = f.batch_norm(y, *statistics, tensors[prefix + ".weight"], tensors[prefix + ".bias"], training, eps=1e-3)
        return f.relu(y)

    branches = [
        conv(x, "branch1"),
        conv(conv(x, "branch2.0"), "branch2.1"),
        conv(conv(x, "branch3.0"), "branch3.1"),
        conv(f.max_pool2d(x, 3, stride=1, padding=1), "branch4.1"),
    ]
    return torch.cat(branches, dim=1)


@pytest.mark.interop
@blocks
@pytest.mark.parametrize("training", [True, False])
def test_forward_agrees_with_torch_in_float64(name, training):
    torch = pytest.importorskip("torch")
    kind, config = BLOCKS[name]
    parameters, block = make(name)
    tensors = {key: torch.from_numpy(p.numpy().astype(np.float64)) for key, p in parameters.items()}
    x = image(name, 7).astype(np.float64)
    theirs = {"residual": torch_residual, "inception": torch_inception}[kind]
    expected = theirs(torch, config, tensors, torch.from_numpy(x).permute(0, 3, 1, 2), training)
    expected = expected.permute(0, 2, 3, 1).numpy()
    traced = trace(lambda x: block(x), {"x": (x.shape, "float64")}, parameter_dtype="float64")
    found = compile_traced(traced, mode="training" if training else "inference")(x)
    tolerances.assert_within(found, expected, tolerances.sum_bound(np.abs(expected).max(), 1000, np.float64))


def deviation(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@blocks
@pytest.mark.parametrize("path", isas())
def test_float32_stays_close_to_float64(name, path):
    _, block = make(name)
    x = image(name, 9)
    truth = compile_traced(trace(lambda x: block(x), {"x": (x.shape, "float64")}, parameter_dtype="float64"))(
        x.astype(np.float64)
    )
    traced = trace(lambda x: block(x), {"x": (x.shape, "float32")})
    for options in ({}, {"fuse": False}, {"reuse_memory": False}):
        found = compile_traced(traced, **path.options, **options)(x)
        assert deviation(found, truth) < tolerances.sum_bound(1.0, 9 * 64), options


@blocks
@pytest.mark.parametrize("path", isas())
def test_threads_memory_plans_and_batch_splits_give_the_same_bits(name, path):
    _, block = make(name)
    x = image(name, 9, batch=8)
    traced = trace(lambda x: block(x), {"x": (x.shape, "float32")})
    first = compile_traced(traced, threads=1, **path.options)(x)
    for options in ({"threads": 2}, {"threads": 3}, {"threads": 7}, {"reuse_memory": False}):
        tolerances.assert_bits(compile_traced(traced, **path.options, **options)(x), first, f"{options}")
    single = compile_traced(trace(lambda x: block(x), {"x": ((1, *x.shape[1:]), "float32")}), **path.options)
    for i in range(8):
        tolerances.assert_bits(single(x[i : i + 1]), first[i : i + 1])


def weights_after(name, dtype="float32", steps=3, **options):
    """Parameters after some steps of momentum on a loss of the block."""
    parameters, block = make(name)
    x = image(name, 9, batch=4).astype(dtype)
    traced = trace(
        lambda x: {"loss": functional.mean(block(x) * block(x))},
        {"x": (x.shape, dtype)},
        parameter_dtype="float64" if dtype == "float64" else None,
    )
    program = compile_traced(traced, mode="training", optimizer=OptimizerSpec("sgd", momentum=0.9), **options)
    for _ in range(steps):
        program(x)
    return {key: program.variables[key].numpy().copy() for key in parameters}


@blocks
@pytest.mark.parametrize("path", isas())
def test_training_has_the_same_bits_for_any_threads_and_memory_plan(name, path):
    expected = weights_after(name, threads=1, **path.options)
    assert any(not np.array_equal(expected[key], p.core.view()) for key, p in make(name)[0].items())
    for options in ({"threads": 2}, {"threads": 7}, {"reuse_memory": False}):
        for key, values in weights_after(name, **path.options, **options).items():
            tolerances.assert_bits(values, expected[key], f"{key} {options}")


@blocks
@pytest.mark.parametrize("path", isas())
def test_training_in_float32_stays_close_to_float64(name, path):
    truth = weights_after(name, "float64")
    for options in ({}, {"fuse": False}):
        found = weights_after(name, **path.options, **options)
        for key, want in truth.items():
            # Batch norms divide by a spread that few pixels estimate, so each layer adds to the error.
            assert deviation(found[key], want) < tolerances.sum_bound(1.0, 3 * 4 * 81 * 9 * 64), (key, options)


@pytest.mark.parametrize("path", isas())
def test_training_never_mixes_up_what_fusing_joins(path):
    # An activation whose input is needed again for the gradients, a shared convolution, a residual used twice.
    rng = np.random.default_rng(0)
    start = reals(rng, (6, 3, 3, 6)) * 0.3
    x = reals(rng, (2, 7, 7, 6))

    def weights(dtype="float32", **options):
        weight = Parameter(start.shape, init=start, layout="conv")
        weight.name = "weight"

        def net(x):
            y = functional.conv2d(x, weight, padding=1)
            z = functional.relu(functional.conv2d(functional.relu(y), weight, padding=1) + x)
            return {"loss": functional.mean(functional.tanh(z + y) * z), "y": y}

        traced = trace(net, {"x": (x.shape, dtype)}, parameter_dtype="float64" if dtype == "float64" else None)
        program = compile_traced(traced, mode="training", optimizer=OptimizerSpec("sgd"), **options)
        for _ in range(3):
            program(x.astype(dtype))
        return program.variables["weight"].numpy().copy()

    truth = weights("float64")
    first = weights(**path.options)
    tolerances.assert_within(first, truth, tolerances.sum_bound(np.abs(truth) + 0.01, 2 * 49 * 54))
    for options in ({"fuse": False}, {"reuse_memory": False}, {"threads": 3}):
        again = weights(**path.options, **options)
        tolerances.assert_within(again, truth, tolerances.sum_bound(np.abs(truth) + 0.01, 2 * 49 * 54), f"{options}")
        if "fuse" not in options:
            tolerances.assert_bits(again, first, f"{options}")


def test_zero_init_makes_a_fresh_block_the_identity():
    config = {"kind": "basic", "in_channels": 4, "channels": 4, "zero_init_residual": True}
    parameters = dict(functional.residual_parameters(**config))
    for key, parameter in parameters.items():
        parameter.name = key
    x = np.abs(reals(np.random.default_rng(0), (1, 5, 5, 4)))
    tolerances.assert_exact(functional.residual_block(x, parameters, **config), x)


def test_rejects_sizes_and_channels_with_the_numbers():
    with pytest.raises(ArgumentError, match="channels"):
        functional.residual_parameters(kind="basic", in_channels=4, channels=0)
    with pytest.raises(ArgumentError, match="in_channels is 5, the output has 4; .* cannot drop any"):
        functional.residual_parameters(kind="basic", in_channels=5, channels=4, shortcut="zero_pad")
    with pytest.raises(ArgumentError, match="zero_init_residual needs a batch norm behind the last"):
        functional.residual_parameters(in_channels=4, channels=4, pre_activation=True, zero_init_residual=True)
    with pytest.raises(ArgumentError, match="shortcut 'pad' is not one of projection, zero_pad"):
        functional.residual_parameters(in_channels=4, channels=4, shortcut="pad")
    with pytest.raises((ArgumentError, TypeError), match="stride"):
        functional.residual_parameters(kind="basic", in_channels=4, channels=4, stride=0)
    _, block = make("residual_basic")
    with pytest.raises(ShapeError, match="input has 4 channels, weight expects 5") as caught:
        block(np.zeros((1, 5, 5, 4), np.float32))
    assert "conv1" in str(caught.value)
    _, block = make("inception_plain")
    with pytest.raises(ShapeError, match="input has 4 channels, weight expects 5"):
        block(np.zeros((1, 5, 5, 4), np.float32))
