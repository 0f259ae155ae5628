"""Products of matrices."""

from __future__ import annotations

from collections.abc import Mapping

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import DENSE, PLAIN, Values, operator
from pycnn.onnx._view import View, align

__all__: list[str] = []


def _gemm_roles(node: Node) -> Mapping[int, str]:
    return {1: PLAIN if node.integer("transB", 0) else DENSE, 2: PLAIN}


@operator("Gemm", (6, 7, 9, 11, 13), roles=_gemm_roles)
def _gemm(values: Values, node: Node) -> View:
    a, b = values.view(node, 0), values.view(node, 1)
    if a.rank != 2 or b.rank != 2:
        raise node.bad_shape(f"factors are {a.shape} and {b.shape}, expected matrices")
    a = a.transposed((1, 0)) if node.integer("transA", 0) else a
    b = b if node.integer("transB", 0) else b.transposed((1, 0))
    if a.shape[1] != b.shape[1]:
        raise node.bad_shape(f"inner sizes {a.shape[1]} and {b.shape[1]} differ")
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    c = values.optional_view(node, 2)
    x, weight, columns = a.as_plain(), b.as_plain(), b.shape[0]
    if c is not None and beta != 1.0:
        c = View(functional.affine(c.symbol, scale=beta), c.axes, c.shape)
    if c is not None and alpha == 1.0 and c.shape in ((columns,), (1, columns)):
        return View.plain(functional.linear(x, weight, c.reshaped((columns,)).as_plain()))
    product = functional.linear(x, weight)
    if alpha != 1.0:
        product = functional.affine(product, scale=alpha)
    if c is None:
        return View.plain(product)
    try:
        symbols, axes, shape = align([View.plain(product), c])
    except ValueError:
        raise node.bad_shape(f"C is {c.shape}, the product {product.shape}") from None
    if shape != tuple(product.shape):
        raise node.bad_shape(f"C is {c.shape}, the product {product.shape}")
    return View(functional.add(*symbols), axes, shape)


@operator("MatMul", (1, 9, 13), roles={1: DENSE})
def _matmul(values: Values, node: Node) -> View:
    a, b = values.view(node, 0), values.view(node, 1)
    if a.rank < 2 or b.rank != 2:
        return View.plain(functional.matmul(a.as_plain(), b.as_plain()))
    if a.shape[-1] != b.shape[0]:
        raise node.bad_shape(f"inner sizes {a.shape[-1]} and {b.shape[0]} differ")
    x, weight = a.as_plain(), b.transposed((1, 0)).as_plain()
    result = View.plain(functional.linear(x, weight))
    # A bias that is added next joins.
    result.made = ("linear", a.rank - 1, b.shape[1], lambda bias: View.plain(functional.linear(x, weight, bias)))
    return result
