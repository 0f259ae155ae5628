"""`pycnn evaluate`."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn


def test_evaluate_agrees_with_python(run, model, has_types):
    result = run("evaluate", model, "--json")
    values = result.json
    has_types(
        values, schema=str, file=str, data=str, split=str, images=int, accuracy=float, loss=float,
        largest_class=float, seconds=float, images_per_second=float, weights_fingerprint=str,
    )  # fmt: skip
    assert values["schema"] == "pycnn.evaluate/1"
    _, test = pycnn.data.digits()
    right = (pycnn.load(model).predict(test.images) == test.labels).mean()
    assert values["accuracy"] == pytest.approx(right)
    assert result.next.startswith("pycnn predict")


def test_evaluate_measures_training_images_on_request(run, model):
    assert run("evaluate", model, "--split", "train", "--json").json["images"] == 1347


def test_evaluate_does_not_depend_on_batch_size_or_threads(run, model):
    losses = {
        round(run("evaluate", model, "--batch-size", size, "--threads", threads, "--json").json["loss"], 6)
        for size, threads in ((7, 1), (450, 2))
    }
    assert len(losses) == 1


def test_evaluate_tells_people_right_and_all(run, model):
    result = run("evaluate", model)
    assert "of 450 test images" in result.out
    assert "%" in result.out


def test_evaluate_refuses_data_with_other_classes(run, model, photos):
    result = run("evaluate", model, "--data", "folder", "--data-dir", photos)
    assert result.code == 1
    assert "dark, light" in result.err
    assert "0, 1, 2" in result.err


def test_ten_crops_are_averaged(run, model):
    plain = run("evaluate", model, "--json").json
    ten = run("evaluate", model, "--ten-crop", "--json").json
    _, test = pycnn.data.digits(seed=0, size=32)
    measured = pycnn.train.evaluate_crops(pycnn.load(model), test, size=28)
    assert (ten["accuracy"], ten["loss"]) == pytest.approx((measured["accuracy"], measured["loss"]))
    assert ten["loss"] != plain["loss"]
    both = run("evaluate", model, model, "--ensemble", "--ten-crop", "--json").json
    assert both["accuracy"] == ten["accuracy"]
    refused = run("evaluate", model, "--ten-crop", "--image-size", "28")
    assert refused.code == 2
    assert "28x28" in refused.err
    assert run("evaluate", model, "--image-size", "20").code == 2


def test_larger_images_are_cut_from_the_middle(run, model):
    values = run("evaluate", model, "--image-size", "32", "--json").json
    _, test = pycnn.data.digits(seed=0, size=32)
    middle = pycnn.data.ArrayDataset(np.ascontiguousarray(test.images[:, 2:30, 2:30]), test.labels)
    assert values["loss"] == pytest.approx(pycnn.Trainer(pycnn.load(model)).evaluate(middle)["loss"])
