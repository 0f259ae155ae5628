"""Nodes of a file that is being written, of tensors whose axes may lie in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.onnx._view import View, align
from pycnn.onnx._writer import Value, Writer

__all__ = ["NCHW", "Shape", "as_images", "joined", "mapped"]

#: (N, C, H, W) in axes of (N, H, W, C).
NCHW = (0, 3, 1, 2)

Shape = tuple[int, ...]


def as_images(value: Value) -> View:
    """A view (N, H, W, C) of a value (N, C, H, W)."""
    n, c, h, w = value.shape
    return View(value, NCHW, (n, h, w, c))


def mapped(w: Writer, op: str, view: View, inputs: Sequence[str] = (), **attributes: Any) -> View:
    """Write a function of single elements, in whatever order they lie."""
    value = view.symbol
    return View(w.node(op, [value, *inputs], value.shape, **attributes), view.axes, view.shape)


def joined(w: Writer, op: str, x: list[View], shape: Shape) -> View:
    """Write an operator of tensors that are broadcast."""
    values, axes, _ = align(x)
    return View(w.node(op, values, np.broadcast_shapes(*(value.shape for value in values))), axes, shape)
