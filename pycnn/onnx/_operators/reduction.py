"""Sums, means and maxima over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import AXES_ARE_INPUT, checked_axes, checked_axis
from pycnn.onnx._view import View

__all__: list[str] = []


def _axes(values: Values, node: Node, rank: int) -> tuple[int, ...]:
    axes: tuple[int, ...] | None
    if node.version < AXES_ARE_INPUT.get(node.op, 18):
        axes = node.integers("axes", ())
    else:
        axes = values.integers(node, 1, "axes")
    if not axes:
        return () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return checked_axes(node, axes, rank)


def _reduce(values: Values, node: Node, function: Callable[..., Any], empty: float | None = None) -> View | np.ndarray:
    """Reduce over the node's axes; `empty` is what no elements give."""
    view = values.view(node, 0)
    axes = _axes(values, node, view.rank)
    keep = bool(node.integer("keepdims", 1))
    if 0 in view.shape:
        if empty is None:
            raise node.unsupported(f"nothing is known of no elements, {view.shape}")
        wide = [1 if axis in axes else size for axis, size in enumerate(view.shape)]
        return np.full(wide if keep else [n for a, n in enumerate(wide) if a not in axes], empty, np.float32)
    left = [axis for axis in view.axes if axis not in axes]
    places = [place for place, axis in enumerate(view.axes) if axis in axes]
    shape = [1 if axis in axes else size for axis, size in enumerate(view.shape)]
    result = function(view.symbol, axes=places) if places else view.symbol
    if keep:
        return View(result, left, shape)
    names = {axis: place for place, axis in enumerate(axis for axis in range(view.rank) if axis not in axes)}
    return View(result, [names[axis] for axis in left], [view.shape[axis] for axis in names])


@operator("ReduceMean", (1, 11, 13, 18))
def _mean(values: Values, node: Node) -> View | np.ndarray:
    return _reduce(values, node, functional.mean)


@operator("ReduceSum", (1, 11, 13))
def _sum(values: Values, node: Node) -> View | np.ndarray:
    return _reduce(values, node, functional.sum, 0.0)


@operator("ReduceMax", (1, 11, 12, 13, 18, 20))
def _max(values: Values, node: Node) -> View | np.ndarray:
    return _reduce(values, node, functional.max, -math.inf)


@operator("ReduceMin", (1, 11, 12, 13, 18, 20))
def _min(values: Values, node: Node) -> View | np.ndarray:
    def least(x: Any, axes: Any) -> Any:
        return functional.affine(functional.max(functional.affine(x, scale=-1.0), axes=axes), scale=-1.0)

    return _reduce(values, node, least, math.inf)


def _after(values: Values, node: Node, before: Callable[[Any], Any], behind: Callable[[Any], Any]) -> View | np.ndarray:
    """A sum of a function of the elements, and a function of the sum."""
    view = values.view(node, 0)
    values.set(node.inputs[0], View(before(view.symbol), view.axes, view.shape))
    try:
        total = _reduce(values, node, functional.sum, 0.0)
    finally:
        values.set(node.inputs[0], view)
    if isinstance(total, np.ndarray):
        # Of nothing: 0, and so are its root and absolute value.
        return total
    return View(behind(total.symbol), total.axes, total.shape)


def _square(x: Any) -> Any:
    return functional.multiply(x, x)


@operator("ReduceSumSquare", (1, 11, 13, 18))
def _sum_square(values: Values, node: Node) -> View | np.ndarray:
    return _after(values, node, _square, lambda total: total)


@operator("ReduceL2", (1, 11, 13, 18))
def _l2(values: Values, node: Node) -> View | np.ndarray:
    return _after(values, node, _square, functional.sqrt)


@operator("ReduceL1", (1, 11, 13, 18))
def _l1(values: Values, node: Node) -> View | np.ndarray:
    return _after(values, node, functional.abs, lambda total: total)


@operator("ArgMax", (1, 11, 12, 13))
def _arg_max(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    axis = checked_axis(node, node.integer("axis", 0), view.rank)
    order = view.axes if axis in view.axes else (*view.axes, axis)
    last = bool(node.integer("select_last_index", 0))
    result = functional.arg_max(view.in_order(order), axis=order.index(axis), last=last)
    left = [a for a in order if a != axis]
    if node.integer("keepdims", 1):
        return View(result, left, [1 if a == axis else size for a, size in enumerate(view.shape)])
    return View(result, [a - (a > axis) for a in left], [size for a, size in enumerate(view.shape) if a != axis])
