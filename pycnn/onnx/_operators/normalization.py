"""Normalization, and dropout."""

from __future__ import annotations

from pycnn import functional
from pycnn.onnx._network import Node, shortest
from pycnn.onnx._registry import BUFFER, PLAIN, Values, operator
from pycnn.onnx._view import View

__all__: list[str] = []


def channels_last(view: View) -> tuple[int, ...]:
    """The order of axes in which channels, axis 1, lie last."""
    return (0, *range(2, view.rank), 1)


@operator(
    "BatchNormalization",
    (6, 7, 9, 14, 15),
    roles={1: PLAIN, 2: PLAIN, 3: BUFFER, 4: BUFFER},
    note="statistics of channels (spatial=1); training_mode=0, as files for inference have it",
)
def _batch_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    if not node.integer("spatial", 1):
        raise node.unsupported("statistics of every position (spatial=0) are not supported")
    if node.integer("training_mode", 0) or any(node.wants(index) for index in range(1, len(node.outputs))):
        raise node.unsupported("statistics of the batch (training_mode=1) are not supported")
    if view.rank < 2:
        raise node.bad_shape(f"input {view.shape} has no axis of channels")
    parts = [values.view(node, index) for index in range(1, 5)]
    for part, what in zip(parts, ("scale", "B", "mean", "var"), strict=True):
        if part.shape != view.shape[1:2]:
            raise node.bad_shape(f"{what} is {part.shape}, the input {view.shape}")
    order = channels_last(view)
    result = functional.batch_norm(
        view.in_order(order),
        *(part.as_plain() for part in parts),
        eps=node.number("epsilon", 1e-5),
        # ONNX's is the share that the running statistics keep.
        momentum=round(1.0 - node.number("momentum", 0.9), 12),
    )
    return View(result, order, view.shape)


@operator("LRN", (1, 13), note="an odd size")
def _lrn(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    size = node.integer("size", 1)
    if size % 2 == 0:
        raise node.unsupported(f"size {size}; supported are odd ones")
    order = channels_last(view)
    result = functional.local_response_norm(
        view.in_order(order),
        size=size,
        alpha=node.number("alpha", 1e-4),
        beta=node.number("beta", 0.75),
        k=node.number("bias", 1.0),
    )
    return View(result, order, view.shape)


@operator("Dropout", (6, 7, 10, 12, 13, 22), note="without a mask; acts in training only")
def _dropout(values: Values, node: Node) -> View:
    if node.wants(1):
        raise node.unsupported("the mask is not supported")
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
    return View(functional.dropout(view.symbol, p=ratio), view.axes, view.shape)
