"""Saves that go wrong: the error names path and reason, the older file is intact, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.textfile import write_text

SCRIPT = """
import sys
import numpy as np
import pycnn as pc
from pycnn import nn
net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2000)).build((6, 6, 1))
path, value = sys.argv[1], float(sys.argv[2])
while True:
    net[1].bias.copy_(np.full(2000, value, np.float32))
    net[1].weight.copy_(np.full((2000, 36), value, np.float32))
    net.save(path)
    print(value, flush=True)
    value += 2
"""


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).build((6, 6, 1))


@pytest.fixture
def path(tmp_path):
    """An older file, which every failed save must leave as it is."""
    small().save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("absent/net.safetensors", errno.ENOENT),
        ("net.safetensors/x", errno.ENOTDIR),
        ("folder", errno.EISDIR),
        ("folder/", errno.EISDIR),
        ("n" * 300, errno.ENAMETOOLONG),
        ("pipe", errno.EINVAL),
        ("", errno.EISDIR),
    ],
)
def test_path_that_cannot_be_a_file_is_named_with_its_reason(path, name, code):
    folder = path.parent
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    target = os.path.join(folder, name)  # noqa: PTH118 - keeps the slash at the end
    before = {p.name for p in folder.iterdir()}
    for call in (lambda: pc.save(small(), target), lambda: pc.load(target)):
        with pytest.raises(pc.FileError) as caught:
            call()
        assert (caught.value.errno, caught.value.filename) == (code, target)
        assert target in str(caught.value)
    assert {p.name for p in folder.iterdir()} == before


@pytest.mark.parametrize("bad", [None, 3, 1.5, "a\0b", "caf\udce9.safetensors", b"\xff.safetensors"])
def test_what_is_no_path_is_refused_with_its_value(bad):
    for call in (lambda: pc.save(small(), bad), lambda: pc.load(bad)):
        with pytest.raises(pc.ArgumentError, match=r"(save|load): (expected a )?path") as caught:
            call()
        assert isinstance(bad, bytes) or repr(bad) in str(caught.value)


def test_names_in_unicode_bytes_and_of_greatest_length_work(tmp_path):
    net = small()
    for name in ("größe \N{GRINNING FACE}.safetensors", "n" * 255, b"plain.safetensors"):
        target = os.fsencode(tmp_path) + b"/" + name if isinstance(name, bytes) else tmp_path / name
        net.save(target)
        assert np.array_equal(pc.load(target).state_dict()["1.bias"], net.state_dict()["1.bias"])


def test_full_disk_leaves_the_older_file_and_no_other_and_training_may_go_on(path):
    before = path.read_bytes()
    big = nn.Sequential(nn.Flatten(), nn.Linear(36, 2000)).build((6, 6, 1))
    data = (np.zeros((4, 6, 6, 1), np.float32), np.arange(4))
    trainer = pc.Trainer(big, optimizer=optim.SGD(0.1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(pc.FileError) as caught:
            pc.save(big, path)
        with pytest.warns(RuntimeWarning, match="training goes on without this checkpoint"):
            trainer.fit(data, epochs=1, checkpoint_dir=path.parent, progress=False, on_save_error="warn")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    trainer.fit(data, epochs=1, checkpoint_dir=path.parent, progress=False)
    assert (path.parent / "last.safetensors").exists()


@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_small_and_read_only_file_systems(tmp_path, options):
    """The real thing, where the tests may mount."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "pycnn-test", str(tmp_path)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        target = tmp_path / "net.safetensors"
        small().save(target)
        before = target.read_bytes()
        if options == "ro":
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        big = nn.Sequential(nn.Flatten(), nn.Linear(36, 2000)).build((6, 6, 1))
        with pytest.raises(pc.FileError) as caught:
            big.save(target)
        assert caught.value.errno == (errno.EROFS if options == "ro" else errno.ENOSPC)
        assert target.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == [target.name]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where the tests may mount."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "pycnn-test", str(tmp_path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_training_on_a_full_disk_keeps_the_checkpoint_before_and_goes_on_later(small_disk):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1000)).build((6, 6, 1))
    data = (np.zeros((4, 6, 6, 1), np.float32), np.arange(4))
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.1))
    options = {"checkpoint_dir": small_disk, "progress": False, "save_best": False}
    trainer.fit(data, epochs=1, **options)
    last, filler = small_disk / "last.safetensors", small_disk / "filler"
    before = last.read_bytes()
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(pc.FileError) as caught:
        trainer.fit(data, epochs=1, **options)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(last))
    with pytest.raises(pc.FileError) as caught:
        trainer.history.to_csv(small_disk / "h.csv")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(small_disk / "h.csv"))
    assert last.read_bytes() == before
    assert {p.name for p in small_disk.iterdir()} == {"last.safetensors", "filler"}
    filler.unlink()
    again = pc.Trainer(pc.load(last), optimizer=optim.SGD(0.1))
    assert len(again.fit(data, epochs=2, resume=True, **options)) == 2
    assert last.read_bytes() != before


def values(path: Path) -> set[float]:
    """All weights of a whole file are one number."""
    state = pc.load(path).state_dict()
    return {float(v) for array in state.values() for v in np.unique(array)}


def test_killed_at_any_instant_of_a_save_the_older_or_newer_file_loads(tmp_path):
    target = tmp_path / "net.safetensors"
    value, delays = 0.0, (0.0003, 0.0011, 0.0023, 0.0043)
    for delay in delays:
        with subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, str(target), str(value + 2)], stdout=subprocess.PIPE, text=True
        ) as victim:
            for _ in range(3):
                reported = float(victim.stdout.readline())
            time.sleep(delay)
            victim.kill()
            rest = [float(line) for line in victim.stdout if line.endswith("\n")]
        (value,) = values(target)
        assert value >= max([reported, *rest])
    small().save(target)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_of_two_processes_that_save_to_one_path_the_last_wins_whole(tmp_path):
    target = tmp_path / "net.safetensors"
    writers = [
        subprocess.Popen([sys.executable, "-P", "-c", SCRIPT, str(target), value], stdout=subprocess.PIPE)
        for value in ("1", "2")
    ]
    try:
        for writer in writers:
            writer.stdout.readline()
        seen = [values(target) for _ in range(60)]
        end = time.monotonic() + 120
        while {int(*found) % 2 for found in seen} != {0, 1} and time.monotonic() < end:
            seen.append(values(target))
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    assert all(len(found) == 1 for found in seen)
    assert {int(*found) % 2 for found in seen} == {0, 1}


def test_histories_are_written_whole_or_not_at_all(tmp_path):
    history = pc.train.History([{"epoch": i, "loss": 0.5} for i in range(5000)])
    target = tmp_path / "h.csv"
    history.to_csv(target)
    before = target.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(pc.FileError) as caught:
            history.to_csv(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(target))
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["h.csv"]
    with pytest.raises(pc.FileError, match="No such file"):
        history.to_csv(tmp_path / "absent" / "h.csv")
    assert history.to_csv("/dev/null") == before.decode()
    assert not Path("/dev/null").is_file()


class Failing:
    """Lets the n-th of the file operations of `write_text` fail, and counts them."""

    def __init__(self, monkeypatch, code, nth):
        self.code, self.nth, self.count = code, nth, 0
        for owner, name in ((Path, "open"), (os, "fsync"), (Path, "replace"), (os, "open")):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))

    def wrapped(self, original):
        def operation(*args, **named):
            self.count += 1
            if self.count == self.nth:
                raise OSError(self.code, os.strerror(self.code), "somewhere")
            return original(*args, **named)

        return operation


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_whichever_file_operation_fails_a_text_is_the_older_or_the_newer(tmp_path, monkeypatch, code):
    target = tmp_path / "h.csv"
    failures = 0
    for nth in range(1, 20):
        target.write_text("older")
        with monkeypatch.context() as patch:
            failing = Failing(patch, code, nth)
            try:
                write_text(target, "newer")
            except pc.FileError as error:
                failures += 1
                assert (error.errno, error.filename) == (code, str(target))  # noqa: PT017
            else:
                break
        renamed = failing.count > 3  # What fails after the renaming cannot take it back.
        assert target.read_text() == ("newer" if renamed else "older")
        assert [p.name for p in tmp_path.iterdir()] == ["h.csv"]
    assert failures == 5
    assert target.read_text() == "newer"


def test_what_killed_writers_left_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as ended:
        ended.wait()
    stray, living = tmp_path / f"h.csv.tmp.{ended.pid}", tmp_path / f"h.csv.tmp.{os.getppid()}"
    others = [
        tmp_path / name for name in ("h.csv.tmp.x", f"other.csv.tmp.{ended.pid}", "h.csv.tmp.99999999999999999999")
    ]
    for path in (stray, living, *others):
        path.write_text("half")
    write_text(tmp_path / "h.csv", "whole")
    assert stray.exists()  # As young as this, it may be a process of another machine that writes it.
    for path in (stray, living, *others):
        os.utime(path, (path.stat().st_mtime - 4000,) * 2)
    write_text(tmp_path / "h.csv", "whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "h.csv", living, *others}


def test_device_that_is_full_is_named():
    history = pc.train.History([{"epoch": 1, "loss": 0.5}])
    with pytest.raises(pc.FileError) as caught:
        history.to_csv("/dev/full")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    with pytest.raises(pc.FileError) as caught:
        pc.save(small(), "/dev/full")
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "/dev/full")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_that_cannot_be_told_are_an_error(unbuffered):
    variables = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-P", "-m", "pycnn", "compare-filters", "7x7", "3x3,3x3,3x3", "--json"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=variables)
    assert result.returncode == 1
    assert "No space left on device: 'standard output'" in result.stderr
