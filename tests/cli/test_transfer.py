"""`pycnn transfer`."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from tiny_nets import make_tiny_net

import pycnn

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def _one_division_into_folds(monkeypatch):
    """Repeated folds only take time here."""
    monkeypatch.setattr("pycnn.transfer.linear._REPEATS", 1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "tiny.safetensors"
    make_tiny_net().save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """DIR/train/CLASS and DIR/val/CLASS."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(2)
    for part, count in (("train", 10), ("val", 4)):
        for label, name in enumerate(("cats", "dogs")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 140, (20, 16 + i, 3))
                pixels[..., label] += 80
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


def test_all_strategies_are_tabulated_and_the_best_is_a_model(run, encoder, pictures, tmp_path, has_types):
    file, table = tmp_path / "best.safetensors", tmp_path / "table.csv"
    words = ["transfer", pictures, "--net", encoder, "--seeds", 1, "--epochs", 2, "--batch-size", 8]
    result = run(*words, "--output", file, "--csv", table, "--features", tmp_path / "store", "--json")
    assert result.code == 0
    values = result.json
    has_types(
        values,
        schema=str,
        dir=str,
        encoder=str,
        image_size=list,
        epochs=int,
        batch_size=int,
        seed=int,
        seeds=int,
        output=str,
        standard_error=float,
        advice_is_best=bool,
        advice_is_close=bool,
        train_images=int,
        val_images=int,
        class_names=list,
        survey=dict,
        advice=dict,
        strategies=list,
        best=str,
        close_to_best=list,
        seconds=float,
        written=str,
    )
    assert values["schema"] == "pycnn.transfer/1"
    assert values["train_images"] == 20
    assert values["val_images"] == 8
    assert values["image_size"] == [12, 12]
    names = [row["strategy"] for row in values["strategies"]]
    assert names[0] == "scratch"
    assert len(names) == 8
    assert values["advice"]["strategy"] in names
    assert values["best"] == max(values["strategies"], key=lambda row: row["mean"])["strategy"]
    with table.open(newline="") as rows:
        assert [row["strategy"] for row in csv.DictReader(rows)] == names
    net = pycnn.load(file)
    assert net.metadata["class_names"] == '["cats", "dogs"]'
    assert result.next == f"pycnn predict {file} IMAGE"
    predicted = run("predict", file, pictures / "val" / "dogs" / "0.png", "--json")
    assert predicted.code == 0
    assert {c["class"] for c in predicted.json["predictions"][0]["classes"]} == {"cats", "dogs"}
    evaluated = run("evaluate", file, "--data", "folder", "--data-dir", pictures, "--json")
    assert evaluated.code == 0
    written = next(row for row in values["strategies"] if row["strategy"] == values["written"])
    assert evaluated.json["accuracy"] == pytest.approx(written["accuracies"][0])
    again = run(*words, "--features", tmp_path / "store", "--strategies", "advised", "--similarity", "similar")
    assert again.code == 0
    assert "advice: linear-top" in again.out
    assert "linear classifier on the top layer" in again.out


def test_the_encoder_that_comes_along_and_a_folder_without_parts(run, pictures):
    result = run("transfer", pictures / "train", "--size", 24, "--strategies", "nearest,linear-stages", "--seeds", 2)
    assert result.code == 0
    assert "16 pictures to learn from and 4 held out, 2 classes, 24x24 pixels" in result.err
    assert "layer1 + layer2 + layer3" in result.err
    assert "mean and deviation of 2 seeds on 4 held-out images" in result.out
    assert result.next.startswith("pycnn transfer")


def test_weights_of_a_net_by_name(run, pictures, tmp_path):
    pycnn.models.create("cifar_resnet20", num_classes=10).save(tmp_path / "r.safetensors")
    words = ["transfer", pictures, "--net", "cifar_resnet20", "--size", "16", "--strategies", "nearest", "--seeds", 1]
    result = run(*words, "--weights", tmp_path / "r.safetensors", "--normalize", "imagenet", "--json")
    assert result.code == 0
    assert result.json["encoder"].startswith("cifar_resnet20 with ")


def test_mistakes_are_told(run, encoder, pictures, tmp_path):
    for words, code, text in (
        (["--strategies", "magic"], 2, "'magic' is none of scratch, nearest"),
        (["--net", "resnet18"], 2, "fresh weights has nothing to transfer; add --weights FILE"),
        (["--net", "resnet18", "--weights", encoder], 2, "add --normalize imagenet, or none"),
        (["--net", encoder, "--weights", encoder], 2, "its weights are there already"),
        (["--normalize", "imagenet"], 2, "--normalize goes with --net NAME --weights FILE"),
        (["--similarity", "alike"], 2, "not similar, different, or a number from 0 to 1"),
        (["--net", encoder, "--layers", "layer1,layer7"], 2, "no layer is called 'layer7'"),
        (["--output", tmp_path / "no" / "net.safetensors"], 2, "its folder does not exist"),
        (["--net", tmp_path / "none.safetensors"], 1, "No such file"),
    ):
        result = run("transfer", pictures, *words)
        assert (result.code, text in result.err) == (code, True), result.err
    assert "is no directory" in run("transfer", tmp_path / "none").err
    (tmp_path / "one" / "cats").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (20, 20)).save(tmp_path / "one" / "cats" / f"{i}.png")
    result = run("transfer", tmp_path / "one")
    assert result.code == 1
    assert "there is only the class cats; nothing to tell apart" in result.err
    (tmp_path / "one" / "dogs").mkdir()
    assert "class 'dogs' has no images" in run("transfer", tmp_path / "one").err
    for part, names in (("train", "ab"), ("val", "ac")):
        for name in names:
            (tmp_path / "two" / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / "two" / part / name / "0.png")
    assert "classes of train and val differ: a, b; a, c" in run("transfer", tmp_path / "two").err
