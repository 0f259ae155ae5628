"""What `bench` holds a GPU's times against.

As `test_device_training.py`, this needs no GPU where the emulated module is named.
"""

from __future__ import annotations

import functools
import os
from collections import Counter

import pytest

from pycnn import functional, models, nn
from pycnn.benchmark import bench, draw_roofline
from pycnn.benchmark._device_peaks import device_peaks
from pycnn.cli import main
from pycnn.errors import ArgumentError

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")
    monkeypatch.setattr("pycnn.benchmark._bench.device_peaks", functools.partial(device_peaks, width=32, side=16))


def test_every_type_that_the_device_multiplies_has_a_rate():
    told = []
    peaks = device_peaks("cuda", report=told.append, width=32, side=16)
    assert [peak.dtype for peak in peaks.compute] == ["float32", "tf32", "bfloat16", "float16"]
    assert all(peak.gflops > 0 for peak in peaks.compute)
    (memory,) = peaks.memory
    assert memory.level == "memory"
    assert memory.read_gbytes > 0
    assert memory.copy_gbytes > 0
    assert str(peaks).startswith("peaks of cuda: float32 ")
    assert len(told) == 1
    assert "cuda" in told[0]


def test_steps_are_held_against_the_peaks_of_the_device():
    report = bench(models.lenet5(), batch_size=2, device="cuda", dtype="bfloat16", layers=True, rounds=1)
    assert [peaks.isa for peaks in report.peaks] == ["cuda"]
    (timing,) = report.timings
    assert timing.percent_of_bound is not None
    assert timing.percent_of_bound > 0
    assert {layer.bound_by for layer in report.layers if layer.flops > 0} <= {"compute", "memory"}
    assert all(layer.percent_of_bound for layer in report.layers if layer.flops > 0)
    assert bench(models.lenet5(), batch_size=2, device="cuda", peaks=None, rounds=1).peaks == ()


def test_a_net_that_cannot_be_recorded_is_told_of(monkeypatch):
    if "emulated" not in os.environ.get("PYCNN_CUDA_MODULE", ""):
        pytest.skip("a GPU fails when it wants to")
    report = bench(models.lenet5(), batch_size=2, device="cuda", peaks=None, rounds=1)
    assert not any("recorded" in each for each in report.warnings)
    monkeypatch.setenv("PYCNN_EMULATED_FAILURE", "recording")
    report = bench(models.lenet5(), batch_size=2, device="cuda", peaks=None, rounds=1)
    assert "the net was not recorded, its steps are launched one by one: told to fail" in report.warnings


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("images", "given"), [(None, 2 * 8 * 8), ("device", 2 * 8 * 8), ("host", 2 * 28 * 28 * 4)])
def test_images_lie_on_the_device_unless_the_host_is_asked_for(monkeypatch, tmp_path, images, given, train):
    log = tmp_path / "calls"
    monkeypatch.setenv("PYCNN_EMULATED_CALLS", str(log))
    report = bench(
        models.lenet5(), batch_size=2, device="cuda", peaks=None, rounds=1, images=images, train=train, layers=True
    )
    where = images or "device"
    assert report.images == where
    assert str(report).splitlines()[0].endswith(f", images from the {where}")
    assert any(layer.op == "take_windows" for layer in report.layers) == (where == "device")
    if "emulated" in os.environ.get("PYCNN_CUDA_MODULE", ""):
        # What a step is given: numbers and labels, or images and labels; places are aligned to 256 bytes.
        sent = Counter(line for line in log.read_text().splitlines() if line.startswith("copy_in "))
        assert sent.most_common(1)[0][0] == f"copy_in {-(-given // 256) * 256 + 256 * train}"


class PooledFirst(nn.Module):
    """What comes first is a function, which refuses bytes."""

    def __init__(self):
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = functional.max_pool2d(x, kernel_size=2)
        return self.fc(functional.global_avg_pool2d(self.conv(x)))


@pytest.mark.parametrize("train", [False, True])
def test_images_lie_on_the_device_for_a_net_that_takes_no_bytes_too(train):
    report = bench(PooledFirst(), input_shape=(9, 9, 3), device="cuda", peaks=None, rounds=1, train=train, layers=True)
    assert report.images == "device"
    (windows,) = [layer for layer in report.layers if layer.op == "take_windows"]
    assert [op for _, op in windows.absorbed] == ["normalize_image"]


def test_a_net_that_takes_no_images_is_given_arrays():
    net = nn.Sequential(nn.Linear(4, 3))
    assert bench(net, input_shape=(4,), device="cuda", peaks=None, rounds=1).images == "host"
    with pytest.raises(ArgumentError, match=r"input \(4,\) is no image"):
        bench(net, input_shape=(4,), device="cuda", peaks=None, rounds=1, images="device")


def test_the_roofline_is_that_of_the_device(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "lenet5.png"
    arguments = ["bench", "lenet5", "--batch", "2", "--device", "cuda", "--rounds", "1", "--roofline", str(picture)]
    assert main(arguments) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "peaks of cuda: float32" in capsys.readouterr().out


def test_a_report_of_a_device_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    report = bench(models.lenet5(), batch_size=2, device="cuda", train=True, layers=True, rounds=1)
    draw_roofline(report, tmp_path / "step.png", name="lenet5")
    assert (tmp_path / "step.png").stat().st_size > 1000
