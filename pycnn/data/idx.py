"""The IDX format of MNIST, packed with gzip or not.

    byte 0, 1   0
    byte 2      element type: 8 uint8, 9 int8, 11 int16, 12 int32, 13 float32, 14 float64
    byte 3      number of dimensions
    then        one big-endian uint32 per dimension, then the elements, big-endian, C order

The reader is strict: nothing is allocated from a declared size that the file cannot hold, and a
file that is longer or shorter than its header says is refused.
"""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_integer, as_path
from pycnn.data._files import PathLike, Stream, list_directory
from pycnn.data.datasets import ArrayDataset
from pycnn.errors import FileError, FormatError

__all__ = ["mnist", "read_idx"]

_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_RANK = 8

# The four files of MNIST and the rank of each.
_FILES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}


def read_idx(path: PathLike, *, max_bytes: int = 2**31) -> NDArray[Any]:
    """Read one IDX file.

    Args:
        path: File, plain or gzip (told apart by content, not by name).
        max_bytes: Refuse arrays larger than this many bytes. Default 2 GiB.

    Shape:
        result: as the file says, rank 1 to 8.

    Returns:
        A writable array in native byte order.

    Raises:
        FormatError: Wrong magic, cut off, trailing bytes, dimensions that the file cannot hold,
            more than `max_bytes`, damaged gzip. The text gives file and byte offset.
        FileError: The file cannot be opened or read.
    """
    limit = as_integer(max_bytes, who="read_idx", name="max_bytes", low=1)
    with Stream(as_path(path, who="read_idx")) as stream:
        return _read(stream, limit)


def _read(stream: Stream, limit: int) -> NDArray[Any]:
    path = stream.path
    magic = stream.read(4)
    if len(magic) < 4:
        raise FormatError(f"'{path}': {len(magic)} bytes are too few for an IDX header")
    if magic[0] or magic[1] or magic[2] not in _TYPES or not 1 <= magic[3] <= _MAX_RANK:
        raise FormatError(
            f"'{path}': at byte 0: {bytes(magic).hex(' ')} is not an IDX header "
            "(00 00, a type of 08 09 0b 0c 0d 0e, 1 to 8 dimensions)"
        )
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise FormatError(f"'{path}': header with {magic[3]} dimensions is cut off at {stream.where}")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_TYPES[magic[2]])
    start = 4 + 4 * magic[3]
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > limit:
        raise FormatError(f"'{path}': at byte 4: shape {shape} needs {wanted} bytes, the limit is {limit}")
    if start + wanted > stream.most_bytes:
        raise FormatError(
            f"'{path}': at byte 4: shape {shape} needs {wanted} bytes, "
            f"a file of {stream.file_bytes} bytes cannot hold them"
        )
    data = stream.read(wanted)
    if len(data) < wanted:
        raise FormatError(
            f"'{path}': shape {shape} needs {wanted} bytes of data, they end after {len(data)}, at {stream.where}"
        )
    if stream.read(1):
        raise FormatError(f"'{path}': trailing bytes after the data, at byte {start + wanted}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def mnist(directory: PathLike) -> tuple[ArrayDataset, ArrayDataset]:
    """Read MNIST, or a set with the same files (Fashion-MNIST, KMNIST).

    Args:
        directory: Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with or without
            ``.gz``. The spelling ``train-images.idx3-ubyte`` is found too.

    Shape:
        images ``(N, 28, 28, 1)`` uint8 0..255, labels ``(N,)`` int64 0..9.

    Returns:
        ``(train, test)``.

    Raises:
        FileError: Files are missing; the text lists them.
        FormatError: A bad file, counts that differ, a label above 9.

    Example:
        >>> train, test = mnist("data/mnist")  # doctest: +SKIP
        >>> train.images.shape  # doctest: +SKIP
        (60000, 28, 28, 1)
    """
    folder = as_path(directory, who="mnist")
    present = set(list_directory(folder))
    found = {stem: _find(stem, rank, present) for stem, rank in _FILES.items()}
    missing = [f"{stem}-idx{rank}-ubyte" for stem, rank in _FILES.items() if not found[stem]]
    if missing:
        raise FileError(
            errno.ENOENT,
            f"mnist: missing {', '.join(missing)} (with or without .gz) in",
            str(folder),
        )
    train, test = (
        _digits(folder / str(found[f"{part}-images"]), folder / str(found[f"{part}-labels"]))
        for part in ("train", "t10k")
    )
    if train.image_shape != test.image_shape:
        raise FormatError(f"'{folder}': training images are {train.image_shape}, test images {test.image_shape}")
    return train, test


def _find(stem: str, rank: int, present: set[str]) -> str | None:
    for middle in ("-", "."):
        for end in ("", ".gz"):
            candidate = f"{stem}{middle}idx{rank}-ubyte{end}"
            if candidate in present:
                return candidate
    return None


def _digits(images_path: Path, labels_path: Path) -> ArrayDataset:
    images = read_idx(images_path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise FormatError(f"'{images_path}': holds {images.dtype} {images.shape}, expected uint8 images (N, H, W)")
    labels = read_idx(labels_path)
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise FormatError(f"'{labels_path}': holds {labels.dtype} {labels.shape}, expected uint8 labels (N,)")
    if len(images) != len(labels):
        raise FormatError(f"'{labels_path}': {len(labels)} labels, but '{images_path.name}' has {len(images)} images")
    bad = np.flatnonzero(labels > 9)
    if bad.size:
        where = int(bad[0])
        raise FormatError(f"'{labels_path}': label {labels[where]} at position {where} (byte {8 + where}) is above 9")
    return ArrayDataset(images[..., None], labels, class_names=[str(i) for i in range(10)])
