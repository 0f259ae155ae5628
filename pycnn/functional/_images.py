"""Transposed convolution and power-average pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn import _core
from pycnn.errors import ArgumentError, ShapeError
from pycnn.functional._basic import add, affine, avg_pool2d, multiply, pad
from pycnn.functional._elementwise import abs, clip, power
from pycnn.functional._run import apply, as_integer, as_number, as_padding, as_pair, shape_of


def image_shape(x: Any, who: str) -> tuple[int, ...]:
    shape = shape_of(x)
    if len(shape) != 4:
        raise ShapeError(f"{who}: input has shape {shape}, expected (N, H, W, C)")
    return shape


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Spread each pixel over a window: what `conv2d` with these filters does to its gradient (Zeiler et al. 2010).

    Args:
        x: Images (N, H, W, IC).
        weight: Filters (IC, KH, KW, OC / groups).
        bias: One value per output channel (OC), or None.
        stride: Distance of the windows of neighbouring pixels.
        padding: Pixels that are cut off: one number, (vertical, horizontal) or (top, bottom, left, right).
        output_padding: Pixels more at the bottom and right, below the stride: tells apart the sizes that the
            convolution would bring to the same one.
        dilation: Distance of the filter's cells in pixels.
        groups: Input and output channels are cut into this many independent groups.

    Shape:
        (N, OH, OW, OC), OH = (H - 1) * stride - top - bottom + (KH - 1) * dilation + output_padding + 1, OW likewise.

    Raises:
        ShapeError: Channels disagree, or nothing is left of an axis.
        ArgumentError: An output_padding is not below its stride.

    Example:
        >>> import numpy as np
        >>> pixels = np.array([1, 2], np.float32).reshape(1, 1, 2, 1)
        >>> conv_transpose2d(pixels, np.ones((1, 1, 2, 1), np.float32), stride=2).ravel().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    who = "conv_transpose2d"
    steps, gaps = as_pair(stride, f"{who}: stride"), as_pair(dilation, f"{who}: dilation")
    sides, more = as_padding(padding, f"{who}: padding"), as_pair(output_padding, f"{who}: output_padding")
    shape, window = image_shape(x, who), shape_of(weight)
    if len(window) != 4:
        raise ShapeError(f"{who}: weight has shape {window}, expected (IC, KH, KW, OC / groups)")
    if shape[3] != window[0]:
        raise ShapeError(f"{who}: input has {shape[3]} channels, weight expects {window[0]}")
    if any(not 0 <= extra < step for extra, step in zip(more, steps, strict=True)):
        raise ArgumentError(f"{who}: output_padding {more} must be at least 0 and below stride {steps}")
    size = [
        (shape[1 + i] - 1) * steps[i] - sides[2 * i] - sides[2 * i + 1] + (window[1 + i] - 1) * gaps[i] + more[i] + 1
        for i in (0, 1)
    ]
    if min(size) < 1:
        raise ShapeError(
            f"{who}: no output is left: {size[0]} x {size[1]} pixels of input {shape}, weight {window}, "
            f"stride {steps}, padding {sides}"
        )
    op = _core.Conv2dGradInput(
        stride=steps,
        padding=sides,
        dilation=gaps,
        groups=as_integer(groups, f"{who}: groups"),
        input_size=tuple(size),
    )
    result = apply(op, [x, weight])
    return result if bias is None else add(result, bias)


# Below this a sum of powers counts as zero, so that the gradient of its root stays finite.
_TINY = 1e-30


def lp_pool2d(
    x: Any,
    *,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
) -> Any:
    """Return the p-norm of each window: (sum of |x|**p)**(1/p), padding counts as zeros.

    Windows of zeros give up to 1e-30**(1/p) and a gradient of 0.

    Args:
        x: Images (N, H, W, C).
        norm_type: The p, above 0.
        kernel_size: Window in pixels, one number or (vertical, horizontal).
        stride: Step in pixels. Default: the window.
        padding: Zeros around the image: one number, (vertical, horizontal) or (top, bottom, left, right).
        ceil_mode: Round the output size up; no window starts in the bottom or right padding.

    Shape:
        (N, H, W, C) -> (N, OH, OW, C), OH = floor((H + top + bottom - KH) / stride) + 1, OW likewise.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: The geometry leaves no output.

    Example:
        >>> import numpy as np
        >>> image = np.array([3, 4], np.float32).reshape(1, 1, 2, 1)
        >>> float(lp_pool2d(image, norm_type=2, kernel_size=(1, 2))[0, 0, 0, 0])
        5.0
    """
    p = as_number(norm_type, "lp_pool2d: norm_type")
    if not 0 < p < math.inf:
        raise ArgumentError(f"lp_pool2d: norm_type must be a positive number, got {norm_type!r}")
    window = as_pair(kernel_size, "lp_pool2d: kernel_size")
    steps = window if stride is None else as_pair(stride, "lp_pool2d: stride")
    top, bottom, left, right = as_padding(padding, "lp_pool2d: padding")
    before, after = [top, left], [bottom, right]
    shape = image_shape(x, "lp_pool2d")
    if ceil_mode and min(steps) > 0:
        for i, size in enumerate(shape[1:3]):
            # Room for the last window, which must start before the padding behind the image.
            last = min(-(-(size + before[i] + after[i] - window[i]) // steps[i]), (size + before[i] - 1) // steps[i])
            after[i] = max(after[i], last * steps[i] + window[i] - size - before[i])
    powers = multiply(x, x) if p == 2 else abs(x) if p == 1 else power(abs(x), p)
    if any(before + after):
        powers = pad(powers, before=(0, *before, 0), after=(0, *after, 0))
    total = affine(avg_pool2d(powers, kernel_size=window, stride=steps), scale=float(window[0] * window[1]))
    return total if p == 1 else power(clip(total, min=_TINY), 1 / p)
