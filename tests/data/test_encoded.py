"""Decoding of image files: two decoders, reduced decoding, whole pictures for crops, pixels in memory."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from pycnn.data import ArrayDataset, ImageFolder, Loader, TarShards, _decode, _image, mean_std
from pycnn.data import transforms as T  # noqa: N812
from pycnn.data._decode import decode, decode_window, image_size
from pycnn.errors import ArgumentError, FormatError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def picture(height, width, seed=0):
    """Smooth colours, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, **keywords):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, **keywords)
    return out.getvalue()


def rotated(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.fixture
def pillow_only(monkeypatch):
    def switch():
        monkeypatch.setattr(_decode, "_fast_decoder", None)

    return switch


@pytest.fixture
def folder(tmp_path):
    for n in range(10):
        path = tmp_path / ("ant" if n % 2 else "bee") / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(picture(40 + 3 * n, 90 - 4 * n, n)))
    return tmp_path


needs_simplejpeg = pytest.mark.skipif(_decode._simplejpeg() is None, reason="needs simplejpeg")


@needs_simplejpeg
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("size", [(1, 1), (17, 30), (33, 15)])
def test_both_decoders_give_the_same_pixels(size, orientation, channels, divisor, pillow_only):
    divisor = min(divisor, *size)
    image = picture(*size)
    kind = {"subsampling": orientation % 3} if channels == 3 else {}
    data = jpeg(image if channels == 3 else image.convert("L"), exif=rotated(orientation), **kind)

    def load():
        with _decode._opened(data, "x", 10**6) as opened:
            return _decode._load(opened, data, channels, divisor, "x")

    fast = load()
    pillow_only()
    slow = load()
    assert fast.shape == slow.shape
    np.testing.assert_array_equal(fast, slow)


@needs_simplejpeg
@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoders_agree_on_other_kinds_of_jpeg(mode, channels, pillow_only):
    data = jpeg(picture(20, 31).convert(mode), progressive=True)
    fast = decode(data, where="x", channels=channels, size=(9, 9))
    pillow_only()
    np.testing.assert_array_equal(fast, decode(data, where="x", channels=channels, size=(9, 9)))


@needs_simplejpeg
def test_decoders_agree_on_real_photographs(shared_data, pillow_only):
    files = sorted(shared_data("ants_bees").rglob("*.jpg"))[::40]
    fast = [decode(path.read_bytes(), where=str(path), channels=3) for path in files]
    pillow_only()
    for path, pixels in zip(files, fast, strict=True):
        np.testing.assert_array_equal(pixels, decode(path.read_bytes(), where=str(path), channels=3))


@pytest.mark.parametrize("cut", [3, 20, 200, 900, -2])
def test_cut_off_jpeg_is_refused_whoever_decodes(cut, pillow_only):
    data = jpeg(picture(60, 60))[:cut]
    with pytest.raises(FormatError, match="'x'"):
        decode(data, where="'x'", channels=3)
    pillow_only()
    with pytest.raises(FormatError, match="'x'"):
        decode(data, where="'x'", channels=3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_keeps_what_the_window_needs(orientation):
    data = jpeg(picture(320, 240), exif=rotated(orientation))
    whole = decode(data, where="x", channels=3)
    assert image_size(data, where="x") == whole.shape[:2]
    for window, divisor in [((0, 0, 200, 210), 4), ((40, 16, 100, 104), 2), ((40, 16, 90, 104), 1)]:
        pixels, (top, left, height, width) = decode_window(
            data, lambda *_, w=window: w, (50, 50), where="x", channels=3
        )
        assert pixels.shape[0] == -(-whole.shape[0] // divisor)
        assert (top, left, height, width) == tuple(side / divisor for side in window)
        full, near = np.empty((50, 50, 3), np.uint8), np.empty((50, 50, 3), np.uint8)
        _image.crop_resize(whole, *window, True, full)
        _image.crop_resize(pixels, top, left, height, width, True, near)
        # The picture is smooth: a wrong place or scale would differ by dozens of levels.
        assert np.abs(full.astype(int) - near).mean() < 4


def test_window_of_a_png_is_not_reduced():
    out = io.BytesIO()
    picture(64, 64).save(out, "PNG")
    pixels, window = decode_window(out.getvalue(), lambda *_: (0, 0, 64, 64), (8, 8), where="x", channels=3)
    assert pixels.shape == (64, 64, 3)
    assert window == (0, 0, 64, 64)


def test_fixed_size_reduced_is_close_to_full(folder):
    full = ImageFolder(folder, size=10).images[:]
    reduced = ImageFolder(folder, size=10, reduced_decoding=True).images[:]
    assert (full != reduced).any()
    assert np.abs(full.astype(int) - reduced).mean() < 4


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_every_shape_of_picture_can_be_brought_to_size(fit):
    # 224 * (375 / 224) is more than 375 in floating point.
    shapes = [(375, 500), (500, 375), *((n, 2 * n + 1) for n in range(1, 90, 4)), *((n, 97) for n in range(60, 240, 7))]
    for shape in shapes:
        image = Image.new("L", shape[::-1], 77)
        out = io.BytesIO()
        image.save(out, "PNG")
        for size in ((224, 224), (7, 31)):
            pixels = decode(out.getvalue(), where="x", channels=1, size=size, fit=fit)
            assert pixels.shape == (*size, 1)
            assert (pixels == 77).all()


# ---- Whole pictures for crops


def test_resized_crop_cuts_from_the_whole_picture(folder):
    data = ImageFolder(folder, size=16)
    crop = T.RandomResizedCrop(12)
    images, labels = next(iter(Loader(data, 10, shuffle=False, seed=3, transform=crop)))
    for n in range(10):
        with Image.open(data.paths[n]) as opened:
            whole = np.asarray(opened)
        np.testing.assert_array_equal(images[n], crop(whole, seed=3, indices=[n]))
    assert labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("cache_bytes", [0, 20000, 2**28])
def test_memory_and_workers_do_not_change_the_bits(folder, cache_bytes, reduced):
    transform = T.Compose([T.RandomResizedCrop(6, scale=(0.5, 1)), T.RandomHorizontalFlip(), T.ColorJitter(0.3)])

    def epochs(workers, cache):
        data = ImageFolder(folder, size=16, cache_bytes=cache, reduced_decoding=reduced)
        loader = Loader(data, 3, seed=1, transform=transform, workers=workers)
        return [[x.tobytes() for x, _ in loader] for _ in range(2)]

    assert epochs(3, cache_bytes) == epochs(0, 0)


def test_subset_and_split_cut_from_the_whole_picture_too(folder):
    data = ImageFolder(folder, size=16)
    first, second = data.split(0.6, seed=1)
    assert (len(first), len(second)) == (6, 4)
    images, _ = next(iter(Loader(first, 6, shuffle=False, transform=T.RandomResizedCrop(20))))
    for n, i in enumerate(first.indices):
        with Image.open(data.paths[i]) as opened:
            np.testing.assert_array_equal(images[n], T.RandomResizedCrop(20)(np.asarray(opened), indices=[n]))


def test_decoded_images_are_not_decoded_again(folder, monkeypatch):
    data = ImageFolder(folder, size=16)
    first = data.images[:]

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr("pycnn.data._encoded.decode", fail)
    np.testing.assert_array_equal(data.images[:], first)
    first[:] = 0
    assert data.images[:].any()
    with pytest.raises(AssertionError):
        ImageFolder(folder, size=16, cache_bytes=0).read(np.arange(2))


def test_memory_for_decoded_images_is_bounded(folder):
    data = ImageFolder(folder, size=16, cache_bytes=16 * 16 * 3 * 4 + 100)
    for _ in range(3):
        data.read(np.arange(10))
    assert len(data._cache._kept) == 4
    with pytest.raises(ArgumentError, match="cache_bytes must be at least 0, got -1"):
        ImageFolder(folder, size=16, cache_bytes=-1)


def test_images_behind_a_bad_one_keep_their_own_pixels(folder):
    paths = ImageFolder(folder, size=16).paths
    expected = ImageFolder(folder, size=16).images[[0, 2, 3, 4, 5, 6, 8, 9]]
    paths[1].write_bytes(b"no picture")
    paths[7].write_bytes(paths[7].read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"skipped 2 of 10 images in .*; the first: image 1 '"):
        data = ImageFolder(folder, size=16, on_error="skip")
    assert [path for path, _ in data.skipped] == [paths[1], paths[7]]
    np.testing.assert_array_equal(data.images[:], expected)


def test_shards_leave_out_bad_images_by_choice(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for n in range(5):
            content = b"not an image" if n == 2 else jpeg(picture(8, 8, n))
            for ending, data in ((".jpg", content), (".cls", b"%d" % (n % 2))):
                info = tarfile.TarInfo(f"{n}{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with pytest.raises(FormatError, match="sample 2 '2.jpg'"):
        TarShards([path]).in_memory()
    with pytest.warns(UserWarning, match=r"TarShards: skipped 1 of 5 images; the first: .*sample 2"):
        data = TarShards([path], on_error="skip")
    assert data.labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(data.images[2], decode(jpeg(picture(8, 8, 3)), where="x", channels=3))


# ---- Statistics


def test_mean_std_of_bytes_and_of_floats(rng):
    images = rng.integers(0, 256, (130, 3, 5, 3)).astype(np.uint8)
    labels = np.arange(130) % 3
    flat = images.reshape(-1, 3) / 255
    mean, std = ArrayDataset(images, labels).mean_std()
    assert np.abs(np.subtract(mean, flat.mean(axis=0))).max() < 1e-14
    assert np.abs(np.subtract(std, flat.std(axis=0))).max() < 1e-13
    values = rng.normal(3, 0.5, (130, 3, 5, 2)).astype(np.float32)
    mean, std = mean_std(ArrayDataset(values, labels))
    assert np.abs(np.subtract(mean, values.mean(axis=(0, 1, 2), dtype=np.float64))).max() < 1e-13
    assert np.abs(np.subtract(std, values.std(axis=(0, 1, 2), dtype=np.float64))).max() < 1e-12


@pytest.mark.parametrize("value", [0, 77, 255])
def test_channel_that_never_changes_has_deviation_one(value):
    mean, std = ArrayDataset(np.full((3, 2, 2, 1), value, np.uint8), [0, 0, 0]).mean_std()
    assert std == (1.0,)
    assert abs(mean[0] - value / 255) < 1e-15


def test_split_method_is_deterministic_and_stratified(rng):
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    data = ArrayDataset(rng.integers(0, 256, (100, 2, 2, 1)).astype(np.uint8), labels, ["a", "b", "c"])
    first, second = data.split(0.8, seed=4)
    assert first.class_counts == {"a": 40, "b": 24, "c": 16}
    assert second.class_counts == {"a": 10, "b": 6, "c": 4}
    again, _ = data.split(0.8, seed=4)
    np.testing.assert_array_equal(again.images, first.images)
    assert (data.split(0.8, seed=5)[0].images != first.images).any()
    for bad in (0, 1, 1.5, "x"):
        with pytest.raises(ArgumentError, match="split"):
            data.split(bad)


def test_in_memory_has_the_same_samples(folder):
    data = ImageFolder(folder, size=9, cache_bytes=0)
    loaded = data.in_memory()
    np.testing.assert_array_equal(loaded.images, data.images[:])
    assert loaded.class_names == data.class_names
    assert loaded.labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_changed_bytes_give_an_image_or_a_format_error(kind, rng):
    out = io.BytesIO()
    picture(24, 37).save(out, kind, exif=rotated(6))
    plain = jpeg(picture(24, 37)) if kind == "JPEG" else out.getvalue()
    outcomes = set()
    for data in (out.getvalue(), plain):
        for _ in range(200):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                changed[place] = rng.integers(0, 256)
            for load in (decode, lambda data, **kw: decode_window(data, lambda h, w: (0, 0, h, w), (3, 3), **kw)[0]):
                try:
                    pixels = load(bytes(changed), where="x", channels=3, max_pixels=10**6)
                except FormatError:
                    outcomes.add("refused")
                else:
                    assert pixels.dtype == np.uint8
                    assert pixels.shape[2] == 3
                    outcomes.add("read")
    # Checksums of PNG catch every change; JPEG has none.
    assert outcomes == ({"read", "refused"} if kind == "JPEG" else {"refused"})
