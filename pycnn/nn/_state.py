"""Loading weights into a net, and choosing parameters by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.tensor import Parameter, as_array

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = ["LoadReport", "load", "select"]

_SHOWN = 10


@dataclass(frozen=True)
class LoadReport:
    """What `load_state_dict` did.

    Attributes:
        loaded: Names that were overwritten.
        missing: Names of the net that the state lacks.
        unexpected: Names of the state that the net lacks.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        return f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


def _list(lines: Sequence[str]) -> str:
    shown = "".join(f"\n  {line}" for line in lines[:_SHOWN])
    more = len(lines) - _SHOWN
    return shown + (f"\n  and {more} more" if more > 0 else "")


def load(net: Module, state: Mapping[str, Any], *, strict: bool) -> LoadReport:
    """See `Module.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise DTypeError(f"load_state_dict: got {type(state).__name__}, expected a mapping of names to arrays")
    net.require_built("load_state_dict")
    net.name_tensors()
    tensors = dict(net.named_tensors())
    given = {
        name: value
        for name, value in state.items()
        if name in tensors or str(name).rpartition(".")[2] != "num_batches_tracked"
    }
    missing = [name for name in tensors if name not in given]
    unexpected = [name for name in given if name not in tensors]
    arrays = {
        name: as_array(_detached(given[name]), what=f"load_state_dict: '{name}'") for name in tensors if name in given
    }
    _check(net, tensors, arrays)
    if strict and (missing or unexpected):
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing:{_list(missing)}")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected:{_list(unexpected)}")
        raise ArgumentError(
            "load_state_dict: names differ; " + "\n".join(parts) + "\n  hint: strict=False loads what both sides have"
        )
    for name, array in arrays.items():
        tensors[name].copy_(array)
    warn_not_finite(arrays, "load_state_dict")
    return LoadReport(tuple(arrays), tuple(missing), tuple(unexpected))


def warn_not_finite(arrays: Mapping[str, np.ndarray], who: str) -> None:
    """Say which arrays hold NaN or infinity."""
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        from pycnn.nn._running import stack_level

        shown = ", ".join(f"'{name}'" for name in bad[:_SHOWN])
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        warnings.warn(f"{who}: NaN or infinity in {shown}{more}", RuntimeWarning, stacklevel=stack_level())


def _check(net: Module, tensors: dict[str, Parameter], arrays: dict[str, np.ndarray]) -> None:
    wrong = []
    for name, array in arrays.items():
        expected = tensors[name].disk_shape
        if array.shape != expected:
            wrong.append(f"'{name}' is {array.shape}, the net has {expected}")
        elif array.dtype.kind != np.dtype(tensors[name].dtype).kind:
            raise DTypeError(f"load_state_dict: '{name}' is {array.dtype}, the net has {tensors[name].dtype}")
    if wrong:
        raise ShapeError(f"load_state_dict: {len(wrong)} shapes differ:{_list(wrong)}")


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
    from fnmatch import fnmatchcase

    if not patterns:
        return dict(parameters)
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ArgumentError(f"{who}: a pattern must be a str, got {pattern!r}")
        found = {name for name in parameters if fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")}
        if not found:
            from pycnn.nn.module import _unknown

            raise ArgumentError(f"{who}: " + _unknown("parameter or module", pattern, parameters))
        chosen |= found
    return {name: p for name, p in parameters.items() if name in chosen}
