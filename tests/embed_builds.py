"""Builds of the examples, as a stranger makes them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PRECOMPILE = Path(__file__).parent / "embed" / "precompile.cmake"
GENERATOR = ["-G", "Ninja"] if shutil.which("ninja") else []
# What is tested are packages and examples, not how well a compiler optimises them.
# As a release a part of the library would still be compiled by -O1.
PLAIN = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DCMAKE_C_FLAGS_DEBUG=-O0"]


def run(*command: str | Path, **options) -> str:
    """Run a command that must succeed; its standard output."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def fails(*command: str | Path) -> str:
    """Run an example that must end with 1, and print nothing but why on standard error."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 1, f"{command}\n{result.returncode}\n{result.stdout}\n{result.stderr}"
    assert not result.stdout
    return result.stderr


def cmake(source: Path, build: Path, *options: str) -> None:
    """Configure and build."""
    inject = f"-DCMAKE_PROJECT_pycnn_examples_INCLUDE={PRECOMPILE}"
    run("cmake", "-S", source, "-B", build, *GENERATOR, *PLAIN, inject, *options)
    run("cmake", "--build", build, "--parallel", "2")


@dataclass(frozen=True)
class Examples:
    """Where the programs are."""

    cpp: Path
    c: Path


def build_examples(root: Path, folder: Path, *options: str, before: str = "") -> Examples:
    """Build all examples as parts of one project, each of which looks for pycnn by itself."""
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\n"
        "project(stranger LANGUAGES C CXX)\n"
        f"{before}\n"
        f'add_subdirectory("{root / "examples" / "cpp"}" cpp)\n'
        f'add_subdirectory("{root / "examples" / "c"}" c)\n'
    )
    cmake(folder / "source", folder / "build", *options)
    return Examples(folder / "build" / "cpp", folder / "build" / "c")
