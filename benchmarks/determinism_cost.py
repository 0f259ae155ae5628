"""What equal bits for any number of threads cost: fixed partial sums against as many as there are threads.

    python benchmarks/determinism_cost.py [--threads 2] [--rounds 40] [--json FILE]

Weight gradients are sums over all pixels of a batch. pycnn cuts them into parts that depend on the shapes alone and
adds the parts as a fixed tree. The cheapest alternative keeps one sum a thread, whose result then depends on their
number; it is a variant of the kernels that only a pin reaches ("conv2d_grad_weight.per_thread.avx2"). Both take turns
in one process, on a LeNet-5 training step (batch 256) and on the weight gradient of a 3x3 convolution alone. Before
anything is timed, their results are checked to agree, and the fixed one to have the same bits for one thread and for
several.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from timing import environment, interleave, save

import pycnn
from pycnn import _core
from pycnn import functional as F
from pycnn.program import Program, Variables, compile_traced
from pycnn.tracing import emit, trace

BATCH = 256
CONV = {"batch": 16, "size": 56, "in_channels": 64, "out_channels": 64}
LIMIT = 1.05


def per_thread_pins() -> dict[str, str]:
    """Return the pins of the variants whose sums depend on the number of threads."""
    isa = pycnn.config.machine()["isa"]
    return {op: f"{op}.per_thread.{isa}" for op in ("conv2d_grad_weight", "dense_grad_weight")}


def lenet_step(threads: int, pins: dict[str, str]) -> tuple[Callable[[], float], Callable[[], dict[str, np.ndarray]]]:
    """Return a training step of LeNet-5, and a function that reads its weights."""
    rng = np.random.default_rng(0)
    x = rng.random((BATCH, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, BATCH)
    pycnn.manual_seed(0)
    net = pycnn.models.create("lenet5").build((28, 28, 1))
    traced = trace(
        lambda x, y: {"loss": F.cross_entropy(net(x), y)},
        {"x": (x.shape, "float32"), "y": (y.shape, "int64")},
        root=net,
    )
    variables = Variables()
    variables["train.learning_rate"] = np.array([0.01], np.float32)
    optimizer = pycnn.optim.SGD(lr=0.01, momentum=0.9).spec(dict(net.named_parameters()))
    program = compile_traced(
        traced, variables=variables, mode="training", optimizer=optimizer, threads=threads, variants=pins
    )
    return lambda: float(program(x, y)["loss"]), net.state_dict


def conv_gradient(threads: int, pins: dict[str, str]) -> Callable[[], np.ndarray]:
    """Return the weight gradient of a 3x3 convolution as a function."""
    rng = np.random.default_rng(1)
    n, size = CONV["batch"], CONV["size"]
    x = rng.standard_normal((n, size, size, CONV["in_channels"]), dtype=np.float32)
    grad = rng.standard_normal((n, size, size, CONV["out_channels"]), dtype=np.float32)

    def function(x: Any, grad: Any) -> Any:
        op = _core.Conv2dGradWeight(kernel_size=(3, 3), padding=(1, 1, 1, 1), bias=False)
        return emit(op, [x, grad])

    traced = trace(function, {"x": (x.shape, "float32"), "grad": (grad.shape, "float32")})
    program: Program = compile_traced(traced, threads=threads, variants=pins)
    return lambda: program(x, grad)


def check_lenet(threads: int, pins: dict[str, str]) -> None:
    """Make five steps in three ways and compare."""
    weights = []
    for count, variants in ((threads, {}), (1, {}), (threads, pins)):
        step, state = lenet_step(count, variants)
        for _ in range(5):
            step()
        weights.append({name: np.array(value) for name, value in state().items()})
    fixed, one, per_thread = weights
    for name, values in fixed.items():
        assert np.array_equal(values, one[name]), f"{name} depends on the number of threads"
        assert np.allclose(values, per_thread[name], atol=1e-4), name


def check_conv(threads: int, pins: dict[str, str]) -> None:
    """Compare one gradient in three ways."""
    fixed = conv_gradient(threads, {})()
    assert np.array_equal(fixed, conv_gradient(1, {})()), "the gradient depends on the number of threads"
    other = conv_gradient(threads, pins)()
    assert np.abs(fixed - other).max() <= 1e-4 * np.abs(fixed).max()


def main() -> None:
    """Check, measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", help="write the result here")
    options = parser.parse_args()
    pins = per_thread_pins()
    check_lenet(options.threads, pins)
    check_conv(options.threads, {"conv2d_grad_weight": pins["conv2d_grad_weight"]})
    conv_pins = {"conv2d_grad_weight": pins["conv2d_grad_weight"]}
    conv_name = "weight gradient, 3x3, {in_channels} -> {out_channels}, {size}x{size}, batch {batch}".format(**CONV)
    cases: dict[str, dict[str, Callable[[], Any]]] = {
        f"LeNet-5 training step, batch {BATCH}": {
            "fixed": lenet_step(options.threads, {})[0],
            "per thread": lenet_step(options.threads, pins)[0],
        },
        conv_name: {
            "fixed": conv_gradient(options.threads, {}),
            "per thread": conv_gradient(options.threads, conv_pins),
        },
    }
    result: dict[str, Any] = {"environment": environment(), "threads": options.threads, "cases": {}}
    print(f"{options.threads} threads, medians of {options.rounds} rounds; at most {LIMIT} is promised")
    for name, candidates in cases.items():
        timings = interleave(candidates, rounds=options.rounds)
        fixed, other = timings["fixed"].median, timings["per thread"].median
        result["cases"][name] = {"fixed_ms": 1e3 * fixed, "per_thread_ms": 1e3 * other, "ratio": fixed / other}
        print(f"  {name}: fixed {1e3 * fixed:.3f} ms, per thread {1e3 * other:.3f} ms, ratio {fixed / other:.3f}")
    save("determinism_cost", result, options.json)


if __name__ == "__main__":
    main()
