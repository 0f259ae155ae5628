"""Training steps on a GPU, pycnn beside PyTorch at its best, in turns in one process.

    python tools/gpu_times.py OUTPUT.json
    python tools/gpu_times.py --tune    # only compiles the nets, which chooses their kernels and keeps the choices

Both compute in bfloat16 (PyTorch by autocast, channels last), from images that are on the host for pycnn and on the GPU
for PyTorch. Neither waits for a step before the next is given. PyTorch's best is the faster of eager and one CUDA
graph, and the ratio is to that. A column of its own has pycnn in float16 with its scaled loss, of some nets: choosing
their kernels takes as long again. What pycnn has no kernels for says so.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

import pycnn

# name (of torchvision, too), image, batch
NETS = [("resnet18", 224, 64), ("resnet50", 224, 32), ("vgg16", 224, 16), ("alexnet", 224, 64)]
FLOAT16 = {"resnet18", "resnet50"}
STEPS, ROUNDS = 10, 3


def pycnn_step(name: str, size: int, batch: int, dtype: str = "bfloat16") -> Any:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, size, size, 3), dtype=np.float32)
    y = rng.integers(0, 1000, batch)
    optimizer = pycnn.optim.SGD(lr=1e-3, momentum=0.9)
    trainer = pycnn.Trainer(pycnn.models.create(name), optimizer=optimizer, device="cuda", dtype=dtype)

    def steps(count: int) -> None:
        begun: deque[Any] = deque()  # as `fit` does: the result of a step is looked at two steps later
        for _ in range(count):
            begun.append(trainer.begin_batch(x, y))
            if len(begun) > 2:
                begun.popleft().wait()
        while begun:
            begun.popleft().wait()

    return steps


def torch_steps(name: str, size: int, batch: int) -> dict[str, Any]:
    import torch
    import torchvision

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    net = getattr(torchvision.models, name)().cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    x = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), device="cuda")

    def work() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()

    def eager(count: int) -> None:
        for _ in range(count):
            work()
        torch.cuda.synchronize()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(5):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def replay(count: int) -> None:
        for _ in range(count):
            graph.replay()
        torch.cuda.synchronize()

    return {"eager": eager, "graph": replay}


def seconds(step: Any) -> float:
    begin = time.perf_counter()
    step(STEPS)
    return (time.perf_counter() - begin) / STEPS


def compare(name: str, size: int, batch: int) -> dict[str, Any]:
    steps = {"pycnn": pycnn_step(name, size, batch)}
    try:
        if name in FLOAT16:
            steps["float16"] = pycnn_step(name, size, batch, "float16")
    except pycnn.Error as error:
        print(f"# {name}: not in float16 ({str(error).splitlines()[0]})")
    try:
        steps.update(torch_steps(name, size, batch))
    except (ImportError, RuntimeError) as error:
        print(f"# {name}: no PyTorch to compare with ({str(error).splitlines()[0]})")
    times: dict[str, list[float]] = {key: [] for key in steps}
    for step in steps.values():
        step(20)  # pycnn's records and tries both ways of running the steps
    for _ in range(ROUNDS):
        for key, step in steps.items():
            times[key].append(seconds(step))
    return {"net": name, "batch": batch, **{key: batch / statistics.median(values) for key, values in times.items()}}


def tune() -> None:
    # Those without a peer last: they are what a limit may cut off.
    for dtype in ("bfloat16", "float16"):
        for name, size, batch in NETS:
            if dtype == "float16" and name not in FLOAT16:
                continue
            begin = time.perf_counter()
            pycnn_step(name, size, batch, dtype)(1)
            taken = time.perf_counter() - begin
            print(f"{name} batch {batch}, {dtype}: {taken:.1f} s to compile and take a step", flush=True)


def main() -> int:
    if sys.argv[1] == "--tune":
        tune()
        return 0
    rows = []
    print(f"{'training, bfloat16, images/s':32} {'pycnn':>10} {'torch':>10} {'ratio':>7} {'float16':>10}")
    for name, size, batch in NETS:
        try:
            row = compare(name, size, batch)
        except pycnn.Error as error:
            print(f"{name} batch {batch}: {str(error).splitlines()[0]}")
            continue
        rows.append(row)
        peers = [row[key] for key in ("eager", "graph") if key in row]
        best = f"{max(peers):10.0f} {row['pycnn'] / max(peers):7.2f}" if peers else f"{'-':>10} {'-':>7}"
        half = f"{row['float16']:10.0f}" if "float16" in row else f"{'-':>10}"
        print(f"{name + f' batch {batch}':32} {row['pycnn']:10.0f} {best} {half}", flush=True)
    Path(sys.argv[1]).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
