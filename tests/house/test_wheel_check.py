"""tools/check_wheel.py finds what a wheel for the CPU must not bring."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def check(root):
    path = root / "tools/check_wheel.py"
    if not path.is_file():
        pytest.skip("there is no checkout")
    spec = importlib.util.spec_from_file_location("check_wheel", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_wheel(check, folder: Path, requires: list[str], core: bytes = b"", more: str | None = None) -> Path:
    """A wheel with empty files."""
    wheel = folder / "pycnn-0.whl"
    metadata = f"Name: pycnn\nVersion: {check.version()}\n" + "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in check.NEEDED:
            archive.writestr(name, core if name.endswith("libpycnn.so") else b"")
        for name in ("pycnn/_core.so", "pycnn/data/_image.so"):
            archive.writestr(name, core)
        if more is not None:
            archive.writestr(more, core)
        archive.writestr("pycnn-0.dist-info/METADATA", metadata + "\n")
    return wheel


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Makes a library that is linked to one of a name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("readelf") is None:
        pytest.skip("there is no C compiler or no readelf")
    folder = tmp_path_factory.mktemp("libraries")

    def make(name: str) -> bytes:
        def link(target: Path, source: str, *options: str) -> None:
            command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", str(target), *options]
            subprocess.run(command, input=source, text=True, check=True)

        link(folder / name, "void f(void) {}", f"-Wl,-soname,{name}")
        link(folder / "core.so", "void f(void); void g(void) { f(); }", str(folder / name))
        return (folder / "core.so").read_bytes()

    return make


BASE = ["numpy>=1.26", "tqdm", "nvidia-cudnn-cu13>=9.19,<10; sys_platform == 'linux' and extra == 'cuda'"]


def test_a_wheel_of_the_core_alone_is_fine(check, library, tmp_path):
    assert check.problems(make_wheel(check, tmp_path, BASE, library("libstdc++.so.6"))) == []


@pytest.mark.parametrize("line", ["nvidia-cudnn-cu13>=9.19,<10; sys_platform == 'linux'", "torch", "scipy>=1"])
def test_what_the_wheel_requires_more_is_named(check, library, tmp_path, line):
    found = check.problems(make_wheel(check, tmp_path, [*BASE, line], library("libm.so.6")))
    assert len(found) == 1
    assert line.split(">")[0] in found[0]


@pytest.mark.parametrize(
    "name", ["libcudart.so.13", "libcuda.so.1", "libcudnn.so.9", "libcublasLt.so.13", "libopenblas.so.0"]
)
def test_what_its_libraries_are_linked_to_is_named(check, library, tmp_path, name):
    found = check.problems(make_wheel(check, tmp_path, BASE, library(name)))
    assert f"pycnn/lib/libpycnn.so is linked to {name}" in found


def test_the_cuda_module_is_not_in_it(check, library, tmp_path):
    wheel = make_wheel(check, tmp_path, BASE, library("libdl.so.2"), "pycnn/lib/pycnn_cuda.so")
    assert any("pycnn_cuda" in problem for problem in check.problems(wheel))
