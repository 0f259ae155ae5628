"""Every Python snippet of the README and every docstring example runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import numpy as np
import pytest

import pycnn


def snippets(root) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("index", [0, 1, 2, 3, 4])
def test_readme_snippet_runs(root, tmp_path, monkeypatch, index, capsys):
    monkeypatch.chdir(tmp_path)
    found = snippets(root)
    assert len(found) == 5
    exec(compile(found[index], f"README snippet {index}", "exec"), {"__name__": "readme"})


def modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(pycnn.__path__, "pycnn.") if not m.name.endswith("__main__")]
    return sorted(names)


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"pycnn": pycnn, "np": np}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
