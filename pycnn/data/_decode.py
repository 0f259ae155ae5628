"""From the bytes of an image file to uint8 pixels, with Pillow. The bytes are not trusted.

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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pycnn.errors import ArgumentError, Error, FormatError, UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**26
MAX_FILE_BYTES = 2**28

# Told apart by content. The list keeps Pillow's rarer readers away from hostile bytes.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ALPHA_MODES = frozenset(("LA", "La", "PA", "RGBA", "RGBa"))

Fit = Literal["crop", "stretch"]


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

    Shape:
        result: ``(H, W, channels)``.

    Raises:
        FormatError: The bytes are refused; see the head of this file.
        UnsupportedError: Pillow is not installed.
    """
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
            if image.format == "PNG":
                # Decoding alone skips the checksums of the pixel data.
                with pillow.open(io.BytesIO(data), formats=("PNG",)) as again:
                    again.verify()
            image.load()
            ready = _resized(_converted(image, channels, where), size, fit)
    except (Error, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing runs into.
        name = type(error).__name__
        raise FormatError(f"{where}: cannot be decoded: {name}: {_plain(error)}") from error
    pixels = np.asarray(ready, np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


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
        orientation = image.getexif().get(0x0112)
        if orientation is not None:
            upright.getexif()[0x0112] = orientation
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


def _resized(image: Image, size: tuple[int, int] | None, fit: Fit) -> Image:
    from PIL.Image import Resampling

    if size is None or image.size == (size[1], size[0]):
        return image
    height, width = size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        margin_x = (image.width - width * scale) / 2
        margin_y = (image.height - height * scale) / 2
        box = (margin_x, margin_y, image.width - margin_x, image.height - margin_y)
    return image.resize((width, height), Resampling.BILINEAR, box=box, reducing_gap=3.0)
