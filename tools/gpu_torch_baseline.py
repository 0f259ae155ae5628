"""PyTorch's training steps at its very best, ``torch.compile(mode="max-autotune")``: minutes a net, so run once a GPU.

    python tools/gpu_torch_baseline.py OUTPUT.json [NET ...]

The nets, batches and the way of timing are those of gpu_times.py, beside whose numbers of the same GPU these belong.
Results are written after each net.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from gpu_times import ROWS, Row, Torch, Workload, free_torch, times_in_turns


def measure(row: Row) -> dict[str, Any]:
    """Images a second of PyTorch's compiled steps."""
    begin = time.perf_counter()
    steps = Torch(Workload(row)).compiled(mode="max-autotune")
    compile_s = time.perf_counter() - begin
    rate = row.batch / times_in_turns({"torch": steps})["torch"]
    return {"net": row.net, "batch": row.batch, "images_per_s": rate, "compile_s": compile_s}


def main() -> int:
    try:
        import torch
    except ImportError as error:
        print(f"no PyTorch: {error}")
        return 77
    if not torch.cuda.is_available():
        print("no GPU")
        return 77
    rows = [row for row in ROWS if row.kind == "train" and row.dtype == "bfloat16"]
    output, wanted = Path(sys.argv[1]), sys.argv[2:]
    if unknown := set(wanted) - {row.net for row in rows}:
        print(f"{', '.join(sorted(unknown))}: expected some of {', '.join(row.net for row in rows)}")
        return 2
    result: dict[str, Any] = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "nets": []}
    for row in rows:
        if wanted and row.net not in wanted:
            continue
        found = measure(row)
        result["nets"].append(found)
        print(f"{row}: {found['images_per_s']:.0f} images/s, {found['compile_s']:.0f} s to compile", flush=True)
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        free_torch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
