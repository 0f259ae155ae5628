"""Networks as files: save any module, load it back as one that needs no Python code of its own."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pycnn import _core, checkpoint
from pycnn.errors import ArgumentError, FormatError
from pycnn.nn import _names, _range
from pycnn.nn._state import warn_not_finite
from pycnn.nn.auxiliary import Auxiliary, add_auxiliary, collect_auxiliary, is_collecting
from pycnn.nn.module import RESERVED, Module
from pycnn.program import Variables
from pycnn.tensor import Parameter
from pycnn.tracing import Symbol, Traced, inline, trace

__all__ = ["FileModule", "GraphModule", "load", "save"]

# Metadata entry: the nodes that are results of heads for training, and the weights of their losses.
_AUXILIARY = "pycnn.auxiliary"


class FileModule(Module):
    """Base of networks that a file describes: they have parameters, and no layers that are called.

    Attributes:
        metadata: Text entries of the file.
    """

    # Files describe networks of float32 images.
    converts_uint8 = True
    metadata: dict[str, str]

    def _check_saving(self, shape: tuple[int, ...], traced: Traced) -> None:
        """Warn of what a file of this net cannot hold, before one is written.

        Args:
            shape: Of one input.
            traced: The net as it is written, recorded with one image.
        """

    def _hold(self, name: str, parameter: Parameter) -> None:
        """Make a parameter an attribute; dots in its name lead through modules without layers."""
        *path, last = name.split(".")
        holder: Module = self
        for part in path:
            child = vars(holder).get(part)
            if not isinstance(child, Module):
                child = Module()
                setattr(holder, part, child)
            holder = child
        setattr(holder, last, parameter)


class GraphModule(FileModule):
    """A network that is given by its recorded graph; what `load` returns.

    It can be called, trained, frozen, saved and used as a layer like any other module. Its parameters have the names
    under which they were saved.

    Args:
        text: The graph in its text form.
        parameters: A parameter or buffer for every one of the graph, by name.
        auxiliary: Names of nodes that are results of heads for training, and the weights of their losses.

    Raises:
        FormatError: The graph has not exactly one input, or lacks a node of `auxiliary`.
    """

    def __init__(
        self, text: str, parameters: Mapping[str, Parameter], auxiliary: Mapping[str, float] | None = None
    ) -> None:
        self.metadata = {}
        _check_names(parameters)
        for name, parameter in parameters.items():
            self._hold(name, parameter)
        nodes = _core.Graph.parse(text).nodes()
        names = {node["name"] for node in nodes if node["kind"] == "op"}
        for name in auxiliary or {}:
            if name not in names:
                raise FormatError(f"metadata '{_AUXILIARY}': the graph has no node '{name}'")
        inputs = [node for node in nodes if node["kind"] == "input"]
        if len(inputs) != 1:
            raise FormatError(f"the graph has {len(inputs)} inputs, expected one")
        #: The graph's text, the name of its input, and the heads for training; a tuple, so that layers may have any
        #: other name.
        self._recorded = (text, inputs[0]["name"], dict(auxiliary or {}))
        self._remember_input(inputs[0]["outputs"][0][0][1:])

    def forward(self, x: Symbol) -> Any:
        """Record the graph's nodes on another input."""
        text, name, auxiliary = self._recorded
        heads = auxiliary if is_collecting() else {}
        variables = dict(self.named_tensors())
        outputs, results = inline(_core.Graph.parse(text), {name: x}, variables, also=tuple(heads))
        for node, weight in heads.items():
            add_auxiliary(Auxiliary(results[node], weight))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that cannot become attributes of modules.

    Raises:
        FormatError: Names the tensor.
    """
    holders = {name.rpartition(".")[0] for name in names}
    holders |= {holder[:i] for holder in holders for i, c in enumerate(holder) if c == "."}
    for name in names:
        for part in name.split("."):
            why = _names.refusal(part, RESERVED)
            if why is not None:
                raise FormatError(f"tensor '{name}': {part!r} cannot name a layer or parameter: {why}")
        if name in holders:
            raise FormatError(f"tensor '{name}' is also the beginning of another tensor's name")


def check_kept_names(names: Iterable[str], *, who: str) -> None:
    """Refuse layers that are called like what a trainer keeps in files.

    Raises:
        ArgumentError: Names the tensor.
    """
    found = _names.clash(names)
    if found is not None:
        layer = found.partition(".")[0]
        raise ArgumentError(
            f"{who}: tensor '{found}': files keep a trainer's own arrays under '{layer}.'; call the layer "
            f"'{layer}' something else"
        )


def _text_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    result = dict(metadata or {})
    for name, value in result.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ArgumentError(f"save: metadata must map texts to texts, got {name!r}: {value!r}")
    return result


def save(
    net: Module,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    extra: Variables | None = None,
) -> None:
    """Write a network, its graph and its weights as one safetensors file, atomically.

    The file loads in Python (`load`), in C++ (`pycnn::load_model`) and, as plain tensors with names and layouts as
    PyTorch's, anywhere else.

    Args:
        net: It must know its input's shape: call it, or `net.build((H, W, C))`, once before.
        path: Where to; usually "NAME.safetensors".
        metadata: Further text entries. Those that a loaded net came with go along.
        extra: Further arrays; their names start with "optim.", "train." or "ema.".

    Raises:
        ArgumentError: The shape of the input is not known, or a layer has a name that files use otherwise
            ("optim", "ema", "train", "constant").
        FileError: The system refused; an older file at the path is intact.
    """
    if not isinstance(net, Module):
        raise ArgumentError(f"save: {type(net).__name__} is no pycnn.nn.Module; the order is save(net, path)")
    shape = net._input_shape(None, "save")
    with collect_auxiliary() as heads:
        traced = trace(lambda x: net(x), {"x": ((1, *shape), "float32")}, root=net)
    check_kept_names(traced.parameters, who="save")
    if isinstance(net, FileModule):
        net._check_saving(shape, traced)
    own = net.metadata if isinstance(net, FileModule) else {}
    entries = {name: text for name, text in own.items() if name != "trainer"}
    entries |= {**_range.as_text(net), **_text_metadata(metadata)}
    if heads:
        # No outputs of the graph: programs for inference leave them out.
        nodes = traced.graph.nodes()
        marks = [{"node": nodes[h.output.id.node]["name"], "weight": h.weight} for h in heads]
        entries[_AUXILIARY] = json.dumps(marks)
    variables = Variables()
    if extra is not None:
        for name in extra:
            if not name.startswith(("optim.", "train.", "ema.")):
                raise ArgumentError(f"save: extra array '{name}' must start with 'optim.', 'train.' or 'ema.'")
            variables.share(name, extra[name])
    variables.update(traced.parameters)
    checkpoint.save_model(path, traced.graph, variables, entries)


def load(path: str | os.PathLike[str], *, num_classes: int | None = None) -> GraphModule:
    """Read a network that `save` or C++ wrote.

    Weights without a network, as others save them, are for `pycnn.load_weights`.

    Args:
        path: The file.
        num_classes: Scores that the net shall give. If the file's net gives another number, the layer that gives
            them starts anew, and a warning says so.

    Returns:
        A module with the saved weights; `metadata` holds the file's text entries.

    Raises:
        FileError: The file cannot be read.
        FormatError: The file is malformed or of a newer format.
        GraphError: `num_classes` is given, and no dense layer or convolution gives the scores.
        UnsupportedError: The graph has the number of classes built in elsewhere too.
    """
    graph, tensors, metadata = checkpoint.load_model(path)
    parameters = {}
    for node in graph.nodes():
        if node["kind"] not in ("parameter", "buffer"):
            continue
        name = node["name"]
        shape, dtype = node["outputs"][0]
        parameter = Parameter(
            shape, init=tensors[name].numpy(), layout=node["layout"], trainable=node["kind"] == "parameter", dtype=dtype
        )
        parameter.name = name
        parameters[name] = parameter
    warn_not_finite({name: tensors[name].numpy() for name in parameters}, f"load '{os.fspath(path)}'")
    net = GraphModule(graph.text(), parameters, _read_auxiliary(metadata, os.fspath(path)))
    net.metadata = {name: value for name, value in metadata.items() if not name.startswith("pycnn.")}
    object.__setattr__(net, "input_range", _range.from_text(net.metadata.pop(_range.METADATA_NAME, None)))
    if num_classes is not None:
        from pycnn.nn.heads import replace_head
        from pycnn.nn.weights import warn_fresh

        fresh = replace_head(net, num_classes)
        if fresh:
            net.metadata.pop("class_names", None)
            warn_fresh(fresh, num_classes, f"load '{os.fspath(path)}'")
    return net


def _read_auxiliary(metadata: Mapping[str, str], path: str) -> dict[str, float]:
    """Heads for training, by the name of the node that is their result.

    Raises:
        FormatError: The entry is not what `save` writes.
    """
    text = metadata.get(_AUXILIARY)
    if text is None:
        return {}
    try:
        heads = {str(mark["node"]): float(mark["weight"]) for mark in json.loads(text)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"load '{path}': metadata '{_AUXILIARY}' is damaged ({error})") from None
    for name, weight in heads.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise FormatError(f"load '{path}': metadata '{_AUXILIARY}': the weight of '{name}' is {weight}")
    return heads
