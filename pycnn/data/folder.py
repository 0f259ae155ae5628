"""Folders of image files, one folder per class."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from pycnn.arguments import as_path
from pycnn.data._checks import as_size
from pycnn.data._decode import MAX_PIXELS, read_file
from pycnn.data._encoded import CACHE_BYTES, EncodedDataset, OnError
from pycnn.data._files import PathLike, list_directory
from pycnn.errors import FileError, FormatError

__all__ = ["ImageFolder"]

# Only which files are looked at; the format is told by content.
_ENDINGS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


class ImageFolder(EncodedDataset):
    """Image files in ``root/CLASS/**``, decoded when they are read.

    The classes are the sorted names of the folders in `root`; the images of a class are the files
    below it, sorted by path, whose names end like those of BMP, GIF, JPEG, PNG, PNM, TIFF or WebP
    files. Names that start with a dot are left out. Which format a file has is told by its
    content. EXIF orientation is applied; alpha is blended over white; palettes are expanded;
    16-bit values keep their high byte; CMYK becomes RGB without colour profiles.

    Decoded images are kept in memory until `cache_bytes` are used up, so that a small data set is
    decoded once. A `RandomResizedCrop` that is the first step of a loader's transform cuts from the
    whole picture rather than from the image of this size.

    Args:
        root: The folder.
        size: Side, or (height, width), in pixels, that every image is brought to.
        channels: 3 for RGB, 1 for grey.
        fit: ``"crop"`` scales until the shorter side fits and cuts the middle; ``"stretch"``
            ignores the proportions.
        on_error: ``"raise"`` reports a bad file when it is read. ``"skip"`` decodes every file
            once now, leaves out the bad ones and keeps them in `skipped`.
        max_pixels: Refuse images with more pixels, from their header, before decoding.
        cache_bytes: Most memory for decoded images; default 256 MiB. 0 decodes every time.
        reduced_decoding: Decode JPEG files at 1/2, 1/4 or 1/8 where what is needed of them is
            smaller still: much faster for large photographs. Pixels differ a little from those of
            full decoding, as the decoder averages blocks in its own way; whole pictures are not
            kept in memory then.

    Attributes:
        paths: The files, in order.
        skipped: ``(path, reason)`` of each file that was left out.

    Raises:
        FileError: A folder cannot be read; carries errno and path.
        FormatError: No class folders, or a class without images; when read: a bad image, with
            its path and index.
        ArgumentError: An argument is out of range.
        UnsupportedError: Pillow is not installed.

    Warns:
        UserWarning: There is only one class, or images were skipped.

    Example:
        >>> photos = ImageFolder("photos/train", size=224)  # doctest: +SKIP
        >>> photos.class_names  # doctest: +SKIP
        ('ants', 'bees')
    """

    def __init__(
        self,
        root: PathLike,
        *,
        size: int | tuple[int, int],
        channels: int = 3,
        fit: str = "crop",
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
        cache_bytes: int = CACHE_BYTES,
        reduced_decoding: bool = False,
    ) -> None:
        who = "ImageFolder"
        self._configure(
            who,
            size=as_size(size, who=who),
            channels=channels,
            fit=fit,
            on_error=on_error,
            max_pixels=max_pixels,
            cache_bytes=cache_bytes,
            reduced_decoding=reduced_decoding,
        )
        self.root = as_path(root, who=who)
        self.image_shape = (*as_size(size, who=who), channels)
        self.paths: list[Path] = []
        self.skipped: list[tuple[Path, str]] = []
        classes = self._scan()
        if on_error == "skip":
            classes = self._drop_bad(classes)
        self.labels = np.array(classes, np.int64)
        if len(self.class_names) == 1:
            warnings.warn(
                f"{who}: '{self.root}' has only one class, '{self.class_names[0]}'; there is nothing to tell apart",
                stacklevel=2,
            )

    def _scan(self) -> list[int]:
        names = [name for name in list_directory(self.root) if not name.startswith(".") and (self.root / name).is_dir()]
        if not names:
            raise FormatError(f"ImageFolder: '{self.root}' has no folders; expected one folder per class")
        self.class_names = tuple(names)
        classes: list[int] = []
        for label, name in enumerate(names):
            found = _image_files(self.root / name)
            if not found:
                raise FormatError(f"ImageFolder: class '{name}' has no images in '{self.root / name}'")
            self.paths.extend(found)
            classes.extend([label] * len(found))
        return classes

    def _drop_bad(self, classes: list[int]) -> list[int]:
        bad = self._find_bad(len(self.paths))
        self.skipped = [(self.paths[i], reason) for i, reason in bad.items()]
        good = [(path, label) for i, (path, label) in enumerate(zip(self.paths, classes, strict=True)) if i not in bad]
        if self.skipped:
            warnings.warn(
                f"ImageFolder: skipped {len(self.skipped)} of {len(self.paths)} images in "
                f"'{self.root}'; the first: {self.skipped[0][1]}",
                stacklevel=3,
            )
        left = {label for _, label in good}
        for label, name in enumerate(self.class_names):
            if label not in left:
                first = next(bad[i] for i, was in enumerate(classes) if was == label and i in bad)
                raise FormatError(f"ImageFolder: every image of class '{name}' is bad; the first: {first}")
        self.paths = [path for path, _ in good]
        if bad:
            # The images behind a bad one have other numbers now.
            self._cache.clear()
        return [label for _, label in good]

    def fingerprint(self) -> bytes:
        """A digest of settings, class names, and names, sizes and times of change of the files.

        Raises:
            FileError: A file is gone.
        """
        settings = (self._size, self._channels, self._fit, self._reduced)
        digest = hashlib.sha256(f"folder {settings} {self.class_names}\n".encode())
        for path in self.paths:
            try:
                state = path.stat()
            except OSError as error:
                raise FileError(error.errno, error.strerror, str(path)) from None
            place = os.fsencode(path.relative_to(self.root))
            digest.update(place + f" {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.digest()

    def _where(self, i: int) -> str:
        return f"image {i} '{self.paths[i]}'"

    def _encoded(self, i: int) -> bytes:
        return read_file(self.paths[i], where=self._where(i))


def _image_files(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise FileError(error.errno, error.strerror, str(error.filename)) from None

    found: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(where, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in _ENDINGS
        )
    return sorted(found)
