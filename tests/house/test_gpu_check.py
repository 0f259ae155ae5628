"""What tools/gpu_check.sh promises where there is no GPU to run it: its limits, its table and what it leaves out."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import reference

import pycnn

PHASES = ["probe", "ceilings", "build", "kernels", "rates", "nets", "sanitizer", "tune", "times", "compiled"]


@pytest.fixture(scope="module")
def script(root):
    path = root / "tools/gpu_check.sh"
    if not path.is_file():
        pytest.skip("there is no checkout")
    return path


def run(script: Path, folder: Path, *phases: str, **environment: str) -> dict[str, str]:
    """Run phases of a copy beside nothing else and return the lines of the table by phase."""
    copy = folder / "tools/gpu_check.sh"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(script.read_bytes())
    (folder / "tests").mkdir(exist_ok=True)
    command = ["bash", str(copy), str(folder / "out"), *phases]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return {line.split()[0]: line for line in result.stdout.splitlines()}


def test_all_limits_and_what_ending_the_phases_takes_are_570_seconds_at_most(script):
    text = script.read_text()
    limits = dict(re.findall(r"^(?:if ! )?phase (\w+) (\d+) ", text, re.MULTILINE))
    assert list(limits) == PHASES
    margin = int(re.search(r'timeout --signal=INT --kill-after=(\d+) "\$limit"', text)[1])
    assert sum(map(int, limits.values())) + margin * len(limits) <= 570
    # The sanitizer's two checks are within its phase, and rows of times begin early enough.
    assert 2 * int(re.search(r"timeout [-\w= ]*?(\d+) \"\$tool\"", text)[1]) < int(limits["sanitizer"])
    assert int(re.search(r"'times times --seconds (\d+)'", text)[1]) + 20 <= int(limits["times"])
    tune = re.search(r"CHOOSE_SECONDS=(\d+) .*--tune --seconds (\d+)", text)
    assert int(tune[1]) + int(tune[2]) < int(limits["tune"])


@pytest.mark.parametrize("lines", [0, 5, 40])
def test_the_table_is_25_lines_at_most_with_all_phases(script, tmp_path, lines):
    (tmp_path / "times.txt").write_text("".join(f"time {i}\n" for i in range(lines)))
    rows = [*PHASES, "zoo", "cifar10"]
    table = re.search(r"^table\(\) \{.*?^\}", script.read_text(), re.MULTILINE | re.DOTALL)[0]
    code = f"set -u; out={tmp_path}; rows=({' '.join(rows)}); {table}; table"
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
    (tmp_path / "build-gpu").mkdir()
    (tmp_path / "build-gpu/doctest").write_text("OFF\n")
    table = run(script, tmp_path, "kernels", "rates", "sanitizer")
    for name in ("kernels", "rates"):
        assert re.match(rf"{name} +skipped +\d+ s +skipped: no doctest", table[name]), table[name]
    assert re.match(r"sanitizer +skipped +\d+ s +skipped: no (doctest|compute-sanitizer)", table["sanitizer"])


def test_without_pytest_nets_are_skipped(script, tmp_path):
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\ncase \"$*\" in *'import pytest'*) exit 1;; esac\n")
    python.chmod(0o755)
    table = run(script, tmp_path, "nets", PATH=f"{python.parent}:{os.environ['PATH']}")
    assert re.match(r"nets +skipped +\d+ s +skipped: no pytest", table["nets"]), table["nets"]


def test_trainings_with_tests_for_a_gpu_are_run(script, root):
    calls = " ".join(re.findall(r"net_tests (tests/[^']*)'", script.read_text()))
    marked = [file for file in (root / "tests/train").glob("test_*.py") if "pytest.mark.cuda" in file.read_text()]
    assert marked
    for file in marked:
        assert file.relative_to(root).as_posix() in calls


def test_libraries_do_not_time_kernels_in_tests_of_single_kernels(script):
    text = script.read_text()
    for name in ("kernel_test", "sanitizer"):
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
    table = run(script, tmp_path, "cifar10", PYCNN_CIFAR10=str(images), RESULT="1", **fake_python)
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
    table = run(script, checkout, "cifar10", PYCNN_CIFAR10="none", **fake_python)
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
