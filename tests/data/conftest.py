"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

_SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data():
    """Folder with real data sets beside the repository; skips where there is none."""

    def find(name: str) -> Path:
        path = _SHARED / name
        if not path.is_dir():
            pytest.skip(f"needs the data set in ../shared/data/{name}")
        return path

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    """Fixed seed, so that a failure repeats."""
    return np.random.default_rng(20240917)
