"""The walls of the house: who includes whom, what is documented and tested, what an import costs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pycnn
from pycnn import _core, functional

# Ops that have no function of their own, and where they come from.
INTERNAL = {
    "Broadcast", "FoldBatchNorm", "BatchNormTrain", "BatchNormInference", "DropoutTrain", "Increment", "ClipFactor",
    "SgdUpdate", "AdamUpdate", "MuonUpdate", "EmaUpdate", "Fill", "BatchNormStatistics", "BatchNormApply",
    "BatchNormMaxPool", "DenseSgdUpdate", "DenseAdamUpdate", "LossScale", "Commit",
}  # fmt: skip


# Ops with one kernel only, which moves data or counts and serves every element type.
SINGLE_KERNEL = {
    "ArgMax", "Broadcast", "Commit", "Fill", "Increment", "LossScale", "Reshape", "Take", "TakeWindows", "TopKCorrect",
}  # fmt: skip


def op_names() -> list[str]:
    """The functions of the core that make an op, "MaxPool2d" for "max_pool2d"."""
    return sorted("".join(word.capitalize() for word in name.split("_")) for name in _core.op_names)


def test_layers_of_the_core_hold(root):
    result = subprocess.run([sys.executable, root / "tools" / "check_layers.py"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_layer_check_notices_an_include_that_goes_up(root, tmp_path, monkeypatch):
    sys.path.insert(0, str(root / "tools"))
    try:
        import check_layers
    finally:
        sys.path.pop(0)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.cpp").write_text('#include "compile/passes.h"\n')
    monkeypatch.setattr(check_layers, "SOURCE", tmp_path)
    assert len(check_layers.violations()) == 1


def test_every_cpp_source_is_in_a_list(root):
    for room in ("csrc", "tests/cpp"):
        for source in (root / room).rglob("*.cpp"):
            lists = [folder / "CMakeLists.txt" for folder in source.parents if folder.is_relative_to(root / room)]
            nearest = next(file for file in lists if file.exists())
            words = nearest.read_text().replace("(", " ").replace(")", " ").split()
            assert source.relative_to(nearest.parent).as_posix() in words, f"{source} is not in {nearest}"


@pytest.mark.parametrize("name", op_names())
def test_every_op_has_a_function(name):
    if name in INTERNAL or name.endswith("Grad") or "Grad" in name:
        return
    source = "".join(file.read_text() for file in Path(functional.__file__).parent.glob("*.py"))
    assert f"_core.{name}(" in source or f"_core.{name}(" in inspect.getsource(pycnn.tracing), name


@pytest.mark.parametrize("name", op_names())
def test_every_op_has_a_reference_kernel(name):
    if name in ("BatchNorm", "Dropout"):  # recorded forms, replaced before kernels are chosen
        return
    variants = _core.variants(getattr(_core, name)().name)
    if name in SINGLE_KERNEL:
        assert len(variants) == 1
    else:
        assert variants[-1].endswith(".reference"), variants


def test_every_public_name_of_functional_is_documented():
    for name in functional.__all__:
        assert inspect.getdoc(getattr(functional, name)), name


def test_root_exports_what_it_promises():
    for name in pycnn.__all__:
        assert getattr(pycnn, name) is not None


def test_import_pulls_in_no_optional_package():
    code = (
        "import sys, pycnn, pycnn.nn, pycnn.train, pycnn.data, pycnn.models, pycnn.optim;"
        "bad = {'matplotlib', 'PIL', 'onnx', 'sklearn', 'mpi4py', 'torch', 'scipy'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_import_maps_no_library_and_compiling_none_but_the_core_s():
    """Beside those of Python and of the system; nothing of CUDA above all."""
    code = """
import sys, sysconfig
import numpy
import bz2, hashlib, json, lzma, pathlib, random, tempfile, zlib

def libraries():
    return {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}

before = libraries()
import pycnn
assert libraries() == before, libraries() - before
net = pycnn.nn.Sequential(pycnn.nn.Conv2d(3, 4, 3), pycnn.nn.Flatten(), pycnn.nn.Linear(36, 2))
pycnn.compile(net, (2, 5, 5, 3))(numpy.zeros((2, 5, 5, 3), numpy.float32))
places = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
for path in libraries() - before:
    if not path.startswith(places) or "site-packages" in path:
        print(path.rsplit("/", 1)[-1].split(".")[0])
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = set(result.stdout.split())
    assert "_core" in found
    assert found <= {"_core", "libpycnn", "libgomp", "libomp", "libstdc++", "libgcc_s", "libm", "libmvec"}, found


def test_plain_import_and_help_do_not_load_numpy():
    code = (
        "import sys, pycnn;"
        "import pycnn.cli as cli;"
        "assert 'numpy' not in sys.modules;"
        "import contextlib, io;"
        "out = io.StringIO();"
        "\ntry:\n with contextlib.redirect_stdout(out): cli.main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'numpy' not in sys.modules and 'train' in out.getvalue()"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_readme_holds_the_two_commands(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^# install, train and evaluate\n.*pycnn train$", text, re.M)
    assert re.search(r"^# install the test extra and run the tests\n.*pytest -q$", text, re.M)


def test_version_is_the_same_everywhere():
    from importlib import metadata

    assert pycnn.__version__ == _core.version == metadata.version("pycnn")


def test_no_file_makes_us_run_code(root):
    """Files are untrusted: nothing unpickles, evaluates or maps objects from them."""
    faults = []
    for path in (root / "pycnn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            faults += [(path, n) for n in names if n.split(".")[0] in ("pickle", "marshal", "shelve", "yaml", "dill")]
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in ("eval", "exec", "__import__", "os.system", "os.popen"):
                faults.append((path, called))
            if called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
                faults.append((path, "np.load without allow_pickle=False"))
            if called == "torch.load" and options.get("weights_only") != "True":
                faults.append((path, "torch.load without weights_only=True"))
            if called.startswith("subprocess.") and options.get("shell", "False") != "False":
                faults.append((path, "a shell"))
    assert not faults


def test_the_core_leaves_the_process_and_the_order_of_sums_alone(root):
    """No flags that change floating point for all, no state of the process, no sums in an order that chance decides."""
    builds = [root / "CMakeLists.txt", root / "pyproject.toml", *(root / "csrc").rglob("CMakeLists.txt")]
    builds += [*(root / "cmake").rglob("*"), *(root / "tests").rglob("CMakeLists.txt"), root / ".ci" / "sanitize"]
    text = "\n".join(path.read_text() for path in builds if path.is_file())
    assert "-ffp-contract=off" in text
    assert not re.findall(r"-ffast-math|-Ofast|-funsafe-math\S*|-march=native", text)
    sources = [*(root / "csrc").rglob("*.cpp"), *(root / "csrc").rglob("*.h")]
    for path in sources:
        code = path.read_text()
        found = re.findall(
            r"atomic(?:_ref)?<(?:float|double)>|omp atomic|pragma omp[^\n]*reduction|std::reduce"
            r"|\bsetlocale\(|\bsetenv\(|\bputenv\(|\bsigaction\(|\bsignal\(|sched_setaffinity|fesetround|std::random_device|"
            r"(?<!\w)rand\(|abort\(\)|std::terminate",
            code,
        )
        assert not found, (path, found)


def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_extra_that_an_error_names_exists(root):
    sources = [file.read_text() for file in (root / "pycnn").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'extra="(\w+)"', text)}
    named |= {name for text in sources for name in re.findall(r"pycnn\[(\w+)\]", text)}
    assert len(named) > 4
    assert named <= set(project(root)["project"]["optional-dependencies"])


def test_wheels_are_built_for_every_python_that_is_promised(root):
    settings = project(root)
    prefix = "Programming Language :: Python :: 3."
    promised = [c.removeprefix(prefix) for c in settings["project"]["classifiers"] if c.startswith(prefix)]
    assert settings["tool"]["cibuildwheel"]["build"] == [f"cp3{minor}-*" for minor in promised]
    assert settings["project"]["requires-python"] == f">=3.{promised[0]}"
