"""LeNet-5 against PyTorch (training step, batch 256) and ONNX Runtime (inference, batch 1), interleaved in one run.

    python benchmarks/lenet_speed.py [--threads 2] [--rounds 30] [--json FILE]

The peers run at their best: PyTorch eager and compiled, channels last or not; ONNX Runtime with all optimisations and
the same number of threads or one. Outputs are checked to agree before anything is timed. Needs torch, onnx and
onnxruntime.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from timing import environment, interleave, save

import pycnn

BATCH = 256
RATE = 0.01


def torch_lenet(state: dict[str, np.ndarray]) -> torch.nn.Sequential:
    """Build the same network with the same weights."""
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    with torch.no_grad():
        for parameter, values in zip(net.parameters(), state.values(), strict=True):
            parameter.copy_(torch.from_numpy(values.copy()))
    return net


def torch_step(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Return a function that makes one training step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    loss_function = torch.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def onnx_lenet(state: dict[str, np.ndarray]) -> bytes:
    """Write the same network as ONNX (NCHW)."""
    names = list(state)
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in state.items()]
    nodes, at = [], "x"

    def add(op: str, *extra: str, **attributes: Any) -> None:
        nonlocal at
        nodes.append(helper.make_node(op, [at, *extra], [f"v{len(nodes)}"], **attributes))
        at = nodes[-1].output[0]

    add("Conv", names[0], names[1], pads=[2, 2, 2, 2], kernel_shape=[5, 5])
    add("Tanh")
    add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    add("Conv", names[2], names[3], kernel_shape=[5, 5])
    add("Tanh")
    add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    add("Flatten")
    for i in (4, 6, 8):
        add("Gemm", names[i], names[i + 1], transB=1)
        if i < 8:
            add("Tanh")
    graph = helper.make_graph(
        nodes, "lenet5",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 28, 28])],
        [helper.make_tensor_value_info(at, TensorProto.FLOAT, [1, 10])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def onnx_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a session at its fastest for tiny networks."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def training(threads: int, rounds: int, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Time one training step of each."""
    rng = np.random.default_rng(0)
    x = rng.random((BATCH, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, BATCH)
    net = pycnn.models.create("lenet5")
    net.load_state_dict(state)
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=RATE, momentum=0.9), threads=threads, metrics=())
    candidates: dict[str, Any] = {"pycnn": lambda: trainer.step(x, y)["loss"]}
    torch.set_num_threads(threads)
    xt, yt = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)
    base = torch_lenet(state)
    for last in (False, True):
        layout = torch.channels_last if last else torch.contiguous_format
        name = "torch eager" + (", channels last" if last else "")
        candidates[name] = torch_step(copy.deepcopy(base).to(memory_format=layout), xt.to(memory_format=layout), yt)
        compiled = torch.compile(copy.deepcopy(base).to(memory_format=layout))
        step = torch_step(compiled, xt.to(memory_format=layout), yt)
        try:
            step()
        except Exception as error:
            print(f"torch.compile is not to be had here: {type(error).__name__}")
        else:
            candidates[name.replace("eager", "compiled")] = step
    # The same losses step by step. Every candidate has made this one step, or none.
    losses = {name: call() for name, call in candidates.items() if "compiled" not in name}
    spread = max(losses.values()) - min(losses.values())
    assert spread < 1e-4, losses
    timings = interleave(candidates, rounds=rounds)
    rates = {name: BATCH / timing.median for name, timing in timings.items()}
    best = max((name for name in rates if name != "pycnn"), key=rates.__getitem__)
    return {"images_per_second": rates, "best_peer": best, "ratio": rates["pycnn"] / rates[best]}


def inference(threads: int, rounds: int, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """Time one image."""
    x = np.random.default_rng(1).random((1, 28, 28, 1), dtype=np.float32)
    net = pycnn.models.create("lenet5")
    net.load_state_dict(state)
    program = pycnn.compile(net, shape=(1, 28, 28, 1), threads=threads)
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    model = onnx_lenet(state)
    sessions = {f"onnxruntime, {n} threads": onnx_session(model, n) for n in sorted({1, threads})}
    expected = program(x)
    candidates: dict[str, Any] = {"pycnn program": lambda: program(x), "pycnn net(x)": lambda: net(x)}
    for name, session in sessions.items():
        result = session.run(None, {"x": nchw})[0]
        assert np.allclose(result, expected, atol=1e-5), (result, expected)
        candidates[name] = lambda session=session: session.run(None, {"x": nchw})
    timings = interleave(candidates, rounds=rounds)
    microseconds = {name: timing.median * 1e6 for name, timing in timings.items()}
    best = min(sessions, key=microseconds.__getitem__)
    return {
        "microseconds": microseconds,
        "best_peer": best,
        "latency_ratio": microseconds["pycnn program"] / microseconds[best],
    }


def main() -> None:
    """Run both and print ratio tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", help="write the result here")
    options = parser.parse_args()
    state = pycnn.models.create("lenet5").build((28, 28, 1)).state_dict()
    result = {
        "environment": environment("torch", "onnxruntime"),
        "training": training(options.threads, options.rounds, state),
        "inference": inference(options.threads, options.rounds, state),
    }
    train, infer = result["training"], result["inference"]
    print(f"\ntraining step, batch {BATCH}, {options.threads} threads: images/s (medians of {options.rounds} rounds)")
    for name, rate in train["images_per_second"].items():
        print(f"  {name:32s} {rate:10.0f}")
    print(f"  pycnn / {train['best_peer']}: {train['ratio']:.2f}")
    print("\ninference, batch 1: microseconds")
    for name, value in infer["microseconds"].items():
        print(f"  {name:32s} {value:10.1f}")
    print(f"  pycnn / {infer['best_peer']}: {infer['latency_ratio']:.2f} (1 or less is faster)")
    save("lenet_speed", result, options.json)


if __name__ == "__main__":
    main()
