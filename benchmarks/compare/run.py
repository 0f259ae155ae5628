"""The command: builds each case, checks that all agree, lets them race, and reports.

python -m benchmarks.compare --nets all --modes infer,train --dtypes float32,bfloat16 [--batch 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pycnn as pc
from benchmarks.compare import memory, peer_mnn, peer_onnxruntime, peer_openvino, peer_pycnn
from benchmarks.compare.agreement import disagreement
from benchmarks.compare.peer import Absent, Candidate, Peer, Result, Setting, reason_of
from benchmarks.compare.peer_torch import Torch
from benchmarks.compare.race import Lane, Neighbours, race
from benchmarks.compare.report import CaseResult, Row, geometric_mean, tables
from benchmarks.compare.workload import NETS, Case, Workload
from benchmarks.timing import environment, save

PEERS: dict[str, Peer | ModuleType] = {
    entry.name: entry
    for entry in (
        peer_pycnn,
        Torch(compiled=False),
        Torch(compiled=True),
        peer_onnxruntime,
        peer_openvino,
        peer_mnn,
    )
}
MODES, DTYPES = ("infer", "train"), ("float32", "bfloat16")
_BUSY = 0.2


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nets, modes, dtypes and peers come out as lists."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="pycnn beside PyTorch, ONNX Runtime, OpenVINO and MNN: same nets, weights and inputs, in one run.",
    )

    def names(known: Sequence[str], everything: Sequence[str] | None = None) -> Any:
        def convert(text: str) -> list[str]:
            chosen = list(everything or known) if text == "all" else [part for part in text.split(",") if part]
            unknown = [part for part in chosen if part not in known]
            if unknown or not chosen:
                raise argparse.ArgumentTypeError(
                    f"{', '.join(unknown) or 'nothing'}: expected some of {', '.join(known)}"
                )
            return list(dict.fromkeys(chosen))

        return convert

    def positive(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
        return int(text)

    parser.add_argument(
        "--nets",
        type=names(pc.models.list(), list(NETS)),
        default="all",
        help="names in pycnn.models; all: those of the table",
    )
    parser.add_argument("--modes", type=names(MODES), default="all", help="infer,train")
    parser.add_argument("--dtypes", type=names(DTYPES), default="float32", help="float32,bfloat16")
    parser.add_argument("--peers", type=names(list(PEERS)), default="all", help=",".join(PEERS))
    parser.add_argument("--batch", type=positive, help="instead of each net's own")
    parser.add_argument("--threads", type=positive, help="of everybody; default: those of pycnn")
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each candidate")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn (one call where that is longer)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", action="store_true", help="peak memory of a training step instead of times")
    parser.add_argument("--json", metavar="FILE", help="write all results there, anew after each net")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_case(
    case: Case, peers: Sequence[str], *, rounds: int, seconds: float, registry: Any = None, race: Any = race
) -> CaseResult:
    """Start everybody, check, time.

    Args:
        case: What to compute.
        peers: Names in the registry.
        rounds: Turns of each candidate.
        seconds: Length of a turn.
        registry: Peers by name; PEERS by default.
        race: Fills the samples of the lanes.
    """
    registry = PEERS if registry is None else registry
    absent: list[Absent] = []
    started: dict[str, tuple[Setting, Candidate]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(case, Path(folder))
        checked = work.without_dropout() if case.mode == "train" and work.has_dropout else work
        try:
            expected = _reference(checked, "float32")
            rounded = case.mode == "train" and case.dtype != "float32"
            yardstick = _reference(checked, case.dtype) if rounded else None
        except ImportError as error:
            raise SystemExit(f"the nets of the peers are made with PyTorch: {reason_of(error)}") from None
        absent += [Absent(name, "", "not asked for") for name in registry if name not in peers]
        for name in peers:
            try:
                settings = registry[name].settings(case.mode, case.dtype, case.batch, case.threads)
            except Exception as error:
                absent.append(Absent(name, "", reason_of(error)))
                continue
            for setting in settings:
                _progress(f"  {setting.title}")
                try:
                    candidate = setting.start(checked)
                    wrong = disagreement(candidate.check(), expected, case.dtype, yardstick)
                    if not wrong and checked is not work:
                        del candidate
                        candidate = setting.start(work)
                except Exception as error:
                    absent.append(Absent(setting.peer, setting.name, reason_of(error)))
                    continue
                if wrong:
                    absent.append(Absent(setting.peer, setting.name, f"disagrees, not timed: {wrong}", disagrees=True))
                else:
                    started[setting.title] = setting, candidate
        lanes = {title: Lane(setting.peer, candidate.call) for title, (setting, candidate) in started.items()}
        neighbours = Neighbours()
        race(lanes, rounds=rounds, seconds=seconds)
        busy = neighbours.processors()
    rows = []
    for title, lane in lanes.items():
        setting = started[title][0]
        if lane.error is not None:
            absent.append(Absent(setting.peer, setting.name, reason_of(lane.error)))
        elif lane.samples:
            rows.append(Row(setting.peer, setting.name, lane.timing, len(lane.samples), lane.left))
    return CaseResult(case, rows, absent, busy)


def _reference(work: Workload, dtype: str) -> Result:
    """PyTorch, eager and contiguous."""
    candidate = Torch(compiled=False).settings(work.case.mode, dtype, work.case.batch, work.case.threads)[-1]
    return candidate.start(work).check()


def _free() -> None:
    """Give a net's memory back before the next one is built."""
    if "torch" in sys.modules:
        import torch

        torch._dynamo.reset()
    gc.collect()


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Run all cases; the file is written anew after each."""
    facts = environment(*dict.fromkeys(p for name in args.peers for p in PEERS[name].packages))
    threads = args.threads or facts["threads"]
    if facts["load_average"] > 0.3:
        _progress(f"warning: the load average is {facts['load_average']}; the machine is not quiet")
    results: list[CaseResult] = []
    for case in _cases(args, args.modes, threads):
        _progress(str(case))
        result = run_case(case, args.peers, rounds=args.rounds, seconds=args.seconds)
        _free()
        results.append(result)
        _tell(result)
        save("compare", document(facts, args, results), args.json)
    print(tables(results, args.peers))
    return int(any(item.disagrees for result in results for item in result.absent))


def _cases(args: argparse.Namespace, modes: Sequence[str], threads: int) -> Iterator[Case]:
    for mode, dtype, net in product(modes, args.dtypes, args.nets):
        batch = args.batch or (NETS[net].batch if net in NETS else 16)
        yield Case(net, batch, mode, dtype, threads, args.seed)


def _training_settings(peer: str, case: Case) -> list[Setting]:
    return PEERS[peer].settings("train", case.dtype, case.batch, case.threads)


def run_memory(args: argparse.Namespace) -> int:
    """Measure the memory of a training step of each net."""
    facts = environment("torch")
    results: list[memory.CasePeaks] = []
    for case in _cases(args, ["train"], args.threads or facts["threads"]):
        _progress(f"{case}: memory")
        peaks = []
        for peer in ("pycnn", "torch-eager"):
            try:
                settings = _training_settings(peer, case)
            except ImportError as error:
                peaks.append(memory.Peak(peer, "", None, reason=reason_of(error)))
                continue
            peaks += [memory.measure(case, setting) for setting in settings]
        results.append(memory.CasePeaks(case, peaks))
        cases = [result.to_dict() for result in results]
        save("compare_memory", {"environment": facts, "steps": memory.STEPS, "cases": cases}, args.json)
    print(memory.table(results))
    return 0


def document(facts: dict[str, Any], args: argparse.Namespace, results: Sequence[CaseResult]) -> dict[str, Any]:
    """What goes into the file."""
    means: dict[str, float | None] = {}
    for mode in args.modes:
        for dtype in args.dtypes:
            ratios = [r.ratio for r in results if (r.case.mode, r.case.dtype) == (mode, dtype) and r.ratio is not None]
            means[f"{mode} {dtype}"] = geometric_mean(ratios)
    return {
        "environment": {**facts, "processors": os.cpu_count()},
        "rounds": args.rounds,
        "seconds": args.seconds,
        "geometric_means": means,
        "cases": [result.to_dict() for result in results],
    }


def _tell(result: CaseResult) -> None:
    theirs = result.best_peer
    ratio = "no ratio" if result.ratio is None or theirs is None else f"{result.ratio:.2f} (best: {theirs.peer})"
    _progress(f"  {ratio}")
    for item in result.absent:
        _progress(f"  absent: {item.peer}{', ' if item.setting else ''}{item.setting}: {item.reason}")
    if result.neighbours is not None and result.neighbours > _BUSY:
        _progress(f"  warning: others kept {result.neighbours:.1f} processors busy while this was timed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = parse(arguments)
    if args.memory_of:
        memory.answer(args.memory_of, _training_settings)
        return 0
    return run_memory(args) if args.memory else run(args)
