"""What a net needs to run and to be trained, read from the compiler's memory plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError, GraphError
from pycnn.nn.auxiliary import collect_auxiliary, total_loss
from pycnn.nn.module import Module, _first_symbol
from pycnn.program import GroupSpec, OptimizerSpec, plan_memory
from pycnn.tracing import Symbol, trace

__all__ = ["Budget", "MemoryPlan", "fit_batch", "plan"]

# A batch beyond this is as good as any.
_LARGEST_BATCH = 2**20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one program takes for a batch, from the plan that the compiler made; nothing was run.

    Attributes:
        mode: "inference" or "training".
        objective: In training, what is minimised, and the optimizer.
        batch: Images at once.
        arena_bytes: Activations and, in training, gradients; their places are shared where lifetimes allow.
        scratch_bytes: Working space of the kernels.
        prepared_bytes: Weights folded and packed for inference.
        variable_bytes: Parameters, running statistics and, in training, the optimizer's state.
        input_bytes: The batch itself.
        unshared_bytes: What the arena would take if no place were shared.
        total_bytes: arena + scratch + prepared + variables + input.
        isa: Instruction set that the plan is for.
        threads: Number of threads that the plan is for.
    """

    mode: str
    objective: str | None
    batch: int
    arena_bytes: int
    scratch_bytes: int
    prepared_bytes: int
    variable_bytes: int
    input_bytes: int
    unshared_bytes: int
    total_bytes: int
    isa: str
    threads: int


@dataclass(frozen=True)
class Budget:
    """The largest batches that fit.

    Attributes:
        bytes: What may be used.
        inference_batch: Images at once when predicting; 0 if not even one fits.
        training_batch: Images at once while training; 0 if not even the smallest batch fits, None for nets that cannot
            be trained. Some batch norms cannot train on one image.
    """

    bytes: int
    inference_batch: int
    training_batch: int | None


def plan(net: Module, input_shape: tuple[int, ...], batch: int, mode: str) -> MemoryPlan:
    """Plan a net for a batch of float32 images.

    Training means the net's own loss (`default_loss`), or cross-entropy over its scores, or for a net without scores
    the sum of its first result; with SGD and momentum, which keeps one more number for every weight that is not frozen.

    Raises:
        GraphError: In training, no parameter can be trained.
    """
    inputs: dict[str, tuple[tuple[int, ...], str]] = {"x": ((batch, *input_shape), "float32")}
    objective = None
    optimizer = None
    if mode == "training":
        loss, name, labelled = _loss(net, input_shape)
        if labelled:
            inputs["y"] = ((batch,), "int32")
        optimizer = _optimizer(net)
        objective = f"{name}, SGD with momentum"

        def function(**symbols: Symbol) -> dict[str, Symbol]:
            with collect_auxiliary() as heads:
                result = net(symbols["x"])
            target = symbols.get("y")
            return {"loss": total_loss(loss(result, target), heads, lambda output: loss(output, target))}

        traced = trace(function, inputs, root=net)
    else:
        traced = trace(lambda x: _first_symbol(net(x)), inputs, root=net)
    memory = plan_memory(traced, mode=mode, optimizer=optimizer)
    input_bytes = 4 * sum(math.prod(shape) for shape, _ in inputs.values())
    parts = {key: memory[key] for key in ("arena_bytes", "scratch_bytes", "prepared_bytes", "variable_bytes")}
    return MemoryPlan(
        mode=mode,
        objective=objective,
        batch=batch,
        input_bytes=input_bytes,
        unshared_bytes=memory["unshared_bytes"],
        total_bytes=sum(parts.values()) + input_bytes,
        isa=memory["isa"],
        threads=memory["threads"],
        **parts,
    )


def _loss(net: Module, input_shape: tuple[int, ...]) -> tuple[Callable[[Any, Any], Any], str, bool]:
    """The loss, its name, and whether it takes class labels."""
    own = getattr(net, "default_loss", None)
    if callable(own):
        return own, "the net's own loss", True
    traced = trace(lambda x: _first_symbol(net(x)), {"x": ((1, *input_shape), "float32")}, root=net)
    shape = traced.graph.spec(dict(traced.graph.outputs())["output"])[0]
    if len(shape) == 2:
        return (
            lambda result, y: functional.cross_entropy(_first_symbol(result), y),
            "cross-entropy",
            True,
        )
    return (lambda result, _: functional.sum(_first_symbol(result))), "sum of the result", False


def _optimizer(net: Module) -> OptimizerSpec:
    parameters = dict(net.named_parameters())
    frozen = tuple(name for name, p in parameters.items() if not p.trainable)
    if len(frozen) == len(parameters):
        raise GraphError("summary: the net has no parameter that can be trained")
    return OptimizerSpec(momentum=0.9, groups=(GroupSpec(names=frozen, frozen=True),) if frozen else ())


def fit_batch(bytes_of: Callable[[int], int], budget: int, *, first: int = 1) -> int:
    """The largest batch whose plan fits in a budget; 0 if not even the smallest does.

    Plans grow almost evenly with the batch, so a few steps along the line find it. The answer is checked: it fits and
    one more does not.

    Args:
        bytes_of: Total of the plan for a batch.
        budget: In bytes.
        first: The smallest batch that can be planned.

    Raises:
        ArgumentError: The budget is not a positive whole number.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ArgumentError(f"summary: budget must be a positive number of bytes, got {budget!r}")
    smallest = bytes_of(first)
    if smallest > budget:
        return 0
    # Invariant: `low` fits, `high` (once known) does not.
    low, low_bytes = first, smallest
    high, high_bytes = 0, 0
    guess = first + 1
    for attempt in range(64):
        used = bytes_of(guess)
        if used <= budget:
            low, low_bytes = guess, used
        else:
            high, high_bytes = guess, used
        if low >= _LARGEST_BATCH or high - low == 1:
            break
        if not high:
            each = max((low_bytes - smallest) / (low - first), 1.0)
            guess = min(max(low + 1 + int((budget - low_bytes) / each), low + 1), _LARGEST_BATCH)
        elif attempt < 8:
            each = max((high_bytes - low_bytes) / (high - low), 1.0)
            guess = min(max(low + int((budget - low_bytes) / each), low + 1), high - 1)
        else:
            guess = (low + high) // 2
    return low
