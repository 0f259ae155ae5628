"""From a recorded network to something that runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pycnn import _core
from pycnn.arguments import as_flag, as_integer
from pycnn.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from pycnn.tensor import Parameter, Tensor, as_array, as_plain, stack_level
from pycnn.tracing import Traced, check_dtype, emit, trace

__all__ = [
    "BUCKET_BYTES",
    "COMPUTED",
    "GradientExchange",
    "GroupSpec",
    "OptimizerSpec",
    "PendingRun",
    "Program",
    "Variables",
    "check_device",
    "check_execution",
    "check_numerics",
    "check_recompute",
    "compile",
    "compile_traced",
    "plan_memory",
]


#: Of gradients, that go to other processes at a time.
BUCKET_BYTES = 4 << 20


@dataclass(frozen=True)
class GroupSpec:
    """Parameters that share hyper-parameters.

    Attributes:
        names: Exact names of parameters.
        weight_decay: L2 penalty of the group.
        rate_scale: Factor on the learning rate.
        frozen: No gradient is computed and no update made.
    """

    names: tuple[str, ...]
    weight_decay: float = 0.0
    rate_scale: float = 1.0
    frozen: bool = False


@dataclass(frozen=True)
class OptimizerSpec:
    """The update that a training program ends with; formulas as PyTorch's.

    Attributes:
        kind: "sgd", "adam", "adamw" or "muon" (matrices; as "sgd" for vectors, without weight decay but by a group).
        momentum: Of "sgd" and "muon".
        nesterov: Of "sgd" and "muon".
        beta1: Of "adam" and "adamw".
        beta2: Of "adam" and "adamw".
        eps: Of "adam" and "adamw".
        weight_decay: L2 penalty of parameters that no group names.
        groups: The first group that names a parameter decides.
        clip_norm: Limit of the global L2 norm of all gradients, or None.
        ema_decay: Keep exponential averages "ema.NAME" of the parameters, or None.
    """

    kind: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    groups: tuple[GroupSpec, ...] = field(default_factory=tuple)
    clip_norm: float | None = None
    ema_decay: float | None = None

    def to_core(self) -> _core.Optimizer:
        """Return the core's form."""
        groups = [_core.ParameterGroup(list(g.names), g.weight_decay, g.rate_scale, g.frozen) for g in self.groups]
        return _core.Optimizer(
            kind=self.kind,
            momentum=self.momentum,
            nesterov=self.nesterov,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            groups=groups,
            clip_norm=self.clip_norm,
            ema_decay=self.ema_decay,
        )


class GradientExchange(Protocol):
    """What stands between the gradients of a training program and its updates."""

    def begin(self, bucket: int, gradients: np.ndarray) -> None:
        """Take note that a bucket's gradients, float32 (N,), are there; they may be changed until `finish` returns.

        Buckets come in order, in the thread of the run, while the backward pass is under way.
        """

    def finish(self) -> None:
        """Return when each bucket holds what the updates are to take.

        What is raised here ends the run, before a parameter has changed.
        """


class Variables:
    """Named arrays that programs share: parameters, running statistics, optimizer state."""

    def __init__(self) -> None:
        """Start empty."""
        self.core = _core.Variables()

    def update(self, parameters: Mapping[str, Parameter]) -> None:
        """Share the values of parameters under their names."""
        for name, parameter in parameters.items():
            self.core[name] = parameter.core

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor by name; writing to it is seen by every program that shares it."""
        return Tensor(self.core[name])

    def __setitem__(self, name: str, values: Any) -> None:
        """Store a copy of an array, in memory layout, under a name; in place when the name is there already."""
        # Not ascontiguousarray, which gives numbers an axis.
        array = np.asarray(as_array(values, what=name), order="C")
        if name in self.core:
            Tensor(self.core[name]).copy_(array)
        else:
            self.core[name] = _core.Tensor.from_array(array)

    def share(self, name: str, tensor: Tensor) -> None:
        """Store a tensor itself, not a copy, under a name."""
        self.core[name] = tensor._core

    def __delitem__(self, name: str) -> None:
        """Forget a name."""
        del self.core[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is there."""
        return isinstance(name, str) and name in self.core

    def __len__(self) -> int:
        """Count the names."""
        return len(self.core)

    def keys(self) -> list[str]:
        """Return the names, sorted."""
        return list(self.core.keys())

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(self.keys())


class PendingRun:
    """A run that `Program.begin` began."""

    def __init__(self, core: _core.PendingRun, order: list[str]) -> None:
        """Wrap a run of the core."""
        self._core = core
        self._order = order

    def wait(self) -> dict[str, np.ndarray]:
        """Every output by name, once the run has ended; may be called again.

        Raises:
            DeviceError: Something failed on the device, in this run or in one before it.
        """
        return dict(zip(self._order, self._core.wait(), strict=True))


class Program:
    """A compiled network for fixed input shapes.

    It cannot be pickled or copied: that is for the module, whose copy is compiled again where it is used.

    Calling it is safe from several threads at once in inference, and has the same bits as alone.
    """

    def __init__(
        self,
        core: _core.Program,
        *,
        single: bool,
        traced: Traced,
        variables: Variables,
        versions: dict[str, int] | None = None,
    ) -> None:
        """Wrap a program of the core."""
        self._core = core
        # In double precision the parameters are copies, which must follow their originals.
        self._versions = versions or {}
        self._run = core.run if traced.parameter_dtype is None else self._run_on_copies
        self._begin = core.begin if traced.parameter_dtype is None else self._begin_on_copies
        self._begin_late = core.begin_late if traced.parameter_dtype is None else self._begin_on_copies
        self._single = single
        self._order = [name for name, _, _ in core.outputs]
        self.traced = traced
        self.variables = variables

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and dtype of each input, in order."""
        return self._core.inputs

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and dtype of each output, in order."""
        return self._core.outputs

    @property
    def threads(self) -> int:
        """Most threads that a run uses."""
        return self._core.threads

    @property
    def isa(self) -> str:
        """Instruction set of the kernels: "baseline", "avx2" or "avx512"."""
        return self._core.isa

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the memory plan: arena, scratch, prepared (packed) weights, variables, arena without reuse.

        On a GPU also, at most, what inputs and outputs take there (`transfer_bytes`) and in the host's memory
        (`staging_bytes`), and the scratch of steps that run beside others (`lane_scratch_bytes`); 0 on the CPU.
        """
        return self._core.memory()

    @property
    def warnings(self) -> list[str]:
        """What was not done as asked, of which compiling has warned.

        For a GPU also which of cuDNN, cuBLASLt and NVRTC is missing: pycnn's own kernels compute everything then,
        likely slower.
        """
        return self._core.warnings

    @property
    def recording(self) -> str:
        """How a GPU is given the steps, from the second run on: "recorded on 3 lanes" and the like.

        "not recorded", with the reason, where each step is launched by itself. "" before, and on the CPU.
        """
        return self._core.recording

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Refuse pickling and copying.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            "a compiled program cannot be pickled or copied; pickle or copy the module and compile that"
        )

    def __call__(self, *arrays: Any) -> Any:
        """Run on arrays in the order of `inputs`.

        Returns:
            The output array, or a dict of arrays by name when the traced function returned a mapping.

        Raises:
            ShapeError: An array has another shape than the program was compiled for.
            DTypeError: An array's element type is not accepted. float64 becomes float32 with a warning; integers
                become int32 or int64 when they fit.
        """
        results = self._run(*arrays)
        if results is None:
            results = self._run(*self._convert(arrays))
        return results[0] if self._single else dict(zip(self._order, results, strict=True))

    def run(self, *arrays: Any) -> dict[str, np.ndarray]:
        """Run and return every output by name (arguments and errors as calling)."""
        results = self._run(*arrays)
        if results is None:
            results = self._run(*self._convert(arrays))
        return dict(zip(self._order, results, strict=True))

    @property
    def overlaps(self) -> bool:
        """Whether `begin` may return before the run has ended: on a GPU."""
        return self._core.overlaps

    def begin(self, *arrays: Any, late: bool = False) -> PendingRun:
        """Run without waiting for a GPU, which may have several runs under way (arguments as calling).

        The arrays may be changed as soon as this returns. On the CPU the run has ended then.

        Args:
            arrays: As calling.
            late: The outputs are asked for many runs later: if they take a few kilobytes at most, such as losses, they
                stay on the GPU till then and come together with those of all runs that have ended.

        Returns:
            What `PendingRun.wait` takes the outputs from.

        Raises:
            DeviceError: Something failed in a run before. Others as calling.

        Example:
            >>> import numpy as np, pycnn
            >>> program = pycnn.compile(pycnn.models.lenet5(), shape=(1, 28, 28, 1))
            >>> runs = [program.begin(np.zeros((1, 28, 28, 1), np.float32)) for _ in range(3)]
            >>> [run.wait()["output"].shape for run in runs]
            [(1, 10), (1, 10), (1, 10)]
        """
        begin = self._begin_late if late else self._begin
        pending = begin(*arrays)
        if pending is None:
            pending = begin(*self._convert(arrays))
        return PendingRun(pending, self._order)

    def _run_on_copies(self, *arrays: Any) -> Any:
        _copy_parameters(self.traced, self.variables, self._versions)
        return self._core.run(*arrays)

    def _begin_on_copies(self, *arrays: Any) -> Any:
        _copy_parameters(self.traced, self.variables, self._versions)
        return self._core.begin(*arrays)

    def _convert(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        specs = self._core.inputs
        if len(arrays) != len(specs):
            names = ", ".join(name for name, _, _ in specs)
            raise ArgumentError(f"program: {len(arrays)} arrays given, {len(specs)} expected ({names})")
        converted = []
        for value, (name, shape, dtype) in zip(arrays, specs, strict=True):
            array = as_array(value, what=f"input '{name}'")
            if array.shape != shape:
                raise ShapeError(f"input '{name}': array is {array.shape}, the program was compiled for {shape}")
            _check_conversion(array, dtype, f"input '{name}'")
            # Of a subclass the core reads nothing: it may mean more than its memory, as masked arrays do.
            converted.append(as_plain(array, dtype, what=f"input '{name}'").view(np.ndarray))
        return converted

    def explain(self) -> str:
        """Tell for each step which kernel variant runs and why faster ones were refused."""
        return self._core.explain()

    def graph_text(self) -> str:
        """Return the graph after all compiler passes."""
        return self._core.graph_text()

    def profile(self, *arrays: Any, runs: int = 10) -> list[dict[str, Any]]:
        """Time every step.

        Args:
            arrays: Inputs; zeros when left out. A training program is really trained by the runs.
            runs: How often to run, after one warm-up.

        Returns:
            One dict a step: name, op, variant, phase ("prepare" or "run"), runs, total_seconds, min_seconds, macs,
            other_flops, bytes (inputs and packed weights read once, outputs written once), refused (better variants
            that were refused, each with the reason), absorbed (names and ops of steps that the kernel does as well).

        Raises:
            ArgumentError: `runs` is not positive.
        """
        if runs < 1:
            raise ArgumentError(f"profile: runs must be positive, got {runs}")
        inputs = self._convert(arrays) if arrays else [np.zeros(shape, dtype) for _, shape, dtype in self._core.inputs]
        self._run(*inputs)
        self._core.start_profile()
        for _ in range(runs):
            self._run(*inputs)
        return self._core.profile()

    def steps(self) -> list[dict[str, Any]]:
        """Tell what a run consists of: the dicts of `profile`, without running anything, so with times of zero."""
        return self._core.steps()

    def __repr__(self) -> str:
        """Describe inputs, outputs and how it runs."""
        ins = ", ".join(f"{name} {shape} {dtype}" for name, shape, dtype in self.inputs)
        outs = ", ".join(f"{name} {shape} {dtype}" for name, shape, dtype in self.outputs)
        return f"<Program {ins} -> {outs}; {self.isa}, {self.threads} threads>"


def _check_conversion(array: np.ndarray, dtype: str, what: str) -> None:
    """Refuse what pycnn does not convert: anything but float64 to float32 and back, and integers that fit."""
    have, want = array.dtype.newbyteorder("="), np.dtype(dtype)
    if have == want or (have in (np.float32, np.float64) and want.kind == "f"):
        return
    if want.kind != "i" or have.kind not in "iu":
        raise DTypeError(f"{what}: array is {array.dtype}, the program was compiled for {dtype}")
    limits = np.iinfo(want)
    if not np.can_cast(have, want) and array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise DTypeError(f"{what}: values from {array.min()} to {array.max()} do not fit {dtype}")


def _copy_parameters(traced: Traced, variables: Variables, versions: dict[str, int]) -> None:
    """Copy the parameters that changed since `versions` was filled."""
    for name, parameter in traced.parameters.items():
        version = parameter.core.version
        if versions.get(name) == version:
            continue
        versions[name] = version
        values = parameter.core.view()
        variables[name] = values.astype(traced.parameter_dtype) if values.dtype.kind == "f" else values


def compile_traced(
    traced: Traced,
    *,
    variables: Variables | None = None,
    mode: str = "inference",
    loss: str = "loss",
    optimizer: OptimizerSpec | None = None,
    device: str = "cpu",
    threads: int | None = None,
    isa: str | None = None,
    variants: Mapping[str, str] | None = None,
    winograd: bool = True,
    tf32: bool = False,
    dtype: str = "float32",
    emulate_bfloat16: bool = False,
    recompute: str = "cheap",
    fuse: bool = True,
    reuse_memory: bool = True,
    memory_limit_bytes: int = 0,
    exchange: GradientExchange | None = None,
    bucket_bytes: int = BUCKET_BYTES,
) -> Program:
    """Compile a recorded network.

    Args:
        traced: From `tracing.trace`.
        variables: Arrays to share with other programs; the traced parameters and optimizer state are added to it. Not
            of a recording in float64, whose parameters are copies that this program keeps up to date.
        mode: "inference" or "training" (batch statistics, dropout).
        loss: In training, the output to minimise.
        optimizer: In training, the update to append; None runs only the forward pass.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        threads: At most this many. None or 0 chooses: the smallest of PYCNN_NUM_THREADS, OMP_NUM_THREADS, CPU affinity,
            cgroup quota and physical cores (see `pycnn doctor`). A number goes before the variables and the cores; more
            than affinity and quota allow is clamped, with a warning once.
        isa: "baseline", "avx2", "avx512"; None takes the best, capped by PYCNN_MAX_ISA.
        variants: Kernel variants to pin, by node name, op name or "*".
        winograd: Let 3x3 and 5x5 convolutions of stride 1 and their gradients use Winograd's minimal filtering, which
            multiplies two to four times less, and gradients of the weights of 1x1 convolutions of many channels (on
            some processors these themselves) Strassen's algorithm in Winograd's form, which multiplies an eighth to a
            quarter less; both round more (see `compile`). False keeps to plain sums.
        tf32: Let tensor cores round float32 to TF32 (see `compile`).
        dtype: "float32"; "bfloat16" or "float16" for activations and their gradients (see `compile`). Inputs, outputs,
            parameters, norms and losses stay as they are.
        emulate_bfloat16: Compute in bfloat16 where the processor cannot, too; slow.
        recompute: Which results of the forward pass a graph with gradients computes again instead of keeping them for
            the backward pass; the bits are the same. "none"; "cheap": most of what one pass over kept values gives,
            such as normalised and activated ones; "sqrt": nearly all, segment by segment (Chen et al. 2016, "Training
            deep nets with sublinear memory cost"), which runs most of the forward pass twice.
        fuse: Fold batch norms and join epilogues.
        reuse_memory: Share arena space between arrays that never live together.
        memory_limit_bytes: Refuse plans over this many bytes; 0 sets the limit at what the machine has left.
        exchange: Gets the gradients of every run before the parameters are updated by them.
        bucket_bytes: How many bytes of gradients it gets at a time; a larger gradient comes alone.

    Raises:
        ArgumentError: An option is out of range, or a variant is unknown.
        DeviceError: The device or instruction set is not there.
        GraphError: The loss depends on no trainable parameter.
        MemoryLimitError: The plan needs more than the limit or the machine has; says both numbers.
        UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.
    """
    if variables is not None and traced.parameter_dtype is not None:
        # Another one's copies, and its constants, would lie under the same names.
        raise ArgumentError("compile: a program in float64 has copies of the parameters, it shares no variables")
    variables = Variables() if variables is None else variables
    versions: dict[str, int] = {}
    # Another thread may put others under these names at any time: constants are numbered by each recording anew.
    own: dict[str, _core.Tensor] = {}
    if traced.parameter_dtype is None:
        variables.update(traced.parameters)
        own = {name: parameter.core for name, parameter in traced.parameters.items()}
    else:
        _copy_parameters(traced, variables, versions)
    _check_threads(threads)
    core = _core.compile(
        traced.graph,
        variables.core,
        mode=mode,
        device=check_device(device),
        isa=_check_isa(isa),
        threads=min(int(threads or 0), _MOST_THREADS),
        variants=_check_variants(variants),
        **check_numerics(dtype=dtype, emulate_bfloat16=emulate_bfloat16, winograd=winograd, tf32=tf32),
        recompute=check_recompute(recompute),
        fuse=fuse,
        reuse_memory=reuse_memory,
        memory_limit_bytes=as_integer(
            memory_limit_bytes, who="compile", name="memory_limit_bytes", low=0, high=2**63 - 1
        ),
        loss=loss,
        optimizer=None if optimizer is None else optimizer.to_core(),
        exchange=exchange,
        bucket_bytes=bucket_bytes,
        own=own,
    )
    _warn_once(core.warnings)
    return Program(core, single=traced.single, traced=traced, variables=variables, versions=versions)


def plan_memory(
    traced: Traced,
    *,
    mode: str = "inference",
    loss: str = "loss",
    optimizer: OptimizerSpec | None = None,
    device: str = "cpu",
    threads: int | None = None,
    isa: str | None = None,
    winograd: bool = True,
    tf32: bool = False,
    dtype: str = "float32",
    emulate_bfloat16: bool = False,
    recompute: str = "cheap",
) -> dict[str, Any]:
    """Plan the memory of a recorded network: no weight is drawn, nothing is run, and no limit holds.

    The arguments are those of `compile_traced`.

    Returns:
        `Program.memory`, with "isa" and "threads", which the plan depends on.

    Raises:
        GraphError: The loss depends on no trainable parameter.
        UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.
    """
    _check_threads(threads)
    return _core.plan_memory(
        traced.graph,
        mode=mode,
        device=check_device(device),
        isa=_check_isa(isa),
        threads=min(int(threads or 0), _MOST_THREADS),
        **check_numerics(dtype=dtype, emulate_bfloat16=emulate_bfloat16, winograd=winograd, tf32=tf32),
        recompute=check_recompute(recompute),
        loss=loss,
        optimizer=None if optimizer is None else optimizer.to_core(),
    )


# What activations may be computed in.
COMPUTED = ("float32", "bfloat16", "float16")
# Of these, what takes 16 bits: inputs and parameters stay float32 beside it.
LOW_PRECISION = ("bfloat16", "float16")
# What the core takes as a count; it clamps far below.
_MOST_THREADS = 2**62
_warned: set[str] = set()


def _warn_once(texts: Sequence[str]) -> None:
    for text in texts:
        if text not in _warned:
            _warned.add(text)
            warnings.warn(f"compile: {text}", stacklevel=stack_level())


def _check_threads(threads: Any) -> None:
    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ArgumentError(f"threads: {threads!r} must be an integer of at least 1, or None to choose")


def _check_isa(isa: Any) -> str:
    if isa is not None and not isinstance(isa, str):
        raise ArgumentError(f"isa: {isa!r} is not one of 'baseline', 'avx2', 'avx512', or None for the best")
    return isa or "auto"


def _check_variants(variants: Any) -> dict[str, str]:
    if variants is None:
        return {}
    if not isinstance(variants, Mapping) or not all(isinstance(text, str) for pin in variants.items() for text in pin):
        raise ArgumentError(f"compile: variants is {variants!r}, expected names of nodes or ops to names of variants")
    return dict(variants)


def check_numerics(
    *, dtype: Any, emulate_bfloat16: Any, winograd: Any, tf32: Any = False, who: str = "compile"
) -> dict[str, Any]:
    """Refuse what does not say how numbers are multiplied and kept; messages about flags begin with `who` asked.

    Returns:
        The four as arguments of `compile_traced`.

    Raises:
        DTypeError: `dtype` is none of `COMPUTED`.
        ArgumentError: One of the others is not True or False.
    """
    return {
        "dtype": check_dtype(dtype, allowed=COMPUTED),
        "emulate_bfloat16": as_flag(emulate_bfloat16, who=who, name="emulate_bfloat16"),
        "winograd": as_flag(winograd, who=who, name="winograd"),
        "tf32": as_flag(tf32, who=who, name="tf32"),
    }


def check_recompute(recompute: Any) -> str:
    """Refuse what is no way of computing results again.

    Raises:
        ArgumentError: It is not "none", "cheap" or "sqrt".
    """
    if not isinstance(recompute, str) or recompute not in ("none", "cheap", "sqrt"):
        raise ArgumentError(f"recompute: {recompute!r} is not one of 'none', 'cheap', 'sqrt'")
    return recompute


def check_device(device: Any, *, who: str = "compile") -> str:
    """Refuse what names no device; whether there is one of that name, the core tells (DeviceError).

    Raises:
        ArgumentError: It is no text; the message begins with `who` asked.
    """
    if not isinstance(device, str):
        raise ArgumentError(f"{who}: device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got {device!r}")
    return "cpu" if device == "auto" else device


def check_execution(*, device: Any, threads: Any, who: str, **numerics: Any) -> dict[str, Any]:
    """Where and how a net is run: device, threads and `check_numerics`, as arguments of `compile_traced`."""
    _check_threads(threads)
    return {"device": check_device(device, who=who), "threads": threads, **check_numerics(who=who, **numerics)}


def require_device(device: Any, *, who: str) -> None:
    """Refuse a device that cannot be used, before work that would be lost.

    Raises:
        ArgumentError: It is no text; the message begins with `who` asked.
        DeviceError: The device is not there; the text says what is missing.
    """
    if check_device(device, who=who) != "cpu":
        compile(lambda x: x + x, (1,), device=device)


def compile(
    net: Any,
    shape: Sequence[int],
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    isa: str | None = None,
    *,
    variants: Mapping[str, str] | None = None,
    winograd: bool = True,
    tf32: bool = False,
    input_dtype: str | None = None,
    emulate_bfloat16: bool = False,
    memory_limit_bytes: int = 0,
) -> Program:
    """Compile a module or function for inference on inputs of one shape.

    Args:
        net: A module, or a function from a Symbol to a Symbol or a mapping of names to Symbols.
        shape: Of the input, (N, H, W, C) for images.
        dtype: "float32"; "bfloat16", which stores activations in half the memory and multiplies faster; "uint8" for
            images as decoded, in float32; "float64" runs the slow reference kernels. bfloat16 has float32's range and 8
            bits of precision. Sums, norms, softmax and what is given back are float32, as are inputs and parameters;
            scores differ from float32's by about a hundredth of the largest. It needs AMX or AVX512-BF16. "float16" is
            the like on a GPU alone, with 11 bits of precision and numbers up to 65504 only.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        threads: At most this many; None chooses (see `compile_traced`).
        isa: "baseline", "avx2" or "avx512"; None takes the best.
        variants: Kernel variants to pin, by node name, op name or "*".
        winograd: Let 3x3 and 5x5 convolutions of stride 1 and 16 channels or more use Winograd's minimal filtering
            (Lavin and Gray 2015, "Fast algorithms for convolutional neural networks"): for 3x3 windows 2.25 times fewer
            multiplications on outputs of up to 7x7, 4 times on larger ones, for 5x5 windows 2.8 times. The largest
            error over the largest result, measured on 16 to 512 channels of ReLU's results and He's weights: 2e-7 to
            9e-7 on the small outputs, 3e-6 to 2e-5 on the large ones and 2e-6 to 1e-5 of 5x5 windows, against 3e-7 to
            3e-6 by plain sums. A NaN or an infinity spoils whole tiles of outputs, of 2x2 or 4x4. Transformed weights
            take 1.8 or 4 times the memory, of 5x5 windows 1.4 times. 3x3 windows within groups of 8, 16, 32 or 64
            channels, as many in as out, multiply up to 4 times less on outputs of 4x4 and more, with errors of 2e-6 to
            8e-6. With bfloat16, where AVX512-BF16
            multiplies and AMX does not: 3x3 windows of 32 channels or more, with an RMS error of 0.4 % of the RMS
            result instead of 0.24 %. With AVX-512, let the gradients of the weights of 1x1 convolutions in float32
            between 128 channels or more use Strassen's algorithm in Winograd's form (1971), which multiplies an eighth
            less, and on cores that multiply 512 bits in halves (Zen 4; the environment variable PYCNN_STRASSEN, 1 or 0,
            decides otherwise) these convolutions and their gradients for the input, from 256 channels on a quarter
            less: on 128 to 2,048 channels 1e-6 to 8e-6 against 3e-7 to 1.5e-6 by plain sums; a NaN or an infinity
            spoils the pixel (or three) beside its own, too; summed weights take 1.75 times the memory (or 3). False
            keeps to plain sums.
        tf32: Let the tensor cores of a GPU multiply float32 that is rounded to 10 bits of mantissa (TF32), with sums in
            float32: several times as fast, with errors of about a thousandth of the largest result. So does
            PYCNN_CUDA_TF32=1 for all programs. On the CPU, and in other types, it changes nothing.
        input_dtype: Of the array to call it with, where `dtype` is "bfloat16" (NumPy has none) or "float16": "float32",
            the default, "uint8", or with the latter "float16".
        emulate_bfloat16: Let "bfloat16" run on any processor, by rounding what float32 kernels are given and give:
            slow, with the precision of the real thing, to see how accurate a net would be.
        memory_limit_bytes: Refuse plans over this many bytes; 0 sets the limit at what the machine has left.

    Returns:
        A program to call with an array of that shape; it shares the module's parameters and follows their changes.

    Raises:
        ShapeError: A layer refuses the shape.
        ArgumentError: An option is out of range, or does not go with another.
        DTypeError: `dtype` or `input_dtype` is none of these.
        UnsupportedError: bfloat16 without AMX or AVX512-BF16, or float16 on the CPU.
        DeviceError: The device or instruction set is not there.
        MemoryLimitError: The plan needs more than the limit or the machine has; says both numbers.

    Example:
        >>> import numpy as np, pycnn
        >>> net = pycnn.models.lenet5()
        >>> program = pycnn.compile(net, shape=(1, 28, 28, 1))
        >>> program(np.zeros((1, 28, 28, 1), np.float32)).shape
        (1, 10)
    """
    if isinstance(net, type) or not callable(net):
        hint = f"\n  hint: the class is given, not a net; write {net.__name__}(...)" if isinstance(net, type) else ""
        raise ArgumentError(f"compile: net is {net!r}, expected a Module or a function of a Symbol{hint}")
    name = check_dtype(dtype, allowed=(*COMPUTED, "uint8", "float64"))
    computed = name if name in COMPUTED else "float32"
    if input_dtype is not None:
        if name not in LOW_PRECISION:
            raise ArgumentError(
                f"compile: input_dtype goes with dtype='bfloat16' and 'float16'; {name!r} is the input's type too"
            )
        name = check_dtype(input_dtype, allowed=("float32", "uint8", *(("float16",) if name == "float16" else ())))
    elif name in LOW_PRECISION:
        name = "float32"
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise ShapeError(f"compile: shape is {shape!r}, expected the sizes of the input, (N, H, W, C) for images")

    def widened(x: Any) -> Any:
        # Exact, and undone at once where the net takes it in float16.
        return emit(_core.Cast(dtype="float32"), [x]) if name == "float16" else x

    traced = trace(
        lambda x: net(widened(x)),
        {"x": (tuple(shape), name)},
        root=net if hasattr(net, "named_parameters") else None,
        parameter_dtype="float64" if name == "float64" else None,
    )
    return compile_traced(
        traced,
        device=device,
        threads=threads,
        isa=isa,
        variants=variants,
        winograd=winograd,
        tf32=tf32,
        dtype=computed,
        emulate_bfloat16=emulate_bfloat16,
        memory_limit_bytes=memory_limit_bytes,
    )
