"""The table of whole nets on a GPU: times.json of gpu_times.py, joined with what else was taken of PyTorch.

    python tools/gpu_report.py OUTPUT_DIR

Images of both lie on the GPU; "host-fed" are milliseconds of pycnn's steps with images that come from the host, "by
Trainer" those of steps with all that `fit` does beside, where others are runs of the compiled step and no more.
OUTPUT_DIR may hold compiled.json (gpu_times.py --compiled) and torch.json (gpu_torch_baseline.py), or the variable
PYCNN_TORCH_BASELINE name the latter. The ratio is to the fastest of all; a row without any compiled PyTorch says so,
and so does one in which kernels were taken without timing what else there is, or whose steps could not be recorded.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

Result = dict[str, Any]
COMPILED = ("compiled", "compiled graph", "max-autotune")
HOST, TRAINER = "host-fed", "by Trainer"
OWN = ("pycnn", HOST, TRAINER)
HEADER = f"{'bfloat16':32} {'ms':>8} {'images/s':>9} {'PyTorch':>10} {'ratio':>6}"


def title(result: Result) -> str:
    """Of a row."""
    end = "" if result["dtype"] == "bfloat16" else f" {result['dtype']}"
    return f"{result['kind']} {result['net']} {result['batch']}{end}"


def fastest_peer(result: Result) -> tuple[str, float] | None:
    """Which way of PyTorch is the fastest, and its seconds; None without any."""
    theirs = {key: value for key, value in result.get("seconds", {}).items() if key not in OWN}
    return min(theirs.items(), key=lambda item: item[1]) if theirs else None


def ratio(result: Result) -> float | None:
    """How many times as fast as PyTorch."""
    peer = fastest_peer(result)
    return peer[1] / result["seconds"]["pycnn"] if peer and "pycnn" in result["seconds"] else None


def line(result: Result) -> str:
    """Of the table."""
    if "seconds" not in result:
        return f"{title(result):32} {result.get('error', 'no result')[:88]}"
    batch, own, peer = result["batch"], result["seconds"].get("pycnn"), fastest_peer(result)
    text = f"{title(result):32} " + (f"{1e3 * own:8.3f} {batch / own:9.0f} " if own else f"{'-':>8} {'-':>9} ")
    notes = []
    notes += [f"{key} {1e3 * result['seconds'][key]:.3f} ms" for key in OWN[1:] if own and key in result["seconds"]]
    if result.get("recording", "").startswith("not recorded"):
        notes.append("not recorded")
    if result.get("steps_not_timed"):
        notes.append(f"{result['steps_not_timed']} steps not timed")
    if peer is None:
        notes.insert(0, result.get("no_torch", ""))
        return f"{text} {'-':>9} {'-':>6}  {', '.join(filter(None, notes))}".rstrip()
    found = ratio(result)
    if not any(key in result["seconds"] for key in COMPILED):
        notes.append("no compiled")
    notes.insert(0, peer[0])
    notes.append(result.get("difference", ""))
    return (
        f"{text} {batch / peer[1]:9.0f} {'-' if found is None else f'{found:.2f}':>6}  {', '.join(filter(None, notes))}"
    )


def mean_line(results: list[Result]) -> str:
    """Of all ratios; "" if there are none."""
    ratios = [found for found in map(ratio, results) if found is not None]
    if not ratios:
        return ""
    return f"{f'geometric mean of {len(ratios)}':32} {'':29} {statistics.geometric_mean(ratios):6.2f}"


def read(path: Path) -> Result:
    """Results of a run: `machine` and `rows`; without rows if there is no such file, or a broken one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and isinstance(found.get("rows"), list) else {"rows": []}
    except (OSError, ValueError):
        return {"rows": []}


def joined(folder: Path, baseline: Path) -> tuple[list[Result], list[str]]:
    """Rows with all peers that were measured, and what is to be said beside them."""
    times, compiled, torch = read(folder / "times.json"), read(folder / "compiled.json"), read(baseline)
    remarks = []
    gpu = (times.get("machine") or compiled.get("machine") or {}).get("gpu")
    if torch["rows"] and gpu and torch.get("gpu") != gpu:
        remarks.append(f"{baseline.name} is of another GPU: {torch.get('gpu')}")
        torch = {"rows": []}
    other = (compiled.get("machine") or {}).get("gpu")
    if times["rows"] and compiled["rows"] and gpu and other != gpu:
        remarks.append(f"compiled.json is of another GPU: {other}")
        compiled = {"rows": []}
    rows: dict[str, Result] = {}
    for result in times["rows"] + compiled["rows"]:
        row = rows.setdefault(title(result), result)
        # Its own steps were timed in both; those beside all of PyTorch's count.
        peers = {key: value for key, value in result.get("seconds", {}).items() if key in COMPILED}
        if not peers or row is result:
            continue
        if "seconds" in row:
            row["seconds"] |= peers
        else:
            rows[title(result)] = result
    for result in torch["rows"]:
        row = rows.get(title(result), {})
        if "images_per_s" in result and "seconds" in row:
            row["seconds"]["max-autotune"] = result["batch"] / result["images_per_s"]
    return list(rows.values()), remarks


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    folder = Path(sys.argv[1])
    rows, remarks = joined(folder, Path(os.environ.get("PYCNN_TORCH_BASELINE") or folder / "torch.json"))
    if not rows:
        return 77
    print("\n".join(filter(None, [*remarks, HEADER, *map(line, rows), mean_line(rows)])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
