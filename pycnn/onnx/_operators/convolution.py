"""Convolution, forward and transposed."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import VOLUME, Windows, as_images, from_images, part
from pycnn.onnx._registry import CONVOLUTION, PLAIN, Values, operator
from pycnn.onnx._view import IMAGE, View

__all__: list[str] = []


@operator("Conv", (1, 11, 22), roles={1: CONVOLUTION, 2: PLAIN}, note="of 1 to 3 axes")
def _conv(values: Values, node: Node) -> View:
    given, filters = values.view(node, 0), values.view(node, 1)
    if filters.rank != given.rank:
        raise node.bad_shape(f"weight {filters.shape} for an input {given.shape}")
    kernel = node.integers("kernel_shape", filters.shape[2:])
    if kernel != filters.shape[2:]:
        raise node.bad_argument(f"kernel_shape {kernel}, the weight is {filters.shape}")
    bias = values.optional_view(node, 2)
    if bias is not None and bias.shape != filters.shape[:1]:
        raise node.bad_shape(f"bias {bias.shape} for a weight {filters.shape}")
    if given.rank == 5:
        return _conv3d(node, given, filters, None if bias is None else bias.as_plain())
    images = as_images(node, given)
    windows = Windows.of(node, images.shape[2:], kernel, given.rank)
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


def _conv3d(node: Node, given: View, filters: View, bias: Any) -> View:
    plane, depth = part(node, (1, 2)), part(node, (0,))
    kernel = filters.shape[2:]
    flat = Windows.of(plane, given.shape[3:], kernel[1:], 4)
    along = Windows.of(depth, (1, given.shape[2]), kernel[:1], 3)
    result = functional.conv3d(
        given.in_order(VOLUME),
        filters.in_order(VOLUME),
        bias,
        stride=(along.stride[1], *flat.stride),
        padding=(*along.padding[2:], *flat.padding),
        dilation=(along.dilation[1], *flat.dilation),
        groups=node.integer("group", 1),
    )
    n, d, h, w, c = result.shape
    return View(result, VOLUME, (n, c, d, h, w))


@operator("ConvTranspose", (1, 11, 22), roles={1: CONVOLUTION, 2: PLAIN}, note="as Conv")
def _conv_transpose(values: Values, node: Node) -> View:
    given, filters = values.view(node, 0), values.view(node, 1)
    if filters.rank != given.rank:
        raise node.bad_shape(f"weight {filters.shape} for an input {given.shape}")
    kernel = node.integers("kernel_shape", filters.shape[2:])
    if kernel != filters.shape[2:]:
        raise node.bad_argument(f"kernel_shape {kernel}, the weight is {filters.shape}")
    groups = node.integer("group", 1)
    bias = values.optional_view(node, 2)
    if bias is not None and bias.shape != (filters.shape[1] * groups,):
        raise node.bad_shape(f"bias {bias.shape} for a weight {filters.shape} of {groups} groups")
    if given.rank == 5:
        return _conv_transpose3d(node, given, filters, None if bias is None else bias.as_plain())
    images = as_images(node, given)
    windows, more = Windows.spread(node, images.shape[2:], kernel, given.rank)
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


def _conv_transpose3d(node: Node, given: View, filters: View, bias: Any) -> View:
    plane, depth = part(node, (1, 2)), part(node, (0,))
    kernel = filters.shape[2:]
    flat, more = Windows.spread(plane, given.shape[3:], kernel[1:], 4)
    along, behind = Windows.spread(depth, (1, given.shape[2]), kernel[:1], 3)
    result = functional.conv_transpose3d(
        given.in_order(VOLUME),
        filters.in_order(VOLUME),
        bias,
        stride=(along.stride[1], *flat.stride),
        padding=(*along.padding[2:], *flat.padding),
        output_padding=(behind[1], *more),
        dilation=(along.dilation[1], *flat.dilation),
        groups=node.integer("group", 1),
    )
    n, d, h, w, c = result.shape
    return View(result, VOLUME, (n, c, d, h, w))
