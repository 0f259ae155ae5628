"""What following the advice of `pycnn.transfer.survey` costs: the best strategy's accuracy minus the advised one's.

The data sets: MNIST (different from the encoder's photographs), CIFAR-10 (what the encoder was trained on; the images
to learn from and those held out are test images, which it has not seen), and ants_bees for reference, which was looked
at while the rule was made. All at 32x32 pixels, grey made colour. Held-out images are the set's own and choose nothing.
The best of several strategies looks better on them than it is, so a regret is a little above 0 even where the advice
is right; its error is that of the paired difference, from the held-out images of the first seed alone.

    python benchmarks/transfer_advice.py --data-dir DIR --json benchmarks/results/transfer_advice_DATE.json
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from timing import environment, save

import pycnn as pc
from pycnn import transfer
from pycnn.data import transforms
from pycnn.transfer import Comparison, Survey

SIDE = 32
SETS = ("mnist-10", "cifar-20", "mnist-50", "cifar-200", "mnist-200", "ants_bees")


@dataclass
class Case:
    """One data set: what was advised, and how each strategy did."""

    data: str
    train_images: int
    held_out: int
    classes: int
    epochs: int
    similarity: float
    similarity_error: float | None
    advised: str
    confident: bool
    best: str
    regret: float
    regret_error: float
    strategies: list[dict[str, Any]]
    depths: list[dict[str, Any]]
    seconds: float


def first_of_each(labels: np.ndarray, classes: int, count: int, skip: int = 0) -> np.ndarray:
    """Positions of so many images of each of the first classes, after `skip` others."""
    found = [np.flatnonzero(labels == label)[skip : skip + count] for label in range(classes)]
    if min(map(len, found)) < count:
        raise SystemExit(f"there are not {skip + count} images of each class")
    return np.concatenate(found)


def pick(data: Any, index: np.ndarray, classes: int) -> pc.data.ArrayDataset:
    """These images as colour images of 32x32 pixels."""
    images = np.asarray(data.images[index])
    border = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
    return pc.data.ArrayDataset(
        images.repeat(3 // images.shape[3], axis=3), data.labels[index], data.class_names[:classes]
    )


def load(name: str, folder: Path, classes: int, held_out: int) -> tuple[Any, Any, Any]:
    """Images to learn from, held-out ones, and augmentation (None: the default)."""
    if name == "ants_bees":
        parts = (pc.data.ImageFolder(folder / name / part, size=SIDE) for part in ("train", "val"))
        return (*(part.in_memory() for part in parts), None)
    kind, count = name.split("-")
    each = int(count)
    if kind == "cifar":
        _, test = pc.data.cifar10(folder / "cifar10")
        learn, check = (
            first_of_each(test.labels, classes, each),
            first_of_each(test.labels, classes, held_out // classes, skip=each),
        )
        return pick(test, learn, classes), pick(test, check, classes), None
    train, test = pc.data.mnist(folder / "mnist")
    # A mirrored digit is another sign.
    crop = transforms.RandomResizedCrop((SIDE, SIDE), scale=(0.5, 1.0))
    learn, check = (
        first_of_each(train.labels, classes, each),
        first_of_each(test.labels, classes, held_out // classes),
    )
    return pick(train, learn, classes), pick(test, check, classes), crop


def regret(compared: Comparison, advised: str) -> tuple[float, float]:
    """Best minus advised accuracy, and the standard error of the paired difference."""
    mine = next(r for r in compared.results if r.name == advised)
    difference = compared.best.right.astype(float) - mine.right
    return compared.best.mean - mine.mean, float(difference.std() / math.sqrt(len(difference)))


def run(name: str, args: argparse.Namespace) -> Case:
    """Look, advise, and carry everything out."""
    started = time.process_time()
    train, check, augment = load(name, args.data_dir, args.classes, args.held_out)
    net = transfer.default_encoder()
    if args.encoder is not None:
        net = pc.load(args.encoder)
    # As many steps for all, or few images would be learnt from for a moment only.
    epochs = max(args.epochs, math.ceil(args.steps / math.ceil(len(train) / args.batch_size)))
    found: Survey = transfer.survey(net, train, threads=args.threads)
    print(f"{name}: {len(train)} images, {epochs} epochs; advice: {found.advice}", flush=True)
    compared = transfer.compare(
        net,
        train,
        check,
        seeds=args.seeds,
        epochs=epochs,
        batch_size=args.batch_size,
        transform=augment,
        threads=args.threads,
        report=lambda line: print(f"  {line}", flush=True),
    )
    value, error = regret(compared, found.advice.strategy)
    return Case(
        name,
        len(train),
        len(check),
        len(train.class_names),
        epochs,
        found.similarity,
        found.similarity_error,
        found.advice.strategy,
        found.advice.confident,
        compared.best.name,
        value,
        error,
        compared.rows(),
        [asdict(depth) for depth in found.depths],
        time.process_time() - started,
    )


def table(cases: list[Case]) -> str:
    """The cases as Markdown."""
    lines = [
        "| data, images of a class | similarity | advice | its accuracy | best | its accuracy | regret, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        means = {row["strategy"]: 100 * row["mean"] for row in case.strategies}
        advice = case.advised if case.confident else f"{case.advised} (not confident)"
        error = "" if case.similarity_error is None else f" +- {case.similarity_error:.2f}"
        lines.append(
            f"| {case.data}, {case.train_images // case.classes} | {case.similarity:.2f}{error} | {advice} "
            f"| {means[case.advised]:.1f} % | {case.best} | {means[case.best]:.1f} % "
            f"| {100 * case.regret:.1f} +- {100 * case.regret_error:.1f} |"
        )
    within = sum(case.regret <= 2 * case.regret_error for case in cases)
    return "\n".join([*lines, "", f"regret within two errors in {within} of {len(cases)} cases"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="holds mnist, cifar10 and ants_bees")
    parser.add_argument("--sets", default=",".join(SETS), help=f"KIND-IMAGES_OF_A_CLASS (default: {','.join(SETS)})")
    parser.add_argument("--encoder", type=Path, help="model file (default: the encoder that comes along)")
    parser.add_argument("--classes", type=int, default=10, help="the first so many of MNIST and CIFAR-10")
    parser.add_argument("--held-out", type=int, default=1000, help="images of MNIST and CIFAR-10")
    parser.add_argument("--steps", type=int, default=120, help="of training, at least")
    parser.add_argument("--epochs", type=int, default=4, help="of training, at least")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    args = parser.parse_args()
    settings = {name: value for name, value in vars(args).items() if name not in ("data_dir", "json", "encoder")}
    cases: list[Case] = []
    for name in args.sets.split(","):
        cases.append(run(name, args))
        result = {"environment": environment("scikit-learn"), "settings": settings}
        save("transfer_advice", {**result, "cases": [asdict(case) for case in cases]}, args.json)
        print(table(cases), flush=True)


if __name__ == "__main__":
    main()
