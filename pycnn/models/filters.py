"""The classical filters, hand-made where a network's are learned, applied by the same convolution.

Example:
    >>> image = np.ones((5, 5), np.float32)
    >>> float(apply_filter(image, FILTERS["edges"])[2, 2])
    0.0
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.tensor import as_array

__all__ = ["FILTERS", "apply_filter"]


def _kernel(rows: list[list[float]], divisor: float = 1.0) -> np.ndarray:
    kernel = np.array(rows, np.float32) / np.float32(divisor)
    kernel.flags.writeable = False
    return kernel


#: Read-only float32 kernels (3, 3) by name.
FILTERS: Mapping[str, np.ndarray] = MappingProxyType(
    {
        "identity": _kernel([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        "edges_diagonal": _kernel([[1, 0, -1], [0, 0, 0], [-1, 0, 1]]),
        "edges_laplacian": _kernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
        "edges": _kernel([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
        "sharpen": _kernel([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        "box_blur": _kernel([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
        "gaussian_blur": _kernel([[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16),
        "cross": _kernel([[1, 0, 1], [0, 1, 0], [1, 0, 1]]),
    }
)


def apply_filter(image: Any, kernel: Any, *, padding: str = "same") -> np.ndarray:
    """Filter every channel of an image by itself (cross-correlation: the kernel is not flipped).

    Args:
        image: Numbers of any type; uint8 keeps its scale 0..255, nothing is clipped.
        kernel: Odd or even sides, or a name of `FILTERS`.
        padding: "same" surrounds with zeros, so that the result is as large as the image; "valid"
            keeps to places where the kernel lies within.

    Shape:
        image ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``, kernel ``(KH, KW)`` -> as the image; with
        "valid" KH - 1 and KW - 1 pixels less.

    Returns:
        A new float32 array.

    Raises:
        ShapeError: Other numbers of axes, or the kernel exceeds the image ("valid").
        ArgumentError: The kernel's name or the padding is not known.

    Example:
        >>> import numpy as np
        >>> image = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1],
        ...                   [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
        >>> float(apply_filter(image, "cross", padding="valid")[0, 0])
        4.0
    """
    if isinstance(kernel, str):
        if kernel not in FILTERS:
            raise ArgumentError(f"apply_filter: no filter is called {kernel!r}\n  hint: there is {', '.join(FILTERS)}")
        kernel = FILTERS[kernel]
    weight = as_array(kernel, what="apply_filter: kernel").astype(np.float32)
    if weight.ndim != 2 or not weight.size:
        raise ShapeError(f"apply_filter: kernel must be (KH, KW), got {weight.shape}")
    pixels = as_array(image, what="apply_filter: image").astype(np.float32)
    rank = pixels.ndim
    if rank not in (2, 3, 4):
        raise ShapeError(f"apply_filter: image must be (H, W), (H, W, C) or (N, H, W, C), got {pixels.shape}")
    batch = pixels[None, :, :, None] if rank == 2 else pixels[None] if rank == 3 else pixels
    if padding == "same":
        height, width = weight.shape
        top, left = (height - 1) // 2, (width - 1) // 2
        sides = (top, height - 1 - top, left, width - 1 - left)
    elif padding == "valid":
        sides = (0, 0, 0, 0)
    else:
        raise ArgumentError(f"apply_filter: padding must be 'same' or 'valid', got {padding!r}")
    # Channels become images of one channel each: the same kernel for all, whatever their number.
    count, height, width, channels = batch.shape
    planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).reshape(-1, height, width, 1)
    result = functional.conv2d(planes, np.ascontiguousarray(weight)[None, :, :, None], padding=sides)
    filtered = np.asarray(result).reshape(count, channels, *result.shape[1:3])
    filtered = np.ascontiguousarray(filtered.transpose(0, 2, 3, 1))
    return filtered[0, :, :, 0] if rank == 2 else filtered[0] if rank == 3 else filtered
