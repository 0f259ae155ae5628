"""Runs a script in several ranks, one thread each, with a hard end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tolerances import unit

_TIMEOUT_SECONDS = 240  # only what hangs takes so long, on a busy machine, too


def mpiexec() -> str:
    """The launcher beside this Python; skips the test where it or mpi4py is missing."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed: pip install 'pycnn[mpi]'")
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def environment(**more: str) -> dict[str, str]:
    """For ranks on a small machine, perhaps as root."""
    return {
        **os.environ,
        "PYCNN_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        **more,
    }


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def finished(command: list[str], env: dict[str, str], cwd: Path) -> Outcome:
    """Run a command; after some minutes, end it and all that it started."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=_TIMEOUT_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"not done after {_TIMEOUT_SECONDS} s:\n{out}\n{err}")
    return Outcome(process.returncode, out, err)


def run_ranks(count: int, script: str, cwd: Path, *arguments: str, **env: str) -> Outcome:
    """Run a script in `count` ranks."""
    launcher = mpiexec()
    file = cwd / "script.py"
    file.write_text(textwrap.dedent(script), encoding="utf-8")
    command = [launcher, "-n", str(count), sys.executable, "-P", str(file), *arguments]
    return finished(command, environment(**env), cwd)


# Run by each rank and, alone, by the test itself.
COMMON = """
import json, sys, time
import numpy as np
import pycnn as pc
from pycnn import dist, nn, optim
from pycnn.data import ArrayDataset
from pycnn.data.transforms import Compose, Mixup, RandomCrop


def data(count=45):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, count)
    images = rng.random((count, 8, 8, 1), np.float32)
    images[np.arange(count), labels, labels] += 2
    return ArrayDataset(images, labels)


def plain():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    )


def normed():
    return nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))


def trainer(net, **options):
    pc.manual_seed(7 + dist.rank())  # so that ranks begin with other weights
    net = net()
    options.setdefault("optimizer", optim.SGD(0.05, momentum=0.9))
    return pc.Trainer(net, seed=3, **options)


def augmented():
    made = trainer(plain, clip_norm=0.7, ema_decay=0.9)
    made.fit(data(), val=data(10), epochs=2, batch_size=6, transform=Compose([RandomCrop(8, padding=1), Mixup(0.5)]),
             progress=False, workers=0)
    return made


def state_of(made):
    return {name: made.variables[name].numpy() for name in made.variables if name != "train.seed"}
"""


def namespace():
    values = {}
    exec(COMMON, values)
    return values


def lines_of(outcome):
    """What the ranks printed as JSON, by rank."""
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines() if line.startswith("{")]
    return {row["rank"]: row for row in rows}


def assert_close(found, expected, what, *, steps):
    """As near as sums in another order come: a few roundings a step, which later steps double."""
    scale = float(np.abs(expected).max()) or 1.0
    error = float(np.abs(np.asarray(found, np.float64) - expected).max())
    assert error <= 64 * steps * unit() * scale, f"{what}: {error / scale / unit():.0f} units"
