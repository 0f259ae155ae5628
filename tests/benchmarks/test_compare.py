"""The comparison with other libraries: arguments, the race, agreement, ratios, and runs of it."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest


def rows(**milliseconds):
    """Rows of a report: `openvino=(3, 2)` are two settings."""
    from benchmarks.compare.report import Row
    from benchmarks.timing import Timing

    return [
        Row(name.replace("_", "-"), f"setting {i}", Timing(ms / 1e3, ms / 1e3, ms / 1e3, ms / 1e3), 3, False)
        for name, values in milliseconds.items()
        for i, ms in enumerate(values)
    ]


def case(net="resnet18", batch=16, mode="infer", dtype="float32"):
    from benchmarks.compare.workload import Case

    return Case(net, batch, mode, dtype, 2)


# ---- Arguments


def test_all_means_every_net_of_the_table():
    from benchmarks.compare.run import PEERS, parse

    args = parse(["--nets", "all", "--modes", "infer,train", "--dtypes", "float32,bfloat16"])
    assert args.nets == ["lenet5", "alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "resnext50_32x4d"]
    assert (args.modes, args.dtypes) == (["infer", "train"], ["float32", "bfloat16"])
    assert args.peers == ["pycnn", "torch-eager", "torch-compiled", "onnxruntime", "openvino", "mnn"] == list(PEERS)
    assert parse(["--nets", "squeezenet1_1,lenet5"]).nets == ["squeezenet1_1", "lenet5"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nets", "lenet6"], "lenet6"),
        (["--peers", "pycnn,tensorflow"], "tensorflow"),
        (["--modes", ","], "nothing"),
        (["--batch", "0"], "'0'"),
        (["--dtypes", "float16"], "float16"),
    ],
)
def test_wrong_argument_is_named(arguments, text, capsys):
    from benchmarks.compare.run import parse

    with pytest.raises(SystemExit):
        parse(arguments)
    assert text in capsys.readouterr().err


# ---- The race


class Clock:
    """Calls take as long as they are told to, and nothing else takes any time."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def call(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds

        return run

    def lanes(self, **candidates):
        from benchmarks.compare.race import Lane

        return {name: Lane(peer, self.call(name, seconds)) for name, (peer, seconds) in candidates.items()}

    def race(self, lanes, **options):
        from benchmarks.compare.race import race

        race(lanes, clock=lambda: self.now, sleep=lambda _: self.order.append("|"), **options)


def test_candidates_take_turns_forth_and_back():
    clock = Clock()
    lanes = clock.lanes(a=("a", 2.0), b=("b", 3.0))
    clock.race(lanes, rounds=3, seconds=1.0)
    assert "".join(clock.order) == "aabb" + "|a|b" + "|b|a" + "|a|b"
    assert {name: lane.samples for name, lane in lanes.items()} == {"a": [2.0] * 3, "b": [3.0] * 3}


def test_turns_of_short_calls_are_filled_and_begin_untimed():
    clock = Clock()
    lanes = clock.lanes(a=("a", 0.25))
    clock.race(lanes, rounds=1, seconds=1.0)
    assert "".join(clock.order) == "aa" + "|" + "a" + "aaaa"
    assert lanes["a"].samples == [0.25]


def test_slow_setting_leaves_but_not_the_only_one_of_its_peer():
    clock = Clock()
    lanes = clock.lanes(fast=("p", 1.0), near=("p", 1.2), far=("p", 1.5), other=("q", 9.0))
    clock.race(lanes, rounds=4, seconds=0.1, trial=2, slack=1.3)
    assert [lane.left for lane in lanes.values()] == [False, False, True, False]
    assert [len(lane.samples) for lane in lanes.values()] == [4, 4, 2, 4]


def test_hopeless_setting_has_no_turn_at_all():
    clock = Clock()
    lanes = clock.lanes(fast=("p", 1.0), hopeless=("p", 3.5), other=("q", 9.0))
    clock.race(lanes, rounds=2, seconds=0.1, hopeless=3.0)
    assert [lane.left for lane in lanes.values()] == [False, True, False]
    assert lanes["hopeless"].samples == [3.5]
    assert [len(lane.samples) for lane in lanes.values()] == [2, 1, 2]


def test_candidate_that_raises_is_out_and_the_others_go_on():
    clock = Clock()
    lanes = clock.lanes(good=("p", 1.0), bad=("q", 1.0))
    calls = iter(range(3))

    def fail():
        if next(calls) == 2:
            raise RuntimeError("no more")

    lanes["bad"].call = fail
    clock.race(lanes, rounds=3, seconds=0.1)
    assert str(lanes["bad"].error) == "no more"
    assert len(lanes["good"].samples) == 3


# ---- Ratios


def test_ratio_is_the_best_setting_of_the_best_peer_over_ours():
    from benchmarks.compare.report import CaseResult

    result = CaseResult(case(), rows(pycnn=[2.0], openvino=[5.0, 3.0], onnxruntime=[4.0]))
    assert result.ratio == pytest.approx(1.5)
    assert (result.best_peer.peer, result.best_peer.setting) == ("openvino", "setting 1")
    assert CaseResult(case(), rows(openvino=[3.0])).ratio is None
    assert CaseResult(case(), rows(pycnn=[3.0])).ratio is None


def test_tables_have_ratios_losses_geometric_mean_and_who_was_absent():
    from benchmarks.compare.peer import Absent
    from benchmarks.compare.report import CaseResult, geometric_mean, tables

    absent = [Absent("mnn", "", "ImportError: No module named 'MNN'")]
    results = [
        CaseResult(case("resnet18"), rows(pycnn=[2.0], openvino=[8.0]), absent),
        CaseResult(case("vgg16", 8), rows(pycnn=[3.0], openvino=[1.5]), absent),
    ]
    lines = tables(results, ["pycnn", "openvino", "mnn"]).splitlines()
    assert lines[0] == "float32 inference, 2 threads"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert cells[2] == ["resnet18", "16", "2", "2 to 2", "8,000", "8", "-", "openvino (setting 0)", "4.00", "1.4"]
    assert cells[3][-2:] == ["0.50", "1.9"]
    assert (cells[4][0], cells[4][-2], cells[4][-1]) == ("geometric mean", "1.41", "1.35")
    assert geometric_mean([4.0, 0.5]) == pytest.approx(math.sqrt(2))
    assert "- mnn (resnet18, infer, float32, batch 16; vgg16, infer, float32, batch 8): ImportError" in "\n".join(lines)


def test_memory_ratio_is_ours_over_the_most_sparing_of_the_others():
    from benchmarks.compare.memory import CasePeaks, Peak, table

    peaks = [Peak("pycnn", "", 30, 25), Peak("torch-eager", "a", 80), Peak("torch-eager", "b", 60)]
    result = CasePeaks(case(mode="train"), peaks)
    assert result.ratio == pytest.approx(0.5)
    assert "| resnet18 | 16 | float32 | 0.0 | 0.0 | 0.0 | b | 0.50 | 0.6 |" in table([result])
    lost = CasePeaks(case(mode="train"), [peaks[0], Peak("torch-eager", "a", None, reason="killed")])
    assert lost.ratio is None
    assert "- torch-eager, a (resnet18, train, float32, batch 16): killed" in table([lost])


# ---- Agreement


def test_scores_that_differ_are_noticed():
    from benchmarks.compare.agreement import disagreement
    from benchmarks.compare.peer import Result

    good = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    assert disagreement(Result(scores=good * 1.0001), Result(scores=good), "float32") == ""
    assert "off by 0.01" in disagreement(Result(scores=good * 1.01), Result(scores=good), "float32")
    assert disagreement(Result(scores=good * 1.01), Result(scores=good), "bfloat16") == ""
    assert disagreement(Result(scores=good[::-1]), Result(scores=good), "bfloat16")
    assert disagreement(Result(scores=np.full_like(good, np.nan)), Result(scores=good), "bfloat16")
    assert "(4, 9)" in disagreement(Result(scores=good[:, 1:]), Result(scores=good), "float32")


def test_losses_and_updates_that_differ_are_noticed():
    from benchmarks.compare.agreement import disagreement
    from benchmarks.compare.peer import Result

    update = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    good = Result(loss=2.0, updates={"fc.weight": update})
    assert disagreement(Result(loss=2.0001, updates={"fc.weight": update * 1.01}), good, "float32") == ""
    assert disagreement(Result(loss=2.01, updates=good.updates), good, "float32").startswith("loss 2.01, not 2")
    assert "fc.weight" in disagreement(Result(loss=2.0, updates={"fc.weight": update * 1.2}), good, "float32")
    assert "fc.weight" in disagreement(Result(loss=2.0, updates={"fc.weight": update * 0}), good, "bfloat16")
    # As far off as PyTorch itself is in that type, and a little more.
    yardstick = Result(loss=2.0, updates={"fc.weight": update * 0.1})
    assert disagreement(Result(loss=2.0, updates={"fc.weight": update * 0}), good, "bfloat16", yardstick) == ""
    assert "fc.weight" in disagreement(
        Result(loss=2.0, updates={"fc.weight": update * -1}), good, "bfloat16", yardstick
    )


def test_wrong_peer_is_reported_and_not_timed(tmp_path):
    pytest.importorskip("torch")
    from benchmarks.compare import peer_pycnn
    from benchmarks.compare.peer import Candidate, Result, Setting, UnavailableError
    from benchmarks.compare.run import run_case

    timed = []

    def wrong(work):
        right = peer_pycnn.settings("infer", "float32", 2, 1)[0].start(work)
        return Candidate(lambda: timed.append("wrong"), lambda: Result(scores=right.check().scores + 1))

    def refuse(work):
        raise ValueError(f"not in {tmp_path}/net.onnx today")

    def nowhere(*_):
        raise UnavailableError("not on this machine")

    registry = {
        "pycnn": peer_pycnn,
        "bad": SimpleNamespace(settings=lambda *_: [Setting("bad", "", wrong), Setting("bad", "other", refuse)]),
        "gone": SimpleNamespace(settings=nowhere),
    }
    result = run_case(case("lenet5", 2), list(registry), rounds=1, seconds=0.001, registry=registry)
    assert [row.peer for row in result.rows] == ["pycnn"]
    assert timed == []
    reasons = {(item.peer, item.setting): (item.disagrees, item.reason) for item in result.absent}
    assert reasons["bad", ""][0]
    assert "scores: off by" in reasons["bad", ""][1]
    assert reasons["bad", "other"] == (False, "ValueError: not in net.onnx today")
    assert reasons["gone", ""] == (False, "not on this machine")


def test_batch_norms_of_the_workload_are_not_the_identity(tmp_path):
    from benchmarks.compare.workload import Workload

    state = Workload(case("cifar_resnet20", 1), tmp_path).net.state_dict()
    assert all(np.ptp(value) > 0 for name, value in state.items() if "running" in name)


def test_paths_are_cut_to_their_last_part():
    from benchmarks.compare.peer import without_paths

    assert without_paths("cannot open /tmp/x/net.onnx: see https://a.org/b/c and a/b") == (
        "cannot open net.onnx: see https://a.org/b/c and a/b"
    )
    assert without_paths("File '/usr/lib/python3/a.py', 3/4 done") == "File 'a.py', 3/4 done"


# ---- Runs


def run_compare(root, *arguments):
    command = [sys.executable, "-P", root / "benchmarks/compare/__main__.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.interop
def test_run_times_every_installed_peer_and_says_why_others_are_absent(root, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "result.json"
    peers = {
        "pycnn": "pycnn",
        "torch-eager": "torch",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "mnn": "MNN",
    }
    quick = ["--batch", "2", "--rounds", "1", "--seconds", "0.001", "--threads", "1", "--json", str(path)]
    done = run_compare(root, "--nets", "lenet5", "--peers", ",".join(peers), "--dtypes", "all", *quick)
    text = path.read_text()
    result = json.loads(text)
    assert not re.search(r'"[^"]*(?<![\w.:/])/(?:home|tmp|work|usr|root)/', text)
    assert result["benchmark"] == "compare"
    assert result["environment"]["versions"]["pycnn"]
    assert result["environment"]["compiler"]
    assert set(result["environment"]["processor"]) >= ({"family", "model"} if platform.machine() == "x86_64" else set())
    assert {"commit", "cpu", "isas"} <= set(result["environment"])
    cases = {(c["mode"], c["dtype"]): c for c in result["cases"]}
    assert set(cases) == {(mode, dtype) for mode in ("infer", "train") for dtype in ("float32", "bfloat16")}
    for found in cases.values():
        timed = {row["peer"] for row in found["rows"]}
        absent = {item["peer"]: item["reason"] for item in found["absent"]}
        assert timed | set(absent) == {*peers, "torch-compiled"}
        assert absent["torch-compiled"] == "not asked for"
        assert all(absent.values())
        assert all(row["timing"]["median"] > 0 for row in found["rows"])
    installed = {peer for peer, module in peers.items() if importlib.util.find_spec(module)}
    if not importlib.util.find_spec("onnx"):
        installed &= {"pycnn", "torch-eager"}
    assert {row["peer"] for row in cases["infer", "float32"]["rows"]} == installed
    assert {row["peer"] for row in cases["train", "float32"]["rows"]} == {"pycnn", "torch-eager"}
    for dtype in ("infer", "train"):
        assert cases[dtype, "float32"]["ratio"] > 0
        assert "torch-eager" in {row["peer"] for row in cases[dtype, "bfloat16"]["rows"]}
    assert "float32 inference, 1 threads" in done.stdout
    assert "| lenet5 | 2 |" in done.stdout


@pytest.mark.interop
def test_training_with_dropout_is_checked_without_it():
    pytest.importorskip("torch")
    from benchmarks.compare.run import run_case

    result = run_case(case("cifar_alexnet", 4, "train"), ["pycnn", "torch-eager"], rounds=1, seconds=0.001)
    assert {row.peer for row in result.rows} == {"pycnn", "torch-eager"}, result.absent
    assert {item.reason for item in result.absent} == {"not asked for"}


@pytest.mark.interop
def test_folded_batch_norms_agree():
    pytest.importorskip("torch")
    from benchmarks.compare.run import run_case

    result = run_case(case("cifar_resnext", 2), ["pycnn", "torch-eager"], rounds=1, seconds=0.001)
    assert {row.peer for row in result.rows} == {"pycnn", "torch-eager"}, result.absent


def test_a_setting_that_left_still_counts_when_the_others_turn_out_slower():
    from dataclasses import replace

    from benchmarks.compare.report import CaseResult

    ours, steady, disturbed = rows(pycnn=(2.0,), torch_eager=(6.0, 9.0))
    result = CaseResult(case(), [ours, replace(steady, left=True), disturbed])
    assert result.best_peer.setting == steady.setting
    assert result.ratio == pytest.approx(3.0)


def test_memory_of_a_step_is_at_least_its_plan_s_variables(root):
    from benchmarks.compare import peer_pycnn
    from benchmarks.compare.memory import measure

    peak = measure(case("lenet5", 64, "train"), peer_pycnn.settings("train", "float32", 64, 2)[0])
    assert peak.reason == ""
    # Momentum has as many numbers as the weights, 61,706.
    assert peak.planned > 4 * 61_706
    assert 4 * 61_706 < peak.bytes < 4 * peak.planned
