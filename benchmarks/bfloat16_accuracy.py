"""Trainings of the same net in float32 and in bfloat16: test accuracy of both, from the same weights and batches.

    python benchmarks/bfloat16_accuracy.py --data-dir DIR [--recipes cifar_resnet20] [--epochs 3] [--json FILE]

bfloat16 is computed by the processor's units (AMX, AVX512-BF16), or, without them, as they would: slowly.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from timing import environment, save

import pycnn as pc
from pycnn.config import machine

DTYPES = ("float32", "bfloat16")


@dataclass
class Run:
    """The same training in both types: test accuracies, losses of the last epoch."""

    recipe: str
    seed: int
    images: int
    epochs: int
    units: list[str]
    accuracy: dict[str, float]
    loss: dict[str, float]


def train(args: argparse.Namespace, name: str, seed: int, dtype: str) -> tuple[int, float, float]:
    """Return the number of images, the test accuracy and the mean loss of the last epoch."""
    train_set, test_set = pc.data.cifar10(args.data_dir)
    if args.images:
        train_set = pc.data.subset(train_set, np.arange(args.images))
    emulate = dtype == "bfloat16" and not machine()["bfloat16_units"]
    recipe = pc.train.recipe(name, epochs=args.epochs, seed=seed, dtype=dtype, emulate_bfloat16=emulate)
    if recipe.schedule != "one-cycle":
        raise NotImplementedError(f"recipe {name} with schedule {recipe.schedule}")
    pc.manual_seed(seed)
    net = recipe.make_net()
    net.build(train_set.image_shape)
    trainer = recipe.make_trainer(net, train_set)
    loader = pc.data.Loader(
        train_set, recipe.batch_size, transform=recipe.make_transform(train_set.image_shape), seed=seed, drop_last=True
    )
    if not len(loader):
        raise SystemExit(f"--images is {len(train_set)}, expected at least a batch of {recipe.batch_size}")
    trainer.schedule = pc.optim.OneCycle(rise=recipe.rise, total_steps=args.epochs * len(loader))
    losses: list[float] = []
    for epoch in range(args.epochs):
        losses = [float(trainer.step(x, y)["loss"]) for x, y in loader]
        print(f"  {name}, seed {seed}, {dtype}, epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    accuracy = trainer.evaluate(test_set, batch_size=500)["accuracy"]
    return len(train_set), float(accuracy), float(np.mean(losses))


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--recipes", default="cifar_resnet20", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=0, help="training images to use; 0: all")
    parser.add_argument("--json")
    args = parser.parse_args()
    units, runs = machine()["bfloat16_units"], []
    for name in args.recipes.split(","):
        for seed in range(args.seeds):
            found = {dtype: train(args, name, seed, dtype) for dtype in DTYPES}
            accuracy = {dtype: values[1] for dtype, values in found.items()}
            loss = {dtype: values[2] for dtype, values in found.items()}
            runs.append(Run(name, seed, found["float32"][0], args.epochs, units, accuracy, loss))
            both = ", ".join(f"{dtype} {100 * accuracy[dtype]:.2f} % (loss {loss[dtype]:.4f})" for dtype in DTYPES)
            print(f"{name}, seed {seed}: {both}", flush=True)
            result = {"environment": environment(), "runs": [asdict(run) for run in runs]}
            save("bfloat16_accuracy", result, args.json)


if __name__ == "__main__":
    main()
