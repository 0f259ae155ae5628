"""Runs a command that builds the package and fails if it took more processor time than the budget.

    python tools/build_budget.py pip install .

The budget is 90 s on two cores; counted are processor seconds of the command and its children. Other work on the same
machine lengthens them too (caches and clock are shared), so that only half more than the budget is refused. A slower
machine is given more: as many times as it takes longer for a small file, compiled before the build and after it.
Whatever was built before must not help: the build gets an empty folder, SKBUILD_BUILD_DIR if that is set, and no
compiler cache.
What was measured holds for the sdist too: it must carry every file that the build may read.
"""

import os
import resource
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

BUDGET_S = 180.0  # processor seconds: 90 s on two cores
REFUSED_S = 1.5 * BUDGET_S
# Compiled in so many processor seconds on the machine that the budget is for (Zen 4, two cores, quiet).
PROBE_S = 0.7
PROBE = """
#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>
using Table = std::map<std::string, std::vector<std::function<int(const std::string&)>>>;
int count(const Table& table, std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  int sum = 0;
  for (const auto& [key, functions] : table)
    for (const auto& function : functions) sum += function(key + names.front());
  return sum;
}
"""
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


def children_seconds() -> float:
    """Processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def probe_seconds() -> float:
    """Processor time of the probe, the least of three."""
    compiler = shlex.split(f"{os.environ.get('CXX', 'c++')} -std=c++20 -O2 -c -x c++ - -o /dev/null")
    seconds = []
    for _ in range(3):
        before = children_seconds()
        subprocess.run(compiler, input=PROBE, check=True, text=True)
        seconds.append(children_seconds() - before)
    return min(seconds)


def main() -> int:
    missing = missing_in_sdist()
    if missing:
        print("the sdist lacks:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    probes = [probe_seconds()]
    before, start = children_seconds(), time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(os.environ.get("SKBUILD_BUILD_DIR", empty))
        if folder.exists() and any(folder.iterdir()):
            print(f"{folder} is not empty", file=sys.stderr)
            return 1
        status = subprocess.run(sys.argv[1:], env=build_environment(str(folder))).returncode
    wall, used = time.monotonic() - start, children_seconds() - before
    if status:
        return status
    probes.append(probe_seconds())
    slowness = max(1.0, sum(probes) / len(probes) / PROBE_S)
    print(
        f"build: {used:.0f} processor seconds of {BUDGET_S:.0f}, {wall:.0f} s of time on {os.cpu_count()} processors, "
        f"which take {slowness:.2f} times as long as those of the budget"
    )
    if used > BUDGET_S * slowness:
        print("build: over its budget of 90 s on two cores", file=sys.stderr)
    return int(used > REFUSED_S * slowness)


if __name__ == "__main__":
    sys.exit(main())
