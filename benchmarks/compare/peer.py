"""What a peer is: settings to try, each of which starts as a candidate of the race."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks.compare.workload import Workload


class UnavailableError(Exception):
    """A peer or a setting cannot take part; the text says why."""


@dataclass(frozen=True)
class Result:
    """What a candidate computed, for the check.

    Attributes:
        scores: (N, classes) float32; of inference.
        loss: Before the update; of a training step.
        updates: Weight after the step minus weight before, in PyTorch's layout, by name; of a training step.
    """

    scores: np.ndarray | None = None
    loss: float | None = None
    updates: dict[str, np.ndarray] | None = None


@dataclass
class Candidate:
    """A started setting.

    Attributes:
        call: One inference of the batch or one training step: what is timed.
        check: The result of the first call.
        planned: Bytes that a training step needs beside weights and images, by the library's own plan.
    """

    call: Callable[[], Any]
    check: Callable[[], Result]
    planned: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Setting:
    """One way to run a peer.

    Attributes:
        peer: Name of the library's entry.
        name: Of the setting, "" where there is one.
        start: Builds the candidate for a workload; raises whatever the library raises.
    """

    peer: str
    name: str
    start: Callable[[Workload], Candidate]

    @property
    def title(self) -> str:
        """Peer and setting."""
        return f"{self.peer}, {self.name}" if self.name else self.peer


class Peer(Protocol):
    """A library.

    Attributes:
        name: On the command line and in tables.
        packages: Whose versions count.
    """

    name: str
    packages: Sequence[str]

    def settings(self, mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
        """The settings to try; UnavailableError when there can be none."""


@dataclass(frozen=True)
class Absent:
    """What did not take part, and why.

    Attributes:
        peer: Library.
        setting: Of the library; "" for all of them.
        reason: In the library's own words where there are some.
        disagrees: It ran, and computed something else.
    """

    peer: str
    setting: str
    reason: str
    disagrees: bool = False


def reason_of(error: BaseException) -> str:
    """An error as one line without paths of this machine."""
    text = str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"
    return without_paths(" ".join(text.split()))[:400]


def without_paths(text: str) -> str:
    """Absolute paths shortened to their last part."""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\"<>|,;:()]+/)+([^\s/'\"<>|,;:()]*)", r"\1", text)
