"""Functions of each number alone, and of two tensors with NumPy broadcasting."""

from __future__ import annotations

import math
from typing import Any

from pycnn import _core
from pycnn.errors import ArgumentError
from pycnn.functional._basic import multiply
from pycnn.functional._run import apply, as_number


def _unary(x: Any, kind: str, a: float = 1.0, b: float = 0.0) -> Any:
    return apply(_core.Unary(kind=kind, a=a, b=b), [x])


def _binary(a: Any, b: Any, kind: str) -> Any:
    return apply(_core.Binary(kind=kind), [a, b])


# ---- Activations


def elu(x: Any, *, alpha: float = 1.0) -> Any:
    """X where positive, else alpha * (exp(x) - 1) (Clevert et al. 2015)."""
    return _unary(x, "elu", as_number(alpha, "elu: alpha"))


def selu(x: Any) -> Any:
    """Scale * elu(x) with the two constants that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return _unary(x, "selu")


def celu(x: Any, *, alpha: float = 1.0) -> Any:
    """X where positive, else alpha * (exp(x / alpha) - 1), alpha above 0 (Barron 2017)."""
    return _unary(x, "celu", as_number(alpha, "celu: alpha"))


def silu(x: Any) -> Any:
    """X * sigmoid(x) (Hendrycks and Gimpel 2016), also called swish."""
    return _unary(x, "silu")


def mish(x: Any) -> Any:
    """X * tanh(log(1 + exp(x))) (Misra 2019)."""
    return _unary(x, "mish")


def gelu(x: Any, *, approximate: str = "none") -> Any:
    """X times the probability that a standard normal number is below x (Hendrycks and Gimpel 2016).

    Args:
        x: Any shape.
        approximate: "none" for the error function, "tanh" for the paper's approximation.

    Raises:
        ArgumentError: Another approximation.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate is {approximate!r}, expected none or tanh")
    return _unary(x, "gelu" if approximate == "none" else "gelu_tanh")


def hardsigmoid(x: Any, *, alpha: float = 1 / 6, beta: float = 0.5) -> Any:
    """min(max(alpha * x + beta, 0), 1); the defaults are PyTorch's."""
    return _unary(x, "hard_sigmoid", as_number(alpha, "hardsigmoid: alpha"), as_number(beta, "hardsigmoid: beta"))


def hardswish(x: Any) -> Any:
    """X * min(max(x / 6 + 1/2, 0), 1) (Howard et al. 2019)."""
    return _unary(x, "hard_swish")


def softplus(x: Any, *, beta: float = 1.0) -> Any:
    """log(1 + exp(beta * x)) / beta without overflow, beta above 0."""
    return _unary(x, "softplus", as_number(beta, "softplus: beta"))


def softsign(x: Any) -> Any:
    """X / (1 + |x|)."""
    return _unary(x, "softsign")


def threshold(x: Any, *, threshold: float, value: float) -> Any:
    """X where it exceeds the threshold, else the value; NaN stays NaN."""
    return _unary(x, "threshold", as_number(threshold, "threshold: threshold"), as_number(value, "threshold: value"))


def clip(x: Any, *, min: float = -math.inf, max: float = math.inf) -> Any:
    """Bring each number into [min, max]; NaN stays NaN, and max wins where min exceeds it.

    The gradient passes on the bounds and between them.
    """
    return _unary(x, "clip", as_number(min, "clip: min"), as_number(max, "clip: max"))


def prelu(x: Any, weight: Any) -> Any:
    """X where positive, else weight * x with a learned weight (He et al. 2015).

    Args:
        x: (..., C).
        weight: One slope for each channel (C), or one for all (1); any shape that broadcasts.
    """
    return _binary(x, weight, "prelu")


# ---- Elementary functions


def abs(x: Any) -> Any:
    """|x|; the gradient at 0 is 0."""
    return _unary(x, "abs")


def erf(x: Any) -> Any:
    """Return the error function of x."""
    return _unary(x, "erf")


def exp(x: Any) -> Any:
    """E to the power of x."""
    return _unary(x, "exp")


def log(x: Any) -> Any:
    """Natural logarithm; of 0 minus infinity, of negative numbers NaN."""
    return _unary(x, "log")


def sqrt(x: Any) -> Any:
    """Square root; of negative numbers NaN."""
    return _unary(x, "sqrt")


def rsqrt(x: Any) -> Any:
    """1 / sqrt(x)."""
    return _unary(x, "reciprocal_sqrt")


def reciprocal(x: Any) -> Any:
    """1 / x."""
    return _unary(x, "reciprocal")


def power(a: Any, b: Any) -> Any:
    """A to the power of b, with NumPy broadcasting.

    Args:
        a: Any shape; negative numbers give NaN unless the exponent is whole.
        b: A number, or a tensor.

    Example:
        >>> import numpy as np
        >>> power(np.array([1, 2, 3], np.float32), 2).tolist()
        [1.0, 4.0, 9.0]
    """
    if not isinstance(b, int | float) or isinstance(b, bool):
        return _binary(a, b, "power")
    special = {0.5: "sqrt", -0.5: "reciprocal_sqrt", -1.0: "reciprocal"}
    if b == 2:
        return multiply(a, a)
    return _unary(a, special.get(b, "power"), float(b))


# ---- Two tensors


def divide(a: Any, b: Any) -> Any:
    """A / b with NumPy broadcasting."""
    return _binary(a, b, "divide")


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of a and b with NumPy broadcasting; NaN wins, equal numbers share the gradient."""
    return _binary(a, b, "maximum")


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of a and b with NumPy broadcasting; NaN wins, equal numbers share the gradient."""
    return _binary(a, b, "minimum")
