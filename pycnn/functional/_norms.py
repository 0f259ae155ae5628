"""Normalisation of one image at a time, composed of means and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn.errors import ArgumentError, ShapeError
from pycnn.functional._basic import add, affine, mean, multiply, reshape, subtract
from pycnn.functional._elementwise import rsqrt
from pycnn.functional._run import as_axes, as_integer, as_number, shape_of


def _normalized(x: Any, steps: Sequence[tuple[int, ...]], eps: float) -> Any:
    """(x - mean) / sqrt(var + eps), the variance in a second pass; means are taken over axes of equal size in steps."""

    def mean_of(value: Any) -> Any:
        for axes in steps:
            value = mean(value, axes=axes, keep_dims=True)
        return value

    centred = subtract(x, mean_of(x))
    return multiply(centred, rsqrt(affine(mean_of(multiply(centred, centred)), offset=eps)))


def _scaled(x: Any, weight: Any, bias: Any) -> Any:
    if weight is not None:
        x = multiply(x, weight)
    return x if bias is None else add(x, bias)


def _eps(value: Any, who: str) -> float:
    eps = as_number(value, f"{who}: eps")
    if not 0 < eps < float("inf"):
        raise ArgumentError(f"{who}: eps must be a positive number, got {value!r}")
    return eps


def instance_norm(x: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5) -> Any:
    """Normalise each channel of each image by its own mean and (biased) variance (Ulyanov et al. 2016).

    Args:
        x: (N, ..., C), of three axes at least.
        weight: (C), what each channel is multiplied by, or None.
        bias: (C), what is added then, or None.
        eps: Added to the variance, above 0.

    Shape:
        (N, ..., C) -> the same.

    Raises:
        ShapeError: There is no axis between images and channels.
    """
    rank = len(shape_of(x))
    if rank < 3:
        raise ShapeError(f"instance_norm: input has shape {shape_of(x)}, expected (N, ..., C) of 3 axes at least")
    return _scaled(_normalized(x, [tuple(range(1, rank - 1))], _eps(eps, "instance_norm")), weight, bias)


def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, *, eps: float = 1e-5) -> Any:
    """Normalise groups of neighbouring channels of each image by their mean and (biased) variance (Wu and He 2018).

    Args:
        x: (N, ..., C).
        num_groups: Into how many groups the channels are cut.
        weight: (C), what each channel is multiplied by, or None.
        bias: (C), what is added then, or None.
        eps: Added to the variance, above 0.

    Shape:
        (N, ..., C) -> the same.

    Raises:
        ShapeError: The channels are no multiple of num_groups.
    """
    shape = shape_of(x)
    groups = as_integer(num_groups, "group_norm: num_groups")
    if len(shape) < 2 or groups < 1 or shape[-1] % groups:
        raise ShapeError(f"group_norm: input {shape} does not have channels in {groups} groups of the same size")
    # The mean of means of equally many numbers: over the pixels, then over the channels of a group.
    grouped = reshape(x, shape=(0, math.prod(shape[1:-1]), groups, shape[-1] // groups))
    normalized = _normalized(grouped, [(1,), (3,)], _eps(eps, "group_norm"))
    return _scaled(reshape(normalized, shape=(0, *shape[1:])), weight, bias)


def layer_norm(
    x: Any, weight: Any = None, bias: Any = None, *, axes: int | Sequence[int] = -1, eps: float = 1e-5
) -> Any:
    """Normalise by mean and (biased) variance over some axes (Ba et al. 2016).

    Args:
        x: Any shape.
        weight: What the result is multiplied by, or None; it broadcasts, (C) for each channel.
        bias: What is added then, or None.
        axes: Over which; the default is the channels of each pixel.
        eps: Added to the variance, above 0.

    Shape:
        The input's.

    Raises:
        ArgumentError: There is no such axis.
    """
    return _scaled(_normalized(x, [as_axes(x, axes, "layer_norm: axes")], _eps(eps, "layer_norm")), weight, bias)
