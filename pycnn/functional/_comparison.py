"""Comparisons of two tensors, and choosing between two: truth is 1, falsehood 0, of the tensors' own type."""

from __future__ import annotations

from typing import Any

from pycnn import _core
from pycnn.functional._basic import add, affine, multiply, subtract
from pycnn.functional._elementwise import prelu
from pycnn.functional._run import apply


def _step(a: Any, b: Any) -> Any:
    """1 where a > b, 1/2 where they are equal."""
    return apply(_core.Binary(kind="step"), [a, b])


def equal(a: Any, b: Any) -> Any:
    """1 where a == b, else 0, with NumPy broadcasting; NaN equals nothing. No gradient passes."""
    return apply(_core.Binary(kind="equal"), [a, b])


def greater(a: Any, b: Any) -> Any:
    """1 where a > b, else 0, with NumPy broadcasting; nothing is greater or less than NaN. No gradient passes.

    Example:
        >>> import numpy as np
        >>> greater(np.array([1, 2, 3], np.float32), np.float32(2)).tolist()
        [0.0, 0.0, 1.0]
    """
    return subtract(_step(a, b), affine(equal(a, b), scale=0.5))


def greater_equal(a: Any, b: Any) -> Any:
    """1 where a >= b, else 0 (see `greater`)."""
    return add(_step(a, b), affine(equal(a, b), scale=0.5))


def less(a: Any, b: Any) -> Any:
    """1 where a < b, else 0 (see `greater`)."""
    return greater(b, a)


def less_equal(a: Any, b: Any) -> Any:
    """1 where a <= b, else 0 (see `greater`)."""
    return greater_equal(b, a)


def where(condition: Any, a: Any, b: Any) -> Any:
    """A where the condition is 1, b where it is 0, with NumPy broadcasting; what is not chosen may be NaN or infinite.

    Args:
        condition: 1 or 0, as comparisons give; nothing else.
        a: Any shape.
        b: Any shape.

    Example:
        >>> import numpy as np
        >>> x = np.array([-4, 0, 9], np.float32)
        >>> where(greater(x, np.float32(0)), x, np.float32(-1)).tolist()
        [-1.0, -1.0, 9.0]
    """
    # prelu leaves its weight alone where its input is above 0: -a or 1, times 1 or -b.
    first = prelu(affine(condition, scale=-2.0, offset=1.0), a)
    second = prelu(affine(condition, scale=2.0, offset=-1.0), b)
    return affine(multiply(first, second), scale=-1.0)
