"""`pycnn evaluate`."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import pycnn
from pycnn.nn import _running
from pycnn.program import compile_traced


def test_evaluate_agrees_with_python(run, model, has_types):
    result = run("evaluate", model, "--json")
    values = result.json
    has_types(
        values, schema=str, file=str, weights=type(None), data=str, split=str, images=int, crops=int,
        skipped_images=int, accuracy=float, loss=float,
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


def test_an_image_and_its_mirror_image_are_averaged(run, model):
    mirrored = run("evaluate", model, "--mirror", "--json").json
    _, test = pycnn.data.digits(seed=0, size=28)
    net = pycnn.load(model)
    images = np.stack([test[i][0] for i in range(len(test))])
    scores = (net.predict_proba(images) + net.predict_proba(np.ascontiguousarray(images[:, :, ::-1]))) / 2
    assert mirrored["accuracy"] == (scores.argmax(axis=1) == test.labels).mean()
    assert mirrored["crops"] == 2
    assert run("evaluate", model, "--mirror", "--ten-crop").code == 2


@pytest.mark.parametrize("words", [(), ("--ten-crop",), ("--ensemble", "--ten-crop"), ("--ensemble",)])
def test_every_way_of_measuring_computes_as_asked(run, model, words):
    files = (model, model) if "--ensemble" in words else (model,)
    plain = run("evaluate", *files, *words, "--json").json
    emulated = ("--dtype", "bfloat16", "--emulate-bfloat16", "--no-winograd")
    lower = run("evaluate", *files, *words, *emulated, "--json").json
    assert abs(lower["accuracy"] - plain["accuracy"]) < 0.02
    assert lower["loss"] != plain["loss"]
    assert lower["loss"] == pytest.approx(plain["loss"], rel=0.05)


@pytest.mark.parametrize("words", [("--mirror",), ("--ten-crop",), ("--ensemble", "--mirror"), ("--ensemble",)])
def test_ensembles_and_crops_run_on_the_threads_that_are_asked_for(run, model, words, monkeypatch):
    given = []

    def told(*arguments, **options):
        given.append(options["threads"])
        return compile_traced(*arguments, **options)

    monkeypatch.setattr(_running, "compile_traced", told)
    assert run("evaluate", model, *words, "--threads", "1").code == 0
    assert set(given) == {1}


def test_larger_images_are_cut_from_the_middle(run, model):
    values = run("evaluate", model, "--image-size", "32", "--json").json
    _, test = pycnn.data.digits(seed=0, size=32)
    middle = pycnn.data.ArrayDataset(np.ascontiguousarray(test.images[:, 2:30, 2:30]), test.labels)
    assert values["loss"] == pytest.approx(pycnn.Trainer(pycnn.load(model)).evaluate(middle)["loss"])


def test_weights_of_others_are_measured_in_a_net_by_name(run, tmp_path, photos):
    net = pycnn.models.create("cifar_resnet20", num_classes=2)
    file = tmp_path / "net.safetensors"
    pycnn.checkpoint.write_tensors(file, net.state_dict())
    words = ("evaluate", "cifar_resnet20", "--weights", file, "--option", "num_classes=2", "--data", "folder")
    folder = ("--data-dir", photos, "--split", "train")
    losses = {}
    for normalize in ("imagenet", "none"):
        result = run(*words, *folder, "--normalize", normalize, "--json")
        losses[normalize] = result.json["loss"]
        assert result.json["weights"] == str(file)
        assert result.next.endswith(f"--weights {file} --normalize {normalize} --option num_classes=2")
    images, _ = pycnn.data.split(pycnn.data.ImageFolder(photos, size=32), 0.2, seed=0)
    assert losses["none"] == pytest.approx(pycnn.Trainer(net).evaluate(images)["loss"])
    net.normalization = pycnn.nn.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert losses["imagenet"] == pytest.approx(pycnn.Trainer(net).evaluate(images)["loss"])
    assert losses["imagenet"] != pytest.approx(losses["none"])
    digest = run(*words, *folder, "--normalize", "none", "--sha256", "0" * 8)
    assert digest.code == 1
    assert "expected 00000000" in digest.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet18",), "'resnet18' is the name of a net, without weights"),
        (("resnet18", "--weights", "w.pth"), "add --normalize imagenet (or none)"),
        (("net.safetensors", "--normalize", "none"), "--normalize goes with --weights"),
        (("net.safetensors", "--option", "num_classes=3"), "--option goes with --weights"),
        (("resnet18", "resnet34", "--weights", "w.pth", "--normalize", "none"), "the name of one net"),
    ],
)
def test_words_about_weights_that_do_not_go_together_are_refused(run, words, message):
    result = run("evaluate", *words)
    assert result.code == 2
    assert message in result.err


# ---- Broken files


@pytest.fixture
def broken(photos, tmp_path):
    """A folder with one file that is no image, which would be held out."""
    root = tmp_path / "broken"
    shutil.copytree(photos, root)
    whole = pycnn.data.ImageFolder(root, size=32)
    _, held_out = pycnn.data.split(whole, 0.2, seed=0)
    bad = whole.paths[held_out.indices[0]]
    bad.write_bytes(b"no picture")
    return root, bad, [whole.paths[i] for i in held_out.indices]


def test_broken_files_are_fatal_or_skipped_and_counted(run, broken, tmp_path, monkeypatch):
    root, bad, held_out = broken
    file = tmp_path / "net.safetensors"
    pycnn.save(pycnn.models.create("cifar_resnet20", num_classes=2), file)
    words = ("evaluate", file, "--data", "folder", "--data-dir", root)
    failed = run(*words, "--json")
    assert failed.code == 1
    assert str(bad) in failed.err
    seen = []
    monkeypatch.setattr("pycnn.train.Trainer.evaluate", recorder(seen))
    skipped = run(*words, "--on-error", "skip", "--json")
    assert (skipped.json["images"], skipped.json["skipped_images"]) == (3, 1)
    assert "skipped 1 of 20 images" in skipped.err
    assert "left out: 1 broken image files" in run(*words, "--on-error", "skip").out
    # The images that are held out are those of the whole folder, but for the broken one.
    data = seen[0]
    assert [data.base.paths[i] for i in data.indices] == [path for path in held_out if path != bad]


def recorder(seen):
    def evaluate(_trainer, data, **_options):
        seen.append(data)
        return {"accuracy": 0.5, "loss": 1.0}

    return evaluate


def test_broken_files_are_looked_for_only_in_the_part_that_is_measured(run, photos, tmp_path):
    root = tmp_path / "parts"
    for part in ("train", "test"):
        shutil.copytree(photos, root / part)
        (root / part / "dark" / "0.png").write_bytes(b"")
    file = tmp_path / "net.safetensors"
    pycnn.save(pycnn.models.create("cifar_resnet20", num_classes=2), file)
    result = run("evaluate", file, "--data", "folder", "--data-dir", root, "--on-error", "skip", "--json")
    assert (result.json["images"], result.json["skipped_images"]) == (19, 1)


def test_training_leaves_broken_files_out_and_passes_it_on(run, broken, tmp_path):
    root, _, _ = broken
    words = ("--data", "folder", "--data-dir", root, "--epochs", "1", "--batch-size", "8", "--augment", "none")
    folder = tmp_path / "run"
    result = run("train", "cifar_alexnet", *words, "--on-error", "skip", "--run-dir", folder, "--json")
    assert (result.json["skipped_images"], result.json["train_images"], result.json["test_images"]) == (1, 16, 3)
    assert result.next.endswith("--on-error skip")
    assert 'on_error = "skip"' in (folder / "config.toml").read_text()
    refused = run("train", "--on-error", "skip")
    assert refused.code == 2
    assert "--on-error skip goes with --data folder" in refused.err
