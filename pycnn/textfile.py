"""Files written whole (histories, settings, exported nets): a crash leaves the old file or the new one."""

from __future__ import annotations

import errno
import itertools
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from pycnn.arguments import as_path
from pycnn.errors import FileError

__all__ = ["clear_strays", "temporary_suffix", "write_bytes", "write_text"]

# A process that shares the folder from another machine has a number that means nothing here; no write takes so long.
_STALE_SECONDS = 3600.0
_MAX_STEM = 200  # of a file's name, which may have 255 bytes with the suffix
_STARTED = time.time()

_writes = itertools.count()  # its next() is one step for all threads


def temporary_suffix() -> str:
    """Ending of the name of a file that is being written; another one each time, for threads may write to one path."""
    return f".tmp.{os.getpid()}-{next(_writes)}"


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


def clear_strays(folder: Path, pattern: str) -> None:
    """Remove what processes left in a folder that were killed while they wrote.

    Args:
        folder: The folder; nothing happens where it cannot be read or written.
        pattern: Regular expression of the names of such files in front of `temporary_suffix`. Files stay whose
            process lives, and those of the last hour, whose process may live on another machine.
    """
    name = re.compile(rf"(?:{pattern})\.tmp\.([0-9]+)(?:-[0-9]+)?")
    with suppress(OSError):
        for stray in folder.iterdir():
            found = name.fullmatch(stray.name)
            if found is None:
                continue
            changed = stray.stat().st_mtime
            if time.time() - changed >= _STALE_SECONDS and not _lives(int(found[1]), changed):
                stray.unlink(missing_ok=True)


def _lives(process: int, changed: float) -> bool:
    """Whether the process may live that changed a file then."""
    if process == os.getpid():
        return changed > _STARTED - _STALE_SECONDS  # or else an earlier one had this number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # Somebody else's, or no process's number at all.
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically; what is no regular file, as /dev/stdout, is written in place.

    Raises:
        ArgumentError: The path holds a null character.
        FileError: The system refused; an older file at the path is intact.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file as `write_text` does.

    Raises:
        ArgumentError: The path holds a null character.
        FileError: The system refused; an older file at the path is intact.
    """
    target = as_path(path, who="write")
    stem = target.name[:_MAX_STEM]
    temporary = target.parent / (stem + temporary_suffix())
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        final = target.resolve()
        temporary.replace(final)
        _settle(final.parent)
        clear_strays(target.parent, re.escape(stem))
    except OSError as error:
        with suppress(OSError):  # The first error is the one to tell.
            temporary.unlink(missing_ok=True)
        raise FileError(error.errno, error.strerror, os.fspath(path)) from None
