"""Time a net, whole and layer by layer, and hold it against what this machine can do at most.

The machine's peaks (multiply-adds in registers, reading and copying in each cache and in memory) are measured once and
kept in the user's cache folder. The bound of a step is the time that its operations or its bytes take at these peaks,
whichever is longer; the bound of the net is their sum. With --device cuda the peaks are those of the GPU, measured each
time by products of large matrices and passes through large tensors, and the images of all runs lie on the GPU, of which
each run gathers its own; --images host copies them from the host in every run instead.

A regression, for --compare, is a setting whose median and minimum are both slower than before by more than the noise
of the two measurements, and by more than 3 %; the exit code is then 1.

Examples:
  pycnn bench lenet5 --batch 256 --train --layers
  pycnn bench resnet50 --batch 16 --roofline resnet50.png
  pycnn bench lenet5 --threads 1,2 --json before.json     and later:  --compare before.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pycnn.benchmark import BenchReport, bench, draw_roofline
from pycnn.benchmark._bench import images_from
from pycnn.cli import _nets, _options, _plots
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.config import machine
from pycnn.textfile import write_text

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

_TOLERANCE = 0.03
_NUMERICS = ("dtype", "emulate_bfloat16", "winograd", "tf32")
_SAME = ("net", "options", "shape", "train", "recompute", "images", *_NUMERICS)
# Of files that were written before the field was there.
_FORMERLY = {
    "recompute": "cheap",
    "images": "host",
    "dtype": "float32",
    "emulate_bfloat16": False,
    "winograd": True,
    "tf32": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("net", metavar="NET", help="name of a net, or a model file")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example activation=relu"
    )
    parser.add_argument("--batch", type=_options.count, default=1, metavar="N", help="images per run (default: 1)")
    parser.add_argument("--input-shape", type=_options.image_shape, metavar="H,W,C", help="default: the net's own")
    parser.add_argument("--train", action="store_true", help="time a whole training step instead of inference")
    parser.add_argument("--layers", action="store_true", help="time every step of the program too")
    parser.add_argument(
        "--roofline",
        nargs="?",
        const="",
        metavar="FILE",
        help="draw the steps below the machine's peaks (default: NET-roofline.png, or NET-roofline-2.png and so "
        "on where there is one already; needs matplotlib)",
    )
    peaks = parser.add_mutually_exclusive_group()
    peaks.add_argument("--measure-peaks", action="store_true", help="measure the machine's peaks anew")
    peaks.add_argument("--no-peaks", action="store_true", help="neither measure nor use the machine's peaks")
    _options.add_numerics(parser)
    _options.add_recompute(parser)
    parser.add_argument("--threads", type=_options.thread_list, metavar="N,M", help="one number or several to compare")
    parser.add_argument("--isa", choices=("baseline", "avx2", "avx512"), help="instruction set (default: the best)")
    parser.add_argument(
        "--images",
        choices=("host", "device"),
        help="where each run takes them from: float32 that is copied from the host, or bytes that lie on the GPU "
        "(default on a GPU)",
    )
    parser.add_argument("--rounds", type=_options.count, default=7, metavar="N", help="of about 0.1 s (default: 7)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON to a file, or, without one, to standard output"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier --json FILE of the same net")


def run(args: argparse.Namespace, output: Output) -> int:
    """Time, report, compare."""
    if args.json not in (None, "-"):
        _options.check_output("--json", Path(args.json), example="bench.json")
    if args.roofline is not None and args.no_peaks:
        raise UsageError("--roofline draws the machine's peaks; leave --no-peaks out")
    picture = _picture(args)
    if args.recompute is not None and not args.train:
        raise UsageError("--recompute is for training steps; give --train too")
    options = _nets.parse_options(args.option)
    before = None if args.compare is None else _read(args.compare)
    net = _nets.find(args.net, options)
    if args.input_shape is None and net.input_shape is None:
        raise UsageError(f"{args.net} has no input size of its own; give --input-shape H,W,C")
    numerics, recompute = _options.numerics(args), args.recompute or "cheap"
    if before is not None:
        image = net.input_shape if args.input_shape is None else args.input_shape
        shape = (args.batch, *(image or ()))
        images = images_from(args.images, args.device, shape[1:])
        what = (args.net, options, shape, args.train, recompute, images, *(numerics[key] for key in _NUMERICS))
        _refuse_different(before, what, args)
    report = bench(
        net,
        batch_size=args.batch,
        input_shape=args.input_shape,
        train=args.train,
        layers=args.layers or picture is not None,
        threads=args.threads,
        isa=args.isa,
        device=args.device,
        rounds=args.rounds,
        seed=args.seed,
        **numerics,
        recompute=recompute,
        peaks=None if args.no_peaks else "renew" if args.measure_peaks else "keep",
        images=args.images,
        report=output.progress,
    )
    failure = None
    if picture is not None:
        picture, failure = _plots.attempt(lambda path: draw_roofline(report, path, name=Path(args.net).stem), picture)
    values: dict[str, Any] = {"net": args.net, "options": options, **asdict(report)}
    if args.roofline is not None:
        values["roofline"] = picture
    changes: list[dict[str, Any]] = []
    if before is not None:
        values["compared_with"] = str(args.compare)
        values["changes"] = changes = _changes(before, values, output)
    for text in report.warnings:
        output.warn(text)
    if args.json not in (None, "-"):
        write_text(args.json, json.dumps(output.record(values), indent=2) + "\n")
        output.json = False
    shown = report if args.layers else replace(report, layers=())
    output.result(values, _text(shown, changes) + ("" if picture is None else f"\nroofline: {picture}"))
    if failure is not None:
        raise failure
    regressed = any(change["regression"] for change in changes)
    output.suggest(_next(args, regressed))
    return 1 if regressed else 0


def _picture(args: argparse.Namespace) -> Path | None:
    """Where the roofline goes; refused here rather than after the measurement."""
    if args.roofline is None:
        return None
    path = Path(args.roofline)
    if not args.roofline:
        path = _plots.unused(Path(f"{Path(args.net).stem}{'-train' if args.train else ''}-roofline.png"))
    _plots.check("--roofline", path)
    _options.check_output("--roofline", path, example="net.png")
    return path


def _text(report: BenchReport, changes: list[dict[str, Any]]) -> str:
    lines = [line for line in str(report).splitlines() if not line.startswith("warning: ")]
    for change in changes:
        before, after, noise = (change[key] for key in ("before", "after", "tolerance"))
        verdict = "REGRESSION" if change["regression"] else "faster" if change["improvement"] else "no change"
        lines.append(
            f"threads={change['threads']} {change['isa']}: median {1e3 * before:.3f} -> {1e3 * after:.3f} ms "
            f"({100 * (after / before - 1):+.1f} %, noise {100 * noise:.1f} %): {verdict}"
        )
    return "\n".join(lines)


def _next(args: argparse.Namespace, regressed: bool) -> str:
    if regressed:
        return "the same once more on a quiet machine, and --layers to see which layer is slow"
    if not args.layers and args.roofline is None:
        return f"pycnn bench {args.net} --batch {args.batch}{' --train' if args.train else ''} --layers"
    return "pycnn doctor tells how fast this machine can be"


# ---- Comparing


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("schema") != "pycnn.bench/1":
        raise ValueError(f"'{path}' was not written by pycnn bench --json (schema pycnn.bench/1)")
    if not isinstance(values.get("environment"), dict):
        raise ValueError(f"'{path}' is damaged: environment is {values.get('environment')!r}")
    timings = values.get("timings")
    if not isinstance(timings, list) or not timings:
        raise ValueError(f"'{path}' is damaged: timings is {timings!r}")
    for timing in timings:
        if not _is_timing(timing):
            raise ValueError(f"'{path}' is damaged: one of its timings is {timing!r}")
    return values


def _is_timing(value: Any) -> bool:
    """Whether it has all that is compared."""
    if not isinstance(value, dict) or type(value.get("threads")) is not int or not isinstance(value.get("isa"), str):
        return False
    least = {"median": sys.float_info.min, "minimum": sys.float_info.min, "noise": 0.0}
    return all(type(value.get(key)) in (int, float) and low <= value[key] < math.inf for key, low in least.items())


def _refuse_different(before: dict[str, Any], now: Sequence[Any], args: argparse.Namespace) -> None:
    """Refuse, before anything is timed, a file of something else than `now`, the values of `_SAME`."""
    pairs = [(key, before.get(key, _FORMERLY.get(key)), value) for key, value in zip(_SAME, now, strict=True)]
    different = [f"{key} {old} and {new}" for key, old, new in pairs if _plain(old) != _plain(new)]
    if different:
        raise UsageError(f"--compare: the two measure different things: {'; '.join(different)}")
    if not any(_may_be_repeated(timing, args) for timing in before["timings"]):
        raise _nothing_in_common(before)


def _may_be_repeated(timing: dict[str, Any], args: argparse.Namespace) -> bool:
    """Whether what is asked for may have the setting of an earlier timing."""
    if args.isa not in (None, timing["isa"]):
        return False
    # More threads than there are become fewer.
    usual = machine()["threads"]
    return args.threads is None or any(
        n == timing["threads"] or n > max(usual, timing["threads"]) for n in args.threads
    )


def _nothing_in_common(before: dict[str, Any]) -> UsageError:
    settings = ", ".join(f"{timing['threads']} threads {timing['isa']}" for timing in before["timings"])
    return UsageError(f"--compare: no setting in common; before: {settings}")


def _changes(before: dict[str, Any], after: dict[str, Any], output: Output) -> list[dict[str, Any]]:
    for key in ("cpu", "compiler"):
        if before["environment"].get(key) != after["environment"][key]:
            output.warn(f"--compare: other {key}: {before['environment'].get(key)}, now {after['environment'][key]}")
    known = {(timing["threads"], timing["isa"]): timing for timing in before["timings"]}
    changes = []
    for timing in after["timings"]:
        old = known.get((timing["threads"], timing["isa"]))
        if old is not None:
            changes.append(_change(old, timing))
    if not changes:
        raise _nothing_in_common(before)
    return changes


def _change(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    tolerance = max(_TOLERANCE, old["noise"], new["noise"])
    slower = min(new[key] / old[key] for key in ("median", "minimum")) - 1.0
    faster = min(old[key] / new[key] for key in ("median", "minimum")) - 1.0
    return {
        "threads": new["threads"],
        "isa": new["isa"],
        "before": old["median"],
        "after": new["median"],
        "tolerance": tolerance,
        "regression": slower > tolerance,
        "improvement": faster > tolerance,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
