"""Known networks by name.

Example:
    >>> net = create("lenet5", num_classes=10, activation="relu")
    >>> net.num_parameters
    61706
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.models import filters
from pycnn.models.lenet5 import LeNet5, lenet5
from pycnn.models.lenet5_1998 import LeNet5_1998, lenet5_1998
from pycnn.nn.module import Module

__all__ = ["LeNet5", "LeNet5_1998", "create", "filters", "lenet5", "lenet5_1998", "list"]

# Another net is one more line.
_MODELS: dict[str, Callable[..., Module]] = {
    "lenet5": lenet5,
    "lenet5_1998": lenet5_1998,
}


def list() -> tuple[str, ...]:
    """Names that `create` knows, sorted."""
    return tuple(sorted(_MODELS))


def create(name: str, **options: Any) -> Module:
    """Make a network with fresh weights.

    Args:
        name: One of `list()`.
        options: Arguments of the function of that name, for example ``num_classes``.

    Returns:
        The network. Its weights follow from `pycnn.manual_seed` and their names.

    Raises:
        ArgumentError: There is no such network or option, or an option is out of range.
    """
    if name not in _MODELS:
        from difflib import get_close_matches

        close = get_close_matches(str(name), _MODELS, n=3, cutoff=0.4) or sorted(_MODELS)
        raise ArgumentError(f"models.create: no network is called {name!r}\n  hint: there is {', '.join(close)}")
    make = _MODELS[name]
    code = make.__code__  # type: ignore[attr-defined]
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for option in options:
        if option not in known:
            raise ArgumentError(f"models.create: {name} has no option {option!r}\n  hint: there is {', '.join(known)}")
    return make(**options)
