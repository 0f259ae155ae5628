"""Ops that ONNX, or an opset, does not have, written as formulas of operators that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn.errors import UnsupportedError
from pycnn.onnx._nodes import NCHW, Shape, as_images, joined, mapped
from pycnn.onnx._view import View
from pycnn.onnx._writer import Value, Writer

__all__ = ["compared", "even_response_norm", "formula", "uneven_means"]

_FLOAT = 1


def _number(view: View) -> View:
    """1 and 0 of truth values."""
    return mapped(view.symbol.writer, "Cast", view, to=_FLOAT)


def compared(w: Writer, kind: str, x: list[View], shape: Shape) -> View:
    """Binary ops that compare, or choose by a comparison with 0."""
    if kind == "equal":
        return _number(joined(w, "Equal", x, shape))
    if kind == "step":
        # 1 where the first is greater, 1/2 where they are equal.
        parts = [_number(joined(w, op, x, shape)) for op in ("Greater", "GreaterOrEqual")]
        return mapped(w, "Mul", joined(w, "Add", parts, shape), [w.number(0.5)])
    positive = mapped(w, "Greater", x[0], [w.number(0.0)])
    first, second = {
        "prelu": lambda: (x[0], joined(w, "Mul", x, shape)),
        "prelu_slope": lambda: (View.plain(w.literal(np.ones((), np.float32))), x[1]),
    }[kind]()
    return joined(w, "Where", [positive, first, second], shape)


def formula(w: Writer, kind: str, view: View, a: float, b: float) -> View:
    """Functions of one number.

    Raises:
        UnsupportedError: There is no formula for it.
    """

    def times(x: View, factor: float) -> View:
        return mapped(w, "Mul", x, [w.number(factor)])

    def product(x: View, y: View) -> View:
        return joined(w, "Mul", [x, y], view.shape)

    if kind == "gelu":
        bell = mapped(w, "Add", mapped(w, "Erf", times(view, math.sqrt(0.5))), [w.number(1.0)])
        return product(times(view, 0.5), bell)
    if kind == "gelu_tanh":
        cube = product(product(view, view), times(view, 0.044715))
        inner = times(joined(w, "Add", [view, cube], view.shape), math.sqrt(2.0 / math.pi))
        return product(times(view, 0.5), mapped(w, "Add", mapped(w, "Tanh", inner), [w.number(1.0)]))
    if kind == "mish":
        return product(view, mapped(w, "Tanh", mapped(w, "Softplus", view)))
    if kind == "hard_swish":
        return product(view, mapped(w, "HardSigmoid", view, alpha=1.0 / 6.0, beta=0.5))
    if kind == "threshold":
        above = mapped(w, "Greater", view, [w.number(a)])
        return joined(w, "Where", [above, view, View.plain(w.literal(np.asarray(b, np.float32)))], view.shape)
    raise UnsupportedError(f"onnx.export: '{w.scope}': there is no formula of ONNX's operators for {kind}")


def uneven_means(w: Writer, view: View, size: tuple[int, int], shape: Shape) -> View:
    """Adaptive pooling over windows of several sizes, by products with matrices of shares."""
    value, result = view.in_order(NCHW), list(view.in_order(NCHW).shape)
    for count, axis in zip(size, (2, 3), strict=True):
        shares = w.literal(_shares(result[axis], count))
        turned = (0, 1, 3, 2)
        value = value if axis == 2 else value.transpose(turned)
        result[axis] = count
        sizes = result if axis == 2 else [result[i] for i in turned]
        value = w.node("MatMul", [shares, value], sizes)
        value = value if axis == 2 else value.transpose(turned)
    assert tuple(result) == tuple(shape[axis] for axis in NCHW)
    return as_images(value)


def _shares(given: int, count: int) -> np.ndarray:
    """(count, given): window i reaches from floor(i * given / count) to ceil((i + 1) * given / count)."""
    shares = np.zeros((count, given), np.float32)
    for i in range(count):
        begin, end = i * given // count, -(-(i + 1) * given // count)
        shares[i, begin:end] = 1.0 / (end - begin)
    return shares


def even_response_norm(w: Writer, a: Mapping[str, Any], view: View) -> View:
    """Local response norm over an even number of channels, of which ONNX would place one more behind than in front."""
    order = (0, len(view.shape) - 1, *range(1, len(view.shape) - 1))
    value: Value = view.in_order(order)
    n, c, *behind = value.shape
    flat = (n, 1, c, math.prod(behind))
    squares = w.node("Mul", [value, value], value.shape).reshape((0, *flat[1:]))
    size = a["size"]
    means = w.node(
        "AveragePool", [squares], flat, kernel_shape=[size, 1], pads=[size // 2, 0, (size - 1) // 2, 0],
        count_include_pad=1,
    )  # fmt: skip
    scaled = w.node("Mul", [means.reshape((0, *value.shape[1:])), w.number(a["alpha"])], value.shape)
    base = w.node("Add", [scaled, w.number(a["k"])], value.shape)
    factor = w.node("Pow", [base, w.number(-a["beta"])], value.shape)
    return View(w.node("Mul", [value, factor], value.shape), order, view.shape)
