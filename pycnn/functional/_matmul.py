"""Products of stacks of matrices, composed of dense layers and grouped convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.errors import ShapeError
from pycnn.functional._basic import broadcast, conv2d, linear, reshape, transpose
from pycnn.functional._run import shape_of


def matmul(a: Any, b: Any) -> Any:
    """Multiply matrices as NumPy does: stacks of them one by one, what is in front of them broadcast.

    Args:
        a: (..., M, K), or a vector (K).
        b: (..., K, N), or a vector (K).

    Shape:
        (..., M, N) without the axis that a vector lacks.

    Raises:
        ShapeError: Inner sizes differ, or what is in front does not go together.

    Example:
        >>> import numpy as np
        >>> matmul(np.arange(6, dtype=np.float32).reshape(2, 1, 3), np.ones((3, 1), np.float32)).ravel().tolist()
        [3.0, 12.0]
    """
    first, second = shape_of(a), shape_of(b)
    if not first or not second or first[-1] != second[-2 if len(second) > 1 else 0]:
        raise ShapeError(f"matmul: factors are {first} and {second}, expected (..., M, K) and (..., K, N)")
    rows, columns = first[-2:-1], second[-1:] if len(second) > 1 else ()
    try:
        batch = np.broadcast_shapes(first[:-2], second[:-2])
    except ValueError:
        raise ShapeError(f"matmul: stacks {first[:-2]} and {second[:-2]} of matrices do not go together") from None
    inner, count = first[-1], math.prod(batch)
    m, n = math.prod(rows), math.prod(columns)
    turned = b if len(second) < 2 else _swapped(b)
    if math.prod(second[:-2]) == 1:
        # One matrix for all rows.
        product = linear(_with_shape(a, (*first[:-2], m, inner)), _with_shape(turned, (n, inner)))
    elif math.prod(first[:-2]) == 1:
        product = _swapped(linear(turned, _with_shape(a, (m, inner))))
    else:
        product = _one_by_one(
            _repeated(a, (*first[:-2], m, inner), (*batch, m, inner), (count, m, inner)),
            _repeated(turned, (*second[:-2], n, inner), (*batch, n, inner), (count, n, inner)),
        )
    return _with_shape(product, (*batch, *rows, *columns))


def _one_by_one(a: Any, b: Any) -> Any:
    """(B, M, K) times (B, N, K) transposed: a convolution of one pixel with a group for each pair."""
    count, m, inner = shape_of(a)
    n = shape_of(b)[1]
    pixels = reshape(transpose(a, permutation=(1, 0, 2)), shape=(1, 1, m, count * inner))
    result = conv2d(pixels, reshape(b, shape=(count * n, 1, 1, inner)), groups=count)
    return transpose(reshape(result, shape=(m, count, n)), permutation=(1, 0, 2))


def _swapped(x: Any) -> Any:
    rank = len(shape_of(x))
    return transpose(x, permutation=(*range(rank - 2), rank - 1, rank - 2))


def _with_shape(x: Any, shape: Sequence[int]) -> Any:
    if shape_of(x) == tuple(shape):
        return x
    # So written, programs of other numbers of images have the same graph.
    keeps = shape and shape_of(x) and shape[0] == shape_of(x)[0]
    return reshape(x, shape=(0, *shape[1:]) if keeps else shape)


def _repeated(x: Any, given: Sequence[int], wide: Sequence[int], flat: Sequence[int]) -> Any:
    x = _with_shape(x, given)
    return _with_shape(x if tuple(given) == tuple(wide) else broadcast(x, shape=wide), flat)
