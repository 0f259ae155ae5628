"""Gradients of any traced function, for inspection and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError, DTypeError, GraphError
from pycnn.program import COMPUTED, LOW_PRECISION, Program, compile_traced
from pycnn.tensor import Parameter, as_array
from pycnn.tracing import Traced, check_dtype, freeze_statistics, trace

__all__ = ["grad", "value_and_grad"]


def value_and_grad(
    fn: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    parameters: Sequence[Parameter] | None = None,
    training: bool = False,
    relu_rule: str = "exact",
    device: str = "cpu",
    isa: str | None = None,
    threads: int | None = None,
    variants: dict[str, str] | None = None,
    winograd: bool = True,
    tf32: bool = False,
    dtype: str = "float32",
    emulate_bfloat16: bool = False,
    recompute: str = "cheap",
) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes a scalar function's value and its gradients.

    Args:
        fn: From symbols to one Symbol of shape (); it may call modules and `pycnn.functional`.
        argnums: Which arguments to differentiate for.
        parameters: Also differentiate for these; an empty sequence means every trainable parameter that `fn` uses.
        training: Batch norm uses batch statistics and dropout drops (seed 0, step 0); running statistics stay as they
            are.
        relu_rule: "exact" gives gradients. "guided" lets only positive gradients pass back through an open ReLU or
            ReLU6 (guided back-propagation, Springenberg et al. 2015), "deconvnet" positive gradients through any
            (Zeiler and Fergus 2014): pictures of what a unit responds to, not derivatives.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        isa: Instruction set; None takes the best.
        threads: None chooses.
        variants: Kernel variants to pin.
        winograd: Whether convolutions may use Winograd's algorithms (see `compile`).
        tf32: Whether the tensor cores of a GPU may round float32 to TF32 (see `compile`).
        dtype: "float32"; "bfloat16" or "float16" for activations and their gradients; the value and the gradients that
            are given back are float32 (see `compile`). In float16 what is below 6e-8 vanishes on the way back, unless
            `fn` scales its result.
        emulate_bfloat16: Let "bfloat16" run on any processor, slowly.
        recompute: "none", "cheap" or "sqrt": what is computed again instead of kept for the backward pass (see
            `Trainer`). The bits are the same.

    Returns:
        A function of arrays. float64 arrays run everything in float64 with the reference kernels. It returns
        `(value, gradient)`: an array for an integer `argnums`, a tuple for a sequence. With `parameters` the result is
        `(value, (gradient, by_name))`, `by_name` a dict of arrays in memory layout.

    Raises:
        GraphError: The result is not a scalar, does not depend on an argument, or an op has no gradient.
        ArgumentError: `relu_rule` is not one of these, or `fn` cannot be called.
        DeviceError: The device cannot be used; the text says what is missing.
        DTypeError: `dtype` is none of these, or one of 16 bits with float64 arrays.
        UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.

    Example:
        >>> import numpy as np, pycnn
        >>> square = pycnn.value_and_grad(lambda x: pycnn.functional.sum(x * x))
        >>> value, gradient = square(np.array([1.0, 2.0]))
        >>> float(value), gradient.tolist()
        (5.0, [2.0, 4.0])
    """
    if not callable(fn):
        raise ArgumentError(f"grad: fn is {fn!r}, expected a function of symbols that gives a scalar")
    single = isinstance(argnums, int)
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    programs: dict[Any, tuple[Program, list[str]]] = {}

    def call(*arrays: Any) -> tuple[Any, Any]:
        given = [as_array(a, what=f"argument {i}") for i, a in enumerate(arrays)]
        for position in positions:
            if not -len(given) <= position < len(given):
                raise ArgumentError(f"grad: argnums {position} but {len(given)} arguments were given")
        key = tuple((a.shape, a.dtype.name) for a in given)
        if key not in programs:
            programs[key] = gradient_program(
                fn,
                key,
                positions,
                parameters,
                training=training,
                relu_rule=relu_rule,
                device=device,
                isa=isa,
                threads=threads,
                variants=variants,
                winograd=winograd,
                tf32=tf32,
                dtype=dtype,
                emulate_bfloat16=emulate_bfloat16,
                recompute=recompute,
            )
        program, wanted = programs[key]
        results = program.run(*_used(program, given))
        gradients = [results[f"gradient_{i}"] for i in range(len(positions) + len(wanted))]
        first: Any = gradients[0] if single else tuple(gradients[: len(positions)])
        value: np.ndarray = results["value"]
        if parameters is None:
            return value, first
        return value, (first, dict(zip(wanted, gradients[len(positions) :], strict=True)))

    return call


def gradient_program(
    fn: Callable[..., Any],
    specs: Sequence[tuple[tuple[int, ...], str]],
    positions: Sequence[int],
    parameters: Sequence[Parameter] | None = None,
    *,
    training: bool = False,
    relu_rule: str = "exact",
    device: str = "cpu",
    isa: str | None = None,
    threads: int | None = None,
    variants: dict[str, str] | None = None,
    winograd: bool = True,
    tf32: bool = False,
    dtype: str = "float32",
    emulate_bfloat16: bool = False,
    recompute: str = "cheap",
    double: bool = False,
) -> tuple[Program, list[str]]:
    """Compile a scalar function and its gradients for arguments of given shapes and types.

    Parameters run in double precision when an argument does, or with `double`.

    Returns:
        A program with the outputs "value" and "gradient_0", "gradient_1", ...: first those of the arguments at
        `positions`, then those of the parameters whose names are returned with it.
    """
    names = [f"argument_{i}" for i in range(len(specs))]
    double = double or any(name == "float64" for _, name in specs)
    dtype = check_dtype(dtype, allowed=COMPUTED)
    lower = dtype in LOW_PRECISION
    if lower and double:
        raise DTypeError(f"grad: dtype is {dtype!r}, but arrays are float64; give float32")
    traced = trace(
        lambda **symbols: {"value": fn(*(symbols[name] for name in names))},
        dict(zip(names, specs, strict=True)),
        parameter_dtype="float64" if double else None,
    )
    graph = freeze_statistics(traced).graph.specialize("training" if training else "inference")
    graph.clear_assignments()  # looking at gradients moves no running statistics
    if lower:
        graph = graph.lower_precision(dtype)
    loss = dict(graph.outputs())["value"]
    if graph.spec(loss)[0] != ():
        raise GraphError(f"grad: the function returns shape {graph.spec(loss)[0]}, expected a scalar ()")
    wrt = [graph.find(names[i]) for i in positions]
    wanted: list[str] = []
    if parameters is not None:
        chosen = {id(p) for p in parameters}
        wanted = [
            name
            for name, p in traced.parameters.items()
            if not p.is_buffer and (p.trainable if not chosen else id(p) in chosen)
        ]
        wrt += [graph.find(name) for name in wanted]
    for index, result in enumerate(graph.differentiate(loss, wrt, relu_rule)):
        graph.set_output(f"gradient_{index}", result)
    extended = Traced(graph, traced.inputs, (), traced.parameters, traced.parameter_dtype, False)
    program = compile_traced(
        extended,
        device=device,
        isa=isa,
        threads=threads,
        variants=variants,
        winograd=winograd,
        tf32=tf32,
        dtype=dtype,
        emulate_bfloat16=emulate_bfloat16,
        recompute=recompute,
    )
    return program, wanted


def _used(program: Program, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pick the arrays that the program still takes; an argument that nothing uses is dropped when compiling."""
    return [arrays[int(name.removeprefix("argument_"))] for name, _, _ in program.inputs]


def grad(fn: Callable[..., Any], argnums: int | Sequence[int] = 0, **options: Any) -> Callable[..., Any]:
    """Return a function that computes the gradients of a scalar function (see `value_and_grad`).

    Example:
        >>> import numpy as np, pycnn
        >>> pycnn.grad(lambda x: pycnn.functional.sum(x * x))(np.array([3.0])).tolist()
        [6.0]
    """
    both = value_and_grad(fn, argnums, **options)

    def call(*arrays: Any) -> Any:
        return both(*arrays)[1]

    return call
