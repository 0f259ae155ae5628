"""The reference has every public module and every public name, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pycnn

ROOT = Path(__file__).resolve().parents[2]
#: Public modules that are not attributes of the package.
FURTHER = (
    "pycnn.benchmark",
    "pycnn.checkpoint",
    "pycnn.generations",
    "pycnn.models.filters",
    "pycnn.sklearn",
    "pycnn.testing.strategies",
)


def public_modules() -> set[str]:
    found = set()

    def visit(name: str) -> None:
        if name in found:
            return
        found.add(name)
        module = importlib.import_module(name)
        for member in module.__all__:
            value = getattr(module, member)
            if inspect.ismodule(value) and value.__name__.startswith("pycnn."):
                visit(value.__name__)

    for name in ("pycnn", *FURTHER):
        visit(name)
    return found


def documented() -> list[str]:
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]


def resolve(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_every_public_name_is_on_a_page():
    shown = set(documented())
    missing = []
    for module in sorted(public_modules()):
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            if name.startswith("__") or inspect.ismodule(value):
                continue
            # Errors are shown at home, though the root has them too.
            homes = {f"{module}.{name}", f"pycnn.errors.{name}"} if name.endswith("Error") else {f"{module}.{name}"}
            if not homes & shown:
                missing.append(f"{module}.{name}")
    assert not missing, f"docs/reference lacks {missing}"


def test_every_network_is_on_a_page():
    shown = {name.rpartition(".")[2] for name in documented() if name.startswith("pycnn.models.")}
    assert set(pycnn.models.list()) <= shown


def test_every_name_on_a_page_exists_and_is_public():
    for name in documented():
        assert resolve(name) is not None
        assert not any(part.startswith("_") for part in name.split(".")), name


def test_no_name_is_shown_twice_on_a_page():
    shown = documented()
    assert len(shown) == len(set(shown))
