"""What is measured beside the loss; each metric is an output of the program."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.tracing import Symbol

__all__ = ["Metric", "as_metrics"]


@dataclass(frozen=True)
class Metric:
    """A number per batch.

    Attributes:
        name: Under which it is reported.
        build: From scores (N, C) and labels (N) to a scalar symbol.
        counts: The scalar is a count of samples, to be divided by N; otherwise it is a mean.
    """

    name: str
    build: Callable[[Symbol, Symbol], Symbol]
    counts: bool

    def value(self, result: float, samples: int) -> float:
        """Mean over the samples of a batch."""
        return result / samples if self.counts else result


def _top(k: int) -> Callable[[Symbol, Symbol], Symbol]:
    return lambda scores, labels: functional.top_k_correct(scores, labels, k=k)


def as_metric(value: Any) -> Metric:
    """A metric by name ("accuracy", "top5"), or from a function of (scores, labels).

    Raises:
        ArgumentError: Something else.
    """
    if isinstance(value, Metric):
        return value
    if value == "accuracy":
        return Metric("accuracy", _top(1), counts=True)
    match = re.fullmatch(r"top([1-9][0-9]*)", value) if isinstance(value, str) else None
    if match:
        return Metric(value, _top(int(match[1])), counts=True)
    if callable(value):
        return Metric(getattr(value, "__name__", type(value).__name__), value, counts=False)
    raise ArgumentError(
        f"Trainer: metric {value!r} is not known; expected 'accuracy', 'topK' (for example 'top5') "
        "or a function of scores and labels"
    )


def as_metrics(values: Sequence[Any]) -> tuple[Metric, ...]:
    """Check a list of metrics.

    Raises:
        ArgumentError: One is not known, or two share a name.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ArgumentError(f"Trainer: metrics must be a sequence, got {values!r}")
    metrics = tuple(as_metric(value) for value in values)
    names = ["loss", *(metric.name for metric in metrics)]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(f"Trainer: two metrics are called {name!r}")
    return metrics
