"""In which order values of several ranks are combined: a function of the number of ranks alone.

Neighbours first, then pairs of those, and so on; a last one without a partner waits for the next round. Five ranks:

    ((0 + 1) + (2 + 3)) + 4
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["OPERATIONS", "combine", "part_of"]

OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.add,
    "mean": np.add,
    "max": np.maximum,
    "min": np.minimum,
}


def combine(parts: Sequence[np.ndarray], op: str = "sum") -> np.ndarray:
    """Combine arrays of one shape, one for each rank; they are overwritten.

    Returns:
        The first of them, which holds the result.
    """
    function, row = OPERATIONS[op], list(parts)
    while len(row) > 1:
        for left, right in zip(row[0::2], row[1::2], strict=False):
            function(left, right, out=left)
        row = row[0::2]
    if op == "mean":
        np.divide(row[0], len(parts), out=row[0])
    return row[0]


def part_of(count: int, rank: int, size: int) -> slice:
    """Which of `count` things one rank has: as many as the others, or one more or less, in the order of the ranks."""
    return slice(count * rank // size, count * (rank + 1) // size)
