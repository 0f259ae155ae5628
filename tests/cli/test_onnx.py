"""ONNX files in the place of model files."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn

onnx_models = pytest.importorskip("onnx_models")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A net of 8x8 grey images that ends in a softmax over (N, 10, 1, 1), as SqueezeNet's file does."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((10, 1, 3, 3)).astype(np.float32)}
    nodes = [
        onnx_models.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx_models.helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        onnx_models.helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    path.write_bytes(onnx_models.model(nodes, {"x": (1, 1, 8, 8)}, ["y"], weights))
    return path


def test_predict_tells_the_nets_probabilities(run, file, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    words = ("predict", file, tmp_path / "image.png", "--top-k", "10", "--json")
    values = run(*words, "--normalize", "none").json
    found = {entry["index"]: entry["probability"] for entry in values["predictions"][0]["classes"]}
    expected = pycnn.onnx.load(file)(np.float32(pixels[None, None]) / 255)[0, :, 0, 0]
    assert [found[i] for i in range(10)] == pytest.approx(expected.tolist(), abs=1e-6)
    refused = run(*words)
    assert refused.code == 2
    assert "does not tell what its net expects of pixels" in refused.err


def test_predict_takes_a_float16_file(run, tmp_path):
    weights = {"w": np.random.default_rng(2).standard_normal((10, 1, 8, 8)).astype(np.float16)}
    helper, half = onnx_models.helper, onnx_models.TensorProto.FLOAT16
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", half, (1, 1, 8, 8))],
        [helper.make_tensor_value_info("y", half, (1, 10))],
        [onnx_models.numpy_helper.from_array(weights["w"], "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = onnx_models.IR_VERSION
    (tmp_path / "half.onnx").write_bytes(made.SerializeToString())
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    words = (
        "predict",
        tmp_path / "half.onnx",
        tmp_path / "image.png",
        "--top-k",
        "10",
        "--normalize",
        "none",
        "--json",
    )
    found = {entry["index"]: entry["probability"] for entry in run(*words).json["predictions"][0]["classes"]}
    scores = np.einsum("ochw,hw->o", weights["w"].astype(np.float64), pixels / 255)
    expected = np.exp(scores - scores.max())
    assert [found[i] for i in range(10)] == pytest.approx((expected / expected.sum()).tolist(), abs=1e-5)


def test_evaluate_summary_and_bench_take_the_file(run, file):
    words = ("--data", "digits", "--normalize", "none", "--json")
    assert 0 <= run("evaluate", file, *words).json["accuracy"] <= 1
    table = run("summary", file).out
    assert "conv2d" in table
    assert "90" in table
    assert run("bench", file, "--rounds", "1", "--no-peaks", "--batch", "1").code == 0


def test_a_broken_file_is_told(run, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xd8\xff\xe0 no model")
    result = run("summary", tmp_path / "broken.onnx")
    assert result.code == 1
    assert "broken.onnx" in result.err


def test_export_writes_what_predict_reads(run, model, tmp_path):
    result = run("export", model, tmp_path / "net.onnx", "--opset", "18", "--json").json
    assert result["schema"] == "pycnn.export/1"
    assert result["bytes"] == (tmp_path / "net.onnx").stat().st_size
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    # The file tells the range of values, so that no --normalize is needed.
    nets = (model, tmp_path / "net.onnx")
    shown = [run("predict", net, tmp_path / "image.png", "--json").json["predictions"] for net in nets]
    assert shown[0] == shown[1]
    assert run("export", "cifar_resnet20", tmp_path / "c.onnx", "--input-shape", "32,32,3").code == 0
    refused = run("export", "lenet5", tmp_path / "l.onnx", "--opset", "7")
    assert refused.code == 1
    assert "opset" in refused.err
