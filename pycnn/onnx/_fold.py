"""Computing with constants: what a file works out from its own numbers and from shapes never becomes an op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pycnn.errors import Error
from pycnn.onnx._network import Network, Node
from pycnn.onnx._shapes import (
    AXES_ARE_INPUT,
    checked_axes,
    checked_axis,
    flattened,
    legacy_shape,
    permutation,
    reshaped_sizes,
    shape_of,
    slice_bounds,
    split_sizes,
    squeezed,
    unsqueezed,
)
from pycnn.onnx._tensors import MOST_AXES, MOST_ELEMENTS, dtype_name, is_narrow

__all__ = ["FOLDED", "add_computed", "fold", "fold_network", "leave_out_softmax", "widened"]

Arrays = Sequence[Any]
Fold = Callable[[Node, Arrays], Any]

# What is computed may have that many bytes; what a file holds or repeats may have more.
_MOST_COMPUTED = 2**29
# So many all of them together.
_MOST_IN_ALL = 2**30
# What looks at an array's shape, or at its numbers in another order, needs no memory for them.
_WITHOUT_WORK = ("Shape", "Size", "Identity", "Dropout", "Transpose", "Expand", "Slice", "Gather", "Constant")
_SOFTMAX = ("Softmax", "LogSoftmax")
_FOLDS: dict[str, Fold] = {}


def _folds(*names: str) -> Callable[[Fold], Fold]:
    def register(function: Fold) -> Fold:
        for name in names:
            _FOLDS[name] = function
        return function

    return register


def _check_count(node: Node, sizes: Sequence[int], most: int) -> tuple[int, ...]:
    if len(sizes) > MOST_AXES or any(size < 0 for size in sizes) or math.prod(sizes) > most:
        raise node.bad_shape(f"a result of shape {tuple(sizes)[:16]} is out of range")
    return tuple(int(size) for size in sizes)


def _check_bytes(node: Node, sizes: Sequence[int], *arrays: np.ndarray) -> None:
    """Refuse what would take too much memory, as an array of one of these arrays' element types."""
    _check_count(node, sizes, _MOST_COMPUTED // max(array.dtype.itemsize for array in arrays))


def fold(node: Node, arrays: Arrays) -> list[np.ndarray] | None:
    """Compute a node whose inputs are all known.

    Args:
        node: The node.
        arrays: Its inputs; None for one that is left out.

    Returns:
        Its results, or None when the operator is none of `FOLDED`.

    Raises:
        ShapeError: Shapes do not fit.
        ArgumentError: Values do not fit.
    """
    function = _FOLDS.get(node.op)
    if function is None:
        return None
    if node.op not in _WITHOUT_WORK:
        for array in arrays:
            if array is not None:
                _check_bytes(node, [array.size], array)
    try:
        with np.errstate(all="ignore"):
            result = function(node, arrays)
    except Error:
        raise
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError, MemoryError) as error:
        raise node.bad_shape(f"cannot be computed from its constants ({error})") from None
    results = [np.asarray(value) for value in (result if isinstance(result, list) else [result])]
    for value in results:
        if value.ndim > MOST_AXES:
            raise node.bad_shape(f"a result of shape {value.shape[:16]} has more than {MOST_AXES} axes")
    return results


def add_computed(node: Node, results: Sequence[np.ndarray], computed: int) -> int:
    """The bytes computed so far, with a node's results.

    Raises:
        ShapeError: They are too many.
    """
    if node.op in _WITHOUT_WORK or node.op == "ConstantOfShape":
        return computed
    computed += sum(array.nbytes for array in results)
    if computed > _MOST_IN_ALL:
        raise node.bad_shape(f"more than {_MOST_IN_ALL} bytes are computed from constants")
    return computed


def fold_network(network: Network) -> dict[str, str]:
    """Compute all nodes that depend on constants alone, and forget what no output needs.

    Returns:
        For each computed floating-point constant with one floating-point ancestor in the file, that one's name.
    """
    constants = network.constants
    sources: dict[str, str] = {}
    left: list[Node] = []
    computed = 0
    for node in network.nodes:
        names = [name for name in node.inputs if name]
        results = None
        if all(name in constants for name in names):
            results = fold(node, [constants[name] if name else None for name in node.inputs])
        if results is None:
            left.append(node)
            continue
        computed = add_computed(node, results, computed)
        floats = {name for name in names if constants[name].dtype.kind == "f"}
        for name, value in zip(node.outputs, results, strict=False):
            if not name:
                continue
            constants[name] = value
            if node.op == "Constant" or (floats and floats <= network.literals):
                network.literals.add(name)
            elif len(floats) == 1 and value.dtype.kind == "f" and node.op != "Identity":
                (source,) = floats
                if value.size == constants[source].size:
                    sources[name] = sources.get(source, source)
    network.nodes = _needed(left, network)
    used = {name for node in network.nodes for name in node.inputs} | set(network.outputs)
    network.constants = {name: widened(value) for name, value in constants.items() if name in used}
    return sources


def widened(array: np.ndarray) -> np.ndarray:
    """The array as networks compute with it: float16 becomes float32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _needed(nodes: Sequence[Node], network: Network) -> list[Node]:
    """The nodes that the outputs depend on, without the results that nobody reads."""
    wanted = set(network.outputs)
    kept = []
    for node in reversed(nodes):
        outputs = tuple(name if name in wanted else "" for name in node.outputs)
        if any(outputs):
            # Many files name results that nobody reads, such as the mask of a dropout.
            kept.append(replace(node, outputs=outputs))
            wanted.update(name for name in node.inputs if name)
    return kept[::-1]


def leave_out_softmax(network: Network) -> None:
    """Let the outputs be what a softmax at the end of the network reads."""
    made = {name: node for node in network.nodes for name in node.outputs}
    network.outputs = tuple(_before_softmax(made, name) for name in network.outputs)


def _before_softmax(made: Mapping[str, Node], name: str) -> str:
    found = name
    # Files of float16 often turn their scores back into float32 at the end.
    while name in made and (made[name].op in (*_SOFTMAX, "Identity") or _is_float_cast(made[name])):
        node = made[name]
        name = node.inputs[0]
        if node.op in _SOFTMAX:
            found = name
    return found


def _is_float_cast(node: Node) -> bool:
    return node.op == "Cast" and dtype_name(node.integer("to", 0), f"onnx: {node}") in ("float16", "float32")


# ---- Making and measuring


@_folds("Constant")
def _constant(node: Node, arrays: Arrays) -> Any:
    given = node.attributes
    if len(given) != 1:
        raise node.bad_argument(f"has {len(given)} values, expected one")
    ((name, value),) = given.items()
    if name == "value":
        return value
    if name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    raise node.unsupported(f"constants given as '{name}' are not supported")


@_folds("ConstantOfShape")
def _constant_of_shape(node: Node, arrays: Arrays) -> Any:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    if value.size != 1:
        raise node.bad_argument(f"value has {value.size} elements, expected one")
    # Repeats one number: takes no memory.
    return np.broadcast_to(value.reshape(()), _check_count(node, [int(n) for n in arrays[0]], MOST_ELEMENTS))


@_folds("Shape")
def _shape(node: Node, arrays: Arrays) -> Any:
    return shape_of(node, arrays[0].shape)


@_folds("Size")
def _size(node: Node, arrays: Arrays) -> Any:
    return np.asarray(arrays[0].size, np.int64)


@_folds("Range")
def _range(node: Node, arrays: Arrays) -> Any:
    start, limit, delta = (array.reshape(()) for array in arrays)
    count = max(0, math.ceil((limit - start) / delta))
    _check_bytes(node, [count], np.zeros(0, np.int64))
    return (start + np.arange(count) * delta).astype(start.dtype)


# ---- Element by element


@_folds("Identity")
def _identity(node: Node, arrays: Arrays) -> Any:
    return arrays[0]


@_folds("Dropout")
def _dropout(node: Node, arrays: Arrays) -> Any:
    return [arrays[0], np.ones(arrays[0].shape, bool if node.version >= 10 else arrays[0].dtype)]


@_folds("Cast")
def _cast(node: Node, arrays: Arrays) -> Any:
    return _converted(node, arrays[0], dtype_name(node.integer("to", 0), f"onnx: {node}"))


@_folds("CastLike")
def _cast_like(node: Node, arrays: Arrays) -> Any:
    return _converted(node, arrays[0], arrays[1].dtype.name)


def _converted(node: Node, array: np.ndarray, dtype: str) -> np.ndarray:
    if is_narrow(dtype) and array.dtype.name != dtype:
        raise node.unsupported(f"constants are not turned into {dtype}")
    return array if is_narrow(dtype) else array.astype(dtype)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    # Integers are divided towards zero.
    quotient = np.floor_divide(np.abs(a), np.abs(b))
    return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": np.power,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": np.abs,
    "Neg": np.negative,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Not": np.logical_not,
    "Relu": lambda x: np.maximum(x, 0),
}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {"Min": np.minimum, "Max": np.maximum, "Sum": np.add}


@_folds(*_BINARY, "Mod")
def _binary(node: Node, arrays: Arrays) -> Any:
    a, b = (np.asarray(array) for array in arrays)
    if node.op == "Mod":
        if node.integer("fmod", 0):
            return np.fmod(a, b)
        return np.mod(a, b)
    if node.version < 7 and node.integer("broadcast", 0):
        b = legacy_operand(node, a.shape, b)
    _check_bytes(node, np.broadcast_shapes(a.shape, b.shape), a, b)
    result = _BINARY[node.op](a, b)
    return result if result.dtype == bool else result.astype(a.dtype, copy=False)


def legacy_operand(node: Node, shape: Sequence[int], b: np.ndarray) -> np.ndarray:
    """The second operand as numpy broadcasts it; before opset 7 an attribute said where its axes lie."""
    axis = node.integer("axis", len(shape) - b.ndim) % max(len(shape), 1)
    return b.reshape(legacy_shape(node, shape, b.shape, axis))


@_folds(*_UNARY)
def _unary(node: Node, arrays: Arrays) -> Any:
    return _UNARY[node.op](arrays[0])


@_folds(*_VARIADIC)
def _variadic(node: Node, arrays: Arrays) -> Any:
    result = arrays[0]
    for array in arrays[1:]:
        _check_bytes(node, np.broadcast_shapes(result.shape, array.shape), result, array)
        result = _VARIADIC[node.op](result, array)
    return result


@_folds("Clip")
def _clip(node: Node, arrays: Arrays) -> Any:
    if node.version < 11:
        low, high = (node.attributes.get(name) for name in ("min", "max"))
    else:
        low, high = ((arrays[i] if i < len(arrays) else None) for i in (1, 2))
    x = arrays[0]
    x = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


@_folds("Where")
def _where(node: Node, arrays: Arrays) -> Any:
    _check_bytes(node, np.broadcast_shapes(*(array.shape for array in arrays)), *arrays[1:])
    return np.where(*arrays)


@_folds("DequantizeLinear")
def _dequantize(node: Node, arrays: Arrays) -> Any:
    x, scale = arrays[:2]
    zero = arrays[2] if len(arrays) > 2 and arrays[2] is not None else np.zeros((), np.int8)
    output = node.integer("output_dtype", 0)
    dtype = dtype_name(output, f"onnx: {node}") if output else scale.dtype.name
    if is_narrow(dtype):
        raise node.unsupported(f"results of element type {dtype} are not supported")
    # Exact differences, so that the product alone is rounded.
    wide = np.float32 if dtype == "float32" and x.dtype.itemsize <= 2 else np.float64
    _check_bytes(node, [x.size], np.zeros(0, wide))
    scale, zero = (_for_each(node, part, x.shape).astype(wide) for part in (scale, zero))
    return ((x.astype(wide) - zero) * scale).astype(dtype)


def _for_each(node: Node, part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One number, one for each index of an axis, or one for each block of it, as numpy broadcasts it over a tensor."""
    block = node.integer("block_size", 0)
    if not block or part.size == 1:
        return per_axis(node, part, len(shape))
    axis = checked_axis(node, node.integer("axis", 1), len(shape))
    expected = tuple(-(-size // block) if i == axis else size for i, size in enumerate(shape)) if block > 0 else ()
    if part.shape != expected:
        raise node.bad_shape(f"scale or zero point of shape {part.shape} for blocks of {block} along axis {axis}")
    return np.take(part, np.arange(shape[axis]) // block, axis)


def per_axis(node: Node, part: np.ndarray, rank: int) -> np.ndarray:
    """One number, or one for each index of an axis, as numpy broadcasts it over a tensor of so many axes."""
    if part.size == 1:
        return part.reshape(())
    axis = node.integer("axis", 1)
    if part.ndim != 1 or not -rank <= axis < rank:
        raise node.bad_shape(f"scale or zero point of shape {part.shape} along axis {axis} of {rank}")
    return part.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


# ---- Moving


@_folds("Gather")
def _gather(node: Node, arrays: Arrays) -> Any:
    x, indices = arrays
    axis = checked_axis(node, node.integer("axis", 0), x.ndim)
    _check_bytes(node, x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x)
    return np.take(x, indices, axis)


def _listed(node: Node, arrays: Arrays, name: str, since: int, index: int = 1) -> tuple[int, ...] | None:
    """Numbers that are an attribute before a version and an input from then on; None if left out."""
    if node.version < since:
        return node.integers(name, ()) if name in node.attributes else None
    if index >= len(arrays) or arrays[index] is None:
        return None
    return tuple(int(v) for v in np.asarray(arrays[index]).reshape(-1))


@_folds("Unsqueeze")
def _unsqueeze(node: Node, arrays: Arrays) -> Any:
    return arrays[0].reshape(unsqueezed(node, arrays[0].shape, _listed(node, arrays, "axes", 13) or ()))


@_folds("Squeeze")
def _squeeze(node: Node, arrays: Arrays) -> Any:
    return arrays[0].reshape(squeezed(node, arrays[0].shape, _listed(node, arrays, "axes", 13)))


@_folds("Reshape")
def _reshape(node: Node, arrays: Arrays) -> Any:
    return arrays[0].reshape(reshaped_sizes(node, arrays[0].shape, _listed(node, arrays, "shape", 5) or ()))


@_folds("Flatten")
def _flatten(node: Node, arrays: Arrays) -> Any:
    return arrays[0].reshape(flattened(node, arrays[0].shape))


@_folds("Transpose")
def _transpose(node: Node, arrays: Arrays) -> Any:
    return arrays[0].transpose(permutation(node, arrays[0].ndim))


@_folds("Concat")
def _concat(node: Node, arrays: Arrays) -> Any:
    _check_bytes(node, [sum(array.size for array in arrays)], *arrays)
    return np.concatenate(arrays, checked_axis(node, node.integer("axis", 1), arrays[0].ndim))


@_folds("Split")
def _split(node: Node, arrays: Arrays) -> Any:
    axis = checked_axis(node, node.integer("axis", 0), arrays[0].ndim)
    sizes = split_sizes(node, arrays[0].shape[axis], _listed(node, arrays, "split", 13))
    return np.split(arrays[0], np.cumsum(sizes)[:-1], axis)


def slice_lists(node: Node, arrays: Arrays) -> Arrays:
    """starts, ends, axes, steps of a Slice from its attributes or inputs."""
    if node.version < 10:
        return [*(node.integers(name, ()) for name in ("starts", "ends")), node.attributes.get("axes"), None]
    found = [_listed(node, arrays, "", 0, index) for index in (1, 2, 3, 4)]
    if found[0] is None or found[1] is None:
        raise node.bad_argument("starts or ends are missing")
    return found


@_folds("Slice")
def _slice(node: Node, arrays: Arrays) -> Any:
    bounds = slice_bounds(node, arrays[0].shape, slice_lists(node, arrays))
    # A step to the front may end before the first element, which a slice writes as None.
    return arrays[0][tuple(slice(b, None if e < 0 else e, s) for b, e, s in bounds)]


@_folds("Expand")
def _expand(node: Node, arrays: Arrays) -> Any:
    wanted = [int(size) for size in arrays[1]]
    _check_count(node, wanted, MOST_ELEMENTS)
    sizes = np.broadcast_shapes(arrays[0].shape, tuple(wanted))
    return np.broadcast_to(arrays[0], _check_count(node, sizes, MOST_ELEMENTS))


@_folds("Tile")
def _tile(node: Node, arrays: Arrays) -> Any:
    repeats = [int(count) for count in arrays[1]]
    if len(repeats) != arrays[0].ndim:
        raise node.bad_shape(f"{len(repeats)} repeats for {arrays[0].ndim} axes")
    _check_bytes(node, [size * count for size, count in zip(arrays[0].shape, repeats, strict=True)], arrays[0])
    return np.tile(arrays[0], repeats)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
}


def reduced_axes(node: Node, arrays: Arrays, rank: int) -> tuple[int, ...]:
    """Axes of a reduction."""
    axes = _listed(node, arrays, "axes", AXES_ARE_INPUT.get(node.op, 18))
    if not axes:
        return () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    return checked_axes(node, axes, rank)


@_folds(*_REDUCTIONS)
def _reduce(node: Node, arrays: Arrays) -> Any:
    x = arrays[0]
    axes = reduced_axes(node, arrays, x.ndim)
    if x.dtype == bool and node.op in ("ReduceMax", "ReduceMin"):
        # Of no truth values the largest is False and the smallest True.
        function = np.any if node.op == "ReduceMax" else np.all
        return np.asarray(function(x, axis=axes, keepdims=bool(node.integer("keepdims", 1))))
    return np.asarray(_REDUCTIONS[node.op](x, axis=axes, keepdims=bool(node.integer("keepdims", 1)))).astype(x.dtype)


#: Operators that are computed while loading when all they depend on is constant.
FOLDED = tuple(sorted(_FOLDS))
