"""What each op of a recorded net becomes in an ONNX file; images are (N, C, H, W) there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pycnn.errors import UnsupportedError
from pycnn.onnx._composed import compared, even_response_norm, formula, uneven_means
from pycnn.onnx._nodes import NCHW, Shape, as_images, joined, mapped
from pycnn.onnx._view import View
from pycnn.onnx._writer import Writer

__all__ = ["FIRST_OPSET", "exported", "exporter_of"]

#: The oldest opset that is written: softmax along one axis, axes of sums as an input.
FIRST_OPSET = 13
Exporter = Callable[[Writer, Mapping[str, Any], list[View], Shape], View]
_EXPORTERS: dict[str, Exporter] = {}


def _exports(name: str) -> Callable[[Exporter], Exporter]:
    def register(function: Exporter) -> Exporter:
        _EXPORTERS[name] = function
        return function

    return register


# Ops that a net does not predict with; the others without an exporter are gradients and updates.
_WHY_NOT = {
    "mean_squared_error": "is a loss; files hold nets as they predict",
    "softmax_cross_entropy": "is a loss; files hold nets as they predict",
    "top_k_correct": "measures scores against labels; files hold nets as they predict",
}


def exported() -> tuple[str, ...]:
    """Names of the ops that can be written."""
    return tuple(sorted(_EXPORTERS))


def exporter_of(op: str, node: str) -> Exporter:
    """How an op is written.

    Raises:
        UnsupportedError: It cannot be; the message says why.
    """
    if op not in exported():
        why = _WHY_NOT.get(op, "is a step of training; files hold nets as they predict")
        raise UnsupportedError(f"onnx.export: '{node}': {op} {why}")
    return _EXPORTERS[op]


def _image_shape(shape: Shape) -> Shape:
    n, h, w, c = shape
    return n, c, h, w


def _pads(padding: Sequence[int]) -> list[int]:
    top, bottom, left, right = padding
    return [top, left, bottom, right]


def _refused(writer: Writer, why: str) -> UnsupportedError:
    return UnsupportedError(f"onnx.export: '{writer.scope}': {why}")


# ---- Images


@_exports("conv2d")
def _conv2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    weight = x[1].in_order(NCHW)
    inputs = [x[0].in_order(NCHW), weight, *(bias.as_plain() for bias in x[2:])]
    result = w.node(
        "Conv",
        inputs,
        _image_shape(shape),
        kernel_shape=list(weight.shape[2:]),
        strides=list(a["stride"]),
        pads=_pads(a["padding"]),
        dilations=list(a["dilation"]),
        group=a["groups"],
    )
    return as_images(result)


@_exports("conv2d_grad_input")
def _conv_transpose2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    value, weight = x[0].in_order(NCHW), x[1].in_order(NCHW)
    top, bottom, left, right = a["padding"]
    # The size that ONNX works out itself, less that of the result.
    more = [
        size - ((given - 1) * stride - pads + (kernel - 1) * dilation + 1)
        for size, given, stride, pads, kernel, dilation in zip(
            shape[1:3], value.shape[2:], a["stride"], (top + bottom, left + right), weight.shape[2:], a["dilation"],
            strict=True,
        )
    ]  # fmt: skip
    result = w.node(
        "ConvTranspose",
        [value, weight],
        _image_shape(shape),
        kernel_shape=list(weight.shape[2:]),
        strides=list(a["stride"]),
        pads=_pads(a["padding"]),
        dilations=list(a["dilation"]),
        output_padding=more,
        group=a["groups"],
    )
    return as_images(result)


@_exports("resize2d")
def _resize2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    value, mode = x[0].in_order(NCHW), a["mode"]
    roundings = {"floor": "floor", "ceil": "ceil", "round_down": "round_prefer_floor", "round_up": "round_prefer_ceil"}
    attributes: dict[str, Any] = {"coordinate_transformation_mode": a["grid"]}
    if mode == "bilinear":
        attributes["mode"] = "linear"
    else:
        attributes |= {"mode": "nearest", "nearest_mode": roundings[mode.removeprefix("nearest_")]}
    scales = list(a["scales"])
    if not scales and w.opset >= 18:
        inputs = [value, "", "", w.integers(shape[1:3])]
        return as_images(w.node("Resize", inputs, _image_shape(shape), axes=[2, 3], **attributes))
    scales = scales or [new / old for new, old in zip(shape[1:3], value.shape[2:], strict=True)]
    exact = [float(np.float32(scale)) for scale in scales]
    if [math.floor(scale * size) for scale, size in zip(exact, value.shape[2:], strict=True)] != list(shape[1:3]):
        raise _refused(w, f"resize to {shape[1:3]} needs opset 18, where sizes of images are given alone")
    scale = w.literal(np.array([1.0, 1.0, *scales], np.float32))
    return as_images(w.node("Resize", [value, "", scale], _image_shape(shape), **attributes))


def _windows(a: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kernel_shape": list(a["kernel_size"]),
        "strides": list(a["stride"]),
        "pads": _pads(a["padding"]),
        "ceil_mode": int(a["ceil_mode"]),
    }


@_exports("max_pool2d")
def _max_pool2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    dilations = list(a["dilation"])
    return as_images(w.node("MaxPool", [x[0].in_order(NCHW)], _image_shape(shape), dilations=dilations, **_windows(a)))


@_exports("avg_pool2d")
def _avg_pool2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    include = int(a["count_include_pad"])
    value = x[0].in_order(NCHW)
    return as_images(w.node("AveragePool", [value], _image_shape(shape), count_include_pad=include, **_windows(a)))


@_exports("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    (h, width), (rows, columns) = x[0].shape[1:3], a["output_size"]
    if (h, width) == (rows, columns):
        return x[0]
    if h % rows or width % columns:
        return uneven_means(w, x[0], (rows, columns), shape)
    kernel = [h // rows, width // columns]
    value = x[0].in_order(NCHW)
    return as_images(w.node("AveragePool", [value], _image_shape(shape), kernel_shape=kernel, strides=kernel))


def _global(op: str) -> Exporter:
    def export(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
        pooled = w.node(op, [x[0].in_order(NCHW)], (*shape, 1, 1))
        return View.plain(w.node("Flatten", [pooled], shape, axis=1))

    return export


_EXPORTERS["global_avg_pool2d"] = _global("GlobalAveragePool")
_EXPORTERS["global_max_pool2d"] = _global("GlobalMaxPool")


def _channels_second(view: View) -> tuple[int, ...]:
    return (0, len(view.shape) - 1, *range(1, len(view.shape) - 1))


@_exports("batch_norm")
def _batch_norm(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    order = _channels_second(x[0])
    inputs = [x[0].in_order(order), *(view.as_plain() for view in x[1:])]
    momentum = 1.0 - a["momentum"]
    sizes = [shape[axis] for axis in order]
    return View(w.node("BatchNormalization", inputs, sizes, epsilon=a["eps"], momentum=momentum), order, shape)


@_exports("local_response_norm")
def _local_response_norm(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    if a["size"] % 2 == 0:
        return even_response_norm(w, a, x[0])
    order = _channels_second(x[0])
    sizes = [shape[axis] for axis in order]
    numbers = {"size": a["size"], "alpha": a["alpha"], "beta": a["beta"], "bias": a["k"]}
    return View(w.node("LRN", [x[0].in_order(order)], sizes, **numbers), order, shape)


@_exports("normalize_image")
def _normalize_image(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    channels = shape[-1]
    std = np.broadcast_to(np.asarray(a["std"] or [1.0], np.float64), (channels,))
    mean = np.broadcast_to(np.asarray(a["mean"] or [0.0], np.float64), (channels,))
    order = _channels_second(x[0])
    behind = (1,) * (len(shape) - 2)
    # As the core computes it, x * factor + offset.
    factor, offset = ((v).astype(np.float32).reshape(channels, *behind) for v in (a["scale"] / std, -mean / std))
    value = x[0].in_order(order)
    product = w.node("Mul", [value, w.literal(factor)], value.shape)
    return View(w.node("Add", [product, w.literal(offset)], value.shape), order, shape)


# ---- Matrices


@_exports("dense")
def _dense(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    if len(x[0].shape) == 2:
        inputs = [x[0].as_plain(), x[1].as_plain(), *(bias.as_plain() for bias in x[2:])]
        return View.plain(w.node("Gemm", inputs, shape, transB=1))
    product = w.node("MatMul", [x[0].as_plain(), x[1].in_order((1, 0))], shape)
    return View.plain(w.node("Add", [product, x[2].as_plain()], shape) if len(x) > 2 else product)


# ---- Element by element


@_exports("activation")
def _activation(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    kind, view = a["kind"], x[0]
    if kind == "identity":
        return view
    if kind == "relu6":
        return mapped(w, "Clip", view, [w.number(0.0), w.number(6.0)])
    if kind == "leaky_relu":
        return mapped(w, "LeakyRelu", view, alpha=a["slope"])
    if kind == "scaled_tanh":
        inner = mapped(w, "Mul", view, [w.number(2.0 / 3.0)])
        return mapped(w, "Mul", mapped(w, "Tanh", inner), [w.number(1.7159)])
    names = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    if kind not in names:
        raise _refused(w, f"the activation {kind} cannot be exported")
    return mapped(w, names[kind], view)


# Functions of one number: the operator, the opset that has it, and attributes from the op's a and b.
_UNARY: dict[str, tuple[str, int, Callable[[float, float], dict[str, float]]]] = {
    "abs": ("Abs", 6, lambda a, b: {}),
    "celu": ("Celu", 12, lambda a, b: {"alpha": a}),
    "elu": ("Elu", 6, lambda a, b: {"alpha": a}),
    "erf": ("Erf", 9, lambda a, b: {}),
    "exp": ("Exp", 6, lambda a, b: {}),
    "gelu": ("Gelu", 20, lambda a, b: {}),
    "hard_sigmoid": ("HardSigmoid", 6, lambda a, b: {"alpha": a, "beta": b}),
    "hard_swish": ("HardSwish", 14, lambda a, b: {}),
    "log": ("Log", 6, lambda a, b: {}),
    "mish": ("Mish", 18, lambda a, b: {}),
    "reciprocal": ("Reciprocal", 6, lambda a, b: {}),
    "selu": ("Selu", 6, lambda a, b: {}),
    "softsign": ("Softsign", 1, lambda a, b: {}),
    "sqrt": ("Sqrt", 6, lambda a, b: {}),
}


@_exports("unary")
def _unary(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    kind, view, first, second = a["kind"], x[0], float(a["a"]), float(a["b"])
    if kind in _UNARY:
        op, since, attributes = _UNARY[kind]
        if w.opset >= since:
            return mapped(w, op, view, (), **attributes(first, second))
    if kind == "gelu_tanh" and w.opset >= 20:
        return mapped(w, "Gelu", view, approximate="tanh")
    if kind == "clip":
        limits = [w.number(value) if math.isfinite(value) else "" for value in (first, second)]
        return mapped(w, "Clip", view, limits)
    if kind == "power":
        return mapped(w, "Pow", view, [w.number(first)])
    if kind == "reciprocal_sqrt":
        return mapped(w, "Reciprocal", mapped(w, "Sqrt", view))
    if kind == "silu":
        gate = mapped(w, "Sigmoid", view)
        return View(w.node("Mul", [view.symbol, gate.symbol], view.symbol.shape), view.axes, view.shape)
    if kind == "softplus":
        inner = mapped(w, "Softplus", view if first == 1.0 else mapped(w, "Mul", view, [w.number(first)]))
        return inner if first == 1.0 else mapped(w, "Mul", inner, [w.number(1.0 / first)])
    if kind == "threshold" and second == 0.0:
        return mapped(w, "ThresholdedRelu", view, alpha=first)
    return formula(w, kind, view, first, second)


@_exports("binary")
def _binary(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    names = {"divide": "Div", "maximum": "Max", "minimum": "Min", "power": "Pow"}
    if a["kind"] in names:
        return _joined(names[a["kind"]])(w, a, x, shape)
    # ONNX's slopes fit themselves to the input, not the other way round.
    if a["kind"] == "prelu" and x[0].shape == tuple(shape):
        return _joined("PRelu")(w, a, x, shape)
    return compared(w, a["kind"], x, shape)


def _with_axis(view: View, axis: int) -> Shape:
    """The order of a view's axes, this one among them even if it was left out."""
    return view.axes if axis in view.axes else (*view.axes, axis)


def _softmax(op: str) -> Exporter:
    def export(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
        order = _with_axis(x[0], len(shape) - 1)
        value = x[0].in_order(order)
        return View(w.node(op, [value], value.shape, axis=order.index(len(shape) - 1)), order, shape)

    return export


_EXPORTERS["softmax"] = _softmax("Softmax")
_EXPORTERS["log_softmax"] = _softmax("LogSoftmax")


def _joined(op: str) -> Exporter:
    def export(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
        return joined(w, op, x, shape)

    return export


_EXPORTERS["add"] = _joined("Add")
_EXPORTERS["subtract"] = _joined("Sub")
_EXPORTERS["multiply"] = _joined("Mul")


@_exports("affine")
def _affine(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    view = x[0]
    if a["scale"] != 1.0:
        view = mapped(w, "Mul", view, [w.number(a["scale"])])
    if a["offset"] != 0.0:
        view = mapped(w, "Add", view, [w.number(a["offset"])])
    return view


@_exports("cast")
def _cast(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    return mapped(w, "Cast", x[0], to=w.element_type(str(a["dtype"])))


@_exports("dropout")
def _dropout(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    return mapped(w, "Dropout", x[0], [w.number(a["p"])])


# ---- Sums


@_exports("reduce")
def _reduce(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    view, keep = x[0], bool(a["keep_dims"])
    places = sorted(view.axes.index(axis) for axis in a["axes"] if axis in view.axes)
    left = [axis for axis in view.axes if keep or axis not in a["axes"]]
    sizes = [1 if axis in a["axes"] else view.shape[axis] for axis in left]
    if not places:
        return view if keep else view.reshaped(shape)
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[a["kind"]]
    if op == "ReduceSum" or w.opset >= 18:
        value = w.node(op, [view.symbol, w.integers(places)], sizes, keepdims=int(keep))
    else:
        value = w.node(op, [view.symbol], sizes, axes=places, keepdims=int(keep))
    if keep:
        return View(value, left, shape)
    names = sorted(left)
    return View(value, [names.index(axis) for axis in left], shape)


@_exports("arg_max")
def _arg_max(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    view = x[0]
    axis = a["axis"] % view.rank
    last, keep = int(a["last"]), bool(a["keep_dims"])
    order = _with_axis(view, axis)
    left = [each for each in order if keep or each != axis]
    sizes = [1 if each == axis else view.shape[each] for each in left]
    value = w.node(
        "ArgMax", [view.in_order(order)], sizes, axis=order.index(axis), keepdims=int(keep), select_last_index=last
    )
    return View(value, left if keep else [each - (each > axis) for each in left], shape)


# ---- Moving


@_exports("reshape")
def _reshape(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    return x[0].reshaped(shape)


@_exports("transpose")
def _transpose(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    return x[0].transposed(a["permutation"])


@_exports("concat")
def _concat(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    axis = a["axis"] % len(shape)
    order = _with_axis(x[0], axis)
    values = [view.in_order(order) for view in x]
    sizes = [shape[place] for place in order]
    return View(w.node("Concat", values, sizes, axis=order.index(axis)), order, shape)


@_exports("slice")
def _slice(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    view, value = x[0], x[0].symbol
    cuts = [
        (begin, begin + shape[axis], view.axes.index(axis))
        for axis, begin in enumerate(a["begin"])
        if shape[axis] != view.shape[axis]
    ]
    if not cuts:
        return view
    lists = [w.integers(numbers) for numbers in zip(*cuts, strict=True)]
    return View(w.node("Slice", [value, *lists], [shape[axis] for axis in view.axes]), view.axes, shape)


@_exports("pad")
def _pad(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    lacking = [axis for axis in range(len(shape)) if axis not in x[0].axes and shape[axis] != 1]
    order = (*x[0].axes, *lacking)
    pads = w.integers([*(a["before"][axis] for axis in order), *(a["after"][axis] for axis in order)])
    sizes = [shape[axis] for axis in order]
    return View(w.node("Pad", [x[0].in_order(order), pads, w.number(a["value"])], sizes), order, shape)


@_exports("broadcast")
def _broadcast(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    value = x[0].as_plain()
    # An axis that has its size already, such as that of the images, may have any.
    kept = (0,) * (len(shape) - len(value.shape)) + value.shape
    wanted = w.integers([1 if size == have else size for size, have in zip(shape, kept, strict=True)])
    return View.plain(w.node("Expand", [value, wanted], shape))


@_exports("take")
def _take(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    value, indices = x[0].as_plain(), list(a["indices"])
    if -1 in indices:
        # ONNX has no rows of zeros to take: one is put behind the others.
        rows, *behind = value.shape
        indices = [rows if index == -1 else index for index in indices]
        pads = w.integers([0] * len(value.shape) + [1] + [0] * len(behind))
        value = w.node("Pad", [value, pads, w.number(0.0)], (rows + 1, *behind))
    return View.plain(w.node("Gather", [value, w.integers(indices)], shape, axis=0))


@_exports("fill")
def _fill(w: Writer, a: Mapping[str, Any], x: list[View], shape: Shape) -> View:
    if math.prod(shape) > 2**20:
        raise _refused(w, f"a constant of shape {shape} is too large")
    return View.plain(w.literal(np.full(shape, a["value"], np.float32)))
