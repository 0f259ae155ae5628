"""What an imported net can do: everything that a net of our own can."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import onnx_models
import pytest
from onnx_models import helper, model

import pycnn


def classifier(batch=1, *, softmax=True, opset=13):
    """A small net with every kind of parameter; the batch may be fixed or open."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32) * np.float32(0.3)

    weights = {
        "conv1.weight": normal(8, 3, 3, 3), "conv1.bias": normal(8), "bn1.weight": normal(8), "bn1.bias": normal(8),
        "bn1.running_mean": normal(8), "bn1.running_var": abs(normal(8)) + np.float32(0.5),
        "scale": normal(8, 1, 1), "shape": np.array([batch or 0, -1]), "fc.weight": normal(8 * 16, 5),
        "fc.bias": normal(5),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["c"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization",
            ["c", *(f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))],
            ["b"],
        ),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Mul", ["r", "scale"], ["m"]),
        helper.make_node("MaxPool", ["m"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["s"], name="fc"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["s"], ["y"], axis=1))
    return model(nodes, {"image": (batch or "N", 3, 8, 8)}, ["y" if softmax else "s"], weights, opset)


@pytest.fixture
def images():
    return np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)


def test_parameters_have_the_files_names_and_torchs_shapes():
    net = pycnn.onnx.load(classifier())
    shapes = {name: array.shape for name, array in net.state_dict().items()}
    assert shapes == {
        "conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "bn1.weight": (8,), "bn1.bias": (8,),
        "bn1.running_mean": (8,), "bn1.running_var": (8,), "scale": (8, 1, 1), "fc.weight": (5, 128), "fc.bias": (5,),
    }  # fmt: skip
    assert [name for name, _ in net.named_buffers()] == ["bn1.running_mean", "bn1.running_var"]
    assert "opset 13" in repr(net)


def test_any_batch_whatever_the_file_declares(images):
    expected = np.concatenate([onnx_models.peer(classifier(), x[None])[0] for x in images])
    for batch in (1, None):
        net = pycnn.onnx.load(classifier(batch))
        np.testing.assert_allclose(net(images), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(net(images[1:2]), net(images)[1:2])


def test_layouts_give_the_same_bits(images):
    first = pycnn.onnx.load(classifier())
    last = pycnn.onnx.load(classifier(), input_layout="NHWC")
    assert (first.input_shape, last.input_shape) == ((3, 8, 8), (8, 8, 3))
    rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(first(images), last(rows))
    kinds = [[s["op"] for s in pycnn.compile(net, x.shape).steps()] for net, x in ((first, images), (last, rows))]
    assert kinds[0].count("transpose") == kinds[1].count("transpose") + 1
    with pytest.raises(pycnn.ArgumentError, match="NCHW, NHWC"):
        pycnn.onnx.load(classifier(), input_layout="CHW")
    with pytest.raises(pycnn.ShapeError, match="the file declares"):
        first(rows)
    with pytest.raises(pycnn.ShapeError, match="add the batch axis"):
        first(images[0])


def test_scores_leave_out_the_softmax(images):
    probabilities, scores = pycnn.onnx.load(classifier()), pycnn.onnx.load(classifier(), scores=True)
    np.testing.assert_array_equal(pycnn.onnx.load(classifier(softmax=False))(images), scores(images))
    np.testing.assert_allclose(pycnn.functional.softmax(scores(images)), probabilities(images), rtol=1e-6)
    np.testing.assert_array_equal(probabilities.predict(images), scores.predict(images))
    np.testing.assert_allclose(probabilities.predict_proba(images), scores.predict_proba(images), rtol=1e-6)


def test_it_trains_freezes_and_keeps_what_it_learned(images, tmp_path):
    net = pycnn.onnx.load(classifier(), input_layout="NHWC", scores=True)
    x, y = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), np.array([0, 1, 2, 3])
    before = net.state_dict()
    net.freeze("conv1")
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.Adam(lr=0.02), seed=0)
    first, *_, last = [trainer.step(x, y)["loss"] for _ in range(30)]
    assert last < first / 2
    after = net.state_dict()
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    assert changed == set(after) - {"conv1.weight", "conv1.bias"}
    net.save(tmp_path / "net.safetensors")
    loaded = pycnn.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded(x), net(x))
    fresh = pycnn.onnx.load(classifier(), input_layout="NHWC", scores=True)
    fresh.load_state_dict(after)
    np.testing.assert_array_equal(fresh(x), net(x))


def test_copies_and_pickles(images):
    net = pycnn.onnx.load(classifier())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(images), net(images))
        dict(other.named_parameters())["conv1.weight"].copy_(np.zeros((8, 3, 3, 3), np.float32))
        assert not np.array_equal(other(images), net(images))


def test_several_inputs_and_outputs():
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    net = pycnn.onnx.load(model(nodes, {"a": (1, 2), "b": (1, 2)}, ["sum", "product"]))
    a, b = np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)
    result = net(a, b)
    assert {name: v.tolist() for name, v in result.items()} == {"sum": [[4, 6]], "product": [[3, 8]]}
    with pytest.raises(pycnn.ArgumentError, match="1 inputs given, the file has 2"):
        net(a)


@pytest.mark.parametrize(
    "name", ["a/b:0", "forward", "train.weight", "optim.x.y", "", "é.ü", "a..b", ".", "constant.0"]
)
def test_names_that_modules_cannot_have(name, tmp_path):
    weights = {name or "w": np.ones((2, 3, 1, 1), np.float32), "other": np.zeros(2, np.float32)}
    nodes = [helper.make_node("Conv", ["x", *weights], ["y"])]
    net = pycnn.onnx.load(model(nodes, {"x": (1, 3, 2, 2)}, ["y"], weights))
    assert len(net.state_dict()) == 2
    x = np.ones((1, 3, 2, 2), np.float32)
    assert (net(x) == 3).all()
    net.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(pycnn.load(tmp_path / "net.safetensors")(x), net(x))


def test_names_that_are_the_beginning_of_others():
    weights = {"a": np.ones((2, 3, 1, 1), np.float32), "a.b": np.zeros(2, np.float32)}
    nodes = [helper.make_node("Conv", ["x", "a", "a.b"], ["y"])]
    assert len(pycnn.onnx.load(model(nodes, {"x": (1, 3, 2, 2)}, ["y"], weights)).state_dict()) == 2


def test_weights_that_two_nodes_share_stay_one():
    w = np.random.default_rng(3).standard_normal((3, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Gemm", ["m", "w"], ["y"], transB=1)]
    net = pycnn.onnx.load(model(nodes, {"x": (2, 3)}, ["y"], {"w": w}))
    x = np.ones((2, 3), np.float32)
    assert len(list(net.parameters())) == 1
    np.testing.assert_allclose(net(x), x @ w @ w.T, rtol=1e-5, atol=1e-5)


def test_shapes_that_follow_from_the_input():
    """As exporters of PyTorch write `x.view(x.size(0), -1)`, with the size of the image left open."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    weights = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1])}
    net = pycnn.onnx.load(model(nodes, {"x": ("N", 2, "H", "W")}, ["y"], weights))
    assert net.input_shape is None
    for shape in ((3, 2, 4, 5), (1, 2, 6, 3)):
        x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(net(x), x.reshape(shape[0], -1))


def test_metadata_and_class_names_are_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = onnx.ModelProto.FromString(classifier())
    helper.set_model_props(proto, {"class_names": '["a", "b", "c", "d", "e"]', "input_range": "[0, 1]"})
    net = pycnn.onnx.load(proto.SerializeToString())
    assert net.metadata == {"class_names": '["a", "b", "c", "d", "e"]'}
    assert net.input_range == (0.0, 1.0)


def test_a_missing_package_is_told():
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import pycnn\n"
        "try:\n    pycnn.onnx.load(b'')\n"
        "except pycnn.UnsupportedError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pycnn[onnx]'" in result.stdout


def test_the_table_of_the_documentation_is_the_importers(root):
    from pycnn.onnx._fold import FOLDED
    from pycnn.onnx._registry import operators

    text = (root / "docs" / "onnx.md").read_text(encoding="utf-8")
    rows = [f"| {o.name} | {', '.join(map(str, o.versions))} | {o.note} |" for _, o in sorted(operators().items())]
    lines = text.splitlines()
    found = [line for line in lines if line.startswith("| ") and not line.startswith(("| Operator", "|---"))]
    assert found == rows
    assert f"`{'` `'.join(FOLDED)}`" in text


def test_every_version_of_opsets_6_to_22_is_in_the_table():
    """An operator that is supported is so in each of its versions from opset 6 to 22, as far as floats go."""
    defs = pytest.importorskip("onnx").defs
    from pycnn.onnx._registry import operators

    for name, entry in operators().items():
        for opset in range(6, 23):
            try:
                schema = defs.get_schema(name, opset)
            except defs.SchemaError:
                continue
            version = schema.since_version
            # The first Upsample was an experiment; later it was given up for Resize.
            if not schema.deprecated and (name, version) != ("Upsample", 1):
                assert version in entry.versions, f"{name} of opset {opset}"
