"""What convolutions and poolings share: rows, images and volumes, and how windows lie on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pycnn.onnx._network import Node
from pycnn.onnx._view import IMAGE, View

__all__ = ["VOLUME", "Windows", "as_images", "from_images", "part"]

#: (N, D, H, W, C), in axes of (N, C, D, H, W).
VOLUME = (0, 2, 3, 4, 1)


def as_images(node: Node, view: View, what: str = "input") -> View:
    """The view as one of (N, C, H, W); rows of (N, C, L) become images of height 1.

    Raises:
        UnsupportedError: It has another number of axes.
    """
    if view.rank == 3:
        n, c, length = view.shape
        return view.reshaped((n, c, 1, length))
    if view.rank != 4:
        raise node.unsupported(
            f"{what} of shape {view.shape}; supported are (N, C, L), (N, C, H, W) and (N, C, D, H, W)"
        )
    return view


def from_images(symbol: Any, rank: int) -> View:
    """A view of images that lie channels last, with as many axes as the node's input had."""
    n, h, w, c = symbol.shape
    view = View(symbol, IMAGE, (n, c, h, w))
    return view.reshaped((n, c, w)) if rank == 3 else view


def part(node: Node, axes: Sequence[int]) -> Node:
    """The node with its attributes of some of a volume's three axes only.

    Raises:
        ArgumentError: An attribute has not three numbers, or six.
    """
    attributes = dict(node.attributes)
    for name in ("kernel_shape", "strides", "dilations", "pads", "output_padding"):
        if name not in attributes:
            continue
        values, both = attributes[name], (0, 3) if name == "pads" else (0,)
        if len(values) != 3 * len(both):
            raise node.bad_argument(f"{name} {tuple(values)} must be {3 * len(both)} numbers")
        attributes[name] = [values[side + axis] for side in both for axis in axes]
    if "output_shape" in attributes:
        wanted = attributes["output_shape"][-3:]
        if len(wanted) != 3:
            raise node.bad_argument(f"output_shape {tuple(wanted)} must be 3 numbers")
        attributes["output_shape"] = [wanted[axis] for axis in axes]
    return replace(node, attributes=attributes)


@dataclass(frozen=True)
class Windows:
    """How windows lie on an image, each pair (vertical, horizontal).

    Attributes:
        kernel: Size of the window.
        stride: Distance of the windows.
        dilation: Distance of a window's cells.
        padding: (top, bottom, left, right).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, node: Node, size: Sequence[int], kernel: Sequence[int], rank: int) -> Windows:
        """Read the attributes of a node.

        Args:
            node: A convolution or pooling.
            size: (H, W) of the image.
            kernel: Of the window, one number for each axis that the node's input has.
            rank: Axes of the node's input.

        Raises:
            ArgumentError: An attribute is out of range.
        """
        axes = rank - 2
        kernel = _pair(node, "kernel_shape", kernel, axes)
        stride = _pair(node, "strides", node.integers("strides", (1,) * axes), axes)
        dilation = _pair(node, "dilations", node.integers("dilations", (1,) * axes), axes)
        pads = node.integers("pads", (0,) * (2 * axes))
        if len(pads) != 2 * axes or any(pad < 0 for pad in pads):
            raise node.bad_argument(f"pads {pads} must be {2 * axes} numbers, none negative")
        auto = node.text("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER", "VALID") and any(pads):
            raise node.bad_argument(f"auto_pad {auto} does not go with pads {pads}")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            sides = [_same(auto, *of) for of in zip(size, kernel, stride, dilation, strict=True)]
            padding = (*sides[0], *sides[1])
        elif auto in ("NOTSET", "VALID"):
            before, after = ((0,) * (2 - axes) + pads[:axes], (0,) * (2 - axes) + pads[axes:])
            padding = (before[0], after[0], before[1], after[1])
        else:
            raise node.bad_argument(f"auto_pad {auto!r} is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
        return cls(kernel, stride, dilation, padding)

    @classmethod
    def spread(
        cls, node: Node, size: Sequence[int], kernel: Sequence[int], rank: int
    ) -> tuple[Windows, tuple[int, int]]:
        """Read the attributes of a transposed convolution.

        Returns:
            The windows, and the pixels that the result has more at the bottom and right.

        Raises:
            ArgumentError: An attribute is out of range.
        """
        axes = rank - 2
        auto = node.text("auto_pad", "NOTSET")
        wanted = node.integers("output_shape", ())
        same = auto in ("SAME_UPPER", "SAME_LOWER")
        if same or wanted:
            # The padding follows from the size of the result.
            node = replace(node, attributes={**node.attributes, "auto_pad": "VALID", "pads": [0] * (2 * axes)})
        windows = cls.of(node, size, kernel, rank)
        more = node.integers("output_padding", (0,) * axes)
        if len(more) != axes or any(extra < 0 for extra in more):
            raise node.bad_argument(f"output_padding {more} must be {axes} numbers, none negative")
        above, left = (more[0], more[1]) if axes == 2 else (0, more[0])
        if not (same or wanted):
            return windows, (above, left)
        wanted = (
            wanted[-axes:]
            if wanted
            else tuple(n * s for n, s in zip(size[-axes:], windows.stride[-axes:], strict=True))
        )
        if len(wanted) != axes:
            raise node.bad_argument(f"output_shape {wanted} must be {axes} numbers")
        padding: list[int] = []
        extra = [above, left]
        for axis, target in enumerate((1,) * (2 - axes) + tuple(wanted)):
            total = (size[axis] - 1) * windows.stride[axis] + windows.reach(axis) + extra[axis] - target
            if total < 0:
                extra[axis], total = extra[axis] - total, 0
            half = total // 2
            padding += [half, total - half] if auto == "SAME_UPPER" else [total - half, half]
        top, bottom, before, after = padding
        return replace(windows, padding=(top, bottom, before, after)), (extra[0], extra[1])

    def turned(self) -> Windows:
        """The windows of a row as those of a column."""
        top, bottom, left, right = self.padding
        return Windows(self.kernel[::-1], self.stride[::-1], self.dilation[::-1], (left, right, top, bottom))

    def count(self, axis: int, size: int, *, ceil: bool) -> int:
        """Windows along an axis; with `ceil` also one that reaches over the end, if it begins before it."""
        before, after = self.padding[2 * axis : 2 * axis + 2]
        room = size + before + after - self.reach(axis)
        stride = self.stride[axis]
        count = (-(-room // stride) if ceil else room // stride) + 1
        return count - 1 if ceil and (count - 1) * stride >= size + before else count

    def reach(self, axis: int) -> int:
        """Cells from the first to the last of a window."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def padding_to(self, size: Sequence[int], counts: Sequence[int]) -> tuple[int, int, int, int]:
        """Padding with which exactly so many windows fit."""
        after = []
        for axis, count in enumerate(counts):
            end = (count - 1) * self.stride[axis] + self.reach(axis)
            after.append(max(0, end - size[axis] - self.padding[2 * axis]))
        return self.padding[0], after[0], self.padding[2], after[1]


def _pair(node: Node, name: str, values: Sequence[int], axes: int) -> tuple[int, int]:
    if len(values) != axes or any(not 1 <= value < 2**31 for value in values):
        raise node.bad_argument(f"{name} {tuple(values)} must be {axes} positive numbers")
    first, second = values if axes == 2 else (1, *values)
    return int(first), int(second)


def _same(auto: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    less, more = total // 2, total - total // 2
    return (less, more) if auto == "SAME_UPPER" else (more, less)
