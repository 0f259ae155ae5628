"""What all commands share: help, exit codes, messages, settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pycnn.cli import COMMANDS

CODE = "import sys; from pycnn.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Where Python finds the installed package, not the sources."""
    monkeypatch.chdir(tmp_path)


def process(*words, **options):
    return subprocess.run(
        [sys.executable, "-P", "-c", CODE, *words], capture_output=True, text=True, timeout=300, **options
    )


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_no_numpy(word):
    code = f"import sys; from pycnn.cli import main; main([{word!r}]); assert 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-P", "-c", code], capture_output=True).returncode == 0


def test_help_names_every_command(run):
    result = run("--help")
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_has_the_common_flags(run, name):
    result = run(name, "--help")
    assert result.code == 0
    for flag in ("--seed", "--json", "--quiet", "--config", "--set"):
        assert flag in result.out
    # What would pass over an option does not have it.
    runs = {"train", "evaluate", "predict", "transfer", "history", "bench"}
    assert ("--device" in result.out) == (name in runs | {"visualize"})
    assert ("--threads" in result.out) == (name in runs | {"launch", "doctor"})
    assert f"pycnn {name}" in result.out.split("options:", 1)[1]  # an example


def test_no_command_is_wrong_usage(run):
    result = run()
    assert result.code == 2
    assert "pycnn train" in result.err
    assert not result.out


def test_misspelt_command_is_put_right(run):
    result = run("evalute")
    assert result.code == 2
    assert "'evalute'" in result.err
    assert "evaluate" in result.err


def test_module_runs_commands_too():
    result = subprocess.run([sys.executable, "-P", "-m", "pycnn", "summary", "lenet5", "--quiet"], capture_output=True)
    assert result.returncode == 0
    assert b"61,706" in result.stdout


@pytest.mark.parametrize("text", ["0", "-1", "abc", "1.5"])
@pytest.mark.parametrize("name", ["train", "bench lenet5"])
def test_bad_thread_count_is_wrong_usage(run, name, text):
    result = run(*name.split(), f"--threads={text}")
    assert result.code == 2
    assert f"--threads: '{text}' is not a whole number of at least 1" in result.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("train lenet6", ["'lenet6'", "lenet5"]),
        ("summary vgg99", ["'vgg99'", "vgg19"]),
        ("train --option colour=1", ["no option 'colour'", "num_classes"]),
        ("train --option colour", ["'colour' is not KEY=VALUE"]),
        ("train --activation gelu", ["'gelu'", "tanh, sigmoid, relu"]),
        ("train --set lrate=1", ["'lrate'", "lr"]),
        ("train --set lr", ["'lr' is not KEY=VALUE"]),
        ("train --set lr=fast", ["--lr", "'fast'"]),
        ("train --set quiet=maybe", ["'quiet' must be true or false", "'maybe'"]),
        ("train --lr 0", ["--lr", "'0' is not a number above 0"]),
        ("train --lr nan", ["'nan'"]),
        ("train --momentum 1", ["'1'", "below 1"]),
        ("train --optimizer adam --momentum 0.5", ["'momentum' goes with optimizer sgd", "adam"]),
        ("train --epochs 0", ["--epochs", "'0'"]),
        ("train --seed -1", ["--seed", "'-1'"]),
        ("train --data mnist", ["--data mnist needs --data-dir"]),
        ("train --data-dir .", ["the digits come along"]),
        ("train --data letters", ["letters", "mnist"]),
        ("train --output no/such/folder/x.safetensors", ["no/such/folder"]),
        ("train --resume no/such/run", ["no/such/run", "config.toml"]),
        ("train --run-dir a --resume b", ["--run-dir", "--resume"]),
        ("summary lenet5 --input-shape 28,28", ["'28,28'", "28,28,1"]),
        ("summary", ["NET"]),
        ("predict x.safetensors", ["IMAGE"]),
        ("bench lenet5 --isa mmx", ["mmx", "avx2"]),
        ("doctor --loud", ["--loud"]),
    ],
)
def test_wrong_usage_is_told_in_few_lines_and_exits_2(run, tmp_path, words, parts):
    result = run(*words.split())
    assert result.code == 2
    assert not result.out
    assert len(result.err.splitlines()) <= 3
    assert all(part in result.err for part in parts), result.err
    assert "--help" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("evaluate none.safetensors", ["none.safetensors", "No such file"]),
        ("evaluate junk.safetensors", ["junk.safetensors", "3 bytes"]),
        ("summary junk.safetensors", ["junk.safetensors"]),
        ("bench junk.safetensors", ["junk.safetensors"]),
        ("train junk.safetensors", ["junk.safetensors"]),
        ("predict junk.safetensors x.png", ["junk.safetensors"]),
        ("train --data mnist --data-dir nowhere", ["nowhere"]),
        ("train --data mnist --data-dir .", ["train-images"]),
        ("train --data cifar10 --data-dir .", ["data_batch_1.bin"]),
        ("train --device abacus", ["abacus"]),
        ("train --config none.toml", ["none.toml"]),
        ("bench lenet5 --compare junk.safetensors", ["junk.safetensors", "JSON"]),
        ("train --lr 1e9 --epochs 2 --quiet", ["nan", "learning rate"]),
    ],
)
def test_failure_is_told_without_traceback_and_exits_1(run, tmp_path, words, parts):
    (tmp_path / "junk.safetensors").write_text("hi\n")
    result = run(*words.split())
    assert result.code == 1
    assert not result.out
    assert all(part in result.err for part in parts), result.err
    assert f"pycnn {words.split()[0]}: error: " in result.err
    assert "Traceback" not in result.err


def test_traceback_comes_when_asked_for(run, monkeypatch):
    monkeypatch.setenv("PYCNN_TRACEBACK", "1")
    result = run("evaluate", "none.safetensors")
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err


def test_wrong_instruction_set_variable_is_named(run, monkeypatch):
    monkeypatch.setenv("PYCNN_MAX_ISA", "mmx")
    result = run("train", "--epochs", "1")
    assert result.code == 1
    assert "PYCNN_MAX_ISA" in result.err
    assert "mmx" in result.err


def test_reader_that_goes_away_is_no_error_message():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-P", "-c", CODE, "summary", "lenet5", "--quiet"], stdout=closed, stderr=subprocess.PIPE
        )
    assert result.returncode == 1
    assert result.stderr == b""


def test_settings_come_from_file_then_set_then_flags(run, tmp_path):
    config = tmp_path / "small.toml"
    config.write_text('net = "lenet5"\nepochs = 3\nbatch-size = 64\nseed = 5\nquiet = true\n[option]\npool = "max"\n')
    words = ("train", "--config", config, "--set", "epochs=2", "--set", "batch_size=100", "--json")
    values = run(*words, "--batch-size", "50").json
    assert (values["epochs"], values["batch_size"], values["seed"]) == (2, 50, 5)
    assert values["options"] == {"pool": "max"}


def test_net_of_a_settings_file_yields_to_a_typed_one(run, tmp_path):
    config = tmp_path / "net.toml"
    config.write_text('net = "lenet5_1998"\n')
    assert run("summary", "--config", config, "--json").code == 2  # NET is needed before settings are read
    assert run("summary", "lenet5", "--config", config, "--json").json["net"] == "lenet5"
    assert run("train", "--config", config, "--epochs", "1", "--json").json["net"] == "lenet5_1998"


def test_broken_settings_file_is_wrong_usage(run, tmp_path):
    config = tmp_path / "broken.toml"
    config.write_text("epochs = = 3\n")
    result = run("train", "--config", config)
    assert result.code == 2
    assert "broken.toml" in result.err
    assert "line 1" in result.err


def test_process_gives_the_exit_code():
    assert process("train", "--threads", "0").returncode == 2
    result = process("evaluate", "none.safetensors")
    assert result.returncode == 1
    assert result.stdout == ""
