"""Resizing images, and parts of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.errors import ArgumentError
from pycnn.functional._basic import add, multiply, reshape, sum, take, transpose
from pycnn.functional._images import image_shape
from pycnn.functional._run import apply, as_number, as_pair, shape_of

_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
_GRIDS = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners")
# Places that rounding alone puts outside the image are inside.
_SLACK = 1e-6
_ROUNDINGS = ("floor", "ceil", "round_down", "round_up")


def resize(
    x: Any,
    *,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    grid: str | None = None,
    rounding: str | None = None,
    antialias: bool = False,
    cubic: float = -0.75,
    exclude_outside: bool = False,
) -> Any:
    """Give images other numbers of rows and columns.

    Along an axis of N pixels that becomes one of M, pixel i stands for a place in the given image; the scale is the
    scale_factor, or M / N. Pixels outside the image count as the one at its border.

    Args:
        x: Images (N, H, W, C).
        size: (OH, OW), or one number for both.
        scale_factor: What height and width are multiplied by, one number or two; given instead of size. Beside a size
            it is the scale of the formulas only.
        mode: "nearest", "nearest-exact", "bilinear" or "bicubic", as PyTorch's.
        grid: "half_pixel", (i + 1/2) / scale - 1/2, the default but for "nearest"; "pytorch_half_pixel", the same but
            0 if M is 1; "half_pixel_symmetric", the same moved so that the centres of both images lie on each other;
            "asymmetric", i / scale, the default for "nearest"; or "align_corners", i * (N - 1) / (M - 1). ONNX's names.
        rounding: Of the places of "nearest" and "nearest-exact": "floor" (default for "nearest"), "ceil", or the
            nearest, of two the former, "round_down", or the latter, "round_up" (default for "nearest-exact").
        antialias: Where "bilinear" and "bicubic" images become smaller, spread the weights over 1 / scale times as
            many pixels.
        cubic: The a of "bicubic", whose weights are those of Keys 1981; -0.75 as PyTorch, -0.5 as Pillow.
        exclude_outside: Pixels outside the image have no weight and those inside the more, in "bilinear" and
            "bicubic".

    Shape:
        (N, H, W, C) -> (N, OH, OW, C); with scale_factor OH = floor(H * scale_factor), OW likewise.

    Raises:
        ArgumentError: Neither size nor scale_factor is given, or an argument is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> row = np.array([0, 4], np.float32).reshape(1, 1, 2, 1)
        >>> resize(row, size=(1, 4), mode="bilinear").ravel().tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    shape = image_shape(x, "resize")
    kind = _kind(mode, rounding, "resize")
    if size is None and scale_factor is None:
        raise ArgumentError("resize: give size or scale_factor")
    scales: tuple[float, ...] = ()
    if scale_factor is not None:
        given = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        scales = tuple(as_number(value, "resize: scale_factor") for value in given)
        if len(scales) != 2 or not all(0 < scale < math.inf for scale in scales):
            raise ArgumentError(f"resize: scale_factor {scale_factor!r} must be one positive number or two")
    if size is not None:
        pair = as_pair(size, "resize: size")
    else:
        pair = (math.floor(shape[1] * scales[0]), math.floor(shape[2] * scales[1]))
    grid = grid or ("asymmetric" if mode == "nearest" else "half_pixel")
    if grid not in _GRIDS:
        raise ArgumentError(f"resize: grid {grid!r} is unknown, expected one of {', '.join(_GRIDS)}")
    smooth = kind in ("bilinear", "bicubic")
    if antialias and not smooth:
        raise ArgumentError(f"resize: antialias does not go with mode {mode!r}")
    exclude_outside = bool(exclude_outside) and smooth
    a = as_number(cubic, "resize: cubic")
    if kind != "bicubic" and not antialias and not exclude_outside and grid != "half_pixel_symmetric":
        return apply(_core.Resize2d(output_size=pair, mode=kind, grid=grid, scales=scales), [x])
    if min(pair) < 1:
        raise ArgumentError(f"resize: output_size {pair} must be positive")
    for axis in (1, 2):
        old, new = shape[axis], pair[axis - 1]
        scale = scales[axis - 1] if scales else new / old
        if scale * old < 0.5:
            raise ArgumentError(f"resize: scale_factor {scale} leaves nothing of {old} pixels")
        weights = _Weights(kind, a, exclude_outside, min(scale, 1.0) if antialias else 1.0)
        x = _resampled(x, axis, *weights.of(old, _places(grid, old, new, scale)))
    return x


def _places(grid: str, given: int, size: int, scale: float) -> np.ndarray:
    """Where the results of an axis lie."""
    i = np.arange(_bounded(size), dtype=np.float64)
    if grid == "align_corners":
        return i * (given - 1) / (size - 1) if size > 1 else i
    if grid == "asymmetric":
        return i / scale
    if grid == "pytorch_half_pixel" and size == 1:
        return i
    # The centre of results that reach over the scaled image, or do not fill it, lies on its centre.
    offset = given / 2 * (1 - size / (given * scale)) if grid == "half_pixel_symmetric" else 0.0
    return offset + (i + 0.5) / scale - 0.5


_MOST_TAPS = 2**24


def _bounded(count: int) -> int:
    if count > _MOST_TAPS:
        raise ArgumentError(f"resize: {count} pixels, or weights of them, along an axis are more than {_MOST_TAPS}")
    return count


@dataclass(frozen=True)
class _Weights:
    """How results are made of the pixels around their places.

    Attributes:
        kind: The core's name of a mode.
        cubic: The a of bicubic weights.
        exclude_outside: Pixels outside the image have no weight.
        shrunk: Distances are multiplied by it.
        zero_outside: Results whose place is outside the image are 0.
    """

    kind: str
    cubic: float
    exclude_outside: bool = False
    shrunk: float = 1.0
    zero_outside: bool = False

    def of(self, given: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and weights, each (K, M) for K pixels a result; pixel -1 where the weight is 0."""
        last = given - 1
        if self.kind.startswith("nearest"):
            sources, weights = self._nearest(places)[None], np.ones((1, len(places)))
        else:
            reach = math.ceil((2 if self.kind == "bicubic" else 1) / self.shrunk)
            _bounded((2 * reach + 2) * len(places))
            before = np.floor(places)
            steps = np.arange(-reach, reach + 2, dtype=np.float64)[:, None]
            sources, weights = before + steps, self._at((steps - (places - before)) * self.shrunk)
            if self.exclude_outside:
                weights = np.where((sources < 0) | (sources > last), 0.0, weights)
            # Far outside the image: the pixel at its border.
            weights = np.where((weights == 0).all(axis=0) & (steps == 0), 1.0, weights)
            if self.exclude_outside or self.shrunk != 1.0:
                weights = weights / weights.sum(axis=0)
        if self.zero_outside:
            weights = np.where(_inside(places, last), weights, 0.0)
        kept = (weights != 0).any(axis=1)
        kept[0] |= not kept.any()
        sources, weights = np.clip(sources[kept], 0, last).astype(np.int64), weights[kept]
        return np.where(weights == 0, -1, sources), weights

    def _nearest(self, places: np.ndarray) -> np.ndarray:
        rounding = self.kind.removeprefix("nearest_")
        if rounding == "round_down":
            return np.ceil(places - 0.5)
        if rounding == "round_up":
            return np.floor(places + 0.5)
        return np.ceil(places) if rounding == "ceil" else np.floor(places)

    def _at(self, distances: np.ndarray) -> np.ndarray:
        x, a = np.abs(distances), self.cubic
        if self.kind == "bilinear":
            return np.maximum(0.0, 1.0 - x)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        # Exactly 0 at whole distances, so that pixels far off in value do not come in.
        return np.where(x < 1, near, np.where((x > 1) & (x < 2), far, 0.0))


def _inside(places: np.ndarray, last: int) -> np.ndarray:
    """Which places lie in the image; rounding alone puts none outside."""
    return (places >= -_SLACK) & (places <= last + _SLACK)


def _resampled(x: Any, axis: int, sources: np.ndarray, weights: np.ndarray) -> Any:
    """Sums of weighted rows or columns of images (N, H, W, C)."""
    shape = shape_of(x)
    count, size = sources.shape
    if count == 1 and size == shape[axis] and (weights == 1).all() and (sources[0] == np.arange(size)).all():
        return x
    order = (axis, *(other for other in range(4) if other != axis))
    rows = take(transpose(x, permutation=order), indices=[int(index) for index in sources.reshape(-1)])
    behind = [shape[other] for other in order[2:]]
    if count > 1 or (weights != 1).any():
        dtype = "float64" if str(getattr(x, "dtype", "")) == "float64" else "float32"
        parts = reshape(rows, shape=(count, size, -1))
        rows = sum(multiply(parts, weights.astype(dtype)[:, :, None]), axes=0)
    rows = reshape(rows, shape=(size, -1, *behind))
    return transpose(rows, permutation=[order.index(place) for place in range(4)])


def _kind(mode: str, rounding: str | None, who: str) -> str:
    """The core's name of a mode with its rounding."""
    if mode not in _MODES:
        raise ArgumentError(f"{who}: mode {mode!r} is unknown, expected one of {', '.join(_MODES)}")
    rounding = rounding or ("floor" if mode == "nearest" else "round_up")
    if rounding not in _ROUNDINGS:
        raise ArgumentError(f"{who}: rounding {rounding!r} is unknown, expected one of {', '.join(_ROUNDINGS)}")
    return mode if mode in ("bilinear", "bicubic") else f"nearest_{rounding}"


def crop_and_resize(
    x: Any,
    *,
    region: Sequence[float],
    size: int | Sequence[int],
    mode: str = "bilinear",
    rounding: str | None = None,
    cubic: float = -0.75,
    exclude_outside: bool = False,
    value: float = 0.0,
) -> Any:
    """Cut the same region out of all images and resize it, as TensorFlow's function of this name.

    Along an axis of N pixels the M results lie evenly from start * (N - 1) to end * (N - 1), in the middle if M is 1.

    Args:
        x: Images (N, H, W, C).
        region: (top, left, bottom, right), in which 0 is the centre of the first pixel and 1 that of the last. It may
            reach over the image; where top exceeds bottom, or left right, the result is mirrored.
        size: (OH, OW), or one number for both.
        mode: As of `resize`.
        rounding: As of `resize`.
        cubic: As of `resize`.
        exclude_outside: As of `resize`.
        value: Of results whose place is outside the image.

    Shape:
        (N, H, W, C) -> (N, OH, OW, C)

    Raises:
        ArgumentError: An argument is unknown or out of range.

    Example:
        >>> import numpy as np
        >>> row = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1)
        >>> crop_and_resize(row, region=(0, 0.5, 0, 1.5), size=(1, 3), value=-1).ravel().tolist()
        [2.0, 4.0, -1.0]
    """
    who = "crop_and_resize"
    shape, pair = image_shape(x, who), as_pair(size, f"{who}: size")
    sides = tuple(as_number(side, f"{who}: region") for side in region)
    if len(sides) != 4 or not all(map(math.isfinite, sides)):
        raise ArgumentError(f"{who}: region {tuple(region)!r} must be four numbers (top, left, bottom, right)")
    weights = _Weights(
        _kind(mode, rounding, who), as_number(cubic, f"{who}: cubic"), bool(exclude_outside), zero_outside=True
    )
    if min(pair) < 1:
        raise ArgumentError(f"{who}: size {pair} must be positive")
    inside = []
    for axis, new, begin, end in zip((1, 2), pair, sides[:2], sides[2:], strict=True):
        last = shape[axis] - 1
        i = np.arange(_bounded(new), dtype=np.float64)
        places = (begin + end) / 2 * last + i if new == 1 else begin * last + i * ((end - begin) * last / (new - 1))
        inside.append(_inside(places, last))
        x = _resampled(x, axis, *weights.of(shape[axis], places))
    fill = as_number(value, f"{who}: value")
    rows, columns = inside
    if fill == 0.0 or (rows.all() and columns.all()):
        return x
    dtype = "float64" if str(getattr(x, "dtype", "")) == "float64" else "float32"
    return add(x, (~(rows[:, None] & columns) * fill).astype(dtype)[None, :, :, None])
