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


def test_one_cycle_rises_to_the_peak_and_falls_to_almost_nothing():
    schedule = optim.OneCycle(rise=0.25, div=10, final_div=100)
    rates = [schedule.factor(at(step)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[24] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.001)
    assert rates[:25] == sorted(rates[:25])
    assert rates[24:] == sorted(rates[24:], reverse=True)
    # Half way up and down, half cosines stand at the mean of their ends.
    assert rates[12] == pytest.approx((0.1 + 1.0) / 2)
    quarter = 1.0 + (0.001 - 1.0) * 0.5 * (1 - math.cos(math.pi * 25 / 75))
    assert rates[49] == pytest.approx(quarter)


def test_one_cycle_along_straight_lines():
    schedule = optim.OneCycle(rise=0.5, div=4, final_div=2, shape="linear", total_steps=9)
    expected = [0.25 + 0.75 * step / 3.5 for step in range(4)] + [
        1.0 - 0.875 * (step - 3.5) / 4.5 for step in range(4, 9)
    ]
    assert [schedule.factor(Progress(step)) for step in range(9)] == pytest.approx(expected)
    assert schedule.factor(Progress(20)) == pytest.approx(0.125)


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_one_cycle_of_very_few_steps_stays_within_its_ends(total):
    schedule = optim.OneCycle(total_steps=total)
    assert all(0.0 < schedule.factor(Progress(step)) <= 1.0 for step in range(total + 2))


@pytest.mark.interop
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("total", [20, 97])
def test_one_cycle_has_the_values_of_pytorch(shape, total):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=total, anneal_strategy={"cosine": "cos"}.get(shape, shape), cycle_momentum=False
    )
    ours = optim.OneCycle(shape=shape)
    for step in range(total):
        assert 0.4 * ours.factor(at(step, per_epoch=total, epochs=1)) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        if step + 1 < total:
            theirs.step()


def test_one_cycle_needs_to_know_the_end():
    with pytest.raises(pc.ArgumentError, match="total_steps"):
        optim.OneCycle().factor(Progress(0))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"rise": 0}, "rise"), ({"rise": 1}, "rise"), ({"div": 0.5}, "div"), ({"final_div": 0}, "final_div"),
     ({"shape": "square"}, "'square'"), ({"total_steps": 0}, "total_steps")],
)  # fmt: skip
def test_one_cycle_refuses_bad_arguments(arguments, text):
    with pytest.raises(pc.ArgumentError, match=text):
        optim.OneCycle(**arguments)
