"""Interleaved timing of many candidates, of which hopeless settings may leave early."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.timing import Timing, summarise


@dataclass
class Lane:
    """Samples of a candidate.

    Attributes:
        peer: Settings of one peer are rivals of one another.
        call: What is timed.
        samples: Seconds of a call, one for each turn.
        repeats: Calls in a turn.
        left: It was slower than its peer's best setting, and left after some rounds.
        error: What a call raised; it takes part no more.
    """

    peer: str
    call: Callable[[], Any]
    samples: list[float] = field(default_factory=list)
    repeats: int = 1
    left: bool = False
    error: BaseException | None = None

    @property
    def timing(self) -> Timing:
        """Median, minimum, percentiles."""
        return summarise(self.samples)


def race(
    lanes: Mapping[str, Lane],
    *,
    rounds: int,
    seconds: float,
    pause: float = 0.05,
    trial: int = 2,
    slack: float = 1.3,
    hopeless: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Time candidates in turn; every second round goes backwards.

    Args:
        lanes: Candidates by name; samples and errors are added to them.
        rounds: Turns of each.
        seconds: A turn repeats its call to last about as long.
        pause: Seconds of rest in front of a turn, in which the waiting threads of the one before stop spinning.
        trial: After so many rounds a setting leaves that needs more than `slack` times the time of its peer's best.
        slack: See `trial`.
        hopeless: As `slack`, after the warm-up, of which the shortest call is the only sample then.
        clock: Seconds.
        sleep: Rests.
    """

    def turn(lane: Lane, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            lane.call()
        return (clock() - begin) / repeats

    def guarded(lane: Lane, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            lane.error = error

    def warm_up(lane: Lane) -> None:
        lane.call()
        end = clock() + 0.02
        lane.samples = [turn(lane, 1)]
        while clock() < end and len(lane.samples) < 20:
            lane.samples.append(turn(lane, 1))
        lane.samples = [min(lane.samples)]
        lane.repeats = max(1, int(seconds / max(lane.samples[0], 1e-7)))

    def sample(lane: Lane) -> None:
        sleep(pause)
        if lane.repeats > 1:
            lane.call()
        lane.samples.append(turn(lane, lane.repeats))

    for lane in lanes.values():
        guarded(lane, lambda lane=lane: warm_up(lane))  # type: ignore[misc]
    _let_leave(lanes, hopeless)
    for lane in lanes.values():
        if not lane.left:
            lane.samples.clear()
    for index in range(rounds):
        order = list(lanes.values())
        for lane in order[:: -1 if index % 2 else 1]:
            if lane.error is None and not lane.left:
                guarded(lane, lambda lane=lane: sample(lane))  # type: ignore[misc]
        if index + 1 == trial:
            _let_leave(lanes, slack)


def _let_leave(lanes: Mapping[str, Lane], slack: float) -> None:
    """By the shortest call of each, which a disturbance cannot lengthen as it can a median of two."""
    best: dict[str, float] = {}
    for lane in lanes.values():
        if lane.error is None and not lane.left:
            best[lane.peer] = min(best.get(lane.peer, float("inf")), min(lane.samples))
    for lane in lanes.values():
        if lane.error is None and not lane.left and min(lane.samples) > slack * best[lane.peer]:
            lane.left = True


class Neighbours:
    """How many processors others kept busy since it was made: that is noise, and we say so."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        except OSError:
            return None
        ticks = [int(value) for value in fields]
        # user, nice, system, irq, softirq, steal
        busy = sum(ticks[i] for i in (0, 1, 2, 5, 6, 7) if i < len(ticks)) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()

    def processors(self) -> float | None:
        """Average number of processors that were busy with something else; None where it cannot be told."""
        now = self._now()
        if now is None or self._begin is None:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._begin, strict=True))
        return max(0.0, round((busy - own) / max(wall, 1e-9), 2))
