"""Files that nobody should have written: each is refused with an error that names the place."""

from __future__ import annotations

import os

import numpy as np
import onnx_models
import pytest
from onnx_models import TensorProto, helper, model, one_node

import pycnn
from pycnn import ArgumentError, FileError, FormatError, ShapeError, UnsupportedError

onnx = pytest.importorskip("onnx")

X = np.zeros((1, 2, 5, 5), np.float32)
W = np.zeros((4, 2, 3, 3), np.float32)


def changed(change, data=None):
    """A good model's bytes after a change of its protocol buffer."""
    proto = onnx.ModelProto.FromString(one_node("Conv", {"x": X, "w": W}) if data is None else data)
    change(proto)
    return proto.SerializeToString()


def refused(data, *errors):
    with pytest.raises(errors) as caught:
        pycnn.onnx.load(data)
    assert str(caught.value).startswith("onnx"), caught.value
    return str(caught.value)


def test_what_is_no_model():
    good = one_node("Conv", {"x": X, "w": W})
    for data in (
        b"",
        b"\x00" * 40,
        b"{}",
        b"\x80\x04K\x01.",
        good[: len(good) // 2],
        np.random.default_rng(0).bytes(999),
    ):
        refused(data, FormatError, UnsupportedError)


def test_every_truncation_is_refused():
    data = one_node("Gemm", {"x": np.zeros((1, 3), np.float32), "w": np.zeros((3, 2), np.float32)})
    for length in range(len(data)):
        with pytest.raises((FormatError, UnsupportedError)):
            pycnn.onnx.load(data[:length])


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileError, match="no.onnx"):
        pycnn.onnx.load(tmp_path / "no.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises((FileError, FormatError), match="folder"):
        pycnn.onnx.load(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="pipe"):
        pycnn.onnx.load(tmp_path / "pipe")
    with pytest.raises(pycnn.ArgumentError, match=r"onnx.load: expected a path, got None"):
        pycnn.onnx.load(None)


def test_versions():
    def opset(version):
        return lambda proto: setattr(proto.opset_import[0], "version", version)

    assert "opset 5" in refused(changed(opset(5)), UnsupportedError)
    assert "opset 999" in refused(changed(opset(999)), UnsupportedError)
    refused(changed(lambda proto: proto.ClearField("opset_import")), FormatError)
    refused(changed(lambda proto: proto.opset_import.append(helper.make_opsetid("ai.onnx", 17))), FormatError)
    refused(changed(lambda proto: setattr(proto, "ir_version", 99)), UnsupportedError)
    refused(changed(lambda proto: proto.ClearField("ir_version")), FormatError)
    refused(changed(lambda proto: proto.ClearField("graph")), FormatError)


def relu(source, target):
    return helper.make_node("Relu", [source], [target], name=f"make_{target}")


@pytest.mark.parametrize(
    ("nodes", "outputs", "told"),
    [
        ([relu("b", "a"), relu("a", "b")], ["b"], "'make_a'.*reads 'b' of a node that does not stand before it"),
        ([relu("a", "a")], ["a"], "'make_a'.*reads 'a'"),
        ([relu("nothing", "a")], ["a"], "'make_a'.*reads 'nothing' that nothing defines"),
        ([relu("x", "a"), relu("x", "a")], ["a"], "'a' is defined twice"),
        ([relu("x", "x")], ["x"], "'x' is defined twice"),
        ([relu("x", "a")], ["b"], "output 'b' is made by no node"),
        ([relu("x", "a")], [], "no output"),
        ([relu("x", "a")], ["a", "a"], "named twice"),
        ([helper.make_node("Relu", ["x", "x"], ["a"])], ["a"], "2 inputs, expected 1 to 1"),
        ([helper.make_node("Relu", ["x"], [""])], ["x"], "no result"),
    ],
)
def test_graphs_that_are_none(nodes, outputs, told):
    with pytest.raises(FormatError, match=told):
        pycnn.onnx.load(model(nodes, {"x": (1, 3)}, outputs))


def test_a_deep_chain_is_no_problem():
    nodes = [relu(f"v{i}", f"v{i + 1}") for i in range(10_000)]
    x = np.array([[1.0, -1.0]], np.float32)
    assert onnx_models.ours(model(nodes, {"v0": (1, 2)}, ["v10000"]), x)[0].tolist() == [[1.0, 0.0]]


def test_operators_domains_and_attributes():
    text = refused(one_node("Det", {"x": np.zeros((2, 2), np.float32)}), UnsupportedError)
    assert "node 'it' (Det, opset 17)" in text
    assert "Conv" in text
    refused(changed(lambda p: setattr(p.graph.node[0], "op_type", "Nonsense")), UnsupportedError)
    assert "com.microsoft" in refused(
        changed(lambda p: setattr(p.graph.node[0], "domain", "com.microsoft")), UnsupportedError
    )
    assert "'colour'" in refused(one_node("Conv", {"x": X, "w": W}, colour=1), UnsupportedError)
    assert "'strides'" in refused(one_node("Conv", {"x": X, "w": W}, strides="two"), FormatError)
    assert "'kernel_shape' is missing" in refused(one_node("MaxPool", {"x": X}), FormatError)
    twice = changed(lambda p: p.graph.node[0].attribute.extend([helper.make_attribute("group", 1)] * 2))
    assert "twice" in refused(twice, FormatError)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [0, 1]},
        {"strides": [-1, 1]},
        {"strides": [1]},
        {"dilations": [0, 0]},
        {"dilations": [2**62, 1]},
        {"group": 0},
        {"group": -2},
        {"group": 3},
        {"group": 2**62},
        {"pads": [-1, 0, 0, 0]},
        {"pads": [2**62, 0, 2**62, 0]},
        {"pads": [1, 1]},
        {"kernel_shape": [9, 9]},
        {"auto_pad": "SOMEHOW"},
        {"auto_pad": "VALID", "pads": [1, 1, 1, 1]},
    ],
)
def test_impossible_convolutions(attributes):
    assert "node 'it' (Conv" in refused(one_node("Conv", {"x": X, "w": W}, **attributes), ArgumentError, ShapeError)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": X, "w": np.zeros((4, 3, 3, 3), np.float32)},
        {"x": X, "w": np.zeros((4, 2, 7, 3), np.float32)},
        {"x": X, "w": np.zeros((4, 2, 3), np.float32)},
        {"x": X, "w": np.zeros((4, 2, 0, 3), np.float32)},
        {"x": X, "w": W, "b": np.zeros(5, np.float32)},
        {"x": X, "w": W, "b": np.zeros((1, 4), np.float32)},
    ],
)
def test_weights_that_do_not_fit(inputs):
    assert "node 'it' (Conv" in refused(one_node("Conv", inputs), ArgumentError, ShapeError)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("MaxPool", {"x": X}, {"kernel_shape": [9, 9]}),
        ("MaxPool", {"x": X}, {"kernel_shape": [0, 1]}),
        ("MaxPool", {"x": X}, {"kernel_shape": [3, 3], "pads": [2**40] * 4}),
        ("AveragePool", {"x": X}, {"kernel_shape": [3, 3], "strides": [0, 0]}),
        ("Reshape", {"x": X, "s": np.array([7, 7])}, {}),
        ("Reshape", {"x": X, "s": np.array([-1, -1])}, {}),
        ("Reshape", {"x": X, "s": np.array([2**62, 2**62])}, {}),
        ("Reshape", {"x": X, "s": np.array([1, 1, 1, 1, 0])}, {}),
        ("Transpose", {"x": X}, {"perm": [0, 0, 1, 2]}),
        ("Transpose", {"x": X}, {"perm": [0, 1, 2, 4]}),
        ("Concat", {"x": X, "y": X}, {"axis": 4}),
        ("Concat", {"x": X, "y": np.zeros((1, 2, 5, 6), np.float32)}, {"axis": 1}),
        ("Softmax", {"x": X}, {"axis": -5}),
        ("Flatten", {"x": X}, {"axis": 9}),
        ("Gemm", {"x": np.zeros((1, 3), np.float32), "w": np.zeros((4, 5), np.float32)}, {}),
        ("Add", {"x": X, "y": np.zeros((3, 1, 1), np.float32)}, {}),
        ("BatchNormalization", {"x": X, **{n: np.zeros(3, np.float32) for n in "sbmv"}}, {}),
        ("Pad", {"x": X, "p": np.array([0, 0, 2**40, 0, 0, 0, 0, 0])}, {}),
        ("Pad", {"x": X, "p": np.array([0] * 7)}, {}),
        ("Pad", {"x": X, "p": np.array([0, 0, -9, 0, 0, 0, 0, 0])}, {}),
        ("Pad", {"x": X, "p": np.array([0, 0, 2**40, 0, 0, 0, 0, 0])}, {"mode": "edge"}),
        ("Split", {"x": X, "s": np.array([1, 7])}, {"outputs": 2, "axis": 1}),
        ("Slice", {"x": X, "s": np.array([0]), "e": np.array([1]), "a": np.array([7])}, {}),
        ("Slice", {"x": X, "s": np.array([0]), "e": np.array([1]), "a": np.array([1]), "t": np.array([0])}, {}),
        ("Gather", {"x": X, "i": np.array([9])}, {"axis": 1}),
        ("Expand", {"x": X, "s": np.array([2**40, 1, 1, 1, 1])}, {}),
        ("Squeeze", {"x": X, "a": np.array([1])}, {}),
        ("Dropout", {"x": X, "r": np.float32(1.5)}, {}),
    ],
)
def test_impossible_nodes(op, inputs, attributes):
    error = (ArgumentError, ShapeError, pycnn.MemoryLimitError)
    assert "node 'it'" in refused(one_node(op, inputs, **attributes), *error)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("ConstantOfShape", ["s"], ["c"], name="bomb")],
        [helper.make_node("Range", ["z", "n", "o"], ["c"], name="bomb")],
        [helper.make_node("Expand", ["o", "s"], ["c"], name="bomb")],
        [helper.make_node("Tile", ["v", "n1"], ["c"], name="bomb")],
        [helper.make_node("Add", ["column", "row"], ["c"], name="bomb")],
    ],
)
def test_bombs_of_constants(nodes):
    weights = {
        "s": np.array([2**20, 2**20, 2**10]), "z": np.int64(0), "n": np.int64(2**50), "o": np.int64(1),
        "v": np.zeros(4, np.float32), "n1": np.array([2**50]), "column": np.zeros((2**15, 1), np.int8),
        "row": np.zeros((1, 2**15), np.int8),
    }  # fmt: skip
    shape = helper.make_node("Shape", ["c"], ["size"])
    cast = helper.make_node("Cast", ["size"], ["f"], to=TensorProto.FLOAT)
    add = helper.make_node("Add", ["x", "f"], ["y"])
    text = refused(model([*nodes, shape, cast, add], {"x": (1,)}, ["y"], weights), ShapeError)
    assert "node 'bomb'" in text


def weight(change):
    return changed(lambda proto: change(proto.graph.initializer[0]))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.dims.__setitem__(0, -4),
        lambda t: t.dims.__setitem__(0, 2**62),
        lambda t: t.dims.extend([1] * 30),
        lambda t: t.dims.__setitem__(slice(None), [2**33, 2**33, 2**33]),
        lambda t: setattr(t, "raw_data", t.raw_data[:-1]),
        lambda t: setattr(t, "raw_data", t.raw_data + b"\0"),
        lambda t: t.ClearField("raw_data"),
        lambda t: t.float_data.append(1.0),
        lambda t: setattr(t, "data_type", 0),
        lambda t: setattr(t, "data_type", 999),
        lambda t: setattr(t, "data_type", TensorProto.STRING),
        lambda t: setattr(t, "data_type", TensorProto.DOUBLE),
        lambda t: (t.ClearField("raw_data"), t.int32_data.extend([0] * 72)),
        lambda t: setattr(t, "name", ""),
        lambda t: t.segment.SetInParent(),
    ],
)
def test_tensors_whose_bytes_do_not_fit(change):
    refused(weight(change), FormatError, UnsupportedError)


def test_initializers_of_one_name():
    refused(changed(lambda proto: proto.graph.initializer.append(proto.graph.initializer[0])), FormatError)


def external(location, **more):
    def change(proto):
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=str(value))

    return changed(change)


def test_external_data_is_read_below_the_folder(tmp_path):
    values = np.random.default_rng(0).standard_normal(W.shape).astype(np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"12345678" + values.tobytes())
    file = tmp_path / "net.onnx"
    file.write_bytes(external("sub/w.bin", offset=8, length=values.nbytes))
    net = pycnn.onnx.load(file)
    np.testing.assert_array_equal(net.state_dict()["w"], values)
    assert "by path" in refused(file.read_bytes(), FormatError)


def test_external_data_elsewhere_is_refused(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(W.nbytes))
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.link(secret, folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "short").write_bytes(b"123")
    (folder / "good").write_bytes(bytes(W.nbytes))
    file = folder / "net.onnx"
    locations = [
        "../secret",
        str(secret),
        "link",
        "folder/secret",
        "hard",
        "pipe",
        ".",
        "",
        "missing",
        "short",
        "a\0b",
        "good/x",
    ]
    for location in locations:
        file.write_bytes(external(location))
        with pytest.raises((FormatError, FileError), match="initializer 'w'"):
            pycnn.onnx.load(file)
    for more in ({"offset": -1}, {"offset": "x"}, {"offset": 1}, {"offset": 10**30}, {"length": 5}):
        file.write_bytes(external("good", **more))
        with pytest.raises(FormatError, match="initializer 'w'"):
            pycnn.onnx.load(file)


def test_inputs_and_outputs_that_are_no_tensors_of_floats():
    def of_type(kind, field):
        return lambda proto: setattr(getattr(proto.graph, field)[0].type.tensor_type, "elem_type", kind)

    for kind in (TensorProto.DOUBLE, TensorProto.STRING, TensorProto.BFLOAT16):
        error = FormatError if kind == TensorProto.DOUBLE else UnsupportedError
        refused(changed(of_type(kind, "input")), error)
        refused(changed(of_type(kind, "output")), error)
    refused(changed(of_type(0, "input")), FormatError)
    refused(changed(lambda p: p.graph.input[0].type.tensor_type.ClearField("shape")), UnsupportedError)
    refused(changed(lambda p: p.graph.input[0].type.Clear()), UnsupportedError)


def test_flipped_bits_never_crash():
    """Files with a few bytes changed: a net, or one of the package's errors."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Reshape", ["p", "s"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"]),
    ]
    weights = {"w": W, "s": np.array([1, -1]), "g": np.zeros((64, 3), np.float32)}
    data = model(nodes, {"x": (1, 2, 8, 8)}, ["y"], weights)
    texts = set()
    for _ in range(300):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[place] = rng.integers(0, 256)
        try:
            pycnn.onnx.load(bytes(broken))
        except pycnn.Error as error:
            texts.add(str(error)[:4])
    assert texts == {"onnx"}


def test_chains_of_constants_are_bounded():
    # Each result is allowed; together they would take more memory than there is.
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c0"])]
    nodes += [helper.make_node("Add", ["c0", "c0"], [f"c{i}"]) for i in range(1, 40)]
    nodes += [helper.make_node("Concat", [f"c{i}" for i in range(1, 40)], ["big"], axis=0)]
    nodes += [
        helper.make_node("ReduceSum", ["big"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pycnn.onnx._fold._MOST_IN_ALL", 10_000)
        refused(model(nodes, {"x": (1, 3)}, ["y"], {"s": np.array([300])}, 13), ShapeError)
    # An operator that visits all of a constant that takes no memory itself.
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Neg", ["c"], ["d"])]
    nodes += [
        helper.make_node("ReduceSum", ["d"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    refused(model(nodes, {"x": (1, 3)}, ["y"], {"s": np.array([2**30])}, 13), ShapeError)


def test_more_axes_than_arrays_have_are_told():
    node = helper.make_node("Unsqueeze", ["x", "a"], ["y"], name="it")
    for count in (8, 54, 100):
        data = model([node], {"x": (1, 4)}, ["y"], {"a": np.arange(count)}, 13)
        assert "node 'it'" in refused(data, ShapeError)
    constant = helper.make_node("Unsqueeze", ["c", "a"], ["d"], name="it")
    nodes = [constant, helper.make_node("Add", ["x", "d"], ["y"])]
    data = model(nodes, {"x": (1, 4)}, ["y"], {"c": np.ones(4, np.float32), "a": np.arange(54)}, 13)
    assert "node 'it'" in refused(data, ShapeError)


def test_constants_are_bounded_by_their_bytes():
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"], value=onnx.numpy_helper.from_array(np.ones(1))),
        helper.make_node("Neg", ["c"], ["d"], name="it"),
        helper.make_node("ReduceSum", ["d"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["single"], to=1),
        helper.make_node("Add", ["x", "single"], ["y"]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pycnn.onnx._fold._MOST_COMPUTED", 8_000)
        pycnn.onnx.load(model(nodes, {"x": (1, 3)}, ["y"], {"s": np.array([1000])}, 13))
        data = model(nodes, {"x": (1, 3)}, ["y"], {"s": np.array([1001])}, 13)
        assert "node 'it'" in refused(data, ShapeError)


def test_windows_of_ones_are_bounded():
    for op, opset, more in (("AveragePool", 19, {}), ("LpPool", 18, {"ceil_mode": 1})):
        node = helper.make_node(op, ["x"], ["y"], kernel_shape=[30000, 30000], pads=[30000] * 4, **more)
        refused(model([node], {"x": (1, 1, 4, 4)}, ["y"], {}, opset), UnsupportedError)


@pytest.mark.parametrize(
    ("op", "constants", "opset"),
    [
        ("Clip", {"l": np.zeros(3, np.float32)}, 13),
        ("Clip", {"l": np.zeros(0, np.float32)}, 13),
        ("Pad", {"p": np.array([0] * 7 + [1]), "v": np.zeros(3, np.float32)}, 13),
        ("Dropout", {"r": np.zeros(2, np.float32)}, 13),
        ("LayerNormalization", {"s": np.zeros(3, np.float32)}, 17),
        ("Unsqueeze", {"a": np.float32([np.nan])}, 13),
        ("Reshape", {"a": np.float32([np.inf])}, 13),
        ("Resize", {"roi": np.zeros(0, np.float32), "s": np.float32([1, 1, 1e30, 1])}, 13),
    ],
)
def test_constants_of_another_shape_or_kind(op, constants, opset):
    node = helper.make_node(op, ["x", *constants], ["y"], name="it")
    text = refused(model([node], {"x": (1, 1, 4, 4)}, ["y"], constants, opset), ArgumentError, ShapeError)
    assert "node 'it'" in text
