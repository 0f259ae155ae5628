"""`pycnn bench` and `pycnn.bench`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import pycnn
from pycnn import functional, nn
from pycnn.benchmark import Layer
from pycnn.benchmark._bench import _arrays, _compile
from pycnn.benchmark._report import _layer_table
from pycnn.errors import ArgumentError

NONE = type(None)

QUICK = ("--rounds", "2")


@pytest.fixture
def quick_rounds(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pycnn.benchmark._peaks._SECONDS", 0.001)
    monkeypatch.setattr("pycnn.benchmark._bench._ROUND_SECONDS", 0.01)


pytestmark = pytest.mark.usefixtures("quick_rounds")


def check_report(values, has_types):
    has_types(values["environment"], pycnn=str, python=str, numpy=str, system=str, cpu=str, isa=str, threads=int,
              processors=int, load_average=(float, NONE), compiler=str, time=str)  # fmt: skip
    for timing in values["timings"]:
        has_types(timing, threads=int, isa=str, runs=int, median=float, minimum=float, p10=float, p90=float,
                  images_per_second=float, noise=float, gflops=float, bound=(float, NONE),
                  percent_of_bound=(float, NONE))  # fmt: skip
        assert 0 < timing["minimum"] <= timing["p10"] <= timing["median"] <= timing["p90"]
    for layer in values["layers"]:
        has_types(layer, name=str, op=str, variant=str, seconds=float, share=float, gflops=float, gbytes=float,
                  flops=int, bytes=int, bound=(float, NONE), bound_by=str, percent_of_bound=(float, NONE),
                  refused=list, absorbed=list)  # fmt: skip
        for refusal in layer["refused"]:
            has_types(refusal, variant=str, reason=str)
    has_types(values["clock"], median=float, minimum=float, maximum=float)
    assert len(values["peaks"]) == len(values["timings"])
    for peaks in values["peaks"]:
        has_types(peaks, cpu=str, isa=str, threads=int, compute=list, memory=list, pycnn=str, time=str, busy=bool)
        for compute in peaks["compute"]:
            has_types(compute, dtype=str, unit=str, gflops=float)
        for level in peaks["memory"]:
            has_types(level, level=str, capacity_bytes=int, read_gbytes=float, copy_gbytes=float)


def test_table_of_layers_names_what_a_kernel_does_for_others():
    layer = Layer(
        "fc", "dense", "dense.cuda", 1e-6, 1.0, 1.0, 1.0, absorbed=(("out", "cast"), ("act", "activation_grad"))
    )
    assert "dense+cast+activation_grad" in _layer_table([layer])[1].split()


def test_bench_as_json(run, has_types):
    values = run("bench", "lenet5", "--batch", "4", "--json", *QUICK).json
    has_types(
        values, schema=str, net=str, options=dict, name=str, shape=list, train=bool, timings=list, layers=list,
        layers_wall=float, environment=dict, warnings=list, dtype=str, winograd=bool, tf32=bool,
        emulate_bfloat16=bool, recompute=str, rounds=int, clock=dict, peaks=list, images=str,
    )  # fmt: skip
    assert values["schema"] == "pycnn.bench/1"
    assert values["shape"] == [4, 28, 28, 1]
    assert values["images"] == "host"
    check_report(values, has_types)
    (timing,) = values["timings"]
    assert timing["images_per_second"] == pytest.approx(4 / timing["median"])


@pytest.mark.parametrize("train", [[], ["--train"]])
def test_layer_times_and_the_rest_make_up_the_wall_time(run, train, has_types):
    values = run("bench", "lenet5", "--batch", "8", "--layers", "--json", *train, *QUICK).json
    check_report(values, has_types)
    assert values["layers"][-1]["name"] == "other"
    assert sum(layer["seconds"] for layer in values["layers"]) == pytest.approx(values["layers_wall"], rel=0.03)
    conv = next(layer for layer in values["layers"] if layer["name"] == "conv2" and layer["op"] == "conv2d")
    assert conv["variant"].startswith("conv2d.")
    assert conv["gflops"] > 0
    assert conv["gbytes"] > 0


def test_table_names_steps_and_variants(run):
    result = run("bench", "lenet5", "--layers", *QUICK)
    assert result.code == 0
    assert "images/s" in result.out
    assert "conv2d." in result.out
    assert "other" in result.out
    assert result.err.splitlines()[-1].startswith("next: ")


def test_thread_counts_and_instruction_set_are_settings(run):
    values = run("bench", "lenet5", "--threads", "1,2", "--isa", "baseline", "--json", *QUICK).json
    assert [timing["isa"] for timing in values["timings"]] == ["baseline", "baseline"]
    assert values["timings"][0]["threads"] == 1


def test_what_a_training_step_computes_again_is_a_setting(run):
    def again(*words):
        result = run("bench", "cifar_resnet20", "--train", "--batch", "2", "--layers", "--json", *words, *QUICK).json
        return sum(".again" in layer["name"] for layer in result["layers"])

    assert again("--recompute", "none") == 0
    assert again("--recompute", "sqrt") > again() > 0
    refused = run("bench", "lenet5", "--recompute", "sqrt", *QUICK)
    assert refused.code == 2
    assert "--recompute is for training steps; give --train too" in refused.err


def test_saved_net_is_timed_too(run, model):
    assert run("bench", model, "--train", "--batch", "2", "--json", *QUICK).json["name"] == "GraphModule"


def test_busy_machine_is_told(run, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (99999.0, 1.0, 1.0))
    result = run("bench", "lenet5", *QUICK)
    assert "warning: the machine is busy: load 99999" in result.err


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_and_plain_sums(run, train):
    words = ["--dtype", "bfloat16", "--emulate-bfloat16", "--no-winograd", "--layers", *(["--train"] if train else [])]
    values = run("bench", "lenet5", "--batch", "4", "--json", *words, *QUICK).json
    assert (values["dtype"], values["winograd"]) == ("bfloat16", False)
    assert "cast" in {layer["op"] for layer in values["layers"]}
    assert all(layer["percent_of_bound"] is None or layer["percent_of_bound"] > 0 for layer in values["layers"])


@pytest.mark.skipif(bool(pycnn.config.machine()["bfloat16_units"]), reason="this processor has a unit for bfloat16")
def test_bfloat16_without_a_unit_is_refused(run):
    result = run("bench", "lenet5", "--dtype", "bfloat16", *QUICK)
    assert result.code == 1
    assert "AMX or AVX512-BF16" in result.err
    assert "emulate_bfloat16" in result.err


@pytest.fixture
def earlier(run, tmp_path):
    path = tmp_path / "before.json"
    assert run("bench", "lenet5", "--threads", "1", "--json", path, *QUICK).code == 0

    def change(factor, noise, **other):
        values = json.loads(path.read_text())
        for timing in values["timings"]:
            timing["noise"] = noise
            for key in ("median", "minimum"):
                timing[key] *= factor
        path.write_text(json.dumps({**values, **other}))
        return run("bench", "lenet5", "--threads", "1", "--compare", path, "--json", *QUICK)

    return change


def test_regression_beyond_the_noise_exits_1(earlier, has_types):
    result = earlier(0.001, 0.02)
    assert result.code == 1
    (change,) = result.json["changes"]
    has_types(change, threads=int, isa=str, before=float, after=float, tolerance=float, regression=bool,
              improvement=bool)  # fmt: skip
    assert change["regression"]


def test_change_within_the_noise_or_to_the_better_exits_0(earlier):
    assert earlier(0.5, 1000.0).code == 0
    result = earlier(1000.0, 0.0)
    assert result.code == 0
    assert result.json["changes"][0]["improvement"]


def test_file_of_an_earlier_version_of_the_form_is_compared_too(run, tmp_path):
    path = tmp_path / "before.json"
    assert run("bench", "lenet5", "--threads", "1", "--json", path, *QUICK).code == 0
    values = json.loads(path.read_text())
    # What was there before peaks were.
    for key in ("dtype", "tf32", "emulate_bfloat16", "recompute", "rounds", "clock", "peaks"):
        del values[key]
    for timing in values["timings"]:
        timing["noise"] = 1000.0
        for key in ("gflops", "bound", "percent_of_bound"):
            del timing[key]
    path.write_text(json.dumps(values))
    result = run("bench", "lenet5", "--threads", "1", "--compare", path, "--json", *QUICK)
    assert result.code == 0
    assert len(result.json["changes"]) == 1


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("timings", None, "timings is None"),
        ("timings", [], "timings is []"),
        ("timings", [{"threads": 1}], "one of its timings is {'threads': 1}"),
        ("timings", [{"threads": 1, "isa": "avx2", "median": "1", "minimum": 1, "noise": 0}], "one of its timings is"),
        ("timings", [{"threads": 1, "isa": "avx2", "median": 1, "minimum": 0, "noise": 0}], "one of its timings is"),
        ("environment", 3, "environment is 3"),
    ],
)
def test_damaged_file_is_refused_before_anything_is_timed(run, tmp_path, monkeypatch, key, value, text):
    monkeypatch.setattr("pycnn.cli.bench.bench", None)
    path = tmp_path / "before.json"
    whole = {"schema": "pycnn.bench/1", "environment": {}, "timings": []}
    path.write_text(json.dumps({**whole, key: value}))
    result = run("bench", "lenet5", "--compare", path, *QUICK)
    assert result.code == 1
    assert f"'{path}' is damaged: {text}" in result.err


def test_emulating_another_type_than_bfloat16_is_a_mistake(run):
    result = run("bench", "lenet5", "--emulate-bfloat16", *QUICK)
    assert result.code == 2
    assert "--emulate-bfloat16 is for --dtype bfloat16, which is float32" in result.err


def test_clock_that_changes_meanwhile_is_told(run, monkeypatch):
    clocks = iter([2.0, 3.0])
    monkeypatch.setattr("pycnn.benchmark._bench.clock_ghz", lambda: next(clocks))
    result = run("bench", "lenet5", *QUICK)
    assert "clock went from 2.00 to 3.00 GHz" in result.err
    assert "clock 2.50 GHz (2.00 to 3.00)" in result.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("lenet5 --train", "train False and True"),
        ("lenet5 --batch 2", "shape [1, 28, 28, 1] and (2, 28, 28, 1)"),
        ("lenet5 --dtype bfloat16 --emulate-bfloat16", "dtype float32 and bfloat16; emulate_bfloat16 False and True"),
        ("lenet5 --tf32", "tf32 False and True"),
        ("lenet5 --device cuda", "images host and device"),
        ("lenet5 --no-winograd", "winograd True and False"),
        ("lenet5 --train --recompute sqrt", "train False and True; recompute cheap and sqrt"),
        ("lenet5 --option activation=relu", "options {} and {'activation': 'relu'}"),
        ("cifar_resnet20", "net lenet5 and cifar_resnet20; shape [1, 28, 28, 1] and (1, 32, 32, 3)"),
        ("cifar_resnet20 --input-shape 28,28,1", "net lenet5 and cifar_resnet20"),
        ("lenet5 --isa avx2", "no setting in common; before: 3 threads baseline, 77 threads baseline"),
        ("lenet5 --threads 2", "no setting in common; before: 3 threads baseline, 77 threads baseline"),
    ],
)
def test_comparison_of_different_things_is_refused_before_anything_is_timed(run, tmp_path, monkeypatch, words, text):
    monkeypatch.setattr("pycnn.cli.bench.bench", None)
    timing = {"isa": "baseline", "median": 1.0, "minimum": 1.0, "noise": 0.0}
    path = tmp_path / "before.json"
    path.write_text(json.dumps({
        "schema": "pycnn.bench/1", "environment": {}, "net": "lenet5", "options": {}, "shape": [1, 28, 28, 1],
        "train": False, "timings": [{**timing, "threads": 3}, {**timing, "threads": 77}],
    }))  # fmt: skip
    result = run("bench", *words.split(), "--compare", path, *QUICK)
    assert result.code == 2
    assert f"--compare: {'' if 'no setting' in text else 'the two measure different things: '}{text}" in result.err


def test_comparison_of_other_numbers_of_threads_is_wrong_usage_where_the_number_is_chosen(run, tmp_path):
    path = tmp_path / "before.json"
    assert run("bench", "lenet5", "--threads", "1", "--json", path, *QUICK).code == 0
    values = json.loads(path.read_text())
    for timing in values["timings"]:
        timing["threads"] = 77
    path.write_text(json.dumps(values))
    result = run("bench", "lenet5", "--compare", path, *QUICK)
    assert result.code == 2
    assert "no setting in common; before: 77 threads" in result.err


def test_comparison_with_a_foreign_file_is_refused(run, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    result = run("bench", "lenet5", "--compare", path)
    assert result.code == 1
    assert "pycnn.bench/1" in result.err


def test_bench_in_python_leaves_the_weights_alone():
    net = pycnn.models.lenet5()
    before = net.state_dict()
    report = pycnn.bench(net, batch_size=4, train=True, layers=True, rounds=2)
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert report.train
    assert "training step" in str(report)
    assert report.to_dict()["shape"] == (4, 28, 28, 1)


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"rounds": 0}, {"threads": -1}, {"images": "gpu"}, {"images": "device"}]
)
def test_bench_in_python_refuses_bad_arguments(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        pycnn.bench(pycnn.models.lenet5(), **arguments)


def test_batch_that_memory_cannot_hold_is_told_with_both_numbers(run):
    result = run("bench", "lenet5", "--batch", "100000000000")
    assert result.code == 1
    assert re.match(
        r"pycnn bench: error: bench: no memory for images \(100000000000, 28, 28, 1\): "
        r"313600000000000 bytes are wanted, \d+ are available\n$",
        result.err,
    )


class PooledFirst(nn.Module):
    """What comes first is a function, which takes no bytes."""

    def __init__(self):
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(functional.global_avg_pool2d(self.conv(functional.max_pool2d(x, kernel_size=2))))


@pytest.mark.parametrize("kind", [PooledFirst, lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GlobalAvgPool2d())])
def test_images_that_lie_on_a_device_are_scaled_for_every_net(kind):
    # As for a GPU, but computed here.
    net = kind()
    net.build((9, 9, 3))
    arrays, resident = _arrays(net, (4, 9, 9, 3), False, 0, is_resident=True)
    program = _compile(net, arrays, resident, False)
    (scores,) = program.run(*arrays).values()
    images = resident.tensor.numpy()
    assert images.dtype == np.uint8
    np.testing.assert_allclose(scores, net(images.astype(np.float32) / 255), rtol=1e-5, atol=1e-6)
