"""The table of ATen operators: which nodes each one becomes.

Most are operators of ONNX too, and become nodes of those. `OWN` holds what ONNX has not, or has with other limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import as_images, from_images
from pycnn.onnx._operators.normalization import channels_last
from pycnn.onnx._registry import BUFFER, PLAIN, Operator, Values
from pycnn.onnx._view import IMAGE, View
from pycnn.pytorch._batch import BATCH
from pycnn.pytorch._graph import Reader

__all__ = ["OWN", "TRANSLATIONS"]

Translation = Callable[[Reader, Any], Any]
#: By name and overload, "conv2d.default"; those that change their first argument in place are translated as the others.
TRANSLATIONS: dict[str, Translation] = {}
#: Operators that nodes may have beside ONNX's.
OWN: dict[str, Operator] = {}


def _translates(*names: str) -> Callable[[Translation], Translation]:
    def register(function: Translation) -> Translation:
        for name in names:
            TRANSLATIONS[name if "." in name else f"{name}.default"] = function
        return function

    return register


def _own(name: str, roles: dict[int, str] | None = None) -> Callable[..., Any]:
    def register(convert: Callable[[Values, Node], Any]) -> Any:
        OWN[name] = Operator(name, (), convert, lambda _: roles or {})
        return convert

    return register


def _map(values: Values, node: Node, function: Callable[[Any], Any]) -> View:
    view = values.view(node, 0)
    return View(function(view.symbol), view.axes, view.shape)


# ---- Convolution and products


def _spread(values: Sequence[int], axes: int) -> list[int]:
    return [int(v) for v in values] * (axes if len(values) == 1 else 1)


def _conv(r: Reader, a: Any, axes: int, padding: Sequence[int]) -> str:
    return r.emit(
        "Conv",
        [a.input, a.weight, a.bias],
        strides=_spread(a.stride, axes),
        pads=list(padding),
        dilations=_spread(a.dilation, axes),
        group=a.groups,
    )


@_translates("conv1d", "conv2d")
def _convolution(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.input]) - 2
    if axes != len(r.shapes[a.weight]) - 2:
        raise r.unsupported(f"an input of shape {r.shapes[a.input]}; a batch axis is needed")
    return _conv(r, a, axes, _spread(a.padding, axes) * 2)


@_translates("conv1d.padding", "conv2d.padding")
def _convolution_same(r: Reader, a: Any) -> str:
    kernel = r.shapes[a.weight][2:]
    if a.padding == "valid":
        return _conv(r, a, len(kernel), [0] * 2 * len(kernel))
    reach = [d * (k - 1) for k, d in zip(kernel, _spread(a.dilation, len(kernel)), strict=True)]
    return _conv(r, a, len(kernel), [n // 2 for n in reach] + [n - n // 2 for n in reach])


@_translates("conv_transpose1d", "conv_transpose2d.input")
def _conv_transpose(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.weight]) - 2
    return r.emit(
        "ConvTranspose",
        [a.input, a.weight, a.bias],
        strides=_spread(a.stride, axes),
        pads=_spread(a.padding, axes) * 2,
        output_padding=_spread(a.output_padding, axes),
        dilations=_spread(a.dilation, axes),
        group=a.groups,
    )


@_translates("linear")
def _linear(r: Reader, a: Any) -> str:
    return r.emit("aten.linear", [a.input, a.weight, a.bias])


@_own("aten.linear", {1: PLAIN, 2: PLAIN})
def _own_linear(values: Values, node: Node) -> View:
    x, weight = values.view(node, 0).as_plain(), values.view(node, 1).as_plain()
    bias = values.optional_view(node, 2)
    return View.plain(functional.linear(x, weight, None if bias is None else bias.as_plain()))


@_translates("matmul", "mm")
def _matmul(r: Reader, a: Any) -> str:
    first, second = list(vars(a).values())[:2]
    return r.emit("MatMul", [first, second])


@_translates("addmm")
def _addmm(r: Reader, a: Any) -> str:
    return r.emit("Gemm", [a.mat1, a.mat2, a.self], alpha=float(a.alpha), beta=float(a.beta))


# ---- Pooling


def _window(r: Reader, a: Any, axes: int, **more: Any) -> dict[str, Any]:
    kernel = _spread(a.kernel_size, axes)
    return {
        "kernel_shape": kernel,
        "strides": _spread(a.stride, axes) if a.stride else kernel,
        "pads": _spread(a.padding, axes) * 2,
        "ceil_mode": int(a.ceil_mode),
        **more,
    }


@_translates("max_pool1d", "max_pool2d")
def _max_pool(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.self]) - 2
    return r.emit("MaxPool", [a.self], **_window(r, a, axes, dilations=_spread(a.dilation, axes)))


@_translates("avg_pool1d", "avg_pool2d")
def _avg_pool(r: Reader, a: Any) -> str:
    axes = len(r.shapes[a.self]) - 2
    window = _window(r, a, axes, count_include_pad=int(a.count_include_pad))
    divisor = getattr(a, "divisor_override", None)
    if divisor is None:
        return r.emit("AveragePool", [a.self], **window)
    if a.ceil_mode:
        raise r.unsupported("divisor_override with ceil_mode is not supported")
    mean = r.emit("AveragePool", [a.self], **{**window, "count_include_pad": 1})
    return _affine(r, mean, scale=math.prod(window["kernel_shape"]) / divisor)


@_translates("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(r: Reader, a: Any) -> str:
    size = [int(n) for n in a.output_size]
    if set(size) == {1}:
        return r.emit("GlobalAveragePool", [a.self])
    return r.emit("aten.adaptive_avg_pool2d", [a.self], output_size=[1, *size][-2:])


@_own("aten.adaptive_avg_pool2d")
def _own_adaptive_avg_pool(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    x = as_images(node, view).in_order(IMAGE)
    result = functional.adaptive_avg_pool2d(x, output_size=node.integers("output_size", ()))
    return from_images(result, view.rank)


@_translates("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(r: Reader, a: Any) -> list[str | None]:
    size, given = [int(n) for n in a.output_size], r.shapes[a.self][2:]
    shape = r.result_shapes()[0]
    if set(size) == {1}:
        return [r.emit("GlobalMaxPool", [a.self], shape), None]
    if any(n % m for n, m in zip(given, size, strict=True)):
        raise r.unsupported(f"an output of {tuple(size)} of an image {tuple(given)}: sizes must be divisible")
    kernel = [n // m for n, m in zip(given, size, strict=True)]
    return [r.emit("MaxPool", [a.self], shape, kernel_shape=kernel, strides=kernel), None]


# ---- Normalization, dropout


@_translates("batch_norm")
def _batch_norm(r: Reader, a: Any) -> str:
    if a.training or a.running_mean is None:
        raise r.unsupported(
            "statistics of the batch while predicting (track_running_stats=False) are not supported\n"
            "  hint: use running statistics, or group or layer norm"
        )
    channels = r.shapes[a.input][1]
    weight = r.array(np.ones(channels, np.float32)) if a.weight is None else a.weight
    bias = r.array(np.zeros(channels, np.float32)) if a.bias is None else a.bias
    return r.emit(
        "aten.batch_norm",
        [a.input, weight, bias, a.running_mean, a.running_var],
        eps=float(a.eps),
        momentum=float(a.momentum),
    )


@_own("aten.batch_norm", {1: PLAIN, 2: PLAIN, 3: BUFFER, 4: BUFFER})
def _own_batch_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    order = channels_last(view)
    parts = [values.view(node, i).as_plain() for i in range(1, 5)]
    result = functional.batch_norm(
        view.in_order(order), *parts, eps=node.attributes["eps"], momentum=node.attributes["momentum"]
    )
    return View(result, order, view.shape)


@_translates("group_norm")
def _group_norm(r: Reader, a: Any) -> str:
    return r.emit("aten.group_norm", [a.input, a.weight, a.bias], groups=int(a.num_groups), eps=float(a.eps))


@_translates("instance_norm")
def _instance_norm(r: Reader, a: Any) -> str:
    if not a.use_input_stats:
        raise r.unsupported("running statistics (track_running_stats=True) are not supported")
    return r.emit("aten.group_norm", [a.input, a.weight, a.bias], groups=0, eps=float(a.eps))


@_own("aten.group_norm", {1: PLAIN, 2: PLAIN})
def _own_group_norm(values: Values, node: Node) -> View:
    """Of groups, or of each channel where their number is 0."""
    view = values.view(node, 0)
    order, eps, groups = channels_last(view), node.attributes["eps"], node.attributes["groups"]
    parts = [values.optional_view(node, i) for i in (1, 2)]
    weight, bias = (None if part is None else part.as_plain() for part in parts)
    x = view.in_order(order)
    if groups:
        result = functional.group_norm(x, groups, weight, bias, eps=eps)
    else:
        result = functional.instance_norm(x, weight, bias, eps=eps)
    return View(result, order, view.shape)


@_translates("layer_norm")
def _layer_norm(r: Reader, a: Any) -> str:
    return r.emit("aten.layer_norm", [a.input, a.weight, a.bias], axes=len(a.normalized_shape), eps=float(a.eps))


@_own("aten.layer_norm", {1: PLAIN, 2: PLAIN})
def _own_layer_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    parts = [values.optional_view(node, i) for i in (1, 2)]
    weight, bias = (None if part is None else part.as_plain() for part in parts)
    axes = tuple(range(view.rank - node.attributes["axes"], view.rank))
    return View.plain(functional.layer_norm(view.as_plain(), weight, bias, axes=axes, eps=node.attributes["eps"]))


@_translates("local_response_norm")
def _local_response_norm(r: Reader, a: Any) -> str:
    return r.emit(
        "aten.local_response_norm", [a.self], size=a.size, alpha=float(a.alpha), beta=float(a.beta), k=float(a.k)
    )


@_own("aten.local_response_norm")
def _own_local_response_norm(values: Values, node: Node) -> View:
    view = values.view(node, 0)
    order = channels_last(view)
    result = functional.local_response_norm(view.in_order(order), **node.attributes)
    return View(result, order, view.shape)


@_translates("dropout")
def _dropout(r: Reader, a: Any) -> str:
    if a.train and a.p:
        raise r.unsupported(
            "it drops numbers while predicting too\n  hint: functional.dropout needs training=self.training"
        )
    return r.emit("aten.dropout", [a.input], p=float(a.p))


@_own("aten.dropout")
def _own_dropout(values: Values, node: Node) -> View:
    return _map(values, node, lambda x: functional.dropout(x, p=node.attributes["p"]))


# ---- Functions of single numbers


def _simple(name: str, op: str) -> None:
    TRANSLATIONS[f"{name}.default"] = lambda r, a: r.emit(op, [a.self])


for _name, _op in {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "selu": "Selu",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "softsign": "Softsign",
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "erf": "Erf",
    "reciprocal": "Reciprocal",
    "neg": "Neg",
}.items():
    _simple(_name, _op)

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "silu": functional.silu,
    "rsqrt": functional.rsqrt,
    "hardsigmoid": functional.hardsigmoid,
    "softplus": functional.softplus,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "threshold": functional.threshold,
    "clip": functional.clip,
    "relu6": functional.relu6,
}


def _function(r: Reader, a: Any, name: str, **attributes: Any) -> str:
    return r.emit(f"aten.{name}", [a.self], **attributes)


def _enter(name: str, function: Callable[..., Any]) -> None:
    _own(f"aten.{name}")(lambda values, node: _map(values, node, lambda x: function(x, **node.attributes)))


for _name, _of in _FUNCTIONS.items():
    _enter(_name, _of)


@_translates("silu", "rsqrt", "hardsigmoid", "relu6")
def _without_attributes(r: Reader, a: Any) -> str:
    return _function(r, a, r.operator_name().partition(".")[0].removesuffix("_"))


@_translates("leaky_relu")
def _leaky_relu(r: Reader, a: Any) -> str:
    if a.negative_slope < 0:
        return r.emit("LeakyRelu", [a.self], alpha=float(a.negative_slope))
    return _function(r, a, "leaky_relu", negative_slope=float(a.negative_slope))


@_translates("elu")
def _elu(r: Reader, a: Any) -> str:
    if a.scale != 1 or a.input_scale != 1:
        raise r.unsupported(f"scale {a.scale} and input_scale {a.input_scale} are not supported")
    return _function(r, a, "elu", alpha=float(a.alpha))


@_translates("celu")
def _celu(r: Reader, a: Any) -> str:
    return _function(r, a, "celu", alpha=float(a.alpha))


@_translates("gelu")
def _gelu(r: Reader, a: Any) -> str:
    return _function(r, a, "gelu", approximate=a.approximate)


@_translates("softplus")
def _softplus(r: Reader, a: Any) -> str:
    # Beyond its threshold of 20 PyTorch gives x itself, from which the function differs by 2e-9 at most.
    if a.threshold < 20:
        raise r.unsupported(f"threshold {a.threshold} is not supported; it must be at least 20")
    return _function(r, a, "softplus", beta=float(a.beta))


@_translates("threshold")
def _threshold(r: Reader, a: Any) -> str:
    return _function(r, a, "threshold", threshold=float(a.threshold), value=float(a.value))


def _clip(r: Reader, a: Any, low: Any, high: Any) -> str:
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if (low, high) == (0.0, 6.0):
        return _function(r, a, "relu6")
    if (low, high) == (0.0, math.inf):
        return r.emit("Relu", [a.self])
    return _function(r, a, "clip", min=low, max=high)


@_translates("hardtanh")
def _hardtanh(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min_val, a.max_val)


@_translates("clamp", "clip")
def _clamp(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min, a.max)


@_translates("clamp_min")
def _clamp_min(r: Reader, a: Any) -> str:
    return _clip(r, a, a.min, None)


@_translates("clamp_max")
def _clamp_max(r: Reader, a: Any) -> str:
    return _clip(r, a, None, a.max)


@_translates("prelu")
def _prelu(r: Reader, a: Any) -> str:
    # Until opset 6 a vector of slopes had one for each channel, as here.
    return r.emit("PRelu", [a.self, a.weight], version=6)


@_translates("softmax.int", "log_softmax.int")
def _softmax(r: Reader, a: Any) -> str:
    return r.emit("LogSoftmax" if r.operator_name().startswith("log") else "Softmax", [a.self], axis=int(a.dim))


# ---- Arithmetic


def _affine(
    r: Reader, name: str, *, scale: float = 1.0, offset: float = 0.0, shape: Sequence[int] | None = None
) -> str:
    if (scale, offset) == (1.0, 0.0):
        return name
    return r.emit("aten.affine", [name], shape, scale=float(scale), offset=float(offset))


_enter("affine", functional.affine)


def _sum(r: Reader, a: Any, b: Any, scale_a: float, scale_b: float) -> str:
    """Two tensors, or a tensor and a number, each times a factor."""
    if not isinstance(b, str):
        return _affine(r, a, scale=scale_a, offset=b * scale_b)
    if not isinstance(a, str):
        return _affine(r, b, scale=scale_b, offset=a * scale_a)
    if scale_a == 1 and scale_b == -1:
        return r.emit("Sub", [a, b])
    return r.emit("Add", [_affine(r, t, scale=s, shape=r.shapes[t]) for t, s in ((a, scale_a), (b, scale_b))])


@_translates("add.Tensor", "add.Scalar")
def _add(r: Reader, a: Any) -> str:
    return _sum(r, a.self, a.other, 1, a.alpha)


@_translates("sub.Tensor", "sub.Scalar")
def _sub(r: Reader, a: Any) -> str:
    return _sum(r, a.self, a.other, 1, -a.alpha)


@_translates("rsub.Tensor", "rsub.Scalar")
def _rsub(r: Reader, a: Any) -> str:
    return _sum(r, a.self, a.other, -a.alpha, 1)


@_translates("mul.Tensor", "mul.Scalar")
def _mul(r: Reader, a: Any) -> str:
    if not isinstance(a.other, str):
        return _affine(r, a.self, scale=a.other)
    return r.emit("Mul", [a.self, a.other])


@_translates("div.Tensor", "div.Scalar")
def _div(r: Reader, a: Any) -> str:
    if isinstance(a.other, str):
        return r.emit("Div", [a.self, a.other])
    if not 1e-37 < abs(a.other) < 1e37:
        raise r.unsupported(f"division by {a.other} is not supported")
    return _affine(r, a.self, scale=1.0 / a.other)


@_translates("pow.Tensor_Scalar")
def _pow(r: Reader, a: Any) -> str:
    return r.emit("Pow", [a.self, r.number(a.exponent)])


@_translates("square")
def _square(r: Reader, a: Any) -> str:
    return r.emit("Mul", [a.self, a.self])


@_translates("maximum", "minimum")
def _maximum(r: Reader, a: Any) -> str:
    return r.emit("Max" if r.operator_name().startswith("max") else "Min", [a.self, a.other])


# ---- Reductions


def _reduce(r: Reader, op: str, a: Any, dims: Any) -> str:
    rank = len(r.shapes[a.self])
    axes = [d % rank for d in (dims if isinstance(dims, list) else [dims])] if dims is not None and dims != [] else []
    axes = axes or list(range(rank))
    return r.emit(op, [a.self], version=11, axes=axes, keepdims=int(getattr(a, "keepdim", False)))


@_translates("mean.dim", "mean")
def _mean(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceMean", a, getattr(a, "dim", None))


@_translates("sum.dim_IntList", "sum")
def _total(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceSum", a, getattr(a, "dim", None))


@_translates("amax", "amin")
def _amax(r: Reader, a: Any) -> str:
    return _reduce(r, "ReduceMax" if r.operator_name().startswith("amax") else "ReduceMin", a, a.dim)


@_translates("max.dim", "min.dim")
def _max_along(r: Reader, a: Any) -> list[str | None]:
    op = "ReduceMax" if r.operator_name().startswith("max") else "ReduceMin"
    axes = [a.dim % len(r.shapes[a.self])]
    return [r.emit(op, [a.self], version=11, axes=axes, keepdims=int(a.keepdim)), None]


# ---- Shapes and parts


@_translates(
    "contiguous", "clone", "detach", "alias", "lift_fresh_copy", "to.dtype", "to.dtype_layout", "to.device", "type_as"
)
def _identity(r: Reader, a: Any) -> str:
    value, given = r.node.meta["val"], r.node.args[0].meta["val"]
    if value.dtype != given.dtype and not (value.is_floating_point() and given.is_floating_point()):
        raise r.unsupported(f"from {given.dtype} to {value.dtype} is not supported")
    return str(a.self)


def _shaped(r: Reader, name: str, shape: Sequence[int]) -> str:
    wanted = r.array(np.asarray(shape, np.int64))
    return r.emit("Reshape", [name, wanted], shape)


@_translates("view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int", "view_as", "reshape_as")
def _reshape(r: Reader, a: Any) -> str:
    name = next(value for value in vars(a).values() if isinstance(value, str))
    given, shape = r.shapes[name], r.result_shapes()[0]
    if given and given[0] == BATCH and (not shape or shape[0] != BATCH):
        raise r.unsupported(
            f"from {('N', *given[1:])} to {shape}: the axis of images must stay the first of its own\n"
            "  hint: flatten(1), or view(x.shape[0], ...)"
        )
    return _shaped(r, name, shape)


@_translates("permute")
def _permute(r: Reader, a: Any) -> str:
    rank = len(r.shapes[a.self])
    return r.emit("Transpose", [a.self], perm=[d % rank for d in a.dims])


@_translates("transpose.int", "t")
def _transpose(r: Reader, a: Any) -> str:
    rank = len(r.shapes[a.self])
    order = list(range(rank))
    first, second = (d % rank for d in (getattr(a, "dim0", 0), getattr(a, "dim1", 1)))
    order[first], order[second] = order[second], order[first]
    return r.emit("Transpose", [a.self], perm=order)


@_translates("unsqueeze")
def _unsqueeze(r: Reader, a: Any) -> str:
    return r.emit("Unsqueeze", [a.self], version=11, axes=[a.dim])


@_translates("squeeze", "squeeze.dim", "squeeze.dims")
def _squeeze(r: Reader, a: Any) -> str:
    shape = r.shapes[a.self]
    dims = getattr(a, "dim", range(len(shape)))
    axes = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)]
    axes = [axis for axis in axes if shape[axis] == 1]
    return r.emit("Squeeze", [a.self], version=11, axes=axes) if axes else str(a.self)


@_translates("expand", "expand_as")
def _expand(r: Reader, a: Any) -> str:
    given, shape = r.shapes[a.self], list(r.result_shapes()[0])
    if shape and shape[0] == BATCH:
        if len(given) == len(shape) and given[0] != BATCH:
            raise r.unsupported(f"from {given} to ('N', {shape[1:]}): only what has an axis of images can get one")
        shape[0] = 1
    return r.emit("Expand", [a.self, r.array(np.asarray(shape, np.int64))])


@_translates("cat", "concat")
def _cat(r: Reader, a: Any) -> str:
    names = [name for name in a.tensors if r.shapes[name] != (0,)]
    return r.emit("Concat", names, axis=int(a.dim))


@_translates("stack")
def _stack(r: Reader, a: Any) -> str:
    shape = list(r.result_shapes()[0])
    axis = a.dim % len(shape)
    shape[axis] = 1
    parts = [r.emit("Unsqueeze", [name], shape, version=11, axes=[axis]) for name in a.tensors]
    return r.emit("Concat", parts, axis=axis)


@_translates("chunk", "split.Tensor", "split_with_sizes", "split.sizes", "tensor_split.sections")
def _split(r: Reader, a: Any) -> list[str]:
    shapes = r.result_shapes()
    axis = a.dim % len(shapes[0])
    if axis == 0:
        raise r.unsupported("the axis of images cannot be cut")
    return r.emit_all("Split", [a.self], shapes, 11, {"axis": axis, "split": [shape[axis] for shape in shapes]})


@_translates("unbind.int")
def _unbind(r: Reader, a: Any) -> list[str]:
    return [_select(r, a.self, a.dim, i, shape) for i, shape in enumerate(r.result_shapes())]


def _select(r: Reader, name: str, dim: int, index: int, shape: Sequence[int]) -> str:
    rank = len(r.shapes[name])
    if dim % rank == 0:
        raise r.unsupported("single images cannot be picked")
    return r.emit("Gather", [name, r.array(np.asarray(index, np.int64))], shape, axis=dim % rank)


@_translates("select.int")
def _select_int(r: Reader, a: Any) -> str:
    return _select(r, a.self, a.dim, a.index, r.result_shapes()[0])


@_translates("slice.Tensor", "narrow")
def _slice(r: Reader, a: Any) -> str:
    size = r.shapes[a.self][a.dim]
    if hasattr(a, "length"):
        begin, end, step = a.start % size, a.start % size + a.length, 1
    else:
        begin, end, step = slice(a.start, a.end, a.step).indices(size)
    if (begin, end, step) == (0, size, 1):
        return str(a.self)
    axis = a.dim % len(r.shapes[a.self])
    if axis == 0:
        raise r.unsupported("the axis of images cannot be cut")
    lists = [r.array(np.asarray([number], np.int64)) for number in (begin, end, axis, step)]
    return r.emit("Slice", [a.self, *lists])


def _padded(r: Reader, name: str, pad: Sequence[int], mode: str, value: float = 0.0) -> str:
    rank = len(r.shapes[name])
    before, after = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = int(pad[2 * i]), int(pad[2 * i + 1])
    if before[0] or after[0]:
        raise r.unsupported("the axis of images cannot be padded")
    return r.emit("Pad", [name], version=2, pads=before + after, mode=mode, value=float(value))


@_translates("pad")
def _pad(r: Reader, a: Any) -> str:
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[a.mode]
    return _padded(r, a.self, a.pad, mode, a.value or 0.0)


@_translates("constant_pad_nd")
def _constant_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.pad, "constant", a.value)


@_translates("reflection_pad1d", "reflection_pad2d")
def _reflection_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.padding, "reflect")


@_translates("replication_pad1d", "replication_pad2d")
def _replication_pad(r: Reader, a: Any) -> str:
    return _padded(r, a.self, a.padding, "edge")


@_translates("pixel_shuffle")
def _pixel_shuffle(r: Reader, a: Any) -> str:
    return r.emit("DepthToSpace", [a.self], blocksize=int(a.upscale_factor), mode="CRD")


@_translates("pixel_unshuffle")
def _pixel_unshuffle(r: Reader, a: Any) -> str:
    n, c, h, w = r.shapes[a.self]
    f = a.downscale_factor
    cut = (n, c, h // f, f, w // f, f)
    parts = _shaped(r, a.self, cut)
    order = (0, 1, 3, 5, 2, 4)
    moved = r.emit("Transpose", [parts], [cut[i] for i in order], perm=list(order))
    return _shaped(r, moved, r.result_shapes()[0])


@_translates("channel_shuffle")
def _channel_shuffle(r: Reader, a: Any) -> str:
    n, c, h, w = r.shapes[a.self]
    parts = _shaped(r, a.self, (n, a.groups, c // a.groups, h, w))
    moved = r.emit("Transpose", [parts], (n, c // a.groups, a.groups, h, w), perm=[0, 2, 1, 3, 4])
    return _shaped(r, moved, (n, c, h, w))


# ---- Resizing


@_translates("upsample_nearest2d.vec", "_upsample_nearest_exact2d.vec", "upsample_bilinear2d.vec")
def _upsample(r: Reader, a: Any) -> str:
    name = r.operator_name()
    mode = "bilinear" if "bilinear" in name else "nearest-exact" if "exact" in name else "nearest"
    grid = "align_corners" if getattr(a, "align_corners", False) else ""
    size = [] if a.output_size is None else [int(n) for n in a.output_size]
    scales = [] if a.scale_factors is None else [float(s) for s in a.scale_factors]
    return r.emit("aten.resize", [a.input], mode=mode, grid=grid, size=size, scales=scales)


@_own("aten.resize")
def _own_resize(values: Values, node: Node) -> View:
    view, how = values.view(node, 0), node.attributes
    where: dict[str, Any] = {"size": how["size"]} if how["size"] else {"scale_factor": how["scales"]}
    result = functional.resize(view.in_order(IMAGE), mode=how["mode"], grid=how["grid"] or None, **where)
    return from_images(result, view.rank)
