"""The C++ and C packages as a stranger uses them: the examples built against every kind of install, and run."""

from __future__ import annotations

import io
import os
import re
import subprocess

import numpy as np
import pytest
from embed_builds import fails, run
from PIL import Image

import pycnn
from pycnn.config import machine
from pycnn.data._decode import decode

STATIC_LIBRARY = "libpycnn.a"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def columns(output: str, *names: str) -> list[list[float]]:
    """The numbers that follow these words, line by line."""
    return [[float(re.search(rf"{name} (\S+)", line)[1]) for name in names] for line in output.splitlines()]


# ---- Every example, with every kind of install


def test_train_from_scratch_then_classify_and_load_in_python(any_use, digits, tmp_path):
    model = tmp_path / "lenet5.safetensors"
    losses = columns(run(any_use.cpp / "train_lenet", digits.images, digits.labels, "3", model), "loss")
    assert len(losses) == 3
    assert losses[-1][0] < 0.7 * losses[0][0]
    net = pycnn.load(model)
    assert net.num_parameters == 61_706
    lines = run(any_use.cpp / "classify", model, digits.images, "32").splitlines()
    images = np.asarray(digits.train.images)[:32]
    assert [int(line.split()[1]) for line in lines] == net.predict(images).tolist()
    probabilities = np.array([float(line.split()[2]) for line in lines])
    np.testing.assert_allclose(probabilities, net.predict_proba(images).max(axis=1), atol=6e-5)


def test_a_device_that_is_not_there_is_an_error_of_the_program(wheel_examples, digits, tmp_path):
    """With a GPU, of one that no machine has."""
    model = tmp_path / "lenet5.safetensors"
    device = "cuda:63" if "cuda:0" in machine()["devices"] else "cuda:0"
    message = fails(wheel_examples.cpp / "train_lenet", digits.images, digits.labels, "1", model, device)
    assert message.startswith("train_lenet: ")
    assert device in message or "CUDA" in message
    assert not model.exists()


@pytest.mark.cuda
def test_train_on_a_gpu_as_on_the_cpu(wheel_examples, digits, tmp_path):
    def losses(*device: str) -> list[list[float]]:
        program = wheel_examples.cpp / "train_lenet"
        return columns(run(program, digits.images, digits.labels, "2", tmp_path / "model.safetensors", *device), "loss")

    np.testing.assert_allclose(losses("cuda:0"), losses(), rtol=0.02)


def test_classify_a_photograph(any_use, trained, digits, tmp_path):
    photo = tmp_path / "photo.pgm"
    Image.fromarray(np.asarray(digits.test.images)[0, ..., 0]).save(photo)
    output = run(any_use.cpp / "classify_photo", trained, photo)
    best = pycnn.load(trained).predict(np.asarray(digits.test.images)[:1])[0]
    assert output.startswith(f"{photo}: {NAMES[best]} ")


def test_serve_from_eight_threads(any_use, trained):
    output = run(any_use.cpp / "serve", trained, "8", "50")
    assert output.startswith("threads 8 runs 400 different 0 failed 0\n")


def test_fine_tune_the_head_of_a_python_model(any_use, with_batch_norm, digits, tmp_path):
    changed = tmp_path / "five.safetensors"
    output = run(any_use.cpp / "finetune_head", with_batch_norm, digits.images, digits.labels, "5", "4", changed)
    history = columns(output, "loss", "accuracy")
    assert history[-1][0] < history[0][0]
    assert history[-1][1] > 0.9
    before, after = pycnn.load(with_batch_norm), pycnn.load(changed)
    old, new = dict(before.named_tensors()), dict(after.named_tensors())
    assert old.keys() == new.keys()
    for name, tensor in new.items():
        same = tensor.shape == old[name].shape and np.array_equal(tensor.numpy(), old[name].numpy())
        assert same == (name not in pycnn.nn.heads.head_names(before)), name
    images, labels = np.asarray(digits.test.images), np.asarray(digits.test.labels)
    few = labels < 5
    assert np.mean(after.predict(images[few]) == labels[few]) > 0.9


def test_memory_budget(any_use, trained):
    budget = 4_000_000
    output = run(any_use.cpp / "memory_budget", trained, str(budget))
    batch = int(re.search(r"inference: batch (\d+)", output)[1])
    assert batch > 1
    assert int(re.search(r"a run takes (\d+) of", output)[1]) <= budget
    assert f"batch {batch + 1} was refused" in output
    assert int(re.search(r"it wants (\d+) bytes", output)[1]) > budget
    trained_with = {kind: int(n) for kind, n in re.findall(r"recompute (\w+): batch (\d+)", output)}
    assert 0 < trained_with["cheap"] <= trained_with["sqrt"]


def test_c_example_runs_and_trains(any_use, trained, digits, tmp_path):
    out = tmp_path / "trained.safetensors"
    output = run(any_use.c / "digits", trained, digits.images, digits.labels, "80", out)
    right = [int(n) for n in re.findall(r"(\d+) of 64 right", output)]
    losses = [float(n) for n in re.findall(r"loss (\S+)", output)]
    assert len(right) == 2
    assert right[1] > right[0]
    assert losses[1] < losses[0]
    # Python reads the file, training state and all.
    images = np.asarray(digits.train.images)[:64]
    assert np.sum(pycnn.load(out).predict(images) == np.asarray(digits.train.labels)[:64]) == right[1]


# ---- What the examples promise, once


def test_photographs_are_cut_and_scaled_as_python_does(wheel_examples, trained, tmp_path):
    ramp = np.add.outer(np.arange(90) * 2.0, np.arange(150)).astype(np.uint8)
    color = np.stack([ramp, 255 - ramp, ramp // 2], axis=-1)
    color[20:70, 60:80] = 250
    net = pycnn.load(trained)
    Image.fromarray(color).save(tmp_path / "wide.ppm")
    Image.fromarray(color).save(tmp_path / "wide.jpg", quality=95)
    grey = decode((tmp_path / "wide.ppm").read_bytes(), where="wide.ppm", channels=1, size=(28, 28))
    scores = net.predict_proba(grey[None])[0]
    for name in ("wide.ppm", "wide.jpg"):
        command = [wheel_examples.cpp / "classify_photo", trained, tmp_path / name]
        result = subprocess.run(command, capture_output=True, text=True)
        if name == "wide.jpg" and "without libjpeg" in result.stderr:
            continue
        assert result.returncode == 0, result.stderr
        assert f": {NAMES[scores.argmax()]} " in result.stdout
        assert float(result.stdout.split()[-1]) == pytest.approx(scores.max(), abs=0.005)


def test_examples_say_what_is_wrong_and_end_with_one(wheel_examples, trained, digits, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a model")
    cpp = wheel_examples.cpp
    assert "bad.safetensors" in fails(cpp / "classify", bad, digits.images)
    assert "nowhere.ppm" in fails(cpp / "classify_photo", trained, tmp_path / "nowhere.ppm")
    assert "bad.safetensors: is neither" in fails(cpp / "classify_photo", trained, bad)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00")
    assert "cut.jpg" in fails(cpp / "classify_photo", trained, tmp_path / "cut.jpg")
    # One whose error comes after its pixels.
    whole = io.BytesIO()
    Image.new("L", (20, 20), 99).save(whole, "JPEG")
    (tmp_path / "late.jpg").write_bytes(whole.getvalue()[:-2] + b"\xff\xc4\x00\x01\xff\xd9")
    assert "late.jpg: " in fails(cpp / "classify_photo", trained, tmp_path / "late.jpg")
    (tmp_path / "cut.ppm").write_bytes(b"P6\n# a comment\n20 20\n255\n123")
    assert "ends inside its pixels" in fails(cpp / "classify_photo", trained, tmp_path / "cut.ppm")
    (tmp_path / "huge.ppm").write_bytes(b"P6\n100000 100000\n255\n")
    assert "100000 x 100000" in fails(cpp / "classify_photo", trained, tmp_path / "huge.ppm")
    assert "bad.safetensors" in fails(cpp / "serve", bad)
    out = tmp_path / "out.safetensors"
    assert "num_classes" in fails(cpp / "finetune_head", trained, digits.images, digits.labels, "0", "1", out)
    error = fails(wheel_examples.c / "digits", bad, digits.images, digits.labels, "1", out)
    assert error.startswith("digits: FormatError: ")
    assert not out.exists()


@pytest.mark.slow
def test_memory_is_flat_and_bits_are_the_same_over_many_runs(wheel_examples, trained):
    output = run(wheel_examples.cpp / "serve", trained, "8", "1000")
    assert "different 0 failed 0" in output
    before, after = (int(n) for n in re.search(r"(\d+) after warm-up, (\d+) at the end", output).groups())
    # Threads may have met less in the warm-up: a working space is made when more run at a time than ever before.
    space = int(re.search(r"working space of a run: (\d+) KiB", output)[1])
    assert after - before <= 8 * space + 128


def test_target_brings_only_include_path_standard_and_libraries(root, cmake_dir):
    text = (cmake_dir / "pycnnTargets.cmake").read_text()
    assert "INTERFACE_COMPILE_OPTIONS" not in text
    assert "INTERFACE_COMPILE_FEATURES" in text
    assert os.fspath(root) not in text


@pytest.mark.slow
def test_a_static_install_has_no_shared_library(static_prefix):
    assert list(static_prefix.rglob(STATIC_LIBRARY))
    assert not list(static_prefix.rglob("libpycnn.so*"))
