"""Learned filters as arrays and as pictures."""

from __future__ import annotations

import numpy as np

from pycnn.errors import ArgumentError
from pycnn.nn.module import Module, _unknown

__all__ = ["filter_pictures", "filters"]


def _convolutions(net: Module) -> dict[str, np.ndarray]:
    """Weights of the convolutions, (OC, IC / groups, KH, KW), by layer."""
    net.require_built("filters")
    net.name_tensors()
    return {
        name.removesuffix(".weight"): parameter.numpy()
        for name, parameter in net.named_parameters()
        if parameter.layout == "conv" and name.endswith("weight")
    }


def filters(net: Module, layer: str | None = None) -> np.ndarray:
    """The weights of a convolution, as images lie.

    Args:
        net: The net.
        layer: Name of a convolution. Default: the first one.

    Returns:
        A copy, float32 (OC, KH, KW, IC / groups).

    Raises:
        ArgumentError: There is no such convolution; the closest names are listed.
        GraphError: A layer has not seen its input yet.

    Example:
        >>> import pycnn
        >>> filters(pycnn.models.lenet5(), "conv2").shape
        (16, 5, 5, 6)
    """
    found = _convolutions(net)
    if not found:
        raise ArgumentError("filters: the net has no convolution")
    if layer is None:
        layer = next(iter(found))
    if layer not in found:
        raise ArgumentError(f"filters: {_unknown('convolution', layer, found)}")
    return np.ascontiguousarray(found[layer].transpose(0, 2, 3, 1))


def filter_pictures(weights: np.ndarray, *, limit: int = 64) -> np.ndarray:
    """Filters as pictures: weight 0 is middle grey, one scale for all.

    Args:
        weights: (OC, KH, KW, IC) as `filters` gives them. With 3 input channels the pictures are in colour; otherwise
            there is one grey tile for each output and input channel, all inputs of the first output first.
        limit: At most so many pictures.

    Returns:
        float32 in 0..1, (pictures, KH, KW, 3) or (pictures, KH, KW, 1).

    Raises:
        ArgumentError: The weights have another number of axes.
    """
    if weights.ndim != 4:
        raise ArgumentError(f"filter_pictures: weights are {weights.shape}, expected (OC, KH, KW, IC)")
    tiles = weights if weights.shape[3] == 3 else weights.transpose(0, 3, 1, 2).reshape(-1, *weights.shape[1:3], 1)
    largest = float(np.abs(weights).max(initial=0.0))
    scaled = 0.5 + (tiles[:limit] / (2 * largest) if largest > 0 else 0 * tiles[:limit])
    return scaled.astype(np.float32)
