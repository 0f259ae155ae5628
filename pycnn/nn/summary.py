"""The table of a net: layers, outputs, parameters, multiply-adds, memory, receptive field.

The net is recorded once; every number follows from the graph. One MAC is one multiply-add of a
convolution or dense layer, one FLOP is half of it; all other arithmetic is counted beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError
from pycnn.nn.files import GraphModule
from pycnn.nn.module import Call, Module, _first_symbol, watch_calls
from pycnn.tracing import Symbol, trace

__all__ = ["Row", "Summary", "summarize"]

# These only give another name to the same bytes.
_FREE = ("reshape",)


@dataclass(frozen=True)
class Row:
    """One layer, as often as it is called.

    Attributes:
        layer: Dotted name, or the name of an op that ``forward`` calls itself.
        kind: Class of the layer or name of the op.
        output: Shape of the result with the batch axis.
        parameters: Numbers that can be trained, counted at the first call.
        macs: Multiply-adds of convolutions and dense layers.
        other_flops: Additions, comparisons and multiplications of everything else.
        activation_bytes: What the layer's ops write.
        receptive_field: (height, width) in pixels of the input that one result sees; None behind
            layers that see the whole image.
        stride: (vertical, horizontal) in pixels of the input between neighbouring results.
    """

    layer: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    other_flops: int
    activation_bytes: int
    receptive_field: tuple[int, int] | None
    stride: tuple[int, int] | None


@dataclass(frozen=True)
class Summary:
    """What `Module.summary` returns: prints as a table, shows as HTML, has `to_dict`.

    Attributes:
        name: Class of the net.
        input_shape: With the batch axis.
        rows: The layers in the order in which they are called.
        parameters: Numbers that can be trained.
        frozen: How many of them are frozen.
        buffers: Numbers that are kept but never trained.
        macs: Multiply-adds in total.
        other_flops: All other arithmetic in total.
        activation_bytes: Sum over the layers; a program that reuses memory needs less.
    """

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    frozen: int
    buffers: int
    macs: int
    other_flops: int
    activation_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain Python objects."""
        return asdict(self)

    def _cells(self) -> list[list[str]]:
        return [
            [
                row.layer,
                row.kind,
                str(row.output),
                f"{row.parameters:,}",
                f"{row.macs:,}",
                f"{row.activation_bytes / 1024:,.1f}",
                "all" if row.receptive_field is None else _size(row.receptive_field),
                "-" if row.stride is None else _size(row.stride),
            ]
            for row in self.rows
        ]

    def _footer(self) -> list[str]:
        return [
            f"input {self.input_shape}; branches combine by the largest receptive field",
            f"parameters {self.parameters:,} ({4 * self.parameters / 2**20:.2f} MiB float32), "
            f"{self.frozen:,} frozen; buffers {self.buffers:,}",
            f"multiply-adds {self.macs / 1e6:,.3f} MMAC = {2 * self.macs / 1e6:,.3f} MFLOP; "
            f"other arithmetic {self.other_flops / 1e6:,.3f} MFLOP",
            f"activations {self.activation_bytes / 2**20:.2f} MiB; gradients as much again",
        ]

    def __str__(self) -> str:
        """The table as text."""
        cells = self._cells()
        widths = [max(len(row[i]) for row in [list(_HEAD), *cells]) for i in range(len(_HEAD))]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        rule = "-" * len(line(["-" * width for width in widths]))
        body = [line(row) for row in cells]
        return "\n".join([self.name, line(_HEAD), rule, *body, rule, *self._footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(text)}</th>" for text in _HEAD)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells())
        footer = "<br>".join(escape(text) for text in self._footer())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{footer}</p>"


_HEAD = (
    "layer",
    "kind",
    "output",
    "parameters",
    "MACs",
    "activations KiB",
    "field",
    "stride",
)


def _size(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


@dataclass(frozen=True)
class _View:
    """What one value sees of the input image: field and step, per direction; None is everything."""

    field: tuple[int, int] | None = (1, 1)
    step: tuple[int, int] | None = (1, 1)

    def through(self, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> _View:
        if self.field is None or self.step is None:
            return self
        spans = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        return _View(
            (self.field[0] + spans[0] * self.step[0], self.field[1] + spans[1] * self.step[1]),
            (self.step[0] * stride[0], self.step[1] * stride[1]),
        )


def _merge(views: Sequence[_View]) -> _View:
    if not views:
        return _View()
    if any(view.field is None or view.step is None for view in views):
        return _View(None, None)
    fields = [view.field for view in views if view.field]
    steps = [view.step for view in views if view.step]
    return _View(
        (max(f[0] for f in fields), max(f[1] for f in fields)),
        (max(s[0] for s in steps), max(s[1] for s in steps)),
    )


def _views(nodes: Sequence[dict[str, Any]]) -> dict[int, _View]:
    """Receptive field of every node that depends on an input; whole-image ops see everything."""
    views: dict[int, _View] = {}
    for index, node in enumerate(nodes):
        if node["kind"] == "input":
            views[index] = _View()
        if node["kind"] != "op":
            continue
        sources = [views[s.node] for s in node["inputs"] if s.node in views]
        if not sources:
            continue
        view = _merge(sources)
        op = node["op"]
        attributes = op.attributes()
        if op.name == "conv2d":
            window = nodes[node["inputs"][1].node]["outputs"][node["inputs"][1].output][0][1:3]
            view = view.through(window, attributes["stride"], attributes["dilation"])
        elif op.name in ("max_pool2d", "avg_pool2d"):
            view = view.through(
                attributes["kernel_size"],
                attributes["stride"],
                attributes.get("dilation", (1, 1)),
            )
        elif op.name == "dense" or op.name.startswith("global_"):
            view = _View(None, None)
        views[index] = view
    return views


def _claim(call: Call, last: int, nodes: Sequence[dict[str, Any]]) -> list[int]:
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


def _bytes(node: dict[str, Any]) -> int:
    if node["op"].name in _FREE:
        return 0
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in node["outputs"])


def summarize(net: Module, input_shape: tuple[int, ...], batch: int) -> Summary:
    """See `Module.summary`."""
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ArgumentError(f"summary: batch must be an integer of at least 1, got {batch!r}")
    net.build(input_shape)
    with watch_calls() as calls:
        traced = trace(lambda x: _outputs(net(x)), {"x": ((batch, *input_shape), "float32")}, root=net)
    nodes = traced.graph.nodes()
    views = _views(nodes)
    owner: dict[int, int] = {}
    # A loaded net has no layers to call: its nodes are the rows.
    leaves = [call for call in calls if not call.children and not isinstance(call.module, GraphModule)]
    last = -1
    for number, call in enumerate(leaves):
        for index in _claim(call, last, nodes):
            owner.setdefault(index, number)
        last = max([last, *(s.id.node for s in call.outputs)])
    rows = _rows(nodes, views, owner, leaves)
    parameters = dict(net.named_parameters())
    return Summary(
        name=type(net).__name__,
        input_shape=(batch, *input_shape),
        rows=tuple(rows),
        parameters=sum(p.size for p in parameters.values()),
        frozen=sum(p.size for p in parameters.values() if not p.trainable),
        buffers=sum(p.size for _, p in net.named_buffers()),
        macs=sum(row.macs for row in rows),
        other_flops=sum(row.other_flops for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
    )


def _outputs(result: Any) -> Any:
    return result if isinstance(result, Symbol) else _first_symbol(result)


def _rows(
    nodes: Sequence[dict[str, Any]],
    views: dict[int, _View],
    owner: dict[int, int],
    leaves: Sequence[Call],
) -> list[Row]:
    counted: set[int] = set()
    rows: dict[tuple[str, int], Row] = {}
    for index, node in enumerate(nodes):
        if node["kind"] != "op" or index not in views:
            continue
        number = owner.get(index)
        key = ("op", index) if number is None else ("call", number)
        before = rows.get(key)
        view = views[index]
        call = None if number is None else leaves[number]
        rows[key] = Row(
            layer=node["name"] if call is None else call.path or type(call.module).__name__,
            kind=_op_kind(node["op"]) if call is None else type(call.module).__name__,
            output=tuple(node["outputs"][0][0]),
            parameters=before.parameters if before else _own_parameters(node, nodes, call, counted),
            macs=node["macs"] + (before.macs if before else 0),
            other_flops=node["other_flops"] + (before.other_flops if before else 0),
            activation_bytes=_bytes(node) + (before.activation_bytes if before else 0),
            receptive_field=view.field,
            stride=view.step,
        )
    return list(rows.values())


def _op_kind(op: Any) -> str:
    """Name of an op; of an activation, which one."""
    return str(op.attributes()["kind"]) if op.name == "activation" else str(op.name)


def _own_parameters(
    node: dict[str, Any],
    nodes: Sequence[dict[str, Any]],
    call: Call | None,
    counted: set[int],
) -> int:
    if call is None:
        total = 0
        for symbol in node["inputs"]:
            source = nodes[symbol.node]
            if source["kind"] == "parameter" and -symbol.node - 1 not in counted:
                counted.add(-symbol.node - 1)
                total += int(np.prod(source["outputs"][0][0], dtype=np.int64))
        return total
    fresh = [p for p in call.module.parameters() if id(p) not in counted]
    counted.update(id(p) for p in fresh)
    return sum(p.size for p in fresh)
