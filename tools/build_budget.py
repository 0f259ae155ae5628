"""Runs a command that builds the package and fails if it took more processor time than the budget.

    python tools/build_budget.py pip install .

The budget is 90 s on two cores; counted are processor seconds of the command and its children. Other work on the same
machine lengthens them too (caches and clock are shared), so that only half more than the budget is refused. Whatever
was built before must not help: the build gets an empty folder, SKBUILD_BUILD_DIR if that is set, and no compiler cache.
What was measured holds for the sdist too: it must carry every file that the build may read.
"""

import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

BUDGET_S = 180.0  # processor seconds: 90 s on two cores
REFUSED_S = 1.5 * BUDGET_S
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["CMakeLists.txt", "README.md", "LICENSE", "cmake", "csrc", "pycnn", "pyproject.toml"]


def missing_in_sdist() -> list[str]:
    """Files under version control that the build may read and the sdist lacks."""
    command = ["git", "ls-files", "--", *SOURCES]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    with tempfile.TemporaryDirectory() as folder:
        make = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
        subprocess.run([sys.executable, "-P", "-c", make, folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            names = {name.partition("/")[2] for name in tar.getnames()}
    return sorted(set(tracked) - names)


def build_environment(folder: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_COMPILER_LAUNCHER")}
    return environment | {"SKBUILD_BUILD_DIR": folder}


def main() -> int:
    missing = missing_in_sdist()
    if missing:
        print("the sdist lacks:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(os.environ.get("SKBUILD_BUILD_DIR", empty))
        if folder.exists() and any(folder.iterdir()):
            print(f"{folder} is not empty", file=sys.stderr)
            return 1
        status = subprocess.run(sys.argv[1:], env=build_environment(str(folder))).returncode
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        return status
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"build: {used:.0f} processor seconds of {BUDGET_S:.0f}, {wall:.0f} s of time on {os.cpu_count()} processors")
    if used > BUDGET_S:
        print("build: over its budget of 90 s on two cores", file=sys.stderr)
    return int(used > REFUSED_S)


if __name__ == "__main__":
    sys.exit(main())
