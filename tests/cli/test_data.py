"""The data command."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest

from pycnn.cli import main

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def photo(path, size, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def photos(tmp_path):
    for n in range(3):
        photo(tmp_path / "train" / "ants" / f"{n}.png", (20 + n, 10), (255, 0, 51))
    photo(tmp_path / "train" / "bees" / "0.png", (8, 30), (255, 0, 51))
    photo(tmp_path / "val" / "ants" / "0.png", (9, 9), (0, 0, 0))
    photo(tmp_path / "val" / "bees" / "0.png", (9, 9), (255, 255, 255))
    return tmp_path


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    return code, *capsys.readouterr()


def test_folder_is_measured(capsys, photos):
    code, out, _ = run(capsys, "--data", "folder", "--data-dir", photos, "--size", 8, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["schema"] == "pycnn.data/1"
    train, val = result["parts"]["train"], result["parts"]["val"]
    assert list(result["parts"]) == ["train", "val"]
    assert (train["images"], train["classes"]) == (4, {"ants": 3, "bees": 1})
    assert train["height"] == {"least": 10, "median": 10.0, "most": 30}
    assert train["width"] == {"least": 8, "median": 20.5, "most": 22}
    np.testing.assert_allclose(train["mean"], [1.0, 0.0, 0.2], atol=1e-12)
    assert train["std"] == [1.0, 1.0, 1.0]
    np.testing.assert_allclose((val["mean"], val["std"]), 0.5, atol=1e-12)
    assert train["broken"] == []
    assert train["image_shape"] == [8, 8, 3]


def test_broken_files_are_named_and_end_in_code_1(capsys, photos):
    bad = photos / "train" / "ants" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    (photos / "train" / "bees" / "x.jpg").write_bytes(b"no picture")
    code, out, err = run(capsys, "--data", "folder", "--data-dir", photos, "--size", 8)
    assert code == 1
    assert "train: 3 images of 2 classes" in out
    assert "broken files: 2" in out
    assert str(bad) in out
    assert "broken files: none" in out
    assert "not a known image format" in out
    assert "warning" not in err
    assert "next: mend or remove the broken files" in err


def test_folder_without_parts_and_other_data_sets(capsys, photos):
    code, out, _ = run(capsys, "--data", "folder", "--data-dir", photos / "train", "--size", 8, "--json")
    assert code == 0
    assert json.loads(out)["parts"]["all"]["images"] == 4
    code, out, err = run(capsys)
    assert code == 0
    assert "train: 1,347 images of 10 classes" in out
    assert "as read: 28x28, 1 channel," in out
    assert "next: pycnn train --data digits" in err


def test_cifar100_is_measured(capsys, tmp_path):
    pixels = np.full((5, 3072), 51, np.uint8)
    for part in ("train", "test"):
        (tmp_path / part).write_bytes(pickle.dumps({"fine_labels": [0, 99, 1, 1, 7], "data": pixels}))
    code, out, _ = run(capsys, "--data", "cifar100", "--data-dir", tmp_path)
    assert code == 0
    assert "train: 5 images of 100 classes" in out
    assert "... and 70 more classes" in out
    assert "mean 0.2000, 0.2000, 0.2000, deviation 1.0000, 1.0000, 1.0000" in out


def test_what_is_missing_is_said(capsys, tmp_path):
    code, _, err = run(capsys, "--data", "folder")
    assert code == 2
    assert "--data folder needs --data-dir" in err
    code, _, err = run(capsys, "--data", "folder", "--data-dir", tmp_path / "none")
    assert code == 1
    assert "is no directory" in err


def test_orientation_counts_in_the_sizes(capsys, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.new("RGB", (30, 10)).save(data, "JPEG", exif=exif)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(data.getvalue())
    _, out, _ = run(capsys, "--data", "folder", "--data-dir", tmp_path, "--size", 8, "--json")
    part = json.loads(out)["parts"]["all"]
    assert (part["height"]["most"], part["width"]["most"]) == (30, 10)
