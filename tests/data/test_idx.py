"""The IDX reader on good and on hostile files."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest

from pycnn.data import mnist, read_idx
from pycnn.errors import ArgumentError, Error, FileError, FormatError


def idx(array, code=8):
    dims = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + dims + array.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
GOOD = idx(IMAGES)


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")],
)
def test_read_idx_gives_every_element_type_in_native_order(tmp_path, code, dtype, pack):
    array = (np.arange(24) - 9).astype(dtype).reshape(2, 3, 4)
    got = read_idx(write(tmp_path / "a", pack(idx(array, code))))
    assert got.dtype.isnative
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array)


def test_read_idx_tells_gzip_by_content(tmp_path):
    np.testing.assert_array_equal(read_idx(write(tmp_path / "a.gz", GOOD)), IMAGES)
    np.testing.assert_array_equal(read_idx(write(tmp_path / "a", gzip.compress(GOOD))), IMAGES)


def test_read_idx_reads_several_gzip_members_as_one(tmp_path):
    data = b"".join(gzip.compress(GOOD[i : i + 7]) for i in range(0, len(GOOD), 7))
    np.testing.assert_array_equal(read_idx(write(tmp_path / "a.gz", data)), IMAGES)


def test_read_idx_accepts_no_elements(tmp_path):
    assert read_idx(write(tmp_path / "a", idx(IMAGES[:0]))).shape == (0, 4, 5)


GZ = gzip.compress(GOOD, mtime=0)


DAMAGED = {
    "empty": (b"", "0 bytes are too few"),
    "half magic": (GOOD[:3], "3 bytes are too few"),
    "second byte": (b"\0\1" + GOOD[2:], r"at byte 0: 00 01 08 03 is not an IDX header"),
    "no such type": (b"\0\0\x0a" + GOOD[3:], r"at byte 0: 00 00 0a 03"),
    "no dimensions": (b"\0\0\x08\0" + GOOD[4:], r"at byte 0: 00 00 08 00"),
    "255 dimensions": (b"\0\0\x08\xff" + GOOD[4:], r"at byte 0: 00 00 08 ff"),
    "pickle": (b"\x80\x04\x95\0" + GOOD, r"at byte 0: 80 04 95 00"),
    "half header": (GOOD[:9], r"header with 3 dimensions is cut off at byte 9"),
    "a byte missing": (GOOD[:-1], r"needs 60 bytes, a file of 75 bytes cannot hold them"),
    "no data": (GOOD[:16], r"needs 60 bytes, a file of 16 bytes cannot hold them"),
    "a byte too many": (GOOD + b"\0", r"trailing bytes after the data, at byte 76"),
    "giant": (GOOD[:4] + b"\xff" * 12, r"at byte 4: shape \(4294967295, 4294967295, 4294967295\)"),
    "product wraps": (GOOD[:4] + struct.pack(">3I", 2**16, 2**16, 2**32 - 1), r"at byte 4: shape"),
    "large dimension": (GOOD[:4] + struct.pack(">3I", 2**30, 1, 1) + GOOD[16:], r"file of 76 bytes cannot hold"),
    "gzip: a byte missing": (gzip.compress(GOOD[:-1]), r"they end after 59, at byte 75 of the unpacked data"),
    "gzip: a byte too many": (gzip.compress(GOOD + b"\0"), r"trailing bytes after the data, at byte 76"),
    "gzip: giant": (gzip.compress(GOOD[:4] + b"\x7f" * 12), r"at byte 4: shape"),
    "gzip: half": (GZ[:-20], r"gzip data is cut off at byte \d+ of the unpacked data"),
    "gzip: last byte missing": (GZ[:-1], r"gzip data is cut off"),
    "gzip: two bytes of data": (GZ[:12], r"gzip data is cut off"),
    "gzip: magic only": (GZ[:2], r"gzip data is cut off"),
    "gzip: wrong check": (GZ[:-8] + bytes([GZ[-8] ^ 1]) + GZ[-7:], r"damaged gzip data .*incorrect data check"),
    "gzip: wrong length": (GZ[:-4] + b"\1\2\3\4", r"damaged gzip data .*incorrect length check"),
    "gzip: junk behind": (GZ + b"junk", r"damaged gzip data"),
    "gzip: damaged data": (GZ[:40] + b"\xff\xff\xff" + GZ[43:], r"(damaged gzip data|gzip data is cut off)"),
}


@pytest.mark.parametrize(("data", "text"), DAMAGED.values(), ids=DAMAGED)
def test_read_idx_refuses_damaged_files_naming_the_place(tmp_path, data, text):
    path = write(tmp_path / "bad-idx", data)
    with pytest.raises(FormatError, match=text) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("position", range(0, len(GZ), 3))
def test_read_idx_survives_a_flipped_byte_anywhere_in_gzip(tmp_path, position):
    data = bytearray(GZ)
    data[position] ^= 0x55
    path = write(tmp_path / "flipped.gz", bytes(data))
    try:
        np.testing.assert_array_equal(read_idx(path), IMAGES)  # name, time: no matter
    except FormatError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_read_idx_stops_a_gzip_bomb_at_the_declared_size(tmp_path):
    bomb = write(tmp_path / "bomb.gz", gzip.compress(GOOD + bytes(64 << 20), 9))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="trailing bytes after the data"):
            read_idx(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_read_idx_allocates_nothing_for_a_giant_declaration(tmp_path):
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**10, 2**10, 2**10)
    path = write(tmp_path / "giant.gz", gzip.compress(header + bytes(2 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="cannot hold them"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_read_idx_obeys_max_bytes(tmp_path):
    path = write(tmp_path / "a", GOOD)
    assert read_idx(path, max_bytes=60).shape == IMAGES.shape
    with pytest.raises(FormatError, match="needs 60 bytes, the limit is 59"):
        read_idx(path, max_bytes=59)
    with pytest.raises(ArgumentError, match="max_bytes must be at least 1, got 0"):
        read_idx(path, max_bytes=0)


def test_read_idx_names_what_the_system_refused(tmp_path):
    with pytest.raises(FileError) as caught:
        read_idx(tmp_path / "absent")
    assert caught.value.errno == 2
    assert caught.value.filename == str(tmp_path / "absent")
    assert isinstance(caught.value, OSError)
    with pytest.raises(FormatError, match="not a regular file"):
        read_idx(tmp_path)
    with pytest.raises(ArgumentError, match="NUL"):
        read_idx("a\0b")
    with pytest.raises(ArgumentError, match="expected a path, got 3"):
        read_idx(3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_read_idx_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_idx(tmp_path / "pipe")


def write_mnist(folder, train=6, test=2, pack=bytes, end=""):
    for part, count in (("train", train), ("t10k", test)):
        images = np.full((count, 4, 4), count, np.uint8)
        write(folder / f"{part}-images-idx3-ubyte{end}", pack(idx(images)))
        labels = np.arange(count, dtype=np.uint8)
        write(folder / f"{part}-labels-idx1-ubyte{end}", pack(idx(labels)))


@pytest.mark.parametrize(("pack", "end"), [(bytes, ""), (gzip.compress, ".gz")])
def test_mnist_finds_files_packed_or_not(tmp_path, pack, end):
    write_mnist(tmp_path, pack=pack, end=end)
    train, test = mnist(tmp_path)
    assert train.images.shape == (6, 4, 4, 1)
    assert test.labels.tolist() == [0, 1]
    assert train.class_names == tuple("0123456789")


def test_mnist_finds_the_spelling_with_a_dot(tmp_path):
    write_mnist(tmp_path)
    name = "train-images-idx3-ubyte"
    (tmp_path / name).rename(tmp_path / name.replace("s-idx", "s.idx"))
    assert len(mnist(str(tmp_path))[0]) == 6


def test_mnist_lists_missing_files(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    text = "missing train-labels-idx1-ubyte, t10k-images-idx3-ubyte"
    with pytest.raises(FileError, match=text) as caught:
        mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(FileError, match="absent"):
        mnist(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        ("train-labels-idx1-ubyte", np.zeros(5, np.uint8), "5 labels, but .* has 6 images"),
        (
            "train-labels-idx1-ubyte",
            np.array([0, 1, 9, 10, 2, 3], np.uint8),
            r"label 10 at position 3 \(byte 11\) is above 9",
        ),
        ("train-labels-idx1-ubyte", np.zeros((6, 1), np.uint8), r"uint8 \(6, 1\), expected uint8"),
        ("train-images-idx3-ubyte", np.zeros((6, 16), np.uint8), r"expected uint8 images"),
        ("train-images-idx3-ubyte", np.zeros((0, 4, 4), np.uint8), r"expected uint8 images"),
        ("t10k-images-idx3-ubyte", np.zeros((2, 4, 5), np.uint8), r"\(4, 4, 1\), test images \(4"),
    ],
)
def test_mnist_refuses_files_that_do_not_belong_together(tmp_path, name, array, text):
    write_mnist(tmp_path)
    write(tmp_path / name, idx(array))
    with pytest.raises(FormatError, match=text) as caught:
        mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_every_error_is_a_pycnn_error(tmp_path):
    with pytest.raises(Error):
        read_idx(tmp_path / "absent")


def test_mnist_reads_the_original(shared_data):
    train, test = mnist(shared_data("mnist"))
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    assert train.images.dtype == np.uint8
    assert np.bincount(test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # Mean and deviation that everybody normalises MNIST with.
    counts = np.bincount(train.images.ravel(), minlength=256)
    mean = counts @ np.arange(256) / counts.sum()
    variance = counts @ (np.arange(256) - mean) ** 2 / counts.sum()
    assert round(mean / 255, 4) == 0.1307
    assert round(np.sqrt(variance) / 255, 4) == 0.3081
