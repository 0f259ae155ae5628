"""The roofline of a net as a picture: where its steps stand below the roofs, and which of them hold it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from pycnn.benchmark._peaks import Peaks
from pycnn.benchmark._report import BenchReport, Layer
from pycnn.errors import ArgumentError
from pycnn.optional import optional
from pycnn.train._files import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_roofline"]

_LISTED = 14  # steps by name, those that take the most time
_NUMBERED = 10  # of them also among the points
_LEAST_SHARE = 0.001  # of the time, to be a point
_MOST_LETTERS, _LEAST_LETTERS = 40, 12  # of a step, of a name
_ROOF_STYLES = (":", "-.", "--", "-")
_KINDS = {
    "convolution, dense": "#1f77b4",
    "gradients": "#d62728",
    "pooling, norms, element-wise": "#2ca02c",
    "optimizer": "#9467bd",
}


def draw_roofline(report: BenchReport, path: str | PathLike[str] | None = None, *, name: str | None = None) -> Figure:
    """Draw the steps of a net below the roofs of the machine.

    On the left each step is a point: operations for a byte against operations a second, its size the time it takes. The
    roofs are the peaks of the machine. On the right are the steps that take the most time, with the part of it that
    the machine needs at least; the numbers tell which point is which.

    Args:
        report: Of `bench` with layers=True and peaks.
        path: Write the picture here too; the ending says the format.
        name: Of the net, in the title. Default: its class.

    Returns:
        A matplotlib figure.

    Raises:
        ArgumentError: The report has no layers or no peaks.
        UnsupportedError: matplotlib is not installed.
        FileError: The file cannot be written.

    Example:
        >>> import pycnn
        >>> report = pycnn.bench(pycnn.models.lenet5(), batch_size=8, layers=True, rounds=2)
        >>> figure = draw_roofline(report)
        >>> figure.axes[0].get_ylabel()
        'GFLOP/s'
    """
    if not report.layers or not report.peaks:
        raise ArgumentError("draw_roofline: the report has no layers or no peaks; call bench with layers=True")
    optional("matplotlib", extra="plot", who="draw_roofline")
    from matplotlib.figure import Figure

    steps = [layer for layer in report.layers if layer.op]
    longest = sorted(steps, key=lambda step: -step.seconds)[:_LISTED]
    figure = Figure(figsize=(14.0, 7.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    figure.suptitle(f"{_title(report, name or report.name)}\n{_subtitle(report)}", fontsize="medium")
    _draw_points(left, steps, longest, report.peaks[0], report.multiplied)
    _draw_times(right, longest, report)
    if path is not None:
        save_figure(figure, path, who="plot")
    return figure


def _title(report: BenchReport, name: str) -> str:
    threads = report.timings[0].threads
    return (
        f"{name}, {'training step' if report.train else 'inference'}, batch {report.shape[0]} of "
        f"{' x '.join(map(str, report.shape[1:]))}, {report.dtype}, {threads} thread{'s' if threads > 1 else ''}"
    )


def _subtitle(report: BenchReport) -> str:
    timing = report.timings[0]
    text = (
        f"{report.environment.get('cpu', 'unknown CPU')}, {timing.isa}: {1e3 * timing.median:,.2f} ms, "
        f"{timing.images_per_second:,.0f} images/s, {timing.gflops:,.0f} GFLOP/s"
    )
    return text if timing.percent_of_bound is None else f"{text}, {timing.percent_of_bound:.0f} % of the bound"


def _kind(op: str) -> str:
    if op.endswith("_update") or op in ("increment", "clip_factor"):
        return "optimizer"
    if "_grad" in op:
        return "gradients"
    return "convolution, dense" if op in ("conv2d", "dense") else "pooling, norms, element-wise"


def _draw_points(axis: Any, steps: Sequence[Layer], longest: Sequence[Layer], peaks: Peaks, dtype: str) -> None:
    points = [step for step in steps if step.flops > 0 and step.bytes > 0 and step.share >= _LEAST_SHARE]
    dtype = peaks.multiplied(dtype)
    compute = peaks.gflops(dtype)
    # The ridges, where compute takes over from a level, are part of the picture, points or not.
    ridges = [compute / level.gbytes for level in peaks.memory]
    intensities = [*(step.flops / step.bytes for step in points), *ridges]
    low, high = min(intensities) / 3.0, max(intensities) * 4.0
    floor = min([low * peaks.memory[-1].gbytes, *(step.gflops for step in points)]) / 2.5
    # Some kernels need fewer operations than the definition that is counted, and end above the roof.
    ceiling = 2.2 * max([compute, *(step.gflops for step in points)])
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, ceiling))
    axis.set_xlabel("operations for a byte (FLOP/byte)")
    axis.set_ylabel("GFLOP/s")
    for level, ridge, style in zip(peaks.memory, ridges, _ROOF_STYLES[-len(ridges) :], strict=True):
        axis.plot(
            [low, ridge],
            [low * level.gbytes, compute],
            color="#555555",
            linestyle=style,
            linewidth=1.3,
            zorder=1,
            label=f"{level.level} {level.gbytes:,.0f} GB/s",
        )
    axis.plot([min(ridges), high], [compute, compute], color="black", linewidth=1.6, zorder=1)
    axis.text(high / 1.1, compute * 1.07, f"{dtype} {peaks.isa}: {compute:,.0f} GFLOP/s", ha="right", va="bottom")
    for kind, color in _KINDS.items():
        chosen = [step for step in points if _kind(step.op) == kind]
        if chosen:
            axis.scatter(
                [step.flops / step.bytes for step in chosen],
                [step.gflops for step in chosen],
                s=[12.0 + 900.0 * step.share for step in chosen],
                color=color,
                alpha=0.55,
                edgecolors="white",
                linewidths=0.6,
                label=kind,
                zorder=2,
            )
    numbered = {number: step for number, step in enumerate(longest[:_NUMBERED], 1) if step in points}
    for numbers in _neighbours(numbered, math.log10(high / low), math.log10(ceiling / floor)):
        step = numbered[numbers[0]]
        axis.annotate(
            ",".join(map(str, numbers)),
            (step.flops / step.bytes, step.gflops),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize="small",
            zorder=3,
        )
    legend = axis.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, -0.1),
        ncols=4,
        columnspacing=1.2,
        fontsize="small",
        frameon=False,
        title=f"area: time of a step; those below {100 * _LEAST_SHARE:g} % of the time are left out",
        title_fontsize="small",
    )
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([50.0])
    _plain_numbers(axis)
    axis.grid(alpha=0.25, which="major")


def _neighbours(numbered: dict[int, Layer], width: float, height: float) -> list[list[int]]:
    """Numbers of points that lie so close that one text must serve them; `width` and `height` in decades."""
    groups: list[list[int]] = []
    for number, step in numbered.items():
        for group in groups:
            other = numbered[group[0]]
            across = abs(math.log10((step.flops / step.bytes) / (other.flops / other.bytes))) / width
            up = abs(math.log10(step.gflops / other.gflops)) / height
            if across < 0.03 and up < 0.03:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(LogLocator(base=10.0))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:,.0f}"))
        one.set_minor_formatter(NullFormatter())


def _draw_times(axis: Any, longest: Sequence[Layer], report: BenchReport) -> None:
    rows = range(len(longest))
    scale, unit = (1e3, "ms") if longest[0].seconds >= 1e-3 else (1e6, "us")
    axis.barh(rows, [scale * step.seconds for step in longest], color="#f2b48a", label="measured")
    axis.barh(
        rows,
        [scale * min(step.bound or 0.0, step.seconds) for step in longest],
        color="#7f4a1e",
        height=0.45,
        label="bound: the least time on this machine, and what sets it",
    )
    for row, step in zip(rows, longest, strict=True):
        percent = "" if step.percent_of_bound is None else f"{step.percent_of_bound:.0f} %"
        by = f" ({step.bound_by})" if step.bound_by else ""
        axis.annotate(
            f"{percent}{by}",
            (scale * step.seconds, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axis.set_yticks(rows, [f"{_short(step)}  {number}" for number, step in enumerate(longest, 1)], fontsize="small")
    axis.invert_yaxis()
    axis.set_xlim(0.0, 1.33 * scale * longest[0].seconds)
    axis.set_xlabel(f"time of a step ({unit})")
    rest = sum(layer.share for layer in report.layers) - sum(step.share for step in longest)
    counted = len([layer for layer in report.layers if layer.op])
    axis.set_title(
        f"the {len(longest)} longest of {counted} steps: {100 * (1 - rest):.0f} % of the time", fontsize="medium"
    )
    axis.legend(loc="upper right", bbox_to_anchor=(1.0, -0.1), ncols=2, fontsize="small", frameon=False)
    axis.grid(axis="x", alpha=0.25)


def _short(step: Layer) -> str:
    """Name and op; of a name that does not fit, its end."""
    if step.name == step.op:
        return step.op
    room = max(_LEAST_LETTERS, _MOST_LETTERS - len(step.op) - 1)
    name = step.name if len(step.name) <= room else f"...{step.name[-(room - 3) :]}"
    return f"{name} {step.op}"
