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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pycnn.errors import ArgumentError, Error, FormatError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**26
MAX_FILE_BYTES = 2**28

# Told apart by content. The list keeps Pillow's rarer readers away from hostile bytes.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION = 0x0112
# Steps along rows and columns, after rows and columns were exchanged for 5 to 8 (TIFF 6.0, page 36).
_TURNED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}

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
    with _opened(data, where, max_pixels) as image:
        height, width = _upright_size(image)
        divisor = 1
        if reduced and size is not None and image.format == "JPEG":
            divisor = _divisor(height / size[0], width / size[1])
        pixels = _load(image, data, channels, divisor, where)
        if size is not None and (height, width) != size:
            whole = pillow.fromarray(pixels if channels == 3 else pixels[:, :, 0])
            small = _resized(whole, (height / divisor, width / divisor), size, fit)
            pixels = np.asarray(small, np.uint8).reshape(*size, channels)
    return pixels


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
    with _opened(data, where, max_pixels) as image:
        top, left, height, width = choose(*_upright_size(image))
        divisor = _divisor(height / size[0], width / size[1]) if image.format == "JPEG" else 1
        pixels = _load(image, data, channels, divisor, where)
    return pixels, (top / divisor, left / divisor, height / divisor, width / divisor)


def image_size(data: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels of the upright image, from the header.

    Raises:
        FormatError: The header is refused.
    """
    with _opened(data, where, max_pixels) as image:
        return _upright_size(image)


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
        name = type(error).__name__
        raise FormatError(f"{where}: cannot be decoded: {name}: {_plain(error)}") from error


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
        pixels = _load_fast(image, data, channels, divisor)
        if pixels is not None:
            return pixels
        if divisor > 1:
            image.draft(None, (image.width // divisor, image.height // divisor))
    elif image.format == "PNG":
        # Decoding alone skips the checksums of the pixel data.
        with pillow.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.verify()
    image.load()
    pixels = np.asarray(_converted(image, channels, where), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def _load_fast(image: Any, data: bytes, channels: int, divisor: int) -> NDArray[np.uint8] | None:
    """The same pixels by simplejpeg; None where it is not installed, not suited or not content."""
    decoder = _simplejpeg()
    # Grey from colour is left to Pillow, whose rounding is documented above.
    if decoder is None or not (image.mode == "L" or (image.mode == "RGB" and channels == 3)):
        return None
    orientation = _orientation(image)
    try:
        pixels = decoder.decode_jpeg(
            data,
            colorspace="RGB" if channels == 3 else "GRAY",
            min_height=-(-image.height // divisor) if divisor > 1 else 0,
            min_width=-(-image.width // divisor) if divisor > 1 else 0,
        )
    except ValueError:
        return None
    if orientation == 1:
        return cast(NDArray[np.uint8], pixels)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # What is left of each orientation after that exchange: rows and columns turned around.
    rows, columns = _TURNED[orientation]
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _plain(error: Exception) -> str:
    """Pillow's text without the address of our buffer, which changes from run to run."""
    text = str(error)
    return "not a known image format" if "BytesIO" in text else text


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
        margin_x = (columns - width * scale) / 2
        margin_y = (rows - height * scale) / 2
        box = (margin_x, margin_y, columns - margin_x, rows - margin_y)
    return image.resize((width, height), Resampling.BILINEAR, box=box, reducing_gap=3.0)
