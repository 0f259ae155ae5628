"""The public headers by themselves: strict C, C++ with warnings, documentation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from embed_builds import run

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def include(cmake_dir: Path) -> Path:
    """The installed headers."""
    return next(parent / "include" for parent in cmake_dir.parents if (parent / "include" / "pycnn").is_dir())


USE = """
#include <pycnn/pycnn_c.h>
int main(void) {
  pycnn_trainer_options training;
  pycnn_compile_options compile;
  if (pycnn_trainer_options_init(&training, sizeof training) != PYCNN_OK) return 1;
  if (pycnn_compile_options_init(&compile, sizeof compile) != PYCNN_OK) return 1;
  training.compile = &compile;
  return pycnn_c_abi_version() == PYCNN_C_ABI_VERSION ? 0 : 1;
}
"""


@pytest.mark.parametrize("standard", ["c99", "c11", "c++20"])
def test_c_header_is_strict_and_works(standard, include, tmp_path):
    compiler, suffix = ("c++", "cpp") if standard.startswith("c++") else ("cc", "c")
    source = tmp_path / f"use.{suffix}"
    source.write_text(USE)
    library = include.parent / "lib"
    strict = ["-Wstrict-prototypes"] if suffix == "c" else []
    run(
        compiler, f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", *strict, f"-I{include}", source,
        f"-L{library}", "-lpycnn", f"-Wl,-rpath,{library}", "-o", tmp_path / "use",
    )  # fmt: skip
    run(tmp_path / "use")


def test_the_library_leaves_the_process_alone(include, trained, tmp_path):
    """Failures and successes print nothing, and change no handler, locale or rounding."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a model")
    library = include.parent / "lib"
    run(
        "cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{include}", HERE / "quiet.c",
        f"-L{library}", "-lpycnn", f"-Wl,-rpath,{library}", "-lm", "-o", tmp_path / "quiet",
    )  # fmt: skip
    result = subprocess.run([tmp_path / "quiet", trained, bad], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_headers_compile_without_warnings(include, tmp_path):
    headers = sorted(path.relative_to(include) for path in (include / "pycnn").glob("*.h"))
    assert len(headers) >= 13
    source = tmp_path / "all.cpp"
    source.write_text("".join(f"#include <{header}>\n" for header in headers))
    run("c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{include}", source)


@pytest.mark.skipif(shutil.which("doxygen") is None, reason="needs doxygen")
def test_headers_are_documented(root, tmp_path):
    settings = (
        root / "docs" / "Doxyfile"
    ).read_text() + f"\nOUTPUT_DIRECTORY = {tmp_path}\nGENERATE_HTML = NO\nGENERATE_XML = YES\n"
    result = subprocess.run(["doxygen", "-"], input=settings, capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    assert "pycnn_program_run" in (tmp_path / "xml" / "pycnn__c_8h.xml").read_text()
