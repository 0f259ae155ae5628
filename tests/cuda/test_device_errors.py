"""What `device="cuda"` says where something is missing; a GPU is not needed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pycnn
from pycnn import nn


def in_process(code: str, module: Path | None = None) -> str:
    """What a process of its own prints: whoever has loaded the CUDA module once, as on a GPU, looks for no other."""
    environment = os.environ if module is None else os.environ | {"PYCNN_CUDA_MODULE": str(module)}
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def refusal(module: Path) -> str:
    """What compiling for a GPU says when `module` is taken for the CUDA module."""
    code = """
        import pycnn
        try:
            pycnn.compile(pycnn.nn.Conv2d(3, 4, 3), (2, 5, 5, 3), device="cuda")
        except pycnn.DeviceError as error:
            print(error)
    """
    return in_process(code, module)


@pytest.fixture(scope="module")
def shared_object(tmp_path_factory):
    """Makes shared objects of C sources."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("modules")

    def make(name: str, source: str, *options: str) -> Path:
        path = folder / name
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", str(path), *options]
        subprocess.run(command, input=source, text=True, check=True)
        return path

    return make


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PYCNN_CUDA_TF32", "yes", "compile: PYCNN_CUDA_TF32 is 'yes', expected '0' or '1'"),
        ("PYCNN_CUDA_DETERMINISTIC", "true", "PYCNN_CUDA_DETERMINISTIC is 'true', expected '0' or '1'"),
        ("PYCNN_CUDA_REWRITES", "on", "PYCNN_CUDA_REWRITES is 'on', expected 'off', 'always' or 'own'"),
        ("PYCNN_CUDA_CHOOSE_SECONDS", "-1", "CHOOSE_SECONDS is '-1', expected a number of seconds, 0 or more"),
        ("PYCNN_CUDA_CHOOSE_SECONDS", "2m", "CHOOSE_SECONDS is '2m', expected a number of seconds, 0 or more"),
        ("PYCNN_CUDA_TILE", "huge", "PYCNN_CUDA_TILE is 'huge', expected 'large', 'medium' or 'small'"),
        ("PYCNN_CUDA_FAST", "1", "compile: there is no variable PYCNN_CUDA_FAST, only PYCNN_CUDA_CHOOSE_SECONDS, "),
    ],
)
def test_what_a_variable_does_not_know_is_refused(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(pycnn.ArgumentError, match=re.escape(message)):
        pycnn.compile(nn.Conv2d(3, 4, 3), (2, 5, 5, 3), device="cuda")
    pycnn.compile(nn.Conv2d(3, 4, 3), (2, 5, 5, 3))  # not the CPU's affair


@pytest.mark.parametrize("value", ["off", "always", "own"])
def test_what_the_readme_tells_of_rewrites_is_taken(monkeypatch, value):
    monkeypatch.setenv("PYCNN_CUDA_REWRITES", value)
    with contextlib.suppress(pycnn.DeviceError):  # of a machine without a GPU
        pycnn.compile(nn.Conv2d(3, 4, 3), (2, 5, 5, 3), device="cuda")


def test_without_the_module_the_error_says_so_and_how_to_get_it(tmp_path):
    text = refusal(tmp_path / "absent.so")
    assert "device 'cuda' cannot be used: pycnn's CUDA module is not installed" in text
    assert "absent.so" in text
    assert "PYCNN_WITH_CUDA=ON" in text


def test_a_library_that_the_module_lacks_is_named_with_the_wheel_that_has_it(shared_object):
    library = shared_object("libcudnn.so.9", "void f(void) {}", "-Wl,-soname,libcudnn.so.9")
    module = shared_object("needs.so", "void f(void); void g(void) { f(); }", str(library))
    library.unlink()
    text = refusal(module)
    assert "libcudnn.so.9" in text
    assert "nvidia-cudnn-cu13" in text


def test_a_file_that_is_no_library_is_refused(tmp_path):
    file = tmp_path / "text.so"
    file.write_text("no library")
    assert "cannot be loaded" in refusal(file)


def test_a_library_that_is_no_module_is_refused(shared_object):
    module = shared_object("other.so", "int f(void) { return 1; }")
    assert "no function pycnn_device_module" in refusal(module)


def test_a_module_of_another_build_is_refused_before_its_table_is_used(shared_object):
    source = """
        struct { unsigned layout, counts[4]; const char* version; } head = {0, {0, 0, 0, 0}, "0.0.1"};
        const void* pycnn_device_module(void) { return &head; }
    """
    text = refusal(shared_object("old.so", source))
    assert "is of another build (0.0.1, this is " + pycnn.__version__ in text


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CUDA", ""])
def test_names_that_are_no_device_are_refused(name):
    with pytest.raises(pycnn.DeviceError, match="is unknown; there are 'cpu' and, with an NVIDIA GPU, 'cuda'"):
        pycnn.compile(nn.Conv2d(3, 4, 3), (2, 5, 5, 3), device=name)


def test_the_cpu_works_after_a_refusal(tmp_path):
    code = """
        import numpy as np
        import pycnn
        net, shape = pycnn.nn.Conv2d(3, 4, 3), (2, 5, 5, 3)
        try:
            pycnn.compile(net, shape, device="cuda")
        except pycnn.DeviceError:
            print(pycnn.compile(net, shape)(np.zeros(shape, np.float32)).shape)
    """
    assert in_process(code, tmp_path / "absent.so") == "(2, 3, 3, 4)\n"


def test_trainer_and_variants_say_it_too(tmp_path):
    code = """
        import numpy as np
        import pycnn
        from pycnn import _core

        def train():
            trainer = pycnn.Trainer(pycnn.models.create("lenet5"), device="cuda")
            trainer.step(np.zeros((2, 28, 28, 1), np.float32), np.zeros(2, np.int64))

        def differentiate():
            pycnn.value_and_grad(lambda x: pycnn.functional.sum(x * x), device="cuda")(np.ones(3, np.float32))

        for work in (train, differentiate, lambda: _core.variants("conv2d", "cuda")):
            try:
                work()
            except pycnn.DeviceError as error:
                print(str(error).splitlines()[0])
    """
    lines = in_process(code, tmp_path / "absent.so").splitlines()
    assert len(lines) == 3
    assert all("device 'cuda' cannot be used: pycnn's CUDA module is not installed" in line for line in lines)
    assert lines[2].startswith("variants: ")


def loaded_libraries(code: str) -> list[str]:
    maps = in_process(f"import pycnn\n{code}\nprint(open('/proc/self/maps').read())")
    return [line.split()[-1] for line in maps.splitlines() if ".so" in line]


def test_the_cpu_loads_nothing_of_cuda():
    paths = loaded_libraries("pycnn.compile(pycnn.nn.Conv2d(3, 4, 3), (1, 5, 5, 3))")
    assert any("libpycnn" in path for path in paths)
    assert not [path for path in paths if any(word in Path(path).name for word in ("cuda", "cudnn", "cublas"))]


def test_the_core_has_no_symbol_of_cuda(root):
    library = next((Path(pycnn.__file__).parent / "lib").glob("libpycnn.so*"))
    nm, ldd = shutil.which("nm"), shutil.which("ldd")
    if nm is None or ldd is None:
        pytest.skip("binutils are not there")
    needed = subprocess.run([ldd, library], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run([nm, "-D", library], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in needed.lower()
    names = [line.split()[-1] for line in symbols.splitlines()]
    assert not [name for name in names if name.startswith(("cu", "__cuda"))]
