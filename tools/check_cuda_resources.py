"""Fail when a kernel of the CUDA module keeps much of what a thread knows in memory instead of registers.

Tables of tensors are parameters of a launch, and kernels look into them by numbers that are known at run time
alone. Where the compiler copies such a table for each thread, or a kernel runs out of registers, nothing but its
speed shows it. Usage: check_cuda_resources.py MODULE [CUOBJDUMP]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

# Registers that did not fit take 80 bytes of the worst kernel; a copied table would take up to 4096.
MOST_BYTES = 128


def kernels(listing: str) -> list[tuple[str, int]]:
    """Return each kernel of a `cuobjdump --dump-resource-usage` and its bytes of memory for each thread."""
    found = re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+) .*?LOCAL:(\d+)", listing)
    return [(name, int(stack) + int(local)) for name, stack, local in found]


def check(module: Path, tool: str) -> list[str]:
    """Return what is wrong with the module's kernels."""
    listing = subprocess.run([tool, "--dump-resource-usage", str(module)], capture_output=True, text=True)
    if listing.returncode:
        return [f"{module}: {tool} ended with {listing.returncode}: {listing.stderr.strip()}"]
    found = kernels(listing.stdout)
    if not found:
        return [f"{module}: no kernels in it"]
    bad = [f"{name}: {size} bytes for each thread, more than {MOST_BYTES}" for name, size in found if size > MOST_BYTES]
    if not bad:
        print(f"cuda resources: ok ({len(found)} kernels, at most {max(size for _, size in found)} bytes for a thread)")
    return bad


if __name__ == "__main__":
    program = next(filter(None, map(shutil.which, [*sys.argv[2:], "cuobjdump", "/usr/local/cuda/bin/cuobjdump"])), None)
    if program is None:
        print("no cuobjdump: what kernels need was not looked at")
        sys.exit()
    wrong = check(Path(sys.argv[1]), program)
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
