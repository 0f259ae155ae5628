"""Process-wide defaults and facts: the seed of fresh parameters, what the machine offers."""

from __future__ import annotations

from typing import Any

from pycnn import _core
from pycnn.errors import ArgumentError

__all__ = ["clock_ghz", "machine", "manual_seed", "measure_peaks", "seed"]

_seed = 0


def manual_seed(value: int) -> None:
    """Set the seed from which parameters without values draw them.

    A parameter's values follow from this seed and its name, not from the order of creation.

    Args:
        value: Between 0 and 2**63 - 1. The default is 0.

    Raises:
        ArgumentError: The value is not an integer in that range.

    Example:
        >>> import pycnn
        >>> pycnn.manual_seed(1)
    """
    global _seed
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ArgumentError(f"manual_seed: {value!r} is not an integer between 0 and 2**63 - 1")
    _seed = value


def seed() -> int:
    """Return the current seed."""
    return _seed


def machine() -> dict[str, Any]:
    """Return the processor, instruction sets, thread count and devices, with the reasons for what was chosen.

    Returns:
        A dict with cpu, isas (usable, ascending), isa (chosen), threads (chosen), threads_reason, thread_limits (each
        input to the choice; 0 says nothing), devices, compiler, warnings (variables that hold no count),
        available_memory_bytes (left now).

    Raises:
        ArgumentError: PYCNN_MAX_ISA holds something unknown.
    """
    return _core.machine()


def measure_peaks(*, isa: str, threads: int, seconds: float) -> dict[str, Any]:
    """Measure the highest rates that plain loops reach.

    Args:
        isa: Instruction set.
        threads: How many run the loops.
        seconds: For each rate, more than 0.

    Returns:
        A dict with cpu, isa, threads, compute (dicts of dtype, unit, flops a second), memory (nearest level first:
        dicts of level, capacity_bytes, buffer_bytes, and read_bytes and copy_bytes a second), disturbed (others used
        the processors all the time that some rate was measured).

    Raises:
        ArgumentError: `seconds` is out of range, or `isa` is unknown.
        DeviceError: The instruction set is not there.
    """
    return _core.measure_peaks(isa=isa, threads=threads, seconds=seconds)


def clock_ghz() -> float:
    """Measure the clock of the processor that this thread runs on, 10**9 cycles a second; takes below 1 ms."""
    return _core.clock_hertz() / 1e9
