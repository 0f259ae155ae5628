"""The base class of layers and networks.

A module holds parameters, buffers and other modules as plain attributes and says in `forward` what
it computes. `forward` is called with symbols, once for every input shape; arrays then run through
the program that came out of it (`pycnn.nn._running`). There is no training flag: what batch norm
and dropout do is decided when a program is compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.arguments import as_integer
from pycnn.changes import clock
from pycnn.errors import ArgumentError, Error, GraphError, ShapeError
from pycnn.nn import _names, _running
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.tensor import Parameter
from pycnn.tracing import Symbol, is_tracing, name_parameters, scope, trace

if TYPE_CHECKING:
    from pycnn.nn._state import LoadReport
    from pycnn.nn.summary import Summary

__all__ = ["Call", "Module", "alone", "watch_calls"]


@dataclass
class Call:
    """One call of a module while a net was recorded.

    Attributes:
        path: Dotted name of the module; "" is the root.
        module: The module itself.
        inputs: Symbols that went in.
        outputs: Symbols that came out.
        depth: How many calls were open around it.
        children: Whether other modules were called inside.
    """

    path: str
    module: Module
    inputs: list[Symbol]
    outputs: list[Symbol]
    depth: int
    children: bool = False


@dataclass
class _Frame:
    path: str
    call: Call


class _Recording(threading.local):
    """Which modules are being called in this thread, and their names below the outermost one."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = []
        self.paths: dict[int, str] = {}
        self.watchers: list[list[Call]] = []


_recording = _Recording()


@contextmanager
def watch_calls() -> Iterator[list[Call]]:
    """Collect every module call that is recorded inside, in the order in which they began."""
    calls: list[Call] = []
    _recording.watchers.append(calls)
    try:
        yield calls
    finally:
        _recording.watchers.pop()


@contextmanager
def alone() -> Iterator[None]:
    """Within it, a net that is called inside of another's recording has the names that it has by itself.

    Nor do those who watch the other's calls hear of it: its symbols belong to another graph.
    """
    frames, paths, watchers = _recording.frames, _recording.paths, _recording.watchers
    _recording.frames, _recording.watchers = [], []
    try:
        yield
    finally:
        _recording.frames, _recording.paths, _recording.watchers = frames, paths, watchers


def _symbols(value: Any) -> list[Symbol]:
    if isinstance(value, Symbol):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [symbol for item in value for symbol in _symbols(item)]
    return []


def _holds_modules(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, tuple | list) and any(isinstance(item, Module | Parameter) for item in value)


@dataclass
class _Private:
    """What a module keeps for itself; never copied or pickled."""

    stamp: int = field(default_factory=clock.tick)
    #: Made when it is first asked for.
    cache: _running.ProgramCache = field(init=False, repr=False, compare=False)
    #: Element types of which a batch was compared with `input_range`.
    checked: set[str] = field(default_factory=set)


class Module:
    """Base class of layers and networks.

    A subclass creates layers and parameters in `__init__` and describes the computation in
    ``forward``; calling ``super().__init__()`` is not needed. Given symbols, a module records
    itself; given arrays, it runs an inference program that is compiled once per input shape.

    Example:
        >>> import pycnn as pc
        >>> class Net(pc.nn.Module):
        ...     def __init__(self):
        ...         self.conv = pc.nn.Conv2d(1, 8, kernel_size=3, padding=1)
        ...         self.head = pc.nn.Linear(out_features=10)
        ...     def forward(self, x):
        ...         x = pc.functional.relu(self.conv(x))
        ...         return self.head(pc.functional.global_avg_pool2d(x))
        >>> Net()(np.zeros((2, 28, 28, 1), np.float32)).shape
        (2, 10)
    """

    _private: _Private
    #: (H, W, C) of the images that the net is made for or was called with last; None if unknown.
    input_shape: tuple[int, ...] | None = None
    #: Lowest and highest value of the images that the net was trained on, uint8 as 0..1; None if unknown. Images of
    #: another range give a warning.
    input_range: tuple[float, float] | None = None
    #: A `Normalize` applied to the input before ``forward``; part of the net and of its file.
    normalization: Module | None = None
    #: Whether uint8 images become float32 in 0..1 before ``forward``: True, False (the module does it
    #: itself or hands them on), or None: yes for a layer, no for a module that holds others.
    converts_uint8: bool | None = None
    #: Whether float16 images are what the net takes; they become float32 before it is run.
    converts_float16: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        """Prepare the private state, so that subclasses need no ``super().__init__()``."""
        module = super().__new__(cls)
        object.__setattr__(module, "_private", _Private())
        return module

    def forward(self, *inputs: Any) -> Any:
        """Describe the computation on symbols; subclasses override it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    # ---- Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        """Register layers and parameters, and note that programs may be stale."""
        if _holds_modules(value):
            raise ArgumentError(
                f"{type(self).__name__}.{name}: layers in a plain {type(value).__name__} would not "
                "be found\n  hint: use nn.ModuleList or nn.Sequential"
            )
        if isinstance(value, Module | Parameter):
            self._check_name(name, value)
        object.__setattr__(self, name, value)
        if not name.startswith("_") or isinstance(value, Module | Parameter):
            clock.tick(self._private)

    def _check_name(self, name: str, value: Module | Parameter) -> None:
        who = type(self).__name__
        if name == "normalization" and isinstance(value, Module):
            if any(True for _ in value.named_tensors()) or not value.is_built():
                raise ArgumentError(
                    f"{who}.normalization: {type(value).__name__} has parameters; only what has none, as "
                    "nn.Normalize, can normalise the input\n  hint: make it the first layer of the net"
                )
            return
        is_own = isinstance(getattr(type(self), name, None), property | FunctionType)
        why = _names.refusal(name, (name,) if is_own else RESERVED)
        if why is not None:
            raise ArgumentError(f"{who}: {name!r} cannot name a layer or parameter: {why}")

    def __delattr__(self, name: str) -> None:
        """Forget an attribute, and note that programs may be stale."""
        object.__delattr__(self, name)
        clock.tick(self._private)

    def _structure(self) -> int:
        """A number that grows whenever this net changes in another way than by its weights."""
        return max(module._private.stamp for _, module in self.named_modules())

    def _changed(self) -> None:
        clock.tick(self._private)

    # ---- Walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Modules held by this one, in the order of their assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it by dotted name, parents first, each module once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            prefix = f"{name}." if name else ""
            stack.extend(reversed([(prefix + key, child) for key, child in module.named_children()]))

    def named_tensors(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters and buffers by dotted name, each once, in the order of `named_modules`."""
        seen: set[int] = set()
        for name, module in self.named_modules():
            prefix = f"{name}." if name else ""
            for key, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield prefix + key, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """What can be trained (frozen or not) by dotted name, each once."""
        return ((name, p) for name, p in self.named_tensors() if not p.is_buffer)

    def named_buffers(self) -> Iterator[tuple[str, Parameter]]:
        """What is kept but never trained (running statistics, fixed tables) by dotted name."""
        return ((name, p) for name, p in self.named_tensors() if p.is_buffer)

    def parameters(self) -> Iterator[Parameter]:
        """What can be trained, frozen or not, each once."""
        return (p for _, p in self.named_parameters())

    def buffers(self) -> Iterator[Parameter]:
        """What is kept but never trained, each once."""
        return (p for _, p in self.named_buffers())

    def _used_parameters(self, seen: set[int]) -> Iterator[Parameter]:
        """Parameters and buffers that this module computes with, each once; `seen` is what was met before."""
        for value in vars(self).values():
            if isinstance(value, Module | Parameter) and id(value) not in seen:
                seen.add(id(value))
                if isinstance(value, Parameter):
                    yield value
                else:
                    yield from value._used_parameters(seen)

    def get_module(self, path: str) -> Module:
        """Find a module by its dotted name.

        Raises:
            ArgumentError: There is none; the message names the closest.
        """
        modules = dict(self.named_modules())
        if path not in modules:
            raise ArgumentError(_unknown("module", path, modules))
        return modules[path]

    @property
    def num_parameters(self) -> int:
        """How many numbers can be trained: weights, biases, batch norm's scale and shift.

        Running statistics do not count; frozen parameters do. Of a cut net (`pycnn.transfer.Encoder`), what lies
        behind the cut does not.

        Raises:
            GraphError: A layer has not seen its input yet.
        """
        self.require_built("num_parameters")
        return sum(p.size for p in self._used_parameters(set()) if not p.is_buffer)

    # ---- Building

    def is_built(self) -> bool:
        """Whether this layer itself (not those below it) knows all its sizes."""
        return True

    def infer_sizes(self, *inputs: Any) -> None:
        """Create the parameters whose sizes follow from the inputs; called before `forward`."""

    def require_built(self, who: str) -> None:
        """Raise when a layer has not seen its input yet.

        Raises:
            GraphError: Names the layer.
        """
        for name, module in self.named_modules():
            if not module.is_built():
                if self.input_shape is not None:
                    self.build()
                    return
                raise GraphError(
                    f"{who}: layer '{name}' ({type(module).__name__}) takes its size from its "
                    "input and has not seen one\n  hint: call net.build((H, W, C)) first"
                )

    def build(self, input_shape: Sequence[int] | None = None, *, dtype: str = "float32") -> Module:
        """Record the net once, so that every layer knows its sizes.

        Args:
            input_shape: Of one input without the batch axis, (H, W, C) for images. Default: the
                shape that the net was made for or called with last.
            dtype: "float32" or "uint8".

        Returns:
            The net itself.

        Raises:
            ShapeError: A layer refuses the shape it meets.
            ArgumentError: No shape is given or known.
        """
        shape = self._input_shape(input_shape, "build")
        with collect_auxiliary():
            trace(lambda x: _first_symbol(self(x)), {"x": ((1, *shape), dtype)}, root=self)
        self._remember_input(shape)
        self.name_tensors()
        return self

    def _input_shape(self, given: Sequence[int] | None, who: str) -> tuple[int, ...]:
        shape = self.input_shape if given is None else _as_sizes(given, who)
        if shape is None:
            raise ArgumentError(f"{who}: the size of the input is not known\n  hint: give it, (H, W, C) for images")
        if len(shape) == 4:
            raise ShapeError(f"{who}: {shape} has a batch axis\n  hint: give one image's shape, {shape[1:]}")
        return shape

    def _remember_input(self, shape: Sequence[int]) -> None:
        object.__setattr__(self, "input_shape", tuple(shape))

    def name_tensors(self) -> None:
        """Give unnamed parameters their dotted name, from which fresh values are drawn."""
        for name, parameter in self.named_tensors():
            if not parameter.name:
                parameter.name = name

    # ---- Calling

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Record this module (symbols) or run it for inference (arrays).

        Args:
            inputs: Symbols, or arrays: images (N, H, W, C) as float32, or uint8, which is read as
                0..1. float64 is converted to float32. Anything with the buffer protocol,
                `__array__` or `__dlpack__` will do.
            named: Passed to ``forward`` while recording; not accepted with arrays.

        Returns:
            Symbols, or float32 arrays: what ``forward`` returns.

        Raises:
            ShapeError: A layer refuses the shape, or the images are channels first.
            DTypeError: The element type is not accepted.
            GraphError: ``forward`` does something that cannot be recorded.
        """
        if is_tracing() or _symbols(inputs) or _symbols(named):
            return self._record(inputs, named)
        if named:
            name = next(iter(named))
            hint = ""
            if name == "layer":
                hint = "\n  hint: this is a layer called 'features'; use nn.features(net, x, layer)"
            raise ArgumentError(f"{type(self).__name__}: unexpected argument '{name}' with arrays{hint}")
        return _running.run(self, inputs)

    def _record(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        state = _recording
        outermost = not state.frames
        if outermost:
            state.paths = {id(module): name for name, module in self.named_modules()}
            name_parameters(dict(self.named_tensors()))
        path, local = self._path(state)
        given = _symbols(inputs) + _symbols(named)
        call = Call(path, self, given, [], len(state.frames))
        for watcher in state.watchers:
            watcher.append(call)
        if state.frames:
            state.frames[-1].call.children = True
        state.frames.append(_Frame(path, call))
        try:
            with scope(local):
                if self.normalization is not None and inputs:
                    inputs = (self.normalization(inputs[0]), *inputs[1:])
                    given = _symbols(inputs)
                if any(s.dtype == "uint8" for s in given) and self._wants_floats():
                    inputs = tuple(self._as_float(value) for value in inputs)
                if not self.is_built():
                    self.infer_sizes(*inputs)
                    prefix = f"{path}." if path else ""
                    name_parameters({prefix + n: p for n, p in self.named_tensors()})
                result = self.forward(*inputs, **named)
        finally:
            state.frames.pop()
        call.outputs = _symbols(result)
        return result

    def _path(self, state: _Recording) -> tuple[str, str]:
        """Dotted name below the outermost module, and what it adds to the enclosing call's."""
        if not state.frames:
            return "", ""
        outer = state.frames[-1].path
        path = state.paths.get(id(self))
        if path is None:
            kind = type(self).__name__
            if any(True for _ in self.named_tensors()) or not self.is_built():
                raise GraphError(
                    f"{kind}: a layer with parameters is called but belongs to no attribute of the "
                    "net\n  hint: create it in __init__ and keep it as an attribute"
                )
            return (f"{outer}.{kind.lower()}" if outer else kind.lower()), kind.lower()
        prefix = f"{outer}." if outer else ""
        return path, path.removeprefix(prefix)

    def _wants_floats(self) -> bool:
        if self.converts_uint8 is None:
            return not any(True for _ in self.named_children())
        return self.converts_uint8

    def _as_float(self, value: Any) -> Any:
        if isinstance(value, Symbol) and value.dtype == "uint8":
            from pycnn import functional

            with scope("to_float"):
                return functional.normalize_image(value, scale=1.0 / 255.0)
        return value

    # ---- Using

    def predict(
        self,
        x: Any,
        *,
        batch_size: int = 256,
        device: str = "cpu",
        threads: int | None = None,
        dtype: str = "float32",
        emulate_bfloat16: bool = False,
        winograd: bool = True,
        tf32: bool = False,
    ) -> np.ndarray:
        """Say which class each image belongs to: the index of the largest output.

        Args:
            x: Images (N, H, W, C) as for a call.
            batch_size: Images per run; on the CPU the result does not depend on it.
            device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
            threads: At most this many; None chooses. The result does not depend on it.
            dtype: "float32"; "bfloat16", or on a GPU "float16", for activations (see `pycnn.compile`).
            emulate_bfloat16: Let "bfloat16" run on any processor, slowly.
            winograd: Whether convolutions may use Winograd's algorithms.
            tf32: Whether a GPU's tensor cores may round float32 to TF32.

        Returns:
            int64 (N,).

        Raises:
            ShapeError: As a call, or the net's output is not (N, classes).
            DTypeError: As a call, or `dtype` is none of these.
            ArgumentError: `batch_size` or `threads` is not positive, `device` is no text, or a flag is not True or
                False.
            DeviceError: The device is absent, or there is none of that name.
            UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.
        """
        return _running.predict(
            self,
            x,
            batch_size,
            device=device,
            threads=threads,
            dtype=dtype,
            emulate_bfloat16=emulate_bfloat16,
            winograd=winograd,
            tf32=tf32,
        )

    def predict_proba(
        self,
        x: Any,
        *,
        batch_size: int = 256,
        device: str = "cpu",
        threads: int | None = None,
        dtype: str = "float32",
        emulate_bfloat16: bool = False,
        winograd: bool = True,
        tf32: bool = False,
    ) -> np.ndarray:
        """Compute the probability of each class.

        A softmax is added unless the net ends in one.

        Args:
            x: Images (N, H, W, C) as for a call.
            batch_size: Images per run; on the CPU the result does not depend on it.
            device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
            threads: At most this many; None chooses. The result does not depend on it.
            dtype: "float32"; "bfloat16", or on a GPU "float16", for activations (see `pycnn.compile`).
            emulate_bfloat16: Let "bfloat16" run on any processor, slowly.
            winograd: Whether convolutions may use Winograd's algorithms.
            tf32: Whether a GPU's tensor cores may round float32 to TF32.

        Returns:
            float32 (N, classes), rows that sum to 1.

        Raises:
            ShapeError: As a call, or the net's output is not (N, classes).
            DTypeError: As a call, or `dtype` is none of these.
            ArgumentError: `batch_size` or `threads` is not positive, `device` is no text, or a flag is not True or
                False.
            DeviceError: The device is absent, or there is none of that name.
            UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.
        """
        return _running.predict_proba(
            self,
            x,
            batch_size,
            device=device,
            threads=threads,
            dtype=dtype,
            emulate_bfloat16=emulate_bfloat16,
            winograd=winograd,
            tf32=tf32,
        )

    def features(self, x: Any, *, layer: str, batch_size: int = 256, device: str = "cpu") -> np.ndarray:
        """Compute what a layer inside the net gives.

        Args:
            x: Images (N, H, W, C) as for a call.
            layer: Dotted name of a module, as `summary` and `named_modules` show it.
            batch_size: Images per run; on the CPU the result does not depend on it.
            device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

        Returns:
            float32 (N, ...), the layer's output.

        Raises:
            ArgumentError: There is no such layer, or it is not called exactly once with one
                result.
            ShapeError: As a call.
            DeviceError: The device is absent.
        """
        return _running.features(self, x, layer, batch_size, device=device)

    def summary(
        self,
        input_shape: Sequence[int] | None = None,
        batch: int = 1,
        *,
        depth: int | None = None,
        compact: bool = False,
        budget: int | None = None,
    ) -> Summary:
        """Tabulate the layers: output, parameters, multiply-adds, memory, receptive field.

        The memory of whole programs comes from the compiler's plan; nothing is run.

        Args:
            input_shape: (H, W, C) of an image; default as in `build`.
            batch: Images that the memory and multiply-adds are counted for.
            depth: Rows stand for modules up to so many dots deep; 1 groups by the net's own attributes.
                Default: every layer has a row.
            compact: Layers that only change another's result in place (activation, batch norm, dropout, flatten)
                join its row, and the result counts once, as in the tables of papers.
            budget: Bytes for which the largest batches are looked for.

        Returns:
            A table that prints as text, shows as HTML in notebooks and has `to_dict`.

        Raises:
            ShapeError: A layer refuses the shape it meets.
            ArgumentError: No shape is given or known, or an argument is not positive.

        Example:
            >>> import pycnn
            >>> pycnn.models.lenet5().summary(compact=True).rows[1].receptive_field
            (6, 6)
        """
        from pycnn.nn._summarize import summarize

        shape = self._input_shape(input_shape, "summary")
        return summarize(self, shape, batch, depth=depth, compact=compact, budget=budget)

    # ---- Weights

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy all parameters and buffers, by dotted name.

        Convolution weights are (OC, IC / groups, KH, KW), so the arrays can be exchanged with
        PyTorch's under the same names. Its batch norms count their batches beside them
        (``num_batches_tracked``); nothing is computed from that here, and PyTorch's
        ``load_state_dict`` does without.

        Raises:
            GraphError: A layer has not seen its input yet.
        """
        self.require_built("state_dict")
        self.name_tensors()
        return {name: parameter.numpy() for name, parameter in self.named_tensors()}

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, *, skip: str | Sequence[str] = ()
    ) -> LoadReport:
        """Overwrite parameters and buffers by name; all is checked before anything changes.

        For files see `pycnn.load_weights`.

        Args:
            state: Arrays by dotted name, as `state_dict` gives; torch tensors on the CPU will do. Other
                floating-point types are converted to the parameters'.
                Entries called ``num_batches_tracked``, which PyTorch's batch norms have, are ignored.
            strict: Every name must be on both sides with the same shape. Otherwise what is missing
                or has another shape stays as it is, and what is unexpected is ignored; the result
                tells.
            skip: Names of parameters or modules (all below is meant) to leave out on both sides;
                ``*`` and ``?`` match.

        Returns:
            Which names were loaded, missing, unexpected, of another shape, and skipped; it prints.

        Raises:
            ShapeError: Shapes differ (strict); the first ten are listed with both shapes.
            ArgumentError: Names are missing or unexpected (strict), the first ten of each are
                listed; nothing at all can be loaded; a pattern of `skip` matches nothing.
            DTypeError: An entry is no array of numbers.
            GraphError: A layer has not seen its input yet.

        Example:
            >>> import pycnn as pc
            >>> trained = pc.models.lenet5(num_classes=10)
            >>> net = pc.models.lenet5(num_classes=26)
            >>> report = net.load_state_dict(trained.state_dict(), skip="fc3.*")
            >>> len(report.loaded), report.skipped
            (8, ('fc3.weight', 'fc3.bias'))
        """
        from pycnn.nn._state import load

        return load(self, state, strict=strict, skip=skip)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the net (its graph and weights) as one file; see `pycnn.save`.

        Raises:
            FileError: The system refused; an older file at the path is intact.
            ArgumentError: The size of the input is not known yet.
        """
        from pycnn.nn.files import save

        save(self, path)

    def freeze(self, *patterns: str) -> list[str]:
        """Keep parameters as they are while training.

        Args:
            patterns: Names of parameters or modules (all below is meant); ``*`` and ``?`` match.
                None given means all. Batch norms go on collecting statistics; `freeze_statistics`
                stops that.

        Returns:
            Names of the parameters that match.

        Raises:
            ArgumentError: A pattern matches nothing.
        """
        return self._set_trainable(patterns, trainable=False)

    def unfreeze(self, *patterns: str) -> list[str]:
        """Undo `freeze`; the arguments are the same."""
        return self._set_trainable(patterns, trainable=True)

    def _set_trainable(self, patterns: tuple[str, ...], *, trainable: bool) -> list[str]:
        from pycnn.nn._state import select

        self.require_built("freeze" if not trainable else "unfreeze")
        chosen = select(dict(self.named_parameters()), patterns)
        for parameter in chosen.values():
            parameter.trainable = trainable
        self._changed()
        return list(chosen)

    def freeze_statistics(self, *patterns: str) -> list[str]:
        """Let batch norms use their running statistics while training too, and keep them.

        So a frozen layer gives in training what it gives in prediction, and small batches, whose own statistics are
        noise, do no harm.

        Args:
            patterns: Names of running statistics or of modules above them; ``*`` and ``?`` match. None given means
                all.

        Returns:
            Names of the buffers that match; none where the net has no batch norm.

        Raises:
            ArgumentError: A pattern matches nothing.

        Example:
            >>> import pycnn as pc
            >>> net = pc.models.create("cifar_resnet20")
            >>> net.freeze_statistics("bn1")
            ['bn1.running_mean', 'bn1.running_var']
        """
        return self._set_frozen(patterns, frozen=True)

    def unfreeze_statistics(self, *patterns: str) -> list[str]:
        """Undo `freeze_statistics`; the arguments are the same."""
        return self._set_frozen(patterns, frozen=False)

    def _set_frozen(self, patterns: tuple[str, ...], *, frozen: bool) -> list[str]:
        from pycnn.nn._state import select

        who = "freeze_statistics" if frozen else "unfreeze_statistics"
        self.require_built(who)
        chosen = select(dict(self.named_buffers()), patterns, who=who)
        for buffer in chosen.values():
            buffer.frozen = frozen
        self._changed()
        return list(chosen)

    # ---- Copying and showing

    def __getstate__(self) -> dict[str, Any]:
        """Everything but programs."""
        self.name_tensors()
        return {key: value for key, value in vars(self).items() if key != "_private"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; programs are compiled again on first use."""
        vars(self).update(state)

    def extra_repr(self) -> str:
        """Arguments to show between the parentheses."""
        return ""

    def __repr__(self) -> str:
        """Show the tree of layers."""
        head = type(self).__name__
        children = list(self.named_children())
        if not children:
            return f"{head}({self.extra_repr()})"
        lines = [f"{head}({self.extra_repr()}"]
        for name, child in children:
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        return "\n".join([*lines, ")"])

    def _repr_html_(self) -> str:
        """Show the summary in notebooks, or the tree of layers where the size of the input is not known."""
        from html import escape

        if self.input_shape is not None:
            try:
                return self.summary()._repr_html_()
            except Error:  # of a net that cannot be tabulated, which notebooks show all the same
                pass
        return f"<pre>{escape(repr(self))}</pre>"


#: Names that mean something else in a module, or in a net that was loaded from a file.
RESERVED = frozenset(dir(Module)) | {"_private", "_recorded", "metadata"}


def _first_symbol(result: Any) -> Symbol:
    symbols = _symbols(result)
    if not symbols:
        raise GraphError(f"forward returned {type(result).__name__}, expected a Symbol")
    return symbols[0]


def _unknown(kind: str, name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, [n for n in known if n], n=3, cutoff=0.4)
    shown = close or [n for n in known if n][:5]
    return f"no {kind} is called {name!r}" + (
        f"\n  hint: there is {', '.join(repr(n) for n in shown)}" if shown else ""
    )


def _as_sizes(given: Any, who: str) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentError(f"{who}: input_shape must be sizes, (H, W, C) for images, got {given!r}")
    # Sizes below 1 are refused, with the layer's name, by the first layer.
    return tuple(as_integer(size, who=who, name="input_shape", low=-(2**63)) for size in given)
