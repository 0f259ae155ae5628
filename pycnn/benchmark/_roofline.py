"""The least time that a piece of work can take on a machine.

The roofline of Williams, Waterman and Patterson (2009), read as a time: no less than its operations take at the
highest rate, and no less than its bytes take to come from the nearest level of the memory that holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pycnn.benchmark._peaks import Peaks
from pycnn.errors import ArgumentError

__all__ = ["Bound", "bound"]


@dataclass(frozen=True)
class Bound:
    """What limits a piece of work.

    Attributes:
        seconds: The least time; 0 for no work.
        by: "compute", or the level of the memory; "" for no work.
    """

    seconds: float
    by: str


def bound(flops: float, size_bytes: float, peaks: Peaks, *, dtype: str = "float32") -> Bound:
    """Return the least time for some operations on some bytes.

    ::

        seconds = max(flops / peak, bytes / bandwidth)

    which is the same as an attainable rate of ``min(peak, bandwidth * flops / bytes)`` operations a second. A kernel
    that finds a part of its input in a nearer level, or one that needs fewer operations than the definition of what it
    computes, may be faster.

    Args:
        flops: Operations; a multiply-add counts as two.
        size_bytes: Inputs read once and outputs written once.
        peaks: Of the machine.
        dtype: Element type of the multiplications.

    Returns:
        The time and what sets it.

    Raises:
        ArgumentError: A number is negative, or nothing multiplies the type.

    Example:
        >>> from pycnn.benchmark import ComputePeak, MemoryPeak, Peaks
        >>> peaks = Peaks(
        ...     cpu="", isa="avx2", threads=1, pycnn="", time="", busy=False,
        ...     compute=(ComputePeak("float32", "avx2", 100.0),), memory=(MemoryPeak("memory", 0, 20.0, 15.0),),
        ... )
        >>> bound(1e9, 1e9, peaks)
        Bound(seconds=0.05, by='memory')
        >>> bound(1e10, 1e9, peaks)
        Bound(seconds=0.1, by='compute')
    """
    if flops < 0 or size_bytes < 0:
        raise ArgumentError(f"bound: flops={flops!r} and size_bytes={size_bytes!r} must not be negative")
    level = peaks.level(size_bytes)
    compute = flops / (1e9 * peaks.gflops(dtype))
    memory = size_bytes / (1e9 * level.gbytes)
    if compute == memory == 0.0:
        return Bound(0.0, "")
    return Bound(compute, "compute") if compute >= memory else Bound(memory, level.level)
