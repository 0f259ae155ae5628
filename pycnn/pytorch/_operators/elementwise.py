"""Functions of single numbers, and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import affine, enter, function, number, translates

__all__: list[str] = []


def _simple(name: str, op: str) -> None:
    translates(name)(lambda r, a: r.emit(op, [number(r, a.self)]))


for _name, _op in {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "selu": "Selu",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "softsign": "Softsign",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "erf": "Erf",
    "reciprocal": "Reciprocal",
    "neg": "Neg",
}.items():
    _simple(_name, _op)

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "silu": functional.silu,
    "rsqrt": functional.rsqrt,
    "hardsigmoid": functional.hardsigmoid,
    "softplus": functional.softplus,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "threshold": functional.threshold,
    "clip": functional.clip,
    "relu6": functional.relu6,
}


for _name, _of in _FUNCTIONS.items():
    enter(_name, _of)


@translates("silu", "rsqrt", "hardsigmoid", "relu6")
def _without_attributes(r: Reader, a: Any) -> str:
    return function(r, a, r.operator_name().partition(".")[0].removesuffix("_"))


@translates("leaky_relu")
def _leaky_relu(r: Reader, a: Any) -> str:
    if a.negative_slope < 0:
        return r.emit("LeakyRelu", [a.self], alpha=float(a.negative_slope))
    return function(r, a, "leaky_relu", negative_slope=float(a.negative_slope))


@translates("elu")
def _elu(r: Reader, a: Any) -> str:
    if a.scale != 1 or a.input_scale != 1:
        raise r.unsupported(f"scale {a.scale} and input_scale {a.input_scale} are not supported")
    return function(r, a, "elu", alpha=float(a.alpha))


@translates("celu")
def _celu(r: Reader, a: Any) -> str:
    return function(r, a, "celu", alpha=float(a.alpha))


@translates("gelu")
def _gelu(r: Reader, a: Any) -> str:
    return function(r, a, "gelu", approximate=a.approximate)


@translates("softplus")
def _softplus(r: Reader, a: Any) -> str:
    # Beyond its threshold of 20 PyTorch gives x itself, from which the function differs by 2e-9 at most.
    if a.threshold < 20:
        raise r.unsupported(f"threshold {a.threshold} is not supported; it must be at least 20")
    return function(r, a, "softplus", beta=float(a.beta))


@translates("log_sigmoid")
def _log_sigmoid(r: Reader, a: Any) -> str:
    return affine(r, r.emit("aten.softplus", [affine(r, a.self, scale=-1.0)], beta=1.0), scale=-1.0)


@translates("hardshrink")
def _hardshrink(r: Reader, a: Any) -> str:
    return function(r, a, "hardshrink", limit=float(a.lambd))


enter(
    "hardshrink",
    lambda x, limit: functional.where(functional.less_equal(functional.abs(x), np.float32(limit)), np.float32(0), x),
)


@translates("softshrink")
def _softshrink(r: Reader, a: Any) -> str:
    return function(r, a, "softshrink", limit=float(a.lambd))


enter("softshrink", lambda x, limit: functional.subtract(x, functional.clip(x, min=-limit, max=limit)))


@translates("threshold")
def _threshold(r: Reader, a: Any) -> str:
    return function(r, a, "threshold", threshold=float(a.threshold), value=float(a.value))


def _clip(r: Reader, a: Any, low: Any, high: Any) -> str:
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if (low, high) == (0.0, 6.0):
        return function(r, a, "relu6")
    if (low, high) == (0.0, math.inf):
        return r.emit("Relu", [a.self])
    return function(r, a, "clip", min=low, max=high)


@translates("hardtanh")
def _hardtanh(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min_val, a.max_val)


@translates("clamp", "clip")
def _clamp(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min, a.max)


@translates("clamp_min")
def _clamp_min(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min, None)


@translates("clamp_max")
def _clamp_max(r: Reader, a: Any) -> str:
    return _clip(r, a, None, a.max)


@translates("prelu")
def _prelu(r: Reader, a: Any) -> str:
    # Until opset 6 a vector of slopes had one for each channel, as here.
    return r.emit("PRelu", [a.self, a.weight], version=6)


@translates("softmax.int", "log_softmax.int")
def _softmax(r: Reader, a: Any) -> str:
    return r.emit("LogSoftmax" if r.operator_name().startswith("log") else "Softmax", [a.self], axis=int(a.dim))


def _operands(r: Reader, a: Any) -> tuple[Any, Any]:
    first, second = (number(r, value) if isinstance(value, str) else value for value in (a.self, a.other))
    return first, second


def _sum(r: Reader, a: Any, scale_a: float, scale_b: float) -> str:
    """Two tensors, or a tensor and a number, each times a factor."""
    a, b = _operands(r, a)
    if not isinstance(b, str):
        return affine(r, a, scale=scale_a, offset=b * scale_b)
    if not isinstance(a, str):
        return affine(r, b, scale=scale_b, offset=a * scale_a)
    if scale_a == 1 and scale_b == -1:
        return r.emit("Sub", [a, b])
    return r.emit("Add", [affine(r, t, scale=s, shape=r.shapes[t]) for t, s in ((a, scale_a), (b, scale_b))])


@translates("add.Tensor", "add.Scalar")
def _add(r: Reader, a: Any) -> str:
    return _sum(r, a, 1, a.alpha)


@translates("sub.Tensor", "sub.Scalar")
def _sub(r: Reader, a: Any) -> str:
    return _sum(r, a, 1, -a.alpha)


@translates("rsub.Tensor", "rsub.Scalar")
def _rsub(r: Reader, a: Any) -> str:
    return _sum(r, a, -a.alpha, 1)


@translates("mul.Tensor", "mul.Scalar")
def _mul(r: Reader, a: Any) -> str:
    first, second = _operands(r, a)
    if not isinstance(second, str):
        return affine(r, first, scale=second)
    return r.emit("Mul", [first, second])


@translates("div.Tensor", "div.Scalar")
def _div(r: Reader, a: Any) -> str:
    first, second = _operands(r, a)
    if isinstance(second, str):
        return r.emit("Div", [first, second])
    if not 1e-37 < abs(second) < 1e37:
        raise r.unsupported(f"division by {second} is not supported")
    return affine(r, first, scale=1.0 / second)


@translates("pow.Tensor_Scalar")
def _pow(r: Reader, a: Any) -> str:
    return function(r, a, "power", exponent=float(a.exponent))


enter("power", lambda x, exponent: functional.power(x, exponent))


@translates("pow.Tensor_Tensor")
def _pow_tensor(r: Reader, a: Any) -> str:
    return r.emit("Pow", [a.self, a.exponent])


@translates("square")
def _square(r: Reader, a: Any) -> str:
    return r.emit("Mul", [a.self, a.self])


@translates("maximum", "minimum", "max.other", "min.other")
def _maximum(r: Reader, a: Any) -> str:
    return r.emit("Max" if r.operator_name().startswith("max") else "Min", list(_operands(r, a)))


@translates("glu")
def _glu(r: Reader, a: Any) -> str:
    axis, shape = r.checked_axis(a.self, a.dim), r.result_shapes()[0]
    halves = r.emit_all("Split", [a.self], [shape, shape], 11, {"axis": axis, "split": [shape[axis]] * 2})
    return r.emit("Mul", [halves[0], r.emit("Sigmoid", [halves[1]])])
