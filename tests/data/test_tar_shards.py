"""Tar shards and CIFAR-10: good ones, damaged ones, hostile ones."""

from __future__ import annotations

import io
import struct
import tarfile

import numpy as np
import pytest

from pycnn.data import Loader, TarShards, cifar10
from pycnn.errors import ArgumentError, FileError, FormatError, UnsupportedError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def png(value, size=(32, 32)):
    out = io.BytesIO()
    Image.new("RGB", size, (value, 0, 255 - value)).save(out, "PNG")
    return out.getvalue()


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def samples(count, prefix="s", first=0):
    for i in range(first, first + count):
        yield member(f"{prefix}{i:03d}.png", png(i))
        yield member(f"{prefix}{i:03d}.cls", str(i % 10).encode())


def write(path, members, **keywords):
    with tarfile.open(path, "w", **keywords) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    return [
        write(tmp_path / "a.tar", samples(4)),
        write(tmp_path / "b.tar", samples(3, first=4), format=tarfile.PAX_FORMAT),
    ]


def test_shards_are_read_at_random_in_order(shards):
    data = TarShards(shards)
    assert len(data) == 7
    assert data.image_shape == (32, 32, 3)
    assert data.labels.tolist() == list(range(7))
    assert data.class_names == tuple("0123456")
    np.testing.assert_array_equal(data.images[[6, 0, 4]][:, 0, 0, 0], [6, 0, 4])
    assert TarShards(shards, size=(8, 9), channels=1).images[:2].shape == (2, 8, 9, 1)


def test_shards_feed_the_loader_with_the_same_bits_for_any_workers(shards):
    data = TarShards(shards)
    batches = [[x.tobytes() for x, _ in Loader(data, 2, workers=w)] for w in (0, 1, 3)]
    assert batches[0] == batches[1] == batches[2]


def test_shards_pass_over_folders_other_members_and_leading_dots(tmp_path):
    members = [
        member("./x", type=tarfile.DIRTYPE),
        member("./x/1.json", b"{}"),
        member("./x/1.CLS.txt", b"?"),
        member("./x/1.cls", b" 3\n"),
        member("./x/1.JPG", png(9)),
        member("./y/1.png", png(8)),
        member("./y/1.cls", b"0"),
    ]
    assert TarShards([write(tmp_path / "a.tar", members)]).labels.tolist() == [3, 0]


def long_name(n):
    return "d" * n + "/k"


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_accept_long_names(tmp_path, kind):
    members = [member(long_name(300) + ".png", png(1)), member(long_name(300) + ".cls", b"0")]
    assert len(TarShards([write(tmp_path / "a.tar", members, format=kind)])) == 1


GOOD = list(samples(1))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([member("/etc/passwd", b"x")], r"record 0 '/etc/passwd': the name is absolute or leads"),
        ([*GOOD, member("../x.png", b"x")], r"record 2 '\.\./x\.png': the name is absolute or"),
        ([member("a/../../x.png", b"x")], r"leads out of its folder"),
        (
            [member("a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
            "record 0 'a.png': a symbolic link, neither a plain file",
        ),
        ([member("a.png", type=tarfile.LNKTYPE, linkname="b")], "record 0 'a.png': a hard link, neither a plain file"),
        (
            [member("a.png", type=tarfile.CHRTYPE, devmajor=1)],
            "record 0 'a.png': a character device, neither a plain file",
        ),
        ([member("a.png", type=tarfile.BLKTYPE)], "record 0 'a.png': a block device, neither a plain file"),
        ([member("a.png", type=tarfile.FIFOTYPE)], "record 0 'a.png': a pipe, neither a plain file"),
        ([member("a.png", png(1)), member("b.cls", b"1")], "sample '/a' has an image but no .cls"),
        ([member("a.png", png(1))], "sample '/a' has an image but no .cls"),
        ([*GOOD, member("a.cls", b"1")], "sample '/a' has a .cls member but no image"),
        ([member("a.png", b"x"), member("a.jpg", b"x")], "record 1 'a.jpg': a second image"),
        ([member("a.cls", b"1"), member("a.cls", b"1")], "record 1 'a.cls': a second label"),
        ([*GOOD, *samples(1, "t"), *GOOD], "record 4 's000.png': sample '/s000' appears twice"),
        ([GOOD[0], member("s000.cls", b"-1")], r"record 1 's000.cls': b'-1' is not a class number"),
        ([GOOD[0], member("s000.cls", b"")], "b'' is not a class number"),
        ([GOOD[0], member("s000.cls", b"1.0")], "is not a class number"),
        ([GOOD[0], member("s000.cls", b"\xb2")], "is not a class number"),
        ([GOOD[0], member("s000.cls", b"1" * 99)], "99 bytes are too many for a class number"),
        ([GOOD[0], member("s000.cls", b"999999999")], r"label 999999999 is outside of 0\.\.999999"),
        ([member("a.txt", b"")], "no samples in"),
        ([], "no samples in"),
    ],
)
def test_shards_refuse_members_by_record(tmp_path, members, text):
    path = write(tmp_path / "bad.tar", members)
    with pytest.raises(FormatError, match=text) as caught:
        TarShards([path])
    assert str(path) in str(caught.value)


def raw_header(name, size=b"00000000000", kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124 : 124 + len(size)] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def base256(value):
    return struct.pack(">i", -1 if value < 0 else -(2**31)) + value.to_bytes(8, "big", signed=True)


def shard_bytes(tmp_path):
    return write(tmp_path / "good.tar", samples(3)).read_bytes()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda d: b"", "damaged tar at record 0"),
        (lambda d: b"x" * 2000, "damaged tar at record 0"),
        (lambda d: d[:700], "(but the file ends at 700|damaged tar|cut off)"),
        (lambda d: d[: 512 * 3], "but the file ends at 1536"),
        (lambda d: d[: 512 * 4], "cut off after"),
        (lambda d: d.rstrip(b"\0"), "(cut off|but the file ends|damaged)"),
        (lambda d: d + b"x", "neither a valid header nor the end of the archive"),
        (lambda d: d[:1024] + b"\1" + d[1025:], "after record 1, at byte 1024: neither a valid"),
        (lambda d: raw_header(b"a.png", base256(-512)) + d, r"-512 bytes, the limit is"),
        (lambda d: raw_header(b"a.png", base256(-1024)) + d, r"-1024 bytes, the limit is"),
        (lambda d: raw_header(b"a.png", b"77777777777") + d, r"8589934591 bytes, the limit is"),
        (lambda d: raw_header(b"a.png", b"00000777777") + d, "262143 bytes from byte 512, but"),
        (lambda d: raw_header(b"a", base256(2**60), b"L") + d, "damaged tar at record 0"),
        (lambda d: raw_header(b"a", base256(-512), b"L") + d, "damaged tar at record 0"),
        (lambda d: raw_header(b"a", base256(2**60), b"x") + d, "damaged tar at record 0"),
        (lambda d: raw_header(b"a", base256(-512), b"x") + d, "damaged tar at record 0"),
        (lambda d: raw_header(b"a.png", b"00000000000", b"S") + d, "(neither a plain|damaged)"),
        (lambda d: raw_header(b"a", b"00000000000", b"x") * 5000 + d, "damaged tar at record 0: more headers than"),
        (lambda d: d[:1024] + raw_header(b"a", b"00000000000", b"x") * 80 + d, "record 1: more headers than"),
    ],
)
def test_damaged_shards_are_refused_naming_the_place(tmp_path, damage, text):
    path = tmp_path / "bad.tar"
    path.write_bytes(damage(shard_bytes(tmp_path)))
    with pytest.raises(FormatError, match=text) as caught:
        TarShards([path])
    assert str(path) in str(caught.value)


def test_shards_refuse_an_oversized_name_that_the_file_does_hold(tmp_path):
    data = raw_header(b"a", b"00010000000", b"L") + b"n" * 2**21 + shard_bytes(tmp_path)
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged tar at record 0: a header of 2097152 bytes"):
        TarShards([path])


def test_compressed_shards_are_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for info, data in samples(2):
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(FormatError, match="damaged tar at record 0"):
        TarShards([path])


@pytest.mark.parametrize("seed", range(20))
def test_damage_anywhere_is_refused_or_harmless(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(shard_bytes(tmp_path))
    for where in rng.integers(0, len(data) - 10000, 3):
        data[where] ^= int(rng.integers(1, 256))
    path = tmp_path / "bad.tar"
    path.write_bytes(bytes(data))
    try:
        assert TarShards([path], size=4).images[:].shape[1:] == (4, 4, 3)
    except FormatError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_shards_obey_their_limits(shards):
    with pytest.raises(FormatError, match="bytes, the limit is 20"):
        TarShards(shards, max_member_bytes=20)
    with pytest.raises(FormatError, match="exceed max_total_bytes"):
        TarShards(shards, max_total_bytes=300)
    with pytest.raises(FormatError, match="1024 pixels|32 x 32 pixels exceed the limit of 1000"):
        TarShards(shards, max_pixels=1000)


def test_shards_check_labels_against_class_names(shards):
    names = [f"class {i}" for i in range(6)]
    with pytest.raises(FormatError, match=r"record 5 's006\.cls': label 6 is outside of 0\.\.5"):
        TarShards(shards, class_names=names)


def test_shards_name_the_sample_with_a_bad_or_other_image(tmp_path):
    members = [*samples(1), member("b.png", png(1)[:50]), member("b.cls", b"0")]
    path = write(tmp_path / "a.tar", members)
    with pytest.raises(FormatError, match=r"a\.tar': sample 1 'b\.png': cannot be decoded"):
        TarShards([path]).images[:]
    members = [*samples(1), member("b.png", png(1, (9, 9))), member("b.cls", b"0")]
    data = TarShards([write(path, members)])
    with pytest.raises(FormatError, match=r"is \(9, 9, 3\), the first image is \(32, 32, 3\)"):
        data.images[:]


def test_shards_notice_a_file_that_shrank(shards):
    data = TarShards(shards)
    with shards[0].open("r+b") as file:
        file.truncate(600)
    with pytest.raises(FormatError, match="was the file changed"):
        data.images[3]


def test_shards_refuse_bad_arguments(shards, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="sequence of tar files"):
        TarShards(str(shards[0]))
    with pytest.raises(ArgumentError, match="sequence of tar files"):
        TarShards([])
    with pytest.raises(ArgumentError, match="channels must be 1 or 3"):
        TarShards(shards, channels=4)
    with pytest.raises(FileError, match="absent"):
        TarShards([tmp_path / "absent.tar"])
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(UnsupportedError, match="pip install pillow"):
        TarShards(shards)


def test_cifar10_reads_shards(tmp_path):
    write(tmp_path / "train-0000.tar", samples(5))
    write(tmp_path / "train-0001.tar", samples(6, first=5))
    write(tmp_path / "test-0000.tar", samples(3))
    train, test = cifar10(tmp_path)
    assert train.images.shape == (11, 32, 32, 3)
    assert train.labels.tolist() == [*range(10), 0]
    assert test.class_names[9] == "truck"


def test_tar_shards_read_real_cifar10(shared_data):
    data = TarShards([shared_data("cifar10") / "test-0000.tar"])
    assert len(data) == 10000
    assert np.bincount(data.labels).tolist() == [1000] * 10
    assert data.images[::500].shape == (20, 32, 32, 3)
