"""Small text files (histories, settings), written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pycnn.errors import FileError

__all__ = ["write_text"]

_MAX_STEM = 200  # of a file's name, which may have 255 bytes with the suffix


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically; what is no regular file, as /dev/stdout, is written in place.

    Raises:
        FileError: The system refused; an older file at the path is intact.
    """
    target = Path(path)
    temporary = target.parent / f"{target.name[:_MAX_STEM]}.tmp.{os.getpid()}"
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target.resolve())
    except OSError as error:
        with suppress(OSError):  # The first error is the one to tell.
            temporary.unlink(missing_ok=True)
        raise FileError(error.errno, error.strerror, os.fspath(path)) from None
