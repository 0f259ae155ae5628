"""Train a net, and measure it on held-out images.

Examples:
  pycnn train
  pycnn train lenet5 --data mnist --data-dir DIR --output lenet5.safetensors
  pycnn train --run-dir runs/first     then, if interrupted:  pycnn train --resume runs/first
  pycnn train --verify-determinism
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pycnn
from pycnn.benchmark import environment
from pycnn.cli import _data, _nets, _options
from pycnn.cli._options import UsageError, as_usage
from pycnn.cli._output import Output
from pycnn.cli._recipes import OPTIMIZERS, SCHEDULES, Recipe, recipe
from pycnn.config import machine, manual_seed
from pycnn.data import Dataset, Loader, split
from pycnn.nn.files import save
from pycnn.nn.module import Module
from pycnn.train import JSONLines, Trainer

__all__ = ["add_arguments", "run", "settings_file"]

_VERIFIED_STEPS = 20
_PLATEAU_VALIDATION = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "net", nargs="?", default="lenet5", metavar="NET", help="name of a net, or a file to go on from"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example pool=max"
    )
    parser.add_argument("--activation", metavar="NAME", help="short for --option activation=NAME")
    _data.add_arguments(parser)
    how = parser.add_argument_group("training (defaults depend on data set and net)")
    how.add_argument("--epochs", type=_options.count, metavar="N")
    how.add_argument("--batch-size", type=_options.count, metavar="N")
    how.add_argument("--lr", type=_options.number, metavar="X", help="learning rate")
    how.add_argument("--momentum", type=_options.fraction, metavar="X")
    how.add_argument("--weight-decay", type=_options.number, metavar="X", help="not of biases and norms")
    how.add_argument("--optimizer", choices=OPTIMIZERS)
    how.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate")
    how.add_argument(
        "--augment",
        type=_data.augmentation_name,
        metavar="NAME",
        help="none; light: small moves and turns, of photographs crop-mirror; strong: distortion too; or names joined "
        "by '+': crop-mirror, resized-crop or mirror, jitter, lighting, cutout, mixup",
    )
    how.add_argument("--clip-norm", type=_options.number, metavar="X", help="limit of the gradients' norm")
    how.add_argument("--ema", type=_options.fraction, metavar="D", help="average the weights with this decay")
    how.add_argument(
        "--validation",
        type=_options.fraction,
        metavar="PART",
        help='part of the training images that chooses the "best" net and the plateaus (default: 0, with --schedule '
        "plateau 0.1); without it the test images are measured after each epoch, and the last net counts",
    )
    where = parser.add_argument_group("files")
    where.add_argument("--output", type=Path, metavar="FILE", help="write the trained net here (.safetensors)")
    where.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="keep settings, environment, metrics.jsonl, and the last and best net after each epoch",
    )
    where.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with a run folder; the same bits as without a break"
    )
    parser.add_argument(
        "--verify-determinism",
        action="store_true",
        help=f"only check that {_VERIFIED_STEPS} steps give the same bits with other numbers of threads",
    )


def settings_file(args: argparse.Namespace) -> Path | None:
    """The settings of the run that is resumed.

    Raises:
        UsageError: There is no such run, or another folder is named too.
    """
    if args.resume is None:
        return None
    if args.run_dir is not None and args.run_dir != args.resume:
        raise UsageError("--run-dir and --resume name different folders; --resume goes on in its own")
    path: Path = args.resume / "config.toml"
    if not path.is_file():
        raise UsageError(f"--resume '{args.resume}': there is no config.toml, this is no run folder")
    return path


@dataclass
class _Plan:
    """Everything settled before the first step."""

    args: argparse.Namespace
    net: Module
    options: dict[str, Any]
    data: _data.Data
    fit: Dataset
    validation: Dataset
    recipe: Recipe
    run_dir: Path | None

    def fresh_net(self) -> Module:
        """The net as training begins."""
        manual_seed(self.args.seed)
        name: str = self.args.net
        net = _nets.find(name, {}) if _nets.is_file(name) else _nets.create(name, self.options)
        net.build(self.data.train.image_shape)
        return net

    def trainer(self, net: Module, threads: int | None) -> Trainer:
        """A trainer of a net."""
        steps = self.recipe.epochs * -(-len(self.fit) // self.recipe.batch_size)
        with as_usage():
            return Trainer(
                net,
                optimizer=self.recipe.make_optimizer(),
                loss=_nets.own_loss(net),
                device=self.args.device,
                threads=threads,
                seed=self.args.seed,
                schedule=self.recipe.make_schedule(steps),
                clip_norm=self.args.clip_norm,
                ema_decay=self.args.ema or None,
            )

    def settings(self) -> dict[str, Any]:
        """What `--config` takes to do the same again."""
        args = self.args
        values = {
            "net": str(Path(args.net).resolve()) if _nets.is_file(args.net) else args.net,
            "data": args.data,
            "data_dir": None if args.data_dir is None else str(args.data_dir.resolve()),
            **asdict(self.recipe),
            "clip_norm": args.clip_norm,
            "ema": args.ema,
            "validation": args.validation,
            "seed": args.seed,
            "threads": args.threads,
            "device": args.device,
            "output": None if args.output is None else str(args.output.resolve()),
            "option": self.options,
        }
        if self.recipe.optimizer != "sgd":
            del values["momentum"]
        return {key: value for key, value in values.items() if value is not None}


def run(args: argparse.Namespace, output: Output) -> int:
    """Train, measure, save."""
    plan = _plan(args)
    if args.verify_determinism:
        return _verify(plan, output)
    output.progress(str(plan.net.summary(plan.data.train.image_shape)))
    trainer = plan.trainer(plan.net, args.threads)
    program = pycnn.compile(plan.net, (1, *plan.data.train.image_shape), device=args.device, threads=args.threads)
    output.progress(
        f"training {args.net} on {len(plan.fit):,} images of {args.data}: {plan.recipe.optimizer}, "
        f"{plan.recipe.schedule} rate from {plan.recipe.lr:g}, batches of {plan.recipe.batch_size}, "
        f"augmentation {plan.recipe.augment}; seed {args.seed}, {program.threads} threads, {program.isa}"
    )
    if plan.run_dir is not None:
        _prepare_run(plan)
    started = time.perf_counter()
    _fit(plan, trainer, output)
    seconds = time.perf_counter() - started
    if args.ema:
        trainer.use_averages()
    measured = trainer.evaluate(plan.data.test)
    rows = trainer.history.rows
    images = sum(row["images_per_second"] * row["seconds"] for row in rows)
    result = {
        "net": args.net,
        "options": plan.options,
        "parameters": plan.net.num_parameters,
        "data": args.data,
        "train_images": len(plan.fit),
        "test_images": len(plan.data.test),
        "test_accuracy": measured["accuracy"],
        "test_loss": measured["loss"],
        "epochs": len(rows),
        "steps": trainer.steps,
        "batch_size": plan.recipe.batch_size,
        "seconds": seconds,
        "images_per_second": images / max(sum(row["seconds"] for row in rows), 1e-9),
        "weights_fingerprint": trainer.fingerprint(),
        "seed": args.seed,
        "threads": program.threads,
        "isa": program.isa,
        "output": args.output,
        "run_dir": plan.run_dir,
    }
    if args.output is not None:
        save(plan.net, args.output, metadata=_metadata(plan, measured["accuracy"]))
    right = round(measured["accuracy"] * len(plan.data.test))
    lines = [
        f"test accuracy {100 * measured['accuracy']:.2f} % ({right:,} of {len(plan.data.test):,} held-out images), "
        f"loss {measured['loss']:.4f}",
        f"{len(rows)} epochs in {seconds:.1f} s, {result['images_per_second']:,.0f} images/s; "
        f"weights {result['weights_fingerprint']}",
    ]
    if args.output is not None:
        lines.append(f"written: {args.output}")
    output.result(result, "\n".join(lines))
    output.suggest(_next(plan))
    return 0


def _plan(args: argparse.Namespace) -> _Plan:
    run_dir = args.resume if args.resume is not None else args.run_dir
    if args.resume is None and run_dir is not None and (run_dir / "config.toml").exists():
        raise UsageError(f"--run-dir '{run_dir}' holds a run already; go on with --resume, or choose another folder")
    if args.output is not None and not args.output.resolve().parent.is_dir():
        raise UsageError(f"--output '{args.output}': its folder does not exist")
    chosen = {field.name: getattr(args, field.name) for field in fields(Recipe)}
    settled = recipe(args.data, args.net, chosen)
    options = _nets.parse_options(args.option, args.activation)
    manual_seed(args.seed)
    net = _nets.find(args.net, options)
    expected = net.input_shape or (32, 32, 3)
    by_name = not _nets.is_file(args.net)
    any_colour = by_name and "in_channels" in _nets.known_options(args.net) and "in_channels" not in options
    data = _data.load_data(
        args.data, args.data_dir, size=(expected[0], expected[1]), channels=3 if any_colour else expected[2]
    )
    if by_name:
        net, options = _nets.fit_to_data(args.net, options, net, data.train)
    net.build(data.train.image_shape)
    _check_classes(net, data.train)
    part = args.validation
    if part is None:
        part = _PLATEAU_VALIDATION if settled.schedule == "plateau" else 0.0
    fit, validation = split(data.train, part, seed=args.seed) if part else (data.train, data.test)
    return _Plan(args, net, options, data, fit, validation, settled, run_dir)


def _check_classes(net: Module, data: Dataset) -> None:
    (_, shape, _), *_others = pycnn.compile(net, (1, *data.image_shape), threads=1).outputs
    if len(shape) != 2 or shape[1] < len(data.class_names):
        raise UsageError(
            f"the net gives {shape}, but there are {len(data.class_names)} classes: (N, classes) is needed"
        )


def _fit(plan: _Plan, trainer: Trainer, output: Output) -> None:
    args, run_dir = plan.args, plan.run_dir
    try:
        trainer.fit(
            plan.fit,
            val=plan.validation,
            epochs=plan.recipe.epochs,
            batch_size=plan.recipe.batch_size,
            callbacks=[] if run_dir is None else [JSONLines(run_dir / "metrics.jsonl")],
            checkpoint_dir=run_dir,
            resume=args.resume is not None,
            transform=_data.augmentation(plan.recipe.augment, plan.data),
            progress=not output.quiet,
        )
    except (KeyboardInterrupt, SystemExit):
        kept = run_dir is not None and trainer.last_checkpoint is not None
        output.progress(f"stopped after step {trainer.steps}; " + ("all is kept" if kept else "nothing is kept"))
        output.suggest(f"pycnn train --resume {run_dir}" if kept else "pycnn train --run-dir DIR can be resumed")
        raise


def _prepare_run(plan: _Plan) -> None:
    folder = plan.run_dir
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(_options.to_toml(plan.settings()), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


def _metadata(plan: _Plan, accuracy: float) -> dict[str, str]:
    values = {
        "class_names": json.dumps(list(plan.data.train.class_names)),
        "data": plan.data.name,
        "test_accuracy": f"{accuracy:.6f}",
    }
    original = getattr(plan.net, "metadata", {}).get("net")
    name = original if _nets.is_file(plan.args.net) else plan.args.net
    return {**values, "net": name} if name else values


def _next(plan: _Plan) -> str:
    args = plan.args
    where = f" --data-dir {args.data_dir}" if args.data_dir is not None else ""
    if args.output is not None:
        return f"pycnn evaluate {args.output} --data {args.data}{where}"
    if plan.run_dir is not None:
        return f"pycnn evaluate {plan.run_dir / 'best.safetensors'} --data {args.data}{where}"
    return f"pycnn train {args.net} --data {args.data}{where} --output {Path(args.net).stem}.safetensors keeps the net"


# ---- Same bits for any number of threads


@contextmanager
def _more_threads_than_processors() -> Iterator[None]:
    before = os.environ.get("PYCNN_OVERSUBSCRIBE")
    os.environ["PYCNN_OVERSUBSCRIBE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYCNN_OVERSUBSCRIBE"]
        else:
            os.environ["PYCNN_OVERSUBSCRIBE"] = before


def _verify(plan: _Plan, output: Output) -> int:
    own = plan.args.threads or machine()["threads"]
    fingerprints: list[tuple[int, str]] = []
    with _more_threads_than_processors():
        for threads in (own, 1, 2, 3, 4):
            fingerprints.append((threads, _steps(plan, threads)))
            output.progress(f"{_VERIFIED_STEPS} steps with {threads} threads: weights {fingerprints[-1][1]}")
    same = len({text for _, text in fingerprints}) == 1
    result = {
        "net": plan.args.net,
        "data": plan.args.data,
        "seed": plan.args.seed,
        "steps": _VERIFIED_STEPS,
        "deterministic": same,
        "runs": [{"threads": threads, "weights_fingerprint": text} for threads, text in fingerprints],
    }
    counted = ", ".join(str(threads) for threads, _ in fingerprints)
    verdict = "the same bits" if same else "DIFFERENT bits"
    output.form = "verify"
    output.result(result, f"{_VERIFIED_STEPS} steps with {counted} threads: {verdict}")
    output.suggest("pycnn train" if same else "pycnn doctor, and please report this with its output")
    return 0 if same else 1


def _steps(plan: _Plan, threads: int) -> str:
    # Schedules that need the number of epochs have none here.
    steady = replace(plan, recipe=replace(plan.recipe, schedule="constant"))
    trainer = steady.trainer(plan.fresh_net(), threads)
    transform = _data.augmentation(plan.recipe.augment, plan.data)
    while trainer.steps < _VERIFIED_STEPS:
        for x, y in Loader(plan.fit, plan.recipe.batch_size, seed=plan.args.seed, transform=transform):
            trainer.step(x, y)
            if trainer.steps == _VERIFIED_STEPS:
                break
    return trainer.fingerprint()
