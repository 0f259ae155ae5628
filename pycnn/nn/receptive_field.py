"""Which pixels of the input a value inside a net depends on, from the recorded graph alone.

Every window (convolution, pool) widens the field by `dilation * (kernel - 1)` steps of its input and multiplies the
step by its stride; padding moves the field of the first unit up and left. Branches that meet give the smallest field
that holds those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn.errors import ArgumentError

__all__ = ["ReceptiveField", "receptive_fields"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the units of one feature map see; pairs are (vertical, horizontal), in pixels of the input.

    Attributes:
        size: Height and width of the field.
        stride: Distance between the fields of neighbouring units.
        offset: First row and first column of the field of unit (0, 0); negative where it reaches into the padding.

    Example:
        >>> ReceptiveField(size=(5, 5), stride=(2, 2), offset=(-2, -2)).box((1, 1))
        (0, 0, 5, 5)
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    offset: Pair = (0, 0)

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle of the field of unit (0, 0), counted in pixel centres."""
        return (self.offset[0] + (self.size[0] - 1) / 2, self.offset[1] + (self.size[1] - 1) / 2)

    def box(self, unit: Pair, image_size: Pair | None = None) -> tuple[int, int, int, int]:
        """Field of one unit as (top, left, bottom, right), the last two exclusive.

        Args:
            unit: Row and column in the feature map.
            image_size: (height, width); what lies outside is cut off.

        Raises:
            ArgumentError: The field lies outside of the image altogether: there is no such unit.
        """
        top, left = (self.offset[i] + unit[i] * self.stride[i] for i in (0, 1))
        bottom, right = top + self.size[0], left + self.size[1]
        if image_size is None:
            return top, left, bottom, right
        height, width = image_size
        if bottom <= 0 or right <= 0 or top >= height or left >= width:
            raise ArgumentError(f"receptive field: unit {unit} sees nothing of an image of {height} x {width}")
        return max(top, 0), max(left, 0), min(bottom, height), min(right, width)

    def through(
        self, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int], first: Pair
    ) -> ReceptiveField:
        """Field behind a window.

        Args:
            window: Height and width of the kernel.
            stride: Of the window.
            dilation: Of the window.
            first: Position of the first window's first cell in the input: minus the padding.
        """
        spans = [d * (k - 1) for d, k in zip(dilation, window, strict=True)]
        return ReceptiveField(
            (self.size[0] + spans[0] * self.stride[0], self.size[1] + spans[1] * self.stride[1]),
            (self.stride[0] * stride[0], self.stride[1] * stride[1]),
            (self.offset[0] + first[0] * self.stride[0], self.offset[1] + first[1] * self.stride[1]),
        )


def merge(fields: Sequence[ReceptiveField | None]) -> ReceptiveField | None:
    """The smallest field that holds all; None (the whole image) where one does or their strides differ."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or len({field.stride for field in known}) > 1:
        return None
    first = [min(field.offset[i] for field in known) for i in (0, 1)]
    last = [max(field.offset[i] + field.size[i] for field in known) for i in (0, 1)]
    return ReceptiveField((last[0] - first[0], last[1] - first[1]), known[0].stride, (first[0], first[1]))


def receptive_fields(nodes: Sequence[dict[str, Any]]) -> dict[int, ReceptiveField | None]:
    """Field of every node that depends on an input; None where it is the whole image.

    Args:
        nodes: `Graph.nodes()` of a recorded, not specialised net.
    """
    fields: dict[int, ReceptiveField | None] = {}
    reordered = _reordered(nodes)
    for index, node in enumerate(nodes):
        if node["kind"] == "input":
            fields[index] = ReceptiveField()
        if node["kind"] != "op":
            continue
        sources = [fields[s.node] for s in node["inputs"] if s.node in fields]
        if not sources:
            continue
        if index in reordered or (node["op"].name == "reshape" and node["inputs"][0].node in reordered):
            fields[index] = fields[node["inputs"][0].node]
            continue
        field = merge(sources)
        fields[index] = None if field is None else _behind(node, nodes, field)
    return fields


def _shape(symbol: Any, nodes: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(nodes[symbol.node]["outputs"][symbol.output][0])


def _reordered(nodes: Sequence[dict[str, Any]]) -> set[int]:
    """Transpositions of maps that only become vectors in another order of their axes: each number sees what it saw."""
    found: dict[int, bool] = {}
    for node in nodes:
        for symbol in node["inputs"]:
            flat = node["kind"] == "op" and node["op"].name == "reshape" and len(node["outputs"][0][0]) == 2
            found[symbol.node] = found.get(symbol.node, True) and flat
    return {
        index
        for index, flat in found.items()
        if flat
        and nodes[index]["kind"] == "op"
        and nodes[index]["op"].name == "transpose"
        and len(nodes[index]["outputs"][0][0]) == 4
    }


def _behind(node: dict[str, Any], nodes: Sequence[dict[str, Any]], field: ReceptiveField) -> ReceptiveField | None:
    name, attributes = node["op"].name, node["op"].attributes()
    before = _shape(node["inputs"][0], nodes)
    after = tuple(node["outputs"][0][0])
    if name in ("conv2d", "max_pool2d", "avg_pool2d"):
        window = attributes["kernel_size"] if name != "conv2d" else _shape(node["inputs"][1], nodes)[1:3]
        top, _, left, _ = attributes["padding"]
        return field.through(window, attributes["stride"], attributes.get("dilation", (1, 1)), (-top, -left))
    if name in ("conv2d_grad_input", "resize2d"):
        return None  # fields of neighbouring units are at several distances
    if name == "adaptive_avg_pool2d":
        # Windows of one size at one distance only where the image divides.
        pairs = list(zip(before[1:3], after[1:3], strict=True))
        window = [n // count for n, count in pairs]
        return None if any(n % count for n, count in pairs) else field.through(window, window, (1, 1), (0, 0))
    if name == "pad" and len(before) == 4:
        top, left = attributes["before"][1:3]
        return field.through((1, 1), (1, 1), (1, 1), (-top, -left))
    if name == "slice" and len(before) == 4:
        return field.through((1, 1), (1, 1), (1, 1), tuple(attributes["begin"][1:3]))
    if name == "concat" and len(before) == 4:
        return field if attributes["axis"] in (-1, 3) else None
    if name == "reduce" and len(before) == 4:
        return None if {1, 2} & set(attributes["axes"]) else field
    if name == "reshape" and len(before) == 4 and len(after) > 2:
        return field if after[1:3] == before[1:3] else None
    if name == "transpose" and len(before) == 4:
        return field if tuple(attributes["permutation"][1:3]) == (1, 2) else None
    return None if name == "dense" or name.startswith("global_") else field
