"""Whether this process is one of several, by what the launcher left in the environment; MPI is not started for that."""

from __future__ import annotations

import os
from typing import NamedTuple

from pycnn.errors import ArgumentError

__all__ = ["Place", "place", "timeout_seconds"]

DEFAULT_TIMEOUT_SECONDS = 300.0

# Rank and size, as Open MPI, MPICH and its kin (Intel MPI, srun), MVAPICH, and Slurm with PMIx name them.
_NAMES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_NTASKS"),
)


class Place(NamedTuple):
    """Rank of a process, and the number of all."""

    rank: int
    size: int


def place() -> Place:
    """Rank and size of this process; (0, 1) when it is alone, or is told so by ``PYCNN_DIST=off``.

    Raises:
        ArgumentError: PYCNN_DIST holds something else, or the launcher's variables do not go together.
    """
    switch = os.environ.get("PYCNN_DIST", "")
    if switch not in ("", "off", "on"):
        raise ArgumentError(f"PYCNN_DIST is {switch!r}, expected 'on' or 'off'")
    if switch == "off":
        return Place(0, 1)
    for rank_name, size_name in _NAMES:
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None or size is None:
            continue
        if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
            raise ArgumentError(f"{rank_name} is {rank!r} and {size_name} is {size!r}: no rank of so many processes")
        return Place(int(rank), int(size))
    return Place(0, 1)


def timeout_seconds() -> float:
    """How long to wait for other ranks: PYCNN_DIST_TIMEOUT, by default 300.

    Raises:
        ArgumentError: It is no number above 0.
    """
    text = os.environ.get("PYCNN_DIST_TIMEOUT", "")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise ArgumentError(f"PYCNN_DIST_TIMEOUT is {text!r}, expected seconds, above 0")
    return seconds
