"""Run a command, or a Python program, in several processes that train one net together.

Each process (rank) takes a part of every batch; results are those of one process but for rounding. Needs mpi4py and an
MPI: pip install 'pycnn[mpi]'. The same as mpiexec -n N pycnn COMMAND ..., with the processors divided among the ranks.

Examples:
  pycnn launch -n 2 train --epochs 3
  pycnn launch -n 4 train --recipe cifar_resnet20 --data-dir DIR --run-dir runs/four
  pycnn launch -n 2 my_training.py --my-option 1
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pycnn.cli import COMMANDS, _options
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.config import machine
from pycnn.dist._environment import place
from pycnn.errors import UnsupportedError

__all__ = ["RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_THREADS = True

# More ranks than slots, ranks not bound to a core each, as root in containers: Open MPI 5, then 4. Others ignore them.
_OPEN_MPI = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "-n", "--ranks", type=_options.count, required=True, metavar="N", help="how many processes, on this machine"
    )
    parser.add_argument("what", metavar="COMMAND|FILE.py", help="a command of pycnn, or a Python program")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its options")


def run(args: argparse.Namespace, output: Output) -> int:
    """Become the launcher of MPI, which starts the processes."""
    program, environment = prepare(args, os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program[0], program, environment)  # signals and exit code are the launcher's own then


def prepare(args: argparse.Namespace, before: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The launcher's command line, and its environment.

    Raises:
        UsageError: There is no such command or file, or this is a rank itself.
        UnsupportedError: mpi4py or the launcher is missing.
    """
    if args.what.endswith(".py"):
        if not Path(args.what).is_file():
            raise UsageError(f"there is no file '{args.what}'")
        words = [sys.executable, args.what]
    elif args.what in COMMANDS and args.what != "launch":
        words = [sys.executable, "-P", "-m", "pycnn", args.what]
    else:
        raise UsageError(f"'{args.what}' is neither a command of pycnn nor a file of Python (.py)")
    if place().size > 1:
        raise UsageError("this process is one of several already")
    environment = dict(before)
    for name, value in {**_OPEN_MPI, **(_AS_ROOT if os.geteuid() == 0 else {})}.items():
        environment.setdefault(name, value)
    threads = args.threads or machine()["threads"]
    if not {"PYCNN_NUM_THREADS", "OMP_NUM_THREADS"} & set(before):
        environment["PYCNN_NUM_THREADS"] = str(max(threads // args.ranks, 1))
    return [find_launcher(), "-n", str(args.ranks), *words, *args.words], environment


def find_launcher() -> str:
    """The mpiexec beside this Python, where the extra puts it, or else the first on the path.

    Raises:
        UnsupportedError: There is none, or no mpi4py.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.is_file() else shutil.which("mpiexec")
    missing = "mpi4py" if importlib.util.find_spec("mpi4py") is None else None if found else "mpiexec, of an MPI"
    if missing is not None or found is None:
        raise UnsupportedError(
            f"several processes need {missing}, which is not there\n  hint: pip install 'pycnn[mpi]'"
        )
    return found
