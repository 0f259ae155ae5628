"""Features of data sets: right, complete, in files that are not used once anything they follow from has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_nets import coloured_images

import pycnn as pc
from pycnn.data import ImageFolder, transforms
from pycnn.errors import ArgumentError, FileError, TrainingError
from pycnn.transfer import Encoder, extract, features


def test_features_do_not_depend_on_batches_and_come_in_order(tiny_net):
    data = coloured_images(11)
    encoder = Encoder(tiny_net, ["layer1", "layer2"])
    expected = encoder(data.images)
    for size in (1, 4, 11, 100):
        found = extract(encoder, data, batch_size=size)
        assert found.layers == ("layer1", "layer2")
        for name in expected:
            assert np.array_equal(found.arrays[name], expected[name]), (size, name)
    assert np.array_equal(found.labels, data.labels)
    assert found.class_names == data.class_names
    assert found.matrix().shape == (11, 16)
    assert np.array_equal(found.matrix(["layer2"]), expected["layer2"])
    assert np.array_equal(features(tiny_net, data.images, "layer2"), expected["layer2"])
    part = found.subset([3, 1])
    assert np.array_equal(part.matrix("layer1"), expected["layer1"][[3, 1]])
    assert part.labels.tolist() == [0, 1]


def test_folder_is_kept_in_files_and_found_again(tiny_net, photos, tmp_path):
    data = ImageFolder(photos / "train", size=12)
    encoder = Encoder(tiny_net, ["layer1", "layer2"])
    store = tmp_path / "new" / "store"
    first = extract(encoder, data, out=store, batch_size=5)
    assert isinstance(first.arrays["layer1"], np.memmap)
    assert not first.cached
    assert np.array_equal(first.matrix(), extract(encoder, data).matrix())
    again = extract(encoder, ImageFolder(photos / "train", size=12), out=store)
    assert again.cached
    assert np.array_equal(again.matrix(), first.matrix())
    assert again.paths == tuple(str(path) for path in data.paths)
    index = json.loads((store / "features.json").read_text())
    assert index["class_names"] == ["blue", "red"]
    assert {path.name for path in store.iterdir()} == {"features.json", *(v["file"] for v in index["layers"].values())}
    # Fewer layers are another cut.
    assert not extract(Encoder(tiny_net, "layer1"), data, out=store).cached


def change_weight(net, folder):
    weight = net.conv1.weight.numpy()
    weight[0, 0, 0, 0] += 1
    net.conv1.weight.copy_(weight)


def change_file(net, folder):
    path = folder / "train" / "red" / "0.png"
    state = path.stat()
    path.write_bytes((folder / "train" / "red" / "1.png").read_bytes())
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def remove_file(net, folder):
    (folder / "train" / "blue" / "3.png").unlink()


def change_statistics(net, folder):
    net.bn1.running_mean.copy_(net.bn1.running_mean.numpy() + 1)


@pytest.mark.parametrize("change", [change_weight, change_statistics, change_file, remove_file])
def test_stale_features_are_not_used(tiny_net, photos, tmp_path, change):
    encoder = Encoder(tiny_net, "layer2")
    before = extract(encoder, ImageFolder(photos / "train", size=12), out=tmp_path / "store").matrix().copy()
    change(tiny_net, photos)
    data = ImageFolder(photos / "train", size=12)
    after = extract(encoder, data, out=tmp_path / "store")
    assert not after.cached
    assert not np.array_equal(before, after.matrix())
    assert np.array_equal(after.matrix(), extract(encoder, data).matrix())
    assert len(list((tmp_path / "store").iterdir())) == 2  # the old array has gone


def test_other_settings_are_other_features_and_the_head_does_not_matter(tiny_net, photos, tmp_path):
    def cached(encoder, size=12, **options):
        return extract(encoder, ImageFolder(photos / "train", size=size), out=tmp_path / "store", **options).cached

    assert not cached(Encoder(tiny_net, "layer2"))
    tiny_net.fc.weight.copy_(tiny_net.fc.weight.numpy() + 1)
    assert cached(Encoder(tiny_net, "layer2"))
    assert not cached(Encoder(tiny_net, "layer2", pool="max"))
    assert not cached(Encoder(tiny_net, "layer2", pool="max", normalize=True))
    assert not cached(Encoder(tiny_net, "layer2"), size=13)
    assert not cached(Encoder(tiny_net, "layer2"), size=13, transform=transforms.CenterCrop(12))
    tiny_net.normalization = pc.nn.Normalize(mean=0.5)
    assert not cached(Encoder(tiny_net, "layer2"), size=13, transform=transforms.CenterCrop(12))


def test_damaged_stores_are_made_anew(tiny_net, tmp_path):
    data, encoder = coloured_images(6), Encoder(tiny_net, "layer2")
    expected = extract(encoder, data).matrix()
    store = tmp_path / "store"
    extract(encoder, data, out=store)
    (array,) = store.glob("*.npy")
    for damage in (
        lambda: array.write_bytes(array.read_bytes()[:50]),
        lambda: array.unlink(),
        lambda: np.save(array, np.zeros((6, 9), np.float32)),
        lambda: (store / "features.json").write_text("{"),
        lambda: (store / "features.json").write_text("[1]"),
    ):
        damage()
        found = extract(encoder, data, out=store)
        assert not found.cached
        assert np.array_equal(found.matrix(), expected)
        del found
    assert extract(encoder, data, out=store).cached


def test_a_store_that_cannot_be_read_again_is_an_error(tiny_net, tmp_path, monkeypatch):
    monkeypatch.setattr("pycnn.transfer.feature_store.write_text", lambda *_: None)
    with pytest.raises(FileError, match="just written cannot be read again"):
        extract(Encoder(tiny_net, "layer2"), coloured_images(6), out=tmp_path / "store")


def test_a_file_that_has_gone_is_named(tiny_net, photos, tmp_path):
    data = ImageFolder(photos / "train", size=12)
    data.paths[3].unlink()
    with pytest.raises(FileError) as error:
        extract(Encoder(tiny_net, "layer2"), data, out=tmp_path / "store")
    assert error.value.filename == str(data.paths[3])


def test_data_sets_know_whether_they_are_the_same(photos):
    data = coloured_images(8)
    other = pc.data.ArrayDataset(data.images.copy(), data.labels)
    assert data.fingerprint() == other.fingerprint()
    other.images[7, 0, 0, 0] += 1
    assert data.fingerprint() != other.fingerprint()
    folder = ImageFolder(photos / "train", size=12)
    same, *others = (
        ImageFolder(photos / "train", **options)
        for options in ({"size": 12}, {"size": 13}, {"size": 12, "channels": 1}, {"size": 12, "fit": "stretch"})
    )
    assert folder.fingerprint() == same.fingerprint()
    assert len({part.fingerprint() for part in (folder, *others)}) == 4
    parts = [pc.data.subset(folder, index) for index in ([0, 1], [0, 1], [1, 0])]
    assert parts[0].fingerprint() == parts[1].fingerprint() != parts[2].fingerprint()

    class Own(pc.data.ReadableDataset):
        labels, class_names, image_shape = np.zeros(3, np.int64), ("a",), (2, 2, 3)

    assert Own().fingerprint() is None
    assert pc.data.subset(Own(), [0]).fingerprint() is None


def test_a_broken_off_extraction_leaves_the_old_store(tiny_net, tmp_path):
    data, encoder = coloured_images(6), Encoder(tiny_net, "layer2")
    extract(encoder, data, out=tmp_path)
    weight = tiny_net.conv1.weight.numpy()
    bad = weight.copy()
    bad[0, 0, 0, 0] = np.nan
    tiny_net.conv1.weight.copy_(bad)
    with pytest.raises(TrainingError, match="layer 'layer2' gives NaN or infinity for image 0"):
        extract(encoder, data, out=tmp_path)
    tiny_net.conv1.weight.copy_(weight)
    assert extract(encoder, data, out=tmp_path).cached
    assert not list(tmp_path.glob("*.tmp.*"))


SCRIPT = """
import os, signal, sys
import numpy as np
import pycnn as pc
from pycnn.transfer import Encoder, extract

class Killer(pc.data.ReadableDataset):
    labels, class_names, image_shape, image_dtype = np.zeros(3, np.int64), ("a",), (8, 8, 3), np.dtype(np.uint8)

    def __len__(self):
        return 3

    def read(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

net = pc.nn.Sequential(pc.nn.Conv2d(3, 4, 3), pc.nn.GlobalAvgPool2d()).build((8, 8, 3))
extract(Encoder(net, "0"), Killer(), out=sys.argv[1], workers=0)
"""


def test_what_a_killed_extraction_left_is_cleared(tiny_net, tmp_path):
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.glob("*.npy.tmp.*")
    living = left.with_suffix(f".{os.getppid()}")
    foreign = tmp_path / f"model.safetensors{left.suffix}"
    for path in (left, living, foreign):
        path.write_bytes(b"")
    data, encoder = coloured_images(6), Encoder(tiny_net, "layer2")
    extract(encoder, data, out=tmp_path)
    assert left.exists()  # fresh: perhaps of another machine
    for path in (left, living, foreign):
        os.utime(path, (1e9, 1e9))
    assert extract(encoder, data, out=tmp_path).cached
    assert not left.exists()
    assert living.exists()
    assert foreign.exists()


def test_mistakes_are_named(tiny_net, tmp_path):
    encoder = Encoder(tiny_net, "layer2")
    with pytest.raises(ArgumentError, match="no layer 'layer1'; there is layer2"):
        extract(encoder, coloured_images(3)).matrix("layer1")
    with pytest.raises(ArgumentError, match="batch_size must be at least 1, got 0"):
        extract(encoder, coloured_images(3), batch_size=0)
    with pytest.raises(ArgumentError, match="no data set"):
        extract(encoder, [1, 2, 3])
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        extract(encoder, coloured_images(3), out=tmp_path / "file")
