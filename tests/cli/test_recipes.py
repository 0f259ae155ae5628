"""Recipes, ensembles and the comparison of generations on the command line."""

from __future__ import annotations

import json
import os
import signal
import tomllib

import pytest

import pycnn as pc
from pycnn.train import JSONLines

NONE = type(None)


def test_recipes_are_listed(run, has_types):
    result = run("train", "--list-recipes")
    assert result.code == 0
    assert {line.split()[0] for line in result.out.splitlines()} == set(pc.train.recipes())
    values = run("train", "--list-recipes", "--json").json
    assert values["schema"] == "pycnn.recipes/1"
    for entry in values["recipes"]:
        has_types(entry, name=str, net=str, data=str, epochs=int, about=str)


def test_a_recipe_by_name_is_what_is_used_without_one(run):
    result = run("train", "--recipe", "lenet5-digits", "--set", "epochs=1", "--json")
    assert result.next == "pycnn train --recipe lenet5-digits --output lenet5.safetensors keeps the net"
    named = result.json
    plain = run("train", "--epochs", "1", "--json").json
    assert named["recipe"] == "lenet5-digits"
    assert named["weights_fingerprint"] == plain["weights_fingerprint"]
    assert named["batch_size"] == 32


def test_a_recipe_of_ones_own_is_a_file(run, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'net = "lenet5"\nepochs = 1\nbatch_size = 100\nseed = 4\nschedule = "one-cycle"\nlr = 0.1\n'
        'augment = [{ transform = "RandomCrop", padding = 2 }]\n[option]\npool = "max"\n'
    )
    folder = tmp_path / "run"
    values = run("train", "--recipe", path, "--run-dir", folder, "--option", "activation=relu", "--json").json
    assert (values["batch_size"], values["seed"], values["epochs"]) == (100, 4, 1)
    assert values["options"] == {"pool": "max", "activation": "relu"}
    settings = tomllib.loads((folder / "config.toml").read_text())
    assert settings["augment"] == [{"transform": "RandomCrop", "padding": 2}]
    # The run's own settings do the same without the recipe's file.
    path.unlink()
    again = run("train", "--config", folder / "config.toml", "--json").json
    assert again["weights_fingerprint"] == values["weights_fingerprint"]


def test_a_net_of_another_name_takes_the_recipe_without_its_options(run):
    result = run("train", "lenet5_1998", "--recipe", "lenet5-digits", "--set", "lr=0.002", "--epochs", "1", "--json")
    assert result.json["net"] == "lenet5_1998"
    assert result.json["parameters"] == 60000


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--recipe alexnett", ["'alexnett'", "alexnet"]),
        ("--recipe bad.toml", ["bad.toml", "'epochs' is 0", "whole number of at least 1"]),
        ("--recipe odd.toml", ["odd.toml", "no key 'epoch'", "epochs"]),
        ("--recipe any-digits", ["names no net", "NET"]),
        ("--rise 1", ["--rise", "above 0 and below 1"]),
        ("--milestones 3,2", ["--milestones", "increasing"]),
        ("--schedule exp", ["exp", "one-cycle"]),
        ("--set nesterov=maybe", ["'nesterov' must be true or false"]),
        ("--augment sharpest", ["'sharpest'", "crop-mirror"]),
        ("--augment [{transform=\"RandomCorp\"}]", ["'RandomCorp'", "RandomCrop"]),
        ("--augment [{transform=\"RandomCrop\",size=20}]", ["(20, 20, 1)", "(28, 28, 1)"]),
        ("--mean 0.1,0.2 --std 1,2,3", ["'mean'", "'std'"]),
        ("--tensorboard", ["--run-dir"]),
        ("--ensemble 0", ["--ensemble", "'0'"]),
        ("--ensemble 2 --output x.safetensors", [".toml"]),
        ("--ensemble 2 --verify-determinism", ["exclude"]),
    ],
)  # fmt: skip
def test_wrong_usage_names_file_key_value_and_what_was_expected(run, tmp_path, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("epochs = 0\n")
    (tmp_path / "odd.toml").write_text("epoch = 1\n")
    result = run("train", *words.split())
    assert result.code == 2
    assert all(part in result.err for part in parts), result.err


def test_every_way_of_training_is_reachable(run):
    words = (
        "--schedule one-cycle --rise 0.4 --nesterov --label-smoothing 0.1 --clip-norm 1 --ema 0.9 --drop-last "
        "--no-decay bias --mean 0.5 --std 0.25 --dtype float32 --validation 0.1 --momentum 0.8 --epochs 2"
    )
    result = run("train", *words.split(), "--json")
    assert result.code == 0, result.err
    assert result.json["steps"] == 2 * (result.json["train_images"] // 32)
    assert run("train", "--dtype", "float3", "--epochs", "1").code == 2


def test_training_in_bfloat16(run, tmp_path):
    words = ["--dtype", "bfloat16", "--emulate-bfloat16", "--no-winograd", "--epochs", "1", "--seed", "1"]
    result = run("train", *words, "--json", "--output", tmp_path / "net.safetensors")
    assert result.code == 0, result.err
    plain = run("train", "--epochs", "1", "--seed", "1", "--json").json
    assert abs(result.json["test_accuracy"] - plain["test_accuracy"]) < 0.05
    assert result.json["weights_fingerprint"] != plain["weights_fingerprint"]
    measured = run("evaluate", tmp_path / "net.safetensors", "--dtype", "bfloat16", "--emulate-bfloat16", "--json").json
    assert measured["accuracy"] == result.json["test_accuracy"]
    assert ", bfloat16" in result.err


@pytest.mark.skipif(bool(pc.config.machine()["bfloat16_units"]), reason="this processor has a unit for bfloat16")
def test_training_in_bfloat16_without_a_unit_is_refused_before_anything_is_written(run, tmp_path):
    result = run("train", "--dtype", "bfloat16", "--epochs", "1", "--run-dir", tmp_path / "run")
    assert result.code == 1
    assert "AMX or AVX512-BF16" in result.err
    assert "emulate" in result.err
    assert not (tmp_path / "run").exists()


def test_resumed_runs_keep_every_setting(run, tmp_path):
    words = ["--epochs", "3", "--batch-size", "128", "--no-nesterov", "--schedule", "one-cycle", "--option", "pool=max"]
    whole = run("train", *words, "--json").json["weights_fingerprint"]
    folder = tmp_path / "run"
    original = JSONLines.on_epoch_begin

    def interrupt(callback, trainer, epoch):
        original(callback, trainer, epoch)
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONLines, "on_epoch_begin", interrupt)
        assert run("train", *words, "--run-dir", folder).code == 130
    assert run("train", "--resume", folder, "--json").json["weights_fingerprint"] == whole


def test_mean_and_deviation_are_computed_and_kept_as_numbers(run, tmp_path):
    folder, words = tmp_path / "run", ("train", "--epochs", "1", "--json")
    values = run(*words, "--mean", "computed", "--std", "computed", "--validation", "0.2", "--run-dir", folder).json
    settings = tomllib.loads((folder / "config.toml").read_text())
    train, _ = pc.data.digits(seed=0)
    mean, std = pc.data.mean_std(train)
    assert (settings["mean"], settings["std"]) == (list(mean), list(std))
    again = run(*words, "--config", folder / "config.toml").json
    assert again["weights_fingerprint"] == values["weights_fingerprint"]


def test_groups_of_parameters_come_from_a_recipe(run, tmp_path):
    path, folder = tmp_path / "mine.toml", tmp_path / "run"
    path.write_text(
        'net = "lenet5"\nepochs = 1\n[[groups]]\nmatch = "conv*"\nfrozen = true\n'
        '[[groups]]\nmatch = ["fc1", "fc2.weight"]\nlr_scale = 0.5\nweight_decay = 0.0\n'
    )
    kept = run("train", "--recipe", path, "--run-dir", folder, "--output", tmp_path / "n.safetensors", "--json").json
    pc.manual_seed(0)
    fresh, net = pc.models.create("lenet5").build((28, 28, 1)).state_dict(), pc.load(tmp_path / "n.safetensors")
    same = {name for name, array in net.state_dict().items() if (array == fresh[name]).all()}
    assert same == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    again = run("train", "--config", folder / "config.toml", "--json").json
    assert again["weights_fingerprint"] == kept["weights_fingerprint"]
    plain = run("train", "--recipe", path, "--groups", "[]", "--json").json
    assert plain["weights_fingerprint"] != kept["weights_fingerprint"]


# ---- Pictures and event files


def test_plot_draws_where_it_is_told(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    values = run("train", "--epochs", "1", "--plot", "a/b.png", "--json").json
    assert values["curves"] == "a/b.png"
    assert (tmp_path / "a" / "b.png").stat().st_size > 10_000
    assert run("train", "--epochs", "1", "--run-dir", "run", "--plot", "--json").json["curves"] == "run/curves.png"


def test_missing_packages_are_told_before_or_pointed_to(run, tmp_path, monkeypatch):
    for name in ("matplotlib", "tensorboardX"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    result = run("train", "--epochs", "1", "--plot")
    assert result.code == 1
    assert "pycnn[plot]" in result.err
    assert "epoch 1" not in result.err
    result = run("train", "--epochs", "1", "--run-dir", tmp_path / "a", "--tensorboard")
    assert result.code == 1
    assert "pycnn[tensorboard]" in result.err
    monkeypatch.setattr("pycnn.cli._run_folder.find_spec", lambda name: None)
    result = run("train", "--epochs", "1", "--run-dir", tmp_path / "b")
    assert result.code == 0
    assert "pycnn[tensorboard]" in result.err
    assert "pycnn[plot]" in result.err
    assert (tmp_path / "b" / "history.csv").exists()


def test_run_folder_has_events_and_curves(run, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tensorboardX")
    assert run("train", "--epochs", "1", "--run-dir", tmp_path / "run", "--tensorboard").code == 0
    (events,) = (tmp_path / "run").glob("events.out.tfevents.*")
    assert events.stat().st_size > 100
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000


# ---- Ensembles


def test_ensemble_is_trained_measured_saved_and_measured_again(run, tmp_path, has_types):
    listing = tmp_path / "three.toml"
    result = run("train", "--ensemble", "3", "--epochs", "1", "--seed", "5", "--output", listing, "--json")
    values = result.json
    has_types(
        values, schema=str, net=str, data=str, test_images=int, members=list, mean_accuracy=float,
        ensemble_accuracy=float, ensemble_loss=float, output=str, skipped_images=int,
    )  # fmt: skip
    assert values["schema"] == "pycnn.train-ensemble/1"
    assert [member["seed"] for member in values["members"]] == [5, 6, 7]
    assert len({member["weights_fingerprint"] for member in values["members"]}) == 3
    alone = run("train", "--epochs", "1", "--seed", "6", "--json").json
    assert values["members"][1]["weights_fingerprint"] == alone["weights_fingerprint"]
    assert result.next == f"pycnn evaluate {listing} --data digits"

    measured = run("evaluate", listing, "--json").json
    has_types(
        measured, schema=str, files=list, data=str, split=str, images=int, crops=int, accuracy=float, loss=float,
        member_accuracies=list, largest_class=float, seconds=float, skipped_images=int,
    )  # fmt: skip
    assert measured["schema"] == "pycnn.evaluate-ensemble/1"
    assert measured["accuracy"] == values["ensemble_accuracy"]
    assert measured["loss"] == pytest.approx(values["ensemble_loss"])
    files = [tmp_path / f"three-{number}.safetensors" for number in (1, 2, 3)]
    again = run("evaluate", *files, "--ensemble", "--json").json
    assert again["accuracy"] == measured["accuracy"]
    assert json.loads(pc.load(files[0]).metadata["class_names"])[3] == "3"

    several = run("evaluate", *files, "--json").json
    assert several["schema"] == "pycnn.evaluate-several/1"
    assert [net["accuracy"] for net in several["nets"]] == measured["member_accuracies"]
    assert "ensemble of 3" in run("evaluate", listing).out
    assert run("evaluate", listing, files[0]).code == 2


def test_ensemble_is_measured_where_it_was_trained(run, monkeypatch):
    told = []

    def ensemble(nets, **options):
        told.append(options)
        return pc.Ensemble(nets, **options)

    monkeypatch.setattr("pycnn.cli._ensemble.Ensemble", ensemble)
    words = ("train", "--ensemble", "1", "--epochs", "1", "--device", "auto", "--threads", "1", "--no-winograd")
    result = run(*words, "--dtype", "bfloat16", "--emulate-bfloat16", "--json")
    assert result.code == 0
    how = {"dtype": "bfloat16", "emulate_bfloat16": True, "winograd": False, "tf32": False}
    assert told == [{"device": "auto", "threads": 1, **how}]
    (member,) = result.json["members"]
    assert result.json["ensemble_accuracy"] == member["test_accuracy"]
    assert result.json["ensemble_loss"] == pytest.approx(member["test_loss"], rel=1e-4)


def test_interrupted_ensemble_goes_on_where_it_was(run, tmp_path, monkeypatch):
    words = ("train", "--ensemble", "2", "--epochs", "2", "--batch-size", "128")
    whole = run(*words, "--json").json
    folder = tmp_path / "run"
    original = JSONLines.on_epoch_begin

    def interrupt(callback, trainer, epoch):
        original(callback, trainer, epoch)
        if epoch == 1 and callback.path.parent.name == "member-2":
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(JSONLines, "on_epoch_begin", interrupt)
        result = run(*words, "--run-dir", folder)
    assert result.code == 130
    assert f"next: pycnn train --resume {folder}" in result.err
    resumed = run("train", "--resume", folder, "--json").json
    assert [member["weights_fingerprint"] for member in resumed["members"]] == [
        member["weights_fingerprint"] for member in whole["members"]
    ]
    assert resumed["ensemble_accuracy"] == whole["ensemble_accuracy"]
    assert (folder / "ensemble.toml").exists()


# ---- Generations


def test_history_trains_tabulates_and_draws(run, tmp_path, monkeypatch, has_types):
    monkeypatch.chdir(tmp_path)
    words = ("history", "--steps", "2", "--batch-size", "8", "--nets", "lenet5,cifar_alexnet")
    result = run(*words, "--json")
    assert result.code == 0, result.err
    values = result.json
    has_types(
        values, schema=str, data=str, train_images=int, test_images=int, seconds=NONE, steps=int, batch_size=int,
        augment=str, seed=int, nets=list, picture=(str, NONE), skipped_images=int,
    )  # fmt: skip
    assert values["schema"] == "pycnn.history/1"
    assert [net["net"] for net in values["nets"]] == ["lenet5", "cifar_alexnet"]
    assert all(net["images"] == 16 for net in values["nets"])
    if values["picture"]:
        assert (tmp_path / "history.png").stat().st_size > 10_000
        (tmp_path / "history.png").write_bytes(b"of another day")
        assert run(*words, "--json").json["picture"] == "history-2.png"
        assert (tmp_path / "history.png").read_bytes() == b"of another day"
    table = run(*words, "--plot", tmp_path / "own.png").out if values["picture"] else run(*words).out
    assert "61,706" in table
    assert "accuracy" in table.splitlines()[0]


def test_history_tells_its_results_when_drawing_fails(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")

    def fail(*_args, **_named):
        raise OSError("no space left for charts")

    monkeypatch.setattr("pycnn.cli.history.draw_generations", fail)
    words = ("history", "--steps", "1", "--batch-size", "8", "--nets", "lenet5")
    result = run(*words, "--plot", tmp_path / "a.png", "--json")
    assert (result.code, result.json["picture"]) == (1, None)
    assert result.json["nets"][0]["net"] == "lenet5"
    assert "no space left for charts" in result.err
    monkeypatch.setattr("pycnn.cli.history.compare_generations", lambda *_a, **_n: pytest.fail("trained"))
    refused = run(*words, "--plot", tmp_path / "a.txt")
    assert refused.code == 2
    assert ".png" in refused.err


@pytest.mark.parametrize(
    ("words", "part"),
    [("--nets lenet6", "'lenet6'"), ("--steps 3 --seconds 2", "not allowed with"), ("--seconds 0", "above 0"),
     ("--augment sharpest", "'sharpest'")],
)  # fmt: skip
def test_history_refuses_what_it_cannot_do(run, words, part):
    result = run("history", *words.split())
    assert result.code == 2
    assert part in result.err
