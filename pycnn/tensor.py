"""Arrays that live in the core, and the parameters of modules."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn import _core, config
from pycnn.changes import clock
from pycnn.errors import ArgumentError, DTypeError, MemoryLimitError, ShapeError

__all__ = [
    "Initializer",
    "Parameter",
    "Tensor",
    "as_array",
    "as_plain",
    "expect_memory",
    "stack_level",
    "why_not_plain",
]

_DTYPES = ("float32", "float64", "uint8", "int32", "int64")


def as_array(value: Any, *, what: str = "array") -> np.ndarray:
    """Read an array-like object without a copy where it allows that.

    NumPy arrays, objects with the buffer protocol, `__array__`, or `__dlpack__` (on the CPU), and nested
    sequences are accepted.

    Raises:
        DTypeError: The elements are not numbers that pycnn knows (complex, object, str, ...).
    """
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{what}: a masked array; fill it first, for example x.filled(0)")
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DTypeError(f"{what}: cannot be read as an array ({error})") from None
    else:
        try:
            array = np.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise DTypeError(f"{what}: cannot be read through DLPack ({error})") from None
    if array.dtype.kind not in "fiub":
        if array.ndim == 0 and not isinstance(value, np.ndarray):
            hint = "\n  hint: a file name is not opened here; decode the image first" if isinstance(value, str) else ""
            raise DTypeError(f"{what}: got {type(value).__name__}, expected an array of numbers{hint}")
        raise DTypeError(f"{what}: has element type {array.dtype}, expected one of {', '.join(_DTYPES)}")
    return array


# Smaller amounts are not looked at, as in the core.
_CHECKED_BYTES = 64 << 20


def no_memory(what: str, wanted_bytes: int) -> MemoryLimitError:
    """The error that says how much was wanted and how much the machine has left."""
    available = int(_core.machine()["available_memory_bytes"])
    error = MemoryLimitError(f"{what}: {wanted_bytes} bytes are wanted, {available} are available")
    error.wanted_bytes, error.available_bytes = wanted_bytes, available
    return error


def expect_memory(what: str, wanted_bytes: int) -> None:
    """Refuse before the work what the machine has no memory for.

    Args:
        what: For the message: who asks, and for what.
        wanted_bytes: How much.

    Raises:
        MemoryLimitError: The machine has less left; says both numbers.
    """
    if wanted_bytes >= _CHECKED_BYTES and wanted_bytes > _core.machine()["available_memory_bytes"]:
        raise no_memory(what, wanted_bytes)


def why_not_plain(array: np.ndarray, *, name: str = "x") -> str:
    """Why an array must be copied for the core, and what the caller can do about it."""
    if array.dtype.isnative and array.flags.aligned:
        return f"is not C-contiguous; pass numpy.ascontiguousarray({name}) to avoid it"
    why = "is not aligned" if array.dtype.isnative else "is not of native byte order"
    dtype = array.dtype.newbyteorder("=").name
    return f'{why}; pass numpy.array({name}, numpy.{dtype}, order="C") to avoid it'


def to_native(array: np.ndarray, dtype: str | np.dtype[Any]) -> np.ndarray:
    """Return a C-contiguous, aligned, native-endian array of a type; the same object when it already is one."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, dtype=np.dtype(dtype), requirements=["C", "A"])


def stack_level() -> int:
    """Depth of the nearest caller outside the package, for warnings."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "pycnn":
        frame = frame.f_back
        level += 1
    return level


def as_plain(array: np.ndarray, dtype: str | np.dtype[Any], *, what: str) -> np.ndarray:
    """The array as the core reads it: of this type, C-contiguous, aligned, of native byte order.

    The same object when it is that already. A conversion of floating-point numbers or a copy is announced by a
    warning, once for each place in the caller's code; integers, which are labels, are converted without.

    Raises:
        MemoryLimitError: There is no memory for the copy.
    """
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    copied = f"{what}: no memory for a plain copy of {array.dtype} {array.shape}"
    wanted = array.size * np.dtype(dtype).itemsize
    expect_memory(copied, wanted)
    try:
        ready = to_native(array, dtype)
    except MemoryError:
        raise no_memory(copied, wanted) from None
    if array.dtype.kind == "f" and array.dtype.itemsize != np.dtype(dtype).itemsize:
        text = f"converted from {array.dtype.name} to {dtype}; pass x.astype(numpy.{dtype}) to avoid it"
    elif array.dtype.newbyteorder("=") == ready.dtype and array.size and not np.may_share_memory(ready, array):
        text = f"copied because it {why_not_plain(array)}"
    else:
        return ready
    warnings.warn(f"{what}: {text}", stacklevel=stack_level())
    return ready


class Tensor:
    """A named array of the core: a parameter's values, optimizer state, running statistics.

    Reading (`numpy`, `__array__`, `__dlpack__`, the buffer protocol of `numpy()`) shares the memory and is
    read-only; `copy_` writes. What a program on a GPU wrote is copied here first (DeviceError where that fails), and as
    long as an array lives that shares the memory, after every run.
    """

    def __init__(self, core: _core.Tensor) -> None:
        """Wrap a tensor of the core."""
        self._core = core

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._core.shape

    @property
    def dtype(self) -> str:
        """Element type by its NumPy name."""
        return self._core.dtype

    def numpy(self) -> np.ndarray:
        """Return a read-only view of the values."""
        return self._core.view()

    def copy_(self, values: Any) -> None:
        """Overwrite the values.

        Raises:
            ShapeError: The shape differs.
        """
        array = as_array(values)
        if array.shape != self.shape:
            raise ShapeError(f"copy_: values are {array.shape}, the tensor is {self.shape}")
        self._core.assign(to_native(array, self.dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Serve NumPy's conversion protocol."""
        view = self.numpy()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            if copy is False:
                raise ValueError(f"a conversion from {view.dtype} to {np.dtype(dtype)} needs a copy")
            return view.astype(dtype)
        return view.copy() if copy else view

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export through DLPack, arguments as the array API standard's.

        Without a copy only for consumers of DLPack 1.0 and later, which learn that the memory is read-only. PyTorch
        does not heed it: what is written through ``torch.from_dlpack(tensor)`` changes the values behind the back of
        compiled programs; clone it first, or take the `Parameter`, which exports a copy.

        Raises:
            BufferError: `copy=False` and the consumer does not know read-only memory.
        """
        view = self.numpy()
        if copy is None and (max_version is None or max_version[0] < 1):
            copy = True
        return view.__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the DLPack device: the CPU."""
        return (1, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the values."""
        return _tensor_of, (self.numpy().copy(),)

    def __repr__(self) -> str:
        """Describe shape and type."""
        return f"Tensor(shape={self.shape}, dtype={self.dtype!r})"


def _tensor_of(values: np.ndarray) -> Tensor:
    return Tensor(_core.Tensor.from_array(values))


@dataclass(frozen=True)
class Initializer:
    """How a fresh parameter gets its values.

    Attributes:
        kind: "constant", "uniform", "normal" or "truncated_normal" (cut at two deviations).
        a: The constant; the lower bound; the mean.
        b: Unused; the upper bound; the standard deviation.
    """

    kind: str = "constant"
    a: float = 0.0
    b: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            ArgumentError: An unknown kind, or a number that is not finite.
        """
        if self.kind not in ("constant", "uniform", "normal", "truncated_normal"):
            raise ArgumentError(
                f"initializer: kind {self.kind!r} is not one of constant, uniform, normal, truncated_normal"
            )
        if not (math.isfinite(self.a) and math.isfinite(self.b)):
            raise ArgumentError(f"initializer: bounds {self.a!r} and {self.b!r} must be finite")


class Parameter:
    """An array that a module owns and the optimizer may change.

    In memory a convolution weight is (OC, KH, KW, IC / groups); `numpy` and `copy_` speak the layout of files and of
    other frameworks, (OC, IC / groups, KH, KW).

    Args:
        shape: Memory shape.
        init: An `Initializer`, or an array of the memory shape.
        layout: "conv" for convolution weights, else "plain".
        trainable: False for buffers: running statistics, fixed tables.
        dtype: "float32" or, for buffers, any element type.

    Attributes:
        frozen: Of running statistics: training uses them and keeps them (see `pycnn.nn.Module.freeze_statistics`).

    Raises:
        ShapeError: A negative size, or an array of another shape.
        ArgumentError: An unknown layout.
    """

    frozen = False

    def __init__(
        self,
        shape: Sequence[int],
        *,
        init: Initializer | np.ndarray | None = None,
        layout: str = "plain",
        trainable: bool = True,
        dtype: str = "float32",
    ) -> None:
        """See the class."""
        self.shape = tuple(int(size) for size in shape)
        if any(size < 0 for size in self.shape):
            raise ShapeError(f"parameter: shape {self.shape} has a negative size")
        if layout not in ("plain", "conv"):
            raise ArgumentError(f"parameter: layout {layout!r} is not one of plain, conv")
        if layout == "conv" and len(self.shape) != 4:
            raise ShapeError(f"parameter: layout conv needs 4 axes (OC, KH, KW, IC), the shape is {self.shape}")
        self.layout = layout
        self.is_buffer = not trainable
        self._trainable = trainable
        self.dtype = dtype
        self.name = ""
        self._init = init if init is not None else Initializer()
        self._given = isinstance(init, np.ndarray)
        self._tensor: _core.Tensor | None = None
        if isinstance(self._init, np.ndarray) and self._init.shape != self.shape:
            raise ShapeError(f"parameter: initial values are {self._init.shape}, the shape is {self.shape}")

    @property
    def trainable(self) -> bool:
        """Whether training changes it; may be set, which the next step heeds."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = value
        clock.tick()  # afterwards: who sees the new count shall see the value

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def disk_shape(self) -> tuple[int, ...]:
        """Shape in files and in `state_dict`."""
        if self.layout == "conv":
            oc, kh, kw, ic = self.shape
            return (oc, ic, kh, kw)
        return self.shape

    @property
    def tensor(self) -> Tensor:
        """The values in the core, in memory layout; drawn on first use from the seed and the parameter's name."""
        return Tensor(self.core)

    @property
    def core(self) -> _core.Tensor:
        """The core's handle of the values."""
        if self._tensor is None:
            if isinstance(self._init, np.ndarray):
                self._tensor = _core.Tensor.from_array(to_native(self._init, self.dtype))
                self._init = Initializer()
            else:
                self._tensor = _core.Tensor(self.shape, self.dtype)
                self._fill(self._init, config.seed())
        return self._tensor

    def _fill(self, init: Initializer, seed: int) -> None:
        assert self._tensor is not None
        self._tensor.fill(_core.Initializer(init.kind, init.a, init.b), seed, self.name)

    @property
    def initializer(self) -> Initializer | None:
        """How fresh values are drawn; None where the parameter was made of given values."""
        return self._init if isinstance(self._init, Initializer) and not self._given else None

    def draw(self, init: Initializer, seed: int) -> None:
        """Overwrite the values by fresh ones, which follow from the seed and the parameter's name.

        Args:
            init: How they are drawn.
            seed: Instead of that of `pycnn.manual_seed`.
        """
        _ = self.core  # makes the storage, which programs may share already
        self._fill(init, seed)

    def numpy(self) -> np.ndarray:
        """Return a copy of the values in the layout of files."""
        view = self.core.view()
        return np.array(view.transpose(0, 3, 1, 2), order="C") if self.layout == "conv" else view.copy()

    def copy_(self, values: Any) -> None:
        """Overwrite the values, given in the layout of files.

        Raises:
            ShapeError: The shape differs from `disk_shape`.
        """
        array = as_array(values, what=self.name or "parameter")
        if array.shape != self.disk_shape:
            raise ShapeError(f"'{self.name or 'parameter'}' is {self.disk_shape}, the values are {array.shape}")
        if self.layout == "conv":
            array = array.transpose(0, 2, 3, 1)
        self.core.assign(to_native(array, self.dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Serve NumPy's conversion protocol with a copy in the layout of files."""
        if copy is False:
            raise ValueError("a parameter is read through a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack__(self, **arguments: Any) -> Any:
        """Export a copy in the layout of files through DLPack, arguments as the array API standard's.

        `tensor` shares the values themselves, in memory layout.

        Raises:
            BufferError: `copy=False`.
        """
        if arguments.get("copy") is False:
            raise BufferError("a parameter is exported as a copy; its .tensor shares the memory")
        return self.numpy().__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the DLPack device: the CPU."""
        return (1, 0)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the values as an array.

        Those of a named parameter are drawn before, so that the seed where it is read does not matter.
        """
        if self.name:
            _ = self.core
        return self._state()

    def _state(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_tensor"] = None if self._tensor is None else self._tensor.view().copy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the values into the core."""
        values = state.pop("_tensor")
        self.__dict__.update(state)
        self._tensor = None if values is None else _core.Tensor.from_array(values)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """Copy with storage of its own."""
        copy = type(self).__new__(type(self))
        copy.__setstate__(self._state())
        memo[id(self)] = copy
        return copy

    def __repr__(self) -> str:
        """Describe name, shape and layout."""
        kind = "buffer" if self.is_buffer else "parameter" if self.trainable else "frozen parameter"
        return f"<{kind} {self.name or '(unnamed)'} {self.disk_shape} {self.dtype}>"
