"""A training step beside a process that burns one core: two threads must not lose to one.

    python benchmarks/thread_policy.py [--seconds 20] [--batch 256] [--json FILE] [--no-torch]

Times LeNet-5 training steps with one and with two threads, alone and beside the burner, interleaved; PyTorch in the
same run for comparison (processes of their own, so that one library's threads do not disturb the other's).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np


def pycnn_step(threads: int, batch: int) -> Any:
    """Return one step of pycnn."""
    import pycnn

    x, y = data(batch)
    net = pycnn.models.create("lenet5")
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.01, momentum=0.9), threads=threads, metrics=())
    return lambda: trainer.step(x, y)


def torch_step(threads: int, batch: int) -> Any:
    """Return one step of PyTorch."""
    import torch
    from lenet_speed import torch_lenet
    from lenet_speed import torch_step as step

    import pycnn

    torch.set_num_threads(threads)
    x, y = data(batch)
    net = torch_lenet(pycnn.models.create("lenet5").build((28, 28, 1)).state_dict())
    return step(net, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y))


def data(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((batch, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, batch)


def worker(library: str, threads: int, batch: int) -> None:
    """Answer each line on standard input with the median step time of a slice of that many seconds."""
    step = {"pycnn": pycnn_step, "torch": torch_step}[library](threads, batch)
    for _ in range(5):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        end = time.perf_counter() + float(line)
        begin = time.perf_counter()
        steps = 0
        while time.perf_counter() < end:
            step()
            steps += 1
        print((time.perf_counter() - begin) / steps, flush=True)


def burn() -> subprocess.Popen[bytes]:
    """Start a process that burns one core."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def measure(libraries: list[str], batch: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return the mean step time (over a slice) of every library, thread count and situation, in seconds."""
    workers = {
        (library, threads): subprocess.Popen(
            [sys.executable, __file__, "--worker", library, str(threads), str(batch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for library in libraries
        for threads in (1, 2)
    }  # fmt: skip
    samples: dict[str, dict[tuple[str, int], list[float]]] = {"alone": {}, "beside a burner": {}}
    try:
        for process in workers.values():
            assert process.stdout is not None
            process.stdout.readline()
        rounds = max(3, round(seconds / (len(workers) * 2 * 0.5)))
        for _ in range(rounds):
            for situation in samples:
                hog = burn() if situation != "alone" else None
                try:
                    time.sleep(0.2 if hog else 0)
                    for key, process in workers.items():
                        assert process.stdin is not None
                        assert process.stdout is not None
                        process.stdin.write("0.5\n")
                        process.stdin.flush()
                        samples[situation].setdefault(key, []).append(float(process.stdout.readline()))
                finally:
                    if hog:
                        hog.kill()
                        hog.wait()
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    return {
        situation: {f"{library}, {threads} threads": statistics.median(v) for (library, threads), v in by_key.items()}
        for situation, by_key in samples.items()
    }


def main() -> None:
    """Measure and print."""
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--no-torch", action="store_true")
    options = parser.parse_args()
    libraries = ["pycnn"] if options.no_torch else ["pycnn", "torch"]
    table = measure(libraries, options.batch, options.seconds)
    for situation, times in table.items():
        print(f"LeNet-5 training step, batch {options.batch}, {situation}:")
        for name, value in times.items():
            print(f"  {name:24s} {value * 1e3:9.2f} ms")
    ratios = {
        library: table["beside a burner"][f"{library}, 2 threads"] / table["beside a burner"][f"{library}, 1 threads"]
        for library in libraries
    }
    for library, ratio in ratios.items():
        print(f"{library}: two threads beside a burner take {ratio:.2f} of the one-thread time")
    if options.json:
        from timing import environment, save

        save("thread_policy", {"environment": environment("torch"), "seconds": table, "ratios": ratios}, options.json)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
