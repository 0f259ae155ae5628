"""How fast a net is: whole, and step by step.

Every run is timed by itself. The runs come in rounds, which take turns between the settings that are compared, so
that a change of the machine's load meets all of them; how far the rounds lie apart is the noise of the measurement.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.arguments import as_flag, as_integer
from pycnn.benchmark._device_peaks import device_peaks
from pycnn.benchmark._load import is_busy, load_average
from pycnn.benchmark._peaks import Peaks, machine_peaks
from pycnn.benchmark._report import BenchReport, Clock, Layer, Refusal, Timing, multiplied_type
from pycnn.benchmark._roofline import Bound, bound
from pycnn.config import clock_ghz, machine
from pycnn.errors import ArgumentError, DTypeError
from pycnn.nn.module import Module
from pycnn.optim import SGD
from pycnn.program import PendingRun, Program, check_numerics, compile_traced
from pycnn.tensor import Parameter, expect_memory
from pycnn.tracing import Symbol, Traced, scope, trace
from pycnn.version import __version__

__all__ = ["bench", "environment", "images_from"]

_ROUND_SECONDS = 0.1
_MOST_RUNS = 2000
# Runs on a GPU that are begun before the end of one is waited for.
_AHEAD = 2
_CLOCK_SPREAD = 0.1


def environment() -> dict[str, Any]:
    """Return what a measurement depends on beside the net: versions, processor, load.

    Returns:
        A dict with pycnn, python, numpy, system, cpu, isa, threads, processors, load_average (of the last minute, or
        None), compiler, time (UTC).
    """
    facts = machine()
    return {
        "pycnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": facts["cpu"],
        "isa": facts["isa"],
        "threads": facts["threads"],
        "processors": os.cpu_count(),
        "load_average": load_average(),
        "compiler": facts["compiler"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


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
    dtype: str = "float32",
    emulate_bfloat16: bool = False,
    winograd: bool = True,
    tf32: bool = False,
    recompute: str = "cheap",
    peaks: str | None = "keep",
    images: str | None = None,
    report: Callable[[str], object] | None = None,
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
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N".
        rounds: How many, of about 0.1 s for each number of threads.
        seed: Of the images.
        dtype: "float32", or "bfloat16" for activations and their gradients (see `pycnn.compile`).
        emulate_bfloat16: Time what bfloat16 takes where the processor lacks it; steps are held against float32's peak.
        winograd: As of `pycnn.compile`.
        tf32: As of `pycnn.compile`.
        recompute: What a training step computes again instead of keeping it (see `pycnn.Trainer`).
        peaks: Hold the times against what the machine can do at most (see `machine_peaks`): "keep" takes the peaks of
            the cache or measures them for it, "renew" measures, None leaves them out. Those of a GPU are measured
            every time: the products of large matrices and the passes through large tensors by its own kernels.
        images: Where they come from: "host", an array of float32 that each run is given; or "device", bytes that lie on
            the GPU, of which each run gathers its own and scales them, as `Trainer.fit` has it, and also for a net that
            begins with a function on floats. Default: "device" on a GPU, if the net takes images, else "host", where on
            a GPU the copy may be all that is measured.
        report: Is told what takes time besides.

    Returns:
        The report.

    Raises:
        ArgumentError: An argument is out of range, or the size of the input is not known.
        ShapeError: A layer refuses the shape.
        DTypeError: `dtype` is none of these.
        UnsupportedError: bfloat16 without AMX or AVX512-BF16.
        DeviceError: The device or instruction set is not there.

    Example:
        >>> import pycnn
        >>> report = bench(pycnn.models.lenet5(), batch_size=8, rounds=2)
        >>> report.timings[0].images_per_second > 0
        True
    """
    batch_size = as_integer(batch_size, who="bench", name="batch_size", low=1)
    rounds = as_integer(rounds, who="bench", name="rounds", low=1)
    seed = as_integer(seed, who="bench", name="seed", low=0)
    train, layers = as_flag(train, who="bench", name="train"), as_flag(layers, who="bench", name="layers")
    counts: list[int | None] = list(threads) if isinstance(threads, Sequence) else [threads]
    if not counts:
        raise ArgumentError(f"bench: threads is {threads!r}, expected a number or several")
    if not isinstance(net, Module):
        raise ArgumentError(f"bench: net is {net!r}, expected a Module, for example pycnn.models.create('lenet5')")
    if peaks not in ("keep", "renew", None):
        raise ArgumentError(f"bench: peaks is {peaks!r}, expected 'keep', 'renew' or None")
    numerics = check_numerics(dtype=dtype, emulate_bfloat16=emulate_bfloat16, winograd=winograd, tf32=tf32, who="bench")
    dtype = numerics["dtype"]
    multiplied = multiplied_type(dtype, numerics["tf32"])
    net.build(input_shape)
    shape = (batch_size, *(net.input_shape or ()))
    images = images_from(images, device, shape[1:])
    state = net.state_dict()
    arrays, resident = _arrays(net, shape, train, seed, is_resident=images == "device")
    try:
        options: dict[str, Any] = {"device": device, "isa": isa, "recompute": recompute, **numerics}
        programs = [_compile(net, arrays, resident, train, threads=count, **options) for count in counts]
        limits = _peaks(programs, device, peaks, report)
        timings, clock = _time(programs, arrays, rounds, batch_size)
        result = BenchReport(
            name=type(net).__name__,
            shape=shape,
            train=train,
            timings=tuple(map(_with_work, timings, programs, limits, [multiplied] * len(programs))),
            environment=environment(),
            dtype=dtype,
            winograd=numerics["winograd"],
            tf32=numerics["tf32"],
            emulate_bfloat16=numerics["emulate_bfloat16"],
            recompute=recompute,
            rounds=rounds,
            clock=clock,
            peaks=tuple(limit for limit in limits if limit is not None),
            images=images,
        )
        if layers:
            rows, wall = _profile(programs[0], arrays, rounds, limits[0], multiplied)
            result = replace(result, layers=rows, layers_wall=wall)
    finally:
        net.load_state_dict(state)
    return replace(result, warnings=_warnings(result, programs))


def _peaks(
    programs: list[Program], device: str, peaks: str | None, report: Callable[[str], object] | None
) -> list[Peaks | None]:
    """One for each program."""
    if peaks is None:
        return [None] * len(programs)
    if device not in ("cpu", "auto"):
        return [device_peaks(device, report=report)] * len(programs)
    return [machine_peaks(threads=p.threads, isa=p.isa, renew=peaks == "renew", report=report) for p in programs]


def images_from(wanted: str | None, device: Any, image_shape: Sequence[int]) -> str:
    """Settle `images` of `bench`: "host" or "device".

    Raises:
        ArgumentError: It is neither, or images cannot come from there.
    """
    is_gpu = isinstance(device, str) and device.startswith("cuda")
    if wanted is None:
        return "device" if is_gpu and len(image_shape) == 3 else "host"
    if not isinstance(wanted, str) or wanted not in ("host", "device"):
        raise ArgumentError(f"bench: images is {wanted!r}, expected 'host' or 'device'")
    if wanted == "device" and not is_gpu:
        raise ArgumentError(f"bench: images is 'device', which is for a GPU; the device is {device!r}")
    if wanted == "device" and len(image_shape) != 3:
        raise ArgumentError(
            f"bench: images is 'device', and the net's input {tuple(image_shape)} is no image (H, W, C)"
        )
    return wanted


def _arrays(
    net: Module, shape: tuple[int, ...], train: bool, seed: int, *, is_resident: bool
) -> tuple[list[np.ndarray], Parameter | None]:
    """What a run is given, and images that lie where it is computed."""
    random = np.random.default_rng(seed)
    resident = None
    arrays: list[np.ndarray]
    if is_resident:
        expect_memory(f"bench: no memory for images {shape}", math.prod(shape) * 2)
        pixels = random.integers(0, 256, shape, np.uint8)
        resident = Parameter(shape, init=pixels, trainable=False, dtype="uint8")
        resident.name = "images of the benchmark"
        arrays = [np.zeros((shape[0], 8), np.int64)]
        arrays[0][:, 0] = np.arange(shape[0])  # whole, in their order
    else:
        expect_memory(f"bench: no memory for images {shape}", math.prod(shape) * 4)
        arrays = [random.random(shape, np.float32)]
    if not train:
        return arrays, resident
    scores = trace(lambda x: _single(net(x)), {"x": (shape, "float32")}, root=net)
    result = tuple(scores.graph.spec(dict(scores.graph.outputs())["output"])[0])
    if len(result) != 2:
        raise ArgumentError(f"bench: the net gives {result}; a training step needs scores (N, classes)")
    return [*arrays, random.integers(0, result[1], shape[0], np.int64)], resident


def _single(result: Any) -> Symbol:
    if isinstance(result, tuple | list):
        return result[0]
    return result


def _record(
    net: Module,
    inputs: Mapping[str, tuple[Sequence[int], str]],
    resident: Parameter | None,
    train: bool,
    *,
    is_scaled: bool,
) -> Traced:
    """Record a run; `is_scaled`: bytes are brought to 0..1 before the net, which otherwise does it itself."""

    def scores(x: Symbol) -> Symbol:
        if resident is not None:
            with scope("images"):
                x = functional.take_windows(resident, x, size=resident.shape[1:3])
                if is_scaled:
                    x = functional.normalize_image(x, scale=1.0 / 255.0)
        return _single(net(x))

    if not train:
        return trace(scores, inputs, root=net)
    loss = getattr(net, "default_loss", None) or functional.cross_entropy
    return trace(lambda x, y: {"loss": loss(scores(x), y)}, inputs, root=net)


def _compile(net: Module, arrays: list[np.ndarray], resident: Parameter | None, train: bool, **options: Any) -> Program:
    inputs = {name: (array.shape, array.dtype.name) for name, array in zip("xy", arrays, strict=False)}
    try:
        traced = _record(net, inputs, resident, train, is_scaled=False)
    except DTypeError:
        if resident is None:
            raise
        # What comes first is no layer but a function, which takes no bytes.
        traced = _record(net, inputs, resident, train, is_scaled=True)
    if not train:
        return compile_traced(traced, **options)
    spec = SGD(1e-3, momentum=0.9).spec(dict(net.named_parameters()))
    program = compile_traced(traced, mode="training", optimizer=spec, **options)
    # Small steps: the same work, and the weights stay finite however many there are.
    program.variables["train.learning_rate"] = np.array([1e-6], np.float32)
    return program


def _time(
    programs: list[Program], arrays: list[np.ndarray], rounds: int, batch_size: int
) -> tuple[list[Timing], Clock]:
    lengths = []
    for program in programs:
        program.run(*arrays)
        started = time.perf_counter()
        program.run(*arrays)
        once = max(time.perf_counter() - started, 1e-7)
        lengths.append(min(_MOST_RUNS, max(3, int(_ROUND_SECONDS / once))))
    samples: list[list[np.ndarray]] = [[] for _ in programs]
    clocks = []
    for _ in range(rounds):
        clocks.append(clock_ghz())
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
    return timings, Clock(float(np.median(clocks)), min(clocks), max(clocks))


def _least(step: Mapping[str, Any], peaks: Peaks, dtype: str) -> Bound:
    """What a step needs at least; layers with weights multiply in `dtype`, where something does."""
    multiplies = step["op"].startswith(("conv2d", "dense"))
    return bound(_flops(step), step["bytes"], peaks, dtype=peaks.multiplied(dtype) if multiplies else "float32")


def _flops(step: Mapping[str, Any]) -> int:
    return 2 * step["macs"] + step["other_flops"]


def _with_work(timing: Timing, program: Program, peaks: Peaks | None, dtype: str) -> Timing:
    """The timing with its rate, and held against the sum of what each step needs at least."""
    steps = [step for step in program.steps() if step["phase"] == "run"]
    timing = replace(timing, gflops=sum(map(_flops, steps)) / timing.median / 1e9)
    if peaks is None:
        return timing
    least = sum(_least(step, peaks, dtype).seconds for step in steps)
    return replace(timing, bound=least, percent_of_bound=100.0 * least / timing.median)


def _round(program: Program, arrays: list[np.ndarray], runs: int) -> np.ndarray:
    seconds = np.empty(runs)
    clock, run = time.perf_counter, program.run
    run(*arrays)
    if program.overlaps:
        # As loops do: run upon run. A run's time is that from the end of the one before.
        begun: deque[PendingRun] = deque()
        started = clock()
        for index in range(runs + _AHEAD):
            if index < runs:
                begun.append(program.begin(*arrays))
            if index >= _AHEAD:
                begun.popleft().wait()
                ended = clock()
                seconds[index - _AHEAD], started = ended - started, ended
        return seconds
    for index in range(runs):
        started = clock()
        run(*arrays)
        seconds[index] = clock() - started
    return seconds


def _profile(
    program: Program, arrays: list[np.ndarray], rounds: int, peaks: Peaks | None, dtype: str
) -> tuple[tuple[Layer, ...], float]:
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
    middle = int(np.argsort(walls)[(len(walls) - 1) // 2])
    # A run lasts at least as long as its steps; the warm-up, without clocks, may pull the mean below that.
    wall = max(walls[middle], sum(columns[middle]))
    rows = [_layer(step, seconds, wall, peaks, dtype) for step, seconds in zip(steps, columns[middle], strict=True)]
    rest = wall - sum(columns[middle])
    rows.append(Layer("other", "", "", rest, rest / wall, 0.0, 0.0))
    return tuple(rows), wall


def _layer(step: Mapping[str, Any], seconds: float, wall: float, peaks: Peaks | None, dtype: str) -> Layer:
    flops, timed = _flops(step), max(seconds, 1e-12)
    least = None if peaks is None else _least(step, peaks, dtype)
    return Layer(
        name=step["name"],
        op=step["op"],
        variant=step["variant"],
        seconds=seconds,
        share=seconds / wall,
        gflops=flops / timed / 1e9,
        gbytes=step["bytes"] / timed / 1e9,
        flops=flops,
        bytes=step["bytes"],
        bound=None if least is None else least.seconds,
        bound_by="" if least is None else least.by,
        percent_of_bound=None if least is None or not least.by else 100.0 * least.seconds / timed,
        refused=tuple(Refusal(variant, reason) for variant, reason in step["refused"]),
        absorbed=tuple((name, op) for name, op in step["absorbed"]),
    )


def _warnings(report: BenchReport, programs: Sequence[Program]) -> tuple[str, ...]:
    found = [f"the net was {p.recording}" for p in programs if p.recording.startswith("not recorded")]
    load, processors = report.environment["load_average"], report.environment["processors"] or 1
    used = max(t.threads for t in report.timings)
    if is_busy(load, processors, used):
        found.append(f"the machine is busy: load {load:.1f} with {processors} processors; do not trust these numbers")
    if report.clock is not None and report.clock.maximum > (1.0 + _CLOCK_SPREAD) * report.clock.minimum:
        found.append(
            f"the processor's clock went from {report.clock.minimum:.2f} to {report.clock.maximum:.2f} GHz meanwhile"
        )
    if any(peaks.busy for peaks in report.peaks):
        found.append("the peaks were measured while others used the machine, and may be too low")
    for timing in report.timings:
        if timing.noise > 0.1:
            found.append(
                f"the rounds with threads={timing.threads} differ by {100 * timing.noise:.0f} %; "
                "repeat on a quiet machine"
            )
    return tuple(found)
