"""A new user's mistakes: each ends at once, names what was typed, and says what to try."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

import pycnn
from pycnn.cli import _report

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def place(tmp_path):
    """A folder, a picture, a pipe and a file that is no text."""
    (tmp_path / "folder").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "seven.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary.toml").write_bytes(b"\x89PNG")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("train --output {}/folder", 2, "folder' is a folder, expected a file"),
        ("train --output {}/absent/net.safetensors", 2, "its folder does not exist"),
        ("train --run-dir {}/seven.png", 2, "seven.png' is a file, expected a folder"),
        ("train --config {}/binary.toml", 2, "binary.toml' is no TOML"),
        ("train --config {}/absent.toml", 1, "No such file or directory: '{}/absent.toml'"),
        ("train --device cuda", 1, "device 'cuda'"),
        ("train --ensemble 2 --device cuda:99", 1, "device 'cuda:99'"),
        ("history --steps 1 --nets lenet5 --device cuda:99", 1, "device 'cuda:99'"),
        ("evaluate {model} --device cuda:99", 1, "device 'cuda:99'"),
        ("evaluate {model} --ensemble --device cuda:99", 1, "device 'cuda:99'"),
        ("evaluate {model} --mirror --device cuda:99", 1, "device 'cuda:99'"),
        ("evaluate {model} {model} --ensemble --mirror --device cuda:99", 1, "device 'cuda:99'"),
        ("transfer {}/folder --device cuda:99", 1, "device 'cuda:99'"),
        ("visualize {model} {}/seven.png --output {}/page.html --device cuda:99", 1, "device 'cuda:99'"),
        ("summary lenet5 --device cuda", 2, "unrecognized arguments: --device cuda"),
        ("export lenet5 {}/net.onnx --device cpu", 2, "unrecognized arguments: --device cpu"),
        ("data --set device=cuda", 2, "--set: no setting is called 'device'"),
        ("compare-filters 7x7 3x3,3x3 --device=cuda", 2, "unrecognized arguments: --device=cuda"),
        ("train --lr 0", 2, "--lr: '0' is not a number above 0"),
        ("train --lr nan", 2, "'nan'"),
        ("train --data mnist --data-dir {}/folder", 1, "missing train-images-idx3-ubyte"),
        ("train lenet", 2, "lenet5"),
        ("predict {model} {}/pipe", 1, "pipe': not a regular file"),
        ("predict {model} {}/folder", 1, "folder'"),
        ("predict {model} {}/absent.png", 1, "No such file or directory: '{}/absent.png'"),
        ("predict {}/seven.png {model}", 1, "hint: this is an image; the model file comes first"),
        ("evaluate {}/seven.png", 1, "hint: this is an image"),
        ("summary {}/absent.safetensors", 1, "absent.safetensors"),
        ("summary lenet5 --input-shape 1,28,28", 1, "transpose(0, 2, 3, 1)"),
        ("summary lenet5 --html {}/folder", 2, "folder'"),
        ("bench lenet5 --json {}/absent/b.json", 2, "--json '{}/absent/b.json': its folder does not exist"),
        ("bench lenet5 --roofline {}/absent/b.png", 2, "--roofline '{}/absent/b.png': its folder does not exist"),
        ("history --data digits --plot {}/absent/b.png", 2, "--plot '{}/absent/b.png': its folder does not exist"),
        (
            "bench lenet5 --dtype half",
            2,
            "--dtype: invalid choice: 'half' (choose from 'float32', ",
        ),
        ("evaluate {model} --dtype half", 2, "--dtype: invalid choice: 'half'"),
    ],
)
def test_mistake_is_told_before_any_work(run, model, place, words, code, text):
    if "--roofline" in words or "--plot" in words:
        pytest.importorskip("matplotlib")
    result = run(*words.replace("{model}", str(model)).replace("{}", str(place)).split())
    assert result.code == code
    assert text.replace("{}", str(place)) in result.err
    assert not (place / "absent").exists()
    assert "epoch" not in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_errors_of_types_are_told_as_the_others(capsys):
    _report("predict", pycnn.DTypeError("x: array is int32"))
    assert capsys.readouterr().err == "pycnn predict: error: x: array is int32\n"
    _report("predict", TypeError("a slip of ours"))
    assert capsys.readouterr().err == "pycnn predict: error: TypeError: a slip of ours\n"


def test_data_with_another_number_of_classes_is_told(run, photos, tmp_path):
    net = pycnn.models.create("lenet5", in_channels=3)
    net.build((28, 28, 3)).save(tmp_path / "net.safetensors")
    result = run("evaluate", tmp_path / "net.safetensors", "--data", "folder", "--data-dir", photos)
    assert result.code == 0
    assert "tells 10 classes apart, the data has 2" in result.err


def test_test_images_that_were_trained_on_are_told(run, photos, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(photos, tmp_path / part)
    result = run("train", "lenet5", "--data", "folder", "--data-dir", tmp_path, "--epochs", "1", "--quiet")
    assert result.code == 0
    assert "are among the training images too" in result.err
    part = run(
        "train", "lenet5", "--data", "folder", "--data-dir", tmp_path, "--epochs", "1", "--validation", "0.3", "--quiet"
    )
    assert "images of test are among" in part.err


def test_pictures_scaled_otherwise_than_in_training_are_told(run, place):
    rng = np.random.default_rng(0)
    net = pycnn.models.create("lenet5")
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(0.01))
    trainer.step(rng.random((8, 28, 28, 1), np.float32) * 255, rng.integers(0, 10, 8))
    net.save(place / "net.safetensors")
    result = run("predict", place / "net.safetensors", place / "seven.png")
    assert result.code == 0
    assert "but the net was trained on" in result.err
