"""Where a GPU's own module is tested, the emulated device is neither built nor tested with unless somebody asks."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def output(*command) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "ctest", "ninja"))), reason="there is no cmake or ninja")
def test_without_the_emulated_device_nothing_of_it_is_built_or_run(root, tmp_path):
    if not (root / "tests/cpp/CMakeLists.txt").is_file():
        pytest.skip("there is no checkout")
    options = ["-DPYCNN_BUILD_TESTS=ON", "-DPYCNN_CUDA_EMULATED=OFF", "-DPYCNN_CPU_ISAS=", "-DBUILD_SHARED_LIBS=OFF"]
    output("cmake", "-S", root, "-B", tmp_path, "-G", "Ninja", *options)
    built = output("ninja", "-C", tmp_path, "-t", "query", "tests/cpp/all")
    assert "pycnn_tests" in built
    assert "pycnn_cuda" not in built
    tests = output("ctest", "--test-dir", tmp_path, "-N")
    assert "pycnn_tests" in tests
    assert "pycnn_cuda" not in tests
    # tools/gpu_check.sh asks for these.
    targets = output("ninja", "-C", tmp_path, "-t", "targets", "all")
    for target in ("pycnn_cuda_tests", "pycnn_cuda_kernel_times"):
        assert f"{target}: phony" in targets
    assert "pycnn_cuda_emulated" not in output("ninja", "-C", tmp_path, "-n", "pycnn_cuda_kernel_times")
