"""Steps of a training on a GPU that other steps do (`compile/join_updates.cpp`, `compile/absorb_neighbours.cpp`): how
many are left, and that bits are those of steps by themselves. As `test_device_training.py`, this needs no GPU where
the emulated module is named.
"""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from pycnn import functional, models, nn, optim
from pycnn.config import manual_seed
from pycnn.program import compile_traced
from pycnn.tracing import trace

pytestmark = pytest.mark.cuda

# On a GPU a library's kernels may be the first choice, and these do nothing of their neighbours'.
OWN_KERNELS = "emulated" in os.environ.get("PYCNN_CUDA_MODULE", "")
BATCH = 3 if OWN_KERNELS else 5  # the emulated device takes its time
APART = dict.fromkeys(("sgd_update", "adam_update", "ema_update", "cast", "transpose", "activation_grad"), "reference")
if OWN_KERNELS:  # which pack their weights themselves then
    APART |= dict.fromkeys(("conv2d", "conv2d_grad_input", "dense", "dense_grad_input"), "reference")
OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda: optim.SGD(0.05, momentum=0.9, nesterov=True),
    "plain": lambda: optim.SGD(0.05),
    "adam": lambda: optim.Adam(1e-3),
    "adamw": lambda: optim.AdamW(1e-3),
}


@pytest.fixture(autouse=True)
def same_kernels_every_time(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")


def small_alexnet():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(24, 17), nn.ReLU(), nn.Linear(17, 10),
    )  # fmt: skip


def of_images(root, x, y):
    return functional.cross_entropy(root(x), y)


def train(build, dtype, optimizer="sgd", steps=3, loss=of_images, **options):
    """Names of ops, losses, and all arrays after the steps."""
    manual_seed(3)
    root = build()
    inputs = {"x": ((BATCH, 28, 28, 1), "uint8"), "y": ((BATCH,), "int64")}
    traced = trace(lambda x, y: {"loss": loss(root, x, y)}, inputs, root=root)
    spec = OPTIMIZERS[optimizer]().spec({key: value for key, value in traced.parameters.items() if not value.is_buffer})
    program = compile_traced(traced, mode="training", optimizer=spec, device="cuda", dtype=dtype, **options)
    losses = []
    for step in range(steps):
        rng = np.random.default_rng(step)
        x, y = rng.integers(0, 256, (BATCH, 28, 28, 1), np.uint8), rng.integers(0, 10, BATCH)
        losses.append(program.run(x, y)["loss"].item())
    arrays = {name: np.array(program.variables[name].numpy()) for name in program.variables}
    return Counter(step["op"] for step in program.steps() if step["phase"] == "run"), losses, arrays


def assert_same(actual, expected):
    assert actual[1] == expected[1]
    assert actual[2].keys() == expected[2].keys()
    for name, value in expected[2].items():
        assert np.array_equal(actual[2][name], value), name


@pytest.mark.skipif(not OWN_KERNELS, reason="kernels of a library do nothing of their neighbours'")
def test_what_a_kernel_does_for_others_is_named():
    manual_seed(3)
    root = models.lenet5()
    traced = trace(
        lambda x, y: {"loss": of_images(root, x, y)}, {"x": ((2, 28, 28, 1), "uint8"), "y": ((2,), "int64")}, root=root
    )
    spec = optim.SGD(0.05).spec(dict(traced.parameters))
    program = compile_traced(traced, mode="training", optimizer=spec, device="cuda", dtype="bfloat16")
    absorbed = [each for step in program.steps() for each in step["absorbed"]]
    assert {op for _, op in absorbed} >= {"cast", "activation_grad"}
    text = program.explain()
    for name, op in absorbed:
        assert f"       does {op} of {name}\n" in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("build", [models.lenet5, small_alexnet])
def test_steps_that_others_do_change_no_bit(build, dtype):
    few, many = train(build, dtype), train(build, dtype, variants=APART)
    assert_same(few, many)
    assert few[0]["sgd_update"] == 1 < many[0]["sgd_update"]
    if OWN_KERNELS:
        assert (few[0]["pack"], many[0]["pack"]) == (1, 0)
        assert few[0]["activation_grad"] == few[0]["transpose"] == few[0]["cast"] == 0 < many[0]["transpose"]
        assert (many[0]["cast"] > 0) == (dtype != "float32")
    assert_same(train(build, dtype, reuse_memory=False), many)


def rounded(x):
    return functional.cast(functional.cast(x, dtype="bfloat16"), dtype="float32")


@pytest.mark.parametrize(
    "loss",
    [
        lambda root, x, y: of_images(root, rounded(functional.normalize_image(x, mean=(0.4,), std=(0.2,))), y),
        lambda root, x, y: functional.cross_entropy(rounded(root(functional.normalize_image(x))), y),
    ],
    ids=["images", "scores"],
)
def test_a_second_cast_does_not_undo_the_rounding_of_the_first(loss):
    few, many = (train(models.lenet5, "float32", loss=loss, variants=pins) for pins in ({}, APART))
    assert_same(few, many)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_joined_updates_change_no_bit(optimizer):
    few, many = (train(models.lenet5, "bfloat16", optimizer, variants=pins) for pins in ({}, APART))
    assert_same(few, many)
    op = "adam_update" if "adam" in optimizer else "sgd_update"
    assert (few[0][op], many[0][op]) == (1, 10)


@pytest.mark.skipif(not OWN_KERNELS, reason="on a GPU kernels of a library may be chosen or not")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_that_are_made_in_16_bits_are_read_so(monkeypatch, tmp_path, optimizer):
    calls = tmp_path / "calls"
    monkeypatch.setenv("PYCNN_EMULATED_NARROW", "1")
    monkeypatch.setenv("PYCNN_EMULATED_CALLS", str(calls))
    launches, trainings = [], []
    for pins in ({}, {"conv2d_grad_weight": "conv2d_grad_weight.cudnn"}):
        calls.unlink(missing_ok=True)
        trainings.append(train(small_alexnet, "bfloat16", optimizer, variants=pins))
        launches.append(calls.read_text().split().count("launch"))
    assert_same(*trainings)
    assert np.isfinite(trainings[0][1]).all()
    assert launches[1] - launches[0] == 3 * 3  # convolutions, steps


def test_a_step_of_lenet5_has_few_steps():
    # The image, two convolutions, two pools, three dense layers, their gradients but for the image's, the loss and its
    # gradient, the weights of all layers as they are multiplied, the updates and the step's number.
    count = train(models.lenet5, "bfloat16", steps=1)[0].total()
    assert count == 24 if OWN_KERNELS else count < 40


@pytest.mark.skipif(not OWN_KERNELS, reason="counted by the emulated device")
def test_a_step_of_lenet5_has_few_launches(monkeypatch, tmp_path):
    calls = tmp_path / "calls"
    monkeypatch.setenv("PYCNN_EMULATED_CALLS", str(calls))
    counts = []
    for steps in (1, 2):
        calls.unlink(missing_ok=True)
        train(models.lenet5, "bfloat16", steps=steps)
        counts.append(calls.read_text().split().count("launch"))
    # One for each step, and one more for the loss and for each convolution's gradient of weights: sums of chunks.
    assert counts[1] - counts[0] == 27


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_running_statistics_are_written_where_they_are(dtype):
    def build():
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(8, 10)
        )

    here, copied = train(build, dtype), train(build, dtype, reuse_memory=False)
    assert_same(here, copied)
    assert here[0]["copy"] == 0 < copied[0]["copy"]
    whole = {"batch_norm": "reference", "batch_norm_train": "reference"}
    assert train(build, dtype, variants=whole)[0]["copy"] == 0


# The pool's gradients are added up window by window, and not rounded in between.
@pytest.mark.parametrize(("dtype", "error"), [("float32", 2e-5), ("bfloat16", 4e-2), ("float16", 1e-2)])
@pytest.mark.parametrize("pools", [1, 2])
def test_a_max_pool_normalises_what_it_reads(dtype, error, pools):
    def build():
        channels, size = (16, 7) if pools == 1 else (8, 2)
        behind = [nn.Conv2d(16, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)] if pools == 2 else []
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1), *behind, nn.Flatten(), nn.Linear(channels * size**2, 10),
        )  # fmt: skip

    assert_same(train(build, dtype), train(build, dtype, recompute="none"))
    fused, stored = (train(build, dtype, steps=1, variants=pins) for pins in ({}, {"max_pool2d": "reference"}))
    for op, counts in (("batch_norm_max_pool", (pools, 0)), ("batch_norm_max_pool_grad", (pools, 0)),
                       ("max_pool2d", (0, pools)), ("max_pool2d_grad", (0, pools)),
                       ("batch_norm_apply_grad", (0, pools))):  # fmt: skip
        assert (fused[0][op], stored[0][op]) == counts, op
    assert fused[0]["transpose"] == 0 or not OWN_KERNELS
    assert fused[1] == stored[1]
    for name, value in stored[2].items():
        difference = np.linalg.norm((fused[2][name] - value).ravel().astype(np.float64))
        assert difference <= error * np.linalg.norm(value.ravel().astype(np.float64)), name
