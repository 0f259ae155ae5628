"""The folder of a training: settings, environment, history in three forms, curves, the last net, perhaps the best."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from pycnn.benchmark import environment
from pycnn.cli import _options, _plots
from pycnn.cli._output import Output
from pycnn.cli._plan import Plan
from pycnn.textfile import write_text
from pycnn.train import Callback, CSVLogger, JSONLines, Trainer
from pycnn.train._files import make_directory

__all__ = ["CURVES", "callbacks", "check_plot", "draw", "prepare"]

CURVES = "curves.png"


def prepare(plan: Plan) -> None:
    """Make the folder, and write down what the training depends on."""
    folder = plan.run_dir
    if folder is None:
        return
    make_directory(folder, who="--run-dir")
    write_text(folder / "config.toml", _options.to_toml(plan.settings()))
    write_text(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")


def callbacks(plan: Plan, output: Output) -> list[Callback]:
    """What writes into the folder while training.

    Raises:
        UnsupportedError: --tensorboard, but tensorboardX is not installed.
    """
    folder = plan.run_dir
    if folder is None:
        return []
    writers: list[Callback] = [JSONLines(folder / "metrics.jsonl"), CSVLogger(folder / "history.csv")]
    if plan.args.tensorboard or find_spec("tensorboardX") is not None:
        from pycnn.train.tensorboard import TensorBoard

        writers.append(TensorBoard(folder))
    else:
        output.progress("no TensorBoard event file is written: pip install 'pycnn[tensorboard]' adds it")
    return writers


def check_plot(plan: Plan) -> None:
    """See before the training that a picture can be drawn at its end.

    Raises:
        UnsupportedError: --plot, but matplotlib is not installed.
        UsageError: --plot names a file that cannot be written.
    """
    if plan.args.plot is not None:
        _plots.check("--plot", _curves(plan))


def draw(plan: Plan, trainer: Trainer, output: Output) -> tuple[Path | None, Exception | None]:
    """Draw the curves: with --plot, and into a run folder where matplotlib is there.

    Returns:
        As `_plots.attempt`.
    """
    asked, folder = plan.args.plot, plan.run_dir
    if asked is None and folder is None:
        return None, None
    if asked is None and find_spec("matplotlib") is None:
        output.progress("no training curves are drawn: pip install 'pycnn[plot]' adds them")
        return None, None
    recipe = plan.recipe
    title = f"{Path(recipe.net).stem} on {recipe.data}, seed {recipe.seed}"
    return _plots.attempt(lambda path: trainer.history.plot(path, title=title), _curves(plan))


def _curves(plan: Plan) -> Path:
    return Path(plan.args.plot) if plan.args.plot else (plan.run_dir or Path()) / CURVES
