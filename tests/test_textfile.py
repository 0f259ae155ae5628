"""Text files that are written whole or not at all, and what killed writers left."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-P", "-c", ""])
    ended.wait()
    old = {
        f"a+b.csv.tmp.{ended.pid}": False,
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
    write_text(tmp_path / "a+b.csv", "text")
    assert {name: (tmp_path / name).exists() for name in old} == old
    assert fresh.exists()
