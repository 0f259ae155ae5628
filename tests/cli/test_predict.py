"""`pycnn predict`: image files to probabilities."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import pycnn

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """A held-out digit as a file, and its class."""
    _, test = pycnn.data.digits()
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(test.images[0, :, :, 0]).save(path)
    return path, test.images[:1]


def test_probabilities_are_those_of_the_net(run, model, digit, has_types):
    path, image = digit
    values = run("predict", model, path, "--top-k", "10", "--json").json
    has_types(values, schema=str, file=str, weights=type(None), predictions=list)
    assert values["schema"] == "pycnn.predict/1"
    (prediction,) = values["predictions"]
    has_types(prediction, image=str, classes=list)
    for entry in prediction["classes"]:
        has_types(entry, **{"class": str, "index": int, "probability": float})
    expected = pycnn.load(model).predict_proba(image)[0]
    found = {entry["index"]: entry["probability"] for entry in prediction["classes"]}
    assert [found[i] for i in range(10)] == pytest.approx(expected.tolist(), abs=1e-6)
    shown = [entry["probability"] for entry in prediction["classes"]]
    assert shown == sorted(shown, reverse=True)


def test_probabilities_in_bfloat16(run, model, digit):
    path, image = digit
    words = ("predict", model, path, "--top-k", "10", "--json")
    values = run(*words, "--dtype", "bfloat16", "--emulate-bfloat16", "--no-winograd").json
    found = {entry["index"]: entry["probability"] for entry in values["predictions"][0]["classes"]}
    expected = pycnn.load(model).predict_proba(image)[0]
    assert [found[i] for i in range(10)] == pytest.approx(expected.tolist(), abs=0.05)
    assert [found[i] for i in range(10)] != expected.tolist()
    result = run(*words, "--dtype", "float16")
    assert result.code == 1
    assert "float16 is computed on GPUs only" in result.err


def test_colour_and_other_sizes_are_converted(run, model, digit, tmp_path):
    path, _ = digit
    large = tmp_path / "large.jpg"
    Image.open(path).convert("RGB").resize((90, 84)).save(large, quality=95)
    classes = [p["classes"][0]["class"] for p in run("predict", model, path, large, "--json").json["predictions"]]
    assert classes[0] == classes[1]


def test_dark_writing_on_white_is_inverted_on_request(run, model, digit, tmp_path):
    path, _ = digit
    inverted = tmp_path / "inverted.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(inverted)
    plain = run("predict", model, path, "--json").json["predictions"][0]["classes"]
    assert run("predict", model, inverted, "--invert", "--json").json["predictions"][0]["classes"] == plain


def test_people_get_one_line_for_each_image(run, model, digit):
    path, _ = digit
    result = run("predict", model, path, path, "--top-k", "2")
    assert result.code == 0
    assert [line.count("%") for line in result.out.splitlines()] == [2, 2]
    assert result.next == f"pycnn bench {model}"


def test_file_that_is_no_image_is_named(run, model, tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    result = run("predict", model, path)
    assert result.code == 1
    assert "notes.png" in result.err


def test_missing_image_is_named(run, model):
    result = run("predict", model, "none.png")
    assert result.code == 1
    assert "No such file or directory: 'none.png'" in result.err


def test_missing_pillow_is_told_with_the_extra_to_install(run, model, digit, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    result = run("predict", model, digit[0])
    assert result.code == 1
    assert "pycnn[image]" in result.err


def test_weights_of_others_go_with_the_name_of_a_net(run, tmp_path):
    net = pycnn.models.create("cifar_resnet20", num_classes=4)
    pycnn.checkpoint.write_tensors(tmp_path / "net.safetensors", net.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "photo.png")
    words = ("predict", "cifar_resnet20", tmp_path / "photo.png", "--weights", tmp_path / "net.safetensors")
    for normalize in ("imagenet", "none"):
        found = run(*words, "--normalize", normalize, "--option", "num_classes=4", "--top-k", "4", "--json").json
        if normalize == "imagenet":
            net.normalization = pycnn.nn.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        else:
            net.normalization = None
        expected = net.predict_proba(pixels)[0]
        values = {c["index"]: c["probability"] for c in found["predictions"][0]["classes"]}
        assert [values[i] for i in range(4)] == pytest.approx(expected.tolist(), abs=1e-6)
    wrong = run(*words, "--normalize", "none")
    assert wrong.code == 1
    assert "'fc.weight' is (4, 64), the net has (10, 64)" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet18", "x.png", "--weights", "w.pth"), "add --normalize imagenet (or none)"),
        (("googlenet", "x.png", "--weights", "w.pth", "--normalize", "imagenet"), "--option transform_input=true"),
        (("net.safetensors", "x.png", "--weights", "w.pth", "--normalize", "none"), "its weights are there already"),
        (("net.safetensors", "x.png", "--normalize", "none"), "--normalize goes with --weights"),
        (("net.safetensors", "x.png", "--option", "num_classes=3"), "--option goes with --weights"),
    ],
)
def test_words_that_do_not_go_together_are_refused(run, words, message):
    result = run("predict", *words)
    assert result.code == 2
    assert message in result.err
