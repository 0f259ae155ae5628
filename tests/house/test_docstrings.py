"""Every docstring example runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import pycnn


def modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(pycnn.__path__, "pycnn.") if not m.name.endswith("__main__")]
    return sorted(names)


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"pycnn": pycnn, "np": np}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
