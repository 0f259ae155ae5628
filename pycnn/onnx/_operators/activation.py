"""Activations, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._operators._chains import remember_tanh
from pycnn.onnx._registry import Values, operator
from pycnn.onnx._shapes import checked_axis
from pycnn.onnx._view import View

__all__: list[str] = []


def _map(values: Values, node: Node, function: Callable[[Any], Any]) -> View:
    """Apply a function of single elements, in whatever order they lie."""
    view = values.view(node, 0)
    return View(function(view.symbol), view.axes, view.shape)


@operator("Relu", (6, 13, 14))
def _relu(values: Values, node: Node) -> View:
    return _map(values, node, functional.relu)


@operator("Sigmoid", (6, 13))
def _sigmoid(values: Values, node: Node) -> View:
    return _map(values, node, functional.sigmoid)


@operator("Tanh", (6, 13))
def _tanh(values: Values, node: Node) -> View:
    result = _map(values, node, functional.tanh)
    remember_tanh(values, node, result)
    return result


@operator("LeakyRelu", (6, 16), note="alpha of at least 0")
def _leaky_relu(values: Values, node: Node) -> View:
    slope = node.number("alpha", 0.01)
    return _map(values, node, lambda x: functional.leaky_relu(x, negative_slope=slope))


def _limits(values: Values, node: Node) -> tuple[float, float]:
    if node.version < 11:
        return node.number("min", -math.inf), node.number("max", math.inf)
    low, high = (values.optional_known(node, index, name) for index, name in ((1, "min"), (2, "max")))
    return (
        -math.inf if low is None else shortest(low.reshape(())),
        math.inf if high is None else shortest(high.reshape(())),
    )


@operator("Clip", (6, 11, 12, 13), note="constant limits")
def _clip(values: Values, node: Node) -> View:
    low, high = _limits(values, node)
    if (low, high) == (0.0, 6.0):
        return _map(values, node, functional.relu6)
    if low == 0.0 and high > 3.4e38:
        return _map(values, node, functional.relu)
    raise node.unsupported(f"limits {low} and {high} are not supported")


def _softmax_of(values: Values, node: Node, function: Callable[[Any], Any]) -> View:
    view = values.view(node, 0)
    if view.rank < 1:
        raise node.bad_shape("input () has no axis")
    axis = checked_axis(node, node.integer("axis", -1 if node.version >= 13 else 1), view.rank)
    if node.version >= 13:
        order = (*(a for a in range(view.rank) if a != axis), axis)
        return View(function(view.in_order(order)), order, view.shape)
    # Before opset 13: all axes from this one on together. How these lie among themselves does not matter.
    front, behind = view.shape[:axis], [a for a in view.axes if a >= axis]
    if len(behind) == 1 and list(view.axes) == [*range(axis), *behind]:
        return View(function(view.symbol), view.axes, view.shape)
    behind += [a for a in range(axis, view.rank) if a not in behind]
    order = (*range(axis), *behind)
    x = view.in_order(order)
    flat = View.plain(x).reshaped((*front, math.prod(view.shape[axis:])))
    result = View.plain(function(flat.as_plain())).reshaped(x.shape)
    return View(result.as_plain(), order, view.shape)


@operator("Softmax", (1, 11, 13))
def _softmax(values: Values, node: Node) -> View:
    return _softmax_of(values, node, functional.softmax)


@operator("LogSoftmax", (1, 11, 13))
def _log_softmax(values: Values, node: Node) -> View:
    return _softmax_of(values, node, functional.log_softmax)
