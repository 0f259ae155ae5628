"""Fail when any part of the CUDA module lacks code for a GPU that it is built for.

What an entry is for stands before it and is never compressed, so this needs no cuobjdump, which many toolkits lack.
Usage: check_cuda_architectures.py MODULE ENTRY..., with each entry as nvcc's options name it: sm_80, compute_90.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

# A container: magic number, version, bytes of this header, bytes of all entries behind it.
CONTAINER = struct.Struct("<IHHQ")
START = struct.pack("<IH", 0xBA55ED50, 1)
# An entry: kind, two bytes, bytes of this header, bytes of the code behind it, 12 bytes, architecture.
ENTRY = struct.Struct("<HHIQ12xI")
KINDS = {1: "compute", 2: "sm"}  # PTX, machine code


def containers(data: bytes) -> list[list[str]]:
    """Return what each container in a file, one of each source of kernels, holds code for."""
    found = []
    position = data.find(START)
    while position >= 0:
        _, _, header, size = CONTAINER.unpack_from(data, position)
        position += header
        end = position + size
        names = []
        while position < end:
            kind, _, header, size, architecture = ENTRY.unpack_from(data, position)
            if header < ENTRY.size:  # of none, the next entry would be the same one
                raise ValueError(f"an entry's header of {header} bytes at {position}, expected at least {ENTRY.size}")
            names.append(f"{KINDS.get(kind, f'kind {kind}')}_{architecture}")
            position += header + size
        # Where the sizes do not add up, this format is not the one that is known here.
        if position != end:
            raise ValueError(f"entries end {position - end} bytes behind their container")
        found.append(sorted(names))
        position = data.find(START, end)
    return found


def check(module: Path, wanted: list[str]) -> list[str]:
    """Return what is wrong with the module."""
    try:
        found = containers(module.read_bytes())
    except OSError as error:
        return [f"{module}: {error.strerror}"]
    except (struct.error, ValueError) as error:
        return [f"{module}: its kernels cannot be listed: {error}"]
    if not found:
        return [f"{module}: no kernels in it"]
    bad = {" ".join(names) or "nothing" for names in found if names != sorted(wanted)}
    if not bad:
        print(f"cuda architectures: ok ({' '.join(sorted(wanted))} in each of {len(found)} parts)")
    return [f"{module}: a part holds {names}, expected {' '.join(sorted(wanted))}" for names in sorted(bad)]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(str(__doc__).splitlines()[-1])
    wrong = check(Path(sys.argv[1]), sys.argv[2:])
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
