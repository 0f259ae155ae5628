"""Text files that are written whole or not at all, and what killed writers left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pycnn.errors import FileError
from pycnn.textfile import write_text


def test_a_file_is_replaced_whole_through_links(tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "é\n")
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "é\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "real.csv"]
    with pytest.raises(FileError):
        write_text(tmp_path / "missing" / "file.csv", "text")


def test_threads_that_write_to_one_path_do_not_meet(tmp_path, monkeypatch):
    target, both, replace, errors = tmp_path / "h.csv", threading.Barrier(2), Path.replace, []

    def late(self, final):
        both.wait(60)  # until both have written
        return replace(self, final)

    def write(text):
        try:
            write_text(target, text)
        except FileError as error:
            errors.append(error)

    monkeypatch.setattr(Path, "replace", late)
    texts = ["a" * 1000, "b" * 3000]
    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert target.read_text() in texts
    assert list(tmp_path.iterdir()) == [target]


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-P", "-c", ""])
    ended.wait()
    old = {
        f"a+b.csv.tmp.{ended.pid}": False,
        f"a+b.csv.tmp.{ended.pid}-7": False,
        f"a+b.csv.tmp.{os.getpid()}-999999": False,  # of an earlier process of this number
        f"a+b.csv.tmp.{os.getppid()}": True,  # lives
        f"a+b.csv.tmp.{2**70}": True,  # no process's number
        f"aab.csv.tmp.{ended.pid}": True,  # of another file
        f"xa+b.csv.tmp.{ended.pid}": True,
        "a+b.csv.tmp.notes": True,
        f"a+b.csv.tmp.{ended.pid}.bak": True,
    }
    for name in old:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1e9, 1e9))
    fresh = tmp_path / f"a+b.csv.tmp.{ended.pid + 10**6}"  # perhaps of a machine that shares the folder
    fresh.write_text("")
    own = tmp_path / f"a+b.csv.tmp.{os.getpid()}-999998"  # perhaps of another thread that has taken long
    own.write_text("")
    os.utime(own, (time.time() - 4000, time.time() - 4000))
    monkeypatch.setattr("pycnn.textfile._STARTED", time.time() - 5000)
    write_text(tmp_path / "a+b.csv", "text")
    assert {name: (tmp_path / name).exists() for name in old} == old
    assert fresh.exists()
    assert own.exists()
