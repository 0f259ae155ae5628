"""Loading weights into a net, and choosing parameters by name."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.tensor import Parameter, as_array

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = ["LoadReport", "Mismatch", "load", "select"]

_SHOWN = 10


@dataclass(frozen=True)
class Mismatch:
    """A name that both sides have with different shapes.

    Attributes:
        name: Dotted name.
        given: Shape in the state.
        expected: Shape in the net.
    """

    name: str
    given: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        """Both shapes."""
        return f"'{self.name}' is {self.given}, the net has {self.expected}"


@dataclass(frozen=True)
class LoadReport:
    """What `load_state_dict` or `load_weights` did; prints as a list.

    Attributes:
        loaded: Names that were overwritten.
        missing: Names of the net that the state lacks.
        unexpected: Names of the state that the net lacks.
        mismatched: Names whose shapes differ; the net kept its values.
        skipped: Names on either side that `skip` left out.
        fresh: Names of a head that starts anew because the number of classes differs.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...] = ()
    skipped: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Counts, and the first ten names of everything that was not loaded."""
        lines = [f"{len(self.loaded)} loaded"]
        for what, items in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("mismatched", self.mismatched),
            ("skipped", self.skipped),
            ("fresh", self.fresh),
        ):
            if items:
                lines.append(f"{len(items)} {what}:{listing(items)}")
        return "\n".join(lines)


def listing(items: Sequence[object]) -> str:
    """The first ten, a line each, and how many more there are."""
    shown = "".join(f"\n  {item}" for item in items[:_SHOWN])
    more = len(items) - _SHOWN
    return shown + (f"\n  and {more} more" if more > 0 else "")


def load(
    net: Module,
    state: Mapping[str, Any],
    *,
    strict: bool,
    skip: str | Sequence[str] = (),
    may_differ: Collection[str] = (),
    who: str = "load_state_dict",
) -> LoadReport:
    """See `Module.load_state_dict`.

    Args:
        net: The net.
        state: Arrays by name.
        strict: Every name must be on both sides with the same shape.
        skip: Patterns of names to leave out.
        may_differ: Names that keep their values when the shape of one of their layer differs, strict or not.
        who: Named in errors.
    """
    if not isinstance(state, Mapping):
        raise DTypeError(f"{who}: got {type(state).__name__}, expected a mapping of names to arrays")
    net.require_built(who)
    net.name_tensors()
    tensors = dict(net.named_tensors())
    # PyTorch's batch norms count their batches; nothing is computed from the number.
    given = {
        str(name): value
        for name, value in state.items()
        if name in tensors or str(name).rpartition(".")[2] != "num_batches_tracked"
    }
    skipped = _matching([*tensors, *(n for n in given if n not in tensors)], skip, who)
    wanted = {name: p for name, p in tensors.items() if name not in skipped}
    offered = {name: value for name, value in given.items() if name not in skipped}
    arrays = {name: as_array(_detached(offered[name]), what=f"{who}: '{name}'") for name in wanted if name in offered}
    _check_types(wanted, arrays, who)
    different = [
        Mismatch(name, array.shape, wanted[name].disk_shape)
        for name, array in arrays.items()
        if array.shape != wanted[name].disk_shape
    ]
    # The bias of another weight is of no use.
    renewed = {m.name.rpartition(".")[0] for m in different if m.name in may_differ}
    fresh = tuple(name for name in arrays if name in may_differ and name.rpartition(".")[0] in renewed)
    kept = {*fresh, *(m.name for m in different)}
    report = LoadReport(
        loaded=tuple(name for name in arrays if name not in kept),
        missing=tuple(name for name in wanted if name not in offered),
        unexpected=tuple(name for name in offered if name not in wanted),
        mismatched=tuple(m for m in different if m.name not in may_differ),
        skipped=tuple(skipped),
        fresh=fresh,
    )
    _judge(report, strict, who)
    for name in report.loaded:
        wanted[name].copy_(arrays[name])
    warn_not_finite({name: arrays[name] for name in report.loaded}, who)
    return report


def _judge(report: LoadReport, strict: bool, who: str) -> None:
    """Raise when names or shapes differ and must not, or when nothing at all would be loaded."""
    parts = [
        f"{len(items)} {what}:{listing(items)}"
        for what, items in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("mismatched", report.mismatched),
        )
        if items
    ]
    if strict and parts:
        if not report.missing and not report.unexpected:
            layers = sorted({f"{m.name.rpartition('.')[0]}.*" for m in report.mismatched})[:3]
            hint = f"skip={tuple(layers)!r} leaves them as they are"
            if all(m.given[1:] == m.expected[1:] for m in report.mismatched):
                hint = f"a different number of classes? {hint}"
            raise ShapeError(f"{who}: shapes differ; " + "\n".join(parts) + f"\n  hint: {hint}")
        hint = "strict=False loads what both sides have"
        raise ArgumentError(f"{who}: names differ; " + "\n".join(parts) + f"\n  hint: {hint}")
    if not report.loaded and (parts or report.skipped or report.fresh):
        raise ArgumentError(f"{who}: nothing can be loaded; " + "\n".join(parts or [str(report)]))


def _matching(names: Iterable[str], patterns: str | Sequence[str], who: str) -> dict[str, None]:
    """Names that a pattern matches, or whose module it matches, in order.

    Raises:
        ArgumentError: A pattern matches nothing.
    """
    known = dict.fromkeys(names)
    chosen: set[str] = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str):
            raise ArgumentError(f"{who}: a pattern must be a str, got {pattern!r}")
        found = {name for name in known if fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")}
        if not found:
            from pycnn.nn.module import _unknown

            raise ArgumentError(f"{who}: " + _unknown("parameter or module", pattern, known))
        chosen |= found
    return {name: None for name in known if name in chosen}


def warn_not_finite(arrays: Mapping[str, np.ndarray], who: str) -> None:
    """Say which arrays hold NaN or infinity."""
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        from pycnn.nn._running import stack_level

        shown = ", ".join(f"'{name}'" for name in bad[:_SHOWN])
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        warnings.warn(f"{who}: NaN or infinity in {shown}{more}", RuntimeWarning, stacklevel=stack_level())


def _check_types(tensors: Mapping[str, Parameter], arrays: Mapping[str, np.ndarray], who: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind != np.dtype(tensors[name].dtype).kind:
            raise DTypeError(f"{who}: '{name}' is {array.dtype}, the net has {tensors[name].dtype}")


def _detached(value: Any) -> Any:
    """A torch parameter refuses to become an array while it wants a gradient."""
    return value.detach() if hasattr(value, "detach") else value


def select(
    parameters: Mapping[str, Parameter], patterns: Sequence[str], *, who: str = "freeze"
) -> dict[str, Parameter]:
    """Parameters whose name, or the name of a module above them, matches a pattern.

    Args:
        parameters: By dotted name.
        patterns: With ``*`` and ``?``; none means all.
        who: Named in the error.

    Raises:
        ArgumentError: A pattern matches nothing.
    """
    if not patterns:
        return dict(parameters)
    chosen = _matching(parameters, patterns, who)
    return {name: parameters[name] for name in chosen}
