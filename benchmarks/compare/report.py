"""Results as tables and as JSON: ratios are the best peer's median time divided by ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.compare.peer import Absent
from benchmarks.compare.workload import NETS, Case
from benchmarks.timing import Timing

OURS = "pycnn"


@dataclass(frozen=True)
class Row:
    """A candidate that was timed.

    Attributes:
        peer: Library.
        setting: Of the library.
        timing: Seconds of a call.
        rounds: Turns it had.
        left: Left the race early, behind another setting of its peer.
    """

    peer: str
    setting: str
    timing: Timing
    rounds: int
    left: bool


@dataclass(frozen=True)
class CaseResult:
    """All about a case.

    Attributes:
        case: What was computed.
        rows: Who was timed.
        absent: Who was not, and why.
        neighbours: Processors that others kept busy meanwhile.
    """

    case: Case
    rows: list[Row]
    absent: list[Absent] = field(default_factory=list)
    neighbours: float | None = None

    def best(self, peer: str) -> Row | None:
        """A peer's fastest setting, by whatever rounds it had: what disturbs the later ones is no gain for us."""
        rows = [row for row in self.rows if row.peer == peer]
        return min(rows, key=lambda row: row.timing.median, default=None)

    @property
    def best_peer(self) -> Row | None:
        """The fastest of the others."""
        rows = [row for row in self.rows if row.peer != OURS]
        return min(rows, key=lambda row: row.timing.median, default=None)

    @property
    def ratio(self) -> float | None:
        """Time of the best peer divided by ours; None where one of them is missing."""
        ours, theirs = self.best(OURS), self.best_peer
        return theirs.timing.median / ours.timing.median if ours and theirs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain Python objects."""
        theirs = self.best_peer
        return {
            **asdict(self.case),
            "ratio": self.ratio,
            "best_peer": theirs and {"peer": theirs.peer, "setting": theirs.setting},
            "rows": [asdict(row) for row in self.rows],
            "absent": [asdict(item) for item in self.absent],
            "busy_processors_of_others": self.neighbours,
        }


def geometric_mean(values: Sequence[float]) -> float | None:
    """The n-th root of the product; None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


@dataclass(frozen=True)
class Aim:
    """What is wanted of a table: a ratio for each net, some nets' own, and the geometric mean."""

    each: float
    mean: float
    nets: dict[str, float] = field(default_factory=dict)


# By mode, type, and whether the batch is one image (else the batch of NETS).
AIMS = {
    ("infer", "float32", False): Aim(1.05, 1.35, {"vgg16": 1.9, "resnet18": 1.4}),
    ("infer", "float32", True): Aim(1.0, 1.2),
    ("infer", "bfloat16", False): Aim(1.0, 1.15),
    ("train", "float32", False): Aim(1.5, 1.9),
    ("train", "bfloat16", False): Aim(2.0, 2.8),
}


def _aim(case: Case) -> Aim | None:
    plan = NETS.get(case.net)
    if plan is None or case.batch not in (1, plan.batch):
        return None
    return AIMS.get((case.mode, case.dtype, case.batch == 1))


def tables(results: Sequence[CaseResult], peers: Sequence[str]) -> str:
    """One table a mode and type, then who was absent."""
    groups: dict[tuple[str, str], list[CaseResult]] = {}
    for result in results:
        groups.setdefault((result.case.mode, result.case.dtype), []).append(result)
    parts = [_table(mode, dtype, group, peers) for (mode, dtype), group in groups.items()]
    return "\n\n".join([*parts, *_absences(results)])


def _table(mode: str, dtype: str, group: Sequence[CaseResult], peers: Sequence[str]) -> str:
    others = [peer for peer in peers if peer != OURS]
    head = [
        "net",
        "batch",
        "pycnn ms",
        "p10 to p90",
        "images/s",
        *(f"{p} ms" for p in others),
        "best peer",
        "ratio",
        "aim",
    ]
    lines = [f"{dtype} {'inference' if mode == 'infer' else 'training step'}, {group[0].case.threads} threads", ""]
    lines += [_line(head), _line(["---"] * len(head))]
    for result in group:
        ours, theirs = result.best(OURS), result.best_peer
        aim = _aim(result.case)
        lines.append(
            _line(
                [
                    result.case.net,
                    str(result.case.batch),
                    *_own_cells(result.case, ours),
                    *(_milliseconds(row) for row in map(result.best, others)),
                    "-" if theirs is None else f"{theirs.peer}" + (f" ({theirs.setting})" if theirs.setting else ""),
                    _two(result.ratio),
                    "-" if aim is None else f"{aim.nets.get(result.case.net, aim.each):g}",
                ]
            )
        )
    ratios = [result.ratio for result in group if result.ratio is not None]
    aims = {_aim(result.case).mean if _aim(result.case) else None for result in group}  # type: ignore[union-attr]
    mean_aim = next(iter(aims)) if len(aims) == 1 else None
    lines.append(
        _line(
            [
                "geometric mean",
                *[""] * (len(head) - 3),
                _two(geometric_mean(ratios)),
                f"{mean_aim:g}" if mean_aim else "-",
            ]
        )
    )
    return "\n".join(lines)


def _own_cells(case: Case, row: Row | None) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    timing = row.timing
    return [
        _milliseconds(row),
        f"{1e3 * timing.p10:.4g} to {1e3 * timing.p90:.4g}",
        f"{case.batch / timing.median:,.4g}",
    ]


def _milliseconds(row: Row | None) -> str:
    return "-" if row is None else f"{1e3 * row.timing.median:.4g}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _absences(results: Sequence[CaseResult]) -> list[str]:
    where: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        for item in result.absent:
            where.setdefault((item.peer, item.setting, item.reason), []).append(str(result.case))
    if not where:
        return []
    lines = ["Absent:", ""]
    for (peer, setting, reason), cases in where.items():
        title = f"{peer}, {setting}" if setting else peer
        lines.append(f"- {title} ({'; '.join(cases) if len(cases) < 4 else f'{len(cases)} cases'}): {reason}")
    return ["\n".join(lines)]
