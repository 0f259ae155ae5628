"""Sums and means over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import AXES_ARE_INPUT, checked_axes
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


def _reduce(values: Values, node: Node, function: Callable[..., Any]) -> View:
    view = values.view(node, 0)
    axes = _axes(values, node, view.rank)
    keep = bool(node.integer("keepdims", 1))
    left = [axis for axis in view.axes if axis not in axes]
    places = [place for place, axis in enumerate(view.axes) if axis in axes]
    shape = [1 if axis in axes else size for axis, size in enumerate(view.shape)]
    result = function(view.symbol, axes=places) if places else view.symbol
    if keep:
        return View(result, left, shape)
    names = {axis: place for place, axis in enumerate(axis for axis in range(view.rank) if axis not in axes)}
    return View(result, [names[axis] for axis in left], [view.shape[axis] for axis in names])


@operator("ReduceMean", (1, 11, 13, 18))
def _mean(values: Values, node: Node) -> View:
    return _reduce(values, node, functional.mean)


@operator("ReduceSum", (1, 11, 13))
def _sum(values: Values, node: Node) -> View:
    return _reduce(values, node, functional.sum)
