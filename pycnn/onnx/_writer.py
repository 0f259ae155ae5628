"""Putting an ONNX graph together: nodes, constants and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Value", "Writer"]


@dataclass(frozen=True)
class Value:
    """A value of the graph that is being written; a `View` may hold it in the place of a symbol.

    Attributes:
        writer: Where its users are written.
        name: In the file.
        shape: Sizes, for the number of images that the net was recorded with.
    """

    writer: Writer
    name: str
    shape: tuple[int, ...]

    def transpose(self, permutation: Sequence[int]) -> Value:
        """The value with its axes in another order."""
        shape = [self.shape[axis] for axis in permutation]
        return self.writer.node("Transpose", [self], shape, perm=list(permutation))

    def reshape(self, sizes: Sequence[int]) -> Value:
        """The value with other sizes; 0 keeps that of the first axis."""
        shape = [self.shape[0] if axis == 0 and size == 0 else size for axis, size in enumerate(sizes)]
        sizes = list(sizes)
        # An axis that grows with the number of images, where it is not the first one as it was.
        grows = [axis for axis, size in enumerate(sizes) if size and size % self.writer.batch == 0]
        if len(grows) == 1 and (sizes[0] != 0 or self.shape[0] % self.writer.batch != 0):
            sizes[grows[0]] = -1
        return self.writer.node("Reshape", [self, self.writer.integers(sizes)], shape)


class Writer:
    """Collects nodes and constants.

    Args:
        helper: The module onnx.helper.
        opset: Of ONNX's own domain.
        batch: Images that the net was recorded with, a prime number.

    Attributes:
        nodes: NodeProtos in order.
        initializers: Arrays by name.
        scope: Name of the op that is being written; begins the names of its nodes.
    """

    #: The format's number of bfloat16, which NumPy has not.
    BFLOAT16 = 16

    def __init__(self, helper: Any, opset: int, batch: int) -> None:
        self.helper, self.opset, self.batch = helper, opset, batch
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.scope = ""
        self._names: set[str] = set()

    def unique(self, name: str) -> str:
        """A name that nothing has yet, this one if possible."""
        result, number = name, 1
        while result in self._names:
            number += 1
            result = f"{name}_{number}"
        self._names.add(result)
        return result

    def node(self, op: str, inputs: Sequence[Value | str], shape: Sequence[int], **attributes: Any) -> Value:
        """Write a node of one result."""
        name = self.unique(self.scope or op)
        names = [given.name if isinstance(given, Value) else given for given in inputs]
        self.nodes.append(self.helper.make_node(op, names, [name], name=name, **attributes))
        return Value(self, name, tuple(int(size) for size in shape))

    def initializer(self, name: str, array: np.ndarray) -> Value:
        """Write a learned array."""
        name = self.unique(name)
        self.initializers[name] = array
        return Value(self, name, array.shape)

    def integers(self, numbers: Sequence[int]) -> str:
        """Write a list of integers, such as a shape; equal ones once."""
        name = "shape_" + "_".join(str(number).replace("-", "m") for number in numbers)
        if name not in self.initializers:
            if name in self._names:
                name = self.unique(name)
            self._names.add(name)
            self.initializers[name] = np.asarray(numbers, np.int64)
        return name

    def element_type(self, dtype: str) -> int:
        """The format's number of an element type."""
        return int(self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) if dtype != "bfloat16" else self.BFLOAT16)

    def number(self, value: float) -> str:
        """Write a float32 that an operator takes as an input."""
        return self.literal(np.asarray(value, np.float32)).name

    def literal(self, array: np.ndarray) -> Value:
        """Write numbers that are no weights, as a Constant."""
        from onnx import numpy_helper

        name = self.unique(f"{self.scope}.constant" if self.scope else "constant")
        value = numpy_helper.from_array(np.array(array, order="C"), name)
        self.nodes.append(self.helper.make_node("Constant", [], [name], name=name, value=value))
        return Value(self, name, array.shape)
