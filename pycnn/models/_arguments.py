"""Checks of what the makers of networks are given."""

from __future__ import annotations

from typing import Any

from pycnn.errors import ArgumentError
from pycnn.nn._arguments import as_count

__all__ = ["SMALL_IMAGE", "as_image_shape", "is_small"]

#: Images below this height or width, in pixels, get the variant for small images of nets that have one.
SMALL_IMAGE = 64


def as_image_shape(value: Any, *, who: str, default: tuple[int, int, int], smallest: int = 1) -> tuple[int, int, int]:
    """Check (H, W, C) of the images that a net is made for.

    Args:
        value: Three integers, or None for the default.
        who: The net, named in errors.
        default: What the paper or the published weights use.
        smallest: Least height and width in pixels that leave the net's last pixel.

    Raises:
        ArgumentError: It is no three integers, or the images are too small.
    """
    if value is None:
        return default
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise ArgumentError(f"{who}: input_shape must be (H, W, C), got {value!r}")
    height, width, channels = (as_count(size, who=who, name="input_shape") for size in value)
    if min(height, width) < smallest:
        raise ArgumentError(
            f"{who}: input_shape {(height, width, channels)} is too small, images need at least {smallest}x{smallest} "
            "pixels"
        )
    return height, width, channels


def is_small(shape: tuple[int, int, int], limit: int = SMALL_IMAGE) -> bool:
    """Whether images of this shape get the variant for small images."""
    return min(shape[:2]) < limit
