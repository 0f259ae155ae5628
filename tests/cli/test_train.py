"""`pycnn train`: results, run folders, interruption, determinism."""

from __future__ import annotations

import json
import os
import signal
import tomllib

import numpy as np
import pytest

import pycnn
from pycnn.train import JSONLines

NONE = type(None)


@pytest.mark.slow
def test_plain_train_reaches_98_percent_on_held_out_digits(run):
    result = run("train", "--json")
    assert result.code == 0
    assert result.json["test_accuracy"] >= 0.98
    assert result.json["test_images"] == 450
    assert result.json["seconds"] < 30
    assert "conv1" in result.err
    assert f"epoch {result.json['epochs']}/" in result.err
    assert result.next.startswith("pycnn train")


def test_train_ends_with_one_line_of_json(run, tmp_path, has_types):
    path = tmp_path / "net.safetensors"
    result = run("train", "lenet5", "--epochs", "1", "--threads", "1", "--output", path, "--json")
    values = result.json
    has_types(
        values, schema=str, net=str, options=dict, parameters=int, data=str, train_images=int, test_images=int,
        test_accuracy=float, test_loss=float, epochs=int, steps=int, batch_size=int, seconds=float,
        images_per_second=float, weights_fingerprint=str, seed=int, threads=int, isa=str, output=str, run_dir=NONE,
        recipe=NONE, curves=NONE, skipped_images=int,
    )  # fmt: skip
    assert values["schema"] == "pycnn.train/1"
    assert (values["parameters"], values["threads"], values["epochs"]) == (61706, 1, 1)
    assert values["weights_fingerprint"] == pycnn.train.weights_fingerprint(pycnn.load(path))
    assert result.next == f"pycnn evaluate {path} --data digits"


def test_quiet_leaves_standard_error_empty(run):
    result = run("train", "--epochs", "1", "--quiet")
    assert result.err == ""
    assert "test accuracy" in result.out


def test_same_seed_gives_the_same_weights_and_another_seed_others(run):
    def weights(seed):
        return run("train", "--epochs", "1", "--seed", seed, "--json").json["weights_fingerprint"]

    assert weights(1) == weights(1) != weights(2)


def test_what_is_computed_again_changes_no_weight(run, tmp_path):
    def weights(*words):
        return run("train", "--epochs", "1", "--json", *words).json["weights_fingerprint"]

    folder = tmp_path / "run"
    assert weights("--recompute", "sqrt", "--run-dir", folder) == weights("--recompute", "none") == weights()
    assert 'recompute = "sqrt"' in (folder / "config.toml").read_text()
    assert run("train", "--recompute", "all").code == 2


def test_saved_net_knows_its_classes_and_where_it_comes_from(model):
    net = pycnn.load(model)
    assert json.loads(net.metadata["class_names"]) == [str(i) for i in range(10)]
    assert net.metadata["net"] == "lenet5"
    assert net.metadata["data"] == "digits"
    assert float(net.metadata["test_accuracy"]) > 0.5


def test_net_of_1998_is_trained_with_the_loss_of_its_paper(run, tmp_path):
    path = tmp_path / "1998.safetensors"
    trained = run("train", "lenet5_1998", "--epochs", "2", "--output", path, "--json").json
    assert trained["parameters"] == 60000
    measured = run("evaluate", path, "--json").json
    assert measured["loss"] == pytest.approx(trained["test_loss"], rel=1e-5)
    assert measured["accuracy"] == trained["test_accuracy"]


@pytest.mark.parametrize(
    "words",
    [
        "--optimizer adamw --schedule step --augment none",
        "--schedule plateau --augment strong --clip-norm 1",
        "--schedule constant --ema 0.9 --validation 0.2 --activation relu --option pool=max",
        "--option input_size=32 --weight-decay 0 --lr 0.1 --batch-size 128",
    ],
)
def test_every_way_of_training_lowers_the_loss(run, words):
    result = run("train", "--epochs", "3", "--json", *words.split())
    assert result.code == 0, result.err
    assert result.json["test_loss"] < 2.3


def test_ema_saves_the_averages_that_were_measured(run, tmp_path):
    path = tmp_path / "ema.safetensors"
    trained = run("train", "--epochs", "2", "--ema", "0.95", "--output", path, "--json").json
    assert run("evaluate", path, "--json").json["accuracy"] == trained["test_accuracy"]


def test_training_goes_on_from_a_file(run, model, tmp_path):
    before = run("evaluate", model, "--json").json["loss"]
    path = tmp_path / "further.safetensors"
    values = run("train", model, "--epochs", "3", "--lr", "0.02", "--output", path, "--json").json
    assert values["net"] == str(model)
    assert values["test_loss"] < before
    assert pycnn.load(path).metadata["net"] == "lenet5"
    assert run("train", model, "--option", "pool=max").code == 2


def test_folder_of_photos_settles_classes_and_channels(run, photos, tmp_path):
    path = tmp_path / "photos.safetensors"
    result = run("train", "--data", "folder", "--data-dir", photos, "--epochs", "2", "--output", path, "--json")
    assert result.json["options"] == {"num_classes": 2, "in_channels": 3}
    assert (result.json["train_images"], result.json["test_images"]) == (16, 4)
    assert run("evaluate", path, "--data", "folder", "--data-dir", photos, "--json").json["images"] == 4
    (line,) = run("predict", path, photos / "dark" / "0.png", "--quiet").out.splitlines()
    assert "dark" in line
    assert "light" in line


def test_folder_with_train_and_test_is_not_divided(run, photos, tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(photos)
    values = run("train", "--data", "folder", "--data-dir", tmp_path, "--epochs", "1", "--json").json
    assert (values["train_images"], values["test_images"]) == (20, 20)


def test_net_that_cannot_tell_so_many_classes_is_refused(run):
    result = run("train", "--option", "num_classes=7")
    assert result.code == 2
    assert "10 classes" in result.err


def test_mnist_files_are_read(run, tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = bytes([0, 0, 8, 1]) + np.array(labels.shape, ">u4").tobytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    result = run("train", "lenet5", "--data", "mnist", "--data-dir", tmp_path, "--epochs", "1", "--json")
    assert (result.json["train_images"], result.json["test_images"]) == (60, 20)
    assert f"--data mnist --data-dir {tmp_path}" in result.next


# ---- Run folders


def test_run_folder_holds_what_is_needed_to_do_it_again(run, tmp_path):
    folder = tmp_path / "run"
    first = run("train", "--epochs", "2", "--seed", "3", "--run-dir", folder, "--json").json
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
    # No best one: without a validation part the test images would choose it.
    always = {"config.toml", "environment.json", "history.csv", "last.safetensors", "metrics.jsonl"}
    assert names - {"curves.png"} == always
    settings = tomllib.loads((folder / "config.toml").read_text())
    assert (settings["epochs"], settings["seed"], settings["net"]) == (2, 3, "lenet5")
    assert "cpu" in json.loads((folder / "environment.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    again = run("train", "--config", folder / "config.toml", "--json").json
    assert again["weights_fingerprint"] == first["weights_fingerprint"]


def test_run_folder_in_use_is_not_overwritten(run, tmp_path):
    (tmp_path / "config.toml").write_text("epochs = 1\n")
    result = run("train", "--run-dir", tmp_path)
    assert result.code == 2
    assert "--resume" in result.err
    assert (tmp_path / "config.toml").read_text() == "epochs = 1\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_run_is_kept_and_resumes_to_the_same_bits(run, tmp_path, monkeypatch, number, code):
    whole = run("train", "--epochs", "3", "--batch-size", "128", "--json").json["weights_fingerprint"]
    original = JSONLines.on_epoch_begin

    def interrupt(callback, trainer, epoch):
        original(callback, trainer, epoch)
        if epoch == 1:
            os.kill(os.getpid(), number)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(JSONLines, "on_epoch_begin", interrupt)
        result = run("train", "--epochs", "3", "--batch-size", "128", "--run-dir", folder)
    assert result.code == code
    assert not result.out
    assert f"next: pycnn train --resume {folder}" in result.err
    resumed = run("train", "--resume", folder, "--json").json
    assert resumed["epochs"] == 3
    assert resumed["weights_fingerprint"] == whole


def test_run_without_folder_says_that_nothing_is_kept(run, monkeypatch):
    def interrupt(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("pycnn.train.trainer.Trainer.fit", interrupt)
    result = run("train")
    assert result.code == 130
    assert "nothing is kept" in result.err


# ---- A finished training is not lost


@pytest.mark.parametrize("more", [(), ("--ensemble", "2")], ids=["one", "ensemble"])
@pytest.mark.parametrize(("name", "part"), [("curves.txt", ".png"), ("curves", ".png"), ("file/a.png", "'file")])
def test_plot_that_cannot_be_written_is_refused_before_training(run, tmp_path, monkeypatch, name, part, more):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("pycnn.train.trainer.Trainer.fit", lambda *_args, **_named: pytest.fail("trained"))
    result = run("train", "--epochs", "1", "--plot", name, *more)
    assert result.code == 2
    assert "--plot" in result.err
    assert part in result.err


@pytest.mark.parametrize("ensemble", [False, True])
def test_net_is_kept_and_results_are_told_when_drawing_fails(run, tmp_path, monkeypatch, ensemble):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def fail(*_args, **_named):
        raise OSError("no space left for curves")

    monkeypatch.setattr("pycnn.train.history.History.plot", fail)
    words = ("--ensemble", "2", "--output", "n.toml") if ensemble else ("--output", "n.safetensors")
    result = run("train", "--epochs", "1", "--plot", "curves.png", *words, "--json")
    assert result.code == 1
    assert "no space left for curves" in result.err
    accuracies = [m["test_accuracy"] for m in result.json["members"]] if ensemble else [result.json["test_accuracy"]]
    files = ["n-1.safetensors", "n-2.safetensors"] if ensemble else ["n.safetensors"]
    assert [pycnn.load(file).metadata["test_accuracy"] for file in files] == [f"{a:.6f}" for a in accuracies]


def test_net_is_kept_when_measuring_fails(run, tmp_path, monkeypatch):
    def fail(*_args, **_named):
        raise OSError("test images are gone")

    monkeypatch.setattr("pycnn.train.trainer.Trainer.evaluate", fail)
    result = run("train", "--epochs", "1", "--output", tmp_path / "n.safetensors")
    assert (result.code, "test images are gone" in result.err) == (1, True)
    metadata = pycnn.load(tmp_path / "n.safetensors").metadata
    assert "test_accuracy" not in metadata
    assert json.loads(metadata["class_names"])[9] == "9"


# ---- Test images do not steer


@pytest.mark.parametrize("way", ["recipe", "option", "early"])
def test_training_that_is_steered_holds_images_out(run, tmp_path, way):
    (tmp_path / "own.toml").write_text('net = "lenet5"\ndata = "digits"\nepochs = 1\nschedule = "plateau"\n')
    words = {
        "recipe": ("--recipe", tmp_path / "own.toml"),
        "option": ("--epochs", "1", "--schedule", "plateau"),
        "early": ("--epochs", "1", "--early-stopping", "2"),
    }[way]
    result = run("train", *words, "--json")
    assert result.json["train_images"] == 1211
    assert "10% of the training images" in result.err
    obeyed = run("train", *words, "--validation", "0", "--json")
    assert obeyed.json["train_images"] == 1347
    assert "steered by the test images" in obeyed.err


def test_validation_of_0_in_a_recipe_file_is_0(run, tmp_path):
    (tmp_path / "own.toml").write_text('net = "lenet5"\nepochs = 1\nschedule = "plateau"\nvalidation = 0\n')
    result = run("train", "--recipe", tmp_path / "own.toml", "--json")
    assert result.json["train_images"] == 1347
    assert "steered by the test images" in result.err


def test_net_that_the_test_images_chose_is_not_suggested(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pycnn.cli._run_folder.find_spec", lambda _name: None)  # Drawing takes time.

    def suggested(name, *words):
        result = run("train", "--epochs", "1", "--run-dir", tmp_path / name, *words, "--json")
        return result, result.next

    result, command = suggested("plain")
    assert command == f"pycnn evaluate {tmp_path / 'plain' / 'last.safetensors'} --data digits"
    assert run(*command.split()[1:], "--json").json["accuracy"] == result.json["test_accuracy"]
    _, command = suggested("held-out", "--validation", "0.1")
    assert (tmp_path / "held-out" / "best.safetensors").is_file()
    assert command == f"pycnn evaluate {tmp_path / 'held-out' / 'best.safetensors'} --data digits"
    result, command = suggested("averages", "--ema", "0.9")
    words = command.removesuffix(" keeps the averaged net").replace(
        "lenet5.safetensors", str(tmp_path / "a.safetensors")
    )
    assert run(*words.split()[1:]).code == 0
    measured = run("evaluate", tmp_path / "a.safetensors", "--json").json
    assert measured["weights_fingerprint"] == result.json["weights_fingerprint"]
    assert measured["accuracy"] == result.json["test_accuracy"]


def test_suggested_measurement_repeats_the_accuracy_on_windows(run, tmp_path):
    (tmp_path / "own.toml").write_text(
        'net = "lenet5"\ndata = "digits"\nepochs = 2\nimage_size = 40\n'
        'augment = [{ transform = "RandomCrop", size = 28 }]\n'
        'test_transform = [{ transform = "CenterCrop", size = 28 }]\n'
    )
    file = tmp_path / "n.safetensors"
    result = run("train", "--recipe", tmp_path / "own.toml", "--output", file, "--json")
    assert result.next == f"pycnn evaluate {file} --data digits --image-size 40"
    measured = run(*result.next.split()[1:], "--json").json
    assert measured["accuracy"] == result.json["test_accuracy"]
    assert measured["loss"] == pytest.approx(result.json["test_loss"])


# ---- Determinism


def test_determinism_check_compares_thread_counts(run, has_types):
    result = run("train", "--verify-determinism", "--json")
    assert result.code == 0
    values = result.json
    has_types(values, schema=str, net=str, data=str, seed=int, steps=int, deterministic=bool, runs=list)
    assert values["schema"] == "pycnn.verify/1"
    assert values["deterministic"]
    assert {1, 2, 3} <= {entry["threads"] for entry in values["runs"]}
    assert len({entry["weights_fingerprint"] for entry in values["runs"]}) == 1


def test_determinism_check_fails_when_bits_differ(run, monkeypatch):
    from pycnn.cli import _determinism

    monkeypatch.setattr(_determinism, "train_steps", lambda plan, threads: f"{threads:016x}")
    result = run("train", "--verify-determinism")
    assert result.code == 1
    assert "DIFFERENT" in result.out
