"""Sums, differences, products and quotients of tensors, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._chains import joined_bias, joined_product, joined_sum, with_constant
from pycnn.onnx._registry import PLAIN, Values, operator
from pycnn.onnx._shapes import legacy_shape
from pycnn.onnx._view import View, align

__all__ = ["join", "placed"]

_SINCE = (6, 7, 13, 14)


def join(node: Node, views: list[View], function: Callable[..., Any]) -> View:
    """Apply a function of two tensors that are broadcast as NumPy does.

    Raises:
        ShapeError: Their shapes do not go together.
    """
    try:
        symbols, axes, shape = align(views)
    except ValueError:
        shapes = " and ".join(str(view.shape) for view in views)
        raise node.bad_shape(f"shapes {shapes} do not go together") from None
    return View(function(*symbols), axes, shape)


def placed(node: Node, a: View, b: View) -> list[View]:
    """Two operands as NumPy broadcasts them; before opset 7 attributes said where the axes of the second lie."""
    if node.version < 7 and node.integer("broadcast", 0):
        axis = node.integer("axis", a.rank - b.rank)
        if not -a.rank <= axis <= a.rank:
            raise node.bad_argument(f"axis {axis} is out of range for {a.rank} axes")
        b = b.reshaped(legacy_shape(node, a.shape, b.shape, axis % max(a.rank, 1)))
    return [a, b]


def _binary(
    values: Values, node: Node, function: Any, number: Callable[[float, bool], dict[str, float] | None]
) -> View:
    """Join two tensors, or a tensor and a number.

    Args:
        values: The graph's values.
        node: The node.
        function: Of two tensors.
        number: Scale and offset that do the same as a number, which stands on the left or not; None if none do.
    """
    for index in (0, 1):
        single = values.single(values.get(node, index))
        other = values.get(node, 1 - index)
        if single is None or not isinstance(other, View):
            continue
        affine = number(single, index == 0)
        rank = np.ndim(values.get(node, index))
        if affine is not None and rank <= other.rank:
            return View(functional.affine(other.symbol, **affine), other.axes, other.shape)
    return join(node, _operands(values, node), function)


def _operands(values: Values, node: Node) -> list[View]:
    return placed(node, values.view(node, 0), values.view(node, 1))


@operator("Add", _SINCE, roles={0: PLAIN, 1: PLAIN})
def _add(values: Values, node: Node) -> View:
    joined = joined_sum(values, node) or joined_bias(values, node)
    return joined or _binary(values, node, functional.add, lambda number, left: {"offset": number})


@operator("Sub", _SINCE, roles={0: PLAIN, 1: PLAIN})
def _sub(values: Values, node: Node) -> View:
    def affine(number: float, left: bool) -> dict[str, float]:
        return {"scale": -1.0, "offset": number} if left else {"offset": -number}

    return _binary(values, node, functional.subtract, affine)


@operator("Mul", _SINCE, roles={0: PLAIN, 1: PLAIN})
def _mul(values: Values, node: Node) -> View:
    joined = joined_product(values, node)
    if joined is not None:
        return joined
    factors = with_constant(values, node)
    result = _binary(values, node, functional.multiply, lambda number, left: {"scale": number})
    if factors is not None:
        result.made = ("times", *factors)
    return result


@operator("Div", _SINCE, roles={1: PLAIN})
def _div(values: Values, node: Node) -> View:
    divisor = values.single(values.get(node, 1))
    view = values.get(node, 0)
    # The reciprocal of a number close to 0 or to the largest one is not a float32 of full precision.
    if (
        divisor
        and 1e-37 < abs(divisor) < 1e37
        and np.ndim(values.get(node, 1)) <= (view.rank if isinstance(view, View) else -1)
    ):
        return View(functional.affine(view.symbol, scale=1.0 / divisor), view.axes, view.shape)
    return join(node, _operands(values, node), functional.divide)


@operator("Pow", (1, 7, 12, 13, 15))
def _pow(values: Values, node: Node) -> View:
    base, exponent = values.get(node, 0), values.get(node, 1)
    if isinstance(base, np.ndarray) and base.dtype.kind in "iu":
        # Else it would have been computed while loading.
        raise node.unsupported(f"the exponent of {base.dtype} ('{node.inputs[1]}') is not constant")
    view = values.view(node, 0)
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and exponent.ndim <= view.rank:
        number = float(exponent.reshape(()))
        return View(functional.power(view.symbol, number), view.axes, view.shape)
    if isinstance(exponent, np.ndarray) and exponent.dtype.kind in "iu":
        values.set(node.inputs[1], exponent.astype(np.float32))
    return join(node, _operands(values, node), functional.power)


def _chain(values: Values, node: Node, function: Any) -> View:
    result = values.view(node, 0)
    for index in range(1, len(node.inputs)):
        result = join(node, [result, values.view(node, index)], function)
    return result


@operator("Sum", (6, 8, 13), roles=lambda node: dict.fromkeys(range(len(node.inputs)), PLAIN))
def _sum(values: Values, node: Node) -> View:
    return _chain(values, node, functional.add)


@operator("Mean", (6, 8, 13))
def _mean(values: Values, node: Node) -> View:
    total = _chain(values, node, functional.add)
    return View(functional.affine(total.symbol, scale=1.0 / len(node.inputs)), total.axes, total.shape)


@operator("Max", (6, 8, 12, 13))
def _max(values: Values, node: Node) -> View:
    return _chain(values, node, functional.maximum)


@operator("Min", (6, 8, 12, 13))
def _min(values: Values, node: Node) -> View:
    return _chain(values, node, functional.minimum)
