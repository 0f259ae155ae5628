"""Which pixels a class needs, by covering them (Zeiler and Fergus 2014, section 4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.errors import ArgumentError
from pycnn.inspect._recording import as_floats, one_hot_classes
from pycnn.nn.module import Module
from pycnn.program import check_device

__all__ = ["occlusion"]


def occlusion(
    net: Module,
    x: Any,
    classes: Any = None,
    *,
    size: int | None = None,
    stride: int | None = None,
    fill: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> np.ndarray:
    """Tell how much the probability of a class falls when a pixel's surroundings are covered.

    A square slides over the image; each pixel gets the mean fall over all squares that covered it.

    Args:
        net: A net that gives scores (N, classes).
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        classes: A class for all images, or one for each. Default: the predicted ones.
        size: Side of the square in pixels. Default: an eighth of the shorter side of the image, at least 3.
        stride: Pixels between neighbouring squares. Default: half the size.
        fill: Value of the covered pixels, in the range of the image. Default: the image's mean of each channel.
        batch_size: Images per run.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        float32 (N, H, W), probability: positive where the class needs the pixel, negative where the pixel spoke
        against it; in -1..1.

    Raises:
        ArgumentError: The square does not fit in the image, or a number is not positive.
        ShapeError: `x` is no batch of images, or the net gives no scores.
        LabelError: There is no such class.
        DeviceError: The device is absent.

    Example:
        >>> import numpy as np, pycnn
        >>> occlusion(pycnn.models.lenet5(), np.ones((1, 28, 28, 1), np.float32), 3, size=14).shape
        (1, 28, 28)
    """
    where = check_device(device, who="occlusion")
    images = as_floats(net, x, "occlusion")
    height, width = images.shape[1:3]
    side = max(3, min(height, width) // 8) if size is None else size
    step = max(1, side // 2) if stride is None else stride
    for name, value in (("size", side), ("stride", step), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"occlusion: {name} must be a whole number of at least 1, got {value!r}")
    if side > min(height, width):
        raise ArgumentError(f"occlusion: a square of {side} does not fit in an image of {height} x {width} pixels")
    chosen = one_hot_classes(net, images, classes, "occlusion", where).argmax(axis=1)
    places = [(top, left) for top in _starts(height, side, step) for left in _starts(width, side, step)]
    before = net.predict_proba(images, batch_size=batch_size, device=where)
    return np.stack(
        [
            _falls(net, image, int(label), float(probabilities[label]), places, side, fill, batch_size, where)
            for image, label, probabilities in zip(images, chosen, before, strict=True)
        ]
    )


def _starts(length: int, side: int, step: int) -> list[int]:
    """Positions of the square along an axis; the last one touches the border."""
    return sorted({*range(0, length - side + 1, step), length - side})


def _falls(
    net: Module,
    image: np.ndarray,
    label: int,
    before: float,
    places: list[tuple[int, int]],
    side: int,
    fill: float | None,
    batch_size: int,
    device: str,
) -> np.ndarray:
    cover = image.mean(axis=(0, 1)) if fill is None else np.float32(fill)
    total = np.zeros(image.shape[:2], np.float64)
    covered = np.zeros(image.shape[:2], np.int64)
    for start in range(0, len(places), batch_size):
        part = places[start : start + batch_size]
        # Always the same number of images, so that one program serves all.
        batch = np.repeat(image[None], min(batch_size, len(places)), axis=0)
        for index, (top, left) in enumerate(part):
            batch[index, top : top + side, left : left + side] = cover
        falls = before - net.predict_proba(batch, batch_size=len(batch), device=device)[:, label]
        for fall, (top, left) in zip(falls, part, strict=False):
            total[top : top + side, left : left + side] += fall
            covered[top : top + side, left : left + side] += 1
    # A stride beyond the size leaves pixels that were never covered.
    result: np.ndarray = np.divide(total, covered, out=np.zeros_like(total), where=covered > 0)
    return result.astype(np.float32)
