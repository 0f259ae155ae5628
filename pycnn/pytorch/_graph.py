"""Reading what torch.export recorded: each call of an ATen operator becomes nodes of a `Network`.

Operators that change a tensor in place give a new value here: from then on every name of that tensor stands for it.
Where other views of the tensor are read later, which would see the change too, the network is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from pycnn.errors import UnsupportedError
from pycnn.onnx._network import Input, Network, Node
from pycnn.onnx._registry import Operator, operators
from pycnn.pytorch._batch import Images
from pycnn.pytorch._patterns import find_local_response_norms

__all__ = ["AtenNode", "Reader"]

# The newest meaning of ONNX operators that is used.
_OPSET = 20


@dataclass(frozen=True)
class AtenNode(Node):
    """One use of an operator, or a part of it.

    Attributes:
        aten: The operator in PyTorch.
    """

    aten: str = ""

    reader: ClassVar[str] = "from_torch"

    def __str__(self) -> str:
        """For the beginning of messages."""
        return f"node '{self.name}' ({self.aten})"

    def own_operator(self) -> Operator | None:
        """How the node is converted, where that is no operator of ONNX."""
        from pycnn.pytorch._operators import OWN

        return OWN.get(self.op)


class Reader:
    """Reads an exported program node by node.

    Args:
        torch: The package.
        program: What torch.export gave.
        names: For each learned array the name under which it is known; those that modules share have one.
        learned: Names of what is trained.

        images: Where the number of images shows.

    Attributes:
        node: The node being read.
        shapes: Sizes of every value.
        truths: Names of values that are truth values.
    """

    def __init__(
        self, torch: Any, program: Any, names: Mapping[str, str], learned: frozenset[str], images: Images
    ) -> None:
        self._torch = torch
        self._images = images
        self._program = program
        self._names = names
        self.learned = set(learned)
        self.node: Any = None
        self.nodes: list[AtenNode] = []
        self.constants: dict[str, np.ndarray] = {}
        self.literals: set[str] = set()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.truths: set[str] = set()
        # For values that depend on the input, the axes whose sizes follow from the number of images.
        self._free: dict[str, frozenset[int]] = {}
        # What each node of the exported graph stands for: the name of a value, or a list of them.
        self._values: dict[Any, Any] = {}
        # Values that do not depend on the input.
        self._known: dict[str, Any] = {}
        # Which tensor a node is (a part of), and which are the very same.
        self._storage: dict[Any, int] = {}
        self._same: dict[Any, int] = {}
        self._taken: set[str] = set()
        self._position: dict[Any, int] = {}

    # ---- The whole graph

    def read(self) -> tuple[Network, Any]:
        """Read the graph.

        Returns:
            The network, and the output as the module gives it, with the number of each tensor in its place.

        Raises:
            UnsupportedError: A node is not supported; the message names it and the operator.
        """
        graph = self._program.graph
        norms = find_local_response_norms(graph)
        joined = {part for _, chain in norms.values() for part in chain}
        self._position = {node: i for i, node in enumerate(graph.nodes)}
        inputs = self._placeholders()
        outputs: list[str] = []
        for node in graph.nodes:
            self.node = node
            if node in norms:
                self._begin(node)
                self._set(node, self._translate("local_response_norm.default", norms[node][0]))
            elif node.op == "call_function" and node not in joined:
                self._call(node)
            elif node.op == "output":
                outputs = [self._output(value) for value in node.args[0]]
        spec = self._program.call_spec.out_spec
        form = self._torch.utils._pytree.tree_unflatten(list(range(len(outputs))), spec)
        used = {name for node in self.nodes for name in node.inputs} | set(outputs)
        for name in used & set(self._known):
            self.constants[name] = self._as_array(name)
        return Network(
            where="from_torch",
            opset=_OPSET,
            nodes=list(self.nodes),
            constants=self.constants,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            producer=f"torch {self._torch.__version__}",
            literals=self.literals,
            learned=frozenset(self.learned),
        ), form

    def _placeholders(self) -> list[Input]:
        signature = self._program.graph_signature
        inputs = []
        for node in self._program.graph.nodes:
            if node.op != "placeholder":
                continue
            self._begin(node)
            name = node.name
            if name in signature.inputs_to_parameters or name in signature.inputs_to_buffers:
                full = signature.inputs_to_parameters.get(name) or signature.inputs_to_buffers[name]
                name = self._names.get(full, full)
                if name not in self._known:
                    self._remember(name, self._tensor_of(full))
            elif name in signature.inputs_to_lifted_tensor_constants:
                self._remember(name, self._program.constants[signature.inputs_to_lifted_tensor_constants[name]])
            else:
                value = node.meta["val"]
                self.shapes[name] = tuple(value.shape)
                self._free[name] = self._images.axes(node)[0]
                dtype = str(value.dtype).removeprefix("torch.")
                shape = (None, *value.shape[1:])
                inputs.append(Input(name, shape, "float32" if value.dtype.is_floating_point else dtype))
            self._taken.add(name)
            self._values[node] = name
        return inputs

    def _tensor_of(self, full: str) -> Any:
        program = self._program
        return program.state_dict[full] if full in program.state_dict else program.constants[full]

    def _remember(self, name: str, tensor: Any) -> None:
        self._known[name] = tensor.detach()
        self.shapes[name] = tuple(tensor.shape)

    def _as_array(self, name: str) -> np.ndarray:
        tensor = self._known[name].cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(self._torch.float32)
        return np.array(tensor.contiguous().numpy(), order="C")

    def _output(self, value: Any) -> str:
        if not isinstance(value, self._torch.fx.Node) or isinstance(self._values.get(value), list | type(None)):
            raise UnsupportedError(f"from_torch: the module returns {value!r}; outputs must be tensors")
        name = str(self._values[value])
        joined = [axis for axis in self.images_of(name) if self.shapes[name][axis] != self._images.batch]
        if joined:
            self.node = value
            raise self.unsupported(
                f"images and others lie together along axis {joined[0]} of a result of the module; the axis of images "
                "must be one of its own\n  hint: flatten(1), or view(x.shape[0], ...)"
            )
        return name

    # ---- One node

    def _call(self, node: Any) -> None:
        target = node.target
        if getattr(target, "__name__", "") == "getitem" and not hasattr(target, "_schema"):
            source, index = node.args
            self._values[node] = self._values[source][index]
            self._storage[node], self._same[node] = self._storage[source], self._position[node]
            return
        operator_name = self.operator_name()
        if not hasattr(target, "_schema") or target.namespace != "aten":
            raise self.unsupported("the operator is not supported")
        if operator_name.startswith(("_assert", "sym_")):
            return
        if node.name in self._images.counting:
            raise self.unsupported(
                "a number in it changes with the number of images, which is free here\n"
                "  hint: let shapes broadcast, and let mean() divide by the number"
            )
        mutable = [a for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        self._begin(node, target._schema)
        arguments = self._arguments(node)
        if self._fold(node, arguments, mutable):
            return
        base, _, overload = operator_name.partition(".")
        if mutable:
            base = base.removesuffix("_")
        result = self._translate(f"{base}.{overload}", arguments)
        self._set(node, result)
        if mutable:
            self._change(node, arguments[mutable[0].name], result)

    def _set(self, node: Any, result: Any) -> None:
        """Say what a node that was translated stands for."""
        self._values[node] = result
        values = node.meta["val"]
        names, values = (result, values) if isinstance(result, list) else ([result], [values])
        for name, value, axes in zip(names, values, self._images.axes(node), strict=False):
            if name is not None:
                self._free[name] = axes
                if value.dtype == self._torch.bool:
                    self.truths.add(name)

    def _translate(self, name: str, arguments: Mapping[str, Any]) -> Any:
        from pycnn.pytorch._operators import TRANSLATIONS

        translate = TRANSLATIONS.get(name)
        if translate is None:
            raise self.unsupported("the operator is not supported")
        return translate(self, SimpleNamespace(**{key: self._named(value) for key, value in arguments.items()}))

    def _begin(self, node: Any, schema: Any = None) -> None:
        """Note which tensor a node's result is a part of."""
        position = self._position[node]
        self._same[node] = self._storage[node] = position
        views = schema is not None and any(
            r.alias_info is not None and not r.alias_info.is_write for r in schema.returns
        )
        # Dropout hands its input on while predicting.
        if (views or (schema is not None and schema.name == "aten::dropout")) and node.args:
            first = node.args[0]
            if isinstance(first, self._torch.fx.Node):
                self._storage[node] = self._storage[first]

    def _change(self, node: Any, target: Any, result: str) -> None:
        """Let every name of a tensor that is changed in place stand for the result."""
        storage, same = self._storage[target], self._same[target]
        for other, its_storage in self._storage.items():
            if its_storage != storage or other is node:
                continue
            if self._same[other] == same:
                self._values[other] = result
            elif any(self._position[user] > self._position[node] for user in other.users):
                raise self.unsupported(
                    f"it changes a tensor in place of which '{other.name}' is another view that is read later\n"
                    "  hint: use the operator that gives a new tensor, or inplace=False"
                )
        self._storage[node], self._same[node] = storage, same

    def _arguments(self, node: Any) -> dict[str, Any]:
        """Arguments by name, those left out with their defaults."""
        result = {}
        for position, argument in enumerate(node.target._schema.arguments):
            if argument.name in node.kwargs:
                value = node.kwargs[argument.name]
            elif position < len(node.args) and not argument.kwarg_only:
                value = node.args[position]
            else:
                value = argument.default_value
            result[argument.name] = value
        return result

    def _named(self, value: Any) -> Any:
        """Values by their names."""
        if isinstance(value, self._torch.fx.Node):
            if value not in self._values:
                raise self.unsupported(f"'{value.name}', which it reads, is no tensor")
            return self._values[value]
        if isinstance(value, list | tuple):
            return [self._named(item) for item in value]
        return value

    def _fold(self, node: Any, arguments: Mapping[str, Any], mutable: Sequence[Any]) -> bool:
        """Compute, with PyTorch, what does not depend on the input."""
        names = [name for value in arguments.values() for name in _flat(self._named(value), value, self._torch)]
        if any(name not in self._known for name in names):
            return False
        if mutable and self.operator_name() != "detach_.default":
            raise self.unsupported("it changes a tensor in place that does not depend on the input")
        if self._torch.Tag.nondeterministic_seeded in node.target.tags:
            raise self.unsupported("random numbers that do not depend on the input are not supported")

        def value_of(value: Any) -> Any:
            if isinstance(value, self._torch.fx.Node):
                return self._known[self._values[value]]
            if isinstance(value, list | tuple):
                return type(value)(value_of(item) for item in value)
            return value

        with self._torch.no_grad():
            result = node.target(*map(value_of, node.args), **{k: value_of(v) for k, v in node.kwargs.items()})
        results = [result] if isinstance(result, self._torch.Tensor) else list(result)
        made = []
        for i, tensor in enumerate(results):
            name = self._fresh(node.name if len(results) == 1 else f"{node.name}.{i}")
            self._remember(name, tensor)
            if self.learned & set(names):
                # A weight that is computed from others is a weight here.
                self.learned.add(name)
            made.append(name)
        self._values[node] = made[0] if isinstance(result, self._torch.Tensor) else made
        return True

    # ---- For translations

    def operator_name(self) -> str:
        """The operator being read, as "conv2d.default"."""
        return str(self.node.target).removeprefix("aten.")

    def unsupported(self, why: str) -> UnsupportedError:
        """The error for what is legal and not there; names node, operator and line."""
        error: UnsupportedError = self._describe().unsupported(why + _line_of(self.node))
        return error

    def _describe(self, op: str = "", inputs: Sequence[str] = (), outputs: Sequence[str] = (), **more: Any) -> AtenNode:
        target = self.node.target
        known = hasattr(target, "_schema")
        aten = str(target) if known else getattr(target, "__name__", str(target))
        version = more.pop("version", 0)
        return AtenNode(op, self._path(), tuple(inputs), tuple(outputs), more, _OPSET, version, aten=aten)

    def _path(self) -> str:
        """Name of the layer that calls the operator; in a module that has layers, the graph's own name below it."""
        stack = list((self.node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0].partition("@")[0] if stack else ""
        own: str = self.node.name
        layer = path and not any(name.startswith(f"{path}.") for name in self.module_names)
        return path if layer else f"{path}.{own}" if path else own

    #: Dotted names of all modules.
    module_names: frozenset[str] = frozenset()

    def _fresh(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}.{number}", number + 1
        self._taken.add(name)
        return name

    def result_shapes(self) -> list[tuple[int, ...]]:
        """Sizes of the results of the operator being read."""
        value = self.node.meta["val"]
        return [tuple(v.shape) for v in value] if isinstance(value, list | tuple) else [tuple(value.shape)]

    def result_images(self) -> frozenset[int]:
        """Axes of the first result of the operator being read whose sizes follow from the number of images."""
        return self._images.axes(self.node)[0]

    def images_of(self, name: str) -> frozenset[int]:
        """Axes of a value whose sizes follow from the number of images."""
        return self._free.get(name, frozenset())

    def known(self, name: str) -> np.ndarray | None:
        """The numbers of a value that does not depend on the input."""
        return self._as_array(name) if name in self._known else self.constants.get(name)

    def checked_axis(self, name: str, axis: int) -> int:
        """An axis counted from the front, of which parts are taken or which is added to.

        Raises:
            UnsupportedError: It is that of the images.
        """
        axis %= max(len(self.shapes[name]), 1)
        if axis in self.images_of(name):
            raise self.unsupported("the axis of images cannot be cut, padded or turned round")
        return axis

    def emit(
        self, op: str, inputs: Sequence[Any], shape: Sequence[int] | None = None, *, version: int = 0, **attributes: Any
    ) -> str:
        """Add a node of one result.

        Args:
            op: Of ONNX, or one of `OWN`.
            inputs: Names; None for one left out.
            shape: Of the result; default: that of the operator being read.
            version: Opset whose meaning is used; default: the newest.
            attributes: As in ONNX.

        Returns:
            The result's name.
        """
        return self.emit_all(op, inputs, [self.result_shapes()[0] if shape is None else shape], version, attributes)[0]

    def emit_all(
        self,
        op: str,
        inputs: Sequence[Any],
        shapes: Sequence[Sequence[int]],
        version: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Add a node of several results."""
        table = operators()
        if op in table and not version:
            version = max(v for v in table[op].versions if v <= _OPSET)
        outputs = [self._fresh(f"{self.node.name}") for _ in shapes]
        names = ["" if name is None else str(name) for name in inputs]
        self.nodes.append(self._describe(op, names, outputs, version=version, **dict(attributes or {})))
        for name, shape in zip(outputs, shapes, strict=True):
            self.shapes[name] = tuple(shape)
        return outputs

    def number(self, value: float) -> str:
        """The name of a constant that is one number."""
        return self.array(np.asarray(value, np.float32))

    def array(self, value: np.ndarray) -> str:
        """The name of a constant."""
        name = self._fresh(f"{self.node.name}.constant")
        self.constants[name] = value
        self.literals.add(name)
        self.shapes[name] = value.shape
        return name


def _flat(named: Any, value: Any, torch: Any) -> list[str]:
    """Names of the tensors in an argument."""
    if isinstance(value, torch.fx.Node):
        return [named] if isinstance(named, str) else list(named)
    if isinstance(value, list | tuple):
        return [name for n, v in zip(named, value, strict=True) for name in _flat(n, v, torch)]
    return []


def _line_of(node: Any) -> str:
    """Where the module calls the operator: the last line of its own files."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    own = [line for line in lines if line.startswith("File ") and "/torch/" not in line]
    if not own:
        return ""
    file, _, rest = own[-1].removeprefix("File ").partition(", line ")
    return f"\n  at {file.strip(chr(34))}:{rest.partition(',')[0]}"
