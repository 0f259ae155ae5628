"""All ranks, and what they do together; messages are sent by mpi4py.

Every wait has an end: after a time, or when another rank says that it has failed or ends, whoever waits raises an error
that names the rank and what it was waited for in. So messages go from rank to rank, and are asked for again and again
instead of waited for; MPI's own collective operations could only hang.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pycnn.dist._reduction import combine, part_of
from pycnn.errors import ArgumentError, TrainingError

__all__ = ["Group", "on_all_ranks", "shown_ranks"]

E = TypeVar("E", bound=BaseException)

_RECORD, _ARRAY, _NOTICE = 1, 2, 3  # tags
_MESSAGE_BYTES = 1 << 30  # counts of MPI end at 2^31 - 1
_LONGEST_PAUSE_SECONDS = 0.0005
_NOTICE_SECONDS = 0.01  # between looks for notices
# How long a rank that has failed waits for what the others have to say: for those that have not heard of it, who may
# never look; and for those that have, who are about to leave, however slow.
_UNHEARD_SECONDS, _FAREWELL_SECONDS = 5.0, 30.0
# A rank that ends may have sent before what is waited for; that comes within this time.
_LAST_MESSAGES_SECONDS = 2.0


def shown_ranks(ranks: list[int]) -> str:
    """Return "rank 3" or "ranks 1, 2"."""
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def on_all_ranks(error: E) -> E:
    """Mark an error that every rank raises at the same place: the others need not be told."""
    error.on_all_ranks = True  # type: ignore[attr-defined]
    return error


class _Message(NamedTuple):
    """On its way to or from a rank."""

    peer: int
    request: Any
    comes: bool


class Group:
    """The ranks of a job, of which this process is one. Not for several threads at once, but for `combine_on`.

    Args:
        mpi: The module mpi4py.MPI.
        world: All ranks.
        timeout: Seconds that a rank waits for others.

    Attributes:
        rank: Of this process.
        size: How many there are.
        failure: Why nothing can be done together any more; None while all is well.
    """

    def __init__(self, mpi: ModuleType, world: Any, timeout: float) -> None:
        self._mpi = mpi
        self._world = world
        # Of our own, so that a program's own messages do not mix with these.
        self._records, self._notices = world.Dup(), world.Dup()
        #: For one thread beside the one that trains.
        self.beside = world.Dup()
        self.rank: int = world.Get_rank()
        self.size: int = world.Get_size()
        self.timeout = timeout
        self.failure: str | None = None
        self._peers = [rank for rank in range(self.size) if rank != self.rank]
        self._sequence = 0
        self._told: list[Any] = []  # requests, which must live until they are done
        self._gone: dict[int, float] = {}  # ranks that failed or ended, and when that was known
        self._silent: set[int] = set()  # those of them that have nothing more to say
        self._looked = 0.0
        self._hook = sys.excepthook
        sys.excepthook = self._note_exception
        atexit.register(self._leave)

    # ---- Together

    def gather(self, what: str, value: Any) -> list[Any]:
        """Every rank's value, as JSON has it, in the order of the ranks.

        Args:
            what: What the ranks do; on all the same.
            value: What this one has to say.

        Raises:
            TrainingError: A rank did not come in time, does something else, or has failed.
        """
        self._sequence += 1
        text = json.dumps([self._sequence, what, value]).encode()
        values = [json.loads(text)[-1]] * self.size
        sent = [
            _Message(peer, self._records.Isend([text, self._mpi.BYTE], peer, _RECORD), False) for peer in self._peers
        ]
        elsewhere: dict[int, str] = {}
        waiting = self._waiting(what)
        missing = list(self._peers)
        while missing:
            for peer in tuple(missing):
                message = self._records.Improbe(peer, _RECORD, status := self._mpi.Status())
                if message is None:
                    continue
                received = bytearray(status.Get_count(self._mpi.BYTE))
                message.Recv([received, self._mpi.BYTE])
                number, theirs, values[peer] = json.loads(received)
                missing.remove(peer)
                if (number, theirs) != (self._sequence, what):
                    elsewhere[peer] = theirs
            if missing:
                waiting(missing)
        if elsewhere:
            shown = ", ".join(f"rank {peer} in {theirs}" for peer, theirs in elsewhere.items())
            raise TrainingError(
                self.note_failure(
                    f"rank {self.rank} of {self.size} is in {what}, {shown}\n"
                    "  hint: every rank must do the same in the same order"
                )
            )
        self._wait(sent, what)
        return values

    def agree(self, what: str, value: dict[str, Any]) -> None:
        """Compare what should be the same on all ranks.

        Raises:
            ArgumentError: Something differs; on all ranks, with the same text.
            TrainingError: As `gather`.
        """
        values = self.gather(what, value)
        for key in values[0]:
            for rank, other in enumerate(values):
                if other.get(key) != values[0][key]:
                    raise on_all_ranks(
                        ArgumentError(
                            f"{what}: rank {rank} has {key} {other.get(key)!r}, rank 0 has {values[0][key]!r}; it must "
                            "be the same on all ranks"
                        )
                    )

    def allreduce(self, array: np.ndarray, op: str) -> np.ndarray:
        """Combine contiguous arrays in place, after a look whether all are alike; see `pycnn.dist.allreduce`."""
        self.agree("allreduce", {"op": op, "shape": list(array.shape), "type": array.dtype.str})
        self.combine_on(self._records, array.reshape(-1), "allreduce", op)
        return array

    def sum_records(self, flat: np.ndarray, what: str) -> None:
        """Replace a vector by its sum over all ranks, in the thread that trains."""
        self.combine_on(self._records, flat, what)

    def broadcast(self, array: np.ndarray | None, root: int) -> np.ndarray:
        """Give all ranks a contiguous array of one; see `pycnn.dist.broadcast`."""
        what = "broadcast"
        form = None if array is None else [list(array.shape), array.dtype.str]
        forms = self.gather(what, {"root": root, "form": form})
        roots = [value["root"] for value in forms]
        if len(set(roots)) > 1:
            raise on_all_ranks(ArgumentError(f"broadcast: the ranks name different roots, in their order {roots}"))
        if array is None:
            shape, kind = forms[root]["form"]
            array = np.empty(shape, kind)
        self.broadcast_into(array, root, what)
        return array

    def broadcast_into(self, array: np.ndarray, root: int, what: str) -> None:
        """Overwrite a contiguous array with that of one rank, of the same form."""
        flat = array.reshape(-1)
        if self.rank == root:
            requests = [request for peer in self._peers for request in self._send(self._records, flat, peer, _ARRAY)]
        else:
            requests = self._receive(self._records, flat, root, _ARRAY)
        self._wait(requests, what)

    def combine_on(self, comm: Any, flat: np.ndarray, what: str, op: str = "sum", tag: int = _ARRAY) -> None:
        """Replace a vector by the combination of all ranks' vectors of the same length.

        Each rank combines a part, so that all have the same work, and hands it to the others: twice the vector goes
        over the wire for any number of ranks.

        Args:
            comm: The communicator of the calling thread.
            flat: Overwritten.
            what: What the ranks do.
            op: Of `pycnn.dist.allreduce`.
            tag: The same on all ranks.
        """
        parts = [part_of(len(flat), rank, self.size) for rank in range(self.size)]
        own = flat[parts[self.rank]]
        theirs = np.empty((self.size, len(own)), flat.dtype)
        requests = []
        for peer in self._peers:
            requests += self._receive(comm, theirs[peer], peer, tag)
            requests += self._send(comm, flat[parts[peer]], peer, tag)
        self._wait(requests, what)
        own[:] = combine([own if rank == self.rank else theirs[rank] for rank in range(self.size)], op)
        requests = []
        for peer in self._peers:
            requests += self._receive(comm, flat[parts[peer]], peer, tag)
            requests += self._send(comm, own, peer, tag)
        self._wait(requests, what)

    # ---- Messages

    def _pieces(self, flat: np.ndarray) -> Iterator[np.ndarray]:
        data = flat.view(np.uint8)
        for start in range(0, len(data), _MESSAGE_BYTES):
            yield data[start : start + _MESSAGE_BYTES]

    def _send(self, comm: Any, flat: np.ndarray, peer: int, tag: int) -> list[_Message]:
        pieces = self._pieces(flat)
        return [_Message(peer, comm.Isend([piece, self._mpi.BYTE], peer, tag), False) for piece in pieces]

    def _receive(self, comm: Any, flat: np.ndarray, peer: int, tag: int) -> list[_Message]:
        pieces = self._pieces(flat)
        return [_Message(peer, comm.Irecv([piece, self._mpi.BYTE], peer, tag), True) for piece in pieces]

    def _wait(self, messages: list[_Message], what: str) -> None:
        try:
            waiting = self._waiting(what)
            while messages := [message for message in messages if not message.request.Test()]:
                waiting([message.peer for message in messages])
        except BaseException:
            # Nothing may be written any more to memory that its owner is about to use otherwise.
            for message in messages:
                if message.comes:
                    message.request.Cancel()
            self._told += messages
            raise

    def _waiting(self, what: str) -> Any:
        """A function to call, with the ranks that are waited for, whenever there is nothing to do."""
        if self.failure is not None:
            raise TrainingError(f"{what}: {self.failure}")
        started = looked = time.monotonic()
        pause = 0.0

        def wait(ranks: list[int]) -> None:
            nonlocal looked, pause
            if self.failure is not None:  # noted by another thread
                raise TrainingError(f"{what}: {self.failure}")
            # Not asleep at first: most answers come at once.
            time.sleep(pause)
            pause = min(pause + 2e-6, _LONGEST_PAUSE_SECONDS)
            # The caller has looked for messages after this: what came while all stood still is not late.
            before, looked = looked, time.monotonic()
            if looked - self._looked > _NOTICE_SECONDS:
                self._looked = looked
                self._read_notices(what, set(ranks), before)
            if before - started > self.timeout:
                late = sorted(set(ranks))
                raise TrainingError(
                    self.note_failure(
                        f"rank {self.rank} of {self.size}: {what}: {shown_ranks(late)} did not come within "
                        f"{self.timeout:g} s\n  hint: every rank must call it; PYCNN_DIST_TIMEOUT sets the time"
                    )
                )

        return wait

    # ---- Failure

    def note_failure(self, text: str) -> str:
        """Remember that nothing can be done together any more, and tell the others; returns the text."""
        if self.failure is None:
            self.failure = text
            self._tell({"failed": True, "leaves": False, "text": text})
        return text

    def _tell(self, notice: dict[str, Any]) -> None:
        data = json.dumps(notice).encode()
        with contextlib.suppress(self._mpi.Exception):
            for peer in self._peers:
                self._told.append((data, self._notices.Isend([data, self._mpi.BYTE], peer, _NOTICE)))

    def _read_notices(self, what: str, ranks: set[int], before: float) -> None:
        """Look for what other ranks said; raise where that ends what this one does.

        Args:
            what: What the ranks do.
            ranks: Those that are waited for.
            before: When the last look for their messages had not begun yet.
        """
        for peer, notice in self._new_notices():
            if notice["failed"]:
                text = f"rank {self.rank} of {self.size}: {what}: rank {peer} failed: {notice['text']}"
                self.failure = self.failure or text
                self._tell({"failed": True, "leaves": False, "text": text})
                raise TrainingError(text)
        if ended := sorted(rank for rank in ranks if before - self._gone.get(rank, before) > _LAST_MESSAGES_SECONDS):
            raise TrainingError(
                self.note_failure(
                    f"rank {self.rank} of {self.size}: {what}: {shown_ranks(ended)} ended without it\n"
                    "  hint: every rank must call it"
                )
            )

    def _new_notices(self) -> Iterator[tuple[int, dict[str, Any]]]:
        status = self._mpi.Status()
        while (message := self._notices.Improbe(self._mpi.ANY_SOURCE, _NOTICE, status)) is not None:
            received = bytearray(status.Get_count(self._mpi.BYTE))
            message.Recv([received, self._mpi.BYTE])
            peer, notice = status.Get_source(), json.loads(received)
            self._gone.setdefault(peer, time.monotonic())
            if notice["leaves"]:
                self._silent.add(peer)
            yield peer, notice

    @contextlib.contextmanager
    def guard(self, who: str) -> Iterator[None]:
        """Tell the other ranks what is raised within, so that they do not wait; but not what all raise alike.

        Where all ranks raise one error at one place, it has the attribute ``on_all_ranks``.
        """
        try:
            yield
        except BaseException as error:
            if self.failure is None and not getattr(error, "on_all_ranks", False):
                self.note_failure(f"{who}: {type(error).__name__}: {error}")
            raise

    def _note_exception(self, kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        self._hook(kind, error, traceback)
        if self.failure is None and not getattr(error, "on_all_ranks", False):
            self.note_failure(f"{kind.__name__}: {error}")

    def _leave(self) -> None:
        """At the end of the process: with the others, or, when something failed, without them."""
        if self._mpi.Is_finalized():
            return
        if self.failure is None:
            self._tell({"failed": False, "leaves": True, "text": ""})
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self._tell({"failed": True, "leaves": True, "text": self.failure})
        # Whoever is waiting for this one can say so before all are ended.
        started = time.monotonic()
        while staying := set(self._peers) - self._silent:
            heard = not staying.isdisjoint(self._gone)
            if time.monotonic() - started > (_FAREWELL_SECONDS if heard else _UNHEARD_SECONDS):
                break
            time.sleep(_NOTICE_SECONDS)
            for _ in self._new_notices():
                pass  # only who leaves
        self._world.Abort(1)
