"""Recording an op, or running it at once on arrays; and checks of arguments that the functions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.arguments import as_float
from pycnn.errors import ArgumentError, DTypeError, LabelError
from pycnn.program import Program, compile_traced
from pycnn.tensor import Parameter, as_array, as_plain
from pycnn.tracing import Symbol, emit, is_tracing, trace

_CACHE_LIMIT = 256
# What tensors of the core can hold, by NumPy's name. Narrower floats are refused by each op with its own words.
_DTYPES = frozenset(("float32", "float64", "float16", "uint8", "int32", "int64"))
_programs: dict[Any, Program] = {}


def apply(op: Any, inputs: Sequence[Any], *, outputs: int = 1) -> Any:
    """Record the op, or run it at once when there are only arrays."""
    if is_tracing() or any(isinstance(value, Symbol) for value in inputs):
        return emit(op, inputs, outputs=outputs)
    arrays = as_arrays(inputs, op.name)
    specs = {f"input_{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    key = (op.name, repr(op.attributes()), tuple(specs.values()))
    program = _programs.get(key)
    if program is None:
        traced = trace(lambda **symbols: _named(emit(op, list(symbols.values()), outputs=outputs)), specs)
        program = compile_traced(traced)
        if len(_programs) >= _CACHE_LIMIT:
            _programs.pop(next(iter(_programs)))
        _programs[key] = program
    results = tuple(program.run(*plain_arrays(arrays, op.name)).values())
    return results[0] if outputs == 1 else results


def shape_of(x: Any) -> tuple[int, ...]:
    """Shape of a symbol, a parameter (in its memory layout) or what makes an array."""
    return tuple(x.shape) if hasattr(x, "shape") else as_array(x).shape


def as_arrays(values: Sequence[Any], who: str) -> list[np.ndarray]:
    """What an op is run on at once; parameters in their memory layout.

    Raises:
        DTypeError: Names the input and its element type.
    """
    arrays = []
    for i, value in enumerate(values):
        array = value.core.view() if isinstance(value, Parameter) else as_array(value, what=f"{who}: input {i}")
        if array.dtype.name not in _DTYPES:
            raise DTypeError(
                f"{who}: input {i}: has element type {array.dtype}, expected one of {', '.join(sorted(_DTYPES))}"
            )
        arrays.append(array)
    return arrays


def plain_arrays(arrays: Sequence[np.ndarray], who: str) -> list[np.ndarray]:
    """The arrays as the core reads them; a copy is announced under the name of the op and the input's number."""
    return [as_plain(array, array.dtype.name, what=f"{who}: input {i}") for i, array in enumerate(arrays)]


def check_labels(scores: Any, labels: Any, who: str) -> None:
    """Refuse class numbers that are out of range, where there are values to look at.

    The program that is run would refuse them too, but could only call them its "input_1".
    """
    if is_tracing() or isinstance(scores, Symbol) or isinstance(labels, Symbol):
        return
    numbers, classes = as_array(labels, what=f"{who}: labels"), as_array(scores, what=who).shape[-1:]
    if numbers.dtype.kind == "f" and numbers.ndim == 1:
        odd = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.floor(numbers)))
        where = f" (value {numbers[odd[0]]} at position {odd[0]})" if odd.size else ""
        hint = "" if odd.size else "\n  hint: try labels.astype(numpy.int64)"
        raise DTypeError(f"{who}: labels must be integers, got {numbers.dtype}{where}{hint}")
    if numbers.dtype.kind == "b":
        raise DTypeError(f"{who}: labels must be integers, got bool\n  hint: try labels.astype(numpy.int64)")
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not classes:
        return
    bad = np.flatnonzero((numbers < 0) | (numbers >= classes[0]))
    if bad.size:
        raise LabelError(
            f"{who}: label {numbers[bad[0]]} at position {bad[0]}, there are {classes[0]} classes (0..{classes[0] - 1})"
        )


def _named(result: Any) -> dict[str, Symbol]:
    results = result if isinstance(result, tuple) else (result,)
    return {f"output_{i}": value for i, value in enumerate(results)}


def as_integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentError(f"{name}: {value!r} is not an integer")
    return int(value)


def as_number(value: Any, name: str) -> float:
    who, _, argument = name.partition(": ")
    return as_float(value, who=who, name=argument)


def as_integers(value: Any, name: str) -> tuple[int, ...]:
    try:
        return tuple(as_integer(v, name) for v in value)
    except TypeError:
        raise ArgumentError(f"{name}: {value!r} is neither an integer nor a sequence of integers") from None


def as_pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    if isinstance(value, int | np.integer):
        return (as_integer(value, name),) * 2
    values = as_integers(value, name)
    if len(values) != 2:
        raise ArgumentError(f"{name}: {value!r} must be one number or two (vertical, horizontal)")
    return values[0], values[1]


def as_padding(value: int | Sequence[int], name: str) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) from one number, (vertical, horizontal), or all four."""
    if isinstance(value, int | np.integer):
        return (as_integer(value, name),) * 4
    values = as_integers(value, name)
    if len(values) == 2:
        return values[0], values[0], values[1], values[1]
    if len(values) == 4:
        return values[0], values[1], values[2], values[3]
    raise ArgumentError(f"{name}: {value!r} must be one number, (vertical, horizontal), or (top, bottom, left, right)")


def as_axes(x: Any, axes: int | Sequence[int] | None, name: str) -> tuple[int, ...]:
    rank = len(shape_of(x))
    given = range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes
    result = []
    for axis in given:
        axis = as_integer(axis, name)
        if not -rank <= axis < rank:
            raise ArgumentError(f"{name}: {axis} is out of range for {rank} axes")
        result.append(axis % rank)
    if len(set(result)) != len(result):
        raise ArgumentError(f"{name}: {tuple(given)} names an axis twice")
    return tuple(sorted(result))
