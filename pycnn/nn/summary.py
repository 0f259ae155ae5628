"""The table of a net: layers, outputs, parameters, multiply-adds, memory, receptive field.

The net is recorded once; every number follows from the graph, and the memory from the compiler's plan. One MAC is one
multiply-add of a convolution or dense layer, one FLOP is half of it; all other arithmetic is counted beside them.
`pycnn.nn._summarize` fills the table, this file shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from pycnn.nn._memory import Budget, MemoryPlan

__all__ = ["BOTTLENECK_RATIO", "Bottleneck", "Row", "Share", "Summary"]

#: Guideline 1 ("decrease the data volume H x W x C slowly"): a fall to less than this part within one layer is
#: reported. A 2x2 pool keeps 1/4, or a little less where an odd size is rounded down; neither counts as sharp.
BOTTLENECK_RATIO = 0.2


@dataclass(frozen=True)
class Row:
    """One layer, as often as it is called.

    Attributes:
        layer: Dotted name, or the name of an op that ``forward`` calls itself.
        kind: Class of the layer or name of the op.
        output: Shape of the result with the batch axis.
        activations: Numbers that the layer's ops write.
        parameters: Numbers that can be trained, counted at the first call.
        weights: Of them, those of convolutions and dense layers without biases.
        macs: Multiply-adds of convolutions and dense layers.
        other_flops: Additions, comparisons and multiplications of everything else.
        activation_bytes: Size of the activations.
        gradient_bytes: Size of their gradients while training; 0 before the first parameter that is trained.
        receptive_field: (height, width) in pixels of the input that one result sees; None behind
            layers that see the whole image.
        stride: (vertical, horizontal) in pixels of the input between neighbouring results.
        offset: First row and column that the first result sees; negative in the padding.
        centre: Row and column of the middle of what the first result sees.
        training_only: The net's result does not depend on it: an auxiliary head. Its parameters count in the totals,
            its arithmetic and activations do not.
    """

    layer: str
    kind: str
    output: tuple[int, ...]
    activations: int
    parameters: int
    weights: int
    macs: int
    other_flops: int
    activation_bytes: int
    gradient_bytes: int
    receptive_field: tuple[int, int] | None
    stride: tuple[int, int] | None
    offset: tuple[int, int] | None
    centre: tuple[float, float] | None
    training_only: bool = False


@dataclass(frozen=True)
class Share:
    """A layer's part of a total.

    Attributes:
        layer: Its name.
        count: How many numbers it has.
        share: Part of the total, 0..1.
    """

    layer: str
    count: int
    share: float


@dataclass(frozen=True)
class Bottleneck:
    """A layer that cuts the data volume sharply.

    Attributes:
        layer: Its name.
        volume_before: H x W x C of the feature map before it.
        volume_after: H x W x C of its result.
        ratio: After / before.
    """

    layer: str
    volume_before: int
    volume_after: int
    ratio: float


@dataclass(frozen=True)
class Summary:
    """What `Module.summary` returns: prints as a table, shows as HTML, has `to_dict`.

    Attributes:
        name: Class of the net.
        input_shape: With the batch axis.
        rows: The layers in the order in which they are called.
        parameters: Numbers that can be trained.
        weights: Of them, those of convolutions and dense layers without biases.
        training_only_parameters: Of them, those of auxiliary heads.
        frozen: How many of them are frozen.
        buffers: Numbers that are kept but never trained.
        macs: Multiply-adds in total.
        other_flops: All other arithmetic in total.
        other_flops_by_group: The same for "activation", "pooling", "normalization" and "other".
        input_activations: Numbers in the batch itself.
        activations: Sum over the layers, without the input.
        activation_bytes: Sum over the layers; a program that reuses memory needs less.
        gradient_bytes: Sum over the layers.
        inference: Memory of a program that predicts, as planned by the compiler.
        training: Memory of a program that trains; None for a net that cannot be trained.
        no_training: Why not.
        budget: The largest batches in the memory asked for; None if none was.
        most_activations: The layers that write the most.
        most_parameters: The layers that hold the most.
        bottlenecks: Layers where the data volume of the feature maps that everything passes through falls to less than
            `BOTTLENECK_RATIO` (guideline 1).
    """

    name: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    weights: int
    training_only_parameters: int
    frozen: int
    buffers: int
    macs: int
    other_flops: int
    other_flops_by_group: dict[str, int]
    input_activations: int
    activations: int
    activation_bytes: int
    gradient_bytes: int
    inference: MemoryPlan
    training: MemoryPlan | None
    no_training: str | None
    budget: Budget | None
    most_activations: tuple[Share, ...]
    most_parameters: tuple[Share, ...]
    bottlenecks: tuple[Bottleneck, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain Python objects."""
        return asdict(self)

    def _cells(self) -> list[list[str]]:
        first = ["input", "", str(self.input_shape), f"{self.input_activations:,}", *["0"] * 3, "", "", "", "", ""]
        return [first, *(_row_cells(row) for row in self.rows)]

    def _totals(self) -> list[str]:
        return [
            "total",
            "",
            "",
            f"{self.activations + self.input_activations:,}",
            f"{self.parameters:,}",
            f"{self.weights:,}",
            f"{self.macs:,}",
            _kib(self.activation_bytes),
            _kib(self.gradient_bytes),
            "",
            "",
            "",
        ]

    def _footer(self) -> list[str]:
        """Lines of words and numbers under the table."""
        heads = []
        if any(row.training_only for row in self.rows):
            heads = [
                f"  {self.training_only_parameters:,} of them in layers for training only (*), whose arithmetic and "
                "activations do not count"
            ]
        groups = ", ".join(f"{name} {flops / 1e6:,.3f}" for name, flops in self.other_flops_by_group.items() if flops)
        lines = [
            "activations: numbers, with the input in the total; weights: parameters without biases and norms",
            "field, stride, centre of the receptive field: pixels of the input; branches combine by the maximum field",
            f"parameters: {self.parameters:,} = {_size(4 * self.parameters)} in float32, "
            f"{self.frozen:,} of them frozen; buffers {self.buffers:,}",
            *heads,
            f"multiply-adds: {self.macs / 1e6:,.3f} MMAC = {2 * self.macs / 1e6:,.3f} MFLOP (1 MAC = 2 FLOP)",
            f"other arithmetic: {self.other_flops / 1e6:,.3f} MFLOP" + (f" ({groups})" if groups else ""),
            f"activations: {_size(self.activation_bytes)}, gradients: {_size(self.gradient_bytes)}, "
            "if no two shared a place",
            *_plan_lines(self.inference),
            *(_plan_lines(self.training) if self.training else [f"no training: {self.no_training}"]),
        ]
        if self.budget is not None:
            training = "none" if self.budget.training_batch is None else f"{self.budget.training_batch:,}"
            lines.append(
                f"largest batch in {_size(self.budget.bytes)}: inference {self.budget.inference_batch:,}, "
                f"training {training}"
            )
        lines += [_share_line("most activations", self.most_activations)] if self.most_activations else []
        lines += [_share_line("most parameters", self.most_parameters)] if self.most_parameters else []
        return [*lines, *self._bottleneck_lines()]

    def _bottleneck_lines(self) -> list[str]:
        rule = f"to less than {BOTTLENECK_RATIO:g} in one layer"
        if not self.bottlenecks:
            return [f"tight bottlenecks (the volume HxWxC of feature maps falls {rule}): none"]
        return [
            f"tight bottlenecks (the volume HxWxC of feature maps falls {rule}):",
            *(f"  {b.layer}: {b.volume_before:,} -> {b.volume_after:,}, x {b.ratio:.3f}" for b in self.bottlenecks),
        ]

    def __str__(self) -> str:
        """The table as text."""
        cells = [*self._cells(), self._totals()]
        widths = [max(len(row[i]) for row in [list(_HEAD), *cells]) for i in range(len(_HEAD))]

        def line(row: Sequence[str]) -> str:
            return "  ".join(
                cell.ljust(width) if i < _LEFT else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        rule = "-" * len(line(["-" * width for width in widths]))
        body = [line(row) for row in cells]
        return "\n".join([self.name, line(_HEAD), rule, *body[:-1], rule, body[-1], rule, *self._footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for notebooks."""

        def line(row: Sequence[str], tag: str) -> str:
            style = ['style="text-align:left"' if i < _LEFT else 'style="text-align:right"' for i in range(len(row))]
            return (
                "<tr>" + "".join(f"<{tag} {s}>{escape(c)}</{tag}>" for s, c in zip(style, row, strict=True)) + "</tr>"
            )

        rows = "".join(line(row, "td") for row in self._cells())
        footer = "<br/>".join(escape(text) for text in self._footer())
        return (
            f"<table><caption>{escape(self.name)}</caption><thead>{line(_HEAD, 'th')}</thead>"
            f"<tbody>{rows}</tbody><tfoot>{line(self._totals(), 'th')}</tfoot></table><p>{footer}</p>"
        )

    def to_html(self) -> str:
        """The table as a page of its own, without references to anything outside."""
        style = (
            "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
            "td,th{padding:2px 10px;border-bottom:1px solid #ddd}"
            "caption{font-weight:bold;text-align:left;padding:6px 0}"
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{escape(self.name)}</title>'
            f"<style>{style}</style></head><body>{self._repr_html_()}</body></html>\n"
        )


_HEAD = (
    "layer",
    "kind",
    "output",
    "activations",
    "parameters",
    "weights",
    "MACs",
    "act. KiB",
    "grad. KiB",
    "field",
    "stride",
    "centre",
)
# The first columns are words.
_LEFT = 3


def _row_cells(row: Row) -> list[str]:
    return [
        row.layer + (" *" if row.training_only else ""),
        row.kind,
        str(row.output),
        f"{row.activations:,}",
        f"{row.parameters:,}",
        f"{row.weights:,}",
        f"{row.macs:,}",
        _kib(row.activation_bytes),
        _kib(row.gradient_bytes),
        "all" if row.receptive_field is None else _pair(row.receptive_field),
        "-" if row.stride is None else _pair(row.stride),
        "-" if row.centre is None else _pair(row.centre),
    ]


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g}x{pair[1]:g}"


def _kib(count: int) -> str:
    return f"{count / 1024:,.1f}"


def _size(count: int) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:,.2f} {unit}"
    return f"{count} bytes"


def _share_line(title: str, shares: Sequence[Share]) -> str:
    return f"{title}: " + ", ".join(f"{s.layer} {s.count:,} ({100 * s.share:.1f} %)" for s in shares)


def _plan_lines(plan: MemoryPlan) -> list[str]:
    what = "inference" if plan.objective is None else f"training ({plan.objective})"
    return [
        f"memory of {what}, batch {plan.batch}: {_size(plan.total_bytes)}, "
        f"from the compiler's plan for {plan.isa}, {plan.threads} threads",
        f"  variables {_size(plan.variable_bytes)}, prepared weights {_size(plan.prepared_bytes)}, "
        f"arena {_size(plan.arena_bytes)}, scratch {_size(plan.scratch_bytes)}, batch {_size(plan.input_bytes)}",
    ]
