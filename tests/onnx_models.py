"""Small ONNX models for tests, and how to run them here and elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pycnn

pytest.importorskip("onnx.helper")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

# A version of the format that any ONNX Runtime reads.
IR_VERSION = 8


def model(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: Any,
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> bytes:
    """A model file.

    Args:
        nodes: In order.
        inputs: Shape by name.
        outputs: Names.
        weights: Initializers.
        opset: Of ONNX's own domain.
    """
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = IR_VERSION
    return made.SerializeToString()


def one_node(
    op: str, inputs: dict[str, Any], *, given: int = 1, opset: int = 17, outputs: int = 1, **attributes
) -> bytes:
    """A model of one node called "it"; of its inputs the first `given` ones are the model's, the others constant."""
    names = list(inputs)
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="it", **attributes)
    shapes = {name: inputs[name].shape for name in names[:given]}
    return model([node], shapes, results, {name: inputs[name] for name in names[given:]}, opset)


def peer(data: bytes, *arrays: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime gives; skips where it is missing."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def ours(data: bytes, *arrays: np.ndarray, **options: Any) -> list[np.ndarray]:
    """What the imported net gives."""
    result = pycnn.onnx.load(data, **options)(*arrays)
    return list(result.values()) if isinstance(result, dict) else [result]
