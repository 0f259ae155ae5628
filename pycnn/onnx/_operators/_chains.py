"""Several nodes that are one op here: what exporting takes apart, importing joins, to the same bits.

A view remembers how its numbers were made of another view's, in `made`. What was recorded on the way is dropped when a
program is compiled, unless something else reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import Values
from pycnn.onnx._view import View

__all__ = ["joined_bias", "joined_product", "joined_sum", "remember_tanh", "with_constant"]

# functional.scaled_tanh: 1.7159 tanh(2x / 3), LeCun et al. 1998.
_INNER, _OUTER = np.float32(2.0 / 3.0), np.float32(1.7159)


def with_constant(values: Values, node: Node) -> tuple[View, np.ndarray] | None:
    """The tensor and the array of numbers that are no weights that a node joins, in whichever order; None otherwise."""
    first, second = values.get(node, 0), values.get(node, 1)
    if isinstance(first, np.ndarray):
        first, second = second, first
    if _lies_elsewhere(node):
        return None
    usual = isinstance(first, View) and isinstance(second, np.ndarray) and second.dtype == np.float32
    return (first, second) if usual and second.ndim <= first.rank else None


def _per_channel(view: View, array: np.ndarray) -> np.ndarray | None:
    """The array as one number for each channel, axis 1 of a view; None if it is something else."""
    shape = (1,) * (view.rank - array.ndim) + array.shape
    if view.rank < 2 or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(array.reshape(-1), view.shape[1:2]) if shape[1] in (1, view.shape[1]) else None


def _lies_elsewhere(node: Node) -> bool:
    """Whether an attribute says which axes the second operand has, as before opset 7."""
    return node.version < 7 and "axis" in node.attributes


def remember_tanh(values: Values, node: Node, result: View) -> None:
    """Note that a result is the tanh of 2/3 of a view."""
    made = values.view(node, 0).made
    if made is not None and made[0] == "times" and made[2].size == 1 and made[2].reshape(()) == _INNER:
        result.made = ("tanh of 2/3", made[1])


def joined_product(values: Values, node: Node) -> View | None:
    """1.7159 tanh(2x / 3) as one op."""
    found = with_constant(values, node)
    if found is None or found[1].size != 1 or found[1].reshape(()) != _OUTER:
        return None
    made = found[0].made
    return _map(made[1], functional.scaled_tanh) if made is not None and made[0] == "tanh of 2/3" else None


def joined_sum(values: Values, node: Node) -> View | None:
    """One op for x * a + b: of single numbers an affine map, of one for each channel a normalization of images."""
    found = with_constant(values, node)
    if found is None or found[0].made is None or found[0].made[0] != "times":
        return None
    _, view, factor = found[0].made
    scale, offset = values.single(factor), values.single(found[1])
    if scale is not None and offset is not None and (factor.ndim == 0 or view.rank < 2):
        return _map(view, lambda x: functional.affine(x, scale=scale, offset=offset))
    a, b = _per_channel(view, factor), _per_channel(view, found[1])
    if a is None or b is None or not (np.isfinite(a) & (a > 0) & np.isfinite(b)).all():
        return None
    # The op divides by `std` and subtracts `mean` first, in float64; rounded to float32 these are a and b again.
    std = 1.0 / a.astype(np.float64)
    order = (0, *range(2, view.rank), 1)
    return View(
        functional.normalize_image(view.in_order(order), mean=(-b * std).tolist(), std=std.tolist()), order, view.shape
    )


def _map(view: View, function: Any) -> View:
    return View(function(view.symbol), view.axes, view.shape)


def joined_bias(values: Values, node: Node) -> View | None:
    """A convolution or product of matrices and a sum with one number for each channel, as files of Keras write them."""
    if _lies_elsewhere(node):
        return None
    for index in (0, 1):
        made = getattr(values.get(node, index), "made", None)
        if made is None or made[0] != "linear" or values.uses(node.inputs[index]) != 1:
            continue
        if values.single(values.get(node, 1 - index)) is not None:
            continue
        _, axis, channels, with_bias = made
        other = values.view(node, 1 - index)
        rank = values.view(node, index).rank
        wide = (1,) * (rank - other.rank) + other.shape
        if len(wide) == rank and wide[axis] == channels and set(wide[:axis] + wide[axis + 1 :]) <= {1}:
            result: View = with_bias(other.reshaped((channels,)).as_plain())
            return result
    return None
