"""`pycnn evaluate` and `pycnn summary`."""

from __future__ import annotations

import pytest

import pycnn

NONE = type(None)


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


def test_summary_shows_the_table(run):
    result = run("summary", "lenet5", "--input-shape", "28,28,1", "--batch", "32")
    assert result.code == 0
    assert "61,706" in result.out
    assert "(32, 28, 28, 6)" in result.out
    assert result.next == "pycnn bench lenet5"


def test_summary_as_json(run, has_types):
    values = run("summary", "lenet5_1998", "--json").json
    has_types(
        values, schema=str, net=str, name=str, input_shape=list, rows=list, parameters=int, frozen=int, buffers=int,
        macs=int, other_flops=int, activation_bytes=int,
    )  # fmt: skip
    assert values["schema"] == "pycnn.summary/1"
    assert values["parameters"] == 60000
    has_types(
        values["rows"][0], layer=str, kind=str, output=list, parameters=int, macs=int, other_flops=int,
        activation_bytes=int, receptive_field=(list, NONE), stride=(list, NONE),
    )  # fmt: skip


def test_summary_of_a_file_lists_its_layers_like_the_net(run, model):
    file, name = (run("summary", net, "--json").json for net in (model, "lenet5"))
    assert (file["parameters"], file["macs"]) == (name["parameters"], name["macs"])
    fields = {row["layer"]: row["receptive_field"] for row in file["rows"]}
    assert fields["conv2"] == [14, 14]


def test_summary_refuses_a_shape_that_does_not_fit(run):
    result = run("summary", "lenet5", "--input-shape", "28,28,3")
    assert result.code == 1
    assert "conv1" in result.err
