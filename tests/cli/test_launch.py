"""`pycnn launch`: several ranks by the launcher of MPI."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
from mpi_ranks import environment, finished, mpiexec

from pycnn.cli import launch, main


def plan(*words, **before):
    parser = argparse.ArgumentParser()
    launch.add_arguments(parser)
    parser.add_argument("--threads", type=int)
    mpiexec()
    return launch.prepare(parser.parse_args(words), before)


def test_a_command_and_its_options_go_to_the_launcher():
    command, env = plan("-n", "3", "train", "--epochs", "2", "--json")
    assert Path(command[0]).name == "mpiexec"
    assert command[1:] == ["-n", "3", sys.executable, "-P", "-m", "pycnn", "train", "--epochs", "2", "--json"]
    assert int(env["PYCNN_NUM_THREADS"]) >= 1


def test_processors_are_divided_unless_the_user_says_otherwise():
    assert plan("-n", "3", "--threads", "8", "train")[1]["PYCNN_NUM_THREADS"] == "2"
    assert plan("-n", "9", "--threads", "8", "train")[1]["PYCNN_NUM_THREADS"] == "1"
    assert plan("-n", "3", "train", PYCNN_NUM_THREADS="7")[1]["PYCNN_NUM_THREADS"] == "7"
    assert "PYCNN_NUM_THREADS" not in plan("-n", "3", "train", OMP_NUM_THREADS="7")[1]


def test_a_program_is_run_by_this_python(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("")
    assert plan("-n", "2", str(file), "-n", "5")[0][3:] == [sys.executable, str(file), "-n", "5"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n", "2", "tarin"], "'tarin' is neither a command of pycnn nor a file"),
        (["-n", "2", "none.py"], "there is no file 'none.py'"),
        (["-n", "0", "train"], "not a whole number of at least 1"),
        (["-n", "2", "launch", "-n", "2", "train"], "'launch' is neither"),
        (["train"], "-n/--ranks"),
    ],
)
def test_wrong_usage_is_told(words, text, capsys):
    assert main(["launch", *words]) == 2
    assert text in capsys.readouterr().err


def test_a_rank_launches_nothing(monkeypatch, capsys):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert main(["launch", "-n", "2", "train"]) == 2
    assert "one of several already" in capsys.readouterr().err


def test_without_mpi4py_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["launch", "-n", "2", "train"]) == 1
    assert "pip install 'pycnn[mpi]'" in capsys.readouterr().err


def test_launch_and_mpiexec_are_the_same_thing(tmp_path):
    launcher = mpiexec()
    train = ["train", "--epochs", "1", "--batch-size", "64", "--json"]
    folder = ["--run-dir", "run"]
    pycnn = [sys.executable, "-P", "-m", "pycnn"]
    results = []
    for command in ([*pycnn, "launch", "-n", "2", *train, *folder], [launcher, "-n", "2", *pycnn, *train]):
        outcome = finished(command, environment(), tmp_path)
        assert outcome.code == 0, outcome.err
        lines = [line for line in outcome.out.splitlines() if line.startswith("{")]
        assert len(lines) == 1  # of rank 0 alone
        results.append(json.loads(lines[0]))
        assert outcome.err.count("epoch 1/1") == 1
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1
    assert results[0]["weights_fingerprint"] == results[1]["weights_fingerprint"]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
