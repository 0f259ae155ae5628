"""Comparisons, truth values, and choosing by them. Truth is 1 and falsehood 0, in tensors of float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators.arithmetic import join, placed
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._view import View, align
from pycnn.tracing import to_symbol

__all__ = ["differs_from_zero"]


def differs_from_zero(x: Any) -> Any:
    """1 where x is not 0, also where it is NaN."""
    return functional.affine(functional.equal(x, np.zeros((), np.float32)), scale=-1.0, offset=1.0)


def _truth(values: Values, node: Node, index: int) -> View:
    """An input of truth values."""
    value = values.get(node, index)
    if isinstance(value, np.ndarray):
        if value.dtype != bool:
            raise node.bad_argument(f"'{node.inputs[index]}' has element type {value.dtype}, expected bool")
        return View.plain(to_symbol(value.astype(np.float32)))
    view = values.view(node, index)
    if not view.logical:
        raise node.bad_argument(f"'{node.inputs[index]}' has element type {view.symbol.dtype}, expected bool")
    return view


def _logical(view: View) -> View:
    view.logical = True
    return view


def _enter(
    name: str, versions: Sequence[int], function: Callable[..., Any], read: Callable[[Values, Node, int], View]
) -> None:
    def convert(values: Values, node: Node) -> View:
        return _logical(join(node, placed(node, read(values, node, 0), read(values, node, 1)), function))

    operator(name, versions)(convert)


def _number(values: Values, node: Node, index: int) -> View:
    return values.view(node, index)


_enter("Equal", (1, 7, 11, 13, 19), functional.equal, _number)
_enter("Greater", (1, 7, 9, 13), functional.greater, _number)
_enter("GreaterOrEqual", (12, 16), functional.greater_equal, _number)
_enter("Less", (1, 7, 9, 13), functional.less, _number)
_enter("LessOrEqual", (12, 16), functional.less_equal, _number)
_enter("And", (1, 7), functional.multiply, _truth)
_enter("Or", (1, 7), functional.maximum, _truth)
_enter("Xor", (1, 7), lambda a, b: functional.abs(functional.subtract(a, b)), _truth)


@operator("Not", (1,))
def _not(values: Values, node: Node) -> View:
    view = _truth(values, node, 0)
    return _logical(View(functional.affine(view.symbol, scale=-1.0, offset=1.0), view.axes, view.shape))


@operator("Where", (9, 16))
def _where(values: Values, node: Node) -> View:
    condition, *branches = [_truth(values, node, 0), values.view(node, 1), values.view(node, 2)]
    if any(branch.logical for branch in branches):
        raise node.unsupported("choosing between truth values is not supported")
    try:
        symbols, axes, shape = align([condition, *branches])
    except ValueError:
        shapes = ", ".join(str(view.shape) for view in (condition, *branches))
        raise node.bad_shape(f"shapes {shapes} do not go together") from None
    return View(functional.where(*symbols), axes, shape)
