"""Hypothesis strategies of shapes and arrays; they need the package `hypothesis`.

Sizes are small and often awkward: one, just below and above a vector's lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = ["batches", "channels", "images", "integer_arrays", "windows"]


def channels(*, max_value: int = 40) -> st.SearchStrategy[int]:
    """Numbers of channels: 1, powers of two and their neighbours."""
    awkward = [c for c in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33) if c <= max_value]
    return st.one_of(st.sampled_from(awkward), st.integers(1, max_value))


def batches() -> st.SearchStrategy[int]:
    """Batch sizes, the empty one among them."""
    return st.sampled_from([0, 1, 2, 3])


@st.composite
def images(draw: Any, *, max_size: int = 12, max_channels: int = 40) -> tuple[int, int, int, int]:
    """Shapes (N, H, W, C)."""
    side = st.one_of(st.just(1), st.integers(1, max_size))
    return draw(batches()), draw(side), draw(side), draw(channels(max_value=max_channels))


@st.composite
def windows(draw: Any, height: int, width: int, *, max_kernel: int = 5) -> dict[str, Any]:
    """Arguments kernel_size, stride, padding (all four sides) and dilation that leave at least one output pixel."""
    result: dict[str, Any] = {"stride": (), "dilation": (), "kernel_size": (), "padding": ()}
    for size in (height, width):
        kernel = draw(st.integers(1, max_kernel))
        dilation = draw(st.integers(1, 3))
        extent = (kernel - 1) * dilation + 1
        missing = max(0, extent - size)
        before = draw(st.integers(0, missing + 2))
        after = draw(st.integers(max(0, missing - before), missing + 2))
        result["kernel_size"] += (kernel,)
        result["stride"] += (draw(st.integers(1, kernel + 2)),)
        result["dilation"] += (dilation,)
        result["padding"] += (before, after)
    return result


@st.composite
def integer_arrays(draw: Any, shape: tuple[int, ...], *, bound: int = 4) -> np.ndarray:
    """float32 arrays of whole numbers from -bound to bound: sums of their products are exact in any order."""
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(-bound, bound + 1, shape).astype(np.float32)
