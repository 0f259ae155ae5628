"""Tests marked `cuda` skip where no GPU can be used."""

from __future__ import annotations

import pytest

from pycnn.config import machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and "cuda:0" not in machine()["devices"]:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no GPU that pycnn can use"))
