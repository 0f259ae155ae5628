"""What `device="cuda"` says where something is missing; a GPU is not needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pycnn
from pycnn import _core, nn

SHAPE = (2, 5, 5, 3)


def net() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


def refusal(monkeypatch, module: Path) -> str:
    """What compiling for a GPU says when `module` is taken for the CUDA module."""
    monkeypatch.setenv("PYCNN_CUDA_MODULE", str(module))
    with pytest.raises(pycnn.DeviceError) as caught:
        pycnn.compile(net(), SHAPE, device="cuda")
    return str(caught.value)


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


def test_without_the_module_the_error_says_so_and_how_to_get_it(monkeypatch, tmp_path):
    text = refusal(monkeypatch, tmp_path / "absent.so")
    assert "device 'cuda' cannot be used: pycnn's CUDA module is not installed" in text
    assert "absent.so" in text
    assert "PYCNN_WITH_CUDA=ON" in text


def test_a_library_that_the_module_lacks_is_named_with_the_wheel_that_has_it(monkeypatch, shared_object):
    library = shared_object("libcudnn.so.9", "void f(void) {}", "-Wl,-soname,libcudnn.so.9")
    module = shared_object("needs.so", "void f(void); void g(void) { f(); }", str(library))
    library.unlink()
    text = refusal(monkeypatch, module)
    assert "libcudnn.so.9" in text
    assert "nvidia-cudnn-cu13" in text


def test_a_file_that_is_no_library_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "text.so"
    file.write_text("no library")
    assert "cannot be loaded" in refusal(monkeypatch, file)


def test_a_library_that_is_no_module_is_refused(monkeypatch, shared_object):
    module = shared_object("other.so", "int f(void) { return 1; }")
    assert "no function pycnn_device_module" in refusal(monkeypatch, module)


def test_a_module_of_another_build_is_refused_before_its_table_is_used(monkeypatch, shared_object):
    source = """
        struct { unsigned layout, counts[4]; const char* version; } head = {0, {0, 0, 0, 0}, "0.0.1"};
        const void* pycnn_device_module(void) { return &head; }
    """
    text = refusal(monkeypatch, shared_object("old.so", source))
    assert "is of another build (0.0.1, this is " + pycnn.__version__ in text


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CUDA", ""])
def test_names_that_are_no_device_are_refused(name):
    with pytest.raises(pycnn.DeviceError, match="is unknown; there are 'cpu' and, with an NVIDIA GPU, 'cuda'"):
        pycnn.compile(net(), SHAPE, device=name)


def test_the_cpu_works_after_a_refusal(monkeypatch, tmp_path):
    refusal(monkeypatch, tmp_path / "absent.so")
    assert pycnn.compile(net(), SHAPE)(np.zeros(SHAPE, np.float32)).shape == (2, 3, 3, 4)


def test_trainer_and_variants_say_it_too(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCNN_CUDA_MODULE", str(tmp_path / "absent.so"))
    trainer = pycnn.Trainer(pycnn.models.create("lenet5"), device="cuda")
    with pytest.raises(pycnn.DeviceError, match="not installed"):
        trainer.step(np.zeros((2, 28, 28, 1), np.float32), np.zeros(2, np.int64))
    square = pycnn.value_and_grad(lambda x: pycnn.functional.sum(x * x), device="cuda")
    with pytest.raises(pycnn.DeviceError, match="not installed"):
        square(np.ones(3, np.float32))
    with pytest.raises(pycnn.DeviceError, match="variants: device 'cuda'.*not installed"):
        _core.variants("conv2d", "cuda")


def loaded_libraries(code: str) -> list[str]:
    script = f"import pycnn\n{code}\nprint(open('/proc/self/maps').read())"
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in result.stdout.splitlines() if ".so" in line]


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
