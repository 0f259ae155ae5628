"""PyTorch's training steps at its very best, ``torch.compile(mode="max-autotune")``: minutes a net, so run once a GPU.

    python tools/gpu_torch_baseline.py OUTPUT.json [NET ...]

The nets, batches and the way of timing are those of gpu_times.py, beside whose numbers of the same GPU these belong.
bfloat16 by autocast, channels last, static input on the GPU, fused SGD. Results are written after each net.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from gpu_times import NETS, ROUNDS, seconds


def compiled_step(name: str, size: int, batch: int) -> Any:
    import torch
    import torchvision

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 0  # all algorithms
    torch.backends.cuda.matmul.allow_tf32 = True
    net = getattr(torchvision.models, name)().cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    x = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), device="cuda")

    def loss_of(images: Any, labels: Any) -> Any:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return torch.nn.functional.cross_entropy(net(images), labels)

    compiled = torch.compile(loss_of, mode="max-autotune")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compiled(x, y).backward()
        optimizer.step()
        torch.cuda.synchronize()

    return step


def measure(name: str, size: int, batch: int) -> dict[str, Any]:
    begin = time.perf_counter()
    step = compiled_step(name, size, batch)
    for _ in range(10):
        step()
    compile_s = time.perf_counter() - begin
    rate = batch / statistics.median(seconds(step) for _ in range(ROUNDS))
    return {"net": name, "batch": batch, "images_per_s": rate, "compile_s": compile_s}


def main() -> int:
    try:
        import torch
        import torchvision  # noqa: F401
    except ImportError as error:
        print(f"no PyTorch: {error}")
        return 77
    if not torch.cuda.is_available():
        print("no GPU")
        return 77
    output, wanted = Path(sys.argv[1]), sys.argv[2:]
    result: dict[str, Any] = {"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "nets": []}
    for name, size, batch in NETS:
        if wanted and name not in wanted:
            continue
        row = measure(name, size, batch)
        result["nets"].append(row)
        print(
            f"{name} batch {batch}: {row['images_per_s']:.0f} images/s, {row['compile_s']:.0f} s to compile", flush=True
        )
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
