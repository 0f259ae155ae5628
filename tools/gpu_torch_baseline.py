"""PyTorch's steps at their very best, ``torch.compile(mode="max-autotune")``: minutes a net, so run once a GPU.

    python tools/gpu_torch_baseline.py OUTPUT.json [NET ...]

The nets, batches and the way of timing are those of gpu_times.py in bfloat16, training and inference, beside whose
numbers of the same GPU these belong: as OUTPUT_DIR/torch.json gpu_report.py joins them. pycnn makes the nets, so it is
installed, or built by ``tools/gpu_check.sh OUTPUT_DIR build``. Results are written after each net; a row that failed
does not end the others, and what the file has of the same GPU and PyTorch is not measured again. 1: a row failed.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from gpu_times import ROWS, Row, Torch, Workload, free_torch, times_in_turns


def measure(row: Row) -> dict[str, Any]:
    """Images a second of PyTorch's compiled steps."""
    begin = time.perf_counter()
    steps = Torch(Workload(row)).compiled(mode="max-autotune")
    compile_s = time.perf_counter() - begin
    return {"images_per_s": row.batch / times_in_turns({"torch": steps})["torch"], "compile_s": compile_s}


def kept(output: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier run on the same machine that did not fail."""
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
        if any(found[key] != value for key, value in machine.items()):
            return []
        return [row for row in found["rows"] if "images_per_s" in row]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def baseline(rows: list[Row], output: Path, machine: dict[str, Any]) -> int:
    """Measure what the file does not have yet; how many rows failed."""
    result = {**machine, "rows": kept(output, machine)}
    known = {(row["kind"], row["net"], row["batch"], row["dtype"]) for row in result["rows"]}
    failed = 0
    for row in rows:
        if (row.kind, row.net, row.batch, row.dtype) in known:
            print(f"{row}: kept", flush=True)
            continue
        try:
            found = measure(row)
            print(f"{row}: {found['images_per_s']:.0f} images/s, {found['compile_s']:.0f} s to compile", flush=True)
        except Exception as error:
            failed += 1
            found = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
            print(f"{row}: {found['error']}", flush=True)
        result["rows"].append({**vars(row), **found})
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        gc.collect()
        free_torch()
    return failed


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    rows = [row for row in ROWS if row.dtype == "bfloat16"]
    output, wanted = Path(sys.argv[1]), sys.argv[2:]
    if unknown := set(wanted) - {row.net for row in rows}:
        print(f"{', '.join(sorted(unknown))}: expected some of {', '.join(dict.fromkeys(row.net for row in rows))}")
        return 2
    try:
        import torch
    except ImportError as error:
        print(f"no PyTorch: {error}")
        return 77
    if not torch.cuda.is_available():
        print("no GPU")
        return 77
    machine = {
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_cudnn": torch.backends.cudnn.version(),
        "gpu": torch.cuda.get_device_name(),
    }
    failed = baseline([row for row in rows if not wanted or row.net in wanted], output, machine)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
