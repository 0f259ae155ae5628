"""Base of data sets whose images are files: decoding, windows of whole pictures, pixels kept in memory."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from pycnn.arguments import as_integer
from pycnn.data._checks import Images, Index, as_size
from pycnn.data._decode import check_fit, decode, decode_window, image_size, require_pillow
from pycnn.data._parallel import in_order
from pycnn.data.datasets import ReadableDataset
from pycnn.errors import ArgumentError, FileError, FormatError
from pycnn.fork import renew_after_fork

if TYPE_CHECKING:
    from pycnn.data.transforms._resized_crop import CropPlan

# 256 MiB: all of CIFAR-10, or some 450 photographs of 500 x 375.
CACHE_BYTES = 2**28

OnError = Literal["raise", "skip"]


class PixelCache:
    """Decoded images by key, until a number of bytes is used up; nothing is ever thrown out."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._kept: dict[tuple[str, int], Images] = {}
        self._renew()
        renew_after_fork(self, PixelCache._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        # Counted again: who was about to keep an image may be gone.
        self._left = self._budget - sum(pixels.nbytes for pixels in self._kept.values())

    def get(self, key: tuple[str, int]) -> Images | None:
        """The pixels, if they are kept."""
        return self._kept.get(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._left = self._budget

    def offer(self, key: tuple[str, int], pixels: Images) -> None:
        """Keep the pixels if there is room; they must not be written to any more."""
        with self._lock:
            if pixels.nbytes <= self._left and key not in self._kept:
                self._left -= pixels.nbytes
                self._kept[key] = pixels


class EncodedDataset(ReadableDataset):
    """Images that are decoded when they are read; a subclass gives the bytes of each.

    A subclass calls `_configure`, then sets `labels`, `class_names` and `image_shape`.
    """

    def _configure(
        self,
        who: str,
        *,
        size: int | tuple[int, int] | None,
        channels: int,
        fit: str,
        on_error: str,
        max_pixels: int,
        cache_bytes: int,
        reduced_decoding: bool,
    ) -> None:
        require_pillow(who)
        if channels not in (1, 3):
            raise ArgumentError(f"{who}: channels must be 1 or 3, got {channels!r}")
        if on_error not in ("raise", "skip"):
            raise ArgumentError(f"{who}: on_error must be 'raise' or 'skip', got {on_error!r}")
        self._size = None if size is None else as_size(size, who=who)
        self._channels = channels
        self._fit = check_fit(fit, who=who)
        self._max_pixels = as_integer(max_pixels, who=who, name="max_pixels", low=1)
        self._cache = PixelCache(as_integer(cache_bytes, who=who, name="cache_bytes", low=0))
        self._reduced = bool(reduced_decoding)

    def _encoded(self, i: int) -> bytes:
        """The bytes of one image file."""
        raise NotImplementedError

    def _where(self, i: int) -> str:
        """What errors call it."""
        raise NotImplementedError

    def _decoded(self, i: int, size: tuple[int, int] | None) -> Images:
        """One image of this size, or as it is in the file."""
        key = ("whole" if size is None else "sized", i)
        pixels = self._cache.get(key)
        if pixels is None:
            pixels = decode(
                self._encoded(i),
                where=self._where(i),
                channels=self._channels,
                size=size,
                fit=self._fit,
                max_pixels=self._max_pixels,
                reduced=self._reduced,
            )
            self._cache.offer(key, pixels)
        return pixels

    def file_sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of each image as it is in its file, upright, from the headers.

        Raises:
            FormatError: A header is bad.
            FileError: A file cannot be read.
        """

        def size(i: int) -> tuple[int, int]:
            return image_size(self._encoded(i), where=self._where(i), max_pixels=self._max_pixels)

        return list(in_order(size, range(len(self))))

    def read(self, indices: Index) -> Images:
        """Decode these images, or take them from memory.

        Raises:
            FormatError: A bad image, or, without `size`, one of another size than the first; the
                text gives file and index.
            FileError: A file cannot be read.
        """
        out = np.empty((len(indices), *self.image_shape), np.uint8)
        for n, i in enumerate(indices.tolist()):
            image = self._decoded(i, self._size)
            if image.shape != self.image_shape:
                raise FormatError(
                    f"{self._where(i)} is {image.shape}, the first image is {self.image_shape}\n  hint: pass size="
                )
            out[n] = image
        return out

    def read_crops(self, indices: Index, plan: CropPlan) -> Images:
        """Windows of these images as they are in their files, resampled (see `RandomResizedCrop`).

        Raises:
            FormatError: A bad image; the text gives file and index.
            FileError: A file cannot be read.
        """
        out = np.empty((len(indices), *plan.size, self._channels), np.uint8)
        for n, i in enumerate(indices.tolist()):
            if self._reduced:
                pixels, window = decode_window(
                    self._encoded(i),
                    partial(plan.window, n),
                    plan.size,
                    where=self._where(i),
                    channels=self._channels,
                    max_pixels=self._max_pixels,
                )
            else:
                pixels = self._decoded(i, None)
                window = plan.window(n, pixels.shape[0], pixels.shape[1])
            plan.cut(pixels, window, out[n])
        return out

    def _find_bad(self, count: int) -> dict[int, str]:
        """Decode every image once; why some cannot be."""

        def reason(i: int) -> str | None:
            try:
                self._decoded(i, self._size)
            except (FormatError, FileError) as error:
                return str(error)
            return None

        return {i: text for i, text in enumerate(in_order(reason, range(count))) if text is not None}
