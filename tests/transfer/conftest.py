"""Fixtures of the tests of transfer learning."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_nets import make_tiny_net

import pycnn as pc


@pytest.fixture(autouse=True)
def _one_division_into_folds(monkeypatch):
    """Repeated folds only take time here."""
    monkeypatch.setattr("pycnn.transfer.linear._REPEATS", 1)


@pytest.fixture
def tiny_net() -> pc.nn.Module:
    return make_tiny_net()


@pytest.fixture
def photos(tmp_path):
    """A folder DIR/{train,val}/CLASS of small PNG files of several sizes."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("blue", "red")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 130, (14 + i, 18, 3))
                pixels[..., 2 - 2 * label] += 90
                image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"
