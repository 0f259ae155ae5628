"""Process-wide defaults and facts: the seed of fresh parameters, what the machine offers."""

from __future__ import annotations

from typing import Any

from pycnn import _core
from pycnn.errors import ArgumentError

__all__ = ["machine", "manual_seed", "seed"]

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
