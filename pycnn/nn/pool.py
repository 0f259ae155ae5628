"""Pooling."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_flag, as_number
from pycnn.errors import ArgumentError
from pycnn.nn._arguments import Pair, Sides, as_pair, as_sides, short_pair, short_sides
from pycnn.nn.module import Module

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d", "LPPool2d", "MaxPool2d"]


class _Pool2d(Module):
    """Window, step and padding, shared by both kinds."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None,
        padding: int | Pair | Sides,
        ceil_mode: bool,
    ) -> None:
        who = type(self).__name__
        self.kernel_size = as_pair(kernel_size, who=who, name="kernel_size")
        self.stride = self.kernel_size if stride is None else as_pair(stride, who=who, name="stride")
        self.padding = as_sides(padding, who=who)
        self.ceil_mode = as_flag(ceil_mode, who=who, name="ceil_mode")
        height, width = self.kernel_size
        top, bottom, left, right = self.padding
        if 2 * max(top, bottom) > height or 2 * max(left, right) > width:
            raise ArgumentError(
                f"{who}: padding {short_sides(self.padding)} exceeds half of kernel_size "
                f"{short_pair(self.kernel_size)}; a window would lie outside the image"
            )

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        parts = [f"kernel_size={short_pair(self.kernel_size)}"]
        if self.stride != self.kernel_size:
            parts.append(f"stride={short_pair(self.stride)}")
        if self.padding != (0, 0, 0, 0):
            parts.append(f"padding={short_sides(self.padding)}")
        if self.ceil_mode:
            parts.append("ceil_mode=True")
        return ", ".join(parts)


class MaxPool2d(_Pool2d):
    """Largest value of each window; padding never wins, NaN does.

    Args:
        kernel_size: Window in pixels, one number or (vertical, horizontal).
        stride: Step in pixels. Default: the window.
        padding: At most half of the window at each side: one number, (vertical, horizontal) or
            (top, bottom, left, right).
        dilation: Distance of the window's cells in pixels.
        ceil_mode: Round the output size up; no window starts in the bottom or right padding.

    Shape:
        ``(N, H, W, C)`` -> ``(N, OH, OW, C)``, OH = floor((H + top + bottom - (KH-1)*dilation
        - 1) / stride) + 1, OW likewise.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: the geometry leaves no output.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Sides = 0,
        *,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = as_pair(dilation, who="MaxPool2d", name="dilation")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.max_pool2d(
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )


class AvgPool2d(_Pool2d):
    """Mean of each window.

    Args:
        kernel_size: Window in pixels, one number or (vertical, horizontal).
        stride: Step in pixels. Default: the window.
        padding: At most half of the window at each side: one number, (vertical, horizontal) or
            (top, bottom, left, right).
        ceil_mode: Round the output size up; no window starts in the bottom or right padding.
        count_include_pad: Padding counts as zeros in the mean; else only the image's cells count.

    Shape:
        ``(N, H, W, C)`` -> ``(N, OH, OW, C)``, OH = floor((H + top + bottom - KH) / stride) + 1,
        OW likewise.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: the geometry leaves no output.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Sides = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = as_flag(count_include_pad, who="AvgPool2d", name="count_include_pad")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.avg_pool2d(
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )


class LPPool2d(_Pool2d):
    """The p-norm of each window: ``(sum of |x|**p)**(1/p)``; padding counts as zeros.

    Args:
        norm_type: The p, above 0.
        kernel_size: Window in pixels, one number or (vertical, horizontal).
        stride: Step in pixels. Default: the window.
        padding: At most half of the window at each side: one number, (vertical, horizontal) or
            (top, bottom, left, right).
        ceil_mode: Round the output size up; no window starts in the bottom or right padding.

    Shape:
        ``(N, H, W, C)`` -> ``(N, OH, OW, C)``, OH = floor((H + top + bottom - KH) / stride) + 1,
        OW likewise.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: the geometry leaves no output.
    """

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Sides = 0,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.norm_type = as_number(norm_type, who="LPPool2d", name="norm_type", low=0.0, above=True)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.lp_pool2d(
            x,
            norm_type=self.norm_type,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
        )

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return f"norm_type={self.norm_type:g}, {super().extra_repr()}"


class AdaptiveAvgPool2d(Module):
    """Mean of windows that cover the image evenly, whatever its size.

    Window i of OH spans the rows from floor(i * H / OH) up to but not including
    ceil((i + 1) * H / OH), and columns likewise, as in PyTorch. An image that has the output's size
    already is handed on at no cost.

    Args:
        output_size: (OH, OW), or one number for both.

    Shape:
        ``(N, H, W, C)`` -> ``(N, OH, OW, C)``

    Raises:
        ArgumentError: A size is below 1.
    """

    def __init__(self, output_size: int | Pair) -> None:
        self.output_size = as_pair(output_size, who="AdaptiveAvgPool2d", name="output_size")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.adaptive_avg_pool2d(x, output_size=self.output_size)

    def extra_repr(self) -> str:
        """Arguments."""
        return str(short_pair(self.output_size))


class GlobalAvgPool2d(Module):
    """Mean over height and width: ``(N, H, W, C)`` -> ``(N, C)`` (Lin et al. 2013)."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.global_avg_pool2d(x)


class GlobalMaxPool2d(Module):
    """Maximum over height and width: ``(N, H, W, C)`` -> ``(N, C)``."""

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.global_max_pool2d(x)
