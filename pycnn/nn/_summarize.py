"""From a recorded net to the rows of its table (`pycnn.nn.summary` shows them)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError, Error
from pycnn.nn._memory import Budget, MemoryPlan, fit_batch, plan
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.files import FileModule
from pycnn.nn.module import Call, Module, _first_symbol, watch_calls
from pycnn.nn.receptive_field import receptive_fields
from pycnn.nn.summary import BOTTLENECK_RATIO, Bottleneck, Row, Share, Summary
from pycnn.tracing import trace

__all__ = ["summarize"]

Node = dict[str, Any]

# These may write their result over their input, or only order it anew; a compact table counts it once.
_ELEMENT_WISE = ("activation", "batch_norm", "dropout", "reshape", "transpose")
_GROUPS = {
    "activation": ("activation", "softmax", "log_softmax"),
    "pooling": ("max_pool2d", "avg_pool2d", "global_avg_pool2d", "global_max_pool2d"),
    "normalization": ("batch_norm", "local_response_norm", "normalize_image"),
}
_SHOWN_SHARES = 3
_SHOWN_KINDS = 4


def summarize(
    net: Module,
    input_shape: tuple[int, ...],
    batch: int,
    *,
    depth: int | None,
    compact: bool,
    budget: int | None,
) -> Summary:
    """See `Module.summary`."""
    for name, value in (("batch", batch), ("depth", 1 if depth is None else depth)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ArgumentError(f"summary: {name} must be an integer of at least 1, got {value!r}")
    batch = int(batch)
    net.build(input_shape)
    recording = _Recording(net, (batch, *input_shape))
    rows = _rows(recording, net, depth, compact)
    counted = [row for row in rows if not row.training_only]
    tensors = list(net._used_parameters(set()))
    parameters = [p for p in tensors if not p.is_buffer]
    training, reason = _training_plan(net, input_shape, batch)
    return Summary(
        name=type(net).__name__,
        input_shape=(batch, *input_shape),
        rows=tuple(rows),
        parameters=sum(p.size for p in parameters),
        weights=sum(row.weights for row in rows),
        training_only_parameters=sum(row.parameters for row in rows if row.training_only),
        frozen=sum(p.size for p in parameters if not p.trainable),
        buffers=sum(p.size for p in tensors if p.is_buffer),
        macs=sum(row.macs for row in counted),
        other_flops=sum(row.other_flops for row in counted),
        other_flops_by_group=recording.other_flops(),
        input_activations=batch * math.prod(input_shape),
        activations=sum(row.activations for row in counted),
        activation_bytes=sum(row.activation_bytes for row in counted),
        gradient_bytes=sum(row.gradient_bytes for row in rows),
        inference=plan(net, input_shape, batch, "inference"),
        training=training,
        no_training=reason,
        budget=None if budget is None else _budget(net, input_shape, budget),
        most_activations=_shares([(row.layer, row.activations) for row in counted]),
        most_parameters=_shares([(row.layer, row.parameters) for row in rows]),
        bottlenecks=tuple(_bottlenecks(recording)),
    )


def _training_plan(net: Module, input_shape: tuple[int, ...], batch: int) -> tuple[MemoryPlan | None, str | None]:
    try:
        return plan(net, input_shape, batch, "training"), None
    except Error as error:
        return None, str(error).partition("\n")[0]


def _budget(net: Module, input_shape: tuple[int, ...], budget: int) -> Budget:
    def bytes_of(mode: str) -> Callable[[int], int]:
        return lambda batch: plan(net, input_shape, batch, mode).total_bytes

    # A batch norm over single numbers has no variance: such nets train on two images at least.
    first = next((n for n in (1, 2) if _training_plan(net, input_shape, n)[0] is not None), None)
    inference = fit_batch(bytes_of("inference"), budget)
    training = None if first is None else fit_batch(bytes_of("training"), budget, first=first)
    return Budget(budget, inference, training)


def _shares(counts: Sequence[tuple[str, int]]) -> tuple[Share, ...]:
    total = sum(count for _, count in counts)
    largest = sorted(counts, key=lambda pair: -pair[1])[:_SHOWN_SHARES]
    return tuple(Share(layer, count, count / total) for layer, count in largest if count)


class _Recording:
    """A net's nodes, and what can be said about each of them.

    Attributes:
        nodes: As recorded.
        fields: Receptive fields of those that depend on the input.
        calls: Calls of modules that call no others.
        owner: The number of the call that a node belongs to; ops of ``forward`` itself have none.
        users: How many nodes read a node's results.
        in_use: Nodes that the first result depends on; the others are there for training only.
        with_gradient: Nodes whose results get a gradient while training.
    """

    def __init__(self, net: Module, shape: tuple[int, ...]) -> None:
        with watch_calls() as calls, collect_auxiliary():
            traced = trace(lambda x: _first_symbol(net(x)), {"x": (shape, "float32")}, root=net)
        self.nodes: list[Node] = traced.graph.nodes()
        self.result = dict(traced.graph.outputs())["output"].node
        self.fields = receptive_fields(self.nodes)
        # A loaded net has no layers to call: its nodes are the rows.
        self.calls = [call for call in calls if not call.children and not isinstance(call.module, FileModule)]
        self.owner = self._owners()
        self.users = Counter(s.node for node in self.nodes for s in node["inputs"])
        self.in_use = self._in_use()
        self.with_gradient = self._with_gradient({name for name, p in traced.parameters.items() if p.trainable})

    def _owners(self) -> dict[int, int]:
        owner: dict[int, int] = {}
        last = -1
        for number, call in enumerate(self.calls):
            for index in _claim(call, last, self.nodes):
                owner.setdefault(index, number)
            last = max([last, *(s.id.node for s in call.outputs)])
        return owner

    def _in_use(self) -> set[int]:
        used = {self.result}
        for index in range(self.result, -1, -1):
            if index in used:
                used.update(s.node for s in self.nodes[index]["inputs"])
        return used

    def _with_gradient(self, trainable: set[str]) -> set[int]:
        result: set[int] = set()
        for index, node in enumerate(self.nodes):
            own = node["kind"] == "parameter" and node["name"] in trainable
            if own or any(s.node in result for s in node["inputs"]):
                result.add(index)
        return result

    def data_nodes(self) -> list[int]:
        """Ops that depend on the input, in order."""
        return [i for i, node in enumerate(self.nodes) if node["kind"] == "op" and i in self.fields]

    def sources(self, index: int) -> list[int]:
        """Nodes that depend on the input and that this one reads."""
        return [s.node for s in self.nodes[index]["inputs"] if s.node in self.fields]

    def parameters_behind(self, index: int) -> set[int]:
        """Parameters that a value is made of without the input: itself, or what its ops read."""
        if index in self.fields:
            return set()
        node = self.nodes[index]
        if node["kind"] == "op":
            return set().union(*(self.parameters_behind(s.node) for s in node["inputs"]))
        return {index} if node["kind"] == "parameter" else set()

    def other_flops(self) -> dict[str, int]:
        """Arithmetic outside of multiply-adds, by group."""
        totals = dict.fromkeys((*_GROUPS, "other"), 0)
        for index in self.data_nodes():
            if index in self.in_use:
                name = self.nodes[index]["op"].name
                group = next((g for g, names in _GROUPS.items() if name in names), "other")
                totals[group] += self.nodes[index]["other_flops"]
        return totals

    def may_overwrite(self, index: int) -> int | None:
        """The node whose result this op alone reads, and can write over or order anew; None where there is none."""
        sources = self.sources(index)
        node = self.nodes[index]
        if len(sources) != 1 or (node["op"].name not in _ELEMENT_WISE and node["bytes"]):
            return None
        (source,) = sources
        return source if self.nodes[source]["kind"] == "op" and self.users[source] == 1 else None


def _claim(call: Call, last: int, nodes: Sequence[Node]) -> list[int]:
    """Indices of the op nodes that a leaf call recorded.

    Nodes stand in the order of recording, so a call's own lie between what was there before (its
    inputs, and what earlier calls gave) and its result; the name tells its own from the caller's.
    """
    start = max([last, *(s.id.node for s in call.inputs)])
    end = max((s.id.node for s in call.outputs), default=start)
    return [
        index
        for index in range(start + 1, end + 1)
        if nodes[index]["kind"] == "op" and nodes[index]["name"].startswith(call.path)
    ]


def _count(node: Node) -> int:
    if node["bytes"] == 0:  # only another name for the same bytes
        return 0
    return sum(math.prod(shape) for shape, _ in node["outputs"])


def _bytes(node: Node) -> int:
    if node["bytes"] == 0:
        return 0
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in node["outputs"])


# ---- Rows


@dataclass
class _Draft:
    """A row in the making: the nodes that it stands for, in order."""

    layer: str
    kinds: list[str]
    nodes: list[int] = field(default_factory=list)


def _rows(recording: _Recording, net: Module, depth: int | None, compact: bool) -> list[Row]:
    modules = {} if isinstance(net, FileModule) else dict(net.named_modules())
    drafts: dict[Any, _Draft] = {}
    key_of: dict[int, Any] = {}
    for index in recording.data_nodes():
        number = recording.owner.get(index)
        call = None if number is None else recording.calls[number]
        key: Any = ("op", index) if number is None else ("call", number)
        layer = recording.nodes[index]["name"] if call is None else call.path or type(call.module).__name__
        kind = _op_kind(recording.nodes[index]["op"]) if call is None else type(call.module).__name__
        if depth is not None:
            key = layer = ".".join(layer.split(".")[:depth])
            kind = type(modules[layer]).__name__ if layer in modules else kind
        draft = drafts.setdefault(key, _Draft(layer, [kind]))
        draft.nodes.append(index)
        draft.kinds += [kind] if kind not in draft.kinds else []
        key_of[index] = key
    over = {i: recording.may_overwrite(i) for i in key_of} if compact else {}
    overwriting = {i for i, source in over.items() if source is not None}
    for key, draft in list(drafts.items()):
        # Layers that do nothing but change another's result in place belong to its row.
        source = over.get(draft.nodes[0])
        if source is not None and overwriting.issuperset(draft.nodes):
            host = drafts[key_of[source]]
            host.nodes += draft.nodes
            host.kinds += [kind for kind in draft.kinds if kind not in host.kinds]
            key_of.update(dict.fromkeys(draft.nodes, key_of[source]))
            del drafts[key]
    counted: set[int] = set()
    return [_row(draft, recording, overwriting, counted) for draft in drafts.values()]


def _op_kind(op: Any) -> str:
    """Name of an op; of an activation, which one."""
    return str(op.attributes()["kind"]) if op.name in ("activation", "unary", "binary") else str(op.name)


def _row(draft: _Draft, recording: _Recording, overwriting: set[int], counted: set[int]) -> Row:
    nodes = recording.nodes
    written = [index for index in draft.nodes if index not in overwriting]
    # A map that is flattened is still that layer's map.
    order = ("reshape", "transpose")
    named = [i for i in draft.nodes if not (i in overwriting and nodes[i]["op"].name in order)] or draft.nodes
    result = named[-1]
    seen = recording.fields[result]
    parameters, weights = _own_parameters(draft, recording, counted)
    return Row(
        layer=draft.layer,
        kind=", ".join(draft.kinds) if len(draft.kinds) <= _SHOWN_KINDS else f"{len(draft.nodes)} ops",
        output=tuple(nodes[result]["outputs"][0][0]),
        activations=sum(_count(nodes[i]) for i in written),
        parameters=parameters,
        weights=weights,
        macs=sum(nodes[i]["macs"] for i in draft.nodes),
        other_flops=sum(nodes[i]["other_flops"] for i in draft.nodes),
        activation_bytes=sum(_bytes(nodes[i]) for i in written),
        gradient_bytes=sum(_bytes(nodes[i]) for i in written if i in recording.with_gradient),
        receptive_field=None if seen is None else seen.size,
        stride=None if seen is None else seen.stride,
        offset=None if seen is None else seen.offset,
        centre=None if seen is None else seen.centre,
        training_only=not any(i in recording.in_use for i in draft.nodes),
    )


def _own_parameters(draft: _Draft, recording: _Recording, counted: set[int]) -> tuple[int, int]:
    """Numbers that can be trained and that no earlier row counted; of them, convolution and dense weights."""
    total = weights = 0
    for index in draft.nodes:
        node = recording.nodes[index]
        for position, symbol in enumerate(node["inputs"]):
            for source in recording.parameters_behind(symbol.node) - counted:
                counted.add(source)
                size = math.prod(recording.nodes[source]["outputs"][0][0])
                total += size
                weights += size if position == 1 and node["op"].name in ("conv2d", "conv2d_grad_input", "dense") else 0
    return total, weights


# ---- Guideline 1


def _bottlenecks(recording: _Recording) -> list[Bottleneck]:
    """Where the volume falls sharply between feature maps that everything has to pass through.

    Branches do not count one by one: what a narrow branch loses, its neighbours or the shortcut carry.
    """
    chain = _passages(recording)
    found = []
    for before, after in pairwise(chain):
        volumes = [math.prod(_map_shape(recording, index)) for index in (before, after)]
        if volumes[1] < BOTTLENECK_RATIO * volumes[0]:
            name = _name(recording, after)
            found.append(Bottleneck(name, volumes[0], volumes[1], volumes[1] / volumes[0]))
    return found


def _map_shape(recording: _Recording, index: int) -> tuple[int, ...]:
    return tuple(recording.nodes[index]["outputs"][0][0][1:])


def _name(recording: _Recording, index: int) -> str:
    number = recording.owner.get(index)
    return str(recording.nodes[index]["name"] if number is None else recording.calls[number].path)


def _passages(recording: _Recording) -> list[int]:
    """Feature maps (more than one position) that every path from the input to the result goes through, in order."""
    flow = [i for i in sorted(recording.fields) if i in recording.in_use]
    last_use: dict[int, int] = {}
    for index in flow:
        for source in recording.sources(index):
            last_use[source] = index
    passages, open_until = [], -1
    for index in flow:
        # Nothing made before is read after this node.
        if open_until <= index:
            shape = _map_shape(recording, index)
            if len(shape) == 3 and shape[0] * shape[1] > 1:
                passages.append(index)
        open_until = max(open_until, last_use.get(index, -1))
    return passages
