"""Normalization, and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators.normalization import channels_last
from pycnn.onnx._registry import BUFFER, PLAIN, Values
from pycnn.onnx._view import View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import mapped, own, translates

__all__: list[str] = []


@translates("batch_norm")
def _batch_norm(r: Reader, a: Any) -> str:
    if a.training or a.running_mean is None:
        raise r.unsupported(
            "statistics of the batch while predicting (track_running_stats=False) are not supported\n"
            "  hint: use running statistics, or group or layer norm"
        )
    channels = r.shapes[a.input][1]
    weight = r.array(np.ones(channels, np.float32)) if a.weight is None else a.weight
    bias = r.array(np.zeros(channels, np.float32)) if a.bias is None else a.bias
    return r.emit(
        "aten.batch_norm",
        [a.input, weight, bias, a.running_mean, a.running_var],
        eps=float(a.eps),
        momentum=float(a.momentum),
    )


@own("aten.batch_norm", {1: PLAIN, 2: PLAIN, 3: BUFFER, 4: BUFFER})
def _own_batch_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    order = channels_last(view)
    parts = [values.view(node, i).as_plain() for i in range(1, 5)]
    result = functional.batch_norm(
        view.in_order(order), *parts, eps=node.attributes["eps"], momentum=node.attributes["momentum"]
    )
    return View(result, order, view.shape)


@translates("group_norm")
def _group_norm(r: Reader, a: Any) -> str:
    return r.emit("aten.group_norm", [a.input, a.weight, a.bias], groups=int(a.num_groups), eps=float(a.eps))


@translates("instance_norm")
def _instance_norm(r: Reader, a: Any) -> str:
    if not a.use_input_stats:
        raise r.unsupported("running statistics (track_running_stats=True) are not supported")
    return r.emit("aten.group_norm", [a.input, a.weight, a.bias], groups=0, eps=float(a.eps))


@own("aten.group_norm", {1: PLAIN, 2: PLAIN})
def _own_group_norm(values: Values, node: Node) -> View:
    """Of groups, or of each channel where their number is 0."""
    view = values.view(node, 0)
    order, eps, groups = channels_last(view), node.attributes["eps"], node.attributes["groups"]
    parts = [values.optional_view(node, i) for i in (1, 2)]
    weight, bias = (None if part is None else part.as_plain() for part in parts)
    x = view.in_order(order)
    if groups:
        result = functional.group_norm(x, groups, weight, bias, eps=eps)
    else:
        result = functional.instance_norm(x, weight, bias, eps=eps)
    return View(result, order, view.shape)


@translates("layer_norm")
def _layer_norm(r: Reader, a: Any) -> str:
    return r.emit("aten.layer_norm", [a.input, a.weight, a.bias], axes=len(a.normalized_shape), eps=float(a.eps))


@own("aten.layer_norm", {1: PLAIN, 2: PLAIN})
def _own_layer_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    parts = [values.optional_view(node, i) for i in (1, 2)]
    weight, bias = (None if part is None else part.as_plain() for part in parts)
    axes = tuple(range(view.rank - node.attributes["axes"], view.rank))
    return View.plain(functional.layer_norm(view.as_plain(), weight, bias, axes=axes, eps=node.attributes["eps"]))


@translates("local_response_norm")
def _local_response_norm(r: Reader, a: Any) -> str:
    return r.emit(
        "aten.local_response_norm", [a.self], size=a.size, alpha=float(a.alpha), beta=float(a.beta), k=float(a.k)
    )


@own("aten.local_response_norm")
def _own_local_response_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    order = channels_last(view)
    result = functional.local_response_norm(view.in_order(order), **node.attributes)
    return View(result, order, view.shape)


@translates("dropout", "feature_dropout")
def _dropout(r: Reader, a: Any) -> str:
    if a.train and a.p:
        raise r.unsupported(
            "it drops numbers while predicting too\n  hint: functional.dropout needs training=self.training"
        )
    return r.emit(f"aten.{r.operator_name().partition('.')[0].rstrip('_')}", [a.input], p=float(a.p))


@own("aten.dropout")
def _own_dropout(values: Values, node: Node) -> View:
    return mapped(values, node, lambda x: functional.dropout(x, p=node.attributes["p"]))


@own("aten.feature_dropout")
def _own_feature_dropout(values: Values, node: Node) -> View:
    """Whole channels are dropped: one number for each, 1 before, is."""
    view = values.view(node, 0)
    order = channels_last(view)
    x = view.in_order(order)
    corner = functional.slice(x, begin=(0,) * view.rank, size=(-1, *(1,) * (view.rank - 2), -1))
    mask = functional.dropout(functional.equal(corner, corner), p=node.attributes["p"])
    return View(functional.multiply(x, mask), order, view.shape)
