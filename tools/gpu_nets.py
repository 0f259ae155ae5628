"""Nets of the zoo on a GPU where there is no pytest: the losses of 20 steps beside the CPU's, and twice bit for bit.

python tools/gpu_nets.py [--seconds SECONDS] [--device cuda] [NET...]

No net is begun after SECONDS, except the first. It ends with 1 if a net differs or fails; the last line says how many
were checked, the one before it which were left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Chosen by time, a kernel may be another one the second time.
os.environ["PYCNN_CUDA_DETERMINISTIC"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import zoo_losses

import pycnn

# Of each kind a quick one, the quickest first: how many there is time for is not known.
FIRST = (
    "lenet5",
    "cifar_resnet20",
    "cifar_speed",
    "cifar_resnext",
    "resnet18",
    "mobilenet_v2",
    "squeezenet1_1",
    "resnet50",
    "densenet121",
    "vgg11_lrn",
)


def check(name: str, device: str) -> str:
    """What is wrong with a net on a device; empty: nothing."""
    try:
        first = zoo_losses.losses(name, device)
        if not np.array_equal(zoo_losses.losses(name, device), first, equal_nan=True):
            return "two runs differ"
        expected = zoo_losses.losses(name, "cpu")
    # Whatever happens to one net, the next ones are checked.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    try:
        zoo_losses.assert_as_the_cpu(first, expected)
    except AssertionError as error:
        return f"not the CPU's losses: {error}"
    return ""


def main() -> int:
    """Check nets one by one until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    nets = options.nets or [*FIRST, *(name for name in pycnn.models.list() if name not in FIRST)]
    begin = time.monotonic()
    done, failed = 0, []
    for name in nets:
        if done and time.monotonic() - begin >= options.seconds:
            break
        wrong = check(name, options.device)
        done += 1
        if wrong:
            failed.append(name)
        print(f"{time.monotonic() - begin:6.1f} s  {name}: {wrong or 'as the CPU, twice the same'}", flush=True)
    if left := nets[done:]:
        print("no time for", *left)
    if failed:
        print(f"no pytest: {len(failed)} of {done} nets differ from the CPU or fail: {', '.join(failed)}")
        return 1
    print(f"no pytest: 20 steps as the CPU of {done} nets of {len(nets)}, other tests left out")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
