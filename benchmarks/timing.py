"""Interleaved timing: every candidate takes its turn in every round, and medians are compared.

The machines that this runs on are shared and noisy; a drift of the clock or a busy neighbour then hits all alike.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    minimum: float
    p10: float
    p90: float


def interleave(
    candidates: dict[str, Callable[[], Any]], *, rounds: int, seconds: float = 0.05, warm_up: int = 3
) -> dict[str, Timing]:
    """Time several functions in turn.

    Args:
        candidates: Functions by name.
        rounds: How many turns each takes.
        seconds: About how long one turn lasts (the function is repeated to fill it).
        warm_up: Calls before the clock starts.
    """
    repeats = {}
    for name, call in candidates.items():
        for _ in range(warm_up):
            call()
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / max(time.perf_counter() - begin, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - begin) / repeats[name])
    return {name: summarise(values) for name, values in samples.items()}


def summarise(values: list[float]) -> Timing:
    """Return median, minimum and percentiles."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return Timing(statistics.median(ordered), ordered[0], ordered[round(0.1 * last)], ordered[round(0.9 * last)])


def environment(*packages: str) -> dict[str, Any]:
    """Describe the machine and the versions that took part."""
    from pycnn import __version__
    from pycnn.config import machine

    # Its own word, as it may run from a checkout.
    versions = {"pycnn": __version__}
    for package in ("numpy", *packages):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    facts = machine()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": facts["cpu"],
        "processor": _processor(),
        "isas": facts["isas"],
        "threads": facts["threads"],
        "compiler": facts["compiler"],
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> dict[str, str]:
    """Family, model and stepping, since makers give one name to several."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        return {}
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {key.split()[-1]: facts[key] for key in ("cpu family", "model", "stepping", "microcode") if key in facts}


def _commit() -> str | None:
    """Of the checkout that this file is in, with "-dirty" where something was changed; None without one."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def save(name: str, result: dict[str, Any], path: str | None) -> None:
    """Write a result as JSON: to the path given, or not at all."""
    if path is not None:
        Path(path).write_text(json.dumps({"benchmark": name, "schema": 1, **result}, indent=1) + "\n", encoding="utf-8")
