"""Whether others use the machine."""

from __future__ import annotations

import os

__all__ = ["is_busy", "load_average"]

_BUSY = 0.5


def load_average() -> float | None:
    """Processes that ran or waited for a processor, on average over the last minute; None where it is not known."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def is_busy(load: float | None, processors: int, used: int) -> bool:
    """Tell whether a load is more than what this process causes with `used` threads, and leaves it too little."""
    return load is not None and load > used + _BUSY * max(1, processors - used)
