"""Peak memory of a training step, each peer in a process of its own.

Measured is the largest resident size during three steps (VmHWM, set back before) minus the resident size right before
the first, when net, weights and images are there and free memory has been returned to the system. So gradients,
optimizer state, activations and workspaces count, weights and libraries do not. A step of a tiny net goes before, for
the code and tables that a library loads with its first step. PyTorch is eager: what compiling needs would hide what a
step needs.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.compare.peer import Setting, reason_of
from benchmarks.compare.workload import NETS, Case, Workload

STEPS = 3
# Wanted: at most this share of PyTorch's.
AIM = 0.6
_MAIN = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True)
class Peak:
    """What a step needs beside weights and images.

    Attributes:
        peer: Library.
        setting: Of the library.
        bytes: Measured; None where it could not be.
        planned: Of pycnn, by its memory plan: arena, scratch, packed weights, optimizer state.
        reason: Why there is no measurement.
    """

    peer: str
    setting: str
    bytes: int | None
    planned: int | None = None
    reason: str = ""


def measure_here(case: Case, setting: Setting) -> Peak:
    """Measure one setting in this process, which should have done nothing before.

    Raises:
        OSError: The kernel does not tell peaks.
    """
    with tempfile.TemporaryDirectory() as folder:
        warm_up = setting.start(Workload(replace(case, net="lenet5", batch=2), Path(folder)))
        warm_up.call()
        work = Workload(case, Path(folder))
        candidate = setting.start(work)
        gc.collect()
        # Else the step would be given what setting up has freed, and seem to need less.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        for _ in range(STEPS):
            candidate.call()
        peak = _status("VmHWM") - before
        return Peak(setting.peer, setting.name, peak, candidate.planned())


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def measure(case: Case, setting: Setting) -> Peak:
    """Measure one setting in a process of its own."""
    request = json.dumps({"case": asdict(case), "peer": setting.peer, "setting": setting.name})
    command = [sys.executable, "-P", str(_MAIN), "--memory-of", request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
        return Peak(setting.peer, setting.name, None, reason=reason_of(RuntimeError(last[0])))
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def answer(request: str, find: Callable[[str, Case], Sequence[Setting]]) -> None:
    """What the child process does: print the peak as JSON.

    Args:
        request: From `measure`.
        find: The settings of a peer for a case.
    """
    wanted = json.loads(request)
    case = Case(**wanted["case"])
    setting = next(s for s in find(wanted["peer"], case) if s.name == wanted["setting"])
    print(json.dumps(asdict(measure_here(case, setting))))


@dataclass(frozen=True)
class CasePeaks:
    """All peaks of a case."""

    case: Case
    peaks: list[Peak]

    def least(self, *, ours: bool) -> Peak | None:
        """The smallest measured peak of pycnn, or of the others."""
        found = [p for p in self.peaks if p.bytes is not None and (p.peer == "pycnn") == ours]
        return min(found, key=lambda peak: peak.bytes or 0, default=None)

    @property
    def ratio(self) -> float | None:
        """Ours as a share of the smallest of the others."""
        ours, theirs = self.least(ours=True), self.least(ours=False)
        if ours is None or theirs is None or ours.bytes is None or not theirs.bytes:
            return None
        return ours.bytes / theirs.bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects."""
        return {**asdict(self.case), "ratio": self.ratio, "peaks": [asdict(peak) for peak in self.peaks]}


def table(results: Sequence[CasePeaks]) -> str:
    """One row a case, then what was not measured."""
    lines = [
        "memory of a training step beside weights and images, MB",
        "",
        "| net | batch | type | pycnn | as planned | PyTorch | setting | ratio (less is better) | aim |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    reasons = []
    for result in results:
        case, ours, theirs = result.case, result.least(ours=True), result.least(ours=False)
        plan = NETS.get(case.net)
        cells = [
            case.net,
            str(case.batch),
            case.dtype,
            _megabytes(ours and ours.bytes),
            _megabytes(ours and ours.planned),
            _megabytes(theirs and theirs.bytes),
            theirs.setting if theirs else "-",
            "-" if result.ratio is None else f"{result.ratio:.2f}",
            f"{AIM:g}" if plan and plan.batch == case.batch else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        reasons += [f"- {p.peer}, {p.setting} ({case}): {p.reason}" for p in result.peaks if p.bytes is None]
    return "\n".join([*lines, *(["", "Absent:", "", *reasons] if reasons else [])])


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f}"
