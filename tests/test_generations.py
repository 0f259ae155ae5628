"""The comparison of generations: same data, same budget, measured alike."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import pycnn as pc
from pycnn import generations
from pycnn.generations import GENERATIONS, GenerationResult, compare_generations, draw_generations


@pytest.fixture(scope="module")
def data():
    train, test = pc.data.digits(seed=0, size=(32, 32))
    return pc.data.subset(train, np.arange(64)), pc.data.subset(test, np.arange(20))


def test_every_generation_is_there_and_takes_small_images():
    assert [g.title for g in GENERATIONS] == ["LeNet-5", "AlexNet", "VGG", "GoogLeNet", "ResNet-20", "ResNeXt-29"]
    assert [g.year for g in GENERATIONS] == sorted(g.year for g in GENERATIONS)
    for generation in GENERATIONS:
        net = pc.models.create(generation.net, num_classes=7, input_shape=(32, 32, 1), **generation.options)
        assert net.input_shape == (32, 32, 1)


def test_steps_as_budget_give_the_same_result_twice(data):
    said = []
    results = [
        compare_generations(*data, steps=6, generations=GENERATIONS[:2], batch_size=16, report=said.append)
        for _ in range(2)
    ]
    for first, second in zip(*results, strict=True):
        assert (first.steps, first.images) == (6, 96)
        timing = {"seconds": 0.0, "seconds_per_1000_images": 0.0}
        assert replace(first, **timing) == replace(second, **timing)
        assert 0.0 <= first.test_accuracy <= 1.0
        assert first.seconds_per_1000_images == pytest.approx(1000 * first.seconds / 80)
    assert results[0][0].parameters == 61706
    assert any("LeNet-5 (1998): 6 steps" in line for line in said)


@pytest.mark.parametrize("budget", [{"steps": 1}, {"seconds": 0.1}])
def test_an_absent_device_is_told(data, budget):
    with pytest.raises(pc.DeviceError, match="cuda:99"):
        compare_generations(*data, **budget, generations=GENERATIONS[:1], batch_size=16, device="cuda:99")


def test_training_follows_the_one_cycle_and_learns():
    train, test = pc.data.digits(seed=0)
    (result,) = compare_generations(train, test, steps=150, generations=GENERATIONS[:1], batch_size=32)
    assert result.test_accuracy > 0.9
    assert result.train_loss < 0.6


@pytest.mark.parametrize(("steps", "seconds", "images"), [(6, 5.0, 80), (1, 100.0, 16)])
def test_the_first_step_which_compiles_is_not_timed_where_there_are_others(data, monkeypatch, steps, seconds, images):
    now = 0.0

    class Timed(generations.Trainer):
        def step(self, x, y):
            nonlocal now
            now += 1.0 if self.steps else 100.0
            return super().step(x, y)

    monkeypatch.setattr(generations, "Trainer", Timed)
    monkeypatch.setattr(generations, "time", SimpleNamespace(perf_counter=lambda: now))
    (result,) = compare_generations(*data, steps=steps, generations=GENERATIONS[:1], batch_size=16)
    assert (result.images, result.seconds) == (16 * steps, seconds)
    assert result.seconds_per_1000_images == 1000 * seconds / images


def test_seconds_as_budget_settle_the_steps(data):
    (result,) = compare_generations(*data, seconds=0.2, generations=GENERATIONS[:1], batch_size=16)
    assert result.steps >= 4
    assert result.images == 16 * result.steps


@pytest.mark.parametrize(
    ("options", "text"),
    [({}, "either"), ({"seconds": 1.0, "steps": 1}, "either"), ({"steps": 0}, "steps"), ({"seconds": -1.0}, "seconds")],
)
def test_bad_budgets_are_refused(data, options, text):
    with pytest.raises(pc.ArgumentError, match=text):
        compare_generations(*data, **options)


def result(title, accuracy, parameters=1000, macs=10**6, seconds=1.0):
    return GenerationResult(2000, title, "net", parameters, macs, 10, 640, 0.64 * seconds, seconds, 1.0, 1.0, accuracy)


def test_chart_has_three_panels_with_every_net_and_units(tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    results = [result("A", 0.5), result("B", 0.75, 30_000, 4 * 10**7, 3.0), result("C", 0.9, 250_000, 10**9, 0.2)]
    figure = draw_generations(results, tmp_path / "new" / "chart.png", title="digits, 10 steps for each net")
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels == ["parameters", "multiply-adds for an image", "training time for 1,000 images (s)"]
    assert figure.axes[0].get_ylabel() == "accuracy on held-out images (%)"
    for axis, name in zip(figure.axes, ("parameters", "macs", "seconds_per_1000_images"), strict=True):
        points = [tuple(part.get_offsets()[0]) for part in axis.collections]
        expected = [(getattr(r, name), 100 * r.test_accuracy) for r in results]
        assert np.ravel(points) == pytest.approx(np.ravel(expected))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["A (2000)", "B (2000)", "C (2000)"]
    with image.open(tmp_path / "new" / "chart.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 200).mean() > 0.01


def test_chart_needs_results_and_matplotlib(monkeypatch):
    with pytest.raises(pc.ArgumentError, match="no result"):
        draw_generations([])
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(pc.UnsupportedError, match=r"pycnn\[plot\]"):
        draw_generations([result("A", 0.5)])
