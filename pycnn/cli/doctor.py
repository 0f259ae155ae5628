"""Tell what this machine offers, what pycnn chose and why, and how fast it is.

Environment variables with wrong values are reported, not fatal. On each GPU a small net is compiled and run: what is
missing there, or fails, is reported. With --no-speed the check of about 2 s is left out.

Example:
  pycnn doctor
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import time
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import pycnn
from pycnn import nn
from pycnn.benchmark import environment
from pycnn.cli._output import Output
from pycnn.config import machine
from pycnn.errors import ArgumentError, Error

__all__ = ["RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_THREADS = True

_COUNTS = ("PYCNN_NUM_THREADS", "OMP_NUM_THREADS")
_VARIABLES = (*_COUNTS, "PYCNN_MAX_ISA", "PYCNN_OVERSUBSCRIBE", "PYCNN_STRASSEN", "PYCNN_TRACEBACK")
_POOLS = {
    "libgomp": "GNU OpenMP (also pycnn's own)",
    "libiomp5": "Intel OpenMP",
    "libomp": "LLVM OpenMP",
    "openblas": "OpenBLAS, usually NumPy's",
    "libmkl_rt": "Intel MKL",
    "libtbb": "oneTBB",
    "libtorch_cpu": "PyTorch",
}
_SECONDS = 0.45
_COPY_BYTES = 2**26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed check")


def run(args: argparse.Namespace, output: Output) -> int:
    """Look, measure, report."""
    warnings: list[str] = []
    with _usable_environment(warnings):
        facts = machine()
        values: dict[str, Any] = {
            "version": pycnn.__version__,
            "environment": environment(),
            "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
            "instruction_sets": facts["isas"],
            "isa": facts["isa"],
            "bfloat16_units": facts["bfloat16_units"],
            "threads": facts["threads"],
            "threads_reason": facts["threads_reason"],
            "thread_limits": facts["thread_limits"],
            "devices": facts["devices"],
            "thread_pools": thread_pools(),
            "pillow": importlib.util.find_spec("PIL") is not None,
            "speed": None,
        }
        if not args.no_speed:
            output.progress("measuring speed, about 2 s")
            values["speed"] = _speed(args.threads or facts["threads"])
        _look_for_trouble(values, warnings)
        for device in facts["devices"][1:]:
            warnings += [f"{device}: {text}" for text in _device_trouble(device, facts["warnings"])]
    values["warnings"] = warnings
    for text in warnings:
        output.warn(text)
    output.result(values, _text(values))
    output.suggest("pycnn bench lenet5 --batch 256 --train --layers")
    return 0


@contextmanager
def _usable_environment(warnings: list[str]) -> Iterator[None]:
    """Within it, variables with wrong values are not there."""
    removed: dict[str, str] = {}

    def remove(name: str, reason: str) -> None:
        removed[name] = os.environ.pop(name)
        warnings.append(f"{name}={removed[name]!r} {reason}")

    for name in _COUNTS:
        text = os.environ.get(name, "")
        parts = text.split(",") if name == "OMP_NUM_THREADS" else [text]
        if text and not all(part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts):
            remove(name, "is not a whole number of at least 1; it is ignored")
    try:
        machine()
    except ArgumentError as error:
        if "PYCNN_MAX_ISA" in os.environ:
            reason = f"is refused ({str(error).splitlines()[0]})"
            remove("PYCNN_MAX_ISA", f"{reason}; ignored here, other commands refuse to run")
    try:
        yield
    finally:
        os.environ.update(removed)


def thread_pools() -> list[dict[str, str]]:
    """Libraries with thread pools that are loaded into this process, by their files."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    paths = sorted(set(re.findall(r"(/\S+\.so\S*)", text)))
    return [
        {"library": path, "what": what}
        for path in paths
        for stem, what in _POOLS.items()
        if re.match(rf"(lib)?{re.escape(stem)}|lib\w*{re.escape(stem)}", Path(path).name)
    ]


def _look_for_trouble(values: dict[str, Any], warnings: list[str]) -> None:
    load, processors = values["environment"]["load_average"], values["environment"]["processors"] or 1
    if load is not None and load > 0.5 * processors + 0.5:
        warnings.append(f"the machine is busy (load {load:.1f} with {processors} processors): speeds are too low")
    kinds = {pool["what"].split(" (")[0] for pool in values["thread_pools"] if "OpenMP" in pool["what"]}
    if len(kinds) > 1:
        warnings.append(f"several OpenMP runtimes are loaded ({', '.join(sorted(kinds))}): they compete for processors")


def _device_trouble(device: str, known: list[str]) -> list[str]:
    """What a small net that uses all of NVIDIA's libraries meets on a device, but for what is `known`."""
    net = nn.Sequential(nn.Conv2d(8, 8, kernel_size=3, padding=1), nn.Flatten(), nn.Linear(512, 8))
    shape = (2, 8, 8, 8)
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # they are given back
        try:
            program = pycnn.compile(net, shape, device=device)
            program.run(np.full(shape, 0.5, np.float32))
        except Error as error:
            return [str(error)]
    return [text for text in program.warnings if text not in known]


# ---- Speed


def _speed(threads: int) -> dict[str, Any]:
    result: dict[str, Any] = {"threads": threads, "conv": {}}
    for count in dict.fromkeys((1, threads)):
        result["conv"][str(count)] = _conv_gflops(count)
    result["copy_gbytes"] = _copy_gbytes()
    return result


def _conv_gflops(threads: int) -> float:
    """Fastest of many 3x3 convolutions that fit the cache: bound by multiply-adds, so none may be left out."""
    net = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
    shape = (4, 28, 28, 64)
    program = pycnn.compile(net, shape, threads=threads, winograd=False)
    x = np.full(shape, 0.5, np.float32)
    best = _fastest(lambda: program.run(x))
    flop = 2 * int(np.prod(shape)) * 64 * 9
    return flop / best / 1e9


def _copy_gbytes() -> float:
    """Copy between arrays far larger than the caches, with one thread; bytes read and written both count."""
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return 2 * _COPY_BYTES / _fastest(lambda: np.copyto(target, source)) / 1e9


def _fastest(function: Any) -> float:
    function()
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while True:  # at least once, however long others have the processor
        started = time.perf_counter()
        function()
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended >= end:
            return best


def _text(values: dict[str, Any]) -> str:
    env = values["environment"]
    limits = ", ".join(f"{name} {value or 'says nothing'}" for name, value in values["thread_limits"].items())
    pools = [f"  {pool['library']}: {pool['what']}" for pool in values["thread_pools"]] or ["  none"]
    variables = ", ".join(f"{name}={value}" for name, value in values["variables"].items()) or "none set"
    lines = [
        f"pycnn {values['version']}, Python {env['python']}, NumPy {env['numpy']}, {env['system']}, {env['compiler']}",
        f"processor: {env['cpu']}",
        f"instruction sets: {', '.join(values['instruction_sets'])}; using {values['isa']}",
        f"bfloat16: {', '.join(values['bfloat16_units']) or 'no unit for it'}",
        f"threads: {values['threads']}, because of {values['threads_reason']}",
        f"  inputs to the choice: {limits}",
        f"environment variables: {variables}",
        f"devices: {', '.join(values['devices'])}",
        f"image files: {'Pillow is there' if values['pillow'] else 'no Pillow; pip install pycnn[image]'}",
        "thread pools in this process:",
        *pools,
    ]
    speed = values["speed"]
    if speed is not None:
        conv = ", ".join(f"{value:,.1f} GFLOP/s with threads={count}" for count, value in speed["conv"].items())
        lines += [f"speed: 3x3 convolution {conv}", f"speed: copy {speed['copy_gbytes']:.1f} GB/s with 1 thread"]
    return "\n".join(lines)
