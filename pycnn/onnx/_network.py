"""What a file describes, as plain Python data: nodes, constants, inputs and outputs, already checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pycnn.errors import ArgumentError, ShapeError, UnsupportedError

__all__ = ["Input", "Network", "Node", "shortest"]


def shortest(number: Any) -> float:
    """A float32 as the float of fewest digits that it stands for: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(number)))


@dataclass(frozen=True)
class Node:
    """One use of an operator.

    Attributes:
        op: Operator, "Conv" for example.
        name: As in the file; where it has none, that of its first result.
        inputs: Names of values; "" stands for an optional one that is left out.
        outputs: Names of values; "" for one that nobody wants.
        attributes: Numbers, texts, lists of them, and arrays.
        opset: Of the file.
        version: The opset in which the operator got the meaning that it has here.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    version: int

    #: Who reads the network, for the beginning of messages.
    reader: ClassVar[str] = "onnx"

    def __str__(self) -> str:
        """For the beginning of messages."""
        return f"node '{self.name}' ({self.op}, opset {self.opset})"

    def own_operator(self) -> Any:
        """How the node is converted, where that is no operator of ONNX."""
        return None

    def has_input(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def wants(self, index: int) -> bool:
        """Whether an optional output is asked for."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is a floating-point number."""
        return shortest(self.attributes[name]) if name in self.attributes else default

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        return tuple(int(value) for value in self.attributes.get(name, default))

    def unsupported(self, why: str) -> UnsupportedError:
        """The error for what is legal and not there."""
        return UnsupportedError(f"{self.reader}: {self}: {why}")

    def bad_shape(self, why: str) -> ShapeError:
        """The error for shapes that do not fit."""
        return ShapeError(f"{self.reader}: {self}: {why}")

    def bad_argument(self, why: str) -> ArgumentError:
        """The error for an attribute out of its range."""
        return ArgumentError(f"{self.reader}: {self}: {why}")


@dataclass(frozen=True)
class Input:
    """An input of the network.

    Attributes:
        name: As in the file.
        shape: Sizes; None where the file leaves one open.
        dtype: By NumPy's name.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass
class Network:
    """A file's graph.

    Attributes:
        where: What the file is called in messages.
        opset: Version of the default domain.
        nodes: In an order in which each follows those that it reads.
        constants: Arrays by name; may be read-only views.
        inputs: What a caller gives.
        outputs: Names of the results.
        output_types: Their element types, by NumPy's names; empty where nothing declares them.
        half: Whether "no", "some" or "all" of its floating-point numbers are float16.
        apart: Numbers of images, other than the declared one, of which it is known that each is treated alone.
        producer: Program that wrote the file.
        metadata: The file's own text entries.
        literals: Names of constants that stand in nodes, not among the initializers.
        learned: Names of the constants that are trained, where that is known; None where it follows from their use.
    """

    where: str
    opset: int
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    literals: set[str] = field(default_factory=set)
    learned: frozenset[str] | None = None
    output_types: tuple[str, ...] = ()
    half: str = "no"
    apart: set[int] = field(default_factory=set)

    @property
    def takes_float64(self) -> bool:
        """Whether an input is of float64."""
        return any(given.dtype == "float64" for given in self.inputs)
