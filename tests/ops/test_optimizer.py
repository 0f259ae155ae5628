"""Updates of parameters: SGD, Adam, AdamW, Muon, clipping, averages."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import isas, paths, reals, run

from pycnn import _core, functional
from pycnn.program import GroupSpec, OptimizerSpec, Variables, compile_traced
from pycnn.tensor import Parameter
from pycnn.tracing import emit, trace

RATE = np.float32(0.05)
STEPS = 5


def net(seed=0):
    """Two layers on fixed data: parameters, and a function to a loss."""
    rng = np.random.default_rng(seed)
    parameters = {"first.weight": (17, 33), "first.bias": (17,), "second.weight": (5, 17)}
    parameters = {name: Parameter(shape, init=reals(rng, shape) * 0.4) for name, shape in parameters.items()}
    for name, parameter in parameters.items():
        parameter.name = name

    def loss(x, y):
        hidden = functional.tanh(functional.linear(x, parameters["first.weight"], parameters["first.bias"]))
        return {"loss": functional.cross_entropy(functional.linear(hidden, parameters["second.weight"]), y)}

    return parameters, loss


def batches():
    rng = np.random.default_rng(1)
    return [(reals(rng, (8, 33)), rng.integers(0, 5, 8)) for _ in range(STEPS)]


def train(spec, path=None, threads=None, **options):
    """Parameters and variables after five steps, and all outputs."""
    parameters, loss = net()
    traced = trace(loss, {"x": ((8, 33), "float32"), "y": ((8,), "int64")})
    variables = Variables()
    kernels = path.options if path else {}
    program = compile_traced(
        traced, variables=variables, mode="training", optimizer=spec, threads=threads, **kernels, **options
    )
    variables["train.learning_rate"] = np.array([RATE])
    outputs = [program.run(*batch) for batch in batches()]
    return {name: p.numpy() for name, p in parameters.items()}, variables, outputs


def torch_net(torch, dtype):
    parameters, _ = net()
    return {name: torch.nn.Parameter(torch.from_numpy(p.numpy()).to(dtype)) for name, p in parameters.items()}


def torch_train(torch, make, *, clip=None, average=None):
    """The same five steps in float64."""
    tensors = torch_net(torch, torch.float64)
    optimizer = make(tensors)
    for step, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        hidden = torch.tanh(
            torch.nn.functional.linear(torch.from_numpy(x).double(), tensors["first.weight"], tensors["first.bias"])
        )
        scores = torch.nn.functional.linear(hidden, tensors["second.weight"])
        torch.nn.functional.cross_entropy(scores, torch.from_numpy(y)).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(tensors.values(), clip)
        optimizer.step()
        if average is not None:
            average(step, tensors)
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


R = float(RATE)
SPECS = {
    "sgd": (OptimizerSpec("sgd"), lambda t, p: t.SGD(p, lr=R)),
    "momentum": (OptimizerSpec("sgd", momentum=0.9), lambda t, p: t.SGD(p, lr=R, momentum=0.9)),
    "nesterov": (
        OptimizerSpec("sgd", momentum=0.8, nesterov=True),
        lambda t, p: t.SGD(p, lr=R, momentum=0.8, nesterov=True),
    ),
    "weight_decay": (
        OptimizerSpec("sgd", momentum=0.9, weight_decay=0.1),
        lambda t, p: t.SGD(p, lr=R, momentum=0.9, weight_decay=0.1),
    ),
    "adam": (OptimizerSpec("adam"), lambda t, p: t.Adam(p, lr=R)),
    "adam_options": (
        OptimizerSpec("adam", beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1),
        lambda t, p: t.Adam(p, lr=R, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    ),
    "adamw": (OptimizerSpec("adamw", weight_decay=0.1), lambda t, p: t.AdamW(p, lr=R, weight_decay=0.1)),
}
MUON = OptimizerSpec("muon", momentum=0.9, nesterov=True, weight_decay=0.1)
# What five steps in float32 may lose: each step's update carries the rounding of its gradient, which Adam's division
# by the gradient's own size makes relative to the rate.
BOUND = STEPS * 33


@pytest.mark.interop
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("path", paths("sgd_update", "adam_update"))
def test_five_steps_agree_with_torch(name, path):
    torch = pytest.importorskip("torch")
    spec, make = SPECS[name]
    expected = torch_train(torch, lambda tensors: make(torch.optim, tensors.values()))
    found, _, _ = train(spec, path)
    for key, want in expected.items():
        bound = tolerances.sum_bound(np.abs(want) + STEPS * R, BOUND**2 if "adam" in name else BOUND)
        tolerances.assert_within(found[key], want, bound, key)


@pytest.mark.interop
@pytest.mark.parametrize("path", paths("clip_factor"))
def test_clipping_agrees_with_torch(path):
    torch = pytest.importorskip("torch")
    expected = torch_train(torch, lambda tensors: torch.optim.SGD(tensors.values(), lr=R), clip=0.05)
    found, _, outputs = train(OptimizerSpec("sgd", clip_norm=0.05), path)
    assert all(float(o["grad_norm"]) > 0.05 for o in outputs)
    for key, want in expected.items():
        tolerances.assert_within(found[key], want, tolerances.sum_bound(np.abs(want) + R, BOUND), key)


@pytest.mark.interop
def test_groups_agree_with_torch():
    torch = pytest.importorskip("torch")
    groups = (
        GroupSpec(("first.bias",), weight_decay=0.0, rate_scale=2.0),
        GroupSpec(("second.weight",), frozen=True),
    )
    found, variables, _ = train(OptimizerSpec("sgd", momentum=0.9, weight_decay=0.2, groups=groups))

    def make(tensors):
        tensors["second.weight"].requires_grad_(False)
        return torch.optim.SGD(
            [
                {"params": [tensors["first.weight"]], "weight_decay": 0.2},
                {"params": [tensors["first.bias"]], "lr": 2 * R},
            ],
            lr=R,
            momentum=0.9,
        )

    expected = torch_train(torch, make)
    for key, want in expected.items():
        tolerances.assert_within(found[key], want, tolerances.sum_bound(np.abs(want) + R, BOUND), key)
    tolerances.assert_bits(found["second.weight"], net()[0]["second.weight"].numpy())
    assert not any("second.weight" in name for name in variables if name.startswith("optim."))


@pytest.mark.parametrize("path", paths("ema_update"))
def test_averages_follow_the_parameters(path):
    parameters, loss = net()
    traced = trace(loss, {"x": ((8, 33), "float32"), "y": ((8,), "int64")})
    variables = Variables()
    spec = OptimizerSpec("sgd", ema_decay=0.2)
    program = compile_traced(traced, variables=variables, mode="training", optimizer=spec, **path.options)
    variables["train.learning_rate"] = np.array([RATE])
    averages = {name: variables["ema." + name].numpy().astype(np.float64) for name in parameters}
    for step, batch in enumerate(batches()):
        program(*batch)
        for name, parameter in parameters.items():
            averages[name] = reference.ema(averages[name], parameter.numpy(), decay=0.2, step=step)
            bound = tolerances.elementwise_bound((step + 1) * np.abs(averages[name]).max())
            tolerances.assert_within(variables["ema." + name].numpy(), averages[name], bound, name)


@pytest.mark.parametrize("name", [*SPECS, "muon"])
def test_program_counts_its_steps(name):
    _, variables, outputs = train(SPECS[name][0] if name in SPECS else MUON)
    assert variables["train.step"].numpy().tolist() == [STEPS]
    losses = [float(o["loss"]) for o in outputs]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("name", [*SPECS, "muon"])
@pytest.mark.parametrize("path", isas())
def test_threads_and_memory_plans_give_the_same_bits(name, path):
    spec = SPECS[name][0] if name in SPECS else MUON
    expected, state, _ = train(spec, path, threads=1)
    others = [{"threads": n} for n in (2, 3, 7)] + [{"reuse_memory": False}]
    for options in others:
        found, variables, _ = train(spec, path, **options)
        for key in expected:
            tolerances.assert_bits(found[key], expected[key], f"{key} {options}")
        for key in state:
            tolerances.assert_bits(variables[key].numpy(), state[key].numpy(), f"{key} {options}")


# ---- The update ops alone, on odd sizes


SIZES = [(1,), (7,), (3, 17), (2049,), (0,)]


@pytest.mark.parametrize("path", paths("sgd_update"))
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3}])
@pytest.mark.parametrize("clipped", [False, True])
def test_sgd(shape, options, clipped, path):
    rng = np.random.default_rng(0)
    parameter, gradient, velocity = (reals(rng, shape) for _ in range(3))
    arrays = [parameter, gradient, np.array([RATE])] + ([velocity] if "momentum" in options else [])
    arrays += [np.float32(0.25)] if clipped else []
    arrays = [np.asarray(a) for a in arrays]
    outputs = 2 if "momentum" in options else 1

    def op(*tensors):
        results = emit(_core.SgdUpdate(**options, rate_scale=2.0, clipped=clipped), list(tensors), outputs=outputs)
        return dict(zip("ab", results if outputs == 2 else (results,)))

    found = run(op, *arrays, path=path)
    factor = 0.25 if clipped else 1.0
    want, moved = reference.sgd(parameter, gradient, velocity, rate=2 * R, factor=factor, **options)
    size = np.abs(parameter) + np.abs(gradient) + np.abs(velocity)
    tolerances.assert_within(found["a"], want, tolerances.elementwise_bound(size))
    if outputs == 2:
        tolerances.assert_within(found["b"], moved, tolerances.elementwise_bound(size))


@pytest.mark.parametrize("path", paths("adam_update"))
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("step", [0, 1, 1000, 10**7])
def test_adam(shape, decoupled, step, path):
    rng = np.random.default_rng(0)
    parameter, gradient, mean = (reals(rng, shape) for _ in range(3))
    variance = np.abs(reals(rng, shape)) + np.float32(0.1)
    options = {"beta1": 0.85, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.1, "decoupled": decoupled}
    arrays = [parameter, gradient, np.array([RATE]), np.array([step], np.int64), mean, variance]

    def op(*tensors):
        results = emit(_core.AdamUpdate(**options), list(tensors), outputs=3)
        return dict(zip("abc", results))

    found = run(op, *arrays, path=path)
    start = [a.astype(np.float64) for a in (parameter, gradient, mean, variance)]
    want = reference.adam(*start, rate=R, step=step, **options)
    size = np.abs(parameter) + np.abs(gradient) + np.abs(mean)
    tolerances.assert_within(found["a"], want[0], tolerances.elementwise_bound(size + R * size / np.sqrt(want[2])))
    tolerances.assert_within(found["b"], want[1], tolerances.elementwise_bound(size))
    tolerances.assert_within(found["c"], want[2], tolerances.elementwise_bound(variance + (size) ** 2))


# A small singular value, and its rounding error, grows by this much in each iteration.
GROWTH = 3.4445

MATRICES = [(1, 1), (1, 33), (33, 1), (7, 5), (5, 7), (17, 3, 3, 3), (64, 17), (50, 3, 3, 64), (66, 530), (0, 3)]


@pytest.mark.parametrize("path", paths("muon_update"))
@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("nesterov", [False, True])
def test_muon(shape, nesterov, path):
    rng = np.random.default_rng(0)
    parameter, gradient, velocity = (reals(rng, shape) for _ in range(3))
    options = {"momentum": 0.85, "nesterov": nesterov, "weight_decay": 0.3}
    arrays = [parameter, gradient, np.array([RATE]), velocity, np.asarray(np.float32(0.25))]

    def op(*tensors):
        results = emit(_core.MuonUpdate(**options, rate_scale=2.0, clipped=True), list(tensors), outputs=2)
        return dict(zip("ab", results))

    found = run(op, *arrays, path=path)
    if not parameter.size:
        return
    want, moved = reference.muon(parameter, gradient, velocity, rate=2 * R, factor=0.25, **options)
    size = np.abs(parameter) + 2 * R * GROWTH**5 * max(1, shape[0] / np.prod(shape[1:])) ** 0.5
    tolerances.assert_within(found["a"], want, tolerances.elementwise_bound(size))
    tolerances.assert_within(found["b"], moved, tolerances.elementwise_bound(np.abs(gradient) + np.abs(velocity)))


@pytest.mark.parametrize("path", paths("muon_update"))
@pytest.mark.parametrize("gradient", [0.0, 1e-30, np.nan, np.inf])
def test_muon_without_a_direction_and_with_a_broken_one(gradient, path):
    parameter, zero = np.ones((3, 5), np.float32), np.zeros((3, 5), np.float32)

    def op(*tensors):
        return dict(zip("ab", emit(_core.MuonUpdate(), list(tensors), outputs=2)))

    found = run(op, parameter, np.full((3, 5), gradient, np.float32), np.array([RATE]), zero, path=path)["a"]
    if np.isfinite(gradient):
        np.testing.assert_allclose(found, parameter, rtol=1e-6)
    else:
        assert np.isnan(found).all()


def test_muon_moves_all_directions_alike():
    """The nearest orthogonal matrix has singular values of 1; the quintic leaves them within 0.3 of it."""
    rng = np.random.default_rng(0)
    q, r = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (6, 9))
    gradient = (q * 10.0 ** -(np.arange(6) ** 0.5)) @ r[:6]

    def op(*tensors):
        return dict(zip("ab", emit(_core.MuonUpdate(nesterov=False, momentum=0.0), list(tensors), outputs=2)))

    zero = np.zeros((6, 9), np.float32)
    found = run(op, zero, gradient.astype(np.float32), np.array([1], np.float32), zero)["a"]
    values = np.linalg.svd(found, compute_uv=False)
    assert np.abs(values - 1).max() < 0.35
    # Against the gradient in each of its own directions.
    assert (np.diag(q.T @ found @ r[:6].T) < -0.6).all()


@pytest.mark.interop
def test_muon_agrees_with_torch_as_far_as_its_bfloat16_goes():
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    rng = np.random.default_rng(0)
    start, gradients = reals(rng, (24, 40)), [reals(rng, (24, 40)) for _ in range(3)]
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    other = torch.optim.Muon([weight], lr=R, weight_decay=0.1, momentum=0.9, nesterov=True)
    found, velocity = start, np.zeros_like(start)

    def op(*tensors):
        results = emit(_core.MuonUpdate(momentum=0.9, weight_decay=0.1), list(tensors), outputs=2)
        return dict(zip("ab", results))

    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient)
        other.step()
        result = run(op, found, gradient, np.array([RATE]), velocity)
        found, velocity = result["a"], result["b"]
    moved, wanted = found - start, weight.detach().numpy() - start
    assert np.linalg.norm(moved - wanted) < 0.03 * np.linalg.norm(wanted)


@pytest.mark.parametrize("path", paths("clip_factor"))
@pytest.mark.parametrize("max_norm", [0.5, 1e6, float("inf")])
def test_clip_factor(max_norm, path):
    rng = np.random.default_rng(0)
    arrays = [reals(rng, shape) for shape in ((3, 17), (2049,), (1,), (0, 3), (300, 33))]

    def op(*tensors):
        factor, norm = emit(_core.ClipFactor(max_norm=max_norm), list(tensors), outputs=2)
        return {"factor": factor, "norm": norm}

    found = run(op, *arrays, path=path)
    factor, norm = reference.clip_factor(arrays, max_norm=max_norm)
    tolerances.assert_within(found["norm"], norm, tolerances.elementwise_bound(norm))
    tolerances.assert_within(found["factor"], factor, tolerances.elementwise_bound(factor))
    first = run(op, *arrays, path=path, threads=1)
    for threads in (2, 3, 7):
        again = run(op, *arrays, path=path, threads=threads)
        tolerances.assert_bits(again["norm"], first["norm"])


@pytest.mark.parametrize("path", paths("clip_factor"))
def test_clip_factor_of_zeros_and_of_huge_values(path):
    def op(x):
        factor, norm = emit(_core.ClipFactor(max_norm=1.0), [x], outputs=2)
        return {"factor": factor, "norm": norm}

    zero = run(op, np.zeros(33, np.float32), path=path)
    assert (float(zero["factor"]), float(zero["norm"])) == (1.0, 0.0)
    huge = run(op, np.full(4, 1e30, np.float32), path=path)  # squares beyond float32
    tolerances.assert_within(huge["norm"], 2e30, 2 * tolerances.elementwise_bound(2e30))
    assert np.isnan(run(op, np.array([1, np.nan], np.float32), path=path)["norm"])
