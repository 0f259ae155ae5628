"""Convolution of volumes, composed of convolutions of images: depths lie beside each other as channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.errors import ArgumentError, ShapeError
from pycnn.functional._basic import add, concat, conv2d, pad, reshape, slice, transpose
from pycnn.functional._images import conv_transpose2d
from pycnn.functional._run import as_integer, as_integers, shape_of


def _triple(value: int | Sequence[int], name: str) -> tuple[int, int, int]:
    values = as_integers(value, name) if isinstance(value, Sequence) else (as_integer(value, name),) * 3
    if len(values) != 3:
        raise ArgumentError(f"{name}: {value!r} must be one number or three (depth, vertical, horizontal)")
    return values[0], values[1], values[2]


def _sides(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    values = as_integers(value, name) if isinstance(value, Sequence) else (as_integer(value, name),) * 6
    if len(values) == 3:
        values = tuple(side for side in values for _ in range(2))
    if len(values) != 6 or any(side < 0 for side in values):
        raise ArgumentError(f"{name}: {value!r} must be one number, three or six, none negative")
    return values


def _check(x: Any, weight: Any, who: str, expected: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape, window = shape_of(x), shape_of(weight)
    if len(shape) != 5 or len(window) != 5:
        raise ShapeError(f"{who}: input is {shape} and weight {window}, expected (N, D, H, W, C) and {expected}")
    return shape, window


def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlate volumes with filters, as `conv2d` does images.

    Args:
        x: Volumes (N, D, H, W, IC).
        weight: Filters (OC, KD, KH, KW, IC / groups).
        bias: One value per output channel (OC), or None.
        stride: Step of the window, one number or (depth, vertical, horizontal).
        padding: Zeros around the volume: one number, three, or (front, back, top, bottom, left, right).
        dilation: Distance of the filter's cells.
        groups: Input and output channels are cut into this many independent groups.

    Shape:
        (N, OD, OH, OW, OC), OD = floor((D + front + back - (KD - 1) * dilation - 1) / stride) + 1, OH and OW likewise.

    Raises:
        ShapeError: Channels disagree, or the geometry leaves no output.
        ArgumentError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> cube = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2, 1)
        >>> float(conv3d(cube, np.ones((1, 2, 2, 2, 1), np.float32)).squeeze())
        28.0
    """
    who = "conv3d"
    steps, gaps = _triple(stride, f"{who}: stride"), _triple(dilation, f"{who}: dilation")
    front, back, *sides = _sides(padding, f"{who}: padding")
    shape, window = _check(x, weight, who, "(OC, KD, KH, KW, IC / groups)")
    parts = as_integer(groups, f"{who}: groups")
    if min(*steps, *gaps, parts, window[1]) < 1:
        raise ArgumentError(
            f"{who}: stride {steps}, dilation {gaps}, groups {parts} and weight {window} must be positive"
        )
    depth, channels = shape[1], shape[4]
    if channels != window[4] * parts:
        raise ShapeError(f"{who}: input {shape} has {channels} channels, weight {window} expects {window[4] * parts}")
    count = (depth + front + back - (window[1] - 1) * gaps[0] - 1) // steps[0] + 1
    if count < 1:
        raise ShapeError(f"{who}: no output is left of a depth of {depth}: weight {window}, padding {front} and {back}")
    # Enough behind for whole strides from the last cell on.
    behind = max(back, (window[1] - 1) * gaps[0] + count * steps[0] - depth - front)
    if front or behind:
        x = pad(x, before=(0, front, 0, 0, 0), after=(0, behind, 0, 0, 0))
    slices = [_every(x, tap * gaps[0], count, steps[0]) for tap in range(window[1])]
    if parts > 1:
        # Of each group the depths lie together.
        slices = [reshape(part, shape=(0, 0, 0, 0, parts, window[4])) for part in slices]
    joined = concat(slices, axis=-1) if len(slices) > 1 else slices[0]
    images = reshape(joined, shape=(-1, *shape[2:4], channels * window[1]))
    filters = reshape(
        transpose(weight, permutation=(0, 2, 3, 1, 4)), shape=(window[0], *window[2:4], window[1] * window[4])
    )
    result = conv2d(images, filters, bias, stride=steps[1:], padding=sides, dilation=gaps[1:], groups=parts)
    return reshape(result, shape=(-1, count, *shape_of(result)[1:]))


def _every(x: Any, begin: int, count: int, step: int) -> Any:
    """Of the second axis `count` elements from one on, `step` apart."""
    shape = shape_of(x)
    cut = slice(x, begin=(0, begin, *(0,) * (len(shape) - 2)), size=(-1, count * step, *(-1,) * (len(shape) - 2)))
    if step == 1:
        return cut
    steps = reshape(cut, shape=(0, count, step, *shape[2:]))
    first = slice(steps, begin=(0,) * (len(shape) + 1), size=(-1, -1, 1, *(-1,) * (len(shape) - 2)))
    return reshape(first, shape=(0, count, *shape[2:]))


def conv_transpose3d(
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
    """Spread each cell of a volume over a window, as `conv_transpose2d` does pixels.

    Args:
        x: Volumes (N, D, H, W, IC).
        weight: Filters (IC, KD, KH, KW, OC / groups).
        bias: One value per output channel (OC), or None.
        stride: Distance of the windows of neighbouring cells, one number or (depth, vertical, horizontal).
        padding: Cells that are cut off: one number, three, or (front, back, top, bottom, left, right).
        output_padding: Cells more behind, below the stride.
        dilation: Distance of the filter's cells.
        groups: Input and output channels are cut into this many independent groups.

    Shape:
        (N, OD, OH, OW, OC), OD = (D - 1) * stride - front - back + (KD - 1) * dilation + output_padding + 1, OH and OW
        likewise.

    Raises:
        ShapeError: Channels disagree, or nothing is left of an axis.
        ArgumentError: An argument is out of range.

    Example:
        >>> import numpy as np
        >>> cells = np.array([1, 2], np.float32).reshape(1, 2, 1, 1, 1)
        >>> conv_transpose3d(cells, np.ones((1, 2, 1, 1, 1), np.float32), stride=(2, 1, 1)).ravel().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    who = "conv_transpose3d"
    steps, gaps = _triple(stride, f"{who}: stride"), _triple(dilation, f"{who}: dilation")
    more, parts = _triple(output_padding, f"{who}: output_padding"), as_integer(groups, f"{who}: groups")
    front, back, *sides = _sides(padding, f"{who}: padding")
    shape, window = _check(x, weight, who, "(IC, KD, KH, KW, OC / groups)")
    if min(*steps, *gaps, parts, window[1]) < 1 or not 0 <= more[0] < steps[0]:
        raise ArgumentError(
            f"{who}: stride {steps}, dilation {gaps}, output_padding {more}, groups {parts}: out of range"
        )
    depth, channels = shape[1], window[4]
    whole = (depth - 1) * steps[0] + (window[1] - 1) * gaps[0] + more[0] + 1
    if whole - front - back < 1:
        raise ShapeError(f"{who}: no output is left of a depth of {depth}: weight {window}, padding {front} and {back}")
    filters = reshape(
        transpose(weight, permutation=(0, 2, 3, 1, 4)), shape=(window[0], *window[2:4], window[1] * channels)
    )
    spread = conv_transpose2d(
        reshape(x, shape=(-1, *shape[2:])),
        filters,
        stride=steps[1:],
        padding=sides,
        output_padding=more[1:],
        dilation=gaps[1:],
        groups=parts,
    )
    height, width = shape_of(spread)[1:3]
    cells = reshape(spread, shape=(-1, depth, height, width, parts, window[1], channels))
    total = None
    for tap in range(window[1]):
        part = slice(cells, begin=(0, 0, 0, 0, 0, tap, 0), size=(-1, -1, -1, -1, -1, 1, -1))
        part = reshape(part, shape=(0, depth, height, width, parts * channels))
        # What is not in [front, whole - back) is cut off.
        placed = _placed(part, steps[0], tap * gaps[0], whole)
        total = placed if total is None else add(total, placed)
    result = slice(total, begin=(0, front, 0, 0, 0), size=(-1, whole - front - back, -1, -1, -1))
    return result if bias is None else add(result, bias)


def _placed(x: Any, step: int, begin: int, size: int) -> Any:
    """The slices of the second axis `step` apart from one on, zeros between them."""
    shape = shape_of(x)
    depth = shape[1]
    if step > 1:
        apart = pad(
            reshape(x, shape=(0, depth, 1, *shape[2:])),
            before=(0,) * (len(shape) + 1),
            after=(0, 0, step - 1, *(0,) * (len(shape) - 2)),
        )
        # The last one has nothing behind it.
        x = slice(
            reshape(apart, shape=(0, depth * step, *shape[2:])),
            begin=(0,) * len(shape),
            size=(-1, (depth - 1) * step + 1, *(-1,) * (len(shape) - 2)),
        )
    behind = size - begin - shape_of(x)[1]
    return pad(x, before=(0, begin, *(0,) * (len(shape) - 2)), after=(0, behind, *(0,) * (len(shape) - 2)))
