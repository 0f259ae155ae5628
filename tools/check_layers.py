"""Fail when a room of csrc/ includes a header of a room it may not know (tools/layers.toml)."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "csrc"
RULES: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("layers.toml").read_text(encoding="utf-8"))


def room(path: str) -> str:
    """Return the innermost room that holds a path relative to csrc/."""
    return max((r for r in RULES if path.startswith(r + "/")), key=len, default="?")


def violations() -> list[str]:
    """List every include that goes up."""
    bad = []
    for file in sorted(p for p in SOURCE.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}):
        here = room(file.relative_to(SOURCE).as_posix())
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r'\s*#include "(.+)"', line)
            if match is None:
                continue
            there = "include" if match[1].startswith("pycnn/") else room(match[1])
            if there not in (here, *RULES.get(here, [])):
                bad.append(f"{file.relative_to(SOURCE.parent)}:{number}: {here} may not include {match[1]} ({there})")
    return bad


if __name__ == "__main__":
    found = violations()
    print("\n".join(found) or "layers: ok")
    sys.exit(bool(found))
