"""The machine's peaks: measured once, kept in a file that may be anything."""

from __future__ import annotations

import json
import math
import os

import pytest

import pycnn
from pycnn.benchmark import Peaks, machine_peaks
from pycnn.benchmark._device_peaks import device_peaks
from pycnn.errors import ArgumentError, DeviceError, MemoryLimitError
from pycnn.program import compile_traced


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder on a machine that is quiet, measured in no time."""
    monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pycnn.benchmark._peaks._SECONDS", 0.001)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """Counts the measurements, whose rates are `rates`; none is disturbed unless it says so."""
    from pycnn import config

    count = {"measured": 0, "disturbed": False}

    def measure(*, isa, threads, seconds):
        count["measured"] += 1
        memory = {"buffer_bytes": 1, "read_bytes": 2e10, "copy_bytes": 1e10}
        return {
            "cpu": config.machine()["cpu"],
            "isa": isa,
            "threads": threads,
            "compute": [{"dtype": "float32", "unit": isa, "flops": 1e11}],
            "memory": [
                {"level": "L1", "capacity_bytes": 2**15, **memory, "read_bytes": 2e11},
                {"level": "memory", "capacity_bytes": 0, **memory},
            ],
            "disturbed": count["disturbed"],
        }

    monkeypatch.setattr("pycnn.config.measure_peaks", measure)
    return count


def kept(cache):
    (path,) = cache.iterdir()
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_peaks_are_finite_rates(threads):
    peaks = machine_peaks(threads=threads)
    assert peaks.isa == pycnn.machine()["isa"]
    rates = [c.gflops for c in peaks.compute] + [r for m in peaks.memory for r in (m.read_gbytes, m.copy_gbytes)]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert peaks.compute[0].dtype == "float32"
    capacities = [level.capacity_bytes for level in peaks.memory]
    assert capacities[:-1] == sorted(capacities[:-1])
    assert capacities[-1] == 0
    assert peaks.memory[-1].level == "memory"
    assert "GFLOP/s" in str(peaks)


def test_measured_once_for_each_setting(measured, cache):
    first = machine_peaks(threads=1)
    assert machine_peaks(threads=1) == first
    assert measured["measured"] == 1
    machine_peaks(threads=2)
    machine_peaks(threads=1, isa="baseline")
    assert measured["measured"] == 3
    assert len(list(cache.iterdir())) == 3
    machine_peaks(threads=1, renew=True)
    assert measured["measured"] == 4


def test_peaks_measured_among_others_last_until_the_machine_is_quiet(measured, monkeypatch):
    measured["disturbed"] = True
    monkeypatch.setattr("os.getloadavg", lambda: (99999.0, 0.0, 0.0))
    assert machine_peaks(threads=1).busy
    machine_peaks(threads=1)
    assert measured["measured"] == 1
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    measured["disturbed"] = False
    assert not machine_peaks(threads=1).busy
    assert measured["measured"] == 2


def edited(**changes):
    def edit(values):
        for path, value in changes.items():
            *keys, last = path.split("__")
            part = values
            for key in keys:
                part = part[int(key) if key.isdigit() else key]
            part[last] = value
        return json.dumps(values)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda values: "",
        lambda values: "\x00\xff",
        lambda values: json.dumps(values)[:-30],
        lambda values: "[" * 5000,
        lambda values: "[]",
        lambda values: " " * 70_000 + json.dumps(values),
        edited(schema="pycnn.peaks/2"),
        edited(key__cpu="another processor"),
        edited(key__pycnn="0.0.0"),
        edited(key__threads=7),
        edited(peaks__compute=[]),
        edited(peaks__compute__0__gflops=0.0),
        edited(peaks__compute__0__gflops=float("nan")),
        edited(peaks__compute__0__gflops=True),
        edited(peaks__compute__0__gflops="fast"),
        edited(peaks__memory__0__read_gbytes=float("inf")),
        edited(peaks__memory__0__capacity_bytes=-1),
        edited(peaks__memory__1__capacity_bytes=5),
        edited(peaks__memory__1__level="L2"),
        edited(peaks__memory=None),
        edited(peaks__more=1),
        edited(peaks__busy=0),
    ],
)
def test_file_that_is_broken_or_of_another_machine_is_measured_again(measured, cache, edit):
    good = machine_peaks(threads=1)
    path = kept(cache)
    path.write_text(edit(json.loads(path.read_text())), encoding="latin-1")
    assert machine_peaks(threads=1).compute == good.compute
    assert measured["measured"] == 2
    machine_peaks(threads=1)
    assert measured["measured"] == 2  # mended


def test_file_that_is_no_file_is_measured_again(measured, cache):
    machine_peaks(threads=1)
    path = kept(cache)
    path.unlink()
    os.mkfifo(path)  # Reading it would wait forever.
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert machine_peaks(threads=1).gflops() == 100.0
    finally:
        os.close(reader)
    assert measured["measured"] == 2


@pytest.mark.parametrize("place", ["below a file", "a folder of that name", "no home"])
def test_where_peaks_cannot_be_kept_they_are_measured_each_time(measured, tmp_path, monkeypatch, place):
    told = []
    if place == "below a file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "file" / "below"))
    elif place == "a folder of that name":
        machine_peaks(threads=1)
        path = kept(tmp_path / "cache")
        path.unlink()
        path.mkdir()
        (path / "inside").write_text("")
        measured["measured"] = 0
    else:
        monkeypatch.setattr("pycnn.benchmark._peaks.cache_directory", lambda: (_ for _ in ()).throw(RuntimeError()))
    for _ in range(2):
        assert machine_peaks(threads=1, report=told.append).gflops() == 100.0
    assert measured["measured"] == 2
    assert ("not kept" in told[-1]) == (place != "no home")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_thread_counts_that_are_none_are_refused(threads):
    with pytest.raises(ArgumentError, match="threads"):
        machine_peaks(threads=threads)


def test_unknown_instruction_sets_are_refused():
    with pytest.raises(ArgumentError, match="avx9"):
        machine_peaks(threads=1, isa="avx9")
    if "avx512" not in pycnn.machine()["isas"]:
        with pytest.raises(DeviceError, match="avx512"):
            machine_peaks(threads=1, isa="avx512")


def test_type_that_nothing_multiplies_is_refused(measured):
    peaks = machine_peaks(threads=1)
    assert isinstance(peaks, Peaks)
    with pytest.raises(ArgumentError, match=r"'bfloat16'.*float32"):
        peaks.gflops("bfloat16")


def test_rates_of_a_device_come_from_the_steps_that_it_runs():
    """On the CPU, which takes the same way: `tests/cuda/test_bench_on_device.py` has the device."""
    peaks = device_peaks("cpu", width=256, side=64)
    assert peaks.compute[0].dtype == "float32"
    assert "float16" not in {peak.dtype for peak in peaks.compute}
    # No loop of one processor multiplies slower than this or faster than that.
    assert 0.01 < peaks.gflops() < 1e5
    assert 0.01 < peaks.memory[0].read_gbytes < 1e4
    assert 0.01 < peaks.memory[0].copy_gbytes < 1e4
    assert peaks.threads == 0
    with pytest.raises(DeviceError):
        device_peaks("cuda:99", width=8, side=8)


def test_rates_of_a_device_with_little_memory_are_those_of_smaller_sizes(monkeypatch):
    sizes = []

    def with_little_memory(traced, **options):
        program = compile_traced(traced, **options)
        sizes.append(program.inputs[0][1][1])
        if sizes[-1] > limit:
            raise MemoryLimitError("none left")
        return program

    monkeypatch.setattr("pycnn.benchmark._device_peaks.compile_traced", with_little_memory)
    limit = 32
    assert device_peaks("cpu", width=64, side=256).gflops() > 0
    assert sizes[0] == 64
    assert sizes[1] == 32
    assert sizes[-2:] == [64, 32]
    limit = 7
    with pytest.raises(MemoryLimitError):
        device_peaks("cpu", width=64, side=256)
    assert sizes[-1] == 8
