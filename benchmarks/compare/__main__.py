"""Entry of `python -m benchmarks.compare`."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent


def _prefer_installed_package() -> None:
    """Leave the sources beside this folder out of the path where they are not built: an installed pycnn is meant."""
    if not any((_ROOT / "pycnn").glob("_core.*.so")):
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]


if __name__ == "__main__":
    _prefer_installed_package()
    from benchmarks.compare.run import main

    sys.exit(main())
