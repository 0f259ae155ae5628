"""Looks into a wheel, then installs it into a bare virtual environment and uses it.

    python tools/check_wheel.py WHEEL [--python INTERPRETER]

libpycnn must have its own name, and nothing else may be bundled: above all no second OpenMP runtime under another name.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 5_000_000  # compressed
REQUIRED = ["numpy", "tqdm"]  # without an extra
# What libraries may be linked to. CUDA's are loaded by the module that is not in this wheel.
LINKED = re.compile(
    r"(libpycnn|libstdc\+\+|libgcc_s|libgomp|libomp|libc|libm|libmvec|libdl|libpthread|librt|ld-linux-[\w-]+)\.so[.\d]*"
)
NEEDED = (
    "pycnn/py.typed",
    "pycnn/_core.pyi",
    "pycnn/data/_image.pyi",
    "pycnn/data/digits.npz",
    "pycnn/data/DIGITS_LICENSE",
    "pycnn/include/pycnn/pycnn.h",
    "pycnn/include/pycnn/export.h",
    "pycnn/lib/libpycnn.so",
    "pycnn/lib/cmake/pycnn/pycnnConfig.cmake",
    "pycnn/lib/cmake/pycnn/pycnnTargets.cmake",
)


def version() -> str:
    return (ROOT / "pycnn" / "version.py").read_text().split('__version__ = "')[1].split('"')[0]


def requirements(metadata: str) -> list[str]:
    """Names of what is installed with the wheel and without an extra."""
    lines = re.findall(r"^Requires-Dist: ([\w.-]+)(.*)$", metadata, re.MULTILINE)
    return sorted(name for name, rest in lines if "extra ==" not in rest)


def linked(library: Path) -> list[str]:
    """The libraries that one names, by binutils' readelf."""
    text = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def link_problems(archive: zipfile.ZipFile) -> list[str]:
    if shutil.which("readelf") is None:
        return []
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in archive.namelist():
            if name.endswith(".so"):
                others = [other for other in linked(Path(archive.extract(name, folder))) if not LINKED.fullmatch(other)]
                found += [f"{name} is linked to {other}" for other in others]
    return found


def problems(wheel: Path) -> list[str]:
    """What is wrong with the file."""
    found = []
    size = wheel.stat().st_size
    if size > MOST_BYTES:
        found.append(f"{size} bytes, the limit is {MOST_BYTES}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        found += link_problems(archive)
    if requirements(text) != REQUIRED:
        found.append(f"it requires {requirements(text)}, expected {REQUIRED}")
    found += [f"lacks {name}" for name in NEEDED if name not in names]
    if f"\nVersion: {version()}\n" not in text:
        found.append(f"its version is not that of pycnn/version.py, {version()}")
    libraries = sorted(Path(name).name for name in names if ".so" in Path(name).name)
    if [name.split(".")[0] for name in libraries] != ["_core", "_image", "libpycnn"]:
        found.append(f"its libraries are {libraries}, expected _core, _image and libpycnn alone")
    for suffix in (".pyx", ".pxi", ".cpp", ".pyc"):
        found += [f"holds {name}" for name in names if name.endswith(suffix)]
    return found


def try_out(wheel: Path, python: str) -> None:
    """Install the wheel and what it needs, and nothing else, and run tools/smoke_install.py."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True, env=bare)
        inside = f"{folder}/bin/python"
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([inside, "-m", "pip", "install", *quiet, str(wheel.resolve())], check=True, env=bare)
        script = ROOT / "tools" / "smoke_install.py"
        subprocess.run([inside, "-P", str(script), version()], check=True, cwd=folder, env=bare)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a wheel")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the virtual environment")
    arguments = parser.parse_args()
    found = problems(arguments.wheel)
    for problem in found:
        print(f"{arguments.wheel.name}: {problem}")
    if found:
        return 1
    try_out(arguments.wheel, arguments.python)
    print(f"{arguments.wheel.name}: {arguments.wheel.stat().st_size} bytes, ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
