"""Tensors of an ONNX graph as they lie in a graph of pycnn: images channels last, whatever the file says.

A `View` has the axes that the file speaks of and a symbol whose axes lie in another order. Transposing a view costs
nothing; reshaping it keeps the order where that is possible. So the order in which a network's images lie is chosen
where they are made, and data is moved only where an operator cannot read what is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.tracing import Symbol

__all__ = ["IMAGE", "View", "align"]

#: (N, H, W, C), in axes of (N, C, H, W).
IMAGE = (0, 2, 3, 1)


class View:
    """A tensor of the file's shape.

    Args:
        symbol: What holds its numbers: a `Symbol`, or while exporting a value of the file, which has ``shape``,
            ``transpose`` and ``reshape``.
        axes: For each axis of the symbol the axis of the view that it is. Axes of size 1 may be left out.
        shape: Sizes of the view.

    Attributes:
        scale: Of a quantized tensor, which stays floating-point here: scale and zero point; else None.
        logical: Whether its numbers are truth values, 1 and 0.
        held: The element type of integers whose numbers float32 holds here; "" of floating-point numbers.
        made: How its numbers were made of another view's, for nodes that can be joined; see `_operators/_chains.py`.
    """

    __slots__ = ("_orders", "axes", "held", "logical", "made", "scale", "shape", "symbol")

    def __init__(self, symbol: Any, axes: Sequence[int], shape: Sequence[int]) -> None:
        self.symbol, self.axes, self.shape = symbol, tuple(axes), tuple(shape)
        self.scale: Any = None
        self.logical = False
        self.held = ""
        self.made: tuple[Any, ...] | None = None
        self._orders: dict[tuple[int, ...], Any] = {}

    @classmethod
    def plain(cls, symbol: Any) -> View:
        """A view of a symbol as it is."""
        return cls(symbol, range(len(symbol.shape)), symbol.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def as_plain(self) -> Any:
        """A symbol with the view's own axes in their order."""
        return self.in_order(range(self.rank))

    def in_order(self, order: Sequence[int]) -> Any:
        """A symbol whose axes are these axes of the view; those left out must have size 1."""
        order = tuple(order)
        known = self._orders.get(order)
        if known is None:
            known = self._orders[order] = self._make(order)
        return known

    def _make(self, order: tuple[int, ...]) -> Any:
        if order == self.axes:
            return self.symbol
        wide = [axis for axis in order if self.shape[axis] != 1]
        return resized(self._permuted(wide), [self.shape[axis] for axis in order])

    def _permuted(self, wide: Sequence[int]) -> Any:
        """The symbol, transposed only if its axes of other sizes than 1 do not lie in this order."""
        if [axis for axis in self.axes if self.shape[axis] != 1] == list(wide):
            return self.symbol
        # Axes of size 1 stay in front of what they stand in front of; the first one, the batch's, stays first.
        rank = {axis: place for place, axis in enumerate(wide)}
        lonely = [axis for axis in self.axes if self.shape[axis] == 1]
        first = [axis for axis in lonely if self.axes[0] == axis]
        order = first + sorted((axis for axis in self.axes if axis in rank), key=rank.__getitem__)
        order += [axis for axis in lonely if axis not in first]
        return _transposed(self.symbol, [self.axes.index(axis) for axis in order])

    # ---- Other axes, the same numbers

    def transposed(self, permutation: Sequence[int]) -> View:
        """The view with axis i being axis permutation[i] of this one; nothing is moved."""
        place = {old: new for new, old in enumerate(permutation)}
        return View(self.symbol, [place[axis] for axis in self.axes], [self.shape[axis] for axis in permutation])

    def reshaped(self, shape: Sequence[int]) -> View:
        """The view with other axes and as many elements, in the file's row-major order.

        Axes that stay next to each other go on lying where they lie.
        """
        shape = tuple(shape)
        groups = _groups(self.shape, shape, keep_first=0 in self.axes)
        place = {axis: position for position, axis in enumerate(self.axes)}
        groups.sort(key=lambda group: min((place[axis] for axis in group[0]), default=-1))
        old = [axis for group in groups for axis in group[0]]
        new = [axis for group in groups for axis in group[1]]
        symbol = self._permuted([axis for axis in old if self.shape[axis] != 1])
        return View(resized(symbol, [shape[axis] for axis in new]), new, shape)

    def widened(self, rank: int) -> View:
        """The view with axes of size 1 in front."""
        more = rank - self.rank
        return View(self.symbol, [axis + more for axis in self.axes], (1,) * more + self.shape) if more else self


def resized(symbol: Any, sizes: Sequence[int]) -> Any:
    """The symbol with other sizes; the first one, if it stays, is written so that other batches have theirs."""
    sizes = list(sizes)
    if tuple(sizes) == tuple(symbol.shape):
        return symbol
    if sizes and symbol.shape and sizes[0] == symbol.shape[0]:
        sizes[0] = 0
    return functional.reshape(symbol, shape=sizes) if isinstance(symbol, Symbol) else symbol.reshape(sizes)


def _transposed(symbol: Any, permutation: Sequence[int]) -> Any:
    if isinstance(symbol, Symbol):
        return functional.transpose(symbol, permutation=permutation)
    return symbol.transpose(permutation)


def _groups(
    old: tuple[int, ...], new: tuple[int, ...], *, keep_first: bool
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which axes become which: the finest cut into runs of as many elements; axes of size 1 are left out."""
    result: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    first = bool(keep_first and old and new and old[0] == new[0])
    if first:
        result.append(((0,), (0,)))
    a = [axis for axis in range(first, len(old)) if old[axis] != 1]
    b = [axis for axis in range(first, len(new)) if new[axis] != 1]
    if 0 in old:
        # Without elements any cut will do.
        rest = (tuple(a), tuple(b))
        return [*result, rest] if a or b else result
    i = j = 0
    while i < len(a) or j < len(b):
        begin_a, begin_b, count_a, count_b = i, j, 1, 1
        while i == begin_a or j == begin_b or count_a != count_b:
            if count_a <= count_b and i < len(a):
                count_a *= old[a[i]]
                i += 1
            else:
                count_b *= new[b[j]]
                j += 1
        result.append((tuple(a[begin_a:i]), tuple(b[begin_b:j])))
    return result


def align(views: Sequence[View]) -> tuple[list[Any], tuple[int, ...], tuple[int, ...]]:
    """Symbols that NumPy's broadcasting joins as the views' axes say.

    Returns:
        The symbols, and axes and shape of a view of their result.

    Raises:
        ValueError: The shapes do not go together.
    """
    shape = np.broadcast_shapes(*(view.shape for view in views))
    wide = [view.widened(len(shape)) for view in views]
    main = max(wide, key=lambda view: math.prod(view.shape))
    order = list(main.axes)
    for axis in sorted({axis for view in wide for axis, size in enumerate(view.shape) if size != 1}):
        if axis not in order:
            order.append(axis)
    if len(order) > len(main.axes) and sorted(order) != order:
        order = list(IMAGE) if len(shape) == 4 and main.axes[-1:] == (1,) else list(range(len(shape)))
    symbols = []
    for view in wide:
        # Axes in front that a view does not have are there without being written.
        own = order
        while view is not main and own and own[0] not in view.axes:
            own = own[1:]
        symbols.append(view.in_order(own))
    return symbols, tuple(order), shape
