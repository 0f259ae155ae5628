"""Docstrings of nets of one family, which take the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["arguments_of"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FIRST, _EXAMPLE = "    Args:\n", "    Example:\n"


def arguments_of(source: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Decorate a function that takes the arguments of another: its docstring gets that one's Args, Shape and Raises.

    They come before its Example, so that ``help`` shows them for every net.
    """

    def decorate(function: _Function) -> _Function:
        if function.__doc__ and source.__doc__:  # python -OO drops them.
            sections = source.__doc__.partition(_FIRST)[2].partition(_EXAMPLE)[0]
            text, _, example = function.__doc__.partition(_EXAMPLE)
            function.__doc__ = f"{text}{_FIRST}{sections}{_EXAMPLE}{example}"
        return function

    return decorate
