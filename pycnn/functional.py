"""One function per op and composite.

Given symbols or parameters, a function records its op and returns a Symbol; given arrays only, it runs at once and
returns an array. Images are (N, H, W, C); convolution weights are (OC, KH, KW, IC / groups), the memory layout of
`Parameter`. Sizes that may be one number or two mean (vertical, horizontal). Shapes, ranges and element types are
checked by the core: every function raises ShapeError, DTypeError or ArgumentError with the numbers.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.arguments import as_float
from pycnn.errors import ArgumentError, DTypeError, LabelError
from pycnn.program import Program, compile_traced
from pycnn.tensor import Initializer, Parameter, as_array, as_plain
from pycnn.tracing import Symbol, check_dtype, emit, emit_block, is_tracing, to_symbol, trace

__all__ = [
    "adaptive_avg_pool2d",
    "add",
    "affine",
    "avg_pool2d",
    "batch_norm",
    "broadcast",
    "cast",
    "concat",
    "conv2d",
    "cross_entropy",
    "dropout",
    "flatten",
    "global_avg_pool2d",
    "global_max_pool2d",
    "inception_block",
    "inception_parameters",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mean",
    "mse_loss",
    "multiply",
    "normalize_image",
    "pad",
    "relu",
    "relu6",
    "reshape",
    "residual_block",
    "residual_parameters",
    "scaled_tanh",
    "sigmoid",
    "slice",
    "softmax",
    "subtract",
    "sum",
    "take",
    "tanh",
    "top_k_correct",
    "transpose",
]

_CACHE_LIMIT = 256
# What tensors of the core can hold, by NumPy's name. Narrower floats are refused by each op with its own words.
_DTYPES = frozenset(("float32", "float64", "float16", "uint8", "int32", "int64"))
_programs: dict[Any, Program] = {}


def _apply(op: Any, inputs: Sequence[Any], *, outputs: int = 1) -> Any:
    """Record the op, or run it at once when there are only arrays."""
    if is_tracing() or any(isinstance(value, Symbol) for value in inputs):
        return emit(op, inputs, outputs=outputs)
    arrays = _as_arrays(inputs, op.name)
    specs = {f"input_{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    key = (op.name, repr(op.attributes()), tuple(specs.values()))
    program = _programs.get(key)
    if program is None:
        traced = trace(lambda **symbols: _named(emit(op, list(symbols.values()), outputs=outputs)), specs)
        program = compile_traced(traced)
        if len(_programs) >= _CACHE_LIMIT:
            _programs.pop(next(iter(_programs)))
        _programs[key] = program
    results = tuple(program.run(*_plain(arrays, op.name)).values())
    return results[0] if outputs == 1 else results


def _as_arrays(values: Sequence[Any], who: str) -> list[np.ndarray]:
    """What an op is run on at once; parameters in their memory layout.

    Raises:
        DTypeError: Names the input and its element type.
    """
    arrays = []
    for i, value in enumerate(values):
        array = value.core.view() if isinstance(value, Parameter) else as_array(value, what=f"{who}: input {i}")
        if array.dtype.name not in _DTYPES:
            raise DTypeError(
                f"{who}: input {i}: has element type {array.dtype}, expected one of {', '.join(sorted(_DTYPES))}"
            )
        arrays.append(array)
    return arrays


def _plain(arrays: Sequence[np.ndarray], who: str) -> list[np.ndarray]:
    """The arrays as the core reads them; a copy is announced under the name of the op and the input's number."""
    return [as_plain(array, array.dtype.name, what=f"{who}: input {i}") for i, array in enumerate(arrays)]


def _check_labels(scores: Any, labels: Any, who: str) -> None:
    """Refuse class numbers that are out of range, where there are values to look at.

    The program that is run would refuse them too, but could only call them its "input_1".
    """
    if is_tracing() or isinstance(scores, Symbol) or isinstance(labels, Symbol):
        return
    numbers, classes = as_array(labels, what=f"{who}: labels"), as_array(scores, what=who).shape[-1:]
    if numbers.dtype.kind == "f" and numbers.ndim == 1:
        odd = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.floor(numbers)))
        where = f" (value {numbers[odd[0]]} at position {odd[0]})" if odd.size else ""
        hint = "" if odd.size else "\n  hint: try labels.astype(numpy.int64)"
        raise DTypeError(f"{who}: labels must be integers, got {numbers.dtype}{where}{hint}")
    if numbers.dtype.kind == "b":
        raise DTypeError(f"{who}: labels must be integers, got bool\n  hint: try labels.astype(numpy.int64)")
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not classes:
        return
    bad = np.flatnonzero((numbers < 0) | (numbers >= classes[0]))
    if bad.size:
        raise LabelError(
            f"{who}: label {numbers[bad[0]]} at position {bad[0]}, there are {classes[0]} classes (0..{classes[0] - 1})"
        )


def _named(result: Any) -> dict[str, Symbol]:
    results = result if isinstance(result, tuple) else (result,)
    return {f"output_{i}": value for i, value in enumerate(results)}


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ArgumentError(f"{name}: {value!r} is not an integer")
    return int(value)


def _number(value: Any, name: str) -> float:
    who, _, argument = name.partition(": ")
    return as_float(value, who=who, name=argument)


def _integers(value: Any, name: str) -> tuple[int, ...]:
    try:
        return tuple(_integer(v, name) for v in value)
    except TypeError:
        raise ArgumentError(f"{name}: {value!r} is neither an integer nor a sequence of integers") from None


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    if isinstance(value, int | np.integer):
        return (_integer(value, name),) * 2
    values = _integers(value, name)
    if len(values) != 2:
        raise ArgumentError(f"{name}: {value!r} must be one number or two (vertical, horizontal)")
    return values[0], values[1]


def _padding(value: int | Sequence[int], name: str) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) from one number, (vertical, horizontal), or all four."""
    if isinstance(value, int | np.integer):
        return (_integer(value, name),) * 4
    values = _integers(value, name)
    if len(values) == 2:
        return values[0], values[0], values[1], values[1]
    if len(values) == 4:
        return values[0], values[1], values[2], values[3]
    raise ArgumentError(f"{name}: {value!r} must be one number, (vertical, horizontal), or (top, bottom, left, right)")


def _axes(x: Any, axes: int | Sequence[int] | None, name: str) -> tuple[int, ...]:
    rank = len(x.shape) if hasattr(x, "shape") else as_array(x).ndim
    given = range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes
    result = []
    for axis in given:
        axis = _integer(axis, name)
        if not -rank <= axis < rank:
            raise ArgumentError(f"{name}: {axis} is out of range for {rank} axes")
        result.append(axis % rank)
    if len(set(result)) != len(result):
        raise ArgumentError(f"{name}: {tuple(given)} names an axis twice")
    return tuple(sorted(result))


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlate images with filters.

    Args:
        x: Images (N, H, W, IC).
        weight: Filters (OC, KH, KW, IC / groups).
        bias: One value per output channel (OC), or None.
        stride: Step of the window in pixels.
        padding: Zeros around the image: one number, (vertical, horizontal) or (top, bottom, left, right).
        dilation: Distance of the filter's cells in pixels.
        groups: Input and output channels are cut into this many independent groups.

    Shape:
        (N, OH, OW, OC), OH = floor((H + top + bottom - (KH - 1) * dilation - 1) / stride) + 1, OW likewise.

    Raises:
        ShapeError: Channels disagree, or the geometry leaves no output.

    Example:
        >>> import numpy as np
        >>> image = np.array([[1,1,1,0,0],[0,1,1,1,0],[0,0,1,1,1],[0,0,1,1,0],[0,1,1,0,0]], np.float32)
        >>> cross = np.array([[1,0,1],[0,1,0],[1,0,1]], np.float32)
        >>> float(conv2d(image.reshape(1, 5, 5, 1), cross.reshape(1, 3, 3, 1))[0, 0, 0, 0])
        4.0
    """
    op = _core.Conv2d(
        stride=_pair(stride, "conv2d: stride"),
        padding=_padding(padding, "conv2d: padding"),
        dilation=_pair(dilation, "conv2d: dilation"),
        groups=_integer(groups, "conv2d: groups"),
    )
    return _apply(op, [x, weight] if bias is None else [x, weight, bias])


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Fully connected layer: x @ weight.T + bias.

    Shape:
        x (..., IN), weight (OUT, IN), bias (OUT) -> (..., OUT)
    """
    return _apply(_core.Dense(), [x, weight] if bias is None else [x, weight, bias])


def max_pool2d(
    x: Any,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Any:
    """Largest value of each window; padding never wins, NaN does, ties go to the first cell in row-major order.

    Args:
        x: Images (N, H, W, C).
        kernel_size: Window in pixels.
        stride: Step in pixels; None is the window.
        padding: At most half of the window at each side.
        dilation: Distance of the window's cells.
        ceil_mode: Round the output size up; no window starts in the bottom or right padding.
    """
    window = _pair(kernel_size, "max_pool2d: kernel_size")
    op = _core.MaxPool2d(
        kernel_size=window,
        stride=window if stride is None else _pair(stride, "max_pool2d: stride"),
        padding=_padding(padding, "max_pool2d: padding"),
        dilation=_pair(dilation, "max_pool2d: dilation"),
        ceil_mode=bool(ceil_mode),
    )
    return _apply(op, [x])


def avg_pool2d(
    x: Any,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Mean of each window (arguments as `max_pool2d`).

    Args:
        x: Images (N, H, W, C).
        kernel_size: Window in pixels.
        stride: Step in pixels; None is the window.
        padding: At most half of the window at each side.
        ceil_mode: Round the output size up.
        count_include_pad: Padding counts as zeros in the mean; else only cells of the image count.
    """
    window = _pair(kernel_size, "avg_pool2d: kernel_size")
    op = _core.AvgPool2d(
        kernel_size=window,
        stride=window if stride is None else _pair(stride, "avg_pool2d: stride"),
        padding=_padding(padding, "avg_pool2d: padding"),
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
    )
    return _apply(op, [x])


def adaptive_avg_pool2d(x: Any, *, output_size: int | Sequence[int]) -> Any:
    """Mean of windows that cover the image evenly, whatever its size.

    Window i of OH spans the rows from floor(i * H / OH) up to but not including ceil((i + 1) * H / OH), and columns
    likewise, as in PyTorch. An image that has the output's size already is handed on at no cost.

    Args:
        x: Images (N, H, W, C).
        output_size: (OH, OW), or one number for both.

    Shape:
        (N, H, W, C) -> (N, OH, OW, C)

    Raises:
        ArgumentError: A size is below 1.

    Example:
        >>> import numpy as np
        >>> adaptive_avg_pool2d(np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1), output_size=(1, 2)).ravel().tolist()
        [1.0, 3.0]
    """
    size = _pair(output_size, "adaptive_avg_pool2d: output_size")
    if size == (1, 1):
        channels = x.shape[-1] if hasattr(x, "shape") else as_array(x).shape[-1]
        return reshape(global_avg_pool2d(x), shape=(0, 1, 1, channels))
    return _apply(_core.AdaptiveAvgPool2d(output_size=size), [x])


def global_avg_pool2d(x: Any) -> Any:
    """Mean over height and width: (N, H, W, C) -> (N, C)."""
    return _apply(_core.GlobalAvgPool2d(), [x])


def global_max_pool2d(x: Any) -> Any:
    """Maximum over height and width: (N, H, W, C) -> (N, C)."""
    return _apply(_core.GlobalMaxPool2d(), [x])


def batch_norm(
    x: Any,
    scale: Any,
    shift: Any,
    running_mean: Any,
    running_var: Any,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
    frozen: bool = False,
) -> Any:
    """Batch normalisation over all axes but the last (Ioffe and Szegedy 2015).

    While training the batch's own statistics are used and the running ones updated, else the running ones are used.
    Given arrays only, it normalises by the running statistics.

    Args:
        x: (..., C).
        scale: (C), also called gamma.
        shift: (C), also called beta.
        running_mean: (C).
        running_var: (C).
        eps: Added to the variance.
        momentum: Weight of the batch in the running statistics.
        frozen: Use the running statistics while training too.
    """
    op = _core.BatchNorm(
        eps=_number(eps, "batch_norm: eps"), momentum=_number(momentum, "batch_norm: momentum"), frozen=bool(frozen)
    )
    return _apply(op, [x, scale, shift, running_mean, running_var])


def local_response_norm(x: Any, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Normalise across channels (Krizhevsky et al. 2012): x / (k + alpha / size * sum of squares)**beta.

    The sum runs over `size` neighbouring channels; alpha is divided by size, as in PyTorch. The paper's k is 2.
    """
    op = _core.LocalResponseNorm(
        size=_integer(size, "local_response_norm: size"),
        alpha=_number(alpha, "local_response_norm: alpha"),
        beta=_number(beta, "local_response_norm: beta"),
        k=_number(k, "local_response_norm: k"),
    )
    return _apply(op, [x])


def relu(x: Any) -> Any:
    """max(x, 0); NaN stays NaN."""
    return _apply(_core.Activation(kind="relu"), [x])


def relu6(x: Any) -> Any:
    """min(max(x, 0), 6) (Howard et al. 2017); NaN stays NaN."""
    return _apply(_core.Activation(kind="relu6"), [x])


def leaky_relu(x: Any, *, negative_slope: float = 0.01) -> Any:
    """X where positive, else negative_slope * x (slope at least 0)."""
    return _apply(_core.Activation(kind="leaky_relu", slope=_number(negative_slope, "leaky_relu: negative_slope")), [x])


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _apply(_core.Activation(kind="sigmoid"), [x])


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return _apply(_core.Activation(kind="tanh"), [x])


def scaled_tanh(x: Any) -> Any:
    """1.7159 tanh(2x / 3), the squashing function of LeCun et al. 1998."""
    return _apply(_core.Activation(kind="scaled_tanh"), [x])


def softmax(x: Any) -> Any:
    """exp(x) / sum of exp(x) over the last axis, computed after subtracting the maximum."""
    return _apply(_core.Softmax(), [x])


def log_softmax(x: Any) -> Any:
    """Logarithm of `softmax`, computed without its underflow."""
    return _apply(_core.LogSoftmax(), [x])


def add(a: Any, b: Any) -> Any:
    """A + b with NumPy broadcasting."""
    return _apply(_core.Add(), [a, b])


def subtract(a: Any, b: Any) -> Any:
    """A - b with NumPy broadcasting."""
    return _apply(_core.Subtract(), [a, b])


def multiply(a: Any, b: Any) -> Any:
    """A * b with NumPy broadcasting."""
    return _apply(_core.Multiply(), [a, b])


def affine(x: Any, *, scale: float = 1.0, offset: float = 0.0) -> Any:
    """Scale * x + offset with constant numbers."""
    return _apply(_core.Affine(scale=_number(scale, "affine: scale"), offset=_number(offset, "affine: offset")), [x])


def cast(x: Any, *, dtype: str) -> Any:
    """Turn numbers into another floating-point type, each to the nearest, ties to even.

    What is too large becomes infinite, NaN stays NaN. The gradient is cast back.

    Args:
        x: Any shape, of one of these types.
        dtype: "float32", "float64", "bfloat16" or "float16". NumPy has no bfloat16: within a net only.

    Raises:
        DTypeError: Another type, or bfloat16 for arrays.

    Example:
        >>> import numpy as np, pycnn
        >>> round_trip = lambda x: pycnn.functional.cast(pycnn.functional.cast(x, dtype="bfloat16"), dtype="float32")
        >>> pycnn.compile(round_trip, (2,))(np.array([1.001, 3.14159], np.float32)).tolist()
        [1.0, 3.140625]
    """
    name = check_dtype(dtype, allowed=("float32", "float64", "bfloat16", "float16"))
    if name == "bfloat16" and not is_tracing() and not isinstance(x, Symbol):
        raise DTypeError("cast: NumPy has no bfloat16; within a net it is there")
    return _apply(_core.Cast(dtype=name), [x])


def concat(inputs: Sequence[Any], *, axis: int = -1) -> Any:
    """Join along an axis; the other axes must agree. The default joins channels."""
    return _apply(_core.Concat(axis=_integer(axis, "concat: axis")), list(inputs))


def slice(x: Any, *, begin: Sequence[int], size: Sequence[int]) -> Any:
    """Cut the box that starts at `begin`; a size of -1 reaches to the end of its axis."""
    op = _core.Slice(begin=_integers(begin, "slice: begin"), size=_integers(size, "slice: size"))
    return _apply(op, [x])


def pad(x: Any, *, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Any:
    """Surround with a constant: axis i grows by before[i] + after[i], none negative."""
    op = _core.Pad(
        before=_integers(before, "pad: before"),
        after=_integers(after, "pad: after"),
        value=_number(value, "pad: value"),
    )
    return _apply(op, [x])


def reshape(x: Any, *, shape: Sequence[int]) -> Any:
    """Same elements in row-major order, other axes. One size may be -1 (what is left); 0 keeps the input's size."""
    return _apply(_core.Reshape(shape=_integers(shape, "reshape: shape")), [x])


def flatten(x: Any) -> Any:
    """One row per image, in PyTorch's order of elements: (N, H, W, C) -> (N, C * H * W), channels outermost.

    So a Linear layer behind it has weights that can be exchanged with other frameworks. Inputs of other ranks keep
    their order: (N, ...) -> (N, product).
    """
    if not isinstance(x, Symbol) and not is_tracing():
        x = as_array(x)
    elif not isinstance(x, Symbol):
        x = to_symbol(x)
    if len(x.shape) == 4 and x.shape[3] != 1 and (x.shape[1], x.shape[2]) != (1, 1):
        x = transpose(x, permutation=(0, 3, 1, 2))
    return reshape(x, shape=(0, math.prod(x.shape[1:])))


def transpose(x: Any, *, permutation: Sequence[int]) -> Any:
    """Reorder the axes: axis i of the result is axis permutation[i] of x."""
    return _apply(_core.Transpose(permutation=_integers(permutation, "transpose: permutation")), [x])


def broadcast(x: Any, *, shape: Sequence[int]) -> Any:
    """Repeat along axes of size 1 and new leading axes, as NumPy does, up to `shape`."""
    return _apply(_core.Broadcast(shape=_integers(shape, "broadcast: shape")), [x])


def take(x: Any, *, indices: Sequence[int]) -> Any:
    """Rows of the first axis: result[i] = x[indices[i]]; index -1 gives a row of zeros."""
    return _apply(_core.Take(indices=_integers(indices, "take: indices")), [x])


def dropout(x: Any, *, p: float = 0.5) -> Any:
    """While training, zero each element with probability p and scale the others by 1 / (1 - p) (Hinton et al. 2012).

    The mask is a function of the program's seed, its step, the layer's name and the element's position.
    """
    return _apply(_core.Dropout(p=_number(p, "dropout: p")), [x])


def normalize_image(
    x: Any, *, scale: float = 1.0, mean: float | Sequence[float] = (), std: float | Sequence[float] = ()
) -> Any:
    """(x * scale - mean) / std per channel, from uint8 or float images to float32.

    Args:
        x: (..., C), uint8 or float.
        scale: 1/255 brings uint8 to 0..1.
        mean: One value, C values, or empty for 0, in units after scaling.
        std: One value, C values, or empty for 1.
    """
    dtype = getattr(x, "dtype", "float32")
    op = _core.NormalizeImage(
        scale=_number(scale, "normalize_image: scale"),
        mean=[float(v) for v in np.atleast_1d(np.asarray(mean, np.float64))],
        std=[float(v) for v in np.atleast_1d(np.asarray(std, np.float64))],
        dtype="float64" if str(dtype) == "float64" else "float32",
    )
    return _apply(op, [x])


def cross_entropy(logits: Any, target: Any, *, label_smoothing: float = 0.0) -> Any:
    """Mean over the batch of the cross-entropy between softmax(logits) and the target.

    Args:
        logits: (N, C).
        target: Class numbers (N), int64 or int32, or probabilities (N, C).
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Shape:
        A scalar ().

    Raises:
        LabelError: A class number is out of range: at once given arrays, else when the program runs.
    """
    _check_labels(logits, target, "cross_entropy")
    return _apply(
        _core.SoftmaxCrossEntropy(label_smoothing=_number(label_smoothing, "cross_entropy: label_smoothing")),
        [logits, target],
    )


def mse_loss(x: Any, target: Any) -> Any:
    """Mean over all elements of (x - target)**2: a scalar ()."""
    return _apply(_core.MeanSquaredError(), [x, target])


def sum(x: Any, *, axes: int | Sequence[int] | None = None, keep_dims: bool = False) -> Any:
    """Sum over axes (None: all of them)."""
    return _apply(_core.Reduce(kind="sum", axes=_axes(x, axes, "sum: axes"), keep_dims=bool(keep_dims)), [x])


def mean(x: Any, *, axes: int | Sequence[int] | None = None, keep_dims: bool = False) -> Any:
    """Mean over axes (None: all of them)."""
    return _apply(_core.Reduce(kind="mean", axes=_axes(x, axes, "mean: axes"), keep_dims=bool(keep_dims)), [x])


def top_k_correct(scores: Any, labels: Any, *, k: int = 1) -> Any:
    """Count the rows whose label is among the k largest scores (ties: the lower index first): a scalar ()."""
    _check_labels(scores, labels, "top_k_correct")
    return _apply(_core.TopKCorrect(k=_integer(k, "top_k_correct: k")), [scores, labels])


def _block_parameters(block: Any) -> list[tuple[str, Parameter]]:
    result = []
    for tensor in block.parameters():
        init = tensor.initializer
        parameter = Parameter(
            tensor.shape,
            init=Initializer(init.kind, init.a, init.b),
            layout=tensor.layout,
            trainable=tensor.trainable,
        )
        result.append((tensor.name, parameter))
    return result


def _run_block(block: Any, x: Any, tensors: Sequence[Any] | Mapping[str, Any]) -> Any:
    if isinstance(tensors, Mapping):
        names = [tensor.name for tensor in block.parameters()]
        if set(names) != set(tensors):
            raise ArgumentError(f"block: tensors are {sorted(tensors)}, expected {sorted(names)}")
        values = [tensors[name] for name in names]
    else:
        values = list(tensors)
    if is_tracing() or isinstance(x, Symbol):
        return emit_block(block, x, values)
    arrays = _as_arrays((x, *values), "block")
    specs = {f"input_{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    inputs = builtins.list(specs)
    traced = trace(lambda **s: emit_block(block, s[inputs[0]], [s[name] for name in inputs[1:]]), specs)
    return compile_traced(traced)(*_plain(arrays, "block"))


def residual_parameters(**config: Any) -> list[tuple[str, Parameter]]:
    """Return fresh parameters and buffers of a residual block by name, in the order that `residual_block` takes.

    Args:
        config: kind ("basic" or "bottleneck"), in_channels, channels, stride, groups, base_width, eps, momentum,
            zero_init_residual, shortcut ("projection" or "zero_pad"), pre_activation.

    Raises:
        ArgumentError: A size is out of range.
    """
    return _block_parameters(_core.Residual(**config))


def residual_block(x: Any, tensors: Sequence[Any] | Mapping[str, Any], **config: Any) -> Any:
    """Residual block (He et al. 2015), topology and names as torchvision's.

    Args:
        x: (N, H, W, in_channels).
        tensors: Its parameters in the order of `residual_parameters(**config)`.
        config: As `residual_parameters`.

    Shape:
        (N, H / stride, W / stride, channels), four times the channels for a bottleneck.
    """
    return _run_block(_core.Residual(**config), x, tensors)


def inception_parameters(**config: Any) -> list[tuple[str, Parameter]]:
    """Return fresh parameters and buffers of an inception block by name, in the order that `inception_block` takes.

    Args:
        config: in_channels, branch1, reduce3, branch3, reduce5, branch5, pool, branch5_kernel, batch_norm.

    Raises:
        ArgumentError: A size is out of range.
    """
    return _block_parameters(_core.Inception(**config))


def inception_block(x: Any, tensors: Sequence[Any] | Mapping[str, Any], **config: Any) -> Any:
    """Inception block (Szegedy et al. 2014): four branches joined over channels, names as torchvision's.

    Args:
        x: (N, H, W, in_channels).
        tensors: Its parameters in the order of `inception_parameters(**config)`.
        config: As `inception_parameters`.

    Shape:
        (N, H, W, branch1 + branch3 + branch5 + pool)
    """
    return _run_block(_core.Inception(**config), x, tensors)
