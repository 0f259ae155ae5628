"""A net recorded for one image: its ops in order, its layers, and the parameters that ops read, by the net's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from pycnn.inspect._recording import Recorded, record
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.module import Module, alone
from pycnn.tensor import Parameter
from pycnn.tracing import Symbol

__all__ = ["Recording"]

# Through these a weight comes to its layer as it is, only in other places.
_MOVING = frozenset(("concat", "reshape", "slice", "take", "transpose"))


class Recording:
    """What a net computes of one image.

    Args:
        net: The net.
        input_shape: (H, W, C); default: what the net was made for or called with last.
        who: Named in errors.
        heads: Record auxiliary heads, which count in training only, too.

    Attributes:
        nodes: Of the graph, in the order of computation, as `pycnn._core.Graph.nodes` gives them.
        result: The net's first result.
        layers: Everything inside by name.

    Raises:
        ArgumentError: The size of the input is not known.
        ShapeError: The image does not fit the net.
    """

    nodes: Sequence[dict[str, Any]]
    result: Symbol

    def __init__(self, net: Module, input_shape: Sequence[int] | None, *, who: str, heads: bool = False) -> None:
        shape = net._input_shape(input_shape, who)
        seen: list[Recorded] = []

        def outputs(recorded: Recorded) -> dict[str, Symbol]:
            seen.append(recorded)
            return {"result": recorded.result}

        with alone(), collect_auxiliary() if heads else nullcontext():
            traced = record(net, {"x": ((1, *shape), "float32")}, outputs)
        self.result, self.layers = seen[0].result, seen[0].layers
        self.nodes = traced.graph.nodes()
        self._graph, self._parameters = traced.graph, traced.parameters
        self._names = {id(parameter): name for name, parameter in net.named_parameters()}

    def ops(self) -> Iterator[dict[str, Any]]:
        """The nodes that compute something."""
        return (node for node in self.nodes if node["kind"] == "op")

    def weights(self) -> Iterator[str]:
        """Names of the parameters that are read, in the order of their first use; no buffers."""
        for node in self.nodes:
            if node["kind"] == "parameter":
                name = self.name(self._parameters[node["name"]])
                if name is not None:
                    yield name

    def name(self, parameter: Parameter) -> str | None:
        """What the net calls a parameter; None for buffers, and for constants of `forward`."""
        return self._names.get(id(parameter))

    def sources(self, symbol: Any) -> list[Parameter]:
        """The parameters that an op's input consists of, only moved about; none where anything is computed."""
        node = self.nodes[symbol.node]
        if node["kind"] == "op":
            if node["op"].name not in _MOVING:
                return []
            return [parameter for source in node["inputs"] for parameter in self.sources(source)]
        parameter = self._parameters.get(node["name"])
        return [] if parameter is None else [parameter]

    def shape(self, symbol: Any) -> tuple[int, ...]:
        """The shape of an op's input."""
        return tuple(self._graph.spec(symbol)[0])
