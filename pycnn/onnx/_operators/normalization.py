"""Normalization, and dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._registry import BUFFER, PLAIN, Values, operator
from pycnn.onnx._shapes import checked_axis
from pycnn.onnx._view import View

__all__: list[str] = []


def channels_last(view: View) -> tuple[int, ...]:
    """The order of axes in which channels, axis 1, lie last."""
    return (0, *range(2, view.rank), 1)


@operator(
    "BatchNormalization",
    (6, 7, 9, 14, 15),
    roles={1: PLAIN, 2: PLAIN, 3: BUFFER, 4: BUFFER},
    note="statistics of channels (spatial=1)",
)
def _batch_norm(values: Values, node: Node) -> View | list[View]:
    view = values.view(node, 0)
    if not node.integer("spatial", 1):
        raise node.unsupported("statistics of every position (spatial=0) are not supported")
    if view.rank < 2:
        raise node.bad_shape(f"input {view.shape} has no axis of channels")
    parts = [values.view(node, index) for index in range(1, 5)]
    for part, what in zip(parts, ("scale", "B", "mean", "var"), strict=True):
        if part.shape != view.shape[1:2]:
            raise node.bad_shape(f"{what} is {part.shape}, the input {view.shape}")
    order = channels_last(view)
    if node.integer("training_mode", 0):
        return _by_the_batch(node, view, parts)
    if any(node.wants(index) for index in range(1, len(node.outputs))):
        raise node.unsupported("statistics as results are supported with training_mode=1 only")
    result = functional.batch_norm(
        view.in_order(order),
        *(part.as_plain() for part in parts),
        eps=node.number("epsilon", 1e-5),
        # ONNX's is the share that the running statistics keep.
        momentum=round(1.0 - node.number("momentum", 0.9), 12),
    )
    return View(result, order, view.shape)


def _by_the_batch(node: Node, view: View, parts: list[View]) -> list[View]:
    """Normalize by the batch's own statistics, also while predicting, and give the new running ones."""
    order = channels_last(view)
    x, axes = view.in_order(order), tuple(range(view.rank - 1))
    scale, shift, *running = (part.as_plain() for part in parts)
    result = functional.layer_norm(x, scale, shift, axes=axes, eps=node.number("epsilon", 1e-5))
    keep = node.number("momentum", 0.9)
    mean = functional.mean(x, axes=axes)
    centred = functional.subtract(x, mean)
    measured = (mean, functional.mean(functional.multiply(centred, centred), axes=axes))
    outputs = [View(result, order, view.shape)]
    for old, new in zip(running, measured, strict=True):
        kept = functional.affine(old, scale=keep)
        outputs.append(View.plain(functional.add(kept, functional.affine(new, scale=1.0 - keep))))
    return outputs


@operator("InstanceNormalization", (6, 22), roles={1: PLAIN, 2: PLAIN})
def _instance_norm(values: Values, node: Node) -> View:
    view, scale, shift = (values.view(node, index) for index in range(3))
    for part, what in ((scale, "scale"), (shift, "B")):
        if part.shape != view.shape[1:2]:
            raise node.bad_shape(f"{what} is {part.shape}, the input {view.shape}")
    order, eps = channels_last(view), node.number("epsilon", 1e-5)
    result = functional.instance_norm(view.in_order(order), scale.as_plain(), shift.as_plain(), eps=eps)
    return View(result, order, view.shape)


@operator("GroupNormalization", (18, 21), roles={1: PLAIN, 2: PLAIN})
def _group_norm(values: Values, node: Node) -> View:
    view, *parts = (values.view(node, index) for index in range(3))
    groups, channels = node.integer("num_groups", 1), view.shape[1] if view.rank > 1 else 0
    if groups < 1 or not channels or channels % groups:
        raise node.bad_argument(f"num_groups {groups} of {channels} channels")
    # In opset 18 each group has its scale and bias, from 21 on each channel.
    count = groups if node.version < 21 else channels
    vectors = []
    for part, what in zip(parts, ("scale", "bias"), strict=True):
        if part.shape != (count,):
            raise node.bad_shape(f"{what} is {part.shape}, expected ({count},)")
        vector = part.as_plain()
        if count != channels:
            each = functional.broadcast(
                functional.reshape(vector, shape=(groups, 1)), shape=(groups, channels // groups)
            )
            vector = functional.reshape(each, shape=(channels,))
        vectors.append(vector)
    order, eps = channels_last(view), node.number("epsilon", 1e-5)
    return View(functional.group_norm(view.in_order(order), groups, *vectors, eps=eps), order, view.shape)


@operator("LayerNormalization", (17,), roles={1: PLAIN, 2: PLAIN}, note="the first result")
def _layer_norm(values: Values, node: Node) -> View:
    if node.wants(1) or node.wants(2):
        raise node.unsupported("mean and deviation as results are not supported")
    view = values.view(node, 0)
    axis = checked_axis(node, node.integer("axis", -1), view.rank)
    parts = [values.optional_view(node, index) for index in (1, 2)]
    for part in parts:
        if part is not None and np.broadcast_shapes(part.shape, view.shape[axis:]) != view.shape[axis:]:
            raise node.bad_shape(f"scale or bias is {part.shape}, the input {view.shape}")
    scale, shift = (None if part is None else part.as_plain() for part in parts)
    axes, eps = tuple(range(axis, view.rank)), node.number("epsilon", 1e-5)
    return View.plain(functional.layer_norm(view.as_plain(), scale, shift, axes=axes, eps=eps))


@operator("LRN", (1, 13))
def _lrn(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    size = node.integer("size", 1)
    order = channels_last(view)
    if size % 2 == 0:
        return View(_even_lrn(node, view.in_order(order), size), order, view.shape)
    result = functional.local_response_norm(
        view.in_order(order),
        size=size,
        alpha=node.number("alpha", 1e-4),
        beta=node.number("beta", 0.75),
        k=node.number("bias", 1.0),
    )
    return View(result, order, view.shape)


def _even_lrn(node: Node, x: Any, size: int) -> Any:
    """Over an even number of channels, of which ONNX has one more behind than in front; the core's op the other way."""
    if size < 1:
        raise node.bad_argument(f"size {size} must be at least 1")
    squares = functional.reshape(functional.multiply(x, x), shape=(0, math.prod(x.shape[1:-1]), x.shape[-1], 1))
    before = (size - 1) // 2
    means = functional.avg_pool2d(squares, kernel_size=(1, size), stride=1, padding=(0, 0, before, size - 1 - before))
    base = functional.affine(means, scale=node.number("alpha", 1e-4), offset=node.number("bias", 1.0))
    factor = functional.power(functional.reshape(base, shape=(0, *x.shape[1:])), -node.number("beta", 0.75))
    return functional.multiply(x, factor)


@operator("Dropout", (6, 7, 10, 12, 13, 22), note="acts in training only; the mask is that of predictions")
def _dropout(values: Values, node: Node) -> Any:
    view = values.view(node, 0)
    ratio = node.number("ratio", 0.5)
    if node.version >= 12:
        given = values.optional_known(node, 1, "ratio")
        ratio = 0.5 if given is None else shortest(given.reshape(()))
        mode = values.optional_known(node, 2, "training_mode")
        if mode is not None and bool(mode.reshape(())) and ratio != 0.0:
            raise node.unsupported("training_mode: random numbers while predicting are not supported")
    if not 0.0 <= ratio < 1.0:
        raise node.bad_argument(f"ratio {ratio} must be at least 0 and below 1")
    result = View(functional.dropout(view.symbol, p=ratio), view.axes, view.shape)
    if not node.wants(1):
        return result
    # While predicting all is kept. Until opset 10 the mask was of numbers.
    return [result, np.broadcast_to(np.ones((), bool if node.version >= 10 else np.float32), view.shape)]
