"""Running a net on arrays: checks, a small cache of programs, batches."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.arguments import as_integer
from pycnn.changes import clock
from pycnn.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pycnn.fork import renew_after_fork
from pycnn.nn import _range
from pycnn.program import Program, check_device, check_execution, compile_traced
from pycnn.tensor import as_array, as_plain, expect_memory, stack_level
from pycnn.tracing import Symbol, trace

if TYPE_CHECKING:
    from pycnn.nn.module import Module

__all__ = ["ProgramCache", "features", "predict", "predict_proba", "run", "stack_level"]

_CACHED_PROGRAMS = 8
_PLAIN = (np.dtype(np.float32), np.dtype(np.uint8))


class Runner:
    """A program together with the form of what ``forward`` returned."""

    __slots__ = ("form", "program", "read")

    def __init__(self, program: Program, form: Any) -> None:
        self.program = program
        self.form = form
        # Inputs that no result depends on are not the program's: None if there are none.
        used = {name for name, _, _ in program.inputs}
        read = [index for index, name in enumerate(program.traced.inputs) if name in used]
        self.read = read if len(read) < len(program.traced.inputs) else None

    def __call__(self, *arrays: np.ndarray) -> Any:
        results = self.program.run(*(arrays if self.read is None else [arrays[index] for index in self.read]))
        if self.form is None:
            return results["output"]
        if isinstance(self.form, int):
            return tuple(results[f"output{i}"] for i in range(self.form))
        return results


class StructureWatch:
    """Tells whether a net was changed in another way than by its weights."""

    def __init__(self) -> None:
        self._structure = -1
        self._checked = -1

    @property
    def structure(self) -> int:
        """Of the net at the last look."""
        return self._structure

    def clear_stale(self, net: Module, programs: OrderedDict[Any, Any]) -> None:
        """Forget all programs if something changed since the last look."""
        now = clock.now
        if self._checked == now:
            return
        structure = net._structure()
        if structure != self._structure:
            programs.clear()
        # Last, and in this order: a child forked in between clears once more rather than not at all.
        self._structure, self._checked = structure, now

    def settle(self, net: Module) -> None:
        """Take the net as it is."""
        now = clock.now
        self._structure, self._checked = net._structure(), now


class ProgramCache:
    """The programs of one net, by input shapes and purpose; the least recently used one goes."""

    def __init__(self) -> None:
        self._renew()
        self._runners: OrderedDict[Any, Runner] = OrderedDict()
        self._watch = StructureWatch()
        renew_after_fork(self, ProgramCache._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def get(self, net: Module, key: Any, make: Callable[[], Runner]) -> Runner:
        """The program of a key, made when it is not there."""
        with self._lock:
            self._watch.clear_stale(net, self._runners)
            runner = self._runners.get(key)
            if runner is None:
                runner = make()
                # Recording may have given lazy layers their sizes.
                self._watch.settle(net)
                self._runners[key] = runner
                if len(self._runners) > _CACHED_PROGRAMS:
                    self._runners.popitem(last=False)
            else:
                self._runners.move_to_end(key)
            return runner


def _cache(net: Module) -> ProgramCache:
    private = vars(net._private)
    # Two threads that come first at once get the same one: setdefault is atomic.
    return private.get("cache") or private.setdefault("cache", ProgramCache())


def as_input(value: Any, *, who: str, float16: bool = False) -> np.ndarray:
    """Array as a program takes it: float32 or uint8, contiguous, native byte order.

    Args:
        value: The array.
        who: For messages.
        float16: Whether float16 is what the net takes, and is converted without a warning.

    Raises:
        DTypeError: Another element type; of others float64 alone is converted.
    """
    array = as_array(value, what=who)
    if array.dtype in _PLAIN:
        return as_plain(array, array.dtype, what=who)
    if float16 and array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32, order="C")
    if array.dtype.kind == "f" and array.dtype.itemsize == 8:
        return as_plain(array, "float32", what=who)
    native = array.dtype.newbyteorder("=")
    if native not in _PLAIN:
        hint = "try x.astype(numpy.float32)"
        if native.kind in "iub":
            hint += ", or numpy.uint8 for images in 0..255, which are read as 0..1"
        raise DTypeError(f"{who}: element type {array.dtype}, expected float32 or uint8\n  hint: {hint}")
    return as_plain(array, native.name, what=who)


def _first_channels(net: Module) -> int | None:
    for _, module in net.named_modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int):
            return channels
        if module is not net and hasattr(module, "in_channels"):
            return None
    return None


def _takes_images(net: Module) -> bool:
    return any(hasattr(module, "in_channels") or hasattr(module, "kernel_size") for _, module in net.named_modules())


def check_images(net: Module, shape: tuple[int, ...]) -> None:
    """Refuse channels-first images and a missing batch axis, with the call that repairs it.

    Raises:
        ShapeError: Says what the axes were read as.
    """
    who = type(net).__name__
    expected = net.input_shape
    if expected is not None and len(shape) == len(expected) and shape == expected:
        raise ShapeError(
            f"{who}: input {shape} is one image, expected (N, H, W, C)\n  hint: add the batch axis, x[None]"
        )
    if not _takes_images(net):
        return
    if len(shape) == 3:
        raise ShapeError(
            f"{who}: input {shape} has 3 axes, expected (N, H, W, C)\n  hint: one image needs a "
            "batch axis, x[None]; grey images need a channel axis, x[..., None]"
        )
    if len(shape) != 4:
        return
    channels = _first_channels(net)
    if channels is None and expected is not None and len(expected) == 3:
        channels = expected[2]
    if channels is not None:
        wrong = shape[3] != channels and shape[1] == channels
    else:
        wrong = shape[1] in (1, 3) and shape[2] > 4 and shape[3] > 4
    if wrong:
        raise ShapeError(
            f"{who}: input {shape} read as (N, H, W, C) has {shape[3]} channels"
            + (f", expected {channels}" if channels is not None else "")
            + "\n  hint: axis 1 looks like the channels; pycnn is channels-last, try "
            "x.transpose(0, 2, 3, 1)"
        )


def _flatten(result: Any) -> tuple[dict[str, Symbol], Any]:
    """Outputs by name, and the form to give back: None, a tuple's length, or "dict"."""
    if isinstance(result, Symbol):
        return {"output": result}, None
    if isinstance(result, Mapping):
        return dict(result), "dict"
    if isinstance(result, tuple | list):
        return {f"output{i}": value for i, value in enumerate(result)}, len(result)
    raise GraphError(f"forward returned {type(result).__name__}, expected a Symbol or a tuple or dict of them")


def make_runner(
    net: Module, arrays: tuple[np.ndarray, ...], finish: Callable[[Any], Any] | None = None, **numerics: Any
) -> Runner:
    """Record and compile a net for inference.

    Args:
        net: The net.
        arrays: Inputs, of which shapes and types matter.
        finish: Applied to what ``forward`` returns.
        numerics: Of `compile_traced`: device, threads, dtype, emulate_bfloat16, winograd, tf32.
    """
    form: Any = None

    def function(**symbols: Symbol) -> dict[str, Symbol]:
        nonlocal form
        result = net(*symbols.values())
        outputs, form = _flatten(result if finish is None else finish(result))
        return outputs

    inputs = {f"input{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    traced = trace(function, inputs, root=net)
    runner = Runner(compile_traced(traced, **numerics), form)
    if len(arrays) == 1:
        net._remember_input(arrays[0].shape[1:])
    return runner


def run(net: Module, inputs: tuple[Any, ...]) -> Any:
    """Run a net on arrays (`Module.__call__`)."""
    if not inputs:
        raise ArgumentError(f"{type(net).__name__}: called without an input")
    return _run(net, inputs, "call", None)


def _settled(numerics: dict[str, Any]) -> dict[str, Any]:
    """The same for all that one program serves; messages name a device as the caller does."""
    if numerics.get("device") == "cpu":
        return {**numerics, "tf32": False}  # which the CPU passes over
    return {**numerics, "device": "cuda:0"} if numerics.get("device") == "cuda" else numerics


def _run(
    net: Module, inputs: tuple[Any, ...], purpose: Any, finish: Callable[[Any], Any] | None, **numerics: Any
) -> Any:
    arrays = tuple(as_input(x, who=type(net).__name__ + " input", float16=net.converts_float16) for x in inputs)
    if net.input_range is not None:
        _range.check(net, arrays[0])
    key = (purpose, tuple((a.shape, a.dtype.char) for a in arrays), tuple(sorted(_settled(numerics).items())))

    def make() -> Runner:
        check_images(net, arrays[0].shape)
        return make_runner(net, arrays, finish, **numerics)

    return _cache(net).get(net, key, make)(*arrays)


def in_batches(x: Any, batch_size: int, function: Callable[[Any], np.ndarray], *, who: str) -> np.ndarray:
    """Apply a function to pieces of the first axis and join the results.

    Raises:
        ArgumentError: `batch_size` is not positive.
        MemoryLimitError: The machine has no memory for the results.
    """
    batch_size = as_integer(batch_size, who=who, name="batch_size", low=1)
    if not (hasattr(x, "shape") and hasattr(x, "__getitem__")):
        x = as_array(x, what=f"{who}: x")
    if not len(x.shape):
        return function(x)
    count = x.shape[0]
    if count <= batch_size:
        return function(x[:] if not isinstance(x, np.ndarray) else x)
    first = function(x[:batch_size])
    expect_memory(f"{who}: no memory for the results of {count} images", count * first[:1].nbytes)
    out = np.empty((count, *first.shape[1:]), first.dtype)
    out[:batch_size] = first
    for start in range(batch_size, count, batch_size):
        out[start : start + batch_size] = function(x[start : start + batch_size])
    return out


def _scores(net: Module, result: Any) -> Symbol:
    if isinstance(result, tuple | list) and result and isinstance(result[0], Symbol):
        result = result[0]
    if not isinstance(result, Symbol) or len(result.shape) != 2:
        shape = result.shape if isinstance(result, Symbol) else type(result).__name__
        raise ShapeError(f"{type(net).__name__}: the net gives {shape}, class scores are (N, classes)")
    return result


def predict(net: Module, x: Any, batch_size: int, **execution: Any) -> np.ndarray:
    """Index of the largest score of each image, int64; `execution` as of `check_execution`."""
    execution = check_execution(who="predict", **execution)

    def classes(part: Any) -> np.ndarray:
        scores = _run(net, (part,), "scores", lambda result: _scores(net, result), **execution)
        if scores.shape[1] == 0:
            raise ShapeError(f"{type(net).__name__}: the net gives no class scores")
        return scores.argmax(axis=1)

    return in_batches(x, batch_size, classes, who="predict")


def ends_in_softmax(symbol: Symbol) -> bool:
    """Whether a symbol is the result of a softmax."""
    node = symbol._trace.graph.nodes()[symbol.id.node]
    return node["kind"] == "op" and node["op"].name == "softmax"


def predict_proba(net: Module, x: Any, batch_size: int, **execution: Any) -> np.ndarray:
    """Probability of each class, float32; `execution` as of `check_execution`."""
    from pycnn import functional

    execution = check_execution(who="predict_proba", **execution)

    def finish(result: Any) -> Symbol:
        scores = _scores(net, result)
        return scores if ends_in_softmax(scores) else functional.softmax(scores)

    return in_batches(x, batch_size, lambda part: _run(net, (part,), "proba", finish, **execution), who="predict_proba")


def features(net: Module, x: Any, layer: str, batch_size: int = 256, *, device: str = "cpu") -> np.ndarray:
    """Compute what a layer inside a net gives; `Module.features` as a function.

    Args:
        net: The net.
        x: Images (N, H, W, C).
        layer: Dotted name of a module.
        batch_size: Images per run.
        device: Where it runs.

    Raises:
        ArgumentError: There is no such layer, or it is not called exactly once with one result.
    """
    from pycnn.nn.module import watch_calls

    net.get_module(layer)
    where = check_device(device, who="features")

    def values(part: Any) -> np.ndarray:
        with watch_calls() as calls:

            def finish(result: Any) -> Symbol:
                found = [s for call in calls if call.path == layer for s in call.outputs]
                if len(found) != 1:
                    raise ArgumentError(
                        f"features: layer '{layer}' gives {len(found)} results, expected one; "
                        "a container whose layers are called one by one gives none"
                    )
                return found[0]

            return _run(net, (part,), ("features", layer), finish, device=where)

    return in_batches(x, batch_size, values, who="features")
