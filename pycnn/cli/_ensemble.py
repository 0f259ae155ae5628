"""Ensembles on the command line: trained one after the other, measured alone and together."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

from pycnn.cli import _options
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.cli._plan import make_plan
from pycnn.cli.train import train_plan
from pycnn.ensemble import Ensemble, write_list
from pycnn.nn.module import Module
from pycnn.textfile import write_text
from pycnn.train import Recipe
from pycnn.train._files import make_directory

__all__ = ["train_ensemble"]

_LIST = "ensemble.toml"


def train_ensemble(args: argparse.Namespace, recipe: Recipe, run_dir: Path | None, output: Output) -> int:
    """Train nets with the seeds S, S + 1, ...; report each and their average."""
    if args.verify_determinism:
        raise UsageError("--verify-determinism and --ensemble exclude each other")
    if args.output is not None and args.output.suffix != ".toml":
        raise UsageError(f"--output '{args.output}' of an ensemble must end in .toml: it is a list of model files")
    listing = args.output if args.output is not None else None if run_dir is None else run_dir / _LIST
    nets: list[Module] = []
    members: list[dict[str, Any]] = []
    data, plan, done, failure = None, None, None, None
    for number in range(1, args.ensemble + 1):
        folder = None if run_dir is None else run_dir / f"member-{number}"
        own = copy.copy(args)
        own.ensemble = None
        if args.plot:
            own.plot = str(Path(args.plot).with_stem(f"{Path(args.plot).stem}-{number}"))
        elif args.plot is not None and folder is None:
            own.plot = f"curves-{number}.png"
        plan = make_plan(own, recipe.override(seed=recipe.seed + number - 1), folder, data)
        if data is None and run_dir is not None and args.resume is None and output.is_main:
            make_directory(run_dir, who="--run-dir")
            write_text(run_dir / "config.toml", _options.to_toml({**plan.settings(), "ensemble": args.ensemble}))
        data = plan.data
        output.progress(f"net {number} of {args.ensemble}")
        file = None if listing is None else listing.with_name(f"{listing.stem}-{number}.safetensors")
        done = train_plan(plan, output, file, resume=args.resume is not None)
        nets.append(plan.net)
        failure = failure or done.failure
        members.append(
            {
                "seed": plan.recipe.seed,
                "test_accuracy": done.accuracy,
                "test_loss": done.loss,
                "seconds": done.seconds,
                "weights_fingerprint": done.trainer.fingerprint(),
                "file": file,
            }
        )
    assert plan is not None
    assert done is not None
    if listing is not None and output.is_main:
        write_list(listing, [member["file"] for member in members])
    # As each net was measured: where it was trained, and in that type.
    ensemble = Ensemble(nets, device=args.device, threads=args.threads, **done.trainer.numerics)
    measured = ensemble.evaluate(plan.data.test, transform=recipe.make_test_transform())
    accuracies = [member["test_accuracy"] for member in members]
    values = {
        "net": recipe.net,
        "data": recipe.data,
        "test_images": len(plan.data.test),
        "skipped_images": plan.data.skipped,
        "members": members,
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "ensemble_accuracy": measured["accuracy"],
        "ensemble_loss": measured["loss"],
        "output": listing,
    }
    lines = [
        f"net {n}: seed {m['seed']}, test accuracy {100 * m['test_accuracy']:.2f} %" for n, m in enumerate(members, 1)
    ]
    lines.append(
        f"ensemble of {len(nets)}: test accuracy {100 * measured['accuracy']:.2f} %, loss {measured['loss']:.4f} "
        f"(one net on average {100 * values['mean_accuracy']:.2f} %)"
    )
    if listing is not None:
        lines.append(f"written: {listing}")
    output.form = "train-ensemble"
    output.result(values, "\n".join(lines) + plan.data.skipped_text)
    if failure is not None:
        raise failure
    output.suggest(
        plan.evaluate_command(listing)
        if listing is not None
        else f"pycnn train {recipe.net} --ensemble {args.ensemble} --output ensemble.toml keeps the nets"
    )
    return 0
