"""Layers that move data or resize images."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError
from pycnn.nn._arguments import Pair, Sides, as_pair, as_sides, short_pair, short_sides
from pycnn.nn.module import Module

__all__ = ["Flatten", "Identity", "Pad", "Upsample"]


class Flatten(Module):
    """One row per image, channels outermost as PyTorch's order of elements.

    So the weights of a `Linear` behind it can be exchanged with other frameworks.

    Shape:
        ``(N, H, W, C)`` -> ``(N, C * H * W)``; other ranks keep their order.
    """

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.flatten(x)


class Identity(Module):
    """Gives back what it gets."""

    converts_uint8 = False

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return x


class Pad(Module):
    """Surround images with a constant, or with what is next to the border.

    Args:
        padding: Pixels: one number, (vertical, horizontal) or (top, bottom, left, right).
        value: What to fill with, in mode "constant".
        mode: "constant"; "edge", which repeats the outermost pixels; or "reflect", which mirrors the
            image at them.

    Shape:
        ``(N, H, W, C)`` -> ``(N, H + top + bottom, W + left + right, C)``

    Raises:
        ArgumentError: A size is negative, the value is not finite, or the mode is unknown or, while
            recording, not possible for the image.
    """

    def __init__(self, padding: int | Pair | Sides, *, value: float = 0.0, mode: str = "constant") -> None:
        self.padding = as_sides(padding, who="Pad")
        if mode not in ("constant", "edge", "reflect"):
            raise ArgumentError(f"Pad: mode must be 'constant', 'edge' or 'reflect', got {mode!r}")
        self.mode = mode
        self.value = as_number(value, who="Pad", name="value")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        top, bottom, left, right = self.padding
        before, after = (0, top, left, 0), (0, bottom, right, 0)
        return functional.pad(x, before=before, after=after, value=self.value, mode=self.mode)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        value = f", value={self.value:g}" if self.value else ""
        mode = "" if self.mode == "constant" else f", mode={self.mode!r}"
        return f"{short_sides(self.padding)}{value}{mode}"


class Upsample(Module):
    """Give images other numbers of rows and columns, as `functional.resize`.

    Args:
        size: (OH, OW), or one number for both.
        scale_factor: What height and width are multiplied by, one number or two; given instead of
            size.
        mode: "nearest", "nearest-exact", "bilinear" or "bicubic".
        align_corners: In modes "bilinear" and "bicubic": the centres of the corner pixels stay where they are, not
            the corners.

    Shape:
        ``(N, H, W, C)`` -> ``(N, OH, OW, C)``; with scale_factor OH = floor(H * scale_factor), OW
        likewise.

    Raises:
        ArgumentError: Not one of size and scale_factor is given, or an argument is out of range.

    Example:
        >>> Upsample(scale_factor=2, mode="bilinear")
        Upsample(scale_factor=2, mode='bilinear')
    """

    def __init__(
        self,
        size: int | Pair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        who = "Upsample"
        if (size is None) == (scale_factor is None):
            raise ArgumentError(f"{who}: give either size or scale_factor")
        if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
            raise ArgumentError(
                f"{who}: mode must be 'nearest', 'nearest-exact', 'bilinear' or 'bicubic', got {mode!r}"
            )
        if align_corners and mode not in ("bilinear", "bicubic"):
            raise ArgumentError(f"{who}: align_corners is for modes 'bilinear' and 'bicubic', got {mode!r}")
        self.size = None if size is None else as_pair(size, who=who, name="size")
        self.scale_factor: tuple[float, ...] | None = None
        if scale_factor is not None:
            factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
            if len(factors) != 2:
                raise ArgumentError(f"{who}: scale_factor must be one number or two, got {scale_factor!r}")
            self.scale_factor = tuple(
                as_number(value, who=who, name="scale_factor", low=0.0, above=True) for value in factors
            )
        self.mode = mode
        self.align_corners = bool(align_corners)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        grid = "align_corners" if self.align_corners else None
        return functional.resize(x, size=self.size, scale_factor=self.scale_factor, mode=self.mode, grid=grid)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        if self.size is not None:
            parts = [f"size={short_pair(self.size)}"]
        else:
            vertical, horizontal = self.scale_factor or ()
            equal = vertical == horizontal
            parts = [f"scale_factor={vertical:g}" if equal else f"scale_factor=({vertical:g}, {horizontal:g})"]
        if self.mode != "nearest":
            parts.append(f"mode={self.mode!r}")
        if self.align_corners:
            parts.append("align_corners=True")
        return ", ".join(parts)
