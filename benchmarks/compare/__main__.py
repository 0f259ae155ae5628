"""Entry of `python -m benchmarks.compare`."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent


def _find_packages() -> None:
    """Take `benchmarks` from here, and pycnn as installed unless the sources beside `benchmarks` are built."""
    path = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]
    sys.path[:] = [str(_ROOT), *path]
    import benchmarks  # noqa: F401

    if not any((_ROOT / "pycnn").glob("_core.*.so")):
        sys.path[:] = path


if __name__ == "__main__":
    _find_packages()
    from benchmarks.compare.run import main

    sys.exit(main())
