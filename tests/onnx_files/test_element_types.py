"""Files of float16, and results of element types that programs do not have."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from onnx_models import TensorProto, helper, numpy_helper

import pycnn

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def file(nodes, inputs, outputs, weights=None, opset=17):
    """A model with the element types that are given: {name: (type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = onnx_models.IR_VERSION
    return made.SerializeToString()


def weights():
    rng = np.random.default_rng(3)

    def normal(*shape):
        return (rng.standard_normal(shape) * 0.4).astype(np.float16)

    return {
        "conv.weight": normal(6, 3, 3, 3), "conv.bias": normal(6), "bn.weight": normal(6), "bn.bias": normal(6),
        "bn.running_mean": normal(6), "bn.running_var": abs(normal(6)) + np.float16(0.5), "fc.weight": normal(5, 6),
        "fc.bias": normal(5),
    }  # fmt: skip


def classifier(*, keeps_types=False, softmax=False):
    """Conv, batch norm, relu, Gemm in float16; with float32 outside, converters put casts at both ends."""
    given, result = ("x", "y") if not keeps_types else ("h", "s")
    kind = FLOAT if keeps_types else HALF
    names = [f"bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    last = "scores" if softmax else result
    nodes = [
        helper.make_node("Conv", [given, "conv.weight", "conv.bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", *names], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], [last], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], [result], axis=1))
    if keeps_types:
        nodes = [
            helper.make_node("Cast", ["x"], ["h"], to=HALF),
            *nodes,
            helper.make_node("Cast", ["s"], ["y"], to=FLOAT),
        ]
    return file(nodes, {"x": (kind, ("N", 3, 7, 5))}, {"y": kind}, weights())


def expected(x):
    """Scores in float64, from the float16 weights."""
    w = {name: array.astype(np.float64) for name, array in weights().items()}
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, w["conv.weight"]) + w["conv.bias"][:, None, None]
    scale = w["bn.weight"] / np.sqrt(w["bn.running_var"] + 1e-5)
    y = (y - w["bn.running_mean"][:, None, None]) * scale[:, None, None] + w["bn.bias"][:, None, None]
    return np.maximum(y, 0).mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


@pytest.fixture
def images():
    return np.random.default_rng(4).standard_normal((4, 3, 7, 5)).astype(np.float16)


def assert_rounded_once(found, exact):
    """Within float32's noise of a float64 result that is rounded to float16."""
    half_step = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64) / 2
    assert (np.abs(found.astype(np.float64) - exact) <= half_step * 1.01 + 1e-6).all()


def test_a_float16_file_takes_and_gives_float16_rounded_once(images):
    net = pycnn.onnx.load(classifier())
    found = net(images)
    assert found.dtype == np.float16
    assert_rounded_once(found, expected(images))
    assert {array.dtype.name for array in net.state_dict().values()} == {"float32"}
    np.testing.assert_array_equal(net.state_dict()["conv.weight"], weights()["conv.weight"].astype(np.float32))
    # The same numbers as float32, channels last, and class indices.
    np.testing.assert_array_equal(net(images.astype(np.float32)), found)
    rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    last = pycnn.onnx.load(classifier(), input_layout="NHWC")
    np.testing.assert_array_equal(last(rows), found)
    np.testing.assert_array_equal(last.predict(rows), expected(images).argmax(1))


def test_float32_at_both_ends_and_float16_inside(images):
    x = images.astype(np.float32) + np.float32(1e-4)
    found = pycnn.onnx.load(classifier(keeps_types=True))(x)
    assert found.dtype == np.float32
    exact = expected(x.astype(np.float16))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


def test_scores_leave_out_a_softmax_before_a_cast(images):
    scores = pycnn.onnx.load(classifier(keeps_types=True, softmax=True), scores=True)(images.astype(np.float32))
    np.testing.assert_allclose(scores, expected(images), rtol=1e-5, atol=1e-5)


def test_a_float16_file_trains(images):
    net = pycnn.onnx.load(classifier(), scores=True)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    labels = np.arange(4) % 5
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.1), seed=0)
    first, *_, last = [trainer.step(images.astype(np.float32), labels)["loss"] for _ in range(10)]
    assert last < first
    after = net.state_dict()
    assert any((after[name] != before[name]).any() for name in before)
    assert net(images).dtype == np.float16


def test_a_cast_rounds_where_it_stands_and_overflow_is_infinite():
    x = np.array([[0.1, 1e5, -7e4, 65504, 1e-9]], np.float32)
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=HALF), helper.make_node("Cast", ["h"], ["y"], to=FLOAT)]
    data = file(nodes, {"x": (FLOAT, (1, 5))}, {"y": FLOAT})
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float16)
    np.testing.assert_array_equal(pycnn.onnx.load(data)(x), rounded.astype(np.float32))
    double = file([helper.make_node("Mul", ["x", "x"], ["y"])], {"x": (HALF, (1, 3))}, {"y": HALF})
    y = pycnn.onnx.load(double)(np.array([[300, 2, -0.5]], np.float16))
    np.testing.assert_array_equal(y, np.array([[np.inf, 4, 0.25]], np.float16))


def test_comparisons_give_bool():
    nodes = [helper.make_node("Less", ["x", "z"], ["y"])]
    data = file(nodes, {"x": (FLOAT, (2, 3)), "z": (FLOAT, (2, 3))}, {"y": TensorProto.BOOL})
    x, z = np.array([[1, 2, np.nan], [3, -1, 0]], np.float32), np.array([[2, 2, 1], [1, 0, 5]], np.float32)
    found = pycnn.onnx.load(data)(x, z)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, x < z)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint16", "uint32", "uint64", "float64", "float16"])
def test_constant_results_keep_their_type(dtype):
    number = np.array([0, 1, 1], dtype) if dtype == "bool" else np.array([0, 3, 121], dtype)
    kind = helper.np_dtype_to_tensor_dtype(number.dtype)
    nodes = [helper.make_node("Identity", ["w"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    data = file(nodes, {"x": (FLOAT, (1, 2))}, {"y": kind, "z": FLOAT}, {"w": number})
    found = pycnn.onnx.load(data)(np.ones((1, 2), np.float32))
    assert found["y"].dtype == number.dtype
    np.testing.assert_array_equal(found["y"], number)


def test_what_cannot_be_exact_is_refused():
    big = {"w": np.array([2**63], np.uint64)}
    data = file([helper.make_node("Identity", ["w"], ["y"])], {}, {"y": TensorProto.UINT64}, big)
    with pytest.raises(pycnn.UnsupportedError, match="output 'y' has numbers of uint64"):
        pycnn.onnx.load(data)()
    wrong = file([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, (1, 2))}, {"y": TensorProto.BOOL})
    with pytest.raises(pycnn.FormatError, match="declared as bool, the graph gives float32"):
        pycnn.onnx.load(wrong)
    nodes = [helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), helper.make_node("Relu", ["d"], ["y"])]
    wide = file(nodes, {"x": (FLOAT, (1, 2))}, {"y": TensorProto.DOUBLE})
    with pytest.raises(pycnn.UnsupportedError, match=r"node 'd' \(Cast, opset 17\): from float32 to float64"):
        pycnn.onnx.load(wide)


def test_files_of_float64_are_computed_with_float32():
    double = TensorProto.DOUBLE
    weight = np.linspace(-1, 1, 3 * 4).reshape(4, 3)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], transB=1), helper.make_node("Relu", ["h"], ["y"])]
    net = pycnn.onnx.load(file(nodes, {"x": (double, (1, 3))}, {"y": double}, {"w": weight}))
    x = np.random.default_rng(0).standard_normal((2, 3))
    with pytest.warns(UserWarning, match="converted from float64 to float32"):
        found = net(x)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, found.astype(np.float32))
    np.testing.assert_allclose(found, np.maximum(x @ weight.T, 0), rtol=1e-5, atol=1e-6)
    assert net.state_dict()["w"].dtype == np.float32


def test_integers_that_are_only_moved_or_compared_stay_integers():
    pooled = file(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        {"x": (TensorProto.UINT8, (1, 1, 4, 4))}, {"y": TensorProto.UINT8},
    )  # fmt: skip
    x = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4), np.uint8)
    found = pycnn.onnx.load(pooled)(x)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, x.reshape(1, 1, 2, 2, 2, 2).max(axis=(3, 5)))
    nodes = [helper.make_node("Pad", ["c", "p"], ["y"], mode="edge"), helper.make_node("Relu", ["x"], ["z"])]
    for number, error in ((2**24, None), (2**24 + 1, "numbers of int32 that float32 does not hold")):
        constants = {"c": np.array([[1, -number]], np.int32), "p": np.array([0, 1, 0, 0], np.int64)}
        data = file(nodes, {"x": (FLOAT, (1, 2))}, {"y": TensorProto.INT32, "z": FLOAT}, constants)
        if error is None:
            y = pycnn.onnx.load(data)(np.ones((1, 2), np.float32))["y"]
            assert y.dtype == np.int32
            np.testing.assert_array_equal(y, [[1, 1, -number]])
        else:
            with pytest.raises(pycnn.UnsupportedError, match=error):
                pycnn.onnx.load(data)
    squared = [helper.make_node("Pad", ["c", "p"], ["h"]), helper.make_node("Mul", ["h", "h"], ["y"])]
    constants = {"c": np.array([[1, 2]], np.int32), "p": np.array([0, 1, 0, 0], np.int64)}
    with pytest.raises(pycnn.UnsupportedError, match="'h' is of int32; tensors of a network are float32"):
        pycnn.onnx.load(file(squared, {"x": (FLOAT, (1, 2))}, {"y": TensorProto.INT32}, constants))


@pytest.mark.parametrize(("opset", "dtype"), [(7, FLOAT), (10, TensorProto.BOOL), (17, TensorProto.BOOL)])
def test_the_mask_of_a_dropout_keeps_all(opset, dtype):
    data = file(
        [helper.make_node("Dropout", ["x"], ["y", "m"])], {"x": (FLOAT, (1, 3))}, {"y": FLOAT, "m": dtype}, {}, opset
    )
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    found = pycnn.onnx.load(data)(x)
    np.testing.assert_array_equal(found["y"], x)
    assert found["m"].dtype == (bool if opset >= 10 else np.float32)
    assert found["m"].shape == (4, 3)
    assert found["m"].all()
