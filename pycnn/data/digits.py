"""The embedded data set: 1,797 handwritten digits, 8x8 grey, 17 levels.

Test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/), in the selection that scikit-learn bundles. Changed:
stored as `digits.npz`, and resized when loaded. See DIGITS_LICENSE beside this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pycnn.arguments import as_number
from pycnn.data._checks import as_seed, as_size
from pycnn.data._resize import resize
from pycnn.data.datasets import ArrayDataset, split
from pycnn.errors import ArgumentError

__all__ = ["digits"]

_FILE = Path(__file__).with_name("digits.npz")
_LEVELS = 16


def digits(
    seed: int = 0, *, size: int | tuple[int, int] = 28, test_fraction: float = 0.25
) -> tuple[ArrayDataset, ArrayDataset]:
    """Real handwritten digits that need no download.

    The UCI optical digits (Alpaydin and Kaynak, CC BY 4.0), resized bicubically from 8x8 and
    divided class by class.

    Args:
        seed: Chooses the division into training and test images.
        size: Side, or (height, width), of the images in pixels.
        test_fraction: Part of the images held out for testing, above 0 and below 1.

    Shape:
        images ``(N, size, size, 1)`` uint8 0..255, labels ``(N,)`` int64 0..9;
        by default N is 1347 for training and 450 for testing.

    Returns:
        ``(train, test)``.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> train, test = digits(seed=0)
        >>> train.images.shape, test.class_names[:3]
        ((1347, 28, 28, 1), ('0', '1', '2'))
    """
    target = as_size(size, who="digits")
    key = as_seed(seed, who="digits")
    part = as_number(test_fraction, who="digits", name="test_fraction", low=0, high=1)
    if part in (0, 1):
        raise ArgumentError(f"digits: test_fraction must be above 0 and below 1, got {part}")
    with np.load(_FILE, allow_pickle=False) as stored:
        small, labels = stored["images"], stored["labels"]
    # In floating point, so that the 17 levels are rounded once, after the resize.
    smooth = resize(
        small[..., None].astype(np.float32) * np.float32(255 / _LEVELS),
        target,
        interpolation="bicubic",
    )
    images = np.clip(smooth + 0.5, 0, 255).astype(np.uint8)
    names = [str(i) for i in range(10)]
    return split(ArrayDataset(images, labels.astype(np.int64), names), part, seed=key)
