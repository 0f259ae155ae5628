"""What a GPU can do at most, measured with PyTorch: bytes a second copied and bfloat16 multiply-adds a second.

python tools/gpu_ceilings.py OUTPUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    try:
        import torch
    except ImportError:
        print("no PyTorch: the ceilings are not measured")
        return 77
    if not torch.cuda.is_available():
        print("no GPU that PyTorch can use")
        return 77

    def best_seconds(work, repeats: int = 20) -> float:
        times = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return min(times)

    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() / best_seconds(lambda: target.copy_(source))
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    product = torch.empty_like(a)
    matrix = 2 * 8192**3 / best_seconds(lambda: torch.matmul(a, a, out=product))
    result = {"device": torch.cuda.get_device_name(), "copy_bytes_per_second": copy, "bfloat16_flops": matrix}
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['device']}: copy {copy / 1e12:.2f} TB/s, bfloat16 products {matrix / 1e12:.0f} TFLOP/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
