"""Reads "Example:" in docstrings, as the house writes it, as the section that griffe calls "Examples:"."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Examples"]


class Examples(griffe.Extension):
    """An extension of griffe, which reads the sources for the reference."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the heading of the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
