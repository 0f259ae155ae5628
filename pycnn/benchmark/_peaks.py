"""How fast this machine can be at most: measured once, then taken from a file in the user's cache folder.

The file belongs to a processor, an instruction set, a number of threads and a version of pycnn; what is none of it, or
no such file at all, is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pycnn import config
from pycnn.benchmark._load import is_busy, load_average
from pycnn.download import cache_directory
from pycnn.errors import ArgumentError, FileError
from pycnn.textfile import write_text
from pycnn.version import __version__

__all__ = ["ComputePeak", "MemoryPeak", "Peaks", "machine_peaks"]

_SCHEMA = "pycnn.peaks/1"
_SECONDS = 0.1  # for each rate
_MOST_BYTES = 1 << 16  # of a file


@dataclass(frozen=True)
class ComputePeak:
    """Multiply-adds in registers.

    Attributes:
        dtype: "float32", or "bfloat16" where the processor multiplies it; of a GPU also "float16", and "tf32" for
            float32 that may be rounded to that.
        unit: The instruction set, or "avx512_bf16", "amx_bf16"; of a GPU the device.
        gflops: 10**9 operations a second; a multiply-add counts as two.
    """

    dtype: str
    unit: str
    gflops: float


@dataclass(frozen=True)
class MemoryPeak:
    """Going through a buffer that fits one level of the memory, again and again.

    Attributes:
        level: "L1", "L2", "L3" or "memory". A level that is hardly larger than those before it is left out.
        capacity_bytes: Of all caches that the threads have; 0 for memory.
        read_gbytes: 10**9 bytes a second.
        copy_gbytes: 10**9 bytes a second, those read and those written together.
    """

    level: str
    capacity_bytes: int
    read_gbytes: float
    copy_gbytes: float

    @property
    def gbytes(self) -> float:
        """The faster of the two rates, 10**9 bytes a second."""
        return max(self.read_gbytes, self.copy_gbytes)


@dataclass(frozen=True)
class Peaks:
    """The highest rates that plain loops reached on this machine, or kernels on its GPU.

    Attributes:
        cpu: The processor.
        isa: Instruction set of the loops; of a GPU the device, for example "cuda".
        threads: How many ran them; 0 on a GPU.
        compute: One for each unit, float32 first.
        memory: Nearest level first, memory last.
        pycnn: Version that measured.
        time: When, UTC.
        busy: Others used the processors all the time that some rate was measured, so it may be too low; measured again
            once the machine is quiet.
    """

    cpu: str
    isa: str
    threads: int
    compute: tuple[ComputePeak, ...]
    memory: tuple[MemoryPeak, ...]
    pycnn: str
    time: str
    busy: bool

    def gflops(self, dtype: str = "float32") -> float:
        """The highest rate for an element type, 10**9 operations a second.

        Raises:
            ArgumentError: Nothing here multiplies this type.
        """
        rates = [peak.gflops for peak in self.compute if peak.dtype == dtype]
        if not rates:
            known = ", ".join(dict.fromkeys(peak.dtype for peak in self.compute))
            raise ArgumentError(f"peaks: nothing multiplies {dtype!r} here; there is {known}")
        return max(rates)

    def multiplied(self, dtype: str) -> str:
        """The type itself, or, where nothing here multiplies it, "float32", which is then multiplied in its place."""
        return dtype if any(peak.dtype == dtype for peak in self.compute) else "float32"

    def level(self, size_bytes: float) -> MemoryPeak:
        """The nearest level that holds so many bytes."""
        return next((peak for peak in self.memory if size_bytes <= peak.capacity_bytes), self.memory[-1])

    def __str__(self) -> str:
        """One line."""
        compute = ", ".join(f"{peak.dtype} {peak.gflops:,.0f} GFLOP/s ({peak.unit})" for peak in self.compute)
        memory = ", ".join(f"{peak.level} {peak.gbytes:,.0f}" for peak in self.memory)
        where = f"with threads={self.threads}" if self.threads else f"of {self.isa}"
        return f"peaks {where}: {compute}; {memory} GB/s"


def machine_peaks(
    *,
    threads: int | None = None,
    isa: str | None = None,
    renew: bool = False,
    report: Callable[[str], object] | None = None,
) -> Peaks:
    """Measure the peaks of this machine, or look up what was measured before.

    The rates are the fastest of many short tries, about 1 s in all. They are kept in the folder of `pycnn`'s cache
    (``$PYCNN_CACHE``, else ``$XDG_CACHE_HOME/pycnn``, else ``~/.cache/pycnn``); where that cannot be written, they are
    measured every time.

    Args:
        threads: As of `pycnn.compile`.
        isa: "baseline", "avx2" or "avx512". Default: the best.
        renew: Measure even if there is a file.
        report: Is told what takes time, and why something could not be kept.

    Returns:
        The peaks.

    Raises:
        ArgumentError: `threads` is not at least 1, or `isa` is unknown.
        DeviceError: The instruction set is not there.

    Example:
        >>> peaks = machine_peaks(threads=1)
        >>> peaks.gflops("float32") > 0
        True
        >>> [level.level for level in peaks.memory][-1]
        'memory'
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ArgumentError(f"machine_peaks: threads must be an integer of at least 1, got {threads!r}")
    facts = config.machine()
    key = {
        "cpu": facts["cpu"],
        "isa": facts["isa"] if isa is None else isa,
        "threads": facts["threads"] if threads is None else threads,
        "processors": os.cpu_count() or 1,
        "pycnn": __version__,
    }
    tell = report or (lambda text: None)
    path = _path(key)
    if path is not None and not renew:
        kept = _read(path, key)
        # Measuring anew among others would be no better.
        if kept is not None and (not kept.busy or is_busy(load_average(), key["processors"], 0)):
            return kept
    tell(f"measuring the peaks of this machine with threads={key['threads']}, about {10 * _SECONDS:.0f} s")
    peaks = _measure(key)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"schema": _SCHEMA, "key": key, "peaks": asdict(peaks)}, indent=2) + "\n")
        except (FileError, OSError) as error:
            tell(f"the peaks are not kept: '{path}': {error.strerror}")
    return peaks


def _measure(key: Mapping[str, Any]) -> Peaks:
    rates = config.measure_peaks(isa=key["isa"], threads=key["threads"], seconds=_SECONDS)
    return Peaks(
        cpu=rates["cpu"],
        isa=rates["isa"],
        threads=rates["threads"],
        compute=tuple(ComputePeak(c["dtype"], c["unit"], c["flops"] / 1e9) for c in rates["compute"]),
        memory=tuple(
            MemoryPeak(m["level"], m["capacity_bytes"], m["read_bytes"] / 1e9, m["copy_bytes"] / 1e9)
            for m in rates["memory"]
        ),
        pycnn=__version__,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        busy=rates["disturbed"],
    )


# ---- The file


def _path(key: Mapping[str, Any]) -> Path | None:
    """One file for each key, so that machines may share the folder."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    try:
        return cache_directory() / f"peaks-{digest}.json"
    except RuntimeError:  # The user has no home.
        return None


def _read(path: Path, key: Mapping[str, Any]) -> Peaks | None:
    """The peaks in a file; None where it is not the file of this key, whole and right."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != _SCHEMA or values["key"] != dict(key):
            return None
        return _parse(values["peaks"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _parse(values: Mapping[str, Any]) -> Peaks:
    """Raises one of the errors that `_read` expects."""
    compute = tuple(ComputePeak(**_typed(item, ComputePeak)) for item in values["compute"])
    memory = tuple(MemoryPeak(**_typed(item, MemoryPeak)) for item in values["memory"])
    capacities = [level.capacity_bytes for level in memory[:-1]]
    rates = [c.gflops for c in compute] + [rate for m in memory for rate in (m.read_gbytes, m.copy_gbytes)]
    if not compute or compute[0].dtype != "float32" or not memory or memory[-1].level != "memory":
        raise ValueError("a peak is missing")
    if not all(math.isfinite(rate) and rate > 0.0 for rate in rates):
        raise ValueError("a rate is no rate")
    if capacities != sorted(set(capacities)) or any(size <= 0 for size in capacities) or memory[-1].capacity_bytes != 0:
        raise ValueError("the levels are out of order")
    return Peaks(**{**_typed(values, Peaks), "compute": compute, "memory": memory})


_TYPES: dict[type, dict[str, type | tuple[type, ...]]] = {
    ComputePeak: {"dtype": str, "unit": str, "gflops": (int, float)},
    MemoryPeak: {"level": str, "capacity_bytes": int, "read_gbytes": (int, float), "copy_gbytes": (int, float)},
    Peaks: {"cpu": str, "isa": str, "threads": int, "compute": list, "memory": list, "pycnn": str, "time": str,
            "busy": bool},
}  # fmt: skip


def _typed(values: Mapping[str, Any], form: type) -> dict[str, Any]:
    """The fields of a form, each of its type."""
    types = _TYPES[form]
    if set(values) != set(types):
        raise ValueError(f"{form.__name__} has other fields")
    for name, kind in types.items():
        if not isinstance(values[name], kind) or (isinstance(values[name], bool) and kind is not bool):
            raise TypeError(f"{form.__name__}.{name} has another type")
    return dict(values)
