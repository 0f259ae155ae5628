"""Heads that a net has for training only.

A deep net may look at its classes half way too: small heads on inner layers, whose losses are added to that of the
main output with a weight and so bring gradients to the layers below (Szegedy et al. 2014, "Going deeper with
convolutions"; Lee et al. 2015, "Deeply-supervised nets"). In ``forward`` a net says where such a head sits; the head
is recorded where somebody collects the results, which `Trainer` does for its training programs and `save` for the
file. Everywhere else it is not there: programs for inference hold nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pycnn.arguments import as_number
from pycnn.errors import ArgumentError, GraphError
from pycnn.tracing import Symbol

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = ["Auxiliary", "auxiliary", "collect_auxiliary"]


@dataclass(frozen=True)
class Auxiliary:
    """The result of a head that counts in training only.

    Attributes:
        output: What the head gives, of the main output's kind (scores of classes, for example).
        weight: Of its loss, beside the main one's 1.
    """

    output: Symbol
    weight: float


class _Collecting(threading.local):
    def __init__(self) -> None:
        self.lists: list[list[Auxiliary]] = []


_collecting = _Collecting()


@contextmanager
def collect_auxiliary() -> Iterator[list[Auxiliary]]:
    """Record the auxiliary heads of nets that are called inside, and list their results.

    Example:
        >>> import numpy as np, pycnn as pc
        >>> net = pc.models.create("inception_v3")
        >>> def loss(x, y):
        ...     with pc.nn.collect_auxiliary() as heads:
        ...         total = pc.functional.cross_entropy(net(x), y)
        ...     for head in heads:
        ...         total = total + head.weight * pc.functional.cross_entropy(head.output, y)
        ...     return {"loss": total}
        >>> shapes = {"x": ((1, 299, 299, 3), "float32"), "y": ((1,), "int64")}
        >>> traced = pc.tracing.trace(loss, shapes, root=net)
        >>> "AuxLogits.fc.weight" in traced.parameters
        True
    """
    heads: list[Auxiliary] = []
    _collecting.lists.append(heads)
    try:
        yield heads
    finally:
        _collecting.lists.pop()


def add_auxiliary(head: Auxiliary) -> None:
    """Hand a result to who collects."""
    _collecting.lists[-1].append(head)


def is_collecting() -> bool:
    """Whether auxiliary heads are recorded now."""
    return bool(_collecting.lists)


def auxiliary(head: Module, x: Any, *, weight: float) -> None:
    """Say, within ``forward``, that a head for training only sits on `x`.

    Args:
        head: A module of the net; it gives one result of the main output's kind.
        x: What the head reads.
        weight: Of the head's loss, beside the main one's 1; at least 0.

    Raises:
        ArgumentError: The weight is negative or not finite.
        GraphError: The head gives something else than one Symbol.

    Example:
        >>> import pycnn as pc
        >>> from pycnn import functional, nn
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         self.conv1 = nn.Conv2d(3, 8, kernel_size=3)
        ...         self.aux = nn.Linear(8, 10)
        ...         self.conv2 = nn.Conv2d(8, 16, kernel_size=3)
        ...         self.fc = nn.Linear(16, 10)
        ...     def forward(self, x):
        ...         x = functional.relu(self.conv1(x))
        ...         nn.auxiliary(self.aux, functional.global_avg_pool2d(x), weight=0.3)
        ...         x = functional.relu(self.conv2(x))
        ...         return self.fc(functional.global_avg_pool2d(x))
        >>> trainer = pc.Trainer(Net())  # adds 0.3 times the loss of `aux`
    """
    number = as_number(weight, who="auxiliary", name="weight", low=0.0)
    if not _collecting.lists:
        return
    output = head(x)
    if not isinstance(output, Symbol):
        raise GraphError(f"auxiliary: {type(head).__name__} gives {type(output).__name__}, expected one Symbol")
    add_auxiliary(Auxiliary(output, number))


def total_loss(
    main: Symbol, heads: Sequence[Auxiliary], loss_of: Callable[[Symbol], Symbol], weight: float | None = None
) -> Symbol:
    """The main output's loss and, weighted, those of the heads.

    Args:
        main: The main loss.
        heads: What was collected.
        loss_of: From a head's output to its loss.
        weight: Replaces the heads' own weights; None leaves them.
    """
    for head in heads:
        main = main + (head.weight if weight is None else weight) * loss_of(head.output)
    return main


def as_auxiliary_weight(value: Any, *, who: str) -> float | None:
    """Check a weight that replaces those of the net; None leaves them.

    Raises:
        ArgumentError: It is negative or no finite number.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise ArgumentError(f"{who}: auxiliary_weight must be a number of at least 0, got {value!r}")
    return as_number(value, who=who, name="auxiliary_weight", low=0.0)
