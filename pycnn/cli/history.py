"""Train the lecture's generations of nets, LeNet to ResNeXt, on the same data with the same budget.

The nets are small-image variants of about the same cost. With --seconds the number of steps follows from the speed of
this machine; with --steps the result is the same every time.

Examples:
  pycnn history
  pycnn history --data cifar10 --data-dir DIR --seconds 120
  pycnn history --steps 200 --nets cifar_vgg,cifar_resnet20 --json
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from pycnn.cli import _data, _options, _plots
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.generations import GENERATIONS, GenerationResult, compare_generations, draw_generations
from pycnn.train._augmentation import make_transform

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

_SECONDS = 30.0
_PICTURE = "history.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _data.add_arguments(parser)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--seconds", type=_options.number, metavar="S", help=f"training time of each net (default: {_SECONDS:g})"
    )
    budget.add_argument("--steps", type=_options.count, metavar="N", help="steps of each net instead")
    parser.add_argument(
        "--batch-size", type=_options.count, default=64, metavar="N", help="images in a step (default: 64)"
    )
    parser.add_argument(
        "--nets",
        metavar="NAME,NAME",
        help=f"only these (default: {','.join(generation.net for generation in GENERATIONS)})",
    )
    parser.add_argument("--augment", default="light", metavar="NAME", help="none, light, strong, ... (default: light)")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help=f"where the chart goes (default: {_PICTURE}, or {Path(_PICTURE).stem}-2.png and so on "
        "where there is one already; if matplotlib is installed)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Train, tabulate, draw."""
    if args.seconds == 0.0:
        raise UsageError("--seconds must be above 0")
    known = {generation.net: generation for generation in GENERATIONS}
    names = list(known) if args.nets is None else [name.strip() for name in args.nets.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"--nets: '{name}' is none of {', '.join(known)}")
    picture = None
    if args.plot is not None:
        picture = Path(args.plot)
    elif find_spec("matplotlib") is not None:
        picture = _plots.unused(Path(_PICTURE))
    if picture is not None:
        _plots.check("--plot", picture)
        _options.check_output("--plot", picture, example=_PICTURE)
    size = (28, 28) if args.data == "mnist" else (32, 32)
    data = _data.load_data(args.data, args.data_dir, size=size, channels=3, on_error=args.on_error)
    with _options.as_usage():
        transform = make_transform(args.augment, args.data, data.train.image_shape)
    seconds = None if args.steps is not None else args.seconds or _SECONDS
    results = compare_generations(
        data.train,
        data.test,
        seconds=seconds,
        steps=args.steps,
        generations=[known[name] for name in names],
        batch_size=args.batch_size,
        transform=transform,
        seed=args.seed,
        device=args.device,
        threads=args.threads,
        report=output.progress,
    )
    budget = f"{args.steps:,} steps" if seconds is None else f"{seconds:g} s of training"
    failure = None
    if picture is not None:
        title = f"{args.data}, {budget} for each net"
        picture, failure = _plots.attempt(lambda path: draw_generations(results, path, title=title), picture)
    else:
        output.progress("no chart is drawn: pip install 'pycnn[plot]' adds it")
    values = {
        "data": args.data,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "skipped_images": data.skipped,
        "seconds": seconds,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "augment": args.augment,
        "seed": args.seed,
        "nets": [result.to_dict() for result in results],
        "picture": picture,
    }
    lines = [_table(results)]
    if picture is not None:
        lines.append(f"chart: {picture}")
    output.result(values, "\n".join(lines) + data.skipped_text)
    if failure is not None:
        raise failure
    best = max(results, key=lambda result: result.test_accuracy)
    where = f" --data-dir {args.data_dir}" if args.data_dir is not None else ""
    output.suggest(f"pycnn train {best.net} --data {args.data}{where}")
    return 0


def _table(results: list[GenerationResult]) -> str:
    rows = [("year", "net", "parameters", "MMAC", "steps", "images", "seconds", "s/1,000 images", "accuracy")]
    rows += [
        (
            str(r.year),
            r.title,
            f"{r.parameters:,}",
            f"{r.macs / 1e6:.2f}",
            f"{r.steps:,}",
            f"{r.images:,}",
            f"{r.seconds:.1f}",
            f"{r.seconds_per_1000_images:.3f}",
            f"{100 * r.test_accuracy:.2f} %",
        )
        for r in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
