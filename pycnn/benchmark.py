"""How fast a net is: whole, and step by step.

Every run is timed by itself. The runs come in rounds, which take turns between the settings that are compared, so
that a change of the machine's load meets all of them; how far the rounds lie apart is the noise of the measurement.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.config import machine
from pycnn.errors import ArgumentError
from pycnn.nn.module import Module
from pycnn.optim import SGD
from pycnn.program import Program, compile_traced
from pycnn.tensor import expect_memory
from pycnn.tracing import Symbol, trace
from pycnn.version import __version__

__all__ = ["BenchReport", "Layer", "Timing", "bench", "environment"]

_ROUND_SECONDS = 0.1
_MOST_RUNS = 2000
_BUSY = 0.5


def environment() -> dict[str, Any]:
    """Return what a measurement depends on beside the net: versions, processor, load.

    Returns:
        A dict with pycnn, python, numpy, system, cpu, isa, threads, processors, load_average (of the last minute, or
        None), compiler, time (UTC).
    """
    facts = machine()
    try:
        load: float | None = round(os.getloadavg()[0], 2)
    except OSError:
        load = None
    return {
        "pycnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": facts["cpu"],
        "isa": facts["isa"],
        "threads": facts["threads"],
        "processors": os.cpu_count(),
        "load_average": load,
        "compiler": facts["compiler"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


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
        gbytes: 10**9 bytes a second, counted as inputs read once and outputs written once.
    """

    name: str
    op: str
    variant: str
    seconds: float
    share: float
    gflops: float
    gbytes: float


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
    """

    name: str
    shape: tuple[int, ...]
    train: bool
    timings: tuple[Timing, ...]
    layers: tuple[Layer, ...] = ()
    layers_wall: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain Python objects."""
        return asdict(self)

    def __str__(self) -> str:
        """The tables as text."""
        what = "training step" if self.train else "inference"
        lines = [f"{self.name} {what}, input {self.shape}, {self.environment.get('cpu', 'unknown CPU')}"]
        head = ("threads", "isa", "median ms", "min ms", "p10 ms", "p90 ms", "images/s", "runs", "noise")
        rows = [
            (
                str(t.threads),
                t.isa,
                *(f"{1e3 * s:.3f}" for s in (t.median, t.minimum, t.p10, t.p90)),
                f"{t.images_per_second:,.0f}",
                str(t.runs),
                f"{100 * t.noise:.0f} %",
            )
            for t in self.timings
        ]
        lines += _table(head, rows, left=())
        if self.layers:
            body = [
                (x.name, x.op, x.variant, f"{1e6 * x.seconds:,.1f}", f"{100 * x.share:.1f}")
                + ((f"{x.gflops:.1f}", f"{x.gbytes:.1f}") if x.op else ("", ""))
                for x in self.layers
            ]
            lines += ["", *_table(("step", "op", "variant", "us", "%", "GFLOP/s", "GB/s"), body, left=(0, 1, 2))]
            lines.append(f"all {1e6 * self.layers_wall:,.1f} us, with a clock around every step")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    __repr__ = __str__


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in [head, *rows]
    ]


def bench(
    net: Module,
    *,
    batch_size: int = 1,
    input_shape: Sequence[int] | None = None,
    train: bool = False,
    layers: bool = False,
    threads: int | Sequence[int] | None = None,
    isa: str | None = None,
    device: str = "cpu",
    rounds: int = 7,
    seed: int = 0,
) -> BenchReport:
    """Time a net.

    Args:
        net: The net; its weights are the same afterwards.
        batch_size: Images per run.
        input_shape: (H, W, C) of an image. Default: what the net is made for or was called with last.
        train: Time a whole training step (forward, loss, backward, SGD with momentum) instead of inference.
        layers: Time every step of the program too.
        threads: At most this many, or several numbers to compare. Default: chosen (see `pycnn doctor`).
        isa: "baseline", "avx2" or "avx512". Default: the best.
        device: "cpu".
        rounds: How many, of about 0.1 s for each number of threads.
        seed: Of the images.

    Returns:
        The report.

    Raises:
        ArgumentError: An argument is out of range, or the size of the input is not known.
        ShapeError: A layer refuses the shape.
        DeviceError: The device or instruction set is not there.

    Example:
        >>> import pycnn
        >>> report = bench(pycnn.models.lenet5(), batch_size=8, rounds=2)
        >>> report.timings[0].images_per_second > 0
        True
    """
    for name, value in (("batch_size", batch_size), ("rounds", rounds)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"bench: {name} must be an integer of at least 1, got {value!r}")
    counts: list[int | None] = list(threads) if isinstance(threads, Sequence) else [threads]
    if not isinstance(net, Module):
        raise ArgumentError(f"bench: net is {net!r}, expected a Module, for example pycnn.models.create('lenet5')")
    net.build(input_shape)
    shape = (batch_size, *(net.input_shape or ()))
    state = net.state_dict()
    arrays = _arrays(net, shape, train, seed)
    try:
        programs = [_compile(net, arrays, train, device=device, threads=count, isa=isa) for count in counts]
        timings = _time(programs, arrays, rounds, batch_size)
        report = BenchReport(type(net).__name__, shape, train, timings, environment=environment())
        if layers:
            rows, wall = _profile(programs[0], arrays, rounds)
            report = replace(report, layers=rows, layers_wall=wall)
    finally:
        net.load_state_dict(state)
    return replace(report, warnings=_warnings(report))


def _arrays(net: Module, shape: tuple[int, ...], train: bool, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    expect_memory(f"bench: no memory for images {shape}", math.prod(shape) * 4)
    images = random.random(shape, np.float32)
    if not train:
        return [images]
    scores = trace(lambda x: _single(net(x)), {"x": (shape, "float32")}, root=net)
    result = tuple(scores.graph.spec(dict(scores.graph.outputs())["output"])[0])
    if len(result) != 2:
        raise ArgumentError(f"bench: the net gives {result}; a training step needs scores (N, classes)")
    return [images, random.integers(0, result[1], shape[0], np.int64)]


def _single(result: Any) -> Symbol:
    if isinstance(result, tuple | list):
        return result[0]
    return result


def _compile(
    net: Module, arrays: list[np.ndarray], train: bool, *, device: str, threads: int | None, isa: str | None
) -> Program:
    inputs = {name: (array.shape, array.dtype.name) for name, array in zip("xy", arrays, strict=False)}
    if not train:
        traced = trace(lambda x: _single(net(x)), inputs, root=net)
        return compile_traced(traced, device=device, threads=threads, isa=isa)
    loss = getattr(net, "default_loss", None) or functional.cross_entropy
    traced = trace(lambda x, y: {"loss": loss(_single(net(x)), y)}, inputs, root=net)
    spec = SGD(1e-3, momentum=0.9).spec(dict(net.named_parameters()))
    program = compile_traced(traced, mode="training", optimizer=spec, device=device, threads=threads, isa=isa)
    # Small steps: the same work, and the weights stay finite however many there are.
    program.variables["train.learning_rate"] = np.array([1e-6], np.float32)
    return program


def _time(programs: list[Program], arrays: list[np.ndarray], rounds: int, batch_size: int) -> tuple[Timing, ...]:
    lengths = []
    for program in programs:
        program.run(*arrays)
        started = time.perf_counter()
        program.run(*arrays)
        once = max(time.perf_counter() - started, 1e-7)
        lengths.append(min(_MOST_RUNS, max(3, int(_ROUND_SECONDS / once))))
    samples: list[list[np.ndarray]] = [[] for _ in programs]
    for _ in range(rounds):
        for which, program in enumerate(programs):
            samples[which].append(_round(program, arrays, lengths[which]))
    timings = []
    for program, parts in zip(programs, samples, strict=True):
        every = np.concatenate(parts)
        medians = [float(np.median(part)) for part in parts]
        median = float(np.median(every))
        timings.append(
            Timing(
                threads=program.threads,
                isa=program.isa,
                runs=len(every),
                median=median,
                minimum=float(every.min()),
                p10=float(np.percentile(every, 10)),
                p90=float(np.percentile(every, 90)),
                images_per_second=batch_size / median,
                noise=max(medians) / min(medians) - 1.0,
            )
        )
    return tuple(timings)


def _round(program: Program, arrays: list[np.ndarray], runs: int) -> np.ndarray:
    seconds = np.empty(runs)
    clock, run = time.perf_counter, program.run
    run(*arrays)
    for index in range(runs):
        started = clock()
        run(*arrays)
        seconds[index] = clock() - started
    return seconds


def _profile(program: Program, arrays: list[np.ndarray], rounds: int) -> tuple[tuple[Layer, ...], float]:
    """The steps, and the wall time of a run that was measured in the same runs."""
    started = time.perf_counter()
    program.profile(*arrays, runs=1)
    runs = min(_MOST_RUNS, max(3, int(2 * _ROUND_SECONDS / max(time.perf_counter() - started, 1e-7))))
    walls: list[float] = []
    steps: list[dict[str, Any]] = []
    columns: list[list[float]] = []
    for _ in range(rounds):
        started = time.perf_counter()
        steps = [step for step in program.profile(*arrays, runs=runs) if step["phase"] == "run"]
        # profile() makes one run more, to warm up.
        walls.append((time.perf_counter() - started) / (runs + 1))
        columns.append([step["total_seconds"] / max(step["runs"], 1) for step in steps])
    # One round in the middle, not a median for each step: only then the steps fit the wall time.
    middle = int(np.argsort(walls)[len(walls) // 2])
    # A run lasts at least as long as its steps; the warm-up, without clocks, may pull the mean below that.
    wall = max(walls[middle], sum(columns[middle]))
    rows = [
        Layer(
            name=step["name"],
            op=step["op"],
            variant=step["variant"],
            seconds=seconds,
            share=seconds / wall,
            gflops=(2 * step["macs"] + step["other_flops"]) / max(seconds, 1e-12) / 1e9,
            gbytes=step["bytes"] / max(seconds, 1e-12) / 1e9,
        )
        for step, seconds in zip(steps, columns[middle], strict=True)
    ]
    rest = wall - sum(columns[middle])
    rows.append(Layer("other", "", "", rest, rest / wall, 0.0, 0.0))
    return tuple(rows), wall


def _warnings(report: BenchReport) -> tuple[str, ...]:
    found = []
    load, processors = report.environment["load_average"], report.environment["processors"] or 1
    used = max(t.threads for t in report.timings)
    # This measurement itself is part of the load.
    if load is not None and load > used + _BUSY * max(1, processors - used):
        found.append(f"the machine is busy: load {load:.1f} with {processors} processors; do not trust these numbers")
    for timing in report.timings:
        if timing.noise > 0.1:
            found.append(
                f"the rounds with threads={timing.threads} differ by {100 * timing.noise:.0f} %; "
                "repeat on a quiet machine"
            )
    return tuple(found)
