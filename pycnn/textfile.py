"""Small text files (histories, settings), written so that a crash leaves the old file or the new one."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from pycnn.arguments import as_path
from pycnn.errors import FileError

__all__ = ["write_text"]

# A process that shares the folder from another machine has a number that means nothing here; no write takes so long.
_STALE_SECONDS = 3600.0
_MAX_STEM = 200  # of a file's name, which may have 255 bytes with the suffix


def _settle(folder: Path) -> None:
    """Make a change of names survive a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems cannot; nothing is lost on them.
            raise
    finally:
        os.close(handle)


def _clear(prefix: str, folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    with suppress(OSError):
        for stray in folder.iterdir():
            pid = stray.name.removeprefix(prefix)
            if not stray.name.startswith(prefix) or not pid.isdecimal() or int(pid) == os.getpid():
                continue
            if time.time() - stray.stat().st_mtime < _STALE_SECONDS:
                continue
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                stray.unlink(missing_ok=True)
            except (OSError, OverflowError):
                continue  # Somebody else's, or no process's number at all.


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically; what is no regular file, as /dev/stdout, is written in place.

    Raises:
        ArgumentError: The path holds a null character.
        FileError: The system refused; an older file at the path is intact.
    """
    target = as_path(path, who="write")
    prefix = f"{target.name[:_MAX_STEM]}.tmp."
    temporary = target.parent / f"{prefix}{os.getpid()}"
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        final = target.resolve()
        temporary.replace(final)
        _settle(final.parent)
        _clear(prefix, target.parent)
    except OSError as error:
        with suppress(OSError):  # The first error is the one to tell.
            temporary.unlink(missing_ok=True)
        raise FileError(error.errno, error.strerror, os.fspath(path)) from None
