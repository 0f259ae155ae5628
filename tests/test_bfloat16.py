"""Nets and single layers in bfloat16: by whatever computes it here, else emulated."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import ISAS, isas, reals

import pycnn as pc
from pycnn import functional, models, nn
from pycnn.errors import ArgumentError, DTypeError, UnsupportedError
from pycnn.program import plan_memory
from pycnn.tracing import trace

UNITS = pc.config.machine()["bfloat16_units"]
EMULATED = {"dtype": "bfloat16", "emulate_bfloat16": True}


def low(x):
    return functional.cast(x, dtype="bfloat16")


def full(x):
    return functional.cast(x, dtype="float32")


@functools.cache
def make(name):
    """A small net that was trained for some steps in float32, with images and labels."""
    pc.manual_seed(0)
    nets = {
        "lenet5": (models.lenet5, (28, 28, 1)),
        "resnet": (lambda: models.create("cifar_resnet20", num_classes=10), (16, 16, 3)),
        "inception": (lambda: models.create("cifar_googlenet", num_classes=10), (16, 16, 3)),
    }
    build, shape = nets[name]
    data, _ = pc.data.digits(seed=0, size=shape[:2])
    images = np.repeat(data.images[:128].astype(np.float32) / 255, shape[2], axis=3)
    trainer = pc.Trainer(build(), optimizer=pc.optim.SGD(0.05, momentum=0.9))
    trainer.fit((images, data.labels[:128]), epochs=6, batch_size=32, progress=False)
    return trainer.net, images[:24], np.asarray(data.labels[:24])


nets = pytest.mark.parametrize("name", ["lenet5", "resnet", "inception"])


@nets
def test_scores_are_those_of_float32_within_bfloat16(name):
    net, x, _ = make(name)
    expected = pc.compile(net, x.shape)(x)
    found = pc.compile(net, x.shape, **EMULATED)(x)
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < error <= tolerances.BFLOAT16_SCORES


@nets
def test_gradients_are_those_of_float32_within_bfloat16(name):
    net, x, y = make(name)

    def loss(x):
        return functional.cross_entropy(net(x), y)

    exact, (_, expected) = pc.value_and_grad(loss, parameters=(), training=True)(x)
    value, (to_input, found) = pc.value_and_grad(loss, parameters=(), training=True, **EMULATED)(x)
    assert abs(value - exact) <= tolerances.BFLOAT16_SCORES * abs(exact)
    assert to_input.dtype == np.float32
    assert to_input.shape == x.shape
    whole = np.sqrt(sum(np.sum(np.square(g)) for g in expected.values()))
    error = np.sqrt(sum(np.sum(np.square(found[key] - expected[key])) for key in expected))
    kind = "plain" if name == "lenet5" else "batch statistics"
    assert 0 < error <= tolerances.BFLOAT16_GRADIENT[kind] * whole
    assert all(gradient.dtype == np.float32 for gradient in found.values())


PORTABLE = {
    op: f"{op}.bfloat16.portable"
    for name in ("conv2d", "dense")
    for op in (name, f"{name}_grad_input", f"{name}_grad_weight")
}


def test_kernels_for_bfloat16_compute_what_is_emulated():
    net, x, y = make("resnet")

    def loss(x):
        return functional.cross_entropy(net(x), y)

    results = []
    for pins in ({}, PORTABLE):
        options = {**EMULATED, "variants": pins, "winograd": False}  # Winograd's kernels round more than once
        value, (to_input, _) = pc.value_and_grad(loss, parameters=(), **options)(x)
        results.append((value, to_input))
    (value, to_input), (found, found_to_input) = results
    assert abs(found - value) <= tolerances.BFLOAT16_SCORES * abs(value)
    error = np.linalg.norm(found_to_input - to_input) / np.linalg.norm(to_input)
    assert error <= tolerances.BFLOAT16_GRADIENT["plain"]


LAYERS = {
    "conv2d": lambda x: functional.conv2d(x, WEIGHT, padding=1),
    "max_pool2d": lambda x: functional.max_pool2d(x, kernel_size=3, stride=2, padding=1),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1),
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, output_size=(2, 3)),
    "global_avg_pool2d": functional.global_avg_pool2d,
    "global_max_pool2d": functional.global_max_pool2d,
    "local_response_norm": lambda x: functional.local_response_norm(x, size=3, alpha=0.1),
    "relu": functional.relu,
    "tanh": functional.tanh,
    "add": lambda x: functional.add(x, functional.relu(x)),
    "multiply": lambda x: functional.multiply(x, functional.relu(x)),
    "affine": lambda x: functional.affine(x, scale=1.5, offset=-0.25),
    "concat": lambda x: functional.concat([x, functional.relu(x)]),
    "pad": lambda x: functional.pad(x, before=(0, 1, 0, 0), after=(0, 0, 2, 0), value=0.1),
    "slice": lambda x: functional.slice(x, begin=(0, 1, 2, 0), size=(-1, 3, -1, -1)),
    "transpose": lambda x: functional.transpose(x, permutation=(0, 2, 1, 3)),
    "reshape": functional.flatten,
}
WEIGHT = reference.bfloat16(reals(np.random.default_rng(9), (7, 3, 3, 5)) / 4)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("path", isas())
def test_a_layer_rounds_once(name, path):
    """On images of bfloat16 a layer gives what float64 gives, rounded to bfloat16."""
    x = reference.bfloat16(reals(np.random.default_rng(1), (3, 6, 7, 5)))
    layer = LAYERS[name]
    found = pc.compile(lambda x: full(layer(low(x))), x.shape, isa=path.isa)(x)
    tolerances.assert_exact(found, reference.bfloat16(found), "not rounded:")
    exact = pc.compile(layer, x.shape, "float64")(reference.f64(x))
    if name in ("concat", "pad", "slice", "transpose", "reshape", "max_pool2d", "relu", "global_max_pool2d"):
        tolerances.assert_exact(found, reference.bfloat16(exact))
    else:
        magnitude = np.abs(exact) + np.abs(x).max() * 10
        bound = tolerances.sum_bound(magnitude, 45)
        tolerances.assert_within(found, exact, tolerances.bfloat16_bound(exact, bound))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_its_gradient(name):
    """The gradient for the images: that of float64 for the rounded images, but for its own roundings."""
    rng = np.random.default_rng(2)
    x = reference.bfloat16(reals(rng, (2, 6, 7, 5)))
    layer = LAYERS[name]
    weights = reference.bfloat16(reals(rng, pc.compile(layer, x.shape).outputs[0][1]))
    expected = pc.grad(lambda x: functional.sum(layer(x) * weights.astype(np.float64)))(reference.f64(x))
    found = pc.grad(lambda x: functional.sum(full(layer(low(x))) * weights))(x)
    tolerances.assert_exact(found, reference.bfloat16(found), "not rounded:")
    # The layer's result is rounded too, and some gradients are computed from that; sums of two parts round each.
    assert np.abs(found - expected).max() <= 4 * tolerances.BFLOAT16 * np.abs(expected).max()


def test_batch_norm_and_dropout_keep_float32_statistics():
    pc.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(96, 3)
    )
    other = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(96, 3)
    )
    rng = np.random.default_rng(0)
    x, y = 3000 + rng.standard_normal((8, 6, 6, 3)).astype(np.float32), np.arange(8) % 3
    net.build((6, 6, 3))
    other.build((6, 6, 3))
    other.load_state_dict(net.state_dict())
    plain, lower = pc.Trainer(net, seed=3), pc.Trainer(other, seed=3, **EMULATED)
    for trainer in (plain, lower):
        trainer.train_batch(x - 3000, y)
    for (name, a), (_, b) in zip(net.named_tensors(), other.named_tensors(), strict=True):
        assert b.numpy().dtype == a.numpy().dtype == np.float32
        scale = max(1.0, np.abs(a.numpy()).max())
        assert np.abs(a.numpy() - b.numpy()).max() <= tolerances.BFLOAT16_SCORES * scale, name
    kept = [name for name in lower.variables if name.startswith("optim.")]
    assert kept
    assert all(lower.variables[name].numpy().dtype == np.float32 for name in kept)


def test_a_learned_scale_has_a_float32_gradient():
    """The sum over thousands of pixels does not end where bfloat16 would."""
    x = np.ones((4, 40, 40, 2), np.float32)
    weight, scale = np.ones((2, 1, 1, 2), np.float32), np.ones(2, np.float32)

    def loss(x, scale):
        return functional.sum(functional.multiply(functional.conv2d(x, weight), scale))

    _, (gradient,) = pc.value_and_grad(loss, (1,), **EMULATED)(x, scale)
    assert gradient.tolist() == [12800.0, 12800.0]
    sum_alone = pc.value_and_grad(lambda x, b: functional.sum(functional.conv2d(x, weight, b)), (1,), **EMULATED)
    assert sum_alone(x, np.zeros(2, np.float32))[1][0].tolist() == [6400.0, 6400.0]


def test_any_instruction_set_and_number_of_threads_gives_a_net():
    net, x, _ = make("resnet")
    first = pc.compile(net, x.shape, threads=1, **EMULATED)(x)
    tolerances.assert_bits(pc.compile(net, x.shape, threads=3, **EMULATED)(x), first)
    tolerances.assert_bits(pc.compile(net, x[:2].shape, threads=3, **EMULATED)(x[:2]), first[:2])
    for isa in ISAS:
        other = pc.compile(net, x.shape, isa=isa, **EMULATED)(x)
        assert np.abs(other - first).max() <= tolerances.BFLOAT16_SCORES * np.abs(first).max()


def test_activations_take_half_the_memory():
    net, x, _ = make("inception")

    def traced(x, y):
        return {"loss": functional.cross_entropy(net(x), y)}

    inputs = {"x": ((32, *x.shape[1:]), "float32"), "y": ((32,), "int64")}
    recorded = trace(traced, inputs, root=net)
    spec = pc.optim.SGD(0.1, momentum=0.9).spec(dict(net.named_parameters()))
    single, half = (
        plan_memory(recorded, mode="training", optimizer=spec, dtype=dtype, emulate_bfloat16=True)
        for dtype in ("float32", "bfloat16")
    )
    assert 0.4 * single["arena_bytes"] < half["arena_bytes"] < 0.6 * single["arena_bytes"]
    assert half["variable_bytes"] == single["variable_bytes"]


def test_images_as_decoded():
    net = models.lenet5().build((28, 28, 1))
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    program = pc.compile(net, images.shape, input_dtype="uint8", **EMULATED)
    expected = pc.compile(net, images.shape, "uint8")(images)
    assert np.abs(program(images) - expected).max() <= tolerances.BFLOAT16_SCORES * np.abs(expected).max()


@pytest.mark.skipif(bool(UNITS), reason="this processor has a unit for bfloat16")
def test_without_the_units_it_is_refused_with_the_alternatives():
    net, x, _ = make("lenet5")
    refusals = [
        lambda: pc.compile(net, x.shape, "bfloat16"),
        lambda: pc.grad(lambda x: functional.sum(net(x)), dtype="bfloat16")(x),
        lambda: pc.Trainer(net, dtype="bfloat16").train_batch(x, np.zeros(len(x), np.int64)),
        lambda: pc.Trainer(net, dtype="bfloat16").predict(x),
    ]
    for refused in refusals:
        with pytest.raises(
            UnsupportedError, match=r"AMX or AVX512-BF16(.|\n)*float32 runs here(.|\n)*emulate_bfloat16"
        ):
            refused()


@pytest.mark.skipif(not UNITS, reason="this processor has no unit for bfloat16")
def test_the_units_give_what_is_emulated():
    net, x, _ = make("resnet")
    found = pc.compile(net, x.shape, "bfloat16")(x)
    expected = pc.compile(net, x.shape)(x)
    assert np.abs(found - expected).max() <= tolerances.BFLOAT16_SCORES * np.abs(expected).max()
    with pytest.raises(UnsupportedError, match="limited to avx2"):
        pc.compile(net, x.shape, "bfloat16", isa="avx2")


def test_options_that_do_not_go_together():
    net, x, _ = make("lenet5")
    with pytest.raises(ArgumentError, match="input_dtype goes with dtype='bfloat16'"):
        pc.compile(net, x.shape, "float32", input_dtype="uint8")
    with pytest.raises(DTypeError, match="'float64' is not accepted here; expected one of float32, uint8"):
        pc.compile(net, x.shape, input_dtype="float64", **EMULATED)
    with pytest.raises(DTypeError, match="arrays are float64"):
        pc.grad(lambda x: functional.sum(net(x)), **EMULATED)(x.astype(np.float64))
    for dtype in ("bf16", "int8"):
        with pytest.raises(DTypeError, match=dtype):
            pc.compile(net, x.shape, dtype)
        with pytest.raises(DTypeError, match=dtype):
            pc.Trainer(net, dtype=dtype)
    with pytest.raises(ArgumentError, match="compile: emulate_bfloat16 must be True or False, got 1"):
        pc.compile(net, x.shape, "bfloat16", emulate_bfloat16=1)


@pytest.mark.parametrize(
    "use",
    [
        lambda net, x, **numerics: pc.Trainer(net, **numerics),
        lambda net, x, **numerics: pc.Ensemble([net], **numerics),
        lambda net, x, **numerics: net.predict(x, **numerics),
        lambda net, x, **numerics: net.predict_proba(x, **numerics),
    ],
    ids=["Trainer", "Ensemble", "predict", "predict_proba"],
)
def test_wrong_numerics_are_refused_where_they_are_given(use, request):
    net, x, _ = make("lenet5")
    # NumPy takes the last three for records of fields.
    for value in (["float32"], [], [("a", "float32")], {}):
        with pytest.raises(
            DTypeError, match=re.escape(f"dtype {value!r} is unknown; expected one of float32, bfloat16")
        ):
            use(net, x, dtype=value)
    with pytest.raises(DTypeError, match=r"'float64' is not accepted here"):
        use(net, x, dtype="float64")
    for name in ("winograd", "emulate_bfloat16"):
        who = request.node.callspec.id
        with pytest.raises(ArgumentError, match=f"^{who}: {name} must be True or False, got 1"):
            use(net, x, **{name: 1})
