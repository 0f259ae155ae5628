"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import spread, translates

__all__: list[str] = []


def _conv(r: Reader, a: Any, axes: int, padding: Sequence[int]) -> str:
    return r.emit(
        "Conv",
        [a.input, a.weight, a.bias],
        strides=spread(a.stride, axes),
        pads=list(padding),
        dilations=spread(a.dilation, axes),
        group=a.groups,
    )


@translates("conv1d", "conv2d", "conv3d")
def _convolution(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.input]) - 2
    if axes != len(r.shapes[a.weight]) - 2:
        raise r.unsupported(f"an input of shape {r.shapes[a.input]}; a batch axis is needed")
    return _conv(r, a, axes, spread(a.padding, axes) * 2)


@translates("conv1d.padding", "conv2d.padding", "conv3d.padding")
def _convolution_same(r: Reader, a: Any) -> str:
    kernel = r.shapes[a.weight][2:]
    if a.padding == "valid":
        return _conv(r, a, len(kernel), [0] * 2 * len(kernel))
    reach = [d * (k - 1) for k, d in zip(kernel, spread(a.dilation, len(kernel)), strict=True)]
    return _conv(r, a, len(kernel), [n // 2 for n in reach] + [n - n // 2 for n in reach])


@translates("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
def _conv_transpose(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.weight]) - 2
    return r.emit(
        "ConvTranspose",
        [a.input, a.weight, a.bias],
        strides=spread(a.stride, axes),
        pads=spread(a.padding, axes) * 2,
        output_padding=spread(a.output_padding, axes),
        dilations=spread(a.dilation, axes),
        group=a.groups,
    )
