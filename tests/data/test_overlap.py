"""Files in training and held-out folders at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import pycnn as pc
from pycnn.data import ArrayDataset, ImageFolder, _overlap, split, subset
from pycnn.data._overlap import shared_files

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


@pytest.fixture
def folders(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        for label in "ab":
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(count):
                colour = (len(part) * 10, ord(label), i * 20)
                Image.new("RGB", (4, 4), colour).save(tmp_path / part / label / f"{i}.png")
    return tmp_path / "train", tmp_path / "val"


def names(pairs):
    return [(own.name, path.name) for own, path in pairs]


@pytest.mark.parametrize("limit", [50_000, 1])
def test_the_same_file_is_found_and_a_copy_unless_there_are_too_many(folders, monkeypatch, limit):
    monkeypatch.setattr(_overlap, "_MAX_FILES", limit)
    train, val = folders
    assert shared_files(ImageFolder(train, size=4), ImageFolder(val, size=4)) == []
    shutil.copy(train / "a" / "1.png", val / "b" / "copy.png")
    (val / "a" / "link.png").symlink_to(train / "a" / "2.png")
    found = names(shared_files(ImageFolder(train, size=4), ImageFolder(val, size=4)))
    assert found == ([("2.png", "link.png"), ("1.png", "copy.png")] if limit > 1 else [("2.png", "link.png")])


def test_parts_of_a_split_share_nothing_and_subsets_what_they_have_in_common(folders):
    data = ImageFolder(folders[0], size=4)
    assert shared_files(*split(data, 0.5)) == []
    assert names(shared_files(subset(data, [0, 1, 2]), subset(data, [2, 5]))) == [("2.png", "2.png")]
    arrays = ArrayDataset(np.zeros((2, 4, 4, 3), np.uint8), [0, 1])
    assert shared_files(arrays, arrays) == []


def test_fit_says_that_validation_images_were_trained_on(folders):
    train, val = (ImageFolder(folder, size=4) for folder in folders)
    trainer = pc.Trainer(pc.nn.Sequential(pc.nn.Flatten(), pc.nn.Linear(48, 2)))
    trainer.fit(train, val=val, epochs=1, progress=False)
    with pytest.warns(UserWarning, match=r"fit: 8 of 8 images of val are among .*the first: '.*0\.png'") as caught:
        trainer.fit(train, val=train, epochs=1, progress=False)
    assert caught[0].filename == __file__
