"""Recording a net so that every value inside has a name, and programs that give such values or their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError, LabelError, ShapeError
from pycnn.nn._running import as_input, check_images, ends_in_softmax
from pycnn.nn.module import Call, Module, _first_symbol, watch_calls
from pycnn.program import Program, check_device, compile_traced
from pycnn.tracing import Symbol, Traced, trace

__all__ = [
    "Layers",
    "as_floats",
    "as_images",
    "check_double",
    "class_scores",
    "gradients",
    "layer_program",
    "spatial_layers",
]

Specs = Mapping[str, tuple[Sequence[int], str]]


class Layers:
    """The values inside a net by the names of its summary: results of modules, and of ops that ``forward`` calls.

    Args:
        calls: Module calls of the recording.
        x: The symbol that the net was called with.
    """

    def __init__(self, calls: Sequence[Call], x: Symbol) -> None:
        self._trace = x._trace
        self._found: dict[str, list[Symbol]] = {}
        self._nodes = x._trace.graph.nodes()
        for index, node in enumerate(self._nodes):
            if node["kind"] == "op" and index > x.id.node:
                self._found[node["name"]] = [Symbol(self._trace, self._trace.graph.find(node["name"]))]
        results: dict[str, list[Symbol]] = {}
        for call in calls:
            if call.path and call.outputs:
                results.setdefault(call.path, []).extend(call.outputs[:1])
        self._found.update(results)

    def names(self) -> list[str]:
        """All names."""
        return list(self._found)

    def is_single(self, name: str) -> bool:
        """Whether a layer is called once."""
        return len(self._found[name]) == 1

    def maps(self) -> list[str]:
        """Names of the feature maps with more than one position, in the order in which they are computed."""
        found = [
            (self[name].id.node, name) for name in self._found if self.is_single(name) and self._is_map(self[name])
        ]
        return [name for _, name in sorted(found)]

    def _is_map(self, symbol: Symbol) -> bool:
        node = self._nodes[symbol.id.node]
        # A map whose axes are exchanged, to be flattened in another order, is a map no more.
        moved = node["kind"] == "op" and node["op"].name == "transpose"
        return symbol.ndim == 4 and symbol.shape[1] * symbol.shape[2] > 1 and not moved

    def __getitem__(self, name: str) -> Symbol:
        """The value of a name.

        Raises:
            ArgumentError: There is none, or the layer is called more than once.
        """
        found = self._found.get(name)
        if found is None:
            close = get_close_matches(str(name), self._found, n=3, cutoff=0.4) or list(self._found)[:5]
            raise ArgumentError(f"no layer is called {name!r}\n  hint: there is {', '.join(map(repr, close))}")
        if len(found) > 1:
            raise ArgumentError(f"layer '{name}' is called {len(found)} times in one pass; its result is not one value")
        return found[0]


@dataclass(frozen=True)
class Recorded:
    """What a recording function sees.

    Attributes:
        x: The input.
        result: The net's first result.
        layers: Everything inside.
        extra: Further inputs.
    """

    x: Symbol
    result: Symbol
    layers: Layers
    extra: dict[str, Symbol]


def record(
    net: Module, specs: Specs, outputs: Callable[[Recorded], dict[str, Symbol]], *, double: bool = False
) -> Traced:
    """Record a net and choose outputs; the first input is the image batch."""

    def function(**symbols: Symbol) -> dict[str, Symbol]:
        first, *rest = symbols
        with watch_calls() as calls:
            result = _first_symbol(net(symbols[first]))
        layers = Layers(calls, symbols[first])
        return outputs(Recorded(symbols[first], result, layers, {name: symbols[name] for name in rest}))

    return trace(function, specs, root=net, parameter_dtype="float64" if double else None)


def layer_program(net: Module, shape: Sequence[int], dtype: str, layers: Sequence[str], device: str = "cpu") -> Program:
    """A program from images to the values of layers, as outputs "layer_0", "layer_1", ... in one pass.

    Raises:
        ArgumentError: There is no such layer.
    """

    def outputs(recorded: Recorded) -> dict[str, Symbol]:
        return {f"layer_{i}": recorded.layers[name] for i, name in enumerate(layers)}

    return compile_traced(record(net, {"x": (shape, dtype)}, outputs), device=device)


def gradients(
    net: Module,
    specs: Specs,
    objective: Callable[[Recorded], Symbol],
    wrt: Sequence[str | None],
    *,
    double: bool = False,
    relu_rule: str = "exact",
    device: str = "cpu",
) -> Program:
    """A program that gives a scalar's gradients in inference mode (running statistics, no dropout).

    Args:
        net: The net.
        specs: Shape and type of the inputs, images first.
        objective: From the recording to a symbol of shape ().
        wrt: Names of layers, or None for the images.
        double: Run in float64.
        relu_rule: Of `pycnn.value_and_grad`: "exact" or "guided".
        device: Where it runs.

    Returns:
        A program with the outputs "value", "gradient_0", ... and, for layers, their values "layer_0", ...
    """

    def outputs(recorded: Recorded) -> dict[str, Symbol]:
        chosen = {f"layer_{i}": recorded.layers[name] for i, name in enumerate(wrt) if name is not None}
        return {"value": objective(recorded), **chosen}

    traced = record(net, specs, outputs, double=double)
    graph = traced.graph.specialize("inference")
    graph.clear_assignments()
    known = dict(graph.outputs())
    images = graph.find(next(iter(specs)))
    symbols = [images if name is None else known[f"layer_{i}"] for i, name in enumerate(wrt)]
    for index, result in enumerate(graph.differentiate(known["value"], symbols, relu_rule)):
        graph.set_output(f"gradient_{index}", result)
    extended = Traced(graph, traced.inputs, (), traced.parameters, traced.parameter_dtype, False)
    return compile_traced(extended, device=device)


def run(program: Program, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a program on inputs by name; those that nothing depends on were dropped from it."""
    return program.run(*(arrays[name] for name, _, _ in program.inputs))


def as_images(net: Module, x: Any, who: str) -> np.ndarray:
    """Images as the net takes them, float32 or uint8 (N, H, W, C).

    Raises:
        ShapeError: It is no batch of images; the message tells the call that repairs it.
        DTypeError: Another element type.
    """
    array = as_input(x, who=who)
    check_images(net, array.shape)
    if array.ndim != 4 or array.shape[0] == 0:
        raise ShapeError(f"{who}: images are {array.shape}, expected (N, H, W, C) with at least one")
    return array


def as_floats(net: Module, x: Any, who: str, *, double: bool = False) -> np.ndarray:
    """Images as floats, which have gradients: uint8 becomes 0..1, as it does inside of the net."""
    if double:
        array = np.asarray(x)
        check_images(net, array.shape)
        return array.astype(np.float64) / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
    array = as_images(net, x, who)
    return array.astype(np.float32) / np.float32(255.0) if array.dtype == np.uint8 else array


def check_double(double: bool, device: Any, who: str) -> str:
    """The device, where it computes in the type that is wanted.

    Raises:
        ArgumentError: It is no text; or float64 is wanted of another device than the CPU.
    """
    where = check_device(device, who=who)
    if double and where != "cpu":
        raise ArgumentError(
            f"{who}: double=True runs on the CPU alone, the device is {where!r}\n  hint: leave out one of the two"
        )
    return where


def class_scores(result: Symbol, who: str) -> Symbol:
    """Scores of the classes before a closing softmax, (N, classes).

    Raises:
        ShapeError: The net gives something else.
    """
    if len(result.shape) != 2:
        raise ShapeError(f"{who}: the net gives {result.shape}, class scores are (N, classes)")
    if not ends_in_softmax(result):
        return result
    source = result._trace.graph.nodes()[result.id.node]["inputs"][0]
    return Symbol(result._trace, source)


def score_of(weights: str, who: str) -> Callable[[Recorded], Symbol]:
    """The objective "sum of the chosen scores": the scores times the extra input `weights`, summed."""

    def objective(recorded: Recorded) -> Symbol:
        return functional.sum(class_scores(recorded.result, who) * recorded.extra[weights])

    return objective


def one_hot_classes(net: Module, x: np.ndarray, classes: Any, who: str, device: str = "cpu") -> np.ndarray:
    """Which score is meant for each image, as ones in (N, classes); by default that of the predicted class.

    Raises:
        LabelError: A class is negative or not below the number of classes.
        ShapeError: There is not one class for all images, or one for each.
    """
    count = scores_shape(net, x.shape[1:], who)[1]
    if classes is None:
        chosen = net.predict(x.astype(np.float32) if x.dtype == np.float64 else x, device=device)
    else:
        given = np.asarray(classes)
        if given.dtype.kind not in "iu" or given.ndim > 1 or given.size not in (1, len(x)):
            raise ShapeError(f"{who}: classes are {classes!r}, expected one class, or one for each of {len(x)} images")
        chosen = np.broadcast_to(given.reshape(-1), (len(x),))
    for value in chosen:
        if not 0 <= value < count:
            raise LabelError(f"{who}: class {value}, the net has the classes 0 to {count - 1}")
    weights = np.zeros((len(x), count), x.dtype)
    weights[np.arange(len(x)), chosen] = 1
    return weights


def scores_shape(net: Module, image_shape: Sequence[int], who: str) -> tuple[int, ...]:
    """Shape (1, classes) of what the net gives for one image.

    Raises:
        ShapeError: It gives something else.
    """
    specs: Specs = {"x": ((1, *image_shape), "float32")}
    traced = record(net, specs, lambda r: {"scores": class_scores(r.result, who)})
    return tuple(traced.graph.spec(dict(traced.graph.outputs())["scores"])[0])


def spatial_layers(net: Module, image_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Layers whose result is a feature map with more than one position, in order, with its shape (H, W, C)."""
    found: dict[str, tuple[int, ...]] = {}

    def outputs(recorded: Recorded) -> dict[str, Symbol]:
        found.update((name, recorded.layers[name].shape[1:]) for name in recorded.layers.maps())
        return {"result": recorded.result}

    record(net, {"x": ((1, *image_shape), "float32")}, outputs)
    return found
