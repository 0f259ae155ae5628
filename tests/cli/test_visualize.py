"""`pycnn visualize` and `pycnn compare-filters`."""

from __future__ import annotations

import os

import numpy as np
import pytest

import pycnn
from pycnn.inspect import html_report
from pycnn.train import weights_fingerprint

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    _, test = pycnn.data.digits()
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(np.asarray(test.images[0])[:, :, 0]).save(path)
    return path


def test_visualize_writes_a_page_and_pictures(run, model, digit, tmp_path, has_types):
    page, folder = tmp_path / "page.html", tmp_path / "pictures"
    words = (
        "visualize",
        model,
        digit,
        "--output",
        page,
        "--pictures",
        folder,
        "--data",
        "digits",
        "--layers",
        "conv2",
    )
    result = run(*words, "--json")
    assert result.code == 0
    values = result.json
    has_types(values, schema=str, net=str, weights=type(None), images=list, output=str, pictures=list, files=list)
    assert values["schema"] == "pycnn.visualize/1"
    for picture in values["pictures"]:
        has_types(picture, section=str, name=str, bytes=int)
    assert {"attention-0", "maps-0-conv2", "confusion"} <= {picture["name"] for picture in values["pictures"]}
    assert len(values["files"]) == len(values["pictures"]) == len(list(folder.glob("*.png")))
    text = page.read_text(encoding="utf-8")
    assert "digit.png" in text
    assert result.next.startswith("pycnn summary")


def test_fresh_weights_are_said_to_be_fresh(run, digit, tmp_path):
    result = run(
        "visualize", "lenet5", digit, "--output", tmp_path / "p.html", "--class", "3", "--layers", "conv1,pool1"
    )
    assert result.code == 0
    assert "fresh weights" in result.err
    assert "learned nothing" in (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "pictures in" in result.out


def test_weights_of_others_are_looked_into(run, digit, tmp_path, monkeypatch):
    seen = []

    def stub(net, _images, **options):
        seen.append((net, options["notes"]))
        return html_report.Report("", [], "")

    monkeypatch.setattr(html_report, "report", stub)
    net = pycnn.models.create("lenet5", activation="relu").build((28, 28, 1))
    file = tmp_path / "w.safetensors"
    pycnn.checkpoint.write_tensors(file, net.state_dict())
    words = ("visualize", "lenet5", digit, "--weights", file, "--option", "activation=relu")
    result = run(*words, "--normalize", "none", "--output", tmp_path / "p.html", "--json")
    assert result.code == 0
    assert result.json["weights"] == str(file)
    assert "fresh" not in result.err
    ((found, notes),) = seen
    assert weights_fingerprint(found) == weights_fingerprint(net)
    assert f"The weights are those of {file}." in notes


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        ([], 2, ["--output"]),
        (["--output", "no/such/folder/p.html"], 2, ["does not exist"]),
        (["--output", "p.html", "--layers", "conv3"], 1, ["'conv3'", "'conv2'"]),
        (["--output", "p.html", "--class", "seven"], 2, ["'seven'"]),
        (["--output", "p.html", "--class", "12"], 1, ["class 12", "0 to 9"]),
        (["--output", "p.html", "--data-dir", "."], 2, ["--data"]),
    ],
)
def test_wrong_words_are_refused(run, model, digit, tmp_path, monkeypatch, words, code, texts):
    monkeypatch.chdir(tmp_path)
    result = run("visualize", model, digit, *words)
    assert result.code == code
    for text in texts:
        assert text in result.err
    assert not list(tmp_path.glob("*.html"))


def test_data_with_other_classes_is_refused(run, model, digit, photos, tmp_path):
    page = tmp_path / "p.html"
    result = run("visualize", model, digit, "--output", page, "--data", "folder", "--data-dir", photos)
    assert result.code == 1
    assert "the data has dark, light" in result.err
    assert not page.exists()


def test_image_that_is_no_regular_file_is_refused_unread(run, model, tmp_path):
    result = run("visualize", model, os.devnull, "--output", tmp_path / "p.html")
    assert result.code == 1
    assert "regular file" in result.err


def test_filters_are_compared(run, has_types):
    values = run("compare-filters", "7x7", "3x3,3x3,3x3", "--channels", "8", "--size", "14", "--json").json
    has_types(values, schema=str, channels=int, size=list, chains=list)
    assert values["schema"] == "pycnn.compare-filters/1"
    for chain in values["chains"]:
        has_types(
            chain, filters=str, layers=int, weights=int, parameters=int, macs=int, activations=int, receptive_field=list
        )
    assert [chain["weights"] for chain in values["chains"]] == [49 * 64, 27 * 64]
    result = run("compare-filters", "7x7", "3x3,3x3,3x3")
    assert "x 0.55" in result.out
    assert result.next.startswith("pycnn summary")


def test_filters_that_cannot_be_read_are_wrong_usage(run):
    result = run("compare-filters", "7x7", "2x2")
    assert result.code == 2
    assert "odd sides" in result.err
