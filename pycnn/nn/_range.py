"""Whether images have the range of values that a net was trained on."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from pycnn.tensor import stack_level

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = ["METADATA_NAME", "as_text", "check", "from_text", "note"]

#: Where a model file keeps the range.
METADATA_NAME = "input_range"

# A photograph may be dark, but not by these factors.
_TOO_LARGE = 8.0
_TOO_SMALL = 50.0
_MANY = 4096


def _range(x: np.ndarray) -> tuple[float, float] | None:
    """Lowest and highest value, uint8 as the net reads it; None for what says nothing."""
    if x.dtype == np.uint8:
        return 0.0, 1.0
    if not x.size:
        return None
    low, high = float(x.min()), float(x.max())
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def note(net: Module, x: np.ndarray) -> None:
    """Widen the net's range by a batch that it is trained on."""
    new, old = _range(x), net.input_range
    if new is not None:
        both = new if old is None else (min(old[0], new[0]), max(old[1], new[1]))
        object.__setattr__(net, "input_range", both)


def check(net: Module, x: np.ndarray) -> None:
    """Warn, once for each net and element type, when images are scaled otherwise than those of training."""
    expected, checked = net.input_range, net._private.checked
    if expected is None or x.dtype.char in checked:
        return
    got = _range(x)
    if got is None:
        return
    checked.add(x.dtype.char)
    if not _is_odd(expected, got, x.size):
        return
    if x.dtype == np.uint8:
        hint = "uint8 images are read as 0..1; scale them as in training and pass float32"
    elif expected[0] >= 0.0 and expected[1] <= 1.0 and got[0] >= 0.0:
        hint = "try x / 255 as float32, or uint8 images, which are read as 0..1"
    else:
        hint = "normalise the images as those of training; nn.Normalize as net.normalization goes into the net's file"
    warnings.warn(
        f"{type(net).__name__}: the images have values from {got[0]:g} to {got[1]:g}, but the net was trained on "
        f"{expected[0]:g} to {expected[1]:g}\n  hint: {hint}",
        stacklevel=stack_level(),
    )


def _is_odd(expected: tuple[float, float], got: tuple[float, float], size: int) -> bool:
    usual, largest = (max(abs(low), abs(high)) for low, high in (expected, got))
    if usual == 0.0 or largest == 0.0:
        return False
    if largest > _TOO_LARGE * usual or largest * _TOO_SMALL < usual:
        return True
    if expected[0] >= 0.0:
        return got[0] < -0.25 * usual
    # Images around 0 have dark pixels below it.
    return expected[0] < -0.1 * usual and got[0] >= 0.0 and size >= _MANY


def as_text(net: Module) -> dict[str, str]:
    """The range as metadata of a file; nothing when it is not known."""
    return {} if net.input_range is None else {METADATA_NAME: json.dumps(list(net.input_range))}


def from_text(text: str | None) -> tuple[float, float] | None:
    """The range from a file's metadata; None when there is none, or nonsense."""
    try:
        low, high = (float(value) for value in json.loads(text or "null"))
    except (TypeError, ValueError):
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low <= high else None
