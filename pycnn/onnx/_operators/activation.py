"""Activations and other functions of single numbers, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._operators._chains import remember_tanh
from pycnn.onnx._operators.arithmetic import join
from pycnn.onnx._registry import PLAIN, Values, operator
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


@operator("LeakyRelu", (6, 16))
def _leaky_relu(values: Values, node: Node) -> View:
    slope = node.number("alpha", 0.01)
    if slope < 0:
        return _map(values, node, lambda x: functional.prelu(x, np.full(1, slope, np.float32)))
    return _map(values, node, lambda x: functional.leaky_relu(x, negative_slope=slope))


@operator("PRelu", (6, 7, 9, 16), roles={1: PLAIN})
def _prelu(values: Values, node: Node) -> View:
    view, slope = values.view(node, 0), values.view(node, 1)
    if node.version < 7 and slope.rank == 1 and view.rank > 2:
        # One slope for each channel, wherever numpy would put it.
        slope = slope.reshaped((*slope.shape, *(1,) * (view.rank - 2)))
    return join(node, [view, slope], functional.prelu)


@operator("Elu", (6, 22))
def _elu(values: Values, node: Node) -> View:
    alpha = node.number("alpha", 1.0)
    return _map(values, node, lambda x: functional.elu(x, alpha=alpha))


# The constants of the paper, as float32.
_SELU = (np.float32(1.6732632423543772), np.float32(1.0507009873554805))


@operator("Selu", (6, 22))
def _selu(values: Values, node: Node) -> View:
    alpha, gamma = node.number("alpha", float(_SELU[0])), node.number("gamma", float(_SELU[1]))
    if (np.float32(alpha), np.float32(gamma)) == _SELU:
        return _map(values, node, functional.selu)
    return _map(values, node, lambda x: functional.affine(functional.elu(x, alpha=alpha), scale=gamma))


@operator("Celu", (12, 28))
def _celu(values: Values, node: Node) -> View:
    alpha = node.number("alpha", 1.0)
    return _map(values, node, lambda x: functional.celu(x, alpha=alpha))


@operator("HardSigmoid", (6, 22))
def _hard_sigmoid(values: Values, node: Node) -> View:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    return _map(values, node, lambda x: functional.hardsigmoid(x, alpha=alpha, beta=beta))


@operator("ThresholdedRelu", (10, 22))
def _thresholded_relu(values: Values, node: Node) -> View:
    alpha = node.number("alpha", 1.0)
    return _map(values, node, lambda x: functional.threshold(x, threshold=alpha, value=0.0))


@operator("Gelu", (20,))
def _gelu(values: Values, node: Node) -> View:
    approximate = node.text("approximate", "none")
    return _map(values, node, lambda x: functional.gelu(x, approximate=approximate))


def _enter(name: str, versions: Sequence[int], function: Callable[[Any], Any]) -> None:
    """A function of single numbers without attributes."""
    operator(name, versions)(lambda values, node: _map(values, node, function))


_enter("Softplus", (1, 22), functional.softplus)
_enter("Softsign", (1, 22), functional.softsign)
_enter("HardSwish", (14, 22), functional.hardswish)
_enter("Mish", (18, 22), functional.mish)
_enter("Abs", (6, 13), functional.abs)
_enter("Exp", (6, 13), functional.exp)
_enter("Log", (6, 13), functional.log)
_enter("Sqrt", (6, 13), functional.sqrt)
_enter("Erf", (9, 13), functional.erf)
_enter("Reciprocal", (6, 13), functional.reciprocal)
_enter("Neg", (6, 13), lambda x: functional.affine(x, scale=-1.0))


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
    return _map(values, node, lambda x: functional.clip(x, min=low, max=high))


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
