"""What `bench` returns, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pycnn.benchmark._peaks import Peaks

__all__ = ["BenchReport", "Clock", "Layer", "Refusal", "Timing"]

_NAMED_STEPS = 3  # of those for which a kernel was refused
_ABOVE_BOUND = (
    "above 100 %: operations are counted by the definition, and Winograd's and Strassen's need fewer; bytes come from\n"
    "the nearest level that holds them all, and some may have been in a nearer one"
)


def multiplied_type(dtype: str, tf32: bool) -> str:
    """What a program multiplies at best; processors without TF32 multiply float32 (`Peaks.multiplied`)."""
    return "tf32" if tf32 and dtype == "float32" else dtype


@dataclass(frozen=True)
class Timing:
    """Seconds of one run with one setting.

    Attributes:
        threads: Most threads that a run used.
        isa: Instruction set of the kernels.
        runs: How many were timed.
        median: Seconds.
        minimum: Seconds.
        p10: Tenth percentile, seconds.
        p90: Ninetieth percentile, seconds.
        images_per_second: Batch divided by the median.
        noise: (largest - smallest) / smallest of the rounds' medians.
        gflops: 10**9 arithmetic operations a second; a multiply-add counts as two.
        bound: Sum of the least times of the steps, seconds; None without peaks.
        percent_of_bound: 100 * bound / median; None without peaks.
    """

    threads: int
    isa: str
    runs: int
    median: float
    minimum: float
    p10: float
    p90: float
    images_per_second: float
    noise: float
    gflops: float = 0.0
    bound: float | None = None
    percent_of_bound: float | None = None


@dataclass(frozen=True)
class Refusal:
    """A better kernel that does not accept a step.

    Attributes:
        variant: The kernel.
        reason: Why not.
    """

    variant: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """One step of a program.

    Attributes:
        name: Of the layer; "other" is what the steps leave of the wall time.
        op: What it computes.
        variant: The kernel that was chosen.
        seconds: Mean of a run, median over the rounds.
        share: Part of the wall time.
        gflops: 10**9 arithmetic operations a second; a multiply-add counts as two.
        gbytes: 10**9 bytes a second.
        flops: Operations of a run, by the definition of the op.
        bytes: Inputs (weights as packed) read once and outputs written once.
        bound: The least time (see `bound`), seconds; None without peaks.
        bound_by: "compute" or the level of the memory; "" without peaks and for no work.
        percent_of_bound: 100 * bound / seconds; None without peaks and for no work.
        refused: Better kernels that were refused, best first.
        absorbed: Names and ops of steps beside it that the kernel does as well, with no time of their own.
    """

    name: str
    op: str
    variant: str
    seconds: float
    share: float
    gflops: float
    gbytes: float
    flops: int = 0
    bytes: int = 0
    bound: float | None = None
    bound_by: str = ""
    percent_of_bound: float | None = None
    refused: tuple[Refusal, ...] = ()
    absorbed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Clock:
    """10**9 cycles a second of the processor, as seen before each round.

    Attributes:
        median: Over the rounds.
        minimum: Over the rounds.
        maximum: Over the rounds.
    """

    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class BenchReport:
    """What `bench` returns: prints as a table, has `to_dict`.

    Attributes:
        name: Class of the net.
        shape: Of the input, (N, H, W, C).
        train: A whole training step was timed, not inference.
        timings: One for each number of threads.
        layers: Steps with the first number of threads; empty unless asked for.
        layers_wall: Seconds of a run while the steps were timed.
        environment: See `environment`.
        warnings: Why the numbers may be wrong.
        dtype: Element type of activations.
        winograd: Whether Winograd's algorithms were allowed.
        tf32: Whether a GPU might round float32 to TF32.
        emulate_bfloat16: Whether bfloat16 was computed without units for it.
        recompute: What a training step computed again instead of keeping it.
        rounds: How many the runs were spread over.
        clock: Of the processor while the runs were timed.
        peaks: Of the machine, one for each of `timings`; empty without peaks.
        images: Where they came from in each run: "host", or "device", where they lay already.
    """

    name: str
    shape: tuple[int, ...]
    train: bool
    timings: tuple[Timing, ...]
    layers: tuple[Layer, ...] = ()
    layers_wall: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    dtype: str = "float32"
    winograd: bool = True
    tf32: bool = False
    emulate_bfloat16: bool = False
    recompute: str = "cheap"
    rounds: int = 0
    clock: Clock | None = None
    peaks: tuple[Peaks, ...] = ()
    images: str = "host"

    @property
    def multiplied(self) -> str:
        """The type whose peak multiplications are held against: `dtype`, or "tf32" where float32 may be rounded."""
        return multiplied_type(self.dtype, self.tf32)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain Python objects."""
        return asdict(self)

    def __str__(self) -> str:
        """The tables as text."""
        what = "training step" if self.train else "inference"
        cpu = self.environment.get("cpu", "unknown CPU")
        lines = [f"{self.name} {what}, input {self.shape}, {self.dtype}, {cpu}, images from the {self.images}"]
        # Before the numbers that they are about.
        lines += [f"warning: {text}" for text in self.warnings]
        lines += _timing_table(self.timings)
        lines += _conditions(self)
        lines += [str(peaks) for peaks in dict.fromkeys(self.peaks)]
        if self.layers:
            lines += ["", *_layer_table(self.layers)]
            lines.append(f"all {1e6 * self.layers_wall:,.1f} us, with a clock around every step")
            if any((layer.percent_of_bound or 0.0) > 100.0 for layer in self.layers):
                lines.append(_ABOVE_BOUND)
            lines += _refusals(self.layers)
        return "\n".join(lines)

    __repr__ = __str__


def _timing_table(timings: Sequence[Timing]) -> list[str]:
    head = (
        *("threads", "isa", "median ms", "min ms", "p10 ms", "p90 ms", "images/s", "GFLOP/s", "% of bound", "runs"),
        "noise",
    )
    rows = [
        (
            str(t.threads),
            t.isa,
            *(f"{1e3 * s:.3f}" for s in (t.median, t.minimum, t.p10, t.p90)),
            f"{t.images_per_second:,.0f}",
            f"{t.gflops:,.1f}",
            _percent(t.percent_of_bound),
            str(t.runs),
            f"{100 * t.noise:.0f} %",
        )
        for t in timings
    ]
    return _table(head, rows, left=())


def _conditions(report: BenchReport) -> list[str]:
    """How it was measured."""
    facts = []
    if report.rounds:
        facts.append(f"{report.rounds} round{'s, each' if report.rounds > 1 else ''} after a run that does not count")
    load = report.environment.get("load_average")
    if load is not None:
        facts.append(f"load average {load:.1f}")
    if report.clock is not None:
        clock = report.clock
        facts.append(f"clock {clock.median:.2f} GHz ({clock.minimum:.2f} to {clock.maximum:.2f})")
    return ["; ".join(facts)] if facts else []


def _layer_table(layers: Sequence[Layer]) -> list[str]:
    head = ("step", "op", "variant", "us", "%", "GFLOP/s", "GB/s", "% of bound", "bound by")
    rows = [
        (
            x.name,
            "+".join((x.op, *(op for _, op in x.absorbed))),
            x.variant,
            f"{1e6 * x.seconds:,.1f}",
            f"{100 * x.share:.1f}",
        )
        + (
            (f"{x.gflops:.1f}", f"{x.gbytes:.1f}", _percent(x.percent_of_bound), x.bound_by)
            if x.op
            else ("", "", "", "")
        )
        for x in layers
    ]
    return _table(head, rows, left=(0, 1, 2, 8))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _refusals(layers: Sequence[Layer]) -> list[str]:
    """Why the better kernels were refused, once for all steps with the same reason."""
    steps: dict[Refusal, list[str]] = {}
    for layer in layers:
        for refusal in layer.refused:
            steps.setdefault(refusal, []).append(layer.name)
    lines = []
    for refusal, names in steps.items():
        shown = ", ".join(dict.fromkeys(names[:_NAMED_STEPS])) + (", ..." if len(names) > _NAMED_STEPS else "")
        lines.append(f"  {refusal.variant}: {refusal.reason} ({len(names)} x: {shown})")
    return ["better kernels that were refused:", *lines] if lines else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
