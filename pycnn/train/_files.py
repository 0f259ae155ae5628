"""What training writes beside checkpoints: directories and pictures."""

from __future__ import annotations

import errno
from os import PathLike
from pathlib import Path
from typing import Any

from pycnn.arguments import as_path
from pycnn.errors import FileError

__all__ = ["make_directory", "save_figure"]


def make_directory(directory: Path, *, who: str) -> None:
    """Make a directory and those above it, where they are missing.

    Args:
        directory: It may be there already.
        who: For the message: who asks, and the argument.

    Raises:
        FileError: The system refused, or a file is there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(errno.ENOTDIR, f"{who}: is a file, expected a directory", str(directory)) from None
    except OSError as error:
        raise FileError(error.errno, f"{who}: {error.strerror}", str(directory)) from None


def save_figure(figure: Any, path: str | PathLike[str], *, who: str) -> None:
    """Write a figure of matplotlib as the file's ending says; its directory is made when missing.

    Raises:
        FileError: The system refused.
    """
    target = as_path(path, who=who)
    make_directory(target.parent, who=who)
    try:
        figure.savefig(target, dpi=120)
    except OSError as error:
        raise FileError(error.errno, f"{who}: {error.strerror}", str(target)) from None
