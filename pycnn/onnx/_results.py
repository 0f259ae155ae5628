"""Results of a network as its file declares them; programs compute with fewer element types than files have."""

from __future__ import annotations

import numpy as np

from pycnn.errors import FormatError, UnsupportedError
from pycnn.onnx._registry import Values
from pycnn.onnx._view import View
from pycnn.tracing import to_symbol

__all__ = ["OUTPUT_TYPES", "as_declared", "result_view"]

# Element types that programs do not have, and those that hold all their numbers.
_HELD_AS = {
    "bool": "uint8", "int8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64",
    "float16": "float32",
}  # fmt: skip
#: Element types that results may have.
OUTPUT_TYPES = ("float32", "float64", "int64", "int32", "uint8", *_HELD_AS)
# What stands for a declared type while computing: float64 where gradients are checked.
_WIDER = {("float16", "float32"), ("float16", "float64")}


def result_view(values: Values, name: str, dtype: str) -> View:
    """A result, of a type that programs have and that `as_declared` turns into the declared one.

    Args:
        values: The graph's values.
        name: Of the result.
        dtype: As the file declares it; "" if it does not.

    Raises:
        UnsupportedError: Such results are not supported.
        FormatError: The graph gives another element type.
    """
    value = values.value(name)
    if isinstance(value, View) and value.held:
        _check(name, dtype, value.held)
        return value
    if dtype not in _HELD_AS and dtype != "float64":
        return values.named_view(name)
    if isinstance(value, np.ndarray):
        return View.plain(to_symbol(np.array(_held(value, name, dtype), order="C")))
    if value.scale is not None:
        return values.named_view(name)
    found = "bool" if value.logical else str(value.symbol.dtype)
    if not (values.wide and (dtype, found) == ("float64", "float32")):
        _check(name, dtype, found)
    return value


def _check(name: str, dtype: str, found: str) -> None:
    if found != dtype and (dtype, found) not in _WIDER:
        raise FormatError(f"onnx: output '{name}' is declared as {dtype}, the graph gives {found}")


def _held(array: np.ndarray, name: str, dtype: str) -> np.ndarray:
    _check(name, dtype, array.dtype.name)
    if dtype == "uint64" and array.size and array.max() > np.iinfo(np.int64).max:
        raise UnsupportedError(f"onnx: output '{name}' has numbers of uint64 that int64 does not hold")
    return array.astype(_HELD_AS.get(dtype, dtype))


def as_declared(array: np.ndarray, dtype: str) -> np.ndarray:
    """A program's result with the element type that the file declares."""
    if not dtype or array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        # What float16 does not hold becomes infinite.
        return array.astype(dtype)
