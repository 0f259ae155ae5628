"""Opening of data files: regular files only, errors with errno and path, bounded gzip."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pycnn.errors import FileError, FormatError

PathLike = str | os.PathLike[str]

_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot expand more than this (zlib's "maximum compression factor", 1032:1).
_MAX_EXPANSION = 1032
_CHUNK = 1 << 20
# Small, because zlib copies what is left of the input at the end of every gzip member.
_INPUT = 1 << 16


def open_regular(path: Path) -> BinaryIO:
    """Open for reading without ever waiting: a pipe or device is refused.

    Raises:
        FileError: The operating system refuses; carries errno and path.
        FormatError: Not a regular file.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO that nobody writes to waits for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError(f"'{path}': not a regular file")
    return os.fdopen(descriptor, "rb")


def list_directory(path: Path) -> list[str]:
    """Sorted names in a directory; FileError with errno and path where it cannot be read."""
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from None


class Stream:
    """A file read front to back, unpacked when its content starts like gzip.

    `read` gives at most what was asked for, so the output of a small hostile file stays as small
    as the caller wants. CRC and length of every gzip member are verified by zlib.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._file = open_regular(path)
        self.file_bytes = os.fstat(self._file.fileno()).st_size
        head = self._file.read(2)
        self._file.seek(0)
        self.packed = head == _GZIP_MAGIC
        self._unpacker = zlib.decompressobj(wbits=31) if self.packed else None
        self._input = b""

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def where(self) -> str:
        """Where reading stands, for messages."""
        return f"byte {self.offset}" + (" of the unpacked data" if self.packed else "")

    @property
    def most_bytes(self) -> int:
        """No more than this can come out of the file."""
        return self.file_bytes * (_MAX_EXPANSION if self.packed else 1)

    def read(self, count: int) -> bytearray:
        """Up to `count` bytes; fewer only at the end of the data.

        Raises:
            FormatError: The gzip data is damaged or cut off.
            FileError: The operating system cannot read.
        """
        out = bytearray()
        while len(out) < count:
            piece = self._piece(min(_CHUNK, count - len(out)))
            if not piece:
                break
            out += piece
            self.offset += len(piece)
        return out

    def _raw(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(self.path)) from None

    def _piece(self, count: int) -> bytes:
        if self._unpacker is None:
            return self._raw(count)
        while True:
            if self._unpacker.eof:
                # Several gzip members in a row are one stream (RFC 1952, section 2.2).
                rest = self._unpacker.unused_data or self._raw(_INPUT)
                if not rest:
                    return b""
                self._unpacker, self._input = zlib.decompressobj(wbits=31), rest
            if not self._input:
                self._input = self._raw(_INPUT)
                if not self._input:
                    raise FormatError(
                        f"'{self.path}': gzip data is cut off at {self.where} (the file has {self.file_bytes} bytes)"
                    )
            try:
                piece = self._unpacker.decompress(self._input, count)
            except zlib.error as error:
                raise FormatError(f"'{self.path}': damaged gzip data at {self.where}: {error}") from None
            self._input = self._unpacker.unconsumed_tail
            if piece:
                return piece
