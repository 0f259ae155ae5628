"""CIFAR-10 and CIFAR-100 in each of the layouts that they come in."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_path
from pycnn.data._checks import Images, Labels
from pycnn.data._files import PathLike, Stream, list_directory
from pycnn.data._pickled import read_pickled
from pycnn.data.datasets import ArrayDataset
from pycnn.data.tar import TarShards
from pycnn.errors import ArgumentError, FileError, FormatError

__all__ = ["cifar10", "cifar100"]

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SHARD = re.compile(r"(train|test)[-_0-9]*\.tar")
_SIDE = 32
_PIXEL_BYTES = 3 * _SIDE * _SIDE
_MAX_BYTES = 2**31
_MAX_NAMES_BYTES = 2**16

Parts = dict[str, tuple[str, ...]]
_BINARY_10: Parts = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_PYTHON_10: Parts = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_BINARY_100: Parts = {"train": ("train.bin",), "test": ("test.bin",)}
_PYTHON_100: Parts = {"train": ("train",), "test": ("test",)}


def cifar10(directory: PathLike) -> tuple[ArrayDataset, ArrayDataset]:
    """Read CIFAR-10 (Krizhevsky 2009) into memory, about 184 MB.

    Args:
        directory: Holds one of these, which is found out; the folder that the archives unpack to
            (``cifar-10-batches-bin`` or ``-py``) may be in it:

            * tar shards ``train*.tar`` and ``test*.tar`` in WebDataset naming (``KEY.jpg`` or
              ``KEY.png``, and ``KEY.cls``; needs Pillow),
            * the binary version, ``data_batch_1.bin`` ... ``data_batch_5.bin``, ``test_batch.bin``,
            * the Python version, ``data_batch_1`` ... ``data_batch_5``, ``test_batch``. These are
              pickles; they are read without unpickling, so that no code in them can run.

    Shape:
        images ``(N, 32, 32, 3)`` uint8 0..255, labels ``(N,)`` int64 0..9.

    Returns:
        ``(train, test)``.

    Raises:
        FileError: No such files; the text says what is missing.
        FormatError: A bad file; the text gives file and record, or byte.
        UnsupportedError: The shards need Pillow, which is not installed.

    Example:
        >>> train, test = cifar10("data/cifar10")  # doctest: +SKIP
        >>> train.class_names[3]  # doctest: +SKIP
        'cat'
    """
    folder = as_path(directory, who="cifar10")
    shards: dict[str, list[Path]] = {"train": [], "test": []}
    for name in list_directory(folder):
        if match := _SHARD.fullmatch(name):
            shards[match[1]].append(folder / name)
    if shards["train"] and shards["test"]:
        return _from_shards(shards["train"]), _from_shards(shards["test"])
    place, binary, parts = _find(
        "cifar10", folder, _BINARY_10, _PYTHON_10, ("cifar-10-batches-bin", "cifar-10-batches-py"), "shards *.tar, "
    )

    def read(path: Path) -> tuple[Images, Labels]:
        return _binary(path, 1, 0, 10) if binary else _python(path, "labels", 10)

    return _join(place, parts["train"], read, _CLASSES), _join(place, parts["test"], read, _CLASSES)


def cifar100(directory: PathLike, *, labels: str = "fine") -> tuple[ArrayDataset, ArrayDataset]:
    """Read CIFAR-100 (Krizhevsky 2009) into memory, about 184 MB.

    Args:
        directory: Holds the binary version (``train.bin``, ``test.bin`` and the names of the classes
            ``fine_label_names.txt`` or ``coarse_label_names.txt``) or the Python version (``train``,
            ``test``, ``meta``; read without unpickling, see `cifar10`), or the folder
            ``cifar-100-binary`` or ``cifar-100-python`` with it.
        labels: ``"fine"`` for the 100 classes, ``"coarse"`` for their 20 groups.

    Shape:
        images ``(N, 32, 32, 3)`` uint8 0..255, labels ``(N,)`` int64.

    Returns:
        ``(train, test)``; classes are named "0", "1", ... where the names are missing.

    Raises:
        FileError: No such files; the text says what is missing.
        FormatError: A bad file; the text gives file and record, or byte.
        ArgumentError: `labels` is something else.
    """
    if labels not in ("fine", "coarse"):
        raise ArgumentError(f"cifar100: labels must be 'fine' or 'coarse', got {labels!r}")
    classes, column = (100, 1) if labels == "fine" else (20, 0)
    place, binary, parts = _find(
        "cifar100",
        as_path(directory, who="cifar100"),
        _BINARY_100,
        _PYTHON_100,
        ("cifar-100-binary", "cifar-100-python"),
        "",
    )

    def read(path: Path) -> tuple[Images, Labels]:
        return _binary(path, 2, column, classes) if binary else _python(path, f"{labels}_labels", classes)

    names = _names_100(place, labels, classes, binary)
    return _join(place, parts["train"], read, names), _join(place, parts["test"], read, names)


def _find(
    who: str, folder: Path, binary: Parts, python: Parts, inner: tuple[str, str], others: str
) -> tuple[Path, bool, Parts]:
    """Where the files are, whether they are of the binary version, and which they are."""
    places = [folder, *(folder / name for name in inner if (folder / name).is_dir())]
    missing: list[str] = []
    for place in places:
        names = list_directory(place)
        for parts in (binary, python):
            lacking = [name for part in parts.values() for name in part if name not in names]
            if not lacking:
                return place, parts is binary, parts
            # Of a version that is partly there, tell what is lacking.
            if len(lacking) < sum(map(len, parts.values())):
                missing = missing or lacking
    text = f"missing {', '.join(missing)}" if missing else f"for example {binary['train'][0]}"
    raise FileError(errno.ENOENT, f"{who}: neither {others}the binary nor the Python version ({text}) in", str(folder))


def _join(
    place: Path, names: Sequence[str], read: Callable[[Path], tuple[Images, Labels]], classes: Sequence[str]
) -> ArrayDataset:
    images, labels = zip(*(read(place / name) for name in names), strict=True)
    return ArrayDataset(np.concatenate(images), np.concatenate(labels), classes)


def _from_shards(paths: list[Path]) -> ArrayDataset:
    shards = TarShards(paths, class_names=_CLASSES, cache_bytes=0)
    if shards.image_shape != (_SIDE, _SIDE, 3):
        raise FormatError(f"'{paths[0]}': images are {shards.image_shape}, expected (32, 32, 3)")
    return shards.in_memory()


def _read_all(path: Path, limit: int) -> bytearray:
    with Stream(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise FormatError(f"'{path}': more than {limit} bytes")
    return data


def _channels_last(planes: np.ndarray) -> Images:
    return np.ascontiguousarray(planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _binary(path: Path, label_bytes: int, column: int, classes: int) -> tuple[Images, Labels]:
    """Records of label bytes and the planes of red, green and blue."""
    size = label_bytes + _PIXEL_BYTES
    data = _read_all(path, _MAX_BYTES)
    if not data or len(data) % size:
        raise FormatError(
            f"'{path}': {len(data)} bytes are not a whole number of records "
            f"of {size} bytes (record {len(data) // size} is cut off)"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    bad = np.flatnonzero(records[:, column] >= classes)
    if bad.size:
        where = int(bad[0])
        raise FormatError(
            f"'{path}': record {where} (byte {where * size}): label {records[where, column]} is above {classes - 1}"
        )
    return _channels_last(records[:, label_bytes:]), records[:, column].astype(np.int64)


def _python(path: Path, key: str, classes: int) -> tuple[Images, Labels]:
    """A pickled dict of "data", (N, 3072) uint8, and a list of labels."""
    content = read_pickled(bytes(_read_all(path, _MAX_BYTES)), where=f"'{path}'")
    pixels, labels = content.get("data"), content.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXEL_BYTES or not len(pixels):
        shown = pixels.shape if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise FormatError(f"'{path}': 'data' is {shown}, expected (N, {_PIXEL_BYTES}) of uint8")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        shown = f"{len(labels)} labels" if isinstance(labels, list) else type(labels).__name__
        raise FormatError(f"'{path}': '{key}' is {shown}, expected a list of {len(pixels)} labels")
    for where, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            shown = str(label)[:40] if isinstance(label, int | float) else type(label).__name__
            raise FormatError(f"'{path}': record {where}: label {shown} is not in 0..{classes - 1}")
    return _channels_last(pixels), np.array(labels, np.int64)


def _names_100(place: Path, labels: str, classes: int, binary: bool) -> tuple[str, ...]:
    """Names of the classes, from the file beside the images if there is one."""
    path = place / (f"{labels}_label_names.txt" if binary else "meta")
    if not path.is_file():
        return tuple(str(i) for i in range(classes))
    data = bytes(_read_all(path, _MAX_NAMES_BYTES))
    names: Any
    if binary:
        names = data.decode("utf-8", "replace").split()
    else:
        names = read_pickled(data, where=f"'{path}'").get(f"{labels}_label_names")
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        count = f"{len(names)} names" if isinstance(names, list) else type(names).__name__
        raise FormatError(f"'{path}': {count}, expected {classes} names of classes")
    return tuple(names)
