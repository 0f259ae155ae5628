"""Schedules: rates worked out by hand."""

from __future__ import annotations

import math

import pytest

import pycnn as pc
from pycnn import optim
from pycnn.optim import Progress


def at(step=0, epoch=0, per_epoch=10, epochs=10):
    return Progress(step, epoch, per_epoch, epochs)


def test_constant_is_one():
    assert optim.Constant().factor(at(5)) == 1.0


def test_step_drops_after_every_so_many_epochs():
    schedule = optim.StepLR(3, gamma=0.5)
    assert [schedule.factor(at(epoch=e)) for e in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_step_drops_at_milestones():
    schedule = optim.StepLR([2, 4])
    assert [schedule.factor(at(epoch=e)) for e in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_rises_then_falls_to_its_end():
    schedule = optim.CosineWithWarmup(4, final_factor=0.1)
    assert [schedule.factor(at(s)) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.factor(at(52)) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule.factor(at(100)) == pytest.approx(0.1)
    assert schedule.factor(at(1000)) == pytest.approx(0.1)


def test_cosine_needs_to_know_the_end():
    with pytest.raises(pc.ArgumentError, match="total_steps"):
        optim.CosineWithWarmup().factor(Progress(0))
    assert optim.CosineWithWarmup(total_steps=10).factor(Progress(5)) == pytest.approx(0.5)


def test_plateau_reduces_by_ten_after_patience_and_starts_anew():
    schedule = optim.ReduceOnPlateau(patience=1)
    changed = [schedule.observe(m) for m in (0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7)]
    assert changed == [False, False, False, True, False, True, False]
    assert schedule.factor(at()) == pytest.approx(0.01)


def test_plateau_of_a_loss_and_its_floor():
    schedule = optim.ReduceOnPlateau(0.5, patience=0, mode="min", min_factor=0.3)
    for loss in (1.0, 0.5, 0.5, math.nan, 0.5):
        schedule.observe(loss)
    assert schedule.factor(at()) == 0.3


def test_plateau_state_carries_over():
    first, second = optim.ReduceOnPlateau(patience=1), optim.ReduceOnPlateau(patience=1)
    for metric in (0.5, 0.5):
        first.observe(metric)
    second.load_state_dict(first.state_dict())
    assert second.observe(0.5) == first.observe(0.5) is True
    assert second.state_dict() == first.state_dict()


def test_state_of_another_schedule_is_refused():
    with pytest.raises(pc.FormatError, match="Constant"):
        optim.Constant().load_state_dict({"best": 1})


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.StepLR(0),
        lambda: optim.StepLR([3, 2]),
        lambda: optim.StepLR(2, gamma=0),
        lambda: optim.CosineWithWarmup(-1),
        lambda: optim.CosineWithWarmup(10, total_steps=5),
        lambda: optim.ReduceOnPlateau(1.0),
        lambda: optim.ReduceOnPlateau(mode="best"),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(pc.ArgumentError):
        make()
