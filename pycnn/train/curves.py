"""Training curves as pictures: loss, metrics and learning rate against the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from pycnn.errors import ArgumentError
from pycnn.optional import optional
from pycnn.train._files import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pycnn.train.history import History

__all__ = ["draw_curves"]

_TRAINING, _HELD_OUT = "#1f77b4", "#d95f02"


def draw_curves(history: History, path: str | PathLike[str] | None = None, *, title: str = "Training") -> Figure:
    """See `pycnn.train.History.plot`."""
    if not len(history):
        raise ArgumentError("History.plot: there is no epoch to draw")
    optional("matplotlib", extra="plot", who="History.plot")
    # The object interface: no window, no state shared with a caller's own plots.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = history["epoch"]
    shares = [name for name in history.columns if name == "accuracy" or name.startswith("top")]
    shares = shares or [n.removeprefix("val_") for n in history.columns if n.startswith(("val_accuracy", "val_top"))]
    heights = [3, 3, 1.4] if shares else [3, 1.4]
    figure = Figure(figsize=(7.0, 1.2 + 0.95 * sum(heights)), layout="constrained")
    axes: Sequence[Any] = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    figure.suptitle(title)
    _pair(axes[0], history, epochs, "loss", 1.0)
    axes[0].set_ylabel("loss (mean over images)")
    if shares:
        for name in shares:
            _pair(axes[1], history, epochs, name, 100.0)
        axes[1].set_ylabel("accuracy (%)" if shares == ["accuracy"] else "images right (%)")
    rates = history["learning_rate"] if "learning_rate" in history.columns else [None] * len(epochs)
    axes[-1].plot(epochs, [float("nan") if rate is None else rate for rate in rates], color="#555555", marker=".")
    if any(rate for rate in rates):
        axes[-1].set_yscale("log")
        # Cosines end at almost nothing, which would leave no room for the rest.
        axes[-1].set_ylim(bottom=max(1e-5 * max(filter(None, rates)), 0.5 * min(filter(None, rates))))
    axes[-1].set_ylabel("learning rate\n(last step)")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(axes)
    for axis in axes:
        axis.grid(alpha=0.3)
    for axis in axes[:-1]:
        if axis.get_lines():
            axis.legend(frameon=False)
    if path is not None:
        save_figure(figure, path, who="plot")
    return figure


def _pair(axis: Any, history: History, epochs: list[int], name: str, factor: float) -> None:
    """Draw a value of the training images and the same of the held-out ones."""
    shown = "" if name in ("loss", "accuracy") else f" {name}"
    for column, label, color, style in (
        (name, f"training{shown}", _TRAINING, "-"),
        (f"val_{name}", f"held out{shown}", _HELD_OUT, "--"),
    ):
        if column in history.columns:
            values = [float("nan") if value is None else factor * value for value in history[column]]
            axis.plot(epochs, values, style, color=color, marker=".", label=label)
