"""Comparisons, truth values, and choosing by them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import number, translates

__all__: list[str] = []

_COMPARISONS = {
    "eq": "Equal", "ne": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"
}  # fmt: skip
_BOOL = 9


@translates(*(f"{name}.{kind}" for name in _COMPARISONS for kind in ("Scalar", "Tensor")))
def _compare(r: Reader, a: Any) -> str:
    name = r.operator_name().partition(".")[0].removesuffix("_")
    other = number(r, a.other) if isinstance(a.other, str) else r.number(a.other)
    found = r.emit(_COMPARISONS[name], [number(r, a.self), other])
    return r.emit("Not", [found]) if name == "ne" else found


@translates("isnan")
def _isnan(r: Reader, a: Any) -> str:
    return r.emit("Not", [r.emit("Equal", [a.self, a.self])])


def _truth(r: Reader, value: Any) -> str:
    """A tensor of truth values: what is not 0."""
    if value in r.truths or ((known := r.known(value)) is not None and known.dtype == bool):
        return str(value)
    return r.emit("Cast", [value], r.shapes[value], to=_BOOL)


@translates(
    "logical_and", "logical_or", "logical_xor", "bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor",
    "__and__.Tensor", "__or__.Tensor", "__xor__.Tensor",
)  # fmt: skip
def _logical(r: Reader, a: Any) -> str:
    name = r.operator_name().partition(".")[0].strip("_").rpartition("_")[2]
    if str(r.node.meta["val"].dtype) != "torch.bool":
        raise r.unsupported("bits of integers are not supported; truth values are")
    return r.emit(name.capitalize(), [_truth(r, a.self), _truth(r, a.other)])


@translates("logical_not", "bitwise_not")
def _not(r: Reader, a: Any) -> str:
    if str(r.node.meta["val"].dtype) != "torch.bool":
        raise r.unsupported("bits of integers are not supported; truth values are")
    return r.emit("Not", [_truth(r, a.self)])


@translates("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def _where(r: Reader, a: Any) -> str:
    branches = [number(r, v) if isinstance(v, str) else r.number(v) for v in (a.self, a.other)]
    return r.emit("Where", [_truth(r, a.condition), *branches])


@translates("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(r: Reader, a: Any) -> str:
    value = a.value if isinstance(a.value, str) else r.number(a.value)
    return r.emit("Where", [_truth(r, a.mask), value, a.self])


@translates("sign", "sgn")
def _sign(r: Reader, a: Any) -> str:
    zero = r.array(np.zeros((), np.float32))
    above, below = (number(r, _remembered(r, r.emit(op, [a.self, zero]))) for op in ("Greater", "Less"))
    # NaN has no sign here either: it stays in the sum.
    return r.emit("Sub", [above, below])


def _remembered(r: Reader, name: str) -> str:
    r.truths.add(name)
    return name
