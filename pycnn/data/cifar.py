"""CIFAR-10 from tar shards or from its binary version. The pickled version is never read."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np

from pycnn.data._files import PathLike, Stream, as_path, list_directory
from pycnn.data.datasets import ArrayDataset
from pycnn.data.tar import TarShards
from pycnn.errors import FileError, FormatError

__all__ = ["cifar10"]

_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_SHARD = re.compile(r"(train|test)[-_0-9]*\.tar")
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_MAX_BYTES = 2**31
_BINARY = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


def cifar10(directory: PathLike) -> tuple[ArrayDataset, ArrayDataset]:
    """Read CIFAR-10 into memory (about 184 MB).

    Args:
        directory: Holds tar shards ``train*.tar`` and ``test*.tar`` in WebDataset naming
            (``KEY.jpg`` or ``KEY.png``, and ``KEY.cls``; needs Pillow), or the binary version
            ``data_batch_1.bin`` ... ``data_batch_5.bin`` and ``test_batch.bin``.

    Shape:
        images ``(N, 32, 32, 3)`` uint8 0..255, labels ``(N,)`` int64 0..9.

    Returns:
        ``(train, test)``.

    Raises:
        FileError: No such files; the text says what is missing.
        FormatError: A bad file; or only the pickled version is there, which pycnn does not read.
        UnsupportedError: The shards need Pillow, which is not installed.

    Example:
        >>> train, test = cifar10("data/cifar10")  # doctest: +SKIP
        >>> train.class_names[3]  # doctest: +SKIP
        'cat'
    """
    folder = as_path(directory, who="cifar10")
    names = list_directory(folder)
    shards: dict[str, list[Path]] = {"train": [], "test": []}
    for name in names:
        if match := _SHARD.fullmatch(name):
            shards[match[1]].append(folder / name)
    if shards["train"] and shards["test"]:
        return _from_shards(shards["train"]), _from_shards(shards["test"])
    missing = [name for part in _BINARY.values() for name in part if name not in names]
    if not missing:
        train, test = (_from_binary([folder / name for name in _BINARY[part]]) for part in ("train", "test"))
        return train, test
    if "data_batch_1" in names:
        raise FormatError(
            f"'{folder / 'data_batch_1'}': this is the pickled version of CIFAR-10, and "
            "unpickling can run any code, so pycnn does not\n"
            "  hint: use the binary version (cifar-10-binary.tar.gz) from the same page"
        )
    raise FileError(
        errno.ENOENT,
        f"cifar10: neither shards train*.tar and test*.tar nor the binary version (missing {', '.join(missing)}) in",
        str(folder),
    )


def _from_shards(paths: list[Path]) -> ArrayDataset:
    shards = TarShards(paths, class_names=_CLASSES, cache_bytes=0)
    if shards.image_shape != (_SIDE, _SIDE, 3):
        raise FormatError(f"'{paths[0]}': images are {shards.image_shape}, expected (32, 32, 3)")
    return shards.in_memory()


def _from_binary(paths: list[Path]) -> ArrayDataset:
    images, labels = [], []
    for path in paths:
        with Stream(path) as stream:
            data = stream.read(_MAX_BYTES)
        if not data or len(data) % _RECORD_BYTES:
            raise FormatError(
                f"'{path}': {len(data)} bytes are not a whole number of records "
                f"of {_RECORD_BYTES} bytes (record {len(data) // _RECORD_BYTES} is cut off)"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
        bad = np.flatnonzero(records[:, 0] > 9)
        if bad.size:
            where = int(bad[0])
            raise FormatError(
                f"'{path}': record {where} (byte {where * _RECORD_BYTES}): label {records[where, 0]} is above 9"
            )
        labels.append(records[:, 0].astype(np.int64))
        images.append(records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
    return ArrayDataset(np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels), _CLASSES)
