"""`pycnn doctor`: what is there, and what is wrong."""

from __future__ import annotations

import itertools

import pytest

import pycnn

NONE = type(None)


@pytest.fixture
def no_speed(monkeypatch):
    monkeypatch.setattr("pycnn.cli.doctor._SECONDS", 0.01)
    monkeypatch.setattr("pycnn.cli.doctor._COPY_BYTES", 2**20)


def test_doctor_as_json(run, no_speed, has_types):
    result = run("doctor", "--json")
    assert result.code == 0
    values = result.json
    has_types(
        values, schema=str, version=str, environment=dict, variables=dict, instruction_sets=list, isa=str,
        bfloat16_units=list, threads=int, threads_reason=str, thread_limits=dict, devices=list, thread_pools=list,
        pillow=bool, speed=dict, warnings=list,
    )  # fmt: skip
    assert values["schema"] == "pycnn.doctor/1"
    assert values["version"] == pycnn.__version__
    assert values["isa"] == values["instruction_sets"][-1]
    assert values["speed"]["conv"]["1"] > 0
    assert values["speed"]["copy_gbytes"] > 0
    assert {"PYCNN_NUM_THREADS", "OMP_NUM_THREADS", "affinity", "cgroup_quota", "physical_cores"} <= set(
        values["thread_limits"]
    )


def test_doctor_tells_people_the_choice_and_its_inputs(run, no_speed):
    result = run("doctor")
    for part in ("instruction sets:", "threads:", "affinity", "cgroup_quota", "devices: cpu", "GFLOP/s", "GB/s"):
        assert part in result.out
    assert result.next.startswith("pycnn bench")


def test_speed_of_a_machine_that_stands_still_is_a_number(monkeypatch):
    from pycnn.cli import doctor

    ticks = itertools.count()  # seconds pass between any two looks at the clock
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    assert doctor._fastest(lambda: None) == 1.0


def test_what_is_missing_or_fails_on_a_gpu_is_told(run, monkeypatch, compiled_for):
    from pycnn.cli import doctor

    facts = pycnn.config.machine()
    monkeypatch.setattr(doctor, "machine", lambda: {**facts, "devices": ["cpu", "cuda:0", "cuda:1"]})
    values = run("doctor", "--no-speed", "--json").json
    assert compiled_for == ["cuda:0", "cuda:1"]
    assert not [text for text in values["warnings"] if "cuda" in text]
    monkeypatch.setattr(pycnn.Program, "warnings", ["cuDNN cannot be used (no file): slower", "known"])
    monkeypatch.setattr(doctor, "machine", lambda: {**facts, "devices": ["cpu", "cuda:0"], "warnings": ["known"]})
    err = run("doctor", "--no-speed").err
    assert "warning: cuda:0: cuDNN cannot be used (no file): slower" in err
    assert "cuda:0: known" not in err
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "machine", lambda: {**facts, "devices": ["cpu", "cuda:99"]})
    (told,) = [text for text in run("doctor", "--no-speed", "--json").json["warnings"] if "cuda" in text]
    assert told.startswith("cuda:99: ")
    assert "device 'cuda:99'" in told


def test_speed_check_can_be_left_out(run):
    assert isinstance(run("doctor", "--no-speed", "--json").json["speed"], NONE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYCNN_MAX_ISA", "mmx"),
        ("PYCNN_NUM_THREADS", "many"),
        ("PYCNN_NUM_THREADS", "0"),
        ("OMP_NUM_THREADS", "-3"),
        ("OMP_NUM_THREADS", "two"),
    ],
)
def test_wrong_variable_is_a_warning(run, monkeypatch, name, value):
    import os

    monkeypatch.setenv(name, value)
    result = run("doctor", "--no-speed")
    assert result.code == 0
    assert f"warning: {name}='{value}'" in result.err
    assert os.environ[name] == value


def test_variable_that_is_fine_is_shown(run, monkeypatch):
    monkeypatch.setenv("PYCNN_NUM_THREADS", "1")
    values = run("doctor", "--no-speed", "--json").json
    assert values["threads"] == 1
    assert values["variables"]["PYCNN_NUM_THREADS"] == "1"


def test_two_openmp_runtimes_are_told(run, monkeypatch):
    pools = [{"library": "a", "what": "GNU OpenMP (also pycnn's own)"}, {"library": "b", "what": "Intel OpenMP"}]
    monkeypatch.setattr("pycnn.cli.doctor.thread_pools", lambda: pools)
    assert "several OpenMP runtimes" in run("doctor", "--no-speed").err
