"""Small nets on CIFAR-10 by the same recipe here and in PyTorch: test accuracy and seconds an epoch.

Both start from the same weights and see the same augmented batches in the same order at the same rates; epochs take
turns, so that both meet the same machine. Seconds are those of the training steps, without waiting for data. Where a
recipe trains by Muon, PyTorch, whose Muon takes no convolutions, trains by SGD as the recipe pretrain-small does, its
rate in proportion to the batch: less work a step, and an accuracy of another method.

    python benchmarks/cifar_against_torch.py --data-dir DIR --recipes cifar_vgg,cifar_resnext --seeds 2 --epochs 3
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from timing import environment, save
from torch_twin import Training

import pycnn as pc


@dataclass
class Run:
    """One training in both engines: accuracies at its end, seconds of its epochs."""

    recipe: str
    seed: int
    images: int
    epochs: int
    pycnn_optimizer: str
    torch_optimizer: str
    pycnn_accuracy: float
    torch_accuracy: float
    pycnn_seconds: list[float]
    torch_seconds: list[float]


def train_both(args: argparse.Namespace, name: str, seed: int) -> Run:
    """Train by a recipe in turns."""
    train, test = pc.data.cifar10(args.data_dir)
    if args.images:
        train = pc.data.subset(train, np.arange(args.images))
    recipe = pc.train.recipe(name, epochs=args.epochs, seed=seed)
    if recipe.schedule != "one-cycle":
        raise NotImplementedError(f"recipe {name} with schedule {recipe.schedule}")
    pc.manual_seed(seed)
    net = recipe.make_net()
    net.build(train.image_shape)
    trainer = recipe.make_trainer(net, train, threads=args.threads)
    loader = pc.data.Loader(
        train, recipe.batch_size, transform=recipe.make_transform(train.image_shape), seed=seed, drop_last=True
    )
    trainer.schedule = pc.optim.OneCycle(rise=recipe.rise, total_steps=args.epochs * len(loader))
    peer_recipe = recipe
    if recipe.optimizer == "muon":
        sgd = pc.train.recipe("pretrain-small")
        peer_recipe = recipe.override(
            optimizer="sgd", lr=sgd.lr * recipe.batch_size / sgd.batch_size, weight_decay=sgd.weight_decay
        )
    peer = Training(net, peer_recipe)
    seconds: tuple[list[float], list[float]] = ([], [])
    for epoch in range(args.epochs):
        batches = [(x.copy(), y.copy()) for x, y in loader]
        rates = []
        begin = time.perf_counter()
        for x, y in batches:
            rates.append(trainer.learning_rate)
            trainer.step(x, y)
        seconds[0].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for (x, y), rate in zip(batches, rates, strict=True):
            peer.step(x, y, rate * peer_recipe.lr / recipe.lr)
        seconds[1].append(time.perf_counter() - begin)
        took = f"{seconds[0][-1]:.1f} s, torch {seconds[1][-1]:.1f} s"
        print(f"  {name}, seed {seed}, epoch {epoch + 1}: {took}", flush=True)
    images, labels = (np.stack(part) for part in zip(*(test[i] for i in range(len(test))), strict=True))
    theirs = peer.accuracy(images, labels)
    ours = trainer.evaluate(test, batch_size=500)["accuracy"]
    return Run(name, seed, len(train), args.epochs, recipe.optimizer, peer_recipe.optimizer, ours, theirs, *seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--recipes", default="cifar_vgg,cifar_googlenet,cifar_resnext")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=0, help="training images to use; 0: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = []
    for name in args.recipes.split(","):
        for seed in range(args.seeds):
            run = train_both(args, name, seed)
            runs.append(run)
            ratio = statistics.median(run.torch_seconds) / statistics.median(run.pycnn_seconds)
            accuracy = f"{100 * run.pycnn_accuracy:.2f} %, torch {100 * run.torch_accuracy:.2f} %"
            print(f"{name}, seed {seed}: accuracy {accuracy}; torch takes {ratio:.2f} times as long", flush=True)
            result = {"environment": environment("torch"), "runs": [asdict(run) for run in runs]}
            save("cifar_against_torch", result, args.json)


if __name__ == "__main__":
    main()
