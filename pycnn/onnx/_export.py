"""Writing a net as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.arguments import as_integer
from pycnn.errors import ArgumentError, UnsupportedError
from pycnn.nn import _range
from pycnn.nn.files import FileModule
from pycnn.nn.module import Module
from pycnn.onnx._exporters import FIRST_OPSET, exporter_of
from pycnn.onnx._file import LATEST_OPSET
from pycnn.onnx._module import OnnxModule
from pycnn.onnx._nodes import NCHW
from pycnn.onnx._view import IMAGE, View
from pycnn.onnx._writer import Value, Writer
from pycnn.optional import optional
from pycnn.textfile import write_bytes
from pycnn.tracing import Traced, prune, trace
from pycnn.version import __version__

__all__ = ["export", "to_bytes"]

_DEFAULT_OPSET = 17
_BATCH = "batch"
_MOST_BYTES = 2**31 - 1
# Two recordings that must give one file, whose batch is free: prime numbers, which other sizes are hardly multiples of.
_RECORDED = (97, 101)


def export(
    net: Module,
    path: str | os.PathLike[str],
    *,
    opset: int = _DEFAULT_OPSET,
    input_shape: Sequence[int] | None = None,
    input_layout: str = "NCHW",
) -> None:
    """Write a net as an ONNX file, atomically.

    The file holds the net as it predicts: batch norms use their running statistics, dropout does nothing, heads for
    training are left out. Images are float32, of values as the net takes them when it is given floats; a
    `normalization` is part of the file. The number of images is free. Weights have their names and shapes of
    `state_dict`, and `load` gives a net of the same bits; adaptive pooling, which ONNX does not have, may round
    otherwise.

    Args:
        net: The net; a net that was imported may be exported again.
        path: Where to; usually "NAME.onnx".
        opset: Version of ONNX's operators, 13 to 22.
        input_shape: Of one input, (H, W, C) for images; default: what the net was made for or called with last.
        input_layout: How the file takes images: "NCHW", as other programs expect it, or "NHWC". Images among the
            results are (N, C, H, W).

    Raises:
        ArgumentError: `opset` or `input_layout` is out of range, or the size of the input is not known.
        UnsupportedError: An op has no equal in ONNX, the message names it; or the package onnx is not installed.
        FileError: The system refused; an older file at the path is intact.

    Example:
        >>> import pycnn
        >>> pycnn.onnx.export(pycnn.models.lenet5(), "lenet5.onnx")  # doctest: +SKIP
    """
    write_bytes(path, to_bytes(net, opset=opset, input_shape=input_shape, input_layout=input_layout))


def to_bytes(
    net: Module,
    *,
    opset: int = _DEFAULT_OPSET,
    input_shape: Sequence[int] | None = None,
    input_layout: str = "NCHW",
) -> bytes:
    """The file that `export` writes, with the same arguments and errors but those of the file system."""
    if not isinstance(net, Module):
        raise ArgumentError(f"onnx.export: {type(net).__name__} is no pycnn.nn.Module; the order is export(net, path)")
    opset = as_integer(opset, who="onnx.export", name="opset", low=FIRST_OPSET, high=LATEST_OPSET)
    if input_layout not in ("NCHW", "NHWC"):
        raise ArgumentError(f"onnx.export: input_layout {input_layout!r} is not one of NCHW, NHWC")
    onnx = optional("onnx", extra="onnx", who="onnx.export")
    helper = optional("onnx.helper", extra="onnx", who="onnx.export")
    shape = net._input_shape(input_shape, "onnx.export")
    net.require_built("onnx.export")
    written = [_write(net, (batch, *shape), opset, input_layout, helper) for batch in _RECORDED]
    first, second = ([node.SerializeToString() for node in one.nodes] for one, _ in written)
    if first != second or _integers(written[0][0]) != _integers(written[1][0]):
        raise UnsupportedError("onnx.export: the net computes with the number of images, which is free in the file")
    writer, (given, results) = written[0]
    graph = helper.make_graph(writer.nodes, type(net).__name__, given, results)
    size = sum(array.nbytes for array in writer.initializers.values())
    if size > _MOST_BYTES - 2**20:
        raise UnsupportedError(f"onnx.export: weights of {size} bytes; a file holds at most {_MOST_BYTES}")
    for name, array in writer.initializers.items():
        tensor = graph.initializer.add(
            name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        tensor.raw_data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    identity = helper.make_opsetid("", opset)
    model = helper.make_model(graph, opset_imports=[identity], producer_name="pycnn", producer_version=__version__)
    model.ir_version = helper.find_min_ir_version_for([identity])
    helper.set_model_props(model, _metadata(net))
    assert onnx is not None
    data: bytes = model.SerializeToString()
    return data


def _metadata(net: Module) -> dict[str, str]:
    own = net.metadata if isinstance(net, FileModule) else {}
    return {**{name: text for name, text in own.items() if name != "trainer"}, **_range.as_text(net)}


def _integers(writer: Writer) -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in writer.initializers.items() if array.dtype == np.int64}


def _write(
    net: Module, shape: tuple[int, ...], opset: int, input_layout: str, helper: Any
) -> tuple[Writer, tuple[list[Any], list[Any]]]:
    """Write the nodes for a number of images.

    Returns:
        The writer; descriptions of the inputs and of the outputs.
    """
    traced = prune(trace(lambda **given: _flat(net(*given.values())), {"input": (shape, "float32")}, root=net))
    writer = Writer(helper, opset, shape[0])
    order = _order(net, shape, input_layout)
    values: dict[tuple[int, int], View] = {}
    nodes = traced.graph.nodes()
    for index, node in enumerate(nodes):
        result_shape = tuple(node["outputs"][0][0])
        if node["kind"] == "input":
            values[index, 0] = _input(writer, result_shape, order)
            continue
        if node["kind"] != "op":
            values[index, 0] = _stored(writer, node["name"], traced)
            continue
        writer.scope = node["name"]
        inputs = [values[symbol.node, symbol.output] for symbol in node["inputs"]]
        attributes = node["op"].attributes()
        values[index, 0] = exporter_of(node["op"].name, node["name"])(writer, attributes, inputs, result_shape)
    writer.scope = ""
    results = []
    for name, symbol in traced.graph.outputs():
        view = values[symbol.node, symbol.output]
        # What an imported net gives are (N, C, H, W) already.
        value = view.in_order(NCHW) if view.rank == 4 and not isinstance(net, OnnxModule) else view.as_plain()
        dtype = traced.graph.spec(symbol)[1]
        results.append(_output(writer, name, value, dtype))
    given_shape = [shape[axis] for axis in order]
    given = [helper.make_tensor_value_info("input", helper.TensorProto.FLOAT, [_BATCH, *given_shape[1:]])]
    return writer, (given, results)


def _flat(result: Any) -> Any:
    """The results by name."""
    if isinstance(result, tuple | list):
        return {f"output{i}": value for i, value in enumerate(result)}
    return result


def _order(net: Module, shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The file's axes of an input, as axes of the net's."""
    own = net.input_layout if isinstance(net, OnnxModule) else "NHWC"
    if len(shape) != 4 or own == layout:
        return tuple(range(len(shape)))
    return NCHW if layout == "NCHW" else IMAGE


def _input(writer: Writer, shape: tuple[int, ...], order: tuple[int, ...]) -> View:
    value = Value(writer, writer.unique("input"), tuple(shape[axis] for axis in order))
    return View(value, order, shape)


def _stored(writer: Writer, name: str, traced: Traced) -> View:
    """A parameter or buffer. What is no weight becomes a Constant, so that importing it does not make it one."""
    parameter = traced.parameters[name]
    array = parameter.numpy()
    if array.dtype != np.float32:
        raise UnsupportedError(f"onnx.export: '{name}' has element type {array.dtype}, weights are float32")
    is_statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
    if parameter.is_buffer and not is_statistic:
        value = writer.literal(array)
    else:
        value = writer.initializer(name, array)
    return View(value, NCHW if parameter.layout == "conv" else range(array.ndim), parameter.shape)


def _output(writer: Writer, name: str, value: Value, dtype: str) -> Any:
    """Give a result its name in the file."""
    name = writer.unique(name)
    value = _renamed(writer, value, name)
    shape: list[int | str] = [_BATCH, *value.shape[1:]] if value.shape else []
    kind = writer.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return writer.helper.make_tensor_value_info(name, kind, shape)


def _renamed(writer: Writer, value: Value, name: str) -> Value:
    writer.scope = name
    writer.nodes.append(writer.helper.make_node("Identity", [value.name], [name], name=name))
    return Value(writer, name, value.shape)
