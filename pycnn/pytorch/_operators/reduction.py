"""Sums, means and maxima over axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import Values
from pycnn.onnx._view import View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import number, own, translates

__all__: list[str] = []

_LARGEST = float(np.finfo(np.float32).max)


def _reduce(r: Reader, op: str, a: Any, dims: Any) -> str:
    rank = len(r.shapes[a.self])
    axes = [d % rank for d in (dims if isinstance(dims, list) else [dims])] if dims is not None and dims != [] else []
    axes = axes or list(range(rank))
    return r.emit(op, [number(r, a.self)], version=11, axes=axes, keepdims=int(getattr(a, "keepdim", False)))


@translates("mean.dim", "mean")
def _mean(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceMean", a, getattr(a, "dim", None))


@translates("sum.dim_IntList", "sum")
def _total(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceSum", a, getattr(a, "dim", None))


@translates("amax", "amin")
def _amax(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceMax" if r.operator_name().startswith("amax") else "ReduceMin", a, a.dim)


@translates("max.dim", "min.dim")
def _max_along(r: Reader, a: Any) -> list[str | None]:
    op = "ReduceMax" if r.operator_name().startswith("max") else "ReduceMin"
    axes = [a.dim % len(r.shapes[a.self])]
    return [r.emit(op, [a.self], version=11, axes=axes, keepdims=int(a.keepdim)), None]


@translates("argmax")
def _arg_max(r: Reader, a: Any) -> str:
    if a.dim is None:
        raise r.unsupported("an axis must be named (dim)")
    return r.emit("ArgMax", [a.self], version=11, axis=a.dim % len(r.shapes[a.self]), keepdims=int(a.keepdim))


@translates("linalg_vector_norm", "norm.ScalarOpt_dim", "norm.Scalar")
def _norm(r: Reader, a: Any) -> str:
    order = getattr(a, "ord", getattr(a, "p", 2))
    ops = {1: "ReduceL1", 2: "ReduceL2"}
    if order not in ops:
        raise r.unsupported(f"a norm of order {order} is not supported; 1 and 2 are")
    return _reduce(r, ops[order], a, getattr(a, "dim", None))


@translates("logsumexp")
def _logsumexp(r: Reader, a: Any) -> str:
    return _own_reduce(r, "aten.logsumexp", a, a.dim)


@translates("var.correction", "std.correction", "var.dim", "std.dim", "var", "std")
def _var(r: Reader, a: Any) -> str:
    correction = getattr(a, "correction", getattr(a, "unbiased", None))
    root = r.operator_name().startswith("std")
    less = 1.0 if correction is None else float(correction)
    return _own_reduce(r, "aten.var", a, getattr(a, "dim", None), less=less, root=root)


@translates("var_mean.correction", "std_mean.correction")
def _var_mean(r: Reader, a: Any) -> list[str]:
    return [_var(r, a), _reduce(r, "ReduceMean", a, a.dim)]


def _own_reduce(r: Reader, op: str, a: Any, dims: Any, **more: Any) -> str:
    rank = len(r.shapes[a.self])
    axes = sorted(d % rank for d in (dims if isinstance(dims, list) else [dims])) if dims not in (None, []) else []
    shape = r.result_shapes()[0]
    return r.emit(op, [a.self], shape, axes=axes or list(range(rank)), keep=bool(getattr(a, "keepdim", False)), **more)


def _reduced(node: Node, symbol: Any) -> View:
    """The view of a result whose reduced axes have size 1."""
    view, axes = View.plain(symbol), node.attributes["axes"]
    return view if node.attributes["keep"] else view.reshaped([n for a, n in enumerate(view.shape) if a not in axes])


@own("aten.var")
def _own_var(values: Values, node: Node) -> View:
    view, axes = values.view(node, 0), node.attributes["axes"]
    x, count = view.as_plain(), math.prod(view.shape[axis] for axis in axes)
    centred = functional.subtract(x, functional.mean(x, axes=axes, keep_dims=True))
    total = functional.sum(functional.multiply(centred, centred), axes=axes, keep_dims=True)
    divisor = max(count - node.attributes["less"], 0.0)
    if divisor:
        variance = functional.affine(total, scale=1.0 / divisor)
    else:
        variance = functional.divide(total, np.zeros((), np.float32))
    return _reduced(node, functional.sqrt(variance) if node.attributes["root"] else variance)


@own("aten.logsumexp")
def _own_logsumexp(values: Values, node: Node) -> View:
    x, axes = values.view(node, 0).as_plain(), node.attributes["axes"]
    # Finite, so that infinities stay what they are.
    largest = functional.clip(functional.max(x, axes=axes, keep_dims=True), min=-_LARGEST, max=_LARGEST)
    total = functional.sum(functional.exp(functional.subtract(x, largest)), axes=axes, keep_dims=True)
    return _reduced(node, functional.add(functional.log(total), largest))
