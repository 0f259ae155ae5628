"""Packages that only some features need; the base install does without them."""

from __future__ import annotations

import importlib
from types import ModuleType

from pycnn.errors import UnsupportedError

__all__ = ["optional"]


def optional(module: str, *, extra: str, who: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Dotted name, for example "matplotlib.figure".
        extra: The extra of pycnn that brings it.
        who: What needs it, for the message.

    Returns:
        The module.

    Raises:
        UnsupportedError: The package is not installed; the text says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UnsupportedError(
            f"{who} needs {package}, which cannot be imported ({error})\n"
            f"  hint: pip install 'pycnn[{extra}]' or pip install {package}"
        ) from error
