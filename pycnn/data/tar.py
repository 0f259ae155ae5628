"""Tar shards in WebDataset naming: ``KEY.jpg`` and ``KEY.cls`` next to each other.

The shards are indexed once, front to back; pixels are read from their place in the file and
decoded when asked for. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from pycnn.arguments import as_integer, as_path
from pycnn.data._checks import MAX_CLASSES, as_class_names
from pycnn.data._decode import MAX_PIXELS
from pycnn.data._encoded import CACHE_BYTES, EncodedDataset, OnError
from pycnn.data._files import PathLike, open_regular
from pycnn.errors import ArgumentError, FileError, FormatError

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

__all__ = ["TarShards"]

_IMAGE_ENDINGS = frozenset(("bmp", "jpeg", "jpg", "pgm", "png", "ppm", "webp"))
_MAX_LABEL_BYTES = 16
_MAX_HEADER_BYTES = 1 << 20
# Of one member: its header, extended ones and what these hold. tarfile goes one call deeper for each.
_MAX_HEADER_READS = 64
_BLOCK = 512
# Types of members that hold no bytes of their own.
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_LABEL = re.compile(rb"\s*([0-9]{1,9})\s*")


class _Headers:
    """What tarfile reads a shard through: it refuses to read extended headers of any size or number.

    Attributes:
        reads: Since the last member.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.reads = 0
        self.tell = file.tell
        self.seek = file.seek

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {count} bytes")
        self.reads += 1
        if self.reads > _MAX_HEADER_READS:
            raise ValueError("more headers than a member has")
        return self._file.read(count)


def _open(headers: _Headers) -> TarFile:
    import tarfile  # late: it is slow to import

    return tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:")


@dataclass(frozen=True, slots=True)
class _Entry:
    shard: int
    offset: int
    size: int
    name: str


class TarShards(EncodedDataset):
    """Images and class numbers in tar files, read at random without extracting.

    Every sample is two neighbouring members with one key: the image (``.jpg``, ``.png``, ...) and
    ``.cls``, the class number as text. Members with other endings are left out. Because samples are
    read at random, a `Loader` shuffles across all shards, and the order follows from its seed.

    Args:
        paths: The shards, uncompressed tar, in the order that numbers the samples.
        class_names: One name per class. Default: "0", "1", ... up to the largest label.
        size: Side, or (height, width), in pixels. Default: that of the first image, and then all
            images must have it.
        channels: 3 for RGB, 1 for grey.
        fit: ``"crop"`` or ``"stretch"``; see `ImageFolder`.
        max_member_bytes: Refuse larger members. Default 256 MiB.
        max_total_bytes: Refuse shards with more bytes in all members. Default 1 TiB.
        max_pixels: Refuse images with more pixels, before decoding.
        on_error: As `ImageFolder`; "skip" keeps ``(shard and member, reason)`` in `skipped`.
        cache_bytes: As `ImageFolder`.
        reduced_decoding: As `ImageFolder`.

    Attributes:
        paths: The shards.
        skipped: Images that were left out.

    Raises:
        FileError: A shard cannot be opened or read.
        FormatError: Not a tar file, cut off, trailing bytes, a link, a device, a name that is
            absolute or leads out of its folder, a member too large, an image without a class or
            the reverse, a label that is no class. The text gives shard and record number.
        ArgumentError: An argument is out of range.
        UnsupportedError: Pillow is not installed.

    Example:
        >>> shards = TarShards(["train-0000.tar", "train-0001.tar"])  # doctest: +SKIP
        >>> shards.images[:8].shape  # doctest: +SKIP
        (8, 32, 32, 3)
    """

    def __init__(
        self,
        paths: Sequence[PathLike],
        *,
        class_names: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        channels: int = 3,
        fit: str = "crop",
        max_member_bytes: int = 2**28,
        max_total_bytes: int = 2**40,
        max_pixels: int = MAX_PIXELS,
        on_error: OnError = "raise",
        cache_bytes: int = CACHE_BYTES,
        reduced_decoding: bool = False,
    ) -> None:
        who = "TarShards"
        self._configure(
            who,
            size=size,
            channels=channels,
            fit=fit,
            on_error=on_error,
            max_pixels=max_pixels,
            cache_bytes=cache_bytes,
            reduced_decoding=reduced_decoding,
        )
        if isinstance(paths, (str, bytes, os.PathLike)) or not len(paths):
            raise ArgumentError(f"{who}: paths must be a sequence of tar files, got {paths!r}")
        self._max_member = as_integer(max_member_bytes, who=who, name="max_member_bytes", low=1)
        self._bytes_left = as_integer(max_total_bytes, who=who, name="max_total_bytes", low=1)
        self.skipped: list[tuple[str, str]] = []
        self.paths = [as_path(path, who=who) for path in paths]
        self._entries: list[_Entry] = []
        self._files: list[BinaryIO] = []
        limit = MAX_CLASSES if class_names is None else len(class_names)
        labels: list[int] = []
        for number, path in enumerate(self.paths):
            file = open_regular(path)
            self._files.append(file)
            for entry, label in self._index(number, path, file, limit):
                self._entries.append(entry)
                labels.append(label)
        if not labels:
            raise FormatError(f"{who}: no samples in {', '.join(repr(str(p)) for p in self.paths)}")
        if on_error == "skip":
            labels = self._drop_bad(labels)
        self.labels = np.array(labels, np.int64)
        self.class_names = as_class_names(class_names, labels=self.labels, who=who)
        if self._size is None:
            first = self._decoded(0, None)
            self.image_shape = (first.shape[0], first.shape[1], channels)
        else:
            self.image_shape = (*self._size, channels)

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            file.close()

    def _index(self, number: int, path: Path, file: BinaryIO, limit: int) -> Iterator[tuple[_Entry, int]]:
        """Pairs of image and label in one shard, in order."""
        seen: set[str] = set()
        key: str | None = None
        image: _Entry | None = None
        label: int | None = None

        def finish() -> tuple[_Entry, int] | None:
            if image is not None and label is not None:
                return image, label
            if image is not None:
                raise FormatError(f"'{path}': sample '{key}' has an image but no .cls member")
            if label is not None:
                raise FormatError(f"'{path}': sample '{key}' has a .cls member but no image")
            return None

        for record, member in enumerate(self._members(path, file)):
            if member.isdir():
                continue
            where = f"'{path}': record {record} '{member.name}'"
            name = member.name.removeprefix("./")
            folder, _, base = name.rpartition("/")
            stem, _, ending = base.partition(".")
            if f"{folder}/{stem}" != key:
                if done := finish():
                    yield done
                key, image, label = f"{folder}/{stem}", None, None
                if key in seen:
                    raise FormatError(f"{where}: sample '{key}' appears twice")
                seen.add(key)
            if ending.lower() in _IMAGE_ENDINGS:
                if image is not None:
                    raise FormatError(f"{where}: a second image of sample '{key}'")
                image = _Entry(number, member.offset_data, member.size, name)
            elif ending == "cls":
                if label is not None:
                    raise FormatError(f"{where}: a second label of sample '{key}'")
                label = self._label(number, member, where, limit)
        if done := finish():
            yield done

    def _label(self, number: int, member: TarInfo, where: str, limit: int) -> int:
        if member.size > _MAX_LABEL_BYTES:
            raise FormatError(f"{where}: {member.size} bytes are too many for a class number")
        text = self._bytes(_Entry(number, member.offset_data, member.size, member.name))
        match = _LABEL.fullmatch(text)
        if match is None:
            raise FormatError(f"{where}: {text!r} is not a class number")
        value = int(match[1])
        if value >= limit:
            raise FormatError(f"{where}: label {value} is outside of 0..{limit - 1}")
        return value

    def _members(self, path: Path, file: BinaryIO) -> Iterator[TarInfo]:
        """Members of one shard, each checked before the next header is looked at."""
        end = os.fstat(file.fileno()).st_size
        record = 0
        try:
            # A second descriptor: tarfile moves the position that it reads from.
            with open_regular(path) as stream, _open(headers := _Headers(stream)) as archive:
                while (member := archive.next()) is not None:
                    where = f"'{path}': record {record} '{member.name}'"
                    self._check(member, where, end)
                    yield member
                    # tarfile keeps every member that it has seen.
                    cast(Any, archive).members = []
                    headers.reads = 0
                    record += 1
                last = archive.offset
        except (FormatError, FileError):
            raise
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(path)) from None
        except Exception as error:  # tarfile's own, and whatever its parsing runs into
            raise FormatError(f"'{path}': damaged tar at record {record}: {error}") from error
        self._check_end(path, file, last, end, record)

    def _check(self, member: TarInfo, where: str, end: int) -> None:
        parts = member.name.split("/")
        if not member.name or member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise FormatError(f"{where}: the name is absolute or leads out of its folder")
        if not member.isdir() and (not member.isreg() or member.issparse()):
            kind = _KINDS.get(member.type, f"a member of type {member.type!r}")
            raise FormatError(f"{where}: {kind}, neither a plain file nor a folder")
        if not 0 <= member.size <= self._max_member:
            raise FormatError(f"{where}: {member.size} bytes, the limit is {self._max_member}")
        if member.isreg() and member.offset_data + member.size > end:
            raise FormatError(
                f"{where}: {member.size} bytes from byte {member.offset_data}, but the file ends at {end}"
            )
        self._bytes_left -= member.size
        if self._bytes_left < 0:
            raise FormatError(f"{where}: the members exceed max_total_bytes")

    def _check_end(self, path: Path, file: BinaryIO, last: int, end: int, record: int) -> None:
        """What follows the last member must be zeros: tarfile stops silently at a bad header."""
        position, zeros = last - last % _BLOCK, 0
        while position < end:
            block = os.pread(file.fileno(), min(1 << 20, end - position), position)
            if not block:
                break
            if block.strip(b"\0"):
                raise FormatError(
                    f"'{path}': after record {record}, at byte {position}: "
                    "neither a valid header nor the end of the archive"
                )
            position += len(block)
            zeros += len(block)
        if zeros < _BLOCK:
            raise FormatError(f"'{path}': cut off after {record} records: no end-of-archive block at byte {end}")

    def _bytes(self, entry: _Entry) -> bytes:
        path = self.paths[entry.shard]
        try:
            data = os.pread(self._files[entry.shard].fileno(), entry.size, entry.offset)
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(path)) from None
        if len(data) != entry.size:
            raise FormatError(
                f"'{path}': '{entry.name}' at byte {entry.offset} has {len(data)} of "
                f"{entry.size} bytes; was the file changed?"
            )
        return data

    def _where(self, i: int) -> str:
        entry = self._entries[i]
        return f"'{self.paths[entry.shard]}': sample {i} '{entry.name}'"

    def _encoded(self, i: int) -> bytes:
        return self._bytes(self._entries[i])

    def _drop_bad(self, labels: list[int]) -> list[int]:
        bad = self._find_bad(len(labels))
        if not bad:
            return labels
        names = {i: f"{self.paths[self._entries[i].shard]}: {self._entries[i].name}" for i in bad}
        self.skipped = [(names[i], reason) for i, reason in bad.items()]
        warnings.warn(
            f"TarShards: skipped {len(bad)} of {len(labels)} images; the first: {self.skipped[0][1]}", stacklevel=3
        )
        if len(bad) == len(labels):
            raise FormatError("TarShards: every image is bad")
        # The images behind a bad one get other numbers.
        self._cache.clear()
        self._entries = [entry for i, entry in enumerate(self._entries) if i not in bad]
        return [label for i, label in enumerate(labels) if i not in bad]
