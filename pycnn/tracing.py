"""Recording a network: calling a function with symbols instead of arrays gives a graph."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.errors import DTypeError, GraphError, ShapeError
from pycnn.tensor import Parameter, as_array

__all__ = ["Symbol", "Traced", "emit", "is_tracing_value", "scope", "symbol_of", "trace"]


# Names of arrays that `forward` mentions, in front of their number.
_CONSTANT = "constant."


class Symbol:
    """A tensor that will exist when the program runs: it has a shape and a type, but no values yet."""

    __slots__ = ("_trace", "dtype", "id", "shape")

    def __init__(self, trace: _Trace, symbol_id: _core.SymbolId) -> None:
        """Wrap a value of the graph being recorded."""
        self._trace = trace
        self.id = symbol_id
        shape, self.dtype = trace.graph.spec(symbol_id)
        self.shape: tuple[int, ...] = tuple(shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def _binary(self, op: Any, other: Any, *, swapped: bool = False) -> Symbol:
        operands = [other, self] if swapped else [self, other]
        return emit(op, operands)

    def __add__(self, other: Any) -> Symbol:
        """Add a symbol, an array (broadcast as NumPy does) or a number."""
        if isinstance(other, int | float):
            return emit(_core.Affine(offset=float(other)), [self])
        return self._binary(_core.Add(), other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        """Subtract a symbol, an array or a number."""
        if isinstance(other, int | float):
            return emit(_core.Affine(offset=-float(other)), [self])
        return self._binary(_core.Subtract(), other)

    def __rsub__(self, other: Any) -> Symbol:
        """Subtract from an array or a number."""
        if isinstance(other, int | float):
            return emit(_core.Affine(scale=-1.0, offset=float(other)), [self])
        return self._binary(_core.Subtract(), other, swapped=True)

    def __mul__(self, other: Any) -> Symbol:
        """Multiply by a symbol, an array or a number."""
        if isinstance(other, int | float):
            return emit(_core.Affine(scale=float(other)), [self])
        return self._binary(_core.Multiply(), other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        """Divide by a symbol, an array or a number."""
        if isinstance(other, int | float):
            if other == 0:
                raise ZeroDivisionError("division of a Symbol by zero")
            return emit(_core.Affine(scale=1.0 / float(other)), [self])
        return self._binary(_core.Binary(kind="divide"), other)

    def __rtruediv__(self, other: Any) -> Symbol:
        """Divide an array or a number."""
        if isinstance(other, int | float):
            return float(other) * emit(_core.Unary(kind="reciprocal"), [self])
        return self._binary(_core.Binary(kind="divide"), other, swapped=True)

    def __neg__(self) -> Symbol:
        """Negate."""
        return emit(_core.Affine(scale=-1.0), [self])

    # Keeps NumPy from taking over `array + symbol` element by element.
    __array_ufunc__ = None

    def _no_values(self, *_args: Any, **_kwargs: Any) -> Any:
        raise TypeError(
            f"a Symbol of shape {self.shape} has no values until the program runs: the network is recorded once, so "
            "Python cannot branch on a tensor or convert it; compile and run it to get an array"
        )

    __array__ = __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _no_values
    __lt__ = __le__ = __gt__ = __ge__ = _no_values

    def __getattr__(self, name: str) -> Any:
        """Explain that a Symbol has no methods of arrays."""
        hint = "" if name.startswith("_") else "; what is done to it are functions, as pycnn.functional.relu(x)"
        raise AttributeError(f"a Symbol has no {name!r}{hint}", name=name, obj=self)

    def __getitem__(self, key: Any) -> Any:
        """Explain what takes a part of a Symbol."""
        raise TypeError("a Symbol cannot be indexed; pycnn.functional.slice and take give a part of it")

    def __repr__(self) -> str:
        """Describe shape and type."""
        return f"Symbol(shape={self.shape}, dtype={self.dtype!r})"


class _Trace:
    """The graph being recorded and what has been met on the way."""

    def __init__(self, parameter_dtype: str | None) -> None:
        self.graph = _core.Graph()
        self.parameters: dict[str, Parameter] = {}
        self.names: dict[int, str] = {}
        self.symbols: dict[int, Symbol] = {}
        self.scopes: list[str] = []
        self.parameter_dtype = parameter_dtype
        self.constants = 0


class _Active(threading.local):
    def __init__(self) -> None:
        self.stack: list[_Trace] = []


_active = _Active()


@dataclass(frozen=True)
class Traced:
    """A recorded network.

    Attributes:
        graph: The core's graph.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
        parameters: Parameters and buffers by their name in the graph.
        parameter_dtype: "float64" when the parameters run in double precision, else None.
        single: The traced function returned one symbol, not a mapping.
    """

    graph: _core.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: dict[str, Parameter]
    parameter_dtype: str | None = None
    single: bool = True
    symbols: dict[str, _core.SymbolId] = field(default_factory=dict)


def is_tracing_value(value: object) -> bool:
    """Tell whether a value is a Symbol."""
    return isinstance(value, Symbol)


def is_tracing() -> bool:
    """Tell whether a network is being recorded in this thread."""
    return bool(_active.stack)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Prefix the names of the ops recorded inside: `scope("layer1")` then `scope("conv1")` gives "layer1.conv1"."""
    if not _active.stack:
        yield
        return
    scopes = _active.stack[-1].scopes
    scopes.append(name)
    try:
        yield
    finally:
        scopes.pop()


def current_scope() -> str:
    """Return the dotted name of the scopes that are open."""
    return ".".join(s for s in _active.stack[-1].scopes if s) if _active.stack else ""


def origin() -> str:
    """Return "file:line" of the nearest caller outside the package; on the command line there is none."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "pycnn":
        if frame.f_globals["__name__"] == "pycnn.cli":
            return ""
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def symbol_of(parameter: Parameter) -> Symbol:
    """Return the symbol of a parameter in the graph being recorded, adding it on first use.

    Raises:
        GraphError: Nothing is being recorded, or two parameters have the same name.
    """
    if not _active.stack:
        raise GraphError("symbol_of: no network is being recorded; parameters become symbols inside trace()")
    trace_ = _active.stack[-1]
    known = trace_.symbols.get(id(parameter))
    if known is not None:
        return known
    name = trace_.names.get(id(parameter)) or parameter.name or f"parameter_{len(trace_.parameters)}"
    if name in trace_.parameters:
        raise GraphError(f"two parameters are called '{name}'")
    parameter.name = parameter.name or name
    dtype = parameter.dtype
    if trace_.parameter_dtype and dtype == "float32":
        dtype = trace_.parameter_dtype
    if parameter.is_buffer:
        symbol_id = trace_.graph.buffer(name, parameter.shape, dtype)
    else:
        symbol_id = trace_.graph.parameter(name, parameter.shape, dtype, parameter.layout)
    symbol = Symbol(trace_, symbol_id)
    trace_.parameters[name] = parameter
    trace_.symbols[id(parameter)] = symbol
    return symbol


def name_parameters(names: Mapping[str, Parameter]) -> None:
    """Say what parameters met later in this recording are called. Used by modules that are the root of a call."""
    if _active.stack:
        trace_ = _active.stack[-1]
        for name, parameter in names.items():
            trace_.names.setdefault(id(parameter), name)


def _constant(trace_: _Trace, value: Any, like: Symbol | None) -> Symbol:
    array = as_array(value)
    dtype = array.dtype.name
    if array.dtype.kind == "f" and like is not None and like.dtype in ("float32", "float64"):
        dtype = like.dtype
    # Not ascontiguousarray, which gives numbers an axis.
    values = np.require(array, requirements="C")
    parameter = Parameter(array.shape, init=values, trainable=False, dtype=dtype)
    parameter.name = f"{_CONSTANT}{trace_.constants}"
    trace_.constants += 1
    return symbol_of(parameter)


def to_symbol(value: Any, *, like: Symbol | None = None) -> Symbol:
    """Turn a symbol, parameter or array into a symbol of the graph being recorded.

    Raises:
        GraphError: The symbol belongs to another recording.
    """
    trace_ = _active.stack[-1]
    if isinstance(value, Symbol):
        if value._trace is not trace_:
            raise GraphError(
                f"a Symbol of shape {value.shape} belongs to another recording; symbols cannot be kept between traces"
            )
        return value
    if isinstance(value, Parameter):
        return symbol_of(value)
    return _constant(trace_, value, like)


def emit(op: Any, inputs: Sequence[Any], *, name: str = "", outputs: int = 1) -> Any:
    """Record an op.

    Args:
        op: An op of the core.
        inputs: Symbols, parameters or arrays (constants).
        name: Name of the node below the open scopes; empty takes the scope's or the op's own.
        outputs: How many results to return: one Symbol, or a tuple of them.

    Raises:
        ShapeError: The op refuses the shapes; the message names the line of the caller's file.
    """
    if not _active.stack:
        raise GraphError(f"{op.name}: no network is being recorded; the symbol given belongs to a finished trace")
    trace_ = _active.stack[-1]
    like = next((value for value in inputs if isinstance(value, Symbol)), None)
    ids = [to_symbol(value, like=like).id for value in inputs]
    prefix = current_scope()
    full = f"{prefix}.{name}" if prefix and name else name or prefix
    first = trace_.graph.add(op, ids, full, origin())
    if outputs == 1:
        return Symbol(trace_, first)
    return tuple(Symbol(trace_, first.result(k)) for k in range(outputs))


def emit_block(block: Any, x: Symbol, tensors: Sequence[Any]) -> Symbol:
    """Record a composite block of the core with its tensors in the order of `block.parameters()`."""
    x = to_symbol(x)
    ids = [to_symbol(tensor).id for tensor in tensors]
    prefix = current_scope()
    result = block.build(x._trace.graph, x.id, ids, prefix + "." if prefix else "", origin())
    return Symbol(x._trace, result)


def inline(
    graph: _core.Graph,
    inputs: Mapping[str, Symbol],
    variables: Mapping[str, Parameter],
    *,
    also: Sequence[str] = (),
) -> tuple[dict[str, Symbol], dict[str, Symbol]]:
    """Record here the nodes of another graph that its outputs need.

    Args:
        graph: A recorded (not specialised) graph.
        inputs: A symbol for each input of the graph.
        variables: A parameter for each variable of the graph.
        also: Names of further ops whose first results are wanted.

    Returns:
        The outputs by name, and the further results by name.
    """
    trace_ = _active.stack[-1]
    values: dict[tuple[int, int], _core.SymbolId] = {}
    nodes = graph.nodes()
    further = {name: graph.find(name) for name in also}
    needed = _ancestors(nodes, [s.node for _, s in graph.outputs()] + [s.node for s in further.values()])
    for index, node in enumerate(nodes):
        if not needed[index]:
            continue
        if node["kind"] == "input":
            values[index, 0] = to_symbol(inputs[node["name"]]).id
        elif node["kind"] in ("parameter", "buffer"):
            parameter = variables[node["name"]]
            if parameter.name.startswith(_CONSTANT) and id(parameter) not in trace_.symbols:
                # Numbered by its own recording; here another constant may have the number.
                trace_.names[id(parameter)] = f"{_CONSTANT}{trace_.constants}"
                trace_.constants += 1
            values[index, 0] = symbol_of(parameter).id
        else:
            ids = [values[s.node, s.output] for s in node["inputs"]]
            prefix = current_scope()
            name = f"{prefix}.{node['name']}" if prefix else node["name"]
            first = trace_.graph.add(node["op"], ids, name, origin())
            for k in range(len(node["outputs"])):
                values[index, k] = first.result(k)
    return (
        {name: Symbol(trace_, values[s.node, s.output]) for name, s in graph.outputs()},
        {name: Symbol(trace_, values[s.node, s.output]) for name, s in further.items()},
    )


def freeze_statistics(traced: Traced) -> Traced:
    """Make the batch norms whose running statistics are frozen use them while training too, and keep them.

    Args:
        traced: A recorded network; it stays as it is.

    Returns:
        The same where nothing is frozen; otherwise another recording with the same names.
    """
    frozen = {name for name, parameter in traced.parameters.items() if parameter.frozen}
    if not frozen:
        return traced
    nodes = traced.graph.nodes()

    def change(node: Mapping[str, Any]) -> Any:
        op = node["op"]
        if op.name == "batch_norm" and nodes[node["inputs"][3].node]["name"] in frozen:
            return _core.BatchNorm(**{**op.attributes(), "frozen": True})
        return op

    return _rebuild(traced, nodes, [True] * len(nodes), change)


def prune(traced: Traced) -> Traced:
    """Leave out what the outputs do not need; the inputs stay.

    Args:
        traced: A recorded network; it stays as it is.

    Returns:
        Another recording with the same names.
    """
    nodes = traced.graph.nodes()
    needed = _ancestors(nodes, [symbol.node for _, symbol in traced.graph.outputs()])
    kept = [need or node["kind"] == "input" for need, node in zip(needed, nodes, strict=True)]
    return _rebuild(traced, nodes, kept, lambda node: node["op"])


def _rebuild(
    traced: Traced, nodes: Sequence[Mapping[str, Any]], kept: Sequence[bool], change: Callable[[Mapping[str, Any]], Any]
) -> Traced:
    """Record the chosen nodes again, each op as `change` gives it."""
    graph = _core.Graph()
    values: dict[tuple[int, int], _core.SymbolId] = {}
    parameters: dict[str, Parameter] = {}
    for index, node in enumerate(nodes):
        if not kept[index]:
            continue
        name = node["name"]
        shape, dtype = node["outputs"][0]
        if node["kind"] == "op":
            ids = [values[s.node, s.output] for s in node["inputs"]]
            first = graph.add(change(node), ids, name, node["origin"])
            for k in range(len(node["outputs"])):
                values[index, k] = first.result(k)
            continue
        if node["kind"] == "input":
            values[index, 0] = graph.input(name, shape, dtype)
            continue
        parameters[name] = traced.parameters[name]
        if node["kind"] == "buffer":
            values[index, 0] = graph.buffer(name, shape, dtype)
        else:
            values[index, 0] = graph.parameter(name, shape, dtype, node["layout"])
    for name, symbol in traced.graph.outputs():
        graph.set_output(name, values[symbol.node, symbol.output])
    symbols = {name: values[symbol.node, symbol.output] for name, symbol in traced.symbols.items()}
    return replace(traced, graph=graph, parameters=parameters, symbols=symbols)


def _ancestors(nodes: Sequence[Mapping[str, Any]], wanted: Sequence[int]) -> list[bool]:
    """For each node whether one of the wanted nodes needs it; inputs stand in front of their users."""
    needed = [False] * len(nodes)
    for index in wanted:
        needed[index] = True
    for index in range(len(nodes) - 1, -1, -1):
        if needed[index]:
            for symbol in nodes[index]["inputs"]:
                needed[symbol.node] = True
    return needed


def trace(
    fn: Callable[..., Any],
    inputs: Mapping[str, tuple[Sequence[int], str]],
    *,
    root: Any = None,
    parameter_dtype: str | None = None,
) -> Traced:
    """Record a function by calling it with symbols.

    Args:
        fn: Called as `fn(**symbols)`; returns a Symbol (the output "output") or a mapping of names to Symbols.
        inputs: Shape and dtype of each input.
        root: A module; its `named_parameters()` gives the parameters their names.
        parameter_dtype: "float64" runs the parameters in double precision (for gradient checks).

    Raises:
        ShapeError: A layer refuses the shapes it meets.
        GraphError: The function returns something else than symbols of this recording.
    """
    trace_ = _Trace(parameter_dtype)
    _active.stack.append(trace_)
    try:
        if root is not None:
            name_parameters(dict(root.named_parameters()))
        symbols = {}
        for name, (shape, dtype) in inputs.items():
            sizes = []
            for size in shape:
                if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
                    raise ShapeError(f"input '{name}': shape {tuple(shape)} must hold integers that are not negative")
                sizes.append(int(size))
            symbols[name] = Symbol(trace_, trace_.graph.input(name, sizes, np.dtype(dtype).name))
        result = fn(**symbols)
        results = dict(result) if isinstance(result, Mapping) else {"output": result}
        if not results:
            raise GraphError("trace: the function returned no output")
        for name, value in results.items():
            if not isinstance(value, Symbol):
                raise GraphError(f"trace: output '{name}' is {type(value).__name__}, expected a Symbol")
            trace_.graph.set_output(name, to_symbol(value).id)
        return Traced(
            trace_.graph,
            tuple(inputs),
            tuple(results),
            trace_.parameters,
            parameter_dtype,
            not isinstance(result, Mapping),
            {name: symbol.id for name, symbol in symbols.items()},
        )
    finally:
        _active.stack.pop()


def check_dtype(dtype: Any, *, allowed: Sequence[str] = ("float32", "float64", "uint8")) -> str:
    """Return the canonical name of an element type.

    Raises:
        DTypeError: The type is unknown or not allowed here.
    """
    try:
        # NumPy has no bfloat16, and reads None as float64 and a list or tuple as fields of a record.
        other = dtype is None or isinstance(dtype, list | tuple | dict)
        name = "bfloat16" if str(dtype) == "bfloat16" else None if other else np.dtype(dtype).name
    except TypeError:
        name = None
    if name is None:
        raise DTypeError(f"dtype {dtype!r} is unknown; expected one of {', '.join(allowed)}")
    if name not in allowed:
        shown = f"{dtype!r} ({name})" if isinstance(dtype, str) and dtype != name else repr(name)
        raise DTypeError(f"dtype {shown} is not accepted here; expected one of {', '.join(allowed)}")
    return name
