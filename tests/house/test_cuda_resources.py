"""What `.ci/cuda` says of kernels that keep tables or registers in memory (tools/check_cuda_resources.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_cuda_resources.py"
LINE = "  REG:{} STACK:{} SHARED:1024 LOCAL:{} CONSTANT[0]:4936 TEXTURE:0 SURFACE:0 SAMPLER:0\n"


def run(folder, kernels, tool="cuobjdump", path="/usr/bin:/bin"):
    """The tool beside a cuobjdump that lists these kernels: name, bytes of stack and of local memory."""
    listing = "".join(f" Function {name}:\n" + LINE.format(40, stack, local) for name, stack, local in kernels)
    (folder / "listing").write_text(
        "\nFatbin elf code:\narch = sm_90\nResource usage:\n Common:\n  GLOBAL:0\n" + listing
    )
    fake = folder / "cuobjdump"
    fake.write_text(f'#!/bin/sh\n[ "$1 $2" = "--dump-resource-usage module.so" ] && cat {folder}/listing\n')
    fake.chmod(0o755)
    environment = dict(os.environ, PATH=f"{folder / 'nothing'}:{path}")
    return subprocess.run(
        [sys.executable, TOOL, "module.so", folder / tool], capture_output=True, text=True, check=False, env=environment
    )


def test_spilled_registers_pass(tmp_path):
    ran = run(tmp_path, [("a", 0, 0), ("b", 80, 0)])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "cuda resources: ok (2 kernels, at most 80 bytes for a thread)\n"


@pytest.mark.parametrize("bytes_of", [(4096, 0), (0, 4096), (72, 64)])
def test_a_copied_table_is_told_by_its_kernel(tmp_path, bytes_of):
    ran = run(tmp_path, [("a", 0, 0), ("update_of_all", *bytes_of), ("c", 0, 0)])
    assert ran.returncode == 1
    assert ran.stdout == f"update_of_all: {sum(bytes_of)} bytes for each thread, more than 128\n"


def test_a_module_without_kernels_fails(tmp_path):
    ran = run(tmp_path, [])
    assert ran.returncode == 1
    assert "no kernels" in ran.stdout


def test_without_the_tool_it_says_so(tmp_path):
    if Path("/usr/local/cuda/bin/cuobjdump").exists():
        pytest.skip("this machine has one")
    ran = run(tmp_path, [("a", 4096, 0)], tool="another", path="")
    assert ran.returncode == 0
    assert ran.stdout.startswith("no cuobjdump")
