"""The nine networks that the package onnx brings along: as they are, and with random weights against ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_models
import pytest

import pycnn
from pycnn.tracing import trace

onnx = pytest.importorskip("onnx")
numpy_helper = onnx_models.numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# They take more than a second each; they run where PYCNN_ONNX_SUITE=all is set.
SLOW = {"bvlc_alexnet", "densenet121", "inception_v2", "resnet50", "vgg19", "zfnet512"}
ALL = os.environ.get("PYCNN_ONNX_SUITE") == "all"
NAMES = [
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
]  # fmt: skip
# Parameters are the published nets', which differ from the zoo's in heads, biases and batch norms of their own.
PARAMETERS = {
    "bvlc_alexnet": 60_965_224,
    "inception_v1": 6_998_552,
    "resnet50": 25_557_032,
    "squeezenet": 1_235_496,
    "vgg19": 143_667_240,
}


def read(name: str):
    return onnx.load(FOLDER / f"light_{name}.onnx")


def randomize(model, rng) -> None:
    """Put random weights in the place of the repeated numbers, scaled so that values stay of size one."""
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    variances = {node.input[4] for node in graph.node if node.op_type == "BatchNormalization"}
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(size) for size in shapes[node.input[0]]]
        fan = max(1, int(np.prod(shape[1:])))
        values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan / 2))
        if len(shape) == 1:
            values *= np.float32(0.1)
        if node.output[0] in variances:
            values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SLOW or ALL])
def test_outputs_are_the_expected_ones(name):
    net = pycnn.onnx.load(FOLDER / f"light_{name}.onnx")
    result = net(np.ones((1, 3, 224, 224), np.float32))
    expected = numpy_helper.to_array(onnx.load_tensor(FOLDER / f"light_{name}_output_0.pb"))
    assert result.shape == expected.shape
    # The suite's own tolerance for these models.
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_recorded(name):
    net = pycnn.onnx.load(FOLDER / f"light_{name}.onnx", input_layout="NHWC")
    assert net.input_shape == (224, 224, 3)
    if name in PARAMETERS:
        assert net.num_parameters == PARAMETERS[name]
    traced = trace(lambda x: net(x), {"x": ((1, 224, 224, 3), "float32")}, root=net)
    kinds = [node["op"].name for node in traced.graph.nodes() if node["kind"] == "op"]
    # At most one: in front of the classifier, whose weights are for (C, H, W), or at the end for (N, C, 1, 1).
    assert kinds.count("transpose") <= (17 if name == "shufflenet" else 1)


@pytest.mark.interop
@pytest.mark.parametrize("name", [n for n in NAMES if n not in SLOW or ALL])
def test_random_weights_give_what_onnxruntime_gives(name):
    model = read(name)
    rng = np.random.default_rng(7)
    randomize(model, rng)
    data = model.SerializeToString()
    x = rng.standard_normal((1, 3, 224, 224), dtype=np.float32)
    (expected,) = onnx_models.peer(data, x)
    result = pycnn.onnx.load(data)(x)
    assert expected.std() > 0
    # Winograd's convolutions round more; through a softmax of random scores the error is one of the largest share.
    np.testing.assert_allclose(result, expected, rtol=2e-3, atol=2e-4 * float(abs(expected).max()))
