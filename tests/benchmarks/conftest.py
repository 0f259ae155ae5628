"""The benchmarks are no part of the package: they are loaded from the repository, pycnn stays the installed one."""

from __future__ import annotations

import importlib.util
import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def benchmarks(root):
    """Make `benchmarks` importable."""
    folder = root / "benchmarks"
    if "benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["benchmarks"] = module
        spec.loader.exec_module(module)
    return sys.modules["benchmarks"]
