"""Gradients against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.gradients import gradient_program
from pycnn.program import Program
from pycnn.tensor import Parameter, as_array

__all__ = ["check_gradients"]

# Central differences at h and h / 2 leave an error of h**4 after extrapolation and the rounding of the function, about
# 1e-16 / h: both far below the tolerance. Smaller steps follow where a larger one may have crossed a kink.
_STEPS = (1e-3, 1e-4, 1e-5)


def check_gradients(
    fn: Callable[..., Any],
    *arrays: Any,
    argnums: Sequence[int] | None = None,
    parameters: Sequence[Parameter] | None = None,
    training: bool = False,
    rtol: float = 1e-6,
    elements: int = 24,
    seed: int = 0,
) -> None:
    """Compare the gradients of a function with finite differences of it.

    Everything runs in float64 with the reference kernels. A result that is no scalar is weighted with random numbers
    and summed. Single elements are compared and, so that none is missed, the slope along random directions.
    The function must be smooth near the arrays: keep values away from the kinks of ReLU and max pooling.

    Args:
        fn: From symbols to one Symbol; it may call modules and `pycnn.functional`.
        arrays: Arguments.
        argnums: Positions of the arguments to check; None means every floating one.
        parameters: Check these too; an empty sequence means every trainable parameter that `fn` uses.
        training: Batch norm uses the batch's statistics, dropout drops.
        rtol: Largest error, relative to the largest gradient of the same array.
        elements: Elements of each array that are compared one by one, at most.
        seed: Of the weights, the directions and the choice of elements.

    Raises:
        AssertionError: A gradient is off; the message names the array, the element and both numbers.
        ArgumentError: There is nothing to check.

    Example:
        >>> import numpy as np, pycnn
        >>> from pycnn.testing import check_gradients
        >>> check_gradients(lambda x: pycnn.functional.tanh(x), np.linspace(-2, 2, 7))
    """
    given = [as_array(a, what=f"argument {i}") for i, a in enumerate(arrays)]
    given = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in given]
    positions = [i for i, a in enumerate(given) if a.dtype.kind == "f"] if argnums is None else list(argnums)
    if not positions and parameters is None:
        raise ArgumentError("check_gradients: no argument is floating, and no parameters are given")
    rng = np.random.default_rng(seed)

    def weighted(*symbols: Any) -> Any:
        result = fn(*symbols)
        if result.shape == ():
            return result
        weights = np.random.default_rng(seed).uniform(0.5, 1.5, result.shape)
        return functional.sum(functional.multiply(result, weights))

    specs = [(a.shape, a.dtype.name) for a in given]
    program, names = gradient_program(weighted, specs, positions, parameters, training=training, double=True)
    function = _Function(program, given)
    found = function.run()
    for index, position in enumerate(positions):
        _compare(
            f"argument {position}",
            found[f"gradient_{index}"],
            given[position],
            partial(function.at_argument, position),
            rtol,
            elements,
            rng,
        )
    for index, name in enumerate(names, start=len(positions)):
        _compare(
            f"parameter '{name}'",
            found[f"gradient_{index}"],
            program.variables[name].numpy().copy(),
            partial(function.at_parameter, name),
            rtol,
            elements,
            rng,
        )


class _Function:
    """The function's value near the point where its gradients are checked."""

    def __init__(self, program: Program, arrays: list[np.ndarray]) -> None:
        self._program = program
        self._arrays = arrays

    def run(self) -> dict[str, np.ndarray]:
        used = [self._arrays[int(name.removeprefix("argument_"))] for name, _, _ in self._program.inputs]
        return self._program.run(*used)

    def at_argument(self, position: int, values: np.ndarray) -> float:
        before = self._arrays[position]
        self._arrays[position] = values
        try:
            return float(self.run()["value"])
        finally:
            self._arrays[position] = before

    def at_parameter(self, name: str, values: np.ndarray) -> float:
        tensor = self._program.variables[name]
        before = tensor.numpy().copy()
        tensor.copy_(values)
        try:
            return float(self.run()["value"])
        finally:
            tensor.copy_(before)


def _slope(value: Callable[[np.ndarray], float], point: np.ndarray, direction: np.ndarray, step: float) -> float:
    """Return the derivative along a direction."""

    def central(h: float) -> float:
        return (value(point + h * direction) - value(point - h * direction)) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


def _compare(
    what: str,
    gradient: np.ndarray,
    point: np.ndarray,
    value: Callable[[np.ndarray], float],
    rtol: float,
    elements: int,
    rng: np.random.Generator,
) -> None:
    if gradient.shape != point.shape:
        raise AssertionError(f"check_gradients: the gradient of {what} is {gradient.shape}, the array {point.shape}")
    if point.size == 0:
        return
    scale = float(np.abs(gradient).max())
    chosen = np.sort(rng.choice(point.size, min(elements, point.size), replace=False))
    probes = [(f"element {tuple(map(int, np.unravel_index(i, point.shape)))}", np.zeros(point.shape)) for i in chosen]
    for (_, direction), i in zip(probes, chosen, strict=True):
        direction.flat[i] = 1.0
    # Signs of one magnitude: each element's share of the slope has the same weight.
    probes += [(f"direction {i}", rng.choice([-1.0, 1.0], point.shape)) for i in range(2)]
    here = abs(value(point)) + 1e-12
    for name, direction in probes:
        analytic = float((gradient * direction).sum())
        size = max(scale, float(np.abs(gradient * direction).sum()) / np.sqrt(point.size))
        slopes: list[float] = []
        for step in _STEPS:
            slopes.append(_slope(value, point, direction, step))
            # With it what differences cannot resolve: the rounding of the function's value.
            allowed = rtol * max(size, abs(slopes[-1])) + 64 * np.finfo(np.float64).eps * here / step
            if abs(analytic - slopes[-1]) <= allowed:
                break
        else:
            unsteady = np.ptp(slopes) > 100 * allowed
            kink = "; they depend on the step: the function seems to have a kink nearby" if unsteady else ""
            raise AssertionError(
                f"check_gradients: {what} {point.shape}, {name}: the gradient is {analytic!r}, "
                f"finite differences give {slopes[-1]!r} (allowed error {allowed:.2g}){kink}"
            )
