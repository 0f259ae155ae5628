"""What pycnn may cost: size, start-up, memory.

Times are of processors, minima of several runs: others may be busy. They are those of a machine on which Python alone
takes 12 ms; a slower one, or one that is slow because of others, is given more in proportion.
"""

from __future__ import annotations

import io
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

import pycnn


def best_seconds(*command: str, runs: int = 9) -> float:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(runs):
        begin = spent()
        subprocess.run(command, check=True, capture_output=True)
        times.append(spent() - begin)
    return min(times)


def slowness() -> float:
    """How many times as long as on that machine Python takes here, at least 1."""
    return max(1.0, best_seconds(sys.executable, "-P", "-c", "pass") / 0.012)


def resident_bytes() -> int:
    # Exact, where statm may be some pages short for each processor.
    sizes = re.findall(r"^Rss: +([0-9]+) kB", Path("/proc/self/smaps").read_text(), re.MULTILINE)
    return 1024 * sum(map(int, sizes))


def stays_flat(work: Callable[[], object]) -> bool:
    """Whether work that is done again takes no more memory; a huge page that the system makes may look like it once."""

    def growth() -> int:
        before = resident_bytes()
        work()
        return resident_bytes() - before

    return any(growth() < 1_000_000 for _ in range(3))


def test_wheel_stays_below_5_mb_compressed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in metadata.files("pycnn") or []:
            path = Path(file.locate())
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path)
    size = len(buffer.getvalue())
    assert 100_000 < size < 5_000_000


def test_base_install_needs_numpy_and_tqdm_only():
    requires = [r for r in metadata.requires("pycnn") or [] if "extra ==" not in r]
    assert sorted(re.match(r"[a-z]+", r)[0] for r in requires) == ["numpy", "tqdm"]


def test_import_costs_at_most_30_ms_more_than_numpy():
    numpy_alone = best_seconds(sys.executable, "-P", "-c", "import numpy")
    with_pycnn = best_seconds(sys.executable, "-P", "-c", "import numpy, pycnn")
    assert with_pycnn - numpy_alone < 0.030 * slowness()


def test_help_and_version_take_at_most_60_ms():
    for option in ("--help", "--version"):
        code = f"import sys; from pycnn.cli import main; sys.exit(main(['{option}']))"
        assert best_seconds(sys.executable, "-P", "-c", code) < 0.060 * slowness()


def test_memory_stays_flat_over_many_predictions():
    net = pycnn.models.create("lenet5")
    x = np.zeros((1, 28, 28, 1), np.float32)
    for _ in range(2_000):
        net(x)

    def predict():
        for _ in range(100_000):
            net(x)

    assert stays_flat(predict)


def test_memory_stays_flat_over_many_training_steps():
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, 8)
    trainer = pycnn.Trainer(pycnn.models.create("lenet5"), optimizer=pycnn.optim.SGD(lr=1e-3))
    for _ in range(200):
        trainer.step(x, y)

    def train():
        for _ in range(3_000):
            trainer.step(x, y)

    assert stays_flat(train)
