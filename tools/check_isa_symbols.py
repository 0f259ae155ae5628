"""Fail when an object built for one instruction set defines a symbol outside its own namespace.

Such a symbol (an inline function, a template of the standard library) could be taken by the linker for the whole
program and then run on machines that lack the instructions. Usage: check_isa_symbols.py BUILD_DIR
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def leaks(build: Path) -> tuple[int, list[str]]:
    """Return the number of objects looked at and the leaking symbols."""
    bad, count = [], 0
    for path in sorted(build.rglob("pycnn_cpu_*.dir/**/*.o")):
        folder = next(part for part in reversed(path.parts) if part.endswith(".dir"))
        isa = folder.removesuffix(".dir").removeprefix("pycnn_cpu_")
        count += 1
        listing = subprocess.run(
            ["nm", "-C", "--defined-only", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for line in listing.splitlines():
            match = re.match(r"[0-9a-f]* (\w) (.*)", line)
            if match and match[1] in "TWVuDB" and f"::{isa}::" not in match[2] and "__odr_asan" not in match[2]:
                bad.append(f"{path.name} [{isa}]: {match[2]}")
    return count, bad


if __name__ == "__main__":
    objects, found = leaks(Path(sys.argv[1]))
    if objects == 0:
        found = [f"no objects of pycnn_cpu_* below {sys.argv[1]}"]
    print("\n".join(found) or f"isa symbols: ok ({objects} objects)")
    sys.exit(bool(found))
