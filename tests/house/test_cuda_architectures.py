"""What `.ci/cuda` says of the GPUs that the module was built for (tools/check_cuda_architectures.py)."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_cuda_architectures.py"
WANTED = ("sm_80", "sm_90", "compute_90")
PTX, MACHINE = 1, 2
ALL = [(MACHINE, 80), (MACHINE, 90), (PTX, 90)]


def container(entries, code=b"sm_75 and more"):
    """A part of a module with these kinds and architectures, laid out as nvcc 13.0 does."""
    body = b"".join(
        struct.pack("<HHIQ12xI", kind, 257, 64, len(code), architecture) + bytes(32) + code
        for kind, architecture in entries
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def run(folder, data, *wanted):
    module = folder / "module.so"
    module.write_bytes(b"\x7fELF of the host" + data + b"and more")
    return check(module, *wanted)


def check(*arguments):
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_every_part_for_all_passes(tmp_path):
    ran = run(tmp_path, container(ALL) + bytes(5) + container(ALL[::-1]), *WANTED)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout == "cuda architectures: ok (compute_90 sm_80 sm_90 in each of 2 parts)\n"


@pytest.mark.parametrize(
    ("entries", "held"),
    [
        (ALL[:2], "sm_80 sm_90"),
        (ALL[1:], "compute_90 sm_90"),
        ([(MACHINE, 80), (MACHINE, 90), (PTX, 80)], "compute_80 sm_80 sm_90"),
        ([*ALL, (MACHINE, 100)], "compute_90 sm_100 sm_80 sm_90"),
        ([], "nothing"),
    ],
)
def test_one_part_for_others_fails(tmp_path, entries, held):
    ran = run(tmp_path, container(ALL) + container(entries), *WANTED)
    assert ran.returncode == 1
    assert ran.stdout.endswith(f"module.so: a part holds {held}, expected compute_90 sm_80 sm_90\n")


def test_without_kernels_or_in_another_format_it_fails(tmp_path):
    ran = run(tmp_path, b"", *WANTED)
    assert (ran.returncode, ran.stdout.partition(": ")[2]) == (1, "no kernels in it\n")
    # An entry that is longer than what holds it, one that is cut off, and one of nothing, behind which none would come.
    longer = bytearray(container(ALL))
    longer[16 + 8] += 1
    nothing = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 64) + bytes(64)
    for broken in (bytes(longer), struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 99), nothing):
        ran = run(tmp_path, broken, *WANTED)
        assert (ran.returncode, "its kernels cannot be listed" in ran.stdout) == (1, True), ran.stdout + ran.stderr


def test_without_a_module_or_what_to_look_for_it_fails(tmp_path):
    ran = check(tmp_path / "none.so", *WANTED)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, f"{tmp_path}/none.so: No such file or directory\n", "")
    for arguments in ((), (tmp_path / "none.so",)):
        ran = check(*arguments)
        assert ran.returncode == 1
        assert ran.stderr.startswith("Usage: check_cuda_architectures.py MODULE ENTRY...")


def test_what_is_asked_for_is_what_is_built(root):
    built = re.search(r'CUDA_ARCHITECTURES "(.*?)"', (root / "csrc/backends/cuda/CMakeLists.txt").read_text())[1]
    names = [("sm_" if kind == "real" else "compute_") + number for number, kind in re.findall(r"(\d+)-(\w+)", built)]
    call = re.search(r"check_cuda_architectures\.py \"\$module\" (.*)", (root / ".ci/cuda").read_text())[1]
    assert call.split() == names == list(WANTED)
