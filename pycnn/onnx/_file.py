"""From the bytes of an ONNX file to a checked `Network`; the package onnx decodes the protocol buffers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_path
from pycnn.errors import FormatError, UnsupportedError
from pycnn.onnx._network import Input, Network, Node
from pycnn.onnx._results import OUTPUT_TYPES
from pycnn.onnx._tensors import TensorReader, dtype_name
from pycnn.optional import optional

__all__ = ["LATEST_OPSET", "OLDEST_OPSET", "read"]

#: Opsets whose operators are known in full; of later ones, the operators that have not changed since.
OLDEST_OPSET, LATEST_OPSET = 6, 22
_MOST_NODES = 1_000_000
# Protocol buffers hold no more.
_MOST_BYTES = 2**31
_DEFAULT_DOMAINS = ("", "ai.onnx")
# AttributeProto.AttributeType: the field, and how it becomes Python.
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}


def read(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Network:
    """Read and check a model.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is no ONNX model, or is malformed.
        UnsupportedError: It uses what is not known here, or onnx is not installed.
    """
    proto = optional("onnx", extra="onnx", who="onnx.load")
    if isinstance(source, bytes | bytearray | memoryview):
        data, where, folder = bytes(source), "onnx", None
    else:
        path = as_path(source, who="onnx.load")
        data, where, folder = _read_file(path), f"onnx '{path}'", str(path.parent)
    model = proto.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # the decoder's own class, of whichever protobuf is installed
        raise FormatError(f"{where}: is no ONNX model ({error})") from None
    return _Checker(proto, model, where, TensorReader(folder)).network()


def _read_file(path: Path) -> bytes:
    from pycnn.data._files import open_regular

    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise FormatError(f"onnx '{path}': {size} bytes, a protocol buffer has at most {_MOST_BYTES}")
        return file.read()


class _Checker:
    """One pass over a model that accepts all of it or raises."""

    def __init__(self, proto: Any, model: Any, where: str, tensors: TensorReader) -> None:
        self.proto, self.model, self.where, self.tensors = proto, model, where, tensors

    def network(self) -> Network:
        model, where = self.model, self.where
        if not model.HasField("graph"):
            raise FormatError(f"{where}: has no graph")
        if model.ir_version < 1:
            raise FormatError(f"{where}: does not say its version of the ONNX format")
        if model.ir_version > self.proto.IR_VERSION:
            raise UnsupportedError(
                f"{where}: version {model.ir_version} of the ONNX format; the installed package onnx "
                f"{self.proto.__version__} knows versions up to {self.proto.IR_VERSION}"
            )
        opset = self._opset()
        if len(model.functions):
            raise UnsupportedError(f"{where}: has functions of its own ('{model.functions[0].name}')")
        graph = model.graph
        self._check_texts()
        if len(graph.node) > _MOST_NODES:
            raise FormatError(f"{where}: {len(graph.node)} nodes, at most {_MOST_NODES}")
        if len(graph.sparse_initializer):
            raise UnsupportedError(f"{where}: has sparse tensors")
        constants: dict[str, np.ndarray] = {}
        for tensor in graph.initializer:
            self._define(tensor.name, constants, "initializer")
            constants[tensor.name] = self.tensors.read(tensor, f"{where}: initializer '{tensor.name}'")
        inputs = []
        known = set(constants)
        for value in graph.input:
            if value.name not in constants:
                self._define(value.name, known, "input")
                known.add(value.name)
                inputs.append(self._input(value))
        network = Network(where, opset, [], constants, tuple(inputs), (), model.producer_name)
        later = {name for node in graph.node for name in node.output}
        for index, node in enumerate(graph.node):
            network.nodes.append(self._node(node, index, opset, known, later))
        outputs = [value.name for value in graph.output]
        if not outputs:
            raise FormatError(f"{where}: the graph has no output")
        for name in outputs:
            if name not in known:
                raise FormatError(f"{where}: output '{name}' is made by no node")
        if len(set(outputs)) != len(outputs):
            raise FormatError(f"{where}: an output is named twice")
        network.outputs = tuple(outputs)
        network.output_types = tuple(self._output_type(value) for value in graph.output)
        self._check_wide(network)
        network.half = self._half(network)
        network.metadata = {entry.key: entry.value for entry in model.metadata_props}
        return network

    def _opset(self) -> int:
        opsets: dict[str, int] = {}
        for entry in self.model.opset_import:
            domain = "" if entry.domain in _DEFAULT_DOMAINS else entry.domain
            if domain in opsets:
                raise FormatError(f"{self.where}: names the opset of domain '{entry.domain}' twice")
            opsets[domain] = entry.version
        if "" not in opsets:
            raise FormatError(f"{self.where}: does not name the opset of ONNX's own operators")
        newest = self.proto.defs.onnx_opset_version()
        if not OLDEST_OPSET <= opsets[""] <= newest:
            raise UnsupportedError(
                f"{self.where}: opset {opsets['']}; supported are {OLDEST_OPSET} to {LATEST_OPSET}, and what has not "
                f"changed since up to opset {newest}, which the installed package onnx knows"
            )
        return opsets[""]

    def _check_texts(self) -> None:
        """Refuse names that are no text; the decoder gives their bytes."""
        graph = self.model.graph
        for kind in ("initializer", "input", "output"):
            self._check_text(kind, [value.name for value in getattr(graph, kind)])
        for node in graph.node:
            names = [attribute.name for attribute in node.attribute]
            self._check_text("node", [node.name, node.op_type, node.domain, *node.input, *node.output, *names])
        self._check_text("opset", [entry.domain for entry in self.model.opset_import])
        entries = [text for entry in self.model.metadata_props for text in (entry.key, entry.value)]
        self._check_text("metadata entry", [self.model.producer_name, *entries])

    def _check_text(self, what: str, texts: Iterable[Any]) -> None:
        for text in texts:
            if not isinstance(text, str):
                raise FormatError(f"{self.where}: the text {bytes(text)[:40]!r} of an {what} is not UTF-8")

    def _define(self, name: str, known: Iterable[str], what: str) -> None:
        if not name:
            raise FormatError(f"{self.where}: an {what} has no name")
        if name in known:
            raise FormatError(f"{self.where}: {what} '{name}' is defined twice")

    def _input(self, value: Any) -> Input:
        where = f"{self.where}: input '{value.name}'"
        if not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"{where}: is no tensor")
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            raise UnsupportedError(f"{where}: has no shape; at least its number of axes must be given")
        sizes: list[int | None] = []
        for dim in kind.shape.dim:
            size = dim.dim_value if dim.HasField("dim_value") else None
            if size is not None and size < 0:
                raise FormatError(f"{where}: has a size of {size}")
            sizes.append(size)
        return Input(value.name, tuple(sizes), dtype_name(kind.elem_type, where))

    def _check_wide(self, network: Network) -> None:
        """Refuse results of float32 where all inputs are of float64 and no node turns one into the other."""
        casts = any(node.op in ("Cast", "CastLike", "DequantizeLinear") for node in network.nodes)
        if casts or not network.inputs or any(given.dtype != "float64" for given in network.inputs):
            return
        for name, dtype in zip(network.outputs, network.output_types, strict=True):
            if dtype == "float32" and name not in network.constants:
                raise FormatError(f"{self.where}: output '{name}' is declared as float32, the graph gives float64")

    def _half(self, network: Network) -> str:
        """Whether "no", "some" or "all" floating-point numbers are float16, but for what nodes hold themselves."""
        numbers = [tensor.data_type for tensor in self.model.graph.initializer]
        numbers += [node.integer("to", 0) for node in network.nodes if node.op == "Cast"]
        types = {given.dtype for given in network.inputs} | set(network.output_types)
        types |= {dtype_name(number, self.where) for number in numbers}
        if "float16" not in types:
            return "no"
        return "some" if types & {"float32", "float64"} else "all"

    def _output_type(self, value: Any) -> str:
        where = f"{self.where}: output '{value.name}'"
        if not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"{where}: is no tensor")
        dtype = dtype_name(value.type.tensor_type.elem_type, where)
        if dtype not in OUTPUT_TYPES:
            raise UnsupportedError(f"{where}: has element type {dtype}, supported are {', '.join(OUTPUT_TYPES)}")
        return dtype

    def _node(self, node: Any, index: int, opset: int, known: set[str], later: set[str]) -> Node:
        name = node.name or next((output for output in node.output if output), f"#{index}")
        where = f"{self.where}: node '{name}' ({node.op_type or '?'}, opset {opset})"
        if node.domain not in _DEFAULT_DOMAINS:
            raise UnsupportedError(f"{where}: operators of domain '{node.domain}' are not supported")
        defs = self.proto.defs
        try:
            schema = defs.get_schema(node.op_type, opset)
        except defs.SchemaError:
            raise UnsupportedError(f"{where}: ONNX has no such operator in this opset") from None
        for input_name in node.input:
            if input_name and input_name not in known:
                why = "of a node that does not stand before it" if input_name in later else "that nothing defines"
                raise FormatError(f"{where}: reads '{input_name}' {why}")
        for kind, count, least, most in (
            ("inputs", len(node.input), schema.min_input, schema.max_input),
            ("outputs", len(node.output), schema.min_output, schema.max_output),
        ):
            if not least <= count <= most:
                raise FormatError(f"{where}: has {count} {kind}, expected {least} to {most}")
        for output in node.output:
            if output:
                self._define(output, known, "value")
                known.add(output)
        if not any(node.output):
            raise FormatError(f"{where}: has no result")
        attributes = self._attributes(node, schema, where)
        return Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes, opset, schema.since_version)

    def _attributes(self, node: Any, schema: Any, where: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for attribute in node.attribute:
            name = attribute.name
            what = f"{where}: attribute '{name}'"
            if name not in schema.attributes:
                raise UnsupportedError(f"{what} is not one of {', '.join(sorted(schema.attributes)) or 'none'}")
            if name in result:
                raise FormatError(f"{what} is there twice")
            if attribute.ref_attr_name:
                raise FormatError(f"{what} refers to a function's attribute")
            expected = schema.attributes[name].type.value
            if attribute.type != expected or attribute.type not in _ATTRIBUTES:
                if attribute.type == expected:
                    raise UnsupportedError(f"{what} is of a kind that is not supported")
                raise FormatError(f"{what} is of kind {attribute.type}, expected {expected}")
            value = getattr(attribute, _ATTRIBUTES[attribute.type])
            if attribute.type == 4:
                result[name] = self.tensors.read(value, what)
            elif attribute.type in (3, 8):
                texts = [bytes(text).decode("utf-8", "replace") for text in ([value] if attribute.type == 3 else value)]
                result[name] = texts[0] if attribute.type == 3 else texts
            else:
                result[name] = value if attribute.type in (1, 2) else list(value)
        for name, definition in schema.attributes.items():
            if definition.required and name not in result:
                raise FormatError(f"{where}: attribute '{name}' is missing")
        return result
