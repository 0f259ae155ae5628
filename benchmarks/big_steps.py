"""Ten training steps of the lecture's large networks on real photographs: do losses fall, and in how much memory?

    python benchmarks/big_steps.py PHOTOS [--nets NAME ...] [--batch 8] [--steps 10] [--threads N] [--json FILE]

PHOTOS is a folder of pictures; each is a class of its own, and all steps see the same ones, so that the loss falls if
gradients and updates are right. Each network runs in a process of its own, which reports its largest resident size.
Ends with 1 if a loss did not fall or memory exceeded 20 GB. Needs Pillow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import environment, save

import pycnn as pc

# Learning rates at which a few steps on a few pictures tell; GoogLeNet's are with its auxiliary heads.
NETS = {
    "alexnet_2012": 0.0005,
    "vgg16": 0.0005,
    "googlenet_paper": 0.002,
    "googlenet": 0.005,
    "resnet50": 0.005,
    "resnext50_32x4d": 0.005,
}
LIMIT_BYTES = 20e9
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(folder: Path, count: int, size: int) -> np.ndarray:
    """Read pictures as uint8 (N, size, size, 3), cut to their middle square."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(files) < count:
        raise SystemExit(f"{folder}: {len(files)} pictures, --batch {count} needs as many")
    images = np.empty((count, size, size, 3), np.uint8)
    for index, path in enumerate(files[:count]):
        with Image.open(path) as picture:
            side = min(picture.size)
            left, top = ((length - side) // 2 for length in picture.size)
            square = picture.convert("RGB").crop((left, top, left + side, top + side))
            images[index] = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))
    return images


def run(name: str, folder: Path, batch: int, steps: int, threads: int | None) -> dict[str, Any]:
    """Train one network on one batch."""
    net = pc.models.create(name)
    size = (net.input_shape or (224,))[0]
    images = photographs(folder, batch, size)
    optimizer = pc.optim.SGD(lr=NETS.get(name, 0.01), momentum=0.9, weight_decay=5e-4)
    trainer = pc.Trainer(net, optimizer=optimizer, threads=threads, normalize=(_MEAN, _STD))
    losses, seconds = [], []
    for _ in range(steps):
        started = time.perf_counter()
        losses.append(trainer.step(images, np.arange(batch))["loss"])
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "net": name,
        "batch": batch,
        "size_px": size,
        "parameters": net.num_parameters,
        "losses": losses,
        "fell": bool(np.mean(losses[-3:]) < losses[0]),
        "peak_bytes": peak,
        # The first step compiles.
        "first_step_seconds": seconds[0],
        "step_seconds": float(np.median(seconds[1:] or seconds)),
    }


def main() -> int:
    """Run every network and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--nets", nargs="+", default=list(NETS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.one, args.photos, args.batch, args.steps, args.threads)))
        return 0
    results = []
    for name in args.nets:
        command = [sys.executable, __file__, str(args.photos), "--one", name]
        command += ["--batch", str(args.batch), "--steps", str(args.steps)]
        command += ["--threads", str(args.threads)] if args.threads else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout)
        results.append(row)
        losses = " ".join(f"{loss:.3f}" for loss in row["losses"])
        print(f"{name}, {row['batch']} photographs of {row['size_px']} px: loss {losses}")
        print(
            f"  {'fell' if row['fell'] else 'DID NOT FALL'}; peak memory {row['peak_bytes'] / 1e9:.2f} GB; "
            f"{row['step_seconds']:.2f} s a step, {row['first_step_seconds']:.2f} s the first",
            flush=True,
        )
    save("big_steps", {"environment": environment("pillow"), "results": results}, args.json)
    return 0 if all(row["fell"] and row["peak_bytes"] < LIMIT_BYTES for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
