"""Compare the committed stub of the core with what the compiled module says; --write renews it."""

from __future__ import annotations

import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "pycnn" / "_core.pyi"


def generate() -> str:
    """Return the stub of the installed extension module."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "pycnn._core", "--output-dir", folder],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        return (Path(folder) / "pycnn" / "_core.pyi").read_text(encoding="utf-8")


if __name__ == "__main__":
    text = generate()
    if "--write" in sys.argv:
        STUB.write_text(text, encoding="utf-8")
    old = STUB.read_text(encoding="utf-8") if STUB.exists() else ""
    difference = list(difflib.unified_diff(old.splitlines(), text.splitlines(), "committed", "generated", lineterm=""))
    print("\n".join(difference) or "stubs: ok")
    sys.exit(bool(difference))
