"""Folders of image files, one folder per class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from pycnn.data._checks import Images, Index, as_integer, as_size
from pycnn.data._decode import MAX_FILE_BYTES, MAX_PIXELS, check_fit, decode, require_pillow
from pycnn.data._files import PathLike, as_path, list_directory, open_regular
from pycnn.data.datasets import ReadableDataset
from pycnn.errors import ArgumentError, FileError, FormatError

__all__ = ["ImageFolder"]

# Only which files are looked at; the format is told by content.
_ENDINGS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


class ImageFolder(ReadableDataset):
    """Image files in ``root/CLASS/**``, decoded when they are read.

    The classes are the sorted names of the folders in `root`; the images of a class are the files
    below it, sorted by path, whose names end like those of BMP, GIF, JPEG, PNG, PNM, TIFF or WebP
    files. Names that start with a dot are left out. Which format a file has is told by its
    content. EXIF orientation is applied; alpha is blended over white; palettes are expanded;
    16-bit values keep their high byte; CMYK becomes RGB without colour profiles.

    Args:
        root: The folder.
        size: Side, or (height, width), in pixels, that every image is brought to.
        channels: 3 for RGB, 1 for grey.
        fit: ``"crop"`` scales until the shorter side fits and cuts the middle; ``"stretch"``
            ignores the proportions.
        on_error: ``"raise"`` reports a bad file when it is read. ``"skip"`` decodes every file
            once now, leaves out the bad ones and keeps them in `skipped`.
        max_pixels: Refuse images with more pixels, from their header, before decoding.

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
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        who = "ImageFolder"
        require_pillow(who)
        self.root = as_path(root, who=who)
        self._size = as_size(size, who=who)
        if channels not in (1, 3):
            raise ArgumentError(f"{who}: channels must be 1 or 3, got {channels!r}")
        if on_error not in ("raise", "skip"):
            raise ArgumentError(f"{who}: on_error must be 'raise' or 'skip', got {on_error!r}")
        self._fit = check_fit(fit, who=who)
        self._max_pixels = as_integer(max_pixels, who=who, name="max_pixels", low=1)
        self.image_shape = (*self._size, channels)
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
        good: list[tuple[Path, int]] = []
        for path, label in zip(self.paths, classes, strict=True):
            try:
                self._decode(path, f"'{path}'")
            except (FormatError, FileError) as error:
                self.skipped.append((path, str(error)))
            else:
                good.append((path, label))
        if self.skipped:
            warnings.warn(
                f"ImageFolder: skipped {len(self.skipped)} of {len(self.paths)} images in "
                f"'{self.root}'; the first: {self.skipped[0][1]}",
                stacklevel=3,
            )
        left = {label for _, label in good}
        for label, name in enumerate(self.class_names):
            if label not in left:
                raise FormatError(f"ImageFolder: every image of class '{name}' is bad")
        self.paths = [path for path, _ in good]
        return [label for _, label in good]

    def _decode(self, path: Path, where: str) -> Images:
        with open_regular(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise FormatError(f"{where}: the file has more than {MAX_FILE_BYTES} bytes")
        return decode(
            data,
            where=where,
            channels=self.image_shape[2],
            size=self._size,
            fit=self._fit,
            max_pixels=self._max_pixels,
        )

    def read(self, indices: Index) -> Images:
        """Decode these images.

        Raises:
            FormatError: A bad image; the text gives path and index.
            FileError: A file cannot be read.
        """
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for n, i in enumerate(indices):
            out[n] = self._decode(self.paths[i], f"image {i} '{self.paths[i]}'")
        return out


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
