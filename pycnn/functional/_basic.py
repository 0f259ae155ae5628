"""Convolution, dense layers, pooling, batch norm, common activations, losses, reductions, moving data, blocks."""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.errors import ArgumentError, DTypeError
from pycnn.functional._run import (
    apply,
    as_arrays,
    as_axes,
    as_integer,
    as_integers,
    as_number,
    as_padding,
    as_pair,
    check_labels,
    plain_arrays,
    shape_of,
)
from pycnn.program import compile_traced
from pycnn.tensor import Initializer, Parameter, as_array
from pycnn.tracing import Symbol, check_dtype, emit_block, is_tracing, to_symbol, trace


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
        stride=as_pair(stride, "conv2d: stride"),
        padding=as_padding(padding, "conv2d: padding"),
        dilation=as_pair(dilation, "conv2d: dilation"),
        groups=as_integer(groups, "conv2d: groups"),
    )
    return apply(op, [x, weight] if bias is None else [x, weight, bias])


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Fully connected layer: x @ weight.T + bias.

    Shape:
        x (..., IN), weight (OUT, IN), bias (OUT) -> (..., OUT)
    """
    return apply(_core.Dense(), [x, weight] if bias is None else [x, weight, bias])


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
    window = as_pair(kernel_size, "max_pool2d: kernel_size")
    op = _core.MaxPool2d(
        kernel_size=window,
        stride=window if stride is None else as_pair(stride, "max_pool2d: stride"),
        padding=as_padding(padding, "max_pool2d: padding"),
        dilation=as_pair(dilation, "max_pool2d: dilation"),
        ceil_mode=bool(ceil_mode),
    )
    return apply(op, [x])


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
    window = as_pair(kernel_size, "avg_pool2d: kernel_size")
    op = _core.AvgPool2d(
        kernel_size=window,
        stride=window if stride is None else as_pair(stride, "avg_pool2d: stride"),
        padding=as_padding(padding, "avg_pool2d: padding"),
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
    )
    return apply(op, [x])


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
    size = as_pair(output_size, "adaptive_avg_pool2d: output_size")
    if size == (1, 1):
        channels = x.shape[-1] if hasattr(x, "shape") else as_array(x).shape[-1]
        return reshape(global_avg_pool2d(x), shape=(0, 1, 1, channels))
    return apply(_core.AdaptiveAvgPool2d(output_size=size), [x])


def global_avg_pool2d(x: Any) -> Any:
    """Mean over height and width: (N, H, W, C) -> (N, C)."""
    return apply(_core.GlobalAvgPool2d(), [x])


def global_max_pool2d(x: Any) -> Any:
    """Maximum over height and width: (N, H, W, C) -> (N, C)."""
    return apply(_core.GlobalMaxPool2d(), [x])


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
        eps=as_number(eps, "batch_norm: eps"), momentum=as_number(momentum, "batch_norm: momentum"), frozen=bool(frozen)
    )
    return apply(op, [x, scale, shift, running_mean, running_var])


def local_response_norm(x: Any, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Normalise across channels (Krizhevsky et al. 2012): x / (k + alpha / size * sum of squares)**beta.

    The sum runs over `size` neighbouring channels; alpha is divided by size, as in PyTorch. The paper's k is 2.
    """
    op = _core.LocalResponseNorm(
        size=as_integer(size, "local_response_norm: size"),
        alpha=as_number(alpha, "local_response_norm: alpha"),
        beta=as_number(beta, "local_response_norm: beta"),
        k=as_number(k, "local_response_norm: k"),
    )
    return apply(op, [x])


def relu(x: Any) -> Any:
    """max(x, 0); NaN stays NaN."""
    return apply(_core.Activation(kind="relu"), [x])


def relu6(x: Any) -> Any:
    """min(max(x, 0), 6) (Howard et al. 2017); NaN stays NaN."""
    return apply(_core.Activation(kind="relu6"), [x])


def leaky_relu(x: Any, *, negative_slope: float = 0.01) -> Any:
    """X where positive, else negative_slope * x (slope at least 0)."""
    return apply(
        _core.Activation(kind="leaky_relu", slope=as_number(negative_slope, "leaky_relu: negative_slope")), [x]
    )


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return apply(_core.Activation(kind="sigmoid"), [x])


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return apply(_core.Activation(kind="tanh"), [x])


def scaled_tanh(x: Any) -> Any:
    """1.7159 tanh(2x / 3), the squashing function of LeCun et al. 1998."""
    return apply(_core.Activation(kind="scaled_tanh"), [x])


def softmax(x: Any) -> Any:
    """exp(x) / sum of exp(x) over the last axis, computed after subtracting the maximum."""
    return apply(_core.Softmax(), [x])


def log_softmax(x: Any) -> Any:
    """Logarithm of `softmax`, computed without its underflow."""
    return apply(_core.LogSoftmax(), [x])


def add(a: Any, b: Any) -> Any:
    """A + b with NumPy broadcasting."""
    return apply(_core.Add(), [a, b])


def subtract(a: Any, b: Any) -> Any:
    """A - b with NumPy broadcasting."""
    return apply(_core.Subtract(), [a, b])


def multiply(a: Any, b: Any) -> Any:
    """A * b with NumPy broadcasting."""
    return apply(_core.Multiply(), [a, b])


def affine(x: Any, *, scale: float = 1.0, offset: float = 0.0) -> Any:
    """Scale * x + offset with constant numbers."""
    return apply(_core.Affine(scale=as_number(scale, "affine: scale"), offset=as_number(offset, "affine: offset")), [x])


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
    return apply(_core.Cast(dtype=name), [x])


def concat(inputs: Sequence[Any], *, axis: int = -1) -> Any:
    """Join along an axis; the other axes must agree. The default joins channels."""
    return apply(_core.Concat(axis=as_integer(axis, "concat: axis")), list(inputs))


def slice(x: Any, *, begin: Sequence[int], size: Sequence[int]) -> Any:
    """Cut the box that starts at `begin`; a size of -1 reaches to the end of its axis."""
    op = _core.Slice(begin=as_integers(begin, "slice: begin"), size=as_integers(size, "slice: size"))
    return apply(op, [x])


def pad(x: Any, *, before: Sequence[int], after: Sequence[int], value: float = 0.0, mode: str = "constant") -> Any:
    """Surround a tensor: axis i grows by before[i] + after[i], none negative.

    Args:
        x: Any shape.
        before: Elements to add at the beginning of each axis.
        after: Elements to add at the end of each axis.
        value: What to fill with, in mode "constant".
        mode: "constant"; "edge", which repeats the outermost element; or "reflect", which mirrors what is inside
            without repeating the outermost one, so that fewer are added than the axis has.

    Raises:
        ArgumentError: A number is negative, or the mode is unknown or not possible for the shape.

    Example:
        >>> import numpy as np
        >>> pad(np.array([1, 2, 3], np.float32), before=(2,), after=(1,), mode="reflect").tolist()
        [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    first, last = as_integers(before, "pad: before"), as_integers(after, "pad: after")
    if mode == "constant":
        return apply(_core.Pad(before=first, after=last, value=as_number(value, "pad: value")), [x])
    if mode not in ("edge", "reflect"):
        raise ArgumentError(f"pad: mode {mode!r} is unknown, expected constant, edge or reflect")
    shape = shape_of(x)
    if len(first) != len(shape) or len(last) != len(shape) or any(n < 0 for n in first + last):
        raise ArgumentError(
            f"pad: before {first} and after {last} must have {len(shape)} numbers that are not negative"
        )
    for axis, sizes in enumerate(zip(first, last, strict=True)):
        if any(sizes):
            x = _pad_axis(x, axis, *sizes, mode)
    return x


def _pad_axis(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    shape = shape_of(x)
    size = shape[axis]
    if size == 0 or (mode == "reflect" and builtins.max(before, after) >= size):
        raise ArgumentError(f"pad: {before} and {after} elements cannot be had from axis {axis} of {size} by {mode}")

    def row(at: int, count: int = 1) -> Any:
        begin = [at if i == axis else 0 for i in range(len(shape))]
        one = slice(x, begin=begin, size=[1 if i == axis else n for i, n in enumerate(shape)])
        return one if count == 1 else broadcast(one, shape=[count if i == axis else n for i, n in enumerate(shape)])

    if mode == "edge":
        parts = [row(0, before)] * (before > 0) + [x] + [row(size - 1, after)] * (after > 0)
    else:
        parts = [row(i) for i in range(before, 0, -1)] + [x] + [row(size - 1 - i) for i in range(1, after + 1)]
    return concat(parts, axis=axis)


def reshape(x: Any, *, shape: Sequence[int]) -> Any:
    """Same elements in row-major order, other axes. One size may be -1 (what is left); 0 keeps the input's size."""
    return apply(_core.Reshape(shape=as_integers(shape, "reshape: shape")), [x])


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
    return apply(_core.Transpose(permutation=as_integers(permutation, "transpose: permutation")), [x])


def broadcast(x: Any, *, shape: Sequence[int]) -> Any:
    """Repeat along axes of size 1 and new leading axes, as NumPy does, up to `shape`."""
    return apply(_core.Broadcast(shape=as_integers(shape, "broadcast: shape")), [x])


def take(x: Any, *, indices: Sequence[int]) -> Any:
    """Rows of the first axis: result[i] = x[indices[i]]; index -1 gives a row of zeros."""
    return apply(_core.Take(indices=as_integers(indices, "take: indices")), [x])


def take_windows(
    images: Any, places: Any, *, size: int | Sequence[int], fill: float = 0.0, box_fill: float | Sequence[float] = ()
) -> Any:
    """A window of an image for each row of `places`, mirrored where wanted, with a box in it that hides what is there.

    A row of `places` is (image, top, left, mirrored, y0, y1, x0, x1): the number of the image, the first row and column
    of the window in it, whether the window is mirrored then, and the box, rows y0..y1 - 1 and columns x0..x1 - 1 of the
    window; an empty one hides nothing. So batches are gathered from a data set and augmented in one pass. No gradient
    exists.

    Args:
        images: (M, H, W, C), uint8 or float.
        places: int64 (N, 8). A number that no image has gives `fill` alone.
        size: Side, or (height, width), of the windows.
        fill: Of what lies outside of the image; a number that the images' type holds.
        box_fill: Of the boxes: one value, C values, or empty for 0; likewise.

    Shape:
        (N, height, width, C) of the images' type.

    Raises:
        ShapeError: `images` or `places` has another shape.
        DTypeError: Of another type.
        ArgumentError: A size below 1, or a fill that the type does not hold.

    Example:
        >>> import numpy as np
        >>> image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
        >>> take_windows(image, np.array([[0, -1, 0, 1, 0, 0, 0, 0]]), size=2, fill=9)[0, :, :, 0].tolist()
        [[9, 9], [1, 0]]
    """
    op = _core.TakeWindows(
        size=as_pair(size, "take_windows: size"),
        fill=as_number(fill, "take_windows: fill"),
        box_fill=[as_number(v, "take_windows: box_fill") for v in (box_fill if np.iterable(box_fill) else (box_fill,))],
    )
    return apply(op, [images, places])


def dropout(x: Any, *, p: float = 0.5) -> Any:
    """While training, zero each element with probability p and scale the others by 1 / (1 - p) (Hinton et al. 2012).

    The mask is a function of the program's seed, its step, the layer's name and the element's position.
    """
    return apply(_core.Dropout(p=as_number(p, "dropout: p")), [x])


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
        scale=as_number(scale, "normalize_image: scale"),
        mean=[float(v) for v in np.atleast_1d(np.asarray(mean, np.float64))],
        std=[float(v) for v in np.atleast_1d(np.asarray(std, np.float64))],
        dtype="float64" if str(dtype) == "float64" else "float32",
    )
    return apply(op, [x])


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
    check_labels(logits, target, "cross_entropy")
    return apply(
        _core.SoftmaxCrossEntropy(label_smoothing=as_number(label_smoothing, "cross_entropy: label_smoothing")),
        [logits, target],
    )


def mse_loss(x: Any, target: Any) -> Any:
    """Mean over all elements of (x - target)**2: a scalar ()."""
    return apply(_core.MeanSquaredError(), [x, target])


def sum(x: Any, *, axes: int | Sequence[int] | None = None, keep_dims: bool = False) -> Any:
    """Sum over axes (None: all of them)."""
    return apply(_core.Reduce(kind="sum", axes=as_axes(x, axes, "sum: axes"), keep_dims=bool(keep_dims)), [x])


def mean(x: Any, *, axes: int | Sequence[int] | None = None, keep_dims: bool = False) -> Any:
    """Mean over axes (None: all of them)."""
    return apply(_core.Reduce(kind="mean", axes=as_axes(x, axes, "mean: axes"), keep_dims=bool(keep_dims)), [x])


def max(x: Any, *, axes: int | Sequence[int] | None = None, keep_dims: bool = False) -> Any:
    """Maximum over axes (None: all of them); NaN wins. Equal largest elements share the gradient evenly."""
    return apply(_core.Reduce(kind="max", axes=as_axes(x, axes, "max: axes"), keep_dims=bool(keep_dims)), [x])


def arg_max(x: Any, *, axis: int = -1, keep_dims: bool = False, last: bool = False) -> Any:
    """Where along an axis the largest element is, int64: the first of equal ones, or the last; NaN counts as largest.

    Args:
        x: Any shape, floating.
        axis: Which axis; negative counts from the end.
        keep_dims: Keep the axis, with size 1.
        last: Take the last of equal elements.

    Raises:
        ShapeError: There is no such axis, or it is empty.

    Example:
        >>> import numpy as np
        >>> arg_max(np.array([[1, 5, 5], [7, 0, 2]], np.float32)).tolist()
        [1, 0]
    """
    op = _core.ArgMax(axis=as_integer(axis, "arg_max: axis"), keep_dims=bool(keep_dims), last=bool(last))
    return apply(op, [x])


def top_k_correct(scores: Any, labels: Any, *, k: int = 1) -> Any:
    """Count the rows whose label is among the k largest scores (ties: the lower index first): a scalar ()."""
    check_labels(scores, labels, "top_k_correct")
    return apply(_core.TopKCorrect(k=as_integer(k, "top_k_correct: k")), [scores, labels])


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
    arrays = as_arrays((x, *values), "block")
    specs = {f"input_{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    inputs = builtins.list(specs)
    traced = trace(lambda **s: emit_block(block, s[inputs[0]], [s[name] for name in inputs[1:]]), specs)
    return compile_traced(traced)(*plain_arrays(arrays, "block"))


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
