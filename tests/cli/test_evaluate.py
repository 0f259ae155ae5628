"""`pycnn evaluate`."""

from __future__ import annotations

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
