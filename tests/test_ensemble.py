"""Ensembles: the mean of the members' probabilities, alone and on the command line's files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn


def softmax(scores):
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def member(seed, classes=4):
    pc.manual_seed(seed)
    try:
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, classes)).build((6, 6, 1))
        return net
    finally:
        pc.manual_seed(0)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return pc.data.ArrayDataset(3 * rng.standard_normal((37, 6, 6, 1), np.float32), rng.integers(0, 4, 37))


def test_probabilities_are_the_mean_of_the_members(data):
    nets = [member(seed) for seed in range(3)]
    expected = np.mean([softmax(net(data.images).astype(np.float64)) for net in nets], axis=0)
    ensemble = pc.Ensemble(nets)
    found = ensemble.predict_proba(data.images, batch_size=10)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(ensemble.predict(data.images), expected.argmax(axis=1))
    assert len(ensemble) == 3


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_every_device_of_the_host_gives_the_same_bits(data, device):
    nets = [member(seed) for seed in range(2)]
    plain, told = pc.Ensemble(nets), pc.Ensemble(nets, device=device, tf32=True)
    np.testing.assert_array_equal(told.predict_proba(data.images), plain.predict_proba(data.images))
    assert told.evaluate(data) == plain.evaluate(data)
    np.testing.assert_array_equal(nets[0].predict(data.images, device=device), nets[0].predict(data.images))


def test_a_loaded_ensemble_runs_as_it_is_told(data, tmp_path):
    nets = [member(seed) for seed in range(2)]
    pc.Ensemble(nets).save(tmp_path / "two.toml")
    how = {"threads": 1, "dtype": "bfloat16", "emulate_bfloat16": True, "winograd": False, "tf32": True}
    loaded = pc.Ensemble.load(tmp_path / "two.toml", device="auto", **how)
    found = loaded.predict_proba(data.images)
    ran = [dict(key[2]) for net in loaded.nets for key in net._private.cache._runners]
    assert ran == [{**how, "device": "cpu", "tf32": False}] * 2
    np.testing.assert_array_equal(found, pc.Ensemble(nets, **how).predict_proba(data.images))
    assert not np.array_equal(found, pc.Ensemble(nets).predict_proba(data.images))
    with pytest.raises(pc.DeviceError, match="device 'cuda:99'"):
        pc.Ensemble.load(tmp_path / "two.toml", device="cuda:99").predict(data.images)
    with pytest.raises(pc.ArgumentError, match="tf32"):
        pc.Ensemble.load(tmp_path / "two.toml", tf32=1)


def test_an_absent_device_is_told_by_every_run(data):
    net = member(0)
    images = data.images
    # The programs of the CPU are there already: they are not those that are asked for.
    pc.Ensemble([net]).predict_proba(images)
    net.predict(images)
    ensemble = pc.Ensemble([net], device="cuda:99")
    for use in (
        lambda: ensemble.predict_proba(images),
        lambda: ensemble.predict(images),
        lambda: ensemble.evaluate(data),
        lambda: pc.train.evaluate_crops(ensemble, data, size=6, crops=2),
        lambda: net.predict(images, device="cuda:99"),
        lambda: net.predict_proba(images, device="cuda:99"),
    ):
        with pytest.raises(pc.DeviceError, match="cuda:99"):
            use()


def test_what_names_no_device_is_refused(data):
    for who, use in {
        "Ensemble": lambda: pc.Ensemble([member(0)], device=0),
        "predict": lambda: member(0).predict(data.images, device=["cuda"]),
        "predict_proba": lambda: member(0).predict_proba(data.images, device=None),
        "Trainer": lambda: pc.Trainer(member(0), device=1),
    }.items():
        with pytest.raises(pc.ArgumentError, match=f"^{who}: device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got "):
            use()
    with pytest.raises(pc.DeviceError, match="'gpu' is unknown"):
        member(0).predict(data.images, device="gpu")


def test_one_program_serves_all_that_computes_the_same(data):
    net = member(0)
    for options in ({}, {"device": "auto"}, {"tf32": True}):
        net.predict(data.images, **options)
    assert len(net._private.cache._runners) == 1
    net.predict(data.images, winograd=False)
    assert len(net._private.cache._runners) == 2


def test_threads_are_those_of_every_run(data):
    net = member(0)
    expected = pc.Ensemble([net], threads=1).predict_proba(data.images)
    pc.Trainer(net, threads=1).predict(data.images)
    assert [runner.program.threads for runner in net._private.cache._runners.values()] == [1, 1]
    np.testing.assert_array_equal(expected, net.predict_proba(data.images))
    for use in (
        lambda: pc.Ensemble([net], threads=0),
        lambda: net.predict(data.images, threads=1.5),
        lambda: net.predict_proba(data.images, threads=-1),
    ):
        with pytest.raises(pc.ArgumentError, match="^threads: "):
            use()


def test_it_is_not_the_mean_of_the_scores():
    sure, unsure = (nn.Sequential(nn.Linear(2, 2, bias=False)).build((2,)) for _ in range(2))
    sure.load_state_dict({"0.weight": np.array([[20.0, 0.0], [0.0, 0.0]], np.float32)})
    unsure.load_state_dict({"0.weight": np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)})
    x = np.array([[1.0, 0.0]], np.float32)
    expected = (np.array([1.0, 0.0]) + softmax(np.array([[0.0, 1.0]]))[0]) / 2
    np.testing.assert_allclose(pc.Ensemble([sure, unsure]).predict_proba(x)[0], expected, atol=1e-6)


def test_measures_agree_with_numpy_and_with_each_net_alone(data):
    nets = [member(seed) for seed in range(3)]
    measured = pc.Ensemble(nets).evaluate(data, batch_size=16)
    mean = np.mean([softmax(net(data.images).astype(np.float64)) for net in nets], axis=0)
    assert measured["accuracy"] == pytest.approx((mean.argmax(axis=1) == data.labels).mean())
    assert measured["loss"] == pytest.approx(-np.log(mean[np.arange(37), data.labels]).mean(), rel=1e-5)
    alone = [pc.Trainer(net).evaluate(data)["accuracy"] for net in nets]
    assert measured["members"] == pytest.approx(alone)


def test_of_one_net_is_the_net(data):
    net = member(0)
    np.testing.assert_array_equal(pc.Ensemble([net]).predict_proba(data.images), net.predict_proba(data.images))


def test_transform_comes_before_the_nets(data):
    wide = pc.data.ArrayDataset(np.pad(data.images, ((0, 0), (1, 1), (1, 1), (0, 0))), data.labels)
    ensemble = pc.Ensemble([member(0), member(1)])
    assert ensemble.evaluate(wide, transform=pc.data.transforms.CenterCrop(6)) == ensemble.evaluate(data)


def test_saved_and_loaded_it_says_the_same(tmp_path, data):
    ensemble = pc.Ensemble([member(seed) for seed in range(2)])
    files = ensemble.save(tmp_path / "two.toml")
    assert [path.name for path in files] == ["two-1.safetensors", "two-2.safetensors"]
    expected = ensemble.predict_proba(data.images)
    for source in (tmp_path / "two.toml", files):
        np.testing.assert_array_equal(pc.Ensemble.load(source).predict_proba(data.images), expected)
    # The paths are relative to the list, so the folder can move.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    np.testing.assert_array_equal(pc.Ensemble.load(moved / "two.toml").predict_proba(data.images), expected)


def test_what_is_no_ensemble_is_refused(tmp_path, data):
    with pytest.raises(pc.ArgumentError, match="no net"):
        pc.Ensemble([])
    with pytest.raises(pc.ArgumentError, match="net 1 is str"):
        pc.Ensemble([member(0), "b.safetensors"])
    with pytest.raises(pc.ShapeError, match=r"net 1 gives \(37, 5\), the nets before \(37, 4\)"):
        pc.Ensemble([member(0), member(1, classes=5)]).predict_proba(data.images)
    with pytest.raises(pc.ShapeError, match="numbers of classes"):
        pc.Ensemble([member(0), member(1, classes=5)]).evaluate(data)
    with pytest.raises(pc.LabelError, match="labels are 0..3, the nets tell 3 classes"):
        pc.Ensemble([member(0, classes=3)]).evaluate(data)
    with pytest.raises(pc.ArgumentError, match=r"\.toml"):
        pc.Ensemble([member(0)]).save(tmp_path / "one.safetensors")


def test_nets_with_other_classes_or_another_order_of_them_are_refused(tmp_path):
    def write(name, classes):
        path = tmp_path / f"{name}.safetensors"
        pc.save(member(0), path, metadata={} if classes is None else {"class_names": json.dumps(classes)})
        return path

    plain, first, same = write("plain", None), write("first", list("abcd")), write("same", list("abcd"))
    assert len(pc.Ensemble.load([plain, first, same])) == 3
    for classes in (list("abdc"), list("abcx")):
        with pytest.raises(pc.ArgumentError) as caught:
            pc.Ensemble.load([plain, first, write("other", classes)])
        assert f"net 2 has the classes {str(classes)[1:-1]}, net 1 has 'a', 'b', 'c', 'd'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("members = = 1\n", "no TOML"),
        ("members = []\n", "one or more files"),
        ('members = "a.safetensors"\n', "one or more files"),
        ("members = [3]\n", "has 3"),
        ('nets = ["a.safetensors"]\n', "'nets'"),
    ],
)
def test_malformed_lists_are_refused(tmp_path, text, part):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(pc.FormatError) as caught:
        pc.Ensemble.load(tmp_path / "list.toml")
    assert part in str(caught.value)
    assert "list.toml" in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(pc.FileError, match=r"none\.toml"):
        pc.Ensemble.load(tmp_path / "none.toml")
    (tmp_path / "list.toml").write_text('members = ["gone.safetensors"]\n')
    with pytest.raises(pc.FileError, match=r"gone\.safetensors"):
        pc.Ensemble.load(tmp_path / "list.toml")
