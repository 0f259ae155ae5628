"""What tools/gpu_check.sh promises where there is no GPU to run it: its limits, its table and what it leaves out."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import reference

import pycnn

PHASES = ["probe", "ceilings", "build", "kernels", "nets", "sanitizer", "tune", "times", "compiled"]


@pytest.fixture(scope="module")
def script(root):
    path = root / "tools/gpu_check.sh"
    if not path.is_file():
        pytest.skip("there is no checkout")
    return path


def run(script: Path, folder: Path, *phases: str, status: int = 0, **environment: str) -> dict[str, str]:
    """Run phases of a copy beside nothing else and return the lines of the table by phase."""
    copy = folder / "tools/gpu_check.sh"
    copy.parent.mkdir(parents=True, exist_ok=True)
    for file in (script, script.with_name("gpu_machine.py"), script.with_name("gpu_report.py")):
        copy.with_name(file.name).write_bytes(file.read_bytes())
    (folder / "tests").mkdir(exist_ok=True)
    command = ["bash", str(copy), str(folder / "out"), *phases]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == status, result.stdout + result.stderr
    with tarfile.open(folder / "out/results.tgz") as packed:
        kept = {Path(name).name for name in packed.getnames()}
    assert {"table.txt", *(f"{phase.partition(':')[0]}.log" for phase in phases)} <= kept
    return {line.split()[0]: line for line in result.stdout.splitlines()}


def test_all_limits_and_what_ending_the_phases_takes_are_570_seconds_at_most(script):
    text = script.read_text()
    found = re.findall(r'^(?:if ! )?phase (\w+) (?:(\d+)|"\$\(rest (\d+)\)") ', text, re.MULTILINE)
    limits = {name: int(fixed or least) for name, fixed, least in found}
    assert list(limits) == PHASES
    margin = int(re.search(r'timeout --signal=INT --kill-after=(\d+) "\$limit"', text)[1])
    assert sum(limits.values()) + margin * len(limits) <= 570
    # The last gets what the others leave.
    assert int(re.search(r"^rest\(\) .*?(\d+) - SECONDS", text, re.MULTILINE)[1]) + margin <= 570
    assert found[-1][2]
    # Rows begin early enough for their end.
    assert re.search(r"'times times --seconds \$\(\(PHASE_SECONDS - (\d+)\)\)'", text)[1] == "20"
    last = int(re.search(r"'times compiled --compiled --seconds \$\(\(PHASE_SECONDS - (\d+)\)\)'", text)[1])
    assert 60 <= last <= limits["compiled"] - 15  # PyTorch is imported before the first


def test_choosing_ends_within_its_phase(script):
    body = re.search(r"^tune\(\) \{.*?^\}", script.read_text(), re.MULTILINE | re.DOTALL)[0]
    told = 'python=echo; echo() { printf "%s %s\\n" "$PYCNN_CUDA_CHOOSE_SECONDS" "${@: -1}"; }'
    for limit in (20, 40, 120, 500):
        code = f"PHASE_SECONDS={limit}; build=b; {told}; {body}; tune"
        printed = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout
        each, begun = map(int, printed.split())
        assert begun >= 1
        assert min(limit // 2, 28) == each
        assert each + begun <= limit - 8


def test_all_rates_have_one_time_for_choosing(script, root):
    limit = re.search(r"^on_demand rates (\d+) ", script.read_text(), re.MULTILINE)[1]
    seconds = re.search(r"CHOOSE_SECONDS=(\d+) .*pycnn_cuda_kernel_times", script.read_text())[1]
    assert int(seconds) <= int(limit) - 15
    source = (root / "tests/cpp/cuda_kernel_times.cpp").read_text()
    assert source.count("Problem problem;") == source.count("problem.began = kBegan;") == 1


def test_phases_may_be_given_their_seconds_and_others_are_refused(script, tmp_path):
    table = run(script, tmp_path, "kernels:9", "rates")
    assert re.match(r"kernels +skipped", table["kernels"])
    for wrong in ("kernel", "tune:", "tune:x", "tune:0", "tune:5:5", "9"):
        command = ["bash", str(script), str(tmp_path / "none"), wrong]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert f"no phase {wrong}: expected NAME or NAME:SECONDS of probe ceilings build" in result.stderr
    known = re.search(r'^known="(.*)"', script.read_text(), re.MULTILINE)[1].split()
    assert known == re.findall(r"^(?:phase|on_demand) (\w+) ", script.read_text(), re.MULTILINE)


def test_choices_that_another_file_keeps_are_among_the_results(script, tmp_path):
    plans = tmp_path / "kept.txt"
    plans.write_text("a choice\n")
    run(script, tmp_path, "kernels", PYCNN_CUDA_PLANS=str(plans))
    assert (tmp_path / "out/cuda_plans.txt").read_text() == "a choice\n"


@pytest.mark.parametrize("lines", [0, 5, 40])
def test_the_table_is_25_lines_at_most_with_all_phases(script, tmp_path, lines):
    (tmp_path / "times.txt").write_text("".join(f"time {i}\n" for i in range(lines)))
    rows = [*PHASES, "rates", "zoo", "cifar10"]
    table = re.search(r"^table\(\) \{.*?^\}", script.read_text(), re.MULTILINE | re.DOTALL)[0]
    code = f"set -u; out={tmp_path}; python=false; failed=0; skipped=0; rows=({' '.join(rows)}); {table}; table"
    printed = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) <= 25
    assert len(printed) == min(25, 1 + len(rows) + lines)
    assert printed[1 : 1 + len(rows)] == rows
    if lines:
        assert printed[-1] == f"time {lines - 1}"


def test_phases_that_cannot_run_are_skipped_and_say_why(script, tmp_path):
    table = run(script, tmp_path, "kernels", "rates")
    for name in ("kernels", "rates"):
        assert re.match(rf"{name} +skipped +\d+ s +skipped: the phase build was not done", table[name]), table[name]
    assert "2 phases, 0 failed, 2 skipped" in (tmp_path / "out/table.txt").read_text()


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    """Put a program before those of the system; the variables that make it so."""
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return {"PATH": f"{file.parent}:{os.environ['PATH']}"}


def python_without(folder: Path, module: str) -> dict[str, str]:
    """A Python that cannot import a module."""
    return program(folder, "python3", f'case "$*" in *"import {module}"*) exit 1;; esac\nexec {sys.executable} "$@"')


def test_without_pytest_nets_of_the_zoo_stand_in(script, root, tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/gpu_nets.py").write_bytes((root / "tools/gpu_nets.py").read_bytes())
    python_with_a_gpu(tmp_path)
    stage = tmp_path / "build-gpu/stage"
    (stage / "pycnn/config.py").write_text("def machine(): return {'devices': ['cuda:0']}\nmanual_seed = None\n")
    (stage / "pycnn/__init__.py").write_text("class models:\n    def list(): return ('lenet5', 'vgg19')\n")
    # Told to, the last net differs.
    (stage / "sitecustomize.py").write_text("""
import os, sys
class Losses:
    def losses(name, device):
        assert os.environ["PYCNN_CUDA_DETERMINISTIC"] == "1" and os.environ["PYCNN_CUDA_PLANS"] == "off"
        assert name != "vgg19" or not os.environ.get("BROKEN"), "far"
        print(device, "trained", name)
        return [1.0]
    def assert_as_the_cpu(actual, expected): assert actual == expected
sys.modules["zoo_losses"] = Losses
""")
    variables = python_without(tmp_path, "pytest")
    table = run(script, tmp_path, "nets", "zoo", **variables)
    for name in ("nets", "zoo"):
        expected = rf"{name} +ok +\d+ s +no pytest: 20 steps as the CPU of 11 nets of 11"
        assert re.match(expected, table[name]), table[name]
        trained = re.findall(r"^(\S+) trained (\S+)$", (tmp_path / f"out/{name}.log").read_text(), re.MULTILINE)
        assert len({net for _, net in trained}) == 11
        for net in {net for _, net in trained}:
            assert [device for device, other in trained if other == net] == ["cuda", "cuda", "cpu"], net
    table = run(script, tmp_path, "zoo", status=1, BROKEN="1", **variables)
    assert re.match(r"zoo +failed \(1\) +\d+ s +no pytest: 1 of 11 nets differ .*: vgg19$", table["zoo"]), table["zoo"]
    # Begun when it should have ended, one net is checked.
    table = run(script, tmp_path, "nets:20", **variables)
    assert "of 1 nets of 11" in table["nets"]
    assert "no time for cifar_resnet20 " in (tmp_path / "out/nets.log").read_text()


STAND_IN = """
import gpu_nets
print(gpu_nets.check("lenet5", "cpu") or "alike")
right, count = gpu_nets.zoo_losses.losses, [0]
def wrong(name, device):
    count[0] += 1
    return [loss * (1 + 0.1 * (count[0] in bad)) for loss in right(name, device)]
gpu_nets.zoo_losses.losses = wrong
for bad in ((2,), (1, 2)):
    count[0] = 0
    print(gpu_nets.check("lenet5", "cpu").split("\\n")[0])
gpu_nets.zoo_losses.losses = lambda name, device: [float("nan")] * 20
print(gpu_nets.check("lenet5", "cpu")[:42])
def failing(name, device): assert False, "of the training"
gpu_nets.zoo_losses.losses = failing
print(gpu_nets.check("lenet5", "cpu"))
gpu_nets.zoo_losses.losses = right
print(gpu_nets.check("none", "cpu").partition(":")[0])
print(sorted(set(gpu_nets.FIRST) - set(gpu_nets.pycnn.models.list())))
"""


def test_the_stand_in_finds_losses_that_differ(script):
    assert run_beside_tools(script, STAND_IN).splitlines() == [
        "alike",
        "two runs differ",
        "not the CPU's losses: ",
        "not the CPU's losses: a loss is not finite",
        "AssertionError: of the training",
        "ArgumentError",
        "[]",
    ]


def test_tests_that_need_what_cython_builds_skip_without_it_and_others_do_not(script, root, tmp_path):
    stub = re.search(r"echo '(def __getattr__.*?)' >.*/_image\.py", script.read_text())[1]
    (tmp_path / "conftest.py").write_bytes((root / "tests/conftest.py").read_bytes())
    (tmp_path / "stub.py").write_text(stub)
    (tmp_path / "first.py").write_text("import sys, stub; sys.modules['pycnn.data._image'] = stub")
    (tmp_path / "test_it.py").write_text(
        "import stub\ndef test_needs(): stub.shuffle()\ndef test_lacks(): raise ImportError('another module')\n"
        "def test_python_may_ask(): assert not hasattr(stub, '__wrapped__')\n"
        "def test_of_a_command(image_loops): raise SystemExit(1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "first",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    variables = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(pycnn.__file__).parent.parent}", "PYTEST_ADDOPTS": ""}
    result = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.search(r"^1 failed, 1 passed, 2 skipped", result.stdout, re.MULTILINE), result.stdout


def test_device_tests_of_commands_that_read_data_skip_without_cython_too(root):
    found = []
    for path in sorted((root / "tests/cuda").glob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                nodes = list(ast.walk(function))
                words = {node.value for node in nodes if isinstance(node, ast.Constant)}
                calls = any(isinstance(node, ast.Call) and ast.unparse(node.func) == "main" for node in nodes)
                if calls and words & {"train", "evaluate", "transfer", "history"}:
                    found.append(function.name)
                    assert "image_loops" in [a.arg for a in function.args.args], f"{path.name}: {function.name}"
    assert len(found) >= 2


FAKE_XDIST = """
def pytest_addoption(parser):
    parser.getgroup("xdist")._addoption("--processes", "-n", dest="processes")
"""
# As pytest-benchmark does, and to warn is to fail.
FAKE_BENCHMARK = """
import warnings

def pytest_configure(config):
    if config.getoption("processes", None):
        warnings.warn("nothing is measured by several processes")
"""


def test_nets_are_run_by_several_processes_whatever_other_plugins_warn_of(script, root, tmp_path):
    stage = tmp_path / "build-gpu/stage"
    for name, text in (("xdist", FAKE_XDIST), ("benchmark", FAKE_BENCHMARK)):
        (stage / name).mkdir(parents=True)
        (stage / name / "__init__.py").write_text("")
        (stage / name / "plugin.py").write_text(text)
        told = stage / f"pytest_{name}-1.0.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pytest-{name}\nVersion: 1.0\n")
        (told / "entry_points.txt").write_text(f"[pytest11]\n{name} = {name}.plugin\n")
    (tmp_path / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    test = (
        "import os\ndef test_tiny(pytestconfig):\n    assert pytestconfig.getoption('processes') == '6'\n"
        "    assert os.environ['PYCNN_CUDA_PLANS'] == 'off'\n"  # what is timed beside others is not to be kept
    )
    for file in (
        "cuda/test_tiny.py",
        "cuda/test_zoo_on_gpu.py",
        "cuda/test_inspect_on_device.py",
        "cuda/test_transfer_on_device.py",
        "train/test_augment_in_step.py",
        "train/test_residual_norm.py",
    ):
        (tmp_path / "tests" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / file).write_text(test)
    table = run(script, tmp_path, "nets", "zoo", **python_with_a_gpu(tmp_path))
    assert re.match(r"nets +ok +\d+ s +3 passed", table["nets"]), (tmp_path / "out/nets.log").read_text()
    assert re.match(r"zoo +ok +\d+ s +3 passed", table["zoo"]), (tmp_path / "out/zoo.log").read_text()


def python_with_a_gpu(folder: Path) -> dict[str, str]:
    """A Python in which pycnn has a GPU."""
    stage = folder / "build-gpu/stage/pycnn"
    stage.mkdir(parents=True)
    (stage / "__init__.py").write_text("")
    (stage / "config.py").write_text("machine = lambda: {'devices': ['cpu', 'cuda:0']}\n")
    return program(folder, "python3", f'exec {sys.executable} "$@"')


def test_nets_that_find_no_gpu_fail_instead_of_being_skipped(script, tmp_path):
    variables = python_with_a_gpu(tmp_path)
    (tmp_path / "build-gpu/stage/pycnn/config.py").write_text("machine = lambda: {'devices': ['cpu']}\n")
    table = run(script, tmp_path, "nets", status=1, **variables)
    assert re.match(r"nets +failed \(1\) +\d+ s +pycnn finds no GPU", table["nets"]), table["nets"]


@pytest.mark.parametrize("module", ["pybind11", "numpy"])
def test_a_build_that_lacks_something_fails_and_names_it(script, tmp_path, module):
    variables = python_without(tmp_path, module) | program(tmp_path, "nvcc", "exit 1")
    table = run(script, tmp_path, "build", "nets", status=1, **variables)
    assert re.search(rf"failed \(1\) .*there is no.* {module}", table["build"]), table["build"]
    assert "the phase build was not done" in table["nets"]


STEPS_OF_A_BUILD = """case "$*" in
  *--install*) for last; do :; done; touch "$last/installed" ;;
esac"""


# As much of pycnn as the build looks at, in which libraries are used unless it is told otherwise.
PYCNN_OF_A_BUILD = """
import os
class nn:
    Sequential = Conv2d = Flatten = Linear = lambda *_, **__: None
class compile:
    def __init__(self, *_, **__): pass
    def explain(self): return os.environ.get("EXPLAINED", "")
"""


def test_without_cython_the_build_says_so_and_does_not_fail(script, tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("data", "train", "models", "config"):
        (checkout / "pycnn" / name).mkdir(parents=True)
        (checkout / "pycnn" / name / "__init__.py").write_text("machine = lambda: {'devices': ['cuda:0']}\n")
    (checkout / "pycnn/__init__.py").write_text(PYCNN_OF_A_BUILD)
    (checkout / "pycnn/train/__init__.py").write_text("from pycnn.data import _image\n")
    program(tmp_path, "nvcc", "exit 0")
    program(tmp_path, "ninja", "exit 0")
    program(tmp_path, "cmake", STEPS_OF_A_BUILD)
    variables = python_without(tmp_path, "Cython")
    table = run(script, checkout, "build", **variables)
    log = (checkout / "out/build.log").read_text()
    assert re.match(
        r"build +ok +\d+ s +no Cython: data sets and transforms are not built, tests of fit and evaluate skip",
        table["build"],
    ), log
    assert "1 phases, 0 failed, 0 skipped" in (checkout / "out/table.txt").read_text()
    assert "devices: cuda:0" in log
    assert (checkout / "build-gpu/stage/installed").exists()
    # What fails is not hidden by it.
    table = run(script, checkout, "build", status=1, EXPLAINED="not conv2d.cudnn: no such file", **variables)
    assert re.match(r"build +failed \(1\) +\d+ s +not conv2d.cudnn: no such file", table["build"]), table["build"]
    # With it the module is missing, and that is noticed.
    program(tmp_path, "python3", f'case "$*" in *"import Cython"*) exit 0;; esac\nexec {sys.executable} "$@"')
    table = run(script, checkout, "build", status=1, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert "pycnn.train cannot be imported" in table["build"]


def test_without_a_gpu_nothing_else_is_run_and_the_status_is_77(script, tmp_path):
    # A library by the driver's name that is none: a machine of the tests may have one.
    (tmp_path / "libcuda.so.1").write_text("")
    variables = program(tmp_path, "nvidia-smi", "exit 9") | {"LD_LIBRARY_PATH": str(tmp_path)}
    table = run(script, tmp_path, status=77, **variables)
    assert re.match(r"probe +skipped +\d+ s +no GPU", table["probe"]), table["probe"]
    assert "build" not in table
    text = (tmp_path / "out/table.txt").read_text().splitlines()
    assert text[0].startswith("1 phases, 0 failed, 1 skipped")
    assert text[-1] == "no GPU: nothing else was run"


def test_a_gpu_is_told_by_its_tool(script, tmp_path):
    answer = "NVIDIA Fake, 144384 MiB, 580.65.06, 1980 MHz, 700.00 W"
    table = run(script, tmp_path, "probe", **program(tmp_path, "nvidia-smi", f'echo "{answer}"'))
    assert re.match(rf"probe +ok +\d+ s +{answer}", table["probe"]), table["probe"]
    told = json.loads((tmp_path / "out/machine.json").read_text())
    assert told["gpu"] == "NVIDIA Fake"
    assert told["driver"] == "580.65.06"
    assert told["power_limit"] == "700.00 W"


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return (int)flags; }
int cuDeviceGetCount(int* count) { return *count = COUNT, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }
int cuDeviceGetName(char* name, int size, int device) { return strncpy(name, "Told by CUDA", size), device; }
int cuDriverGetVersion(int* version) { return *version = 13010, 0; }
"""


@pytest.mark.parametrize("count", [0, 1])
def test_without_the_tool_the_driver_is_asked(script, tmp_path, count):
    (tmp_path / "driver.c").write_text(DRIVER)
    command = ["cc", "-shared", "-fPIC", f"-DCOUNT={count}", "-o", "libcuda.so.1", "driver.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    variables = program(tmp_path, "nvidia-smi", "exit 9") | {"LD_LIBRARY_PATH": str(tmp_path)}
    table = run(script, tmp_path, "probe", status=0 if count else 77, **variables)
    wanted = r"ok +\d+ s +Told by CUDA, 13.1" if count else r"skipped +\d+ s +no GPU"
    assert re.match(rf"probe +{wanted}", table["probe"]), table["probe"]


# What is built of a program of one store, and a sanitizer that the machine does not let look at it.
FAKE_NVCC = """while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then printf '#!/bin/sh\\nexit %s\\n' "${STORE:-0}" >"$2"; chmod +x "$2"; fi
  shift
done"""


@pytest.mark.skipif(Path("/usr/local/cuda/bin/compute-sanitizer").exists(), reason="the real one is taken")
def test_a_sanitizer_that_the_machine_refuses_is_skipped(script, tmp_path):
    (tmp_path / "build-gpu/stage").mkdir(parents=True)
    program(tmp_path, "nvcc", FAKE_NVCC)
    variables = program(tmp_path, "compute-sanitizer", "echo refused; exit 1")
    table = run(script, tmp_path, "sanitizer", **variables)
    assert re.match(r"sanitizer +skipped +\d+ s +skipped: refused by the machine", table["sanitizer"])
    table = run(script, tmp_path, "sanitizer", status=1, STORE="4", **variables)
    assert re.match(r"sanitizer +failed \(1\) +\d+ s +a program of one store fails without", table["sanitizer"])


# It starts what it watches as a process of its own, which does not end with it.
FAKE_SANITIZER = """case "$*" in
  *one_store) exit 0 ;;
  *memcheck*) exit ${MEMCHECK:-0} ;;
esac
[ -z "${RACECHECK:-}" ] || exit $RACECHECK
sh -c 'trap "" TERM INT; echo $$ >"$0"; exec sleep 60' "$CHILD" &
wait"""


def runs(process: int) -> bool:
    """Whether there is such a process that has not ended."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(Path("/usr/local/cuda/bin/compute-sanitizer").exists(), reason="the real one is taken")
def test_what_a_sanitizer_watches_ends_with_it_and_both_checks_are_told(script, tmp_path):
    (tmp_path / "build-gpu/stage").mkdir(parents=True)
    program(tmp_path, "nvcc", FAKE_NVCC)
    program(tmp_path, "cmake", "exit 0")
    variables = program(tmp_path, "compute-sanitizer", FAKE_SANITIZER) | {"CHILD": str(tmp_path / "child")}
    table = run(script, tmp_path, "sanitizer:11", status=1, **variables)
    told = r"sanitizer +failed \(1\) +\d+ s +memcheck found nothing;racecheck was not done after [3-6] s"
    assert re.match(told, table["sanitizer"]), table["sanitizer"]
    assert not runs(int((tmp_path / "child").read_text()))
    for codes, status, text in (
        ({"RACECHECK": "0"}, 0, "memcheck found nothing;racecheck found nothing"),
        ({"RACECHECK": "0", "MEMCHECK": "9"}, 1, "memcheck found errors: memcheck.log;racecheck found nothing"),
        ({"RACECHECK": "137"}, 1, r"memcheck found nothing;racecheck was killed after \d+ s"),
        ({"RACECHECK": "1"}, 1, r"memcheck found nothing;the tests failed under racecheck \(1\): racecheck.log"),
    ):
        table = run(script, tmp_path, "sanitizer", status=status, **variables, **codes)
        assert re.search(f" s  {text}$", table["sanitizer"]), table["sanitizer"]


def test_each_kernel_that_is_tested_is_watched_once(script, root):
    folder = root / "tests/cpp/backends/cuda"
    once = (folder / "test_each_kernel_once.cpp").read_text()
    families = ("batch_norm", "conv2d", "elementwise", "kernels", "move", "pool")
    tested = "".join((folder / f"test_{family}.cpp").read_text() for family in families)
    missing = set(re.findall(r"ops::(\w+)", tested)) - set(re.findall(r"ops::(\w+)", once))
    assert missing == {"DenseSgdUpdate"}  # for which a GPU has no kernel
    body = re.search(r"^watched\(\) \{.*?^\}", script.read_text(), re.MULTILINE | re.DOTALL)[0]
    wanted = re.search(r"--test-case='(.*) \*'", body)[1]
    assert set(re.findall(r'TEST_CASE\("(.*?:)', once)) == {wanted}
    assert "PYCNN_CUDNN=off PYCNN_CUBLASLT=off " in body
    # What stands between a convolution and a library runs without one.
    assert re.search(r'Variable \w+\("PYCNN_CUDA_REWRITES", "own"\)', once)


def test_a_phase_that_something_else_kills_is_not_said_to_be_over_its_limit(script, tmp_path):
    killed = program(tmp_path, "nvidia-smi", "exit 9") | program(tmp_path, "python3", "kill -9 $$; sleep 1")
    table = run(script, tmp_path, "ceilings", status=1, **killed)
    assert re.match(r"ceilings +killed \(137\)", table["ceilings"]), table["ceilings"]
    program(tmp_path, "python3", 'case "$*" in *ceilings*) sleep 5 ;; esac; exit 1')
    table = run(script, tmp_path, "ceilings:1", status=1, **killed)
    assert re.match(r"ceilings +over 1 s", table["ceilings"]), table["ceilings"]


def test_the_table_joins_all_of_pytorch_and_says_what_is_missing(script, tmp_path):
    def row(net, *, dtype="bfloat16", **found):
        return {"kind": "train", "net": net, "batch": 100, "dtype": dtype, **found}

    folder = tmp_path / "out"
    folder.mkdir()
    gpu = {"machine": {"gpu": "NVIDIA Fake"}}
    times = [
        row(
            "one",
            seconds={"pycnn": 0.01, "host-fed": 0.001, "by Trainer": 0.002, "eager": 0.03, "graph": 0.02},
            difference="",
            recording="recorded on one lane",
        ),
        row(
            "two",
            seconds={"pycnn": 0.01, "eager": 0.03},
            difference="far",
            steps_not_timed=7,
            recording="not recorded, its",
        ),
        row("three", seconds={"pycnn": 0.01, "eager": 0.03}, difference=""),
        row("four", error="no time left"),
        row("one", dtype="float16", seconds={"pycnn": 0.005}),
    ]
    compiled = [row("one", seconds={"pycnn": 0.011, "compiled": 0.015, "compiled graph": 0.014}, difference="")]
    best = [row("three", images_per_s=8000.0), row("two", error="OutOfMemoryError: much")]
    (folder / "times.json").write_text(json.dumps({**gpu, "rows": times}))
    (folder / "compiled.json").write_text(json.dumps({**gpu, "rows": compiled}))
    (folder / "torch.json").write_text(json.dumps({"gpu": "NVIDIA Fake", "rows": best}))
    command = [sys.executable, "-P", script.with_name("gpu_report.py"), folder]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "bfloat16 ms images/s PyTorch ratio",
        "train one 100 10.000 10000 7143 1.40 compiled graph, host-fed 1.000 ms, by Trainer 2.000 ms",
        "train two 100 10.000 10000 3333 3.00 eager, not recorded, 7 steps not timed, no compiled, far",
        "train three 100 10.000 10000 8000 1.25 max-autotune",
        "train four 100 no time left",
        "train one 100 float16 5.000 20000 - -",
        "geometric mean of 3 1.74",
    ]
    # Another GPU's numbers are not beside these.
    (folder / "torch.json").write_text(json.dumps({"gpu": "Another", "rows": best}))
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == "torch.json is of another GPU: Another"
    assert "max-autotune" not in "".join(lines)
    (folder / "compiled.json").write_text(json.dumps({"machine": {"gpu": "A third"}, "rows": compiled}))
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "compiled.json is of another GPU: A third" in lines
    assert "3.00 eager" in " ".join(" ".join(lines).split())
    (folder / "compiled.json").write_text(json.dumps({**gpu, "rows": compiled}))
    # As the last of what the script prints.
    run(script, tmp_path, "kernels")
    assert "geometric mean" in (tmp_path / "out/table.txt").read_text().splitlines()[-1]


def test_phases_on_demand_are_not_run_unless_named(script):
    text = script.read_text()
    found = re.findall(r"^on_demand (\w+) \d+ ", text, re.MULTILINE)
    assert found == ["rates", "tune_all", "compiled_all", "zoo", "cifar10"]
    assert '[ "$wanted" = "  " ] || phase "$@"' in text


def test_trainings_with_tests_for_a_gpu_are_run(script, root):
    calls = " ".join(re.findall(r"net_tests (tests/[^']*)'", script.read_text()))
    marked = [file for file in (root / "tests/train").glob("test_*.py") if "pytest.mark.cuda" in file.read_text()]
    assert marked
    for file in marked:
        assert file.relative_to(root).as_posix() in calls


def test_libraries_do_not_time_kernels_in_tests_of_single_kernels(script):
    text = script.read_text()
    for name in ("kernel_test", "watched"):
        body = re.search(rf"^{name}\(\) \{{.*?^\}}", text, re.MULTILINE | re.DOTALL)[0]
        assert "PYCNN_CUDA_CHOOSE_SECONDS=0 PYCNN_CUDA_TEST_MODULE=" in body


FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *gpu_cifar10.py*) shift; echo "pycnn 94.00 % of $*"; exit ${RESULT:-0} ;;
esac
"""


@pytest.fixture
def fake_python(tmp_path):
    """Something in Python's place that says what tools/gpu_cifar10.py was to do; the variables that make it so."""
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return {"PATH": f"{python.parent}:{os.environ['PATH']}"}


def test_cifar10_is_trained_on_demand_alone(script, tmp_path, fake_python):
    images = tmp_path / "images"
    images.mkdir()
    table = run(script, tmp_path, "cifar10", PYCNN_CIFAR10=str(images), **fake_python)
    assert re.match(r"cifar10 +ok +\d+ s +pycnn 94.00 % of tools/gpu_cifar10.py", table["cifar10"]), table["cifar10"]
    assert (tmp_path / "out/cifar10.log").read_text().split()[-2:] == [str(tmp_path / "out"), str(images)]
    table = run(script, tmp_path, "cifar10", PYCNN_CIFAR10=str(images), RESULT="1", status=1, **fake_python)
    assert re.match(r"cifar10 +failed \(1\)", table["cifar10"]), table["cifar10"]
    assert not re.search(r"^phase cifar10", script.read_text(), re.MULTILINE)


def test_cifar10_is_found_beside_the_checkout_and_skipped_where_it_is_not(script, tmp_path, fake_python):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    table = run(script, checkout, "cifar10", PYCNN_CIFAR10="", **fake_python)
    assert re.match(r"cifar10 +skipped +\d+ s +skipped: no CIFAR-10 in \.\./shared", table["cifar10"]), table["cifar10"]
    (tmp_path / "shared/data/cifar10").mkdir(parents=True)
    assert re.match(r"cifar10 +ok ", run(script, checkout, "cifar10", PYCNN_CIFAR10="", **fake_python)["cifar10"])


def test_cifar10_in_no_folder_is_a_failure_and_not_replaced(script, tmp_path, fake_python):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (tmp_path / "shared/data/cifar10").mkdir(parents=True)
    table = run(script, checkout, "cifar10", PYCNN_CIFAR10="none", status=1, **fake_python)
    expected = r"cifar10 +failed \(1\) +\d+ s +PYCNN_CIFAR10 must name a folder with CIFAR-10, got none"
    assert re.match(expected, table["cifar10"]), table["cifar10"]


def test_the_updates_in_torch_are_those_of_the_optimizer(root):
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("gpu_cifar10", root / "tools/gpu_cifar10.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    recipe = pycnn.train.recipe(tool.RECIPE)
    rng = np.random.default_rng(0)
    for shape in ((6, 3, 2, 2), (4, 10), (5,)):
        value = torch.from_numpy(rng.standard_normal(shape)).requires_grad_()
        optimizer = tool.Muon({"w": value}, recipe)
        expected, velocity = value.detach().numpy().copy(), np.zeros(shape)
        for rate in (0.05, 0.1):
            gradient = rng.standard_normal(shape)
            value.grad = torch.from_numpy(gradient)
            optimizer.step(rate)
            same = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
            if len(shape) > 1:
                decay = recipe.weight_decay
                expected, velocity = reference.muon(expected, gradient, velocity, rate=rate, weight_decay=decay, **same)
            else:
                scaled = rate * recipe.vector_lr / recipe.lr
                expected, velocity = reference.sgd(expected, gradient, velocity, rate=scaled, **same)
            np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def run_beside_tools(script: Path, code: str, *arguments: object) -> str:
    """Run Python that may import the tools; what it prints."""
    setup = f"import sys; sys.path.insert(0, {str(script.parent)!r})\n"
    command = [sys.executable, "-P", "-c", setup + code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(pycnn.__file__).parent.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


BASELINE = """
import pathlib, sys
import gpu_torch_baseline as tool

calls = []
def measure(row):
    calls.append(row)
    if row.net == "vgg16":
        raise RuntimeError("CUDA out of memory.\\nSee more")
    return {"images_per_s": 100.0, "compile_s": 1.0}

tool.measure = measure
rows = [row for row in tool.ROWS if row.dtype == "bfloat16"]
output = pathlib.Path(sys.argv[1])
for gpu in ("Fake", "Fake", "Another"):
    failed = tool.baseline(rows, output, {"gpu": gpu})
    print("failed", failed, "measured", len(calls), "kinds", *sorted({row.kind for row in calls}))
    calls.clear()
"""


def test_a_baseline_that_fails_does_not_end_the_others_and_is_tried_again(script, tmp_path):
    printed = run_beside_tools(script, BASELINE, tmp_path / "torch.json").splitlines()
    assert [line for line in printed if line.startswith("failed")] == [
        "failed 2 measured 11 kinds infer train",
        "failed 2 measured 2 kinds infer train",
        "failed 2 measured 11 kinds infer train",
    ]
    assert "train vgg16 128: RuntimeError: CUDA out of memory." in printed
    found = json.loads((tmp_path / "torch.json").read_text())
    assert found["gpu"] == "Another"
    assert sum("error" in row for row in found["rows"]) == 2


def test_steps_that_were_not_timed_are_told_by_the_text_of_the_backend(script, root):
    code = """
import gpu_times
late = ["conv2d.cudnn", f"not timed: {gpu_times.LATE} 10 s (PYCNN_CUDA_CHOOSE_SECONDS)"]
print(gpu_times.LATE)
print(gpu_times.MEASURING)
own = ["conv2d.cudnn", f"{gpu_times.MEASURING}: {gpu_times.LATE} 5 s"]
memory = ["conv2d.cudnn", f"{gpu_times.UNTIMED}there is no memory for it; a plan was dropped"]
both = ["conv2d.cudnn", f"{own[1]}; {late[1]}"]
refused = [[late], [["a", "b"], late], [["a", "b"]], [], [own], [own, late], [memory], [both]]
print(gpu_times.steps_not_timed([{"refused": each} for each in refused]))
"""
    text, measuring, count = run_beside_tools(script, code).splitlines()
    header = (root / "csrc/backends/cuda/library_kernel.h").read_text()
    assert f'"{text} "' in header
    assert f'"{measuring}: {text} "' in header
    assert '"not timed: "' in header
    assert count == "5"


TURNS = """
import gpu_times
now, taken = [0.0], []
gpu_times.time.perf_counter = lambda: now[0]
def steps(count):
    taken.append(count)
    now[0] += 0.5 * count
print(gpu_times.times_in_turns({"slow": steps}), sum(taken[-gpu_times.ROUNDS:]))
"""


def test_30_steps_are_timed_of_the_slowest_net(script):
    assert run_beside_tools(script, TURNS).strip() == "{'slow': 0.5} 30"


PEER = """
import gpu_times, torch
gpu_times.DEVICE = "cpu"
kept = []
zero = torch.optim.SGD.zero_grad
def note(self, set_to_none=True):
    kept.append(not set_to_none)
    zero(self, set_to_none=set_to_none)
torch.optim.SGD.zero_grad = note
theirs = gpu_times.Torch(gpu_times.Workload(gpu_times.Row("train", "lenet5", 8)))
theirs.eager(2)
print(kept)
"""


def test_pytorch_need_not_clear_its_gradients(script):
    pytest.importorskip("torch")
    assert run_beside_tools(script, PEER).strip() == "[False, False, False]"


RESIDENT = """
import gpu_times, numpy as np
gpu_times.DEVICE = "cpu"
for kind, result in (("train", "loss"), ("infer", "output")):
    row = gpu_times.Row(kind, "lenet5", 8, "float32")
    here, sent = (gpu_times.Pycnn(gpu_times.Workload(row)) for _ in range(2))
    found = here.begin().wait()[result], sent.host_fed.begin().wait()[result]
    here(3)
    sent.host_fed(3)
    found += here.begin().wait()[result], sent.host_fed.begin().wait()[result]
    same = all(np.array_equal(*pair) for pair in (found[:2], found[2:]))
    names = [each[0] for each in here.program.inputs]
    print(kind, type(here.begin()).__name__, *names, same, np.array_equal(found[0], found[2]))
"""


def test_steps_are_timed_from_images_that_lie_where_they_are_computed(script):
    printed = run_beside_tools(script, RESIDENT).splitlines()
    # A training learns, and no images are among what a step is given.
    assert printed == ["train PendingRun places y True False", "infer PendingRun places True True"]


LEARNING = """
import gpu_times
gpu_times.DEVICE = "cpu"
gpu_times.times_in_turns = lambda steps: dict.fromkeys(steps, 1.0)
gpu_times.profile = lambda program, title: ("", 1.0, 0)
gpu_times.Torch.graph = lambda self: self.eager
row = gpu_times.Row("train", "lenet5", 8)
narrow = gpu_times.Pycnn
class Own(narrow):
    def __init__(self, work):
        work.row = gpu_times.Row("train", "lenet5", 8, "float32")
        narrow.__init__(self, work)
gpu_times.Pycnn = Own
result, _ = gpu_times.measure(row, compiled=False)
learnt = result["learnt"]
print(result["difference"] or "alike", learnt["steps"], abs(learnt["pycnn"] - learnt["float32"]) < 1e-5)
print(*result["seconds"])
gpu_times.CHOSEN_S = 0.0
Own.learnt = lambda self: learnt["pycnn"] * 1.2
result, _ = gpu_times.measure(row, compiled=False)
print(result["difference"].partition(" 2.")[0])
print(*result["seconds"])
print(gpu_times.learnt_difference(float("nan"), 1.0))
"""


@pytest.mark.slow
def test_losses_of_later_steps_are_held_beside_pytorch_in_float32(script):
    pytest.importorskip("torch")
    printed = run_beside_tools(script, LEARNING).splitlines()
    assert printed == [
        "alike 20 True",
        "pycnn host-fed by Trainer eager graph",
        "loss of step 20",
        "pycnn by Trainer eager graph",
        "loss of step 20 nan, PyTorch's in float32 1",
    ]
