"""Train a small net on CIFAR-10 step by step beside PyTorch: same weights, same batches, same update.

Both losses are printed with their distances from PyTorch in float64, and how far the weights lie from those in float64,
as a share of the way from the first ones. ReLUs near zero fall the other way in float32, so trainings drift apart
within some steps, PyTorch's own float32 from its float64 as well: the drifts are to be alike, not the losses for ever.

    python benchmarks/training_parity.py --data-dir DIR --steps 200
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch_twin import Training

import pycnn as pc


def distance(from_: Training, weights: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> float:
    """How far other weights lie from a training's, as a share of the way that those went from the first ones."""
    own = from_.weights()
    apart = sum(float(((weights[name] - own[name]) ** 2).sum()) for name in own)
    way = sum(float(((first[name] - own[name]) ** 2).sum()) for name in own)
    return (apart / way) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--recipe", default="pretrain-small", help="of a net for CIFAR-10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    train, _ = pc.data.cifar10(args.data_dir)
    recipe = pc.train.recipe(args.recipe, epochs=-(-args.steps // (len(train) // 128)), augment="none", seed=args.seed)
    pc.manual_seed(args.seed)
    net = recipe.make_net()
    net.build((32, 32, 3))
    state = net.state_dict()
    trainer = recipe.make_trainer(net, train)
    trainer.schedule = pc.optim.OneCycle(rise=recipe.rise, total_steps=args.steps)
    single, double = Training(net, recipe), Training(net, recipe, torch.float64)
    rows: list[dict[str, float]] = []
    head = ("pycnn", "torch", "pycnn-f64", "torch-f64", "pycnn drift", "torch drift")
    print(f"{'step':>5} " + " ".join(f"{name:>11}" for name in head))
    while len(rows) < args.steps:
        for x, y in pc.data.Loader(train, recipe.batch_size, seed=args.seed + len(rows), drop_last=True):
            rate = trainer.learning_rate
            ours = trainer.step(x, y)["loss"]
            theirs, true = single.step(x, y, rate), double.step(x, y, rate)
            rows.append({"step": len(rows) + 1, "rate": rate, "pycnn": ours, "torch": theirs, "torch_float64": true})
            if len(rows) in (1, 2, 3, 5, 10, 15, 20, 30, 50, 70) or len(rows) % 50 == 0:
                drifts = (distance(double, net.state_dict(), state), distance(double, single.weights(), state))
                print(
                    f"{len(rows):5} {ours:11.6f} {theirs:11.6f} {ours - true:11.2e} {theirs - true:11.2e} "
                    f"{drifts[0]:11.2e} {drifts[1]:11.2e}",
                    flush=True,
                )
            if len(rows) == args.steps:
                break
    last = rows[-20:]
    means = {name: float(np.mean([row[name] for row in last])) for name in ("pycnn", "torch", "torch_float64")}
    print("mean loss of the last 20 steps: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    if args.json is not None:
        args.json.write_text(json.dumps({"recipe": args.recipe, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
