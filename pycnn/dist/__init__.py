"""Several processes that train one net: who they are, and sums over all of them.

A program that is started as ``mpiexec -n 4 python train.py`` or ``pycnn launch -n 4 train ...`` runs in four processes,
the *ranks* 0 to 3. `pycnn.Trainer` shares every batch among them and adds up their gradients; see the guide "Several
processes". These functions are for what a program does beside that: only rank 0 prints, say.

Without such a start a process is alone: rank 0 of 1, and all functions give back what they were given. MPI is started
when it is first needed, and only where there are several ranks; it needs ``pip install 'pycnn[mpi]'``.
``PYCNN_DIST=off`` makes each process one alone, for programs that use MPI otherwise.

`allreduce`, `broadcast`, `barrier`, and `Trainer.fit`, `step` and `evaluate` are *collective*: every rank calls them,
in the same order. Where one does not, or has died, the others raise TrainingError, which names it, after
``PYCNN_DIST_TIMEOUT`` seconds (300) at the latest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.dist._environment import place
from pycnn.dist._reduction import OPERATIONS
from pycnn.dist._start import current_group
from pycnn.errors import ArgumentError

__all__ = ["allreduce", "barrier", "broadcast", "rank", "size"]


def rank() -> int:
    """The number of this process among all, from 0; 0 when it is alone."""
    return place().rank


def size() -> int:
    """How many processes there are; 1 when this one is alone."""
    return place().size


def allreduce(values: Any, op: str = "sum") -> np.ndarray:
    """Combine an array of every rank; each gets the result.

    The order of the additions depends on the number of ranks alone: pairs of neighbours, then pairs of those.

    Args:
        values: A number or an array of numbers, of the same shape and type on each rank.
        op: "sum", "mean", "max" or "min".

    Returns:
        A new array of that shape; of that type too, but a mean of integers is float64.

    Raises:
        ArgumentError: `op` is none of these, or shapes, types or `op` differ between ranks.
        TrainingError: A rank did not call this in time, or has failed.
        UnsupportedError: There are several ranks, but no mpi4py.

    Example:
        >>> from pycnn import dist
        >>> print(dist.allreduce([1.0, 2.0]))  # alone
        [1. 2.]
    """
    if op not in OPERATIONS:
        raise ArgumentError(f"allreduce: op must be one of {', '.join(OPERATIONS)}, got {op!r}")
    array = _as_numbers(values, "allreduce")
    if op == "mean" and array.dtype.kind != "f":
        array = array.astype(np.float64)
    group = current_group()
    return array if group is None else group.allreduce(array, op)


def broadcast(values: Any, root: int = 0) -> np.ndarray:
    """Give every rank the array of one.

    Args:
        values: A number or an array of numbers; those of other ranks than `root` are not looked at.
        root: Whose array it is.

    Returns:
        A new array with the values of `root`.

    Raises:
        ArgumentError: There is no such rank, or the ranks name different ones.
        TrainingError: A rank did not call this in time, or has failed.
        UnsupportedError: There are several ranks, but no mpi4py.
    """
    if isinstance(root, bool) or not isinstance(root, int) or not 0 <= root < size():
        raise ArgumentError(f"broadcast: root must be a rank, 0..{size() - 1}, got {root!r}")
    group = current_group()
    if group is None or group.rank == root:
        array = _as_numbers(values, "broadcast")
        return array if group is None else group.broadcast(array, root)
    return group.broadcast(None, root)


def barrier() -> None:
    """Wait until every rank has come here.

    Raises:
        TrainingError: A rank did not come in time, or has failed.
        UnsupportedError: There are several ranks, but no mpi4py.
    """
    group = current_group()
    if group is not None:
        group.gather("barrier", None)


def _as_numbers(values: Any, who: str) -> np.ndarray:
    array = np.array(values, order="C")
    if array.dtype.kind not in "biuf" or not array.dtype.isnative:
        raise ArgumentError(f"{who}: expected numbers, got an array of {array.dtype}")
    return array.astype(np.int64) if array.dtype.kind == "b" else array
