"""Train a net, and measure it on held-out images.

Examples:
  pycnn train
  pycnn train lenet5 --data mnist --data-dir DIR --output lenet5.safetensors
  pycnn train --recipe cifar_resnet20 --data-dir DIR --set epochs=3
  pycnn train --ensemble 7 --output seven.toml
  pycnn train --run-dir runs/first     then, if interrupted:  pycnn train --resume runs/first
  pycnn train --verify-determinism
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycnn
from pycnn import dist
from pycnn.cli import _data, _options, _recipe_options, _run_folder
from pycnn.cli._determinism import VERIFIED_STEPS, verify
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.cli._plan import Plan, make_plan
from pycnn.nn.files import save
from pycnn.train import Recipe, Trainer

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run", "settings_file"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

_STEERING_VALIDATION = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "net",
        nargs="?",
        metavar="NET",
        help="name of a net, or a file to go on from (default: lenet5, or the recipe's)",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example pool=max"
    )
    parser.add_argument("--activation", metavar="NAME", help="short for --option activation=NAME")
    _data.add_arguments(parser)
    parser.set_defaults(data=None)
    _recipe_options.add_arguments(parser)
    where = parser.add_argument_group("files")
    where.add_argument(
        "--output", type=Path, metavar="FILE", help="write the trained net here (.safetensors; an ensemble: .toml)"
    )
    where.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="keep settings, environment, history (metrics.jsonl, history.csv, TensorBoard events), curves.png, "
        "and the last net after each epoch; with --validation also the best",
    )
    where.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with a run folder; the same bits as without a break"
    )
    where.add_argument(
        "--plot",
        nargs="?",
        const="",
        metavar="FILE",
        help=f"draw loss, accuracy and learning rate (default: {_run_folder.CURVES}, in the run folder if any)",
    )
    where.add_argument("--tensorboard", action="store_true", help="fail if the run folder cannot have event files")
    parser.add_argument(
        "--ensemble",
        type=_options.count,
        metavar="N",
        help="train N nets with seeds of their own, and measure the average of their probabilities too",
    )
    _options.add_recompute(parser)
    parser.add_argument(
        "--verify-determinism",
        action="store_true",
        help=f"only check that {VERIFIED_STEPS} steps give the same bits with other numbers of threads",
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


def run(args: argparse.Namespace, output: Output) -> int:
    """Train, measure, save."""
    if args.list_recipes:
        values, text = _recipe_options.list_text()
        output.form = "recipes"
        output.result({"recipes": values}, text)
        output.suggest("pycnn train --recipe NAME")
        return 0
    recipe, run_dir = _settle(args, output)
    dist.barrier()  # all ranks have seen what is there before one of them writes
    if args.ensemble is not None:
        from pycnn.cli._ensemble import train_ensemble

        return train_ensemble(args, recipe, run_dir, output)
    plan = make_plan(args, recipe, run_dir)
    if args.verify_determinism:
        return verify(plan, output)
    output.progress(str(plan.net.summary(plan.image_shape)))
    done = train_plan(plan, output, args.output, resume=args.resume is not None)
    output.result(_values(plan, done), _text(plan, done))
    if done.failure is not None:
        raise done.failure
    output.suggest(_next(plan))
    return 0


def _settle(args: argparse.Namespace, output: Output) -> tuple[Recipe, Path | None]:
    run_dir = args.resume if args.resume is not None else args.run_dir
    if args.resume is None and run_dir is not None and (run_dir / "config.toml").exists():
        raise UsageError(f"--run-dir '{run_dir}' holds a run already; go on with --resume, or choose another folder")
    if run_dir is not None and run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"--run-dir '{run_dir}' is a file, expected a folder")
    _options.check_output("--output", args.output, example="net.safetensors")
    if args.tensorboard and run_dir is None:
        raise UsageError("--tensorboard needs --run-dir, where the event files go")
    recipe = _recipe_options.settle(args)
    steering = "schedule plateau" if recipe.schedule == "plateau" else "early stopping" if recipe.early_stopping else ""
    if steering and not recipe.validation:
        # What is measured on the test images must not steer the training unless that is asked for.
        if not _recipe_options.is_chosen(args, "validation"):
            recipe = recipe.override(validation=_STEERING_VALIDATION)
            output.warn(
                f"{steering} needs held-out images: {_STEERING_VALIDATION:.0%} of the training images are kept for it "
                "(--validation X: another part; 0: use the test images)"
            )
        else:
            output.warn(f"{steering} is steered by the test images (validation is 0): their accuracy will be too good")
    return recipe, run_dir


@dataclass
class Done:
    """A training that came to its end.

    Attributes:
        trainer: With the history.
        threads: That the net runs with.
        isa: Instruction set.
        seconds: Of the training.
        accuracy: On the test images.
        loss: On the test images.
        curves: The picture, if one was drawn.
        failure: Why none could be drawn.
    """

    trainer: Trainer
    threads: int
    isa: str
    seconds: float
    accuracy: float
    loss: float
    curves: Path | None
    failure: Exception | None

    @property
    def images_per_second(self) -> float:
        """Over all epochs, without validation."""
        rows = self.trainer.history.rows
        images = sum(row["images_per_second"] * row["seconds"] for row in rows)
        return float(images / max(sum(row["seconds"] for row in rows), 1e-9))


def train_plan(plan: Plan, output: Output, file: Path | None, *, resume: bool) -> Done:
    """Train as planned, save the net as `file`, and measure."""
    args, recipe = plan.args, plan.recipe
    _run_folder.check_plot(plan)
    writers = _run_folder.callbacks(plan, output)
    trainer = plan.trainer(plan.net, args.threads)
    # Refuses what this machine cannot compute in before anything is written.
    program = pycnn.compile(
        plan.net, (1, *plan.image_shape), device=args.device, threads=args.threads, **trainer.numerics
    )
    output.progress(
        f"training {recipe.net} on {len(plan.fit):,} images of {recipe.data}: {recipe.optimizer}, "
        f"{recipe.schedule} rate from {recipe.lr:g}, batches of {recipe.batch_size}, augmentation "
        f"{_shown(recipe.augment)}; seed {recipe.seed}, {program.threads} threads, {program.isa}, {recipe.dtype}"
    )
    if output.is_main:
        _run_folder.prepare(plan)
    started = time.perf_counter()
    try:
        trainer.fit(
            plan.fit,
            val=plan.validation,
            callbacks=[*writers, *recipe.make_callbacks()],
            checkpoint_dir=plan.run_dir,
            # Without a validation part the best would be chosen by the test images.
            save_best=bool(recipe.validation),
            resume=resume,
            progress=not output.quiet,
            **recipe.fit_options(plan.fit),
        )
    except (KeyboardInterrupt, SystemExit):
        kept = plan.run_dir is not None and trainer.last_checkpoint is not None
        output.progress(f"stopped after step {trainer.steps}; " + ("all is kept" if kept else "nothing is kept"))
        folder = args.resume or args.run_dir
        output.suggest(f"pycnn train --resume {folder}" if kept else "pycnn train --run-dir DIR can be resumed")
        raise
    seconds = time.perf_counter() - started
    if recipe.ema:
        trainer.use_averages()
    if file is not None and output.is_main:
        # Before anything that could fail: the training may have taken days.
        save(plan.net, file, metadata=plan.metadata(None))
    measured = trainer.evaluate(plan.data.test, transform=recipe.make_test_transform())
    if file is not None and output.is_main:
        save(plan.net, file, metadata=plan.metadata(measured["accuracy"]))
    curves, failure = _run_folder.draw(plan, trainer, output) if output.is_main else (None, None)
    return Done(trainer, program.threads, program.isa, seconds, measured["accuracy"], measured["loss"], curves, failure)


def _shown(augment: str | list[dict[str, Any]]) -> str:
    return augment if isinstance(augment, str) else ", ".join(step["transform"] for step in augment) or "none"


def _values(plan: Plan, done: Done) -> dict[str, Any]:
    recipe, trainer = plan.recipe, done.trainer
    return {
        "net": recipe.net,
        "options": recipe.option,
        "parameters": plan.net.num_parameters,
        "data": recipe.data,
        "recipe": plan.args.recipe,
        "train_images": len(plan.fit),
        "test_images": len(plan.data.test),
        "skipped_images": plan.data.skipped,
        "test_accuracy": done.accuracy,
        "test_loss": done.loss,
        "epochs": len(trainer.history),
        "steps": trainer.steps,
        "batch_size": recipe.batch_size,
        "seconds": done.seconds,
        "images_per_second": done.images_per_second,
        "weights_fingerprint": trainer.fingerprint(),
        "seed": recipe.seed,
        "threads": done.threads,
        "isa": done.isa,
        "output": plan.args.output,
        "run_dir": plan.run_dir,
        "curves": done.curves,
    }


def _text(plan: Plan, done: Done) -> str:
    images = len(plan.data.test)
    lines = [
        f"test accuracy {100 * done.accuracy:.2f} % ({round(done.accuracy * images):,} of {images:,} held-out images), "
        f"loss {done.loss:.4f}",
        f"{len(done.trainer.history)} epochs in {done.seconds:.1f} s, {done.images_per_second:,.0f} images/s; "
        f"weights {done.trainer.fingerprint()}",
    ]
    if plan.args.output is not None:
        lines.append(f"written: {plan.args.output}")
    if done.curves is not None:
        lines.append(f"training curves: {done.curves}")
    return "\n".join(lines) + plan.data.skipped_text


def _next(plan: Plan) -> str:
    args, recipe = plan.args, plan.recipe
    if args.output is not None:
        return plan.evaluate_command(args.output)
    if plan.run_dir is not None and recipe.validation:
        return plan.evaluate_command(plan.run_dir / "best.safetensors")
    if plan.run_dir is not None and recipe.ema:
        # The last checkpoint holds the weights that training goes on from, not their averages.
        return (
            f"pycnn train --resume {plan.run_dir} --output {Path(recipe.net).stem}.safetensors keeps the averaged net"
        )
    if plan.run_dir is not None:
        return plan.evaluate_command(plan.run_dir / "last.safetensors")
    where = f" --data-dir {args.data_dir}" if args.data_dir is not None else ""
    how = f"{recipe.net} --data {recipe.data}" if args.recipe is None else f"--recipe {args.recipe}"
    return f"pycnn train {how}{where} --output {Path(recipe.net).stem}.safetensors keeps the net"
