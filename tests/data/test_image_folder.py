"""Image files: conversion rules, hostile bytes, folders."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest

from pycnn.data import ImageFolder, Loader
from pycnn.data._decode import decode
from pycnn.errors import ArgumentError, FileError, FormatError, UnsupportedError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
PngInfo = pytest.importorskip("PIL.PngImagePlugin").PngInfo


def encode(image, kind="PNG", **keywords):
    out = io.BytesIO()
    image.save(out, kind, **keywords)
    return out.getvalue()


def colours(height=4, width=6):
    ramp = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return Image.fromarray(ramp * 3)


def to_pixels(data, channels=3, **keywords):
    return decode(data, where="'x'", channels=channels, **keywords)


PIXELS = np.asarray(colours())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_decode_exactly(kind):
    np.testing.assert_array_equal(to_pixels(encode(colours(), kind)), PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_decodes_as_pillow_does(progressive):
    data = encode(colours(), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(to_pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_grey_becomes_three_equal_channels_and_back():
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    out = to_pixels(encode(grey))
    assert (out == np.arange(12).reshape(3, 4, 1)).all()
    assert to_pixels(encode(grey), 1).shape == (3, 4, 1)


def test_colour_becomes_grey_by_the_documented_weights():
    out = to_pixels(encode(colours()), 1)[..., 0]
    assert np.abs(out - PIXELS @ [0.299, 0.587, 0.114]).max() <= 0.5 + 255 * 3 * 2**-16


def test_alpha_is_blended_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255]
    out = to_pixels(encode(Image.fromarray(rgba)))
    assert np.abs(out[0, :, 0].astype(int) - [255, 127, 0]).max() <= 1
    la = Image.fromarray(rgba).convert("LA")
    np.testing.assert_array_equal(to_pixels(encode(la)), out)


def test_palette_is_expanded_and_its_transparent_entry_is_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    np.testing.assert_array_equal(to_pixels(encode(image)), [[[10, 20, 30], [200, 100, 50]]])
    out = to_pixels(encode(image, transparency=0))
    np.testing.assert_array_equal(out, [[[255, 255, 255], [200, 100, 50]]])


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    np.testing.assert_array_equal(to_pixels(encode(image), 1)[..., 0], [[0, 255]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_high_byte(kind):
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)
    out = to_pixels(encode(Image.fromarray(values), kind), 1)
    np.testing.assert_array_equal(out[..., 0], values >> 8)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    np.testing.assert_array_equal(to_pixels(encode(image, "TIFF")), [[[0, 255, 255]]])
    assert to_pixels(encode(image, "JPEG"), 1).shape == (1, 1, 1)


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_exif_orientation_is_applied(mode):
    image = colours() if mode == "RGB" else Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    out = to_pixels(encode(image, "PNG", exif=exif))
    expected = PIXELS if mode == "RGB" else PIXELS[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(out, np.rot90(expected, -1))


def test_floating_point_and_32_bit_pixels_are_refused():
    values = np.full((2, 2), 70000, np.int32)
    with pytest.raises(FormatError, match="32-bit pixels from 70000 to 70000"):
        to_pixels(encode(Image.fromarray(values), "TIFF"))
    with pytest.raises(FormatError, match="floating-point pixels"):
        to_pixels(encode(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_crop_keeps_proportions_and_stretch_does_not():
    image = Image.fromarray(np.repeat(np.arange(30, dtype=np.uint8) * 8, 10).reshape(30, 10))
    tall = np.asarray(image, float)
    cropped = to_pixels(encode(image), 1, size=(10, 10))[..., 0]
    np.testing.assert_array_equal(cropped, tall[10:20])
    stretched = to_pixels(encode(image), 1, size=(10, 10), fit="stretch")[..., 0].astype(float)
    assert stretched[0].max() < 16
    assert stretched[-1].min() > 216


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + extra + pixels + png_chunk(b"IEND", b"")


def flip_crc(data):
    where = data.index(b"IDAT")
    length = struct.unpack(">I", data[where - 4 : where])[0]
    bad = bytearray(data)
    bad[where + 4 + length] ^= 1
    return bytes(bad)


JPEG = encode(colours(64, 64), "JPEG")
TEXT_BOMB = png(2, 2, png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 << 20), 9)))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not a known image format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a known image format"),
        (b"\x80\x04\x95" + bytes(50), "not a known image format"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:20], "cannot be decoded"),
        (encode(colours(64, 64))[:-40], "cannot be decoded"),
        (encode(colours(64, 64))[:60], "cannot be decoded"),
        (flip_crc(encode(colours())), "cannot be decoded"),
        (png(0, 0), "(0 x 0 pixels|cannot be decoded|not a known)"),
        (png(30000, 30000), r"^'x': (30000 x 30000|900000000) pixels exceed the limit of 67108864$"),
        (png(9000, 9000), "9000 x 9000 pixels exceed the limit of 67108864"),
        (png(2**31 - 1, 2**31 - 1), "4611686014132420609 pixels exceed the limit of 67108864$"),
        (TEXT_BOMB, "cannot be decoded"),
    ],
)
def test_hostile_images_are_refused_by_name(data, text):
    with pytest.raises(FormatError, match=text) as caught:
        to_pixels(data)
    assert str(caught.value).startswith("'x': ")
    assert "0x" not in str(caught.value)  # no addresses: the text is the same in every run
    assert "Error: " not in str(caught.value)  # nor names of the decoder's classes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damage_anywhere_is_refused_or_decoded_but_nothing_else(kind, rng):
    good = bytearray(encode(colours(16, 16), kind))
    for _ in range(60):
        bad = good.copy()
        for where in rng.integers(0, len(bad), 3):
            bad[where] ^= int(rng.integers(1, 256))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert to_pixels(bytes(bad[: rng.integers(1, len(bad) + 1)])).shape[2] == 3
        except FormatError:
            pass


@pytest.fixture
def photos(tmp_path):
    for name, value in (("dog", 200), ("ant", 100)):
        (tmp_path / name / "more").mkdir(parents=True)
        for i in range(3):
            picture = Image.new("RGB", (20 + i, 12), (value, value + i, 0))
            picture.save(tmp_path / name / f"{i}.JPG", "PNG")
        Image.new("L", (5, 5), value).save(tmp_path / name / "more" / "z.bmp")
        (tmp_path / name / "README.txt").write_text("no image")
        (tmp_path / name / ".hidden.png").write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_folder_reads_classes_and_files_in_order(photos):
    data = ImageFolder(photos, size=(6, 8))
    assert data.class_names == ("ant", "dog")
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    names = [path.relative_to(photos).as_posix() for path in data.paths[:4]]
    assert names == ["ant/0.JPG", "ant/1.JPG", "ant/2.JPG", "ant/more/z.bmp"]
    assert data.images.shape == (8, 6, 8, 3)
    np.testing.assert_array_equal(data.images[[1, 7]][:, 0, 0], [[100, 101, 0], [200] * 3])
    grey = ImageFolder(str(photos), size=4, channels=1)
    assert grey[0][0].shape == (4, 4, 1)


def test_folder_feeds_the_loader_with_the_same_bits_for_any_workers(photos):
    data = ImageFolder(photos, size=6)
    batches = [[x.tobytes() for x, _ in Loader(data, 3, workers=w)] for w in (0, 1, 3)]
    assert batches[0] == batches[1] == batches[2]


def test_folder_names_path_and_index_of_a_bad_image(photos):
    (photos / "dog" / "1.JPG").write_bytes(JPEG[:200])
    data = ImageFolder(photos, size=6)
    with pytest.raises(FormatError, match=r"image 5 '.*1\.JPG': cannot be decoded"):
        data.read(np.arange(8))
    with pytest.raises(FormatError, match="image 5"):
        list(Loader(data, 4, workers=2))


def test_folder_skips_bad_images_if_asked_and_counts_them(photos):
    (photos / "dog" / "1.JPG").write_bytes(JPEG[:200])
    (photos / "ant" / "2.JPG").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped 2 of 8 images .* empty file") as caught:
        data = ImageFolder(photos, size=6, on_error="skip")
    assert caught[0].filename == __file__
    assert [path.name for path, _ in data.skipped] == ["2.JPG", "1.JPG"]
    assert len(data) == 6
    assert data.labels.tolist() == [0] * 3 + [1] * 3
    assert data.images[:].shape == (6, 6, 6, 3)


def test_folder_without_a_good_image_in_a_class_is_refused(photos):
    for path in (photos / "ant").rglob("*.*"):
        path.write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="skipped 4 of 8"),
        pytest.raises(
            FormatError, match=r"every image of class 'ant' is bad; the first: image 0 '.*ant.*cannot be decoded"
        ),
    ):
        ImageFolder(photos, size=6, on_error="skip")


def test_folder_warns_when_there_is_only_one_class(tmp_path):
    (tmp_path / "only").mkdir()
    colours().save(tmp_path / "only" / "a.png")
    with pytest.warns(UserWarning, match="only one class, 'only'"):
        ImageFolder(tmp_path, size=4)


def test_folder_without_images_or_classes_says_what_it_expects(tmp_path):
    with pytest.raises(FormatError, match="expected one folder per class"):
        ImageFolder(tmp_path, size=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="class 'empty' has no images"):
        ImageFolder(tmp_path, size=4)
    with pytest.raises(FileError, match="absent") as caught:
        ImageFolder(tmp_path / "absent", size=4)
    assert caught.value.errno == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_folder_does_not_wait_for_a_pipe(photos):
    os.mkfifo(photos / "ant" / "9.png")
    with pytest.raises(FormatError, match="not a regular file"):
        ImageFolder(photos, size=4).images[:]


def test_folder_reports_a_file_that_vanished(photos):
    data = ImageFolder(photos, size=4)
    data.paths[0].unlink()
    with pytest.raises(FileError, match=r"0\.JPG"):
        data.images[0]


@pytest.mark.parametrize(
    "keywords",
    [
        {"size": 0},
        {"channels": 2},
        {"fit": "pad"},
        {"on_error": "ignore"},
        {"max_pixels": 0},
    ],
)
def test_folder_refuses_bad_arguments(photos, keywords):
    with pytest.raises(ArgumentError, match=next(iter(keywords))):
        ImageFolder(photos, **{"size": 4, **keywords})


def test_without_pillow_the_error_says_what_to_install(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnsupportedError, match="pip install pillow"):
        ImageFolder(photos, size=4)


def test_folder_reads_real_photographs(shared_data):
    data = ImageFolder(shared_data("ants_bees") / "val", size=32)
    assert data.class_names == ("ants", "bees")
    assert len(data) == 153
    assert data.images[::30].std() > 20
