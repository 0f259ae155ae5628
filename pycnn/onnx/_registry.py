"""The table of operators, and what a converter of one is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pycnn.onnx._network import Node, shortest
from pycnn.onnx._view import View
from pycnn.tensor import Parameter

__all__ = [
    "BUFFER",
    "CONVOLUTION",
    "DENSE",
    "INTEGERS",
    "KEEPS_WHOLE",
    "PLAIN",
    "Operator",
    "Values",
    "find",
    "operator",
    "operators",
]

#: How a parameter lies in memory: filters channels last, matrices (OUT, IN), all else as in the file.
CONVOLUTION, DENSE, PLAIN, BUFFER = "conv", "dense", "plain", "buffer"

#: Element types of results that are no floating-point numbers.
INTEGERS = ("int32", "int64", "uint8")
#: Operators that give numbers of what they read, never others, and so the integers that they read.
KEEPS_WHOLE = (
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
# Operators that read truth values.
_LOGICAL = ("And", "Cast", "Identity", "Not", "Or", "Where", "Xor")
# float32 holds all integers up to it.
_MOST_WHOLE = 2**24

Value = Any  # a View, or an array whose numbers are known
Converter = Callable[["Values", Node], Any]
Roles = Callable[[Node], Mapping[int, str]]


@dataclass(frozen=True)
class Operator:
    """An operator that can be imported.

    Attributes:
        name: In ONNX.
        versions: Opsets in which its meaning changed, as far as each is known here.
        convert: Records a node; gives its value, or a sequence of those of its outputs.
        roles: For inputs that are learned: how they lie in memory.
        note: What of it is not supported, or how it is read, in a few words.
    """

    name: str
    versions: tuple[int, ...]
    convert: Converter
    roles: Roles
    note: str = ""


_OPERATORS: dict[str, Operator] = {}
# Files of pycnn.onnx._operators, each of which enters its operators when it is imported.
_FAMILIES = (
    "activation",
    "arithmetic",
    "comparison",
    "convolution",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "resizing",
    "shape",
)


def operator(
    name: str, versions: Sequence[int], *, roles: Mapping[int, str] | Roles | None = None, note: str = ""
) -> Callable[[Converter], Converter]:
    """Enter a converter in the table."""
    find_roles: Roles = roles if callable(roles) else (lambda _: roles or {})

    def register(convert: Converter) -> Converter:
        _OPERATORS[name] = Operator(name, tuple(versions), convert, find_roles, note)
        return convert

    return register


@cache
def operators() -> dict[str, Operator]:
    """The whole table."""
    for family in _FAMILIES:
        importlib.import_module(f"pycnn.onnx._operators.{family}")
    return _OPERATORS


def find(node: Node) -> Operator:
    """The operator of a node.

    Raises:
        UnsupportedError: It, or this version of it, is not known.
    """
    own: Operator | None = node.own_operator()
    if own is not None:
        return own
    table = operators()
    found = table.get(node.op)
    if found is None:
        raise node.unsupported(
            f"the operator is not supported\n  hint: supported are {', '.join(sorted(table))}; others only where all "
            "that they depend on is constant"
        )
    if node.version not in found.versions:
        versions = ", ".join(str(version) for version in found.versions)
        raise node.unsupported(
            f"the operator as of opset {node.version} is not supported\n  hint: supported are those of {versions}"
        )
    return found


class Values:
    """The values of a graph while it is recorded.

    Args:
        constants: Arrays by name.
        parameters: Learned arrays by name; they come before constants.
        batch: Images that the file was written for and images that there are; None where the file leaves it open.
        uses: How many inputs and outputs have a name.
        half: Whether "no", "some" or "all" floating-point numbers of the file are float16.
        wide: Whether the file takes float64, for which float32 stands here.
        outputs: Names of the network's results.
    """

    def __init__(
        self,
        constants: Mapping[str, np.ndarray],
        parameters: Mapping[str, tuple[Parameter, tuple[int, ...], tuple[int, ...]]],
        batch: tuple[int, int] | None,
        uses: Mapping[str, int],
        *,
        half: str = "no",
        wide: bool = False,
        outputs: Sequence[str] = (),
    ) -> None:
        self.batch, self.half, self.wide = batch, half, wide
        self._outputs = outputs
        #: Bytes computed from constants so far.
        self.computed = 0
        self._uses = uses
        self._constants = constants
        self._parameters = parameters
        self._known: dict[str, Any] = {}

    def uses(self, name: str) -> int:
        """How many nodes and outputs read a value."""
        return self._uses.get(name, 0)

    def is_only_output(self, name: str) -> bool:
        """Whether a value is a result of the network, and no node reads it."""
        return name in self._outputs and self.uses(name) == 1

    def value(self, name: str) -> Value:
        """What a name stands for: a `View`, or an array."""
        known = self._known.get(name)
        if known is None and name not in self._parameters:
            return self._constants[name]
        return self.named_view(name) if known is None else known

    def set(self, name: str, value: Value) -> None:
        """Say what a name stands for."""
        self._known[name] = value

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Sizes of a tensor of the graph; None of what is constant."""
        value = self._known.get(name)
        return value.shape if isinstance(value, View) else None

    def get(self, node: Node, index: int) -> Value:
        """An input as it is: a `View`, or an array."""
        name = node.inputs[index]
        if name in self._known:
            return self._known[name]
        if name in self._parameters:
            return self.view(node, index)
        return self._constants[name]

    def view(self, node: Node, index: int) -> View:
        """An input as a tensor of the graph; constants become buffers of it."""
        return self.named_view(node.inputs[index], node)

    def named_view(self, name: str, node: Node | None = None) -> View:
        """The tensor of a name."""
        from pycnn.tracing import symbol_of, to_symbol

        value = self._known.get(name)
        if value is None and name in self._parameters:
            parameter, axes, shape = self._parameters[name]
            value = self._known[name] = View(symbol_of(parameter), axes, shape)
        if value is None:
            value = self._constants[name]
        if isinstance(value, np.ndarray):
            if value.dtype.kind in "iu" and node is not None and node.op in KEEPS_WHOLE:
                return self._held(value, name, node)
            if value.dtype == np.float64:
                value = value.astype(np.float32)
            if value.dtype != np.float32 and (node is not None or value.dtype.name not in INTEGERS):
                raise (node or _nobody(name)).unsupported(
                    f"'{name}' has element type {value.dtype}; tensors of a network are float32"
                )
            value = self._known[name] = View.plain(to_symbol(np.array(value, order="C")))
        if value.logical and (node is None or node.op not in _LOGICAL):
            raise (node or _nobody(name)).unsupported(
                f"'{name}' is of truth values; supported in {', '.join(_LOGICAL)}"
            )
        if value.held and node is not None and node.op not in (*KEEPS_WHOLE, "Cast"):
            raise node.unsupported(f"'{name}' is of {value.held}; tensors of a network are float32: Cast must follow")
        if value.scale is not None and (node is None or node.op != "DequantizeLinear"):
            raise (node or _nobody(name)).unsupported(
                f"'{name}' is quantized; networks compute with floats: DequantizeLinear must follow"
            )
        return value

    def _held(self, value: np.ndarray, name: str, node: Node) -> View:
        """Integers as float32."""
        from pycnn.tracing import to_symbol

        if value.size and max(abs(int(value.min())), abs(int(value.max()))) > _MOST_WHOLE:
            raise node.unsupported(f"'{name}' has numbers of {value.dtype} that float32 does not hold")
        view = View.plain(to_symbol(np.array(value, np.float32, order="C")))
        view.held = value.dtype.name
        return view

    def optional_view(self, node: Node, index: int) -> View | None:
        """An input that may be left out."""
        return self.view(node, index) if node.has_input(index) else None

    def known(self, node: Node, index: int, what: str) -> np.ndarray:
        """The numbers of an input that must be constant.

        Raises:
            UnsupportedError: They depend on the network's input.
        """
        name = node.inputs[index]
        value = self._known.get(name, self._constants.get(name))
        if not isinstance(value, np.ndarray):
            raise node.unsupported(f"{what} ('{name}') is not constant")
        return value

    def optional_known(self, node: Node, index: int, what: str) -> np.ndarray | None:
        """The numbers of an input that may be left out."""
        return self.known(node, index, what) if node.has_input(index) else None

    def integers(self, node: Node, index: int, what: str) -> tuple[int, ...] | None:
        """The numbers of a list of integers that may be left out."""
        array = self.optional_known(node, index, what)
        return None if array is None else tuple(int(value) for value in array.reshape(-1))

    def single(self, value: Value) -> float | None:
        """A constant of one element as a number; None for all else."""
        if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind == "f":
            return shortest(value.reshape(()))
        return None


def _nobody(name: str) -> Node:
    return Node("output", name, (), (name,), {}, 0, 0)
