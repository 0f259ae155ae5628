"""Which GPU there is and what programs find beside it, for the results of tools/gpu_check.sh.

    python tools/gpu_machine.py [OUTPUT.json]    # 77: there is no GPU

nvidia-smi is asked first, and where it is missing (as in some sandboxes) the driver itself.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

QUERY = {
    "gpu": "name",
    "memory": "memory.total",
    "driver": "driver_version",
    "sm_clock": "clocks.max.sm",
    "power_limit": "power.limit",
}
PACKAGES = ("torch", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-nvrtc", "triton")


def told_by_tool() -> dict[str, str]:
    """What nvidia-smi says of the first GPU; empty if there is none or no such tool."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY.values())}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in found.stdout.partition("\n")[0].split(",")]
    if found.returncode != 0 or len(values) != len(QUERY):
        return {}
    return dict(zip(QUERY, values, strict=True))


def told_by_driver(library: str = "libcuda.so.1") -> dict[str, str]:
    """What the driver's library says of the first GPU, and of which CUDA it is; empty if there is none."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return {}
    count, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    try:
        if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
            return {}
        device = ctypes.c_int()
        if cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, len(name), device):
            return {}
        cuda.cuDriverGetVersion(ctypes.byref(version))
    except AttributeError:
        return {}
    driver_cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return {"gpu": name.value.decode(errors="replace"), "driver_cuda": driver_cuda}


def machine(*, with_torch: bool = False) -> dict[str, Any]:
    """All of it, what PyTorch itself says only if wanted (to import it takes seconds); without "gpu" there is none."""
    # The driver is asked in a process of its own: this one may be about to choose among GPUs.
    command = [sys.executable, str(Path(__file__).resolve()), "--driver"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(asked.stdout) if asked.returncode == 0 else {}
    found |= told_by_tool()
    found["python"] = platform.python_version()
    found["packages"] = {}
    for package in PACKAGES:
        try:
            found["packages"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for variable in ("PYCNN_CUDNN", "PYCNN_CUBLASLT", "PYCNN_NVRTC"):
        if variable in os.environ:
            found[variable] = os.environ[variable]
    if not with_torch:
        return found
    try:
        import torch
    except (ImportError, OSError):
        return found
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return found | {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "torch_cudnn": cudnn}


def main() -> int:
    if sys.argv[1:] == ["--driver"]:
        print(json.dumps(told_by_driver()))
        return 0
    found = machine()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(*(f"{name} {version}" for name, version in found["packages"].items()), sep=", ")
    if "gpu" not in found:
        print("no GPU")
        return 77
    print(", ".join(found[key] for key in (*QUERY, "driver_cuda") if key in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
