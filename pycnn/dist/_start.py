"""The group of all ranks of this process's job: MPI is started when it is first asked for."""

from __future__ import annotations

import os
import threading

from pycnn.dist._buckets import BucketExchange
from pycnn.dist._environment import place, timeout_seconds
from pycnn.dist._group import Group
from pycnn.errors import UnsupportedError
from pycnn.optional import optional

__all__ = ["current_exchange", "current_group"]

_lock = threading.Lock()
_group: Group | None = None
_exchange: BucketExchange | None = None
_process: int | None = None


def current_group() -> Group | None:
    """All ranks; None when this process is alone.

    Raises:
        UnsupportedError: There are several ranks but no mpi4py, the launcher is of another MPI than mpi4py's, or MPI
            cannot be called from two threads; also in a child that was forked from a rank.
        ArgumentError: A variable of the environment holds nonsense.
    """
    global _group, _process
    here = place()
    if here.size == 1:
        return None
    with _lock:
        if _group is None:
            mpi = optional("mpi4py.MPI", extra="mpi", who=f"training in {here.size} processes")
            world = mpi.COMM_WORLD
            if world.Get_size() != here.size:
                raise UnsupportedError(
                    f"the launcher started {here.size} processes, but mpi4py sees {world.Get_size()}: it uses another "
                    f"MPI ({mpi.Get_library_version().strip().splitlines()[0]}) than the launcher\n"
                    "  hint: pycnn launch takes the mpiexec beside this Python"
                )
            if mpi.Query_thread() < mpi.THREAD_MULTIPLE:
                raise UnsupportedError(
                    "this MPI cannot be called from several threads (MPI_THREAD_MULTIPLE)\n"
                    "  hint: set mpi4py.rc.thread_level = 'multiple' before MPI starts, or take another MPI"
                )
            _group, _process = Group(mpi, world, timeout_seconds()), os.getpid()
    if _process != os.getpid():
        raise UnsupportedError(
            "this process was forked from a rank, and cannot take part in its place\n"
            "  hint: PYCNN_DIST=off makes it one alone"
        )
    return _group


def current_exchange(group: Group) -> BucketExchange:
    """What sums up gradients over the ranks of `current_group`."""
    global _exchange
    with _lock:
        if _exchange is None:
            _exchange = BucketExchange(group)
        return _exchange
