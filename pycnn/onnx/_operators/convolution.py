"""Convolution, forward and transposed."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import Windows, as_images, from_images
from pycnn.onnx._registry import CONVOLUTION, PLAIN, Values, operator
from pycnn.onnx._view import IMAGE, View

__all__: list[str] = []


@operator("Conv", (1, 11, 22), roles={1: CONVOLUTION, 2: PLAIN}, note="of images (N, C, H, W) and rows (N, C, L)")
def _conv(values: Values, node: Node) -> View:
    given, filters = values.view(node, 0), values.view(node, 1)
    images = as_images(node, given)
    if filters.rank != given.rank:
        raise node.bad_shape(f"weight {filters.shape} for an input {given.shape}")
    kernel = node.integers("kernel_shape", filters.shape[2:])
    if kernel != filters.shape[2:]:
        raise node.bad_argument(f"kernel_shape {kernel}, the weight is {filters.shape}")
    windows = Windows.of(node, images.shape[2:], kernel, given.rank)
    bias = values.optional_view(node, 2)
    if bias is not None and bias.shape != filters.shape[:1]:
        raise node.bad_shape(f"bias {bias.shape} for a weight {filters.shape}")
    x, weight = images.in_order(IMAGE), as_images(node, filters, "weight").in_order(IMAGE)

    def convolve(bias: Any) -> View:
        result = functional.conv2d(
            x,
            weight,
            bias,
            stride=windows.stride,
            padding=windows.padding,
            dilation=windows.dilation,
            groups=node.integer("group", 1),
        )
        return from_images(result, given.rank)

    if bias is not None:
        return convolve(bias.as_plain())
    result = convolve(None)
    # A bias that is added next joins.
    result.made = ("linear", 1, filters.shape[0], convolve)
    return result


@operator("ConvTranspose", (1, 11, 22), roles={1: CONVOLUTION, 2: PLAIN}, note="as Conv")
def _conv_transpose(values: Values, node: Node) -> View:
    given, filters = values.view(node, 0), values.view(node, 1)
    images = as_images(node, given)
    if filters.rank != given.rank:
        raise node.bad_shape(f"weight {filters.shape} for an input {given.shape}")
    kernel = node.integers("kernel_shape", filters.shape[2:])
    if kernel != filters.shape[2:]:
        raise node.bad_argument(f"kernel_shape {kernel}, the weight is {filters.shape}")
    windows, more = Windows.spread(node, images.shape[2:], kernel, given.rank)
    groups = node.integer("group", 1)
    bias = values.optional_view(node, 2)
    if bias is not None and bias.shape != (filters.shape[1] * groups,):
        raise node.bad_shape(f"bias {bias.shape} for a weight {filters.shape} of {groups} groups")
    result = functional.conv_transpose2d(
        images.in_order(IMAGE),
        as_images(node, filters, "weight").in_order(IMAGE),
        None if bias is None else bias.as_plain(),
        stride=windows.stride,
        padding=windows.padding,
        output_padding=more,
        dilation=windows.dilation,
        groups=groups,
    )
    return from_images(result, given.rank)
