"""What may come in: arrays of images, arrays of labels, seeds, sizes.

Every check names who complains, what came (position and value where there is one) and what to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_integer
from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError
from pycnn.tensor import expect_memory, why_not_plain

Images = NDArray[Any]
Labels = NDArray[np.int64]
Index = NDArray[np.int64]

# Class names are built for every class below the largest label, so a stray label of 2**40 must
# not become an allocation.
MAX_CLASSES = 1_000_000


def as_seed(value: Any, *, who: str, name: str = "seed") -> int:
    """An integer in ``0..2**64 - 1``."""
    return as_integer(value, who=who, name=name, low=0, high=2**64 - 1)


def as_size(value: Any, *, who: str, name: str = "size") -> tuple[int, int]:
    """``28`` or ``(28, 32)`` -> ``(height_px, width_px)``, each in 1..65536."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ArgumentError(f"{who}: {name} must be one integer or (height, width), got {value!r}")
    height, width = (as_integer(v, who=who, name=name, low=1, high=65536) for v in pair)
    return height, width


def as_array(value: Any, *, who: str, name: str) -> NDArray[Any]:
    """Anything with `__array__`, the buffer protocol or `__dlpack__` as a plain ndarray."""
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{who}: {name} is a masked array\n  hint: fill it first, for example {name}.filled(0)")
    if value is None or isinstance(value, str | bytes | Mapping):
        hint = "\n  hint: a file name is not opened here; read the file first" if isinstance(value, str | bytes) else ""
        raise DTypeError(f"{who}: {name} must be an array of numbers, got {type(value).__name__}{hint}")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise DTypeError(f"{who}: {name} ({type(value).__name__}) cannot become a NumPy array: {error}") from error


def check_image_shape(shape: Sequence[int], *, who: str) -> None:
    """Refuse what is not (N, H, W, C), with the call that repairs it."""
    text = tuple(shape)
    if len(shape) == 3:
        raise ShapeError(
            f"{who}: images must be (N, H, W, C), got {text}\n"
            "  hint: grey images need a channel axis, try images[..., None]; "
            "one image needs a batch axis, try images[None]"
        )
    if len(shape) != 4:
        raise ShapeError(f"{who}: images must be (N, H, W, C), got {text}")
    if shape[1] in (1, 3) and shape[2] > 4 and shape[3] > 4:
        raise ShapeError(
            f"{who}: images {text} read as (N, H, W, C) have {shape[1]} row(s) "
            f"and {shape[3]} channels\n  hint: axis 1 looks like the channels; "
            "pycnn is channels-last, try images.transpose(0, 2, 3, 1)"
        )
    if min(shape[1:]) < 1:
        raise ShapeError(f"{who}: images must not have an empty side, got {text}")


def check_image_dtype(dtype: np.dtype[Any], *, who: str) -> None:
    """Accept uint8 and float32 only."""
    if dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.float32)):
        if dtype.kind in "iub":
            hint = "0..255 fits uint8, try images.astype(np.uint8)"
        elif dtype.kind == "f":
            hint = "try images.astype(np.float32)"
        else:
            hint = "images hold real numbers"
        raise DTypeError(f"{who}: images must be uint8 or float32, got {dtype}\n  hint: {hint}")


def as_plain(images: Images, *, who: str = "images") -> Images:
    """The array itself if C-contiguous, aligned and of native byte order; otherwise a copy.

    Raises:
        MemoryLimitError: There is no memory for the copy.
    """
    if images.flags.c_contiguous and images.flags.aligned and images.dtype.isnative:
        return images
    expect_memory(f"{who}: no memory for a plain copy of {images.dtype} {images.shape}", images.nbytes)
    return images.astype(images.dtype.newbyteorder("="), order="C")


def as_images(value: Any, *, who: str, stacklevel: int = 3) -> Images:
    """Images of a data set: C-contiguous, native, uint8 or float32, (N, H, W, C).

    float64 is cast to float32. A cast or a copy is announced by a warning, once per call site.
    """
    images = as_array(value, who=who, name="images")
    check_image_shape(images.shape, who=who)
    if images.dtype.kind == "f" and images.dtype.itemsize == 8:
        warnings.warn(
            f"{who}: images were converted from float64 to float32; pass images.astype(np.float32) to avoid it",
            stacklevel=stacklevel,
        )
        expect_memory(f"{who}: no memory for images {images.shape} as float32", images.nbytes // 2)
        return np.ascontiguousarray(images, dtype=np.float32)
    check_image_dtype(images.dtype, who=who)
    ready = as_plain(images, who=who)
    if ready is not images:
        warnings.warn(
            f"{who}: images: copied because the array {why_not_plain(images, name='images')}", stacklevel=stacklevel
        )
    return ready


def as_labels(value: Any, *, count: int, who: str) -> Labels:
    """Integer labels of a data set as int64, one per image; the range is checked elsewhere."""
    labels = as_array(value, who=who, name="labels")
    if labels.dtype.kind not in "iu" and labels.size:
        _refuse_label_dtype(labels, who=who)
    if labels.ndim != 1:
        hint = ""
        if labels.ndim == 2 and labels.shape[1] == 1:
            hint = "\n  hint: try labels.ravel()"
        elif labels.ndim == 2:
            hint = "\n  hint: these look one-hot, try labels.argmax(axis=1)"
        raise ShapeError(f"{who}: labels must be (N,), got {labels.shape}{hint}")
    if len(labels) != count:
        raise ShapeError(f"{who}: {count} images but {len(labels)} labels")
    if labels.dtype.kind == "u" and labels.size and labels.max() > np.iinfo(np.int64).max:
        where = int(labels.argmax())
        raise LabelError(f"{who}: label {labels[where]} at position {where} is out of range")
    return np.ascontiguousarray(labels, dtype=np.int64)


def _refuse_label_dtype(labels: NDArray[Any], *, who: str) -> None:
    text = f"{who}: labels must be integers, got {labels.dtype}"
    if labels.dtype.kind == "f":
        flat = labels.ravel()
        bad = np.flatnonzero(~np.isfinite(flat) | (flat != np.floor(flat)))
        where = int(bad[0]) if bad.size else 0
        text += f" (value {flat[where]} at position {where})"
        if not bad.size:
            text += "\n  hint: try labels.astype(np.int64)"
    raise DTypeError(text)


def check_label_range(labels: Labels, classes: int | None, *, who: str) -> int:
    """Refuse a label below 0 or not below `classes`; returns the number of classes."""
    limit = MAX_CLASSES if classes is None else classes
    bad = np.flatnonzero((labels < 0) | (labels >= limit))
    if bad.size:
        where = int(bad[0])
        more = f" ({bad.size} such labels)" if bad.size > 1 else ""
        if classes is None:
            why = "below 0" if labels[where] < 0 else f"too large, there may be {limit:,} classes"
        else:
            why = f"outside of 0..{limit - 1}"
        raise LabelError(f"{who}: label {labels[where]} at position {where} is {why}{more}")
    return int(labels.max(initial=-1)) + 1 if classes is None else classes


def as_class_names(names: Any, *, labels: Labels, who: str) -> tuple[str, ...]:
    """Check labels against names; without names they are "0", "1", ... up to the largest label."""
    if names is None:
        return tuple(str(i) for i in range(check_label_range(labels, None, who=who)))
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"{who}: class_names must be a sequence of str, got {names!r}")
    result = tuple(names)
    if len(set(result)) != len(result):
        twice = next(name for name in result if result.count(name) > 1)
        raise ArgumentError(f"{who}: class name {twice!r} appears twice")
    check_label_range(labels, len(result), who=who)
    return result


def as_index(value: Any, *, count: int, who: str) -> Index:
    """Sample indices in ``0..count - 1`` as int64 (N,); negative ones are refused."""
    index = as_array(value, who=who, name="indices")
    if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
        raise ArgumentError(f"{who}: indices must be integers of shape (N,), got {index.dtype} {index.shape}")
    result = np.ascontiguousarray(index, dtype=np.int64)
    bad = np.flatnonzero((result < 0) | (result >= count))
    if bad.size:
        where = int(bad[0])
        raise LabelError(f"{who}: index {index[where]} at position {where}, there are {count} samples")
    return result
