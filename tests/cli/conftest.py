"""Running commands inside of the test's process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pycnn.cli import main


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one line of JSON on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    @property
    def next(self):
        """What the last line of standard error suggests."""
        last = self.err.splitlines()[-1]
        assert last.startswith("next: ")
        return last.removeprefix("next: ")


@pytest.fixture
def run(capfd, monkeypatch):
    for name in ("PYCNN_TRACEBACK", "PYCNN_MAX_ISA", "PYCNN_NUM_THREADS", "PYCNN_STRASSEN"):
        monkeypatch.delenv(name, raising=False)

    def command(*words) -> Result:
        capfd.readouterr()
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A file of LeNet-5, trained a little."""
    path = tmp_path_factory.mktemp("cli") / "lenet5.safetensors"
    assert main(["train", "--epochs", "4", "--output", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of two classes of small pictures."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, base in (("dark", 60), ("light", 190)):
        (root / name).mkdir()
        for index in range(10):
            pixels = base + random.integers(-40, 40, (36, 40, 3))
            image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def has_types():
    """Checks that every value has its type, and that there is no other."""

    def check(values, **types):
        assert set(values) == set(types), set(values) ^ set(types)
        for name, kind in types.items():
            assert isinstance(values[name], kind), f"{name} is {values[name]!r}"
            assert kind is bool or not isinstance(values[name], bool), name

    return check
