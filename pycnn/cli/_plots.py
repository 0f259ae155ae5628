"""Pictures that end a long computation: checked before it, and unable to take its result away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pycnn.cli._options import UsageError
from pycnn.optional import optional

__all__ = ["attempt", "check", "unused"]


def check(option: str, path: Path) -> None:
    """Refuse before the work a picture that could not be written after it.

    Raises:
        UnsupportedError: matplotlib is not installed.
        UsageError: The ending is no format of pictures, or the file cannot be written there.
    """
    optional("matplotlib", extra="plot", who=option)
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        endings = ", ".join(f".{name}" for name in sorted(formats))
        raise UsageError(f"{option} '{path}': the ending must be one of {endings}")
    if path.is_dir():
        raise UsageError(f"{option} '{path}' is a folder, expected a file")
    # Missing folders are made when the picture is written.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(f"{option} '{path}': '{folder}' is no folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{option} '{path}' may not be written")


def attempt(draw: Callable[[Path], object], path: Path) -> tuple[Path | None, Exception | None]:
    """Draw; a failure is handed back, to be raised once the results are out.

    Returns:
        The picture if there is one, and what went wrong otherwise.
    """
    try:
        draw(path)
    except Exception as error:
        return None, error
    return path, None


def unused(path: Path) -> Path:
    """The path, or with -2, -3, ... in its name the first that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
