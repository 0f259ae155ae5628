"""From the bytes of an image file to uint8 pixels, with Pillow. The bytes are not trusted.

Grey and three-channel JPEG files are decoded by simplejpeg where that is installed, which gives the same
pixels in less time; what it refuses, Pillow judges.

What is refused (FormatError): an unknown format, more pixels than the limit (known from the
header, before decoding), a truncated file, a wrong PNG checksum, 0 pixels. Pillow cannot see
damage inside of the compressed part of a JPEG that still decodes to the end.

How pixels become grey or colour:

* The EXIF orientation is applied.
* An alpha channel, or a transparent palette entry, is blended over white.
* A palette is expanded; 1-bit becomes 0 and 255.
* 16-bit values keep their high byte. 32-bit and floating-point pixels are refused.
* CMYK and YCbCr become RGB by Pillow's formulas, without colour profiles.
* Grey from RGB is 0.299 R + 0.587 G + 0.114 B; RGB from grey repeats it.
* Of an animation, the first picture counts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pycnn.data._files import open_regular
from pycnn.errors import ArgumentError, Error, FileError, FormatError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**26
MAX_FILE_BYTES = 2**28

# Told apart by content. The list keeps Pillow's rarer readers away from hostile bytes.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION = 0x0112
# Steps along rows and columns, after rows and columns were exchanged for 5 to 8 (TIFF 6.0, page 36).
_TURNED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}

_JPEG_MAGIC = b"\xff\xd8\xff"
# JPEG segments: APP1 holds EXIF or XMP, and so the orientation; pixels follow SOS.
_APP1, _SOS = 0xE1, 0xDA

_ALPHA_MODES = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))

Fit = Literal["crop", "stretch"]

_UNKNOWN = object()
_fast_decoder: Any = _UNKNOWN

# (top, left, height, width) in pixels.
Window = tuple[int, int, int, int]


def require_pillow(who: str) -> Any:
    """The module PIL.Image.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise UnsupportedError(
            f"{who}: decoding image files needs Pillow, which is not installed\n"
            "  hint: pip install 'pycnn[image]' or pip install pillow"
        ) from None
    return Image


def _simplejpeg() -> Any:
    """The module simplejpeg, or None."""
    global _fast_decoder
    if _fast_decoder is _UNKNOWN:
        try:
            _fast_decoder = import_module("simplejpeg")
        except ImportError:
            _fast_decoder = None
    return _fast_decoder


def check_fit(fit: str, *, who: str) -> Fit:
    """``"crop"`` or ``"stretch"``."""
    if fit == "crop":
        return "crop"
    if fit == "stretch":
        return "stretch"
    raise ArgumentError(f"{who}: fit must be 'crop' or 'stretch', got {fit!r}")


def decode(
    data: bytes,
    *,
    where: str,
    channels: int,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    max_pixels: int = MAX_PIXELS,
    reduced: bool = False,
) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: The whole file.
        where: Named in errors.
        channels: 1 for grey, 3 for RGB.
        size: (height, width) of the result in pixels. Default: as it is.
        fit: ``"crop"`` scales until the shorter side fits and cuts the middle; ``"stretch"``
            ignores the proportions.
        max_pixels: Refuse more than this, before decoding.
        reduced: Decode JPEG files at 1/2, 1/4 or 1/8 where `size` is smaller still; the pixels
            differ a little from those of full decoding.

    Shape:
        result: ``(H, W, channels)``.

    Raises:
        FormatError: The bytes are refused; see the head of this file.
        UnsupportedError: Pillow is not installed.
    """
    pillow = require_pillow(where)

    def needed(height: int, width: int) -> tuple[float, float]:
        return (height / size[0], width / size[1]) if reduced and size is not None else (1.0, 1.0)

    pixels, (height, width), divisor = _pixels(data, needed, where=where, channels=channels, max_pixels=max_pixels)
    if size is None or (height, width) == size:
        return pixels
    whole = pillow.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    small = _resized(whole, (height / divisor, width / divisor), size, fit)
    return np.asarray(small, np.uint8).reshape(*size, channels)


def decode_window(
    data: bytes,
    choose: Callable[[int, int], Window],
    size: tuple[int, int],
    *,
    where: str,
    channels: int,
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Decode one image no larger than a window of it needs.

    A JPEG file is decoded at 1/2, 1/4 or 1/8 where the window, so reduced, is still at least as
    large as `size`.

    Args:
        data: The whole file.
        choose: From height and width of the whole picture, upright, to the window.
        size: (height, width) that the window will be resampled to.
        where: Named in errors.
        channels: 1 for grey, 3 for RGB.
        max_pixels: Refuse more than this, before decoding.

    Returns:
        Pixels ``(H, W, channels)``, and the window in them, whose borders may lie within pixels.

    Raises:
        FormatError: The bytes are refused; see the head of this file.
        UnsupportedError: Pillow is not installed.
    """

    def needed(rows: int, columns: int) -> tuple[float, float]:
        _, _, height, width = choose(rows, columns)
        return height / size[0], width / size[1]

    pixels, whole, divisor = _pixels(data, needed, where=where, channels=channels, max_pixels=max_pixels)
    top, left, height, width = choose(*whole)
    return pixels, (top / divisor, left / divisor, height / divisor, width / divisor)


def image_size(data: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels of the upright image, from the header.

    Raises:
        FormatError: The header is refused.
    """
    with _opened(data, where, max_pixels) as image:
        return _upright_size(image)


def _pixels(
    data: bytes,
    needed: Callable[[int, int], tuple[float, float]],
    *,
    where: str,
    channels: int,
    max_pixels: int,
) -> tuple[NDArray[np.uint8], tuple[int, int], int]:
    """Upright pixels, the (height, width) of the whole picture, and by what the pixels are reduced.

    `needed` tells from that size how many pixels are to become one, along rows and columns.
    """
    size = _plain_jpeg_size(data, channels)
    if size is not None and size[0] * size[1] <= max_pixels:
        divisor = _divisor(*needed(*size))
        pixels = _load_fast(data, channels, size, divisor)
        if pixels is not None:
            return pixels, size, divisor
    with _opened(data, where, max_pixels) as image:
        size = _upright_size(image)
        divisor = _divisor(*needed(*size)) if image.format == "JPEG" else 1
        return _load(image, data, channels, divisor, where), size, divisor


def _plain_jpeg_size(data: bytes, channels: int) -> tuple[int, int] | None:
    """(height, width) of a JPEG file that needs nothing but decoding; None: let Pillow look at it.

    Pillow's look at the header takes longer than decoding a small image.
    """
    decoder = _simplejpeg()
    if decoder is None or not data.startswith(_JPEG_MAGIC) or _may_be_turned(data):
        return None
    try:
        height, width, colours, _ = decoder.decode_jpeg_header(data)
    except ValueError:
        return None
    # Grey from colour is left to Pillow, whose rounding is documented above.
    good = colours == "Gray" or (channels == 3 and colours in ("YCbCr", "RGB"))
    return (height, width) if good and min(height, width) > 0 else None


def _may_be_turned(data: bytes) -> bool:
    """Whether a JPEG file has a segment where an orientation could be; also if it is odd in any way."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SOS:
            return False
        if marker == _APP1:
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


@contextmanager
def _opened(data: bytes, where: str, max_pixels: int) -> Iterator[Any]:
    """The image with its header checked; whatever fails within becomes a FormatError."""
    pillow = require_pillow(where)
    if not data:
        raise FormatError(f"{where}: empty file")
    try:
        with pillow.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise FormatError(f"{where}: {width} x {height} pixels exceed the limit of {max_pixels}")
            if min(width, height) < 1:
                raise FormatError(f"{where}: {width} x {height} pixels")
            yield image
    except (Error, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing runs into.
        raise FormatError(f"{where}: {_plain(error, max_pixels)}") from error


def _orientation(image: Image) -> int:
    """EXIF orientation 1..8."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright_size(image: Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _divisor(rows: float, columns: float) -> int:
    """The largest of 1, 2, 4, 8 that neither factor is below."""
    return next(d for d in (8, 4, 2, 1) if d <= max(1.0, min(rows, columns)))


def _load(image: Any, data: bytes, channels: int, divisor: int, where: str) -> NDArray[np.uint8]:
    """Upright pixels (H, W, channels), JPEG reduced by the divisor."""
    pillow = require_pillow(where)
    if image.format == "JPEG":
        # Grey from colour is left to Pillow, whose rounding is documented above.
        if image.mode == "L" or (image.mode == "RGB" and channels == 3):
            pixels = _load_fast(data, channels, (image.height, image.width), divisor)
            if pixels is not None:
                return _turned(pixels, _orientation(image))
        if divisor > 1:
            image.draft(None, (image.width // divisor, image.height // divisor))
    elif image.format == "PNG":
        # Decoding alone skips the checksums of the pixel data.
        with pillow.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.verify()
    image.load()
    pixels = np.asarray(_converted(image, channels, where), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def _load_fast(data: bytes, channels: int, size: tuple[int, int], divisor: int) -> NDArray[np.uint8] | None:
    """Pixels as they are in a JPEG file of this (height, width), by simplejpeg; None where it cannot."""
    decoder = _simplejpeg()
    if decoder is None:
        return None
    least = [-(-side // divisor) if divisor > 1 else 0 for side in size]
    colours = "RGB" if channels == 3 else "GRAY"
    try:
        pixels = decoder.decode_jpeg(data, colorspace=colours, min_height=least[0], min_width=least[1])
    except ValueError:
        return None
    return cast(NDArray[np.uint8], pixels)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright pixels from those of a file with this EXIF orientation."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _TURNED[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def read_file(path: Path, *, where: str) -> bytes:
    """The bytes of one image file.

    Raises:
        FileError: The file cannot be read.
        FormatError: No regular file, or too long.
    """
    with open_regular(path) as file:
        try:
            data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(path)) from None
    if len(data) > MAX_FILE_BYTES:
        raise FormatError(f"{where}: the file has more than {MAX_FILE_BYTES} bytes")
    return data


def _plain(error: Exception, max_pixels: int) -> str:
    """What is wrong, in words of ours where Pillow's hold an address of ours or a limit of its own."""
    text = str(error)
    if type(error).__name__ == "DecompressionBombError":
        # Pillow looks before us, and at a limit that holds for the whole process.
        pixels = re.search(r"\((\d+) pixels\)", text)
        if pixels and int(pixels[1]) > max_pixels:
            return f"{pixels[1]} pixels exceed the limit of {max_pixels}"
    if "BytesIO" in text:
        text = "not a known image format"
    elif not text or not isinstance(error, OSError | ValueError | SyntaxError):
        text = f"{type(error).__name__}: {text}"
    return f"cannot be decoded: {text}"


def _converted(image: Image, channels: int, where: str) -> Image:
    """Turn upright and convert to L or RGB by the rules above."""
    from PIL import ImageOps

    pillow = require_pillow(where)

    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise FormatError(f"{where}: 32-bit pixels from {low} to {high} are not accepted")
        upright = pillow.fromarray((values >> 8).astype(np.uint8))
        orientation = image.getexif().get(_ORIENTATION)
        if orientation is not None:
            upright.getexif()[_ORIENTATION] = orientation
        image = upright
    elif image.mode == "F":
        raise FormatError(f"{where}: floating-point pixels are not accepted")
    image = ImageOps.exif_transpose(image)
    # "transparency" is how PNG and GIF mark a colour or palette entry.
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow.alpha_composite(white, image).convert("RGB")
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    wanted = "RGB" if channels == 3 else "L"
    return image if image.mode == wanted else image.convert(wanted)


def _resized(image: Image, extent: tuple[float, float], size: tuple[int, int], fit: Fit) -> Image:
    """What lies within `extent` (rows, columns) from the upper left, brought to `size`."""
    from PIL.Image import Resampling

    # Reduced decoding rounds the size up, so that the last pixels reach beyond the picture.
    (rows, columns), (height, width) = extent, size
    box = (0.0, 0.0, columns, rows)
    if fit == "crop":
        scale = min(columns / width, rows / height)
        # Rounding may leave a little less than nothing.
        margin_x = max(0.0, (columns - width * scale) / 2)
        margin_y = max(0.0, (rows - height * scale) / 2)
        box = (margin_x, margin_y, columns - margin_x, rows - margin_y)
    return image.resize((width, height), Resampling.BILINEAR, box=box, reducing_gap=3.0)
