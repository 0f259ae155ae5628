"""A net that is given by an ONNX file."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError, DTypeError, Error, GraphError, ShapeError, UnsupportedError
from pycnn.nn import _names, _range
from pycnn.nn.files import FileModule
from pycnn.nn.module import RESERVED, _first_symbol
from pycnn.onnx._file import read
from pycnn.onnx._fold import add_computed, fold, fold_network, leave_out_softmax, widened
from pycnn.onnx._images import check_images
from pycnn.onnx._network import Network, Node
from pycnn.onnx._registry import BUFFER, CONVOLUTION, DENSE, KEEPS_WHOLE, PLAIN, Values, find
from pycnn.onnx._results import as_declared, result_view
from pycnn.onnx._tensors import MOST_AXES, MOST_ELEMENTS
from pycnn.onnx._view import IMAGE, View
from pycnn.program import compile_traced
from pycnn.tensor import Parameter, stack_level
from pycnn.tracing import Symbol, Traced, is_tracing, scope, trace

__all__ = ["OnnxModule", "load"]

_LAYOUTS = ("NCHW", "NHWC")
# Axes in which a parameter of each role and number of axes lies in memory; others lie as in the file.
_ORDERS = {(CONVOLUTION, 4): IMAGE, (DENSE, 2): (1, 0)}


def load(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    *,
    input_layout: str = "NCHW",
    scores: bool = False,
) -> OnnxModule:
    """Read a network from an ONNX file.

    What is supported is listed in docs/onnx.md: the operators of convolutional classifiers, of opsets 6 to 22. What a
    file computes from constants and shapes alone is computed while loading. Images lie channels last inside, so the
    network is transposed once at its input, and not at all with ``input_layout="NHWC"``.

    Args:
        source: Path of the file, or its bytes. Tensors in other files are found by path only, below its folder.
        input_layout: How inputs of four axes are given: "NCHW" as the file declares them, or "NHWC".
        scores: Give class scores (N, classes), as training with cross-entropy wants them: a softmax at the end is left
            out, as are axes of size 1 behind the classes. Otherwise the result is what the file declares.

    Returns:
        A net that takes and gives what the file declares, any number of images. Weights are parameters under the names
        that they have in the file, so it can be trained, frozen, saved and looked at like any other. Filters and
        matrices have the shapes of `nn.Conv2d` and `nn.Linear`.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is no ONNX model, or is malformed.
        UnsupportedError: It uses an operator, a version or an attribute that is not supported; the message names the
            node. Or the package onnx is not installed.
        ShapeError: The shapes of a node do not go together; the message names it.
        ArgumentError: An attribute is out of its range, or `input_layout` is unknown.

    Example:
        >>> import pycnn
        >>> net = pycnn.onnx.load("squeezenet.onnx", input_layout="NHWC")  # doctest: +SKIP
        >>> net(photographs).shape  # doctest: +SKIP
        (8, 1000)
    """
    if input_layout not in _LAYOUTS:
        raise ArgumentError(f"onnx.load: input_layout {input_layout!r} is not one of {', '.join(_LAYOUTS)}")
    network = read(source)
    if scores:
        leave_out_softmax(network)
    sources = fold_network(network)
    return OnnxModule(network, sources, input_layout=input_layout, scores=scores)


class OnnxModule(FileModule):
    """A network that is given by an ONNX graph; what `pycnn.onnx.load` returns.

    Args:
        network: The checked graph, after `fold_network`.
        sources: For constants that were computed, what they come from; gives their names.
        input_layout: "NCHW" or "NHWC".
        scores: Whether results lose axes of size 1 behind the second.

    Raises:
        UnsupportedError: A node is not supported.
    """

    # Who read the network, and what it came from, in messages.
    _reader, _origin = "onnx", "the file"

    def __init__(
        self, network: Network, sources: Mapping[str, str], *, input_layout: str, scores: bool = False
    ) -> None:
        self.metadata = dict(network.metadata)
        object.__setattr__(self, "input_range", _range.from_text(self.metadata.pop(_range.METADATA_NAME, None)))
        for node in network.nodes:
            find(node)
        for given in network.inputs:
            if given.dtype not in ("float32", "float64", "float16", "uint8"):
                raise UnsupportedError(
                    f"{network.where}: input '{given.name}' has element type {given.dtype}, supported are float32, "
                    "float64, float16 and uint8"
                )
        self.converts_uint8 = all(given.dtype != "uint8" for given in network.inputs)
        self.converts_float16 = any(given.dtype == "float16" for given in network.inputs)
        #: The graph, its learned arrays with axes and shape in the file, the layout, `scores`; a tuple, so that
        #: layers may have any other name.
        self._recorded = (network, _parameters(network), input_layout, scores)
        taken: set[str] = set()
        for name, (parameter, _, _) in self._recorded[1].items():
            parameter.name = self._place(parameter, sources.get(name, name), name, taken)
            network.constants.pop(name)
        self._try_declared_shape()

    @property
    def input_layout(self) -> str:
        """How inputs of four axes are given: "NCHW" or "NHWC"."""
        return self._recorded[2]

    # ---- Names

    def _place(self, parameter: Parameter, wanted: str, name: str, taken: set[str]) -> str:
        """Make a parameter an attribute under its name in the file, or the closest that is possible."""
        for candidate in _candidates(wanted, name):
            parts = candidate.split(".")
            above = {".".join(parts[:i]) for i in range(1, len(parts))}
            if any(_names.refusal(part, RESERVED) for part in parts):
                continue
            # Neither a parameter above another one, nor one with others below it.
            if candidate in taken or above & taken or any(name.startswith(f"{candidate}.") for name in taken):
                continue
            self._hold(candidate, parameter)
            taken.add(candidate)
            return candidate
        raise AssertionError("unreachable: there is always a number that is not taken")

    # ---- Running

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Record this net (symbols) or run it for inference (arrays).

        Args:
            inputs: As the file declares them; those of float16 may be float32 too. None if all is constant.
            named: Not accepted.

        Returns:
            Symbols, or arrays of the element types that the file declares; of several results, a dict by name.

        Raises:
            ShapeError: A shape is not the declared one.
            DTypeError: The element type is not accepted.
        """
        network = self._recorded[0]
        if is_tracing() or any(isinstance(value, Symbol) for value in inputs) or not network.output_types:
            return super().__call__(*inputs, **named)
        if inputs or named or network.inputs:
            found = super().__call__(*inputs, **named)
        else:
            results = compile_traced(trace(self.forward, {}, root=self)).run()
            found = results if len(network.outputs) > 1 else next(iter(results.values()))
        if isinstance(found, dict):
            return {
                name: as_declared(found[name], dtype)
                for name, dtype in zip(network.outputs, network.output_types, strict=True)
            }
        return as_declared(found, network.output_types[0])

    # ---- Recording

    def _try_declared_shape(self) -> None:
        """Record the net once, as the file declares its inputs, so that what cannot be computed is told at once."""
        network, _, layout, _ = self._recorded
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        for given in network.inputs:
            shape = (1, *given.shape[1:]) if given.shape[:1] == (None,) else given.shape
            if None in shape or 0 in shape:
                return
            dtype = "uint8" if given.dtype == "uint8" else "float32"
            shapes[given.name] = (_laid_out(shape, layout), dtype)
        numbered = {f"input{i}": spec for i, spec in enumerate(shapes.values())}
        trace(lambda **symbols: _first_symbol(self(*symbols.values())), numbered, root=self)
        if len(shapes) == 1:
            ((laid_out, _),) = shapes.values()
            self._remember_input(laid_out[1:])

    def forward(self, *inputs: Symbol) -> Any:
        """Record the nodes of the file.

        Args:
            inputs: In the file's order and shapes; with ``input_layout="NHWC"``, those of four axes channels last.

        Returns:
            The symbol of the result; of several, a dict of them by name.
        """
        network, _, _, scores = self._recorded
        values = self._record_nodes(inputs)
        batch = values.batch
        if batch is not None and batch[0] != batch[1] and batch[1] not in network.apart:
            check_images(network, values, self._declared_sizes(inputs, batch[0]), batch)
            network.apart.add(batch[1])
        types = network.output_types or ("",) * len(network.outputs)
        found = {name: result_view(values, name, dtype) for name, dtype in zip(network.outputs, types, strict=True)}
        if scores:
            found = {name: _without_ones(view) for name, view in found.items()}
        results = {name: view.as_plain() for name, view in found.items()}
        if len(results) == 1:
            (result,) = results.values()
            return result
        return results

    def _record_nodes(self, inputs: Sequence[Symbol]) -> Values:
        """Record the nodes; gives all values."""
        network, parameters, layout, _ = self._recorded
        if len(inputs) != len(network.inputs):
            names = ", ".join(given.name for given in network.inputs)
            raise ArgumentError(
                f"{self._reader}: {len(inputs)} inputs given, {self._origin} has {len(network.inputs)} ({names})"
            )
        batch = None
        views = {}
        for given, symbol in zip(network.inputs, inputs, strict=True):
            views[given.name] = view = self._input(given, symbol, layout)
            if batch is None and given.shape and given.shape[0] is not None:
                batch = (given.shape[0], view.shape[0])
        uses = Counter(name for node in network.nodes for name in node.inputs) + Counter(network.outputs)
        values = Values(
            network.constants, self._current(parameters), batch, uses, half=network.half, wide=network.takes_float64,
            outputs=network.outputs,
        )  # fmt: skip
        for name, view in views.items():
            values.set(name, view)
        for node in network.nodes:
            _record(node, values)
        return values

    def _declared_sizes(self, inputs: Sequence[Symbol], count: int) -> dict[str, tuple[int, ...]]:
        """Sizes of all values for another number of images."""
        network = self._recorded[0]
        found: dict[str, tuple[int, ...]] = {}

        def record(**symbols: Symbol) -> Symbol:
            values = self._record_nodes(list(symbols.values()))
            names = {name for node in network.nodes for name in (*node.inputs, *node.outputs)}
            found.update({name: shape for name in names if (shape := values.shape(name)) is not None})
            return next(iter(symbols.values()))

        specs = {f"input{i}": ((count, *x.shape[1:]), str(x.dtype)) for i, x in enumerate(inputs)}
        trace(record, specs, root=self)
        return found

    def _check_saving(self, shape: tuple[int, ...], traced: Traced) -> None:
        """Warn where the net has the number of images built in: a file has the graph of one image."""
        known = _attributes(traced)
        for count in (2, 3):
            other = _attributes(trace(lambda x: self(x), {"x": ((count, *shape), "float32")}, root=self))
            pairs = zip(known, other, strict=False)
            differing = next((name for (name, *what), (_, *then) in pairs if what != then), "")
            if differing or len(known) != len(other):
                warnings.warn(
                    f"save: '{differing}' has the number of images built in; the net in the file takes one image at a "
                    f"time\n  hint: keep {self._origin} that it came from",
                    stacklevel=stack_level(),
                )
                return

    def _current(self, recorded: Mapping[str, tuple[Parameter, Any, Any]]) -> dict[str, tuple[Parameter, Any, Any]]:
        """The learned arrays with those that took the place of recorded ones, such as a head's fresh weights."""
        held = dict(self.named_tensors())
        result = {}
        for name, (parameter, axes, shape) in recorded.items():
            found = held.get(parameter.name, parameter)
            if found is not parameter:
                shape = tuple(found.shape[axes.index(axis)] for axis in range(len(axes)))
            result[name] = found, axes, shape
        return result

    def _input(self, given: Any, symbol: Symbol, layout: str) -> View:
        if not isinstance(symbol, Symbol):
            raise GraphError(f"{self._reader}: input '{given.name}' is {type(symbol).__name__}, expected a Symbol")
        declared = _laid_out(given.shape, layout)
        shape = tuple(symbol.shape)
        # The number of images is free, whatever the file says.
        fits = len(shape) == len(declared) and all(
            size is None or size == have for size, have in list(zip(declared, shape, strict=True))[1:]
        )
        if not fits:
            shown = ", ".join("?" if size is None else str(size) for size in declared)
            raise ShapeError(
                f"{self._reader}: input '{given.name}' is {shape}, {self._origin} declares ({shown}) in {layout}"
            )
        if str(symbol.dtype) == given.dtype == "float16":
            symbol = functional.cast(symbol, dtype="float32")
        # Programs of float16 files may be given the wider numbers that they compute with.
        wider = ("float32", "float64") if given.dtype != "uint8" else ()
        if str(symbol.dtype) not in (given.dtype, *wider):
            raise DTypeError(
                f"{self._reader}: input '{given.name}' is {symbol.dtype}, {self._origin} declares {given.dtype}"
            )
        if layout == "NHWC" and len(shape) == 4:
            n, h, w, c = shape
            return View(symbol, IMAGE, (n, c, h, w))
        return View.plain(symbol)

    def extra_repr(self) -> str:
        """The file's inputs and outputs."""
        network, _, layout, _ = self._recorded
        inputs = ", ".join(
            f"{given.name} ({', '.join('?' if n is None else str(n) for n in given.shape)})" for given in network.inputs
        )
        return f"{inputs} -> {', '.join(network.outputs)}; opset {network.opset}, {len(network.nodes)} nodes, {layout}"


def _attributes(traced: Traced) -> list[tuple[str, str, dict[str, Any]]]:
    nodes = traced.graph.nodes()
    return [(n["name"], n["op"].name, n["op"].attributes()) for n in nodes if n["kind"] == "op"]


def _without_ones(view: View) -> View:
    """(N, classes) of (N, classes, 1, 1)."""
    return view.reshaped(view.shape[:2]) if view.rank > 2 and set(view.shape[2:]) == {1} else view


def _record(node: Node, values: Values) -> None:
    """Record one node, or compute it where all that it reads is known."""
    given = [values.get(node, i) if name else None for i, name in enumerate(node.inputs)]
    try:
        results = None
        if all(value is None or isinstance(value, np.ndarray) for value in given):
            results = fold(node, given)
            if results is not None:
                values.computed = add_computed(node, results, values.computed)
        if results is None:
            with scope(_scope_name(node.name)):
                results = find(node).convert(values, node)
    except Error as error:
        if str(error).startswith(node.reader):
            raise
        raise type(error)(f"{node.reader}: {node}: {error}") from error
    except (ValueError, TypeError, OverflowError) as error:
        # NumPy's and Python's own, of constants that are no single number, no whole number or too large.
        raise node.bad_argument(str(error)) from None
    listed = results if isinstance(results, list) else [results]
    first = given[0] if given else None
    held = first.held if isinstance(first, View) else ""
    if isinstance(first, np.ndarray) and first.dtype.kind in "iu":
        held = first.dtype.name
    if held and node.op in KEEPS_WHOLE:
        for value in listed:
            if isinstance(value, View):
                value.held = held
    for name, value in zip(node.outputs, listed, strict=False):
        if not name:
            continue
        if isinstance(value, np.ndarray):
            value = widened(value)
        if isinstance(value, View) and value.rank > MOST_AXES:
            raise node.bad_shape(f"a result of shape {value.shape[:16]} has more than {MOST_AXES} axes")
        if isinstance(value, View) and math.prod(value.shape) > MOST_ELEMENTS:
            raise node.bad_shape(f"a result of shape {value.shape} has more than {MOST_ELEMENTS} elements")
        values.set(name, value)


def _scope_name(name: str) -> str:
    """A node's name as graphs can write it."""
    return "".join(c if c.isprintable() else "_" for c in name)


def _laid_out(shape: Sequence[Any], layout: str) -> tuple[Any, ...]:
    if layout == "NHWC" and len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    return tuple(shape)


def _candidates(wanted: str, name: str) -> Iterator[str]:
    """Names for a parameter, the best first."""
    for text in (wanted, name):
        clean = ".".join(part for part in _scope_name(text).split(".") if part) or "value"
        if _names.clash([clean]):
            clean = clean.replace(".", "_")
        yield clean
        yield ".".join(f"{part}_" if _names.refusal(part, RESERVED) else part for part in clean.split("."))
        yield clean.replace(".", "_")
    number = 2
    while True:
        yield f"{clean.replace('.', '_')}_{number}"
        number += 1


def _parameters(network: Network) -> dict[str, tuple[Parameter, Any, Any]]:
    """What a network learns: the floating-point constants that nodes use as weights.

    Returns:
        For each constant a parameter, the order in which its axes lie in memory, and its shape in the file.
    """
    roles: dict[str, str] = {}
    for node in network.nodes:
        for index, role in find(node).roles(node).items():
            if index >= len(node.inputs) or node.inputs[index] not in network.constants:
                continue
            name = node.inputs[index]
            learned = role == BUFFER or _is_learned(node, index, name, network)
            if network.constants[name].dtype not in (np.float32, np.float64) or not learned:
                continue
            # What two nodes use is laid out for the first, and transposed for the second.
            roles.setdefault(name, role)
    for name in network.learned or ():
        if name in network.constants:
            roles.setdefault(name, PLAIN)
    result = {}
    for name, role in roles.items():
        array = network.constants[name]
        axes = _ORDERS.get((role, array.ndim), tuple(range(array.ndim)))
        result[name] = (
            Parameter(
                [array.shape[axis] for axis in axes],
                init=array.astype(np.float32, copy=False).transpose(axes),
                layout="conv" if role == CONVOLUTION and len(axes) == 4 else "plain",
                trainable=role != BUFFER,
            ),
            axes,
            array.shape,
        )
    return result


_WEIGHED = ("Add", "Sub", "Mul", "Div", "Sum")


def _is_learned(node: Node, index: int, name: str, network: Network) -> bool:
    """Whether a constant is a weight and not one of a formula's numbers."""
    if network.learned is not None:
        return name in network.learned
    if node.op not in _WEIGHED:
        return True
    return network.constants[name].size > 1 and name not in network.literals
