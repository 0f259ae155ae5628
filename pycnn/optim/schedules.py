"""Learning-rate schedules: the rate as a function of step, epoch and what validation said.

A schedule holds no clock. `rate` is a pure function of where training stands; only
`ReduceOnPlateau` remembers something, and that is its `state_dict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pycnn.arguments import as_integer, as_number
from pycnn.errors import ArgumentError, FormatError

__all__ = ["Constant", "CosineWithWarmup", "OneCycle", "Progress", "ReduceOnPlateau", "Schedule", "StepLR"]


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Attributes:
        step: Steps done, over all epochs.
        epoch: Epochs done.
        steps_per_epoch: Of the current data; 0 when it is not known (`Trainer.step` by hand).
        epochs: How many will be trained; 0 when it is not known.
    """

    step: int
    epoch: int = 0
    steps_per_epoch: int = 0
    epochs: int = 0


class Schedule:
    """Base of the schedules."""

    def factor(self, progress: Progress) -> float:
        """What the optimizer's learning rate is multiplied by at this step."""
        raise NotImplementedError

    def observe(self, metric: float) -> bool:
        """Hear the metric of an epoch, as validation gave it (or training, without validation).

        Returns:
            Whether the factor changed.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """What the schedule remembers, as plain numbers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            FormatError: It belongs to another kind of schedule.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise FormatError(f"{type(self).__name__}: state has {sorted(state)}, expected {sorted(own)}")
        for key, value in state.items():
            setattr(self, f"_{key}", value)


class Constant(Schedule):
    """The optimizer's own rate throughout."""

    def factor(self, progress: Progress) -> float:
        """Always 1."""
        return 1.0


class StepLR(Schedule):
    """Multiply the rate by `gamma` after certain epochs.

    Args:
        milestones: Epochs done before each drop, or one number: after every so many epochs.
        gamma: Factor of a drop, above 0.

    Raises:
        ArgumentError: A number is out of range, or the milestones do not increase.
    """

    def __init__(self, milestones: int | Sequence[int], gamma: float = 0.1) -> None:
        self.every: int | None = None
        self.milestones: tuple[int, ...] = ()
        if isinstance(milestones, Sequence) and not isinstance(milestones, str):
            steps = tuple(as_integer(m, who="StepLR", name="milestones", low=1) for m in milestones)
            if not steps or any(a >= b for a, b in pairwise(steps)):
                raise ArgumentError(f"StepLR: milestones must increase, got {milestones!r}")
            self.milestones = steps
        else:
            self.every = as_integer(milestones, who="StepLR", name="milestones", low=1)
        self.gamma = as_number(gamma, who="StepLR", name="gamma", low=0.0, above=True)

    def factor(self, progress: Progress) -> float:
        """``gamma`` to the number of drops so far."""
        if self.every is not None:
            drops = progress.epoch // self.every
        else:
            drops = sum(progress.epoch >= milestone for milestone in self.milestones)
        return self.gamma**drops

    def __repr__(self) -> str:
        """Show the arguments."""
        return f"StepLR({self.every or self.milestones}, gamma={self.gamma:g})"


class CosineWithWarmup(Schedule):
    """Rise linearly, then fall along half a cosine (Loshchilov, Hutter 2017).

    During warm-up the factor at step i is ``(i + 1) / warmup_steps``; then it falls from 1 to
    `final_factor` over the remaining steps.

    Args:
        warmup_steps: Steps of the rise; 0 starts at the full rate.
        total_steps: Steps until the end. Default: epochs times steps per epoch, as `Trainer.fit`
            knows them.
        final_factor: Factor at the end, in [0, 1].

    Raises:
        ArgumentError: A number is out of range.
    """

    def __init__(self, warmup_steps: int = 0, *, total_steps: int | None = None, final_factor: float = 0.0) -> None:
        who = "CosineWithWarmup"
        self.warmup_steps = as_integer(warmup_steps, who=who, name="warmup_steps", low=0)
        self.total_steps = total_steps
        if total_steps is not None:
            self.total_steps = as_integer(total_steps, who=who, name="total_steps", low=1)
            if self.total_steps <= self.warmup_steps:
                raise ArgumentError(f"{who}: total_steps {total_steps} must exceed warmup_steps {warmup_steps}")
        self.final_factor = as_number(final_factor, who=who, name="final_factor", low=0.0, high=1.0)

    def factor(self, progress: Progress) -> float:
        """See the class.

        Raises:
            ArgumentError: The end is neither given nor known.
        """
        total = self.total_steps or progress.epochs * progress.steps_per_epoch
        if total <= 0:
            raise ArgumentError(
                "CosineWithWarmup: the number of steps is not known\n"
                "  hint: give total_steps when calling Trainer.step by hand"
            )
        if progress.step < self.warmup_steps:
            return (progress.step + 1) / self.warmup_steps
        span = max(total - self.warmup_steps, 1)
        part = min((progress.step - self.warmup_steps) / span, 1.0)
        return self.final_factor + (1.0 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * part))

    def __repr__(self) -> str:
        """Show the arguments."""
        return (
            f"CosineWithWarmup({self.warmup_steps}, total_steps={self.total_steps}, final_factor={self.final_factor:g})"
        )


class OneCycle(Schedule):
    """Rise from a small rate to the optimizer's, then fall to almost nothing (Smith, Topin 2018).

    The optimizer's rate is the peak. With T steps and ``p = rise * T - 1`` the factor goes from ``1 / div`` at step 0
    to 1 at step p and to ``1 / (div * final_div)`` at step T - 1, along half cosines or straight lines; the values are
    those of PyTorch's OneCycleLR. The momentum, which the paper lets fall while the rate rises, stays as it is.

    Args:
        rise: Part of the steps that the rate rises, in (0, 1).
        div: Peak over first rate, at least 1.
        final_div: First over last rate, at least 1.
        shape: "cosine" or "linear".
        total_steps: Steps until the end. Default: epochs times steps per epoch, as `Trainer.fit` knows them.

    Raises:
        ArgumentError: A number is out of range, or the shape is unknown.

    Example:
        >>> cycle = OneCycle(rise=0.25, total_steps=100)
        >>> [round(cycle.factor(Progress(step)), 4) for step in (0, 24, 99)]
        [0.04, 1.0, 0.0]
    """

    def __init__(
        self,
        *,
        rise: float = 0.3,
        div: float = 25.0,
        final_div: float = 1e4,
        shape: str = "cosine",
        total_steps: int | None = None,
    ) -> None:
        who = "OneCycle"
        self.rise = as_number(rise, who=who, name="rise", low=0.0, high=1.0, above=True, below=True)
        self.div = as_number(div, who=who, name="div", low=1.0)
        self.final_div = as_number(final_div, who=who, name="final_div", low=1.0)
        if shape not in ("cosine", "linear"):
            raise ArgumentError(f"{who}: shape must be 'cosine' or 'linear', got {shape!r}")
        self.shape = shape
        self.total_steps = None if total_steps is None else as_integer(total_steps, who=who, name="total_steps", low=1)

    def factor(self, progress: Progress) -> float:
        """See the class.

        Raises:
            ArgumentError: The end is neither given nor known.
        """
        total = self.total_steps or progress.epochs * progress.steps_per_epoch
        if total <= 0:
            raise ArgumentError(
                "OneCycle: the number of steps is not known\n  hint: give total_steps when calling Trainer.step by hand"
            )
        first, last = 1.0 / self.div, 1.0 / (self.div * self.final_div)
        # So few steps have no step of rest before the peak.
        peak = max(self.rise * total - 1.0, 0.0)
        if progress.step < peak:
            return self._between(first, 1.0, progress.step / peak)
        span = total - 1.0 - peak
        return self._between(1.0, last, min((progress.step - peak) / span, 1.0) if span > 0 else 0.0)

    def _between(self, start: float, end: float, part: float) -> float:
        if self.shape == "linear":
            return start + (end - start) * part
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))

    def __repr__(self) -> str:
        """Show the arguments."""
        return (
            f"OneCycle(rise={self.rise:g}, div={self.div:g}, final_div={self.final_div:g}, shape={self.shape!r}, "
            f"total_steps={self.total_steps})"
        )


class ReduceOnPlateau(Schedule):
    """Multiply the rate by `factor` when a metric has stopped improving.

    Args:
        factor: In (0, 1); the classical one is 0.1.
        patience: Epochs without improvement that are still borne.
        mode: "max" for a metric such as accuracy, "min" for a loss.
        threshold: An improvement must exceed this much, in units of the metric.
        min_factor: Lower bound of the product of all reductions.

    Raises:
        ArgumentError: A number is out of range, or the mode is unknown.
    """

    def __init__(
        self,
        factor: float = 0.1,
        *,
        patience: int = 5,
        mode: str = "max",
        threshold: float = 1e-4,
        min_factor: float = 0.0,
    ) -> None:
        who = "ReduceOnPlateau"
        self.reduction = as_number(factor, who=who, name="factor", low=0.0, high=1.0, above=True, below=True)
        self.patience = as_integer(patience, who=who, name="patience", low=0)
        if mode not in ("max", "min"):
            raise ArgumentError(f"{who}: mode must be 'max' or 'min', got {mode!r}")
        self.mode = mode
        self.threshold = as_number(threshold, who=who, name="threshold", low=0.0)
        self.min_factor = as_number(min_factor, who=who, name="min_factor", low=0.0, high=1.0)
        self._best: float | None = None
        self._bad: int = 0
        self._product: float = 1.0

    def factor(self, progress: Progress) -> float:
        """Product of the reductions so far."""
        return self._product

    def observe(self, metric: float) -> bool:
        """Count epochs without improvement; NaN is none."""
        sign = 1.0 if self.mode == "max" else -1.0
        if self._best is None:
            improved = not math.isnan(metric)
        else:
            improved = sign * (metric - self._best) > self.threshold
        if improved:
            self._best, self._bad = float(metric), 0
            return False
        self._bad += 1
        if self._bad <= self.patience:
            return False
        self._bad = 0
        before = self._product
        self._product = max(self._product * self.reduction, self.min_factor)
        return self._product != before

    def state_dict(self) -> dict[str, Any]:
        """Best metric, epochs without improvement, product of the reductions."""
        return {"best": self._best, "bad": self._bad, "product": self._product}

    def __repr__(self) -> str:
        """Show the arguments."""
        return f"ReduceOnPlateau({self.reduction:g}, patience={self.patience}, mode={self.mode!r})"
