"""`python -m pycnn`: what is installed; with --cmake-dir, where CMake finds the C++ package."""

from __future__ import annotations

import sys
from pathlib import Path


def cmake_dir() -> Path:
    """Return the folder of pycnnConfig.cmake inside the installed package.

    Raises:
        FileNotFoundError: The package was installed without its C++ part.
    """
    folder = Path(__file__).resolve().parent / "lib" / "cmake" / "pycnn"
    if not (folder / "pycnnConfig.cmake").is_file():
        raise FileNotFoundError(f"{folder} holds no pycnnConfig.cmake: this install has no C++ part")
    return folder


def main(arguments: list[str]) -> int:
    """Print facts of the installation; everything else is the `pycnn` command."""
    if arguments == ["--cmake-dir"]:
        print(cmake_dir())
        return 0
    if arguments:
        from pycnn.cli import main as command

        return command(arguments)
    from pycnn import __version__
    from pycnn.config import machine

    facts = machine()
    print(f"pycnn {__version__}")
    print(f"instruction sets: {', '.join(facts['isas'])} (using {facts['isa']})")
    print(f"devices: {', '.join(facts['devices'])}")
    print(f"threads: {facts['threads']} ({facts['threads_reason']})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
