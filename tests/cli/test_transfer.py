"""`pycnn transfer`."""

from __future__ import annotations

import csv
import errno
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_nets import make_tiny_net

import pycnn
from pycnn.cli.transfer import _verdict
from pycnn.errors import FileError
from pycnn.transfer import Comparison, StrategyResult

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("sklearn.linear_model")


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
        skipped_images=int,
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
    file = tmp_path / "r.safetensors"
    pycnn.models.create("cifar_resnet20", num_classes=10).save(file)
    words = ["transfer", pictures, "--net", "cifar_resnet20", "--weights", file, "--size", "16,16", "--seeds", 1]
    words += ["--layers", "layer3", "--strategies", "nearest,linear-top"]
    seen = {}
    for normalize in ("imagenet", "none"):
        result = run(*words, "--normalize", normalize, "--features", tmp_path / normalize, "--json")
        assert result.code == 0
        assert result.json["encoder"] == f"cifar_resnet20 with {file}"
        (stored,) = (tmp_path / normalize / "train").glob("layer3-*.npy")
        seen[normalize] = np.load(stored)
    assert result.next == (
        f"pycnn transfer {pictures} --net cifar_resnet20 --weights {file} --normalize none --size 16,16 "
        "--layers layer3 --strategies linear-top --output net.safetensors"
    )
    for normalize, features in seen.items():
        net = pycnn.models.create("cifar_resnet20", weights=file)
        if normalize == "imagenet":
            net.normalization = pycnn.nn.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        images = pycnn.data.ImageFolder(pictures / "train", size=16)
        assert np.array_equal(pycnn.transfer.extract(pycnn.transfer.Encoder(net, "layer3"), images).matrix(), features)
    assert not np.array_equal(seen["imagenet"], seen["none"])


def test_broken_files_are_left_out_on_request(run, encoder, pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "train" / "cats" / "broken.png").write_bytes(b"no picture")
    words = ["transfer", folder, "--net", encoder, "--strategies", "linear-top", "--seeds", 1]
    result = run(*words)
    assert result.code == 1
    assert "broken.png" in result.err
    result = run(*words, "--on-error", "skip", "--json")
    assert result.code == 0
    assert (result.json["skipped_images"], result.json["train_images"]) == (1, 20)
    assert result.next.endswith("--on-error skip --strategies linear-top --output net.safetensors")
    assert "left out: 1 broken image files" in run(*words, "--on-error", "skip").out


def test_a_full_disk_does_not_lose_the_table(run, encoder, pictures, tmp_path, monkeypatch):
    def full(*_):
        raise FileError(errno.ENOSPC, "No space left on device", "net.safetensors")

    monkeypatch.setattr("pycnn.transfer.Comparison.save_best", full)
    words = ["transfer", pictures, "--net", encoder, "--strategies", "linear-top", "--seeds", 1, "--json"]
    result = run(*words, "--output", tmp_path / "net.safetensors", "--csv", tmp_path / "table.csv")
    assert result.code == 1
    assert "No space left on device: 'net.safetensors'" in result.err
    assert result.json["strategies"][0]["strategy"] == "linear-top"
    assert result.json["written"] is None
    assert (tmp_path / "table.csv").exists()
    monkeypatch.setattr("pycnn.transfer.Comparison.to_csv", full)
    result = run(*words, "--csv", tmp_path / "table.csv")
    assert result.code == 1
    assert result.json["best"] == "linear-top"


def test_nearest_neighbours_are_no_net_to_keep(run, encoder, pictures, tmp_path):
    words = ["transfer", pictures, "--net", encoder, "--strategies", "nearest", "--seeds", 1]
    assert run(*words).next.endswith(f"--net {encoder} --strategies advised --output net.safetensors")
    result = run(*words, "--output", tmp_path / "net.safetensors")
    assert (result.code, result.out) == (2, "")
    assert "--strategies nearest gives no net to write; add another one" in result.err
    assert "pictures to learn from" not in result.err


@pytest.mark.parametrize(
    ("advised", "accuracies", "ending"),
    [
        ("linear-top", {"nearest": 0.8, "linear-top": 0.9}, "(90.0 %): the advice is the best found"),
        ("nearest", {"nearest": 0.86, "linear-top": 0.9}, "; the held-out pictures are too few to tell the two apart"),
        ("nearest", {"nearest": 0.8, "linear-top": 0.9}, "linear-top (90.0 %): here the advice is not the best"),
        # Nothing to compare with: only what is advised, and why.
        ("nearest", {"scratch": 0.8, "linear-top": 0.9}, "advice: nearest: little data (50 images of a class)"),
        ("nearest", {"nearest": 0.8}, "advice: nearest: little data (50 images of a class)"),
    ],
)
def test_the_verdict_compares_the_advice_with_what_was_found(advised, accuracies, ending):
    rows = tuple(StrategyResult(n, (a,), 1.0, np.zeros(100, bool), None) for n, a in accuracies.items())
    found = SimpleNamespace(advice=replace(pycnn.transfer.advise(100, 2, "similar"), strategy=advised))
    assert ending in _verdict(found, Comparison(rows, 100, ("a", "b")))


def test_mistakes_are_told(run, encoder, pictures, tmp_path):
    for words, code, text in (
        (["--strategies", "magic"], 2, "'magic' is none of scratch, nearest"),
        (["--net", "resnet18"], 2, "the name of a net, without weights; give a model file, or --weights FILE too"),
        (["--net", "resnet18", "--weights", encoder], 2, "add --normalize imagenet (or none)"),
        (["--net", encoder, "--weights", encoder], 2, "its weights are there already"),
        (["--normalize", "imagenet"], 2, "--normalize goes with --net NAME"),
        (["--weights", encoder], 2, "--weights goes with --net NAME"),
        (["--net", encoder, "--sha256", "01234567"], 2, "--sha256 goes with --weights"),
        (
            ["--net", "googlenet", "--weights", encoder, "--normalize", "imagenet"],
            2,
            "add --option transform_input=true",
        ),
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


def test_an_absent_device_is_told_before_anything_else(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pycnn.cli.transfer.optional", lambda *_a, **_n: pytest.fail("scikit-learn was asked for"))
    result = run("transfer", tmp_path, "--device", "cuda:99")
    assert result.code != 0
    assert "device 'cuda:99'" in result.err
