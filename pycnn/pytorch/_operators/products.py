"""Products of matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators.shape import expanded
from pycnn.onnx._registry import PLAIN, Values
from pycnn.onnx._view import View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import affine, own, translates

__all__: list[str] = []


@translates("linear")
def _linear(r: Reader, a: Any) -> str:
    return r.emit("aten.linear", [a.input, a.weight, a.bias])


@own("aten.linear", {1: PLAIN, 2: PLAIN})
def _own_linear(values: Values, node: Node) -> View:
    x, weight = values.view(node, 0).as_plain(), values.view(node, 1).as_plain()
    bias = values.optional_view(node, 2)
    return View.plain(functional.linear(x, weight, None if bias is None else bias.as_plain()))


@translates("matmul", "mm")
def _matmul(r: Reader, a: Any) -> str:
    first, second = list(vars(a).values())[:2]
    return r.emit("MatMul", [first, second])


@translates("addmm")
def _addmm(r: Reader, a: Any) -> str:
    return r.emit("Gemm", [a.mat1, a.mat2, a.self], alpha=float(a.alpha), beta=float(a.beta))


@translates("bmm")
def _bmm(r: Reader, a: Any) -> str:
    return r.emit("MatMul", [a.self, a.mat2])


@translates("baddbmm")
def _baddbmm(r: Reader, a: Any) -> str:
    product = affine(r, r.emit("MatMul", [a.batch1, a.batch2]), scale=a.alpha)
    return r.emit("Add", [affine(r, a.self, scale=a.beta, shape=r.shapes[a.self]), product]) if a.beta else product


@translates("einsum")
def _einsum(r: Reader, a: Any) -> str:
    return r.emit(
        "aten.einsum", list(a.tensors), equation=_parsed(r, a.equation, [len(r.shapes[n]) for n in a.tensors])
    )


def _parsed(r: Reader, equation: str, ranks: list[int]) -> str:
    """The equation with its result written out.

    Raises:
        UnsupportedError: It is of more than two tensors, or has an ellipsis or a label twice in one place.
    """
    text = equation.replace(" ", "")
    given, arrow, result = text.partition("->")
    labels = given.split(",")
    if not arrow:
        result = "".join(sorted(label for label in set(given) - {","} if given.count(label) == 1))
    if "." in text or len(labels) > 2 or any(len(set(part)) != len(part) for part in (*labels, result)):
        raise r.unsupported(f"{equation!r} is not supported; one or two tensors are, each label once in each")
    return f"{','.join(labels)}->{result}"


@own("aten.einsum")
def _own_einsum(values: Values, node: Node) -> View:
    given, _, result = node.attributes["equation"].partition("->")
    parts = given.split(",")
    wanted = [set("".join([*parts[:i], *parts[i + 1 :], result])) for i in range(len(parts))]
    terms = [_summed(values.view(node, i), part, wanted[i]) for i, part in enumerate(parts)]
    if len(terms) == 1:
        (view, labels), *_ = terms
        return view.transposed([labels.index(label) for label in result])
    (a, first), (b, second) = terms
    sizes = {**dict(zip(first, a.shape, strict=True)), **dict(zip(second, b.shape, strict=True))}
    for label in sizes:
        pair = {view.shape[labels.index(label)] for view, labels in terms if label in labels} - {1}
        if len(pair) > 1:
            raise node.bad_shape(f"'{label}' stands for sizes {sorted(pair)}")
        sizes[label] = pair.pop() if pair else 1
    both = set(first) & set(second)
    stacks = [label for label in first if label in both and label in result]
    inner = [label for label in first if label in both and label not in result]
    rows, columns = ([label for label in labels if label not in both] for labels in (first, second))
    x, y = (
        _grouped(view, labels, groups, sizes)
        for view, labels, groups in ((a, first, (stacks, rows, inner)), (b, second, (stacks, inner, columns)))
    )
    product = functional.matmul(x.as_plain(), y.as_plain())
    found = [*stacks, *rows, *columns]
    view = View.plain(product).reshaped([sizes[label] for label in found])
    return view.transposed([found.index(label) for label in result])


def _summed(view: View, labels: str, wanted: set[str]) -> tuple[View, str]:
    """The sum over axes that neither the other tensor nor the result has."""
    gone = [axis for axis, label in enumerate(labels) if label not in wanted]
    if not gone:
        return view, labels
    total = View.plain(functional.sum(view.as_plain(), axes=gone))
    return total, "".join(label for label in labels if label in wanted)


def _grouped(view: View, labels: str, groups: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> View:
    """The stacks of matrices that a product is of: the labels of the first group apart, those of others together."""
    order = [label for group in groups for label in group]
    moved = expanded(view.transposed([labels.index(label) for label in order]), [sizes[label] for label in order])
    stacks, *others = groups
    return moved.reshaped([*(sizes[s] for s in stacks), *(math.prod(sizes[s] for s in group) for group in others)])


@translates("scaled_dot_product_attention")
def _attention(r: Reader, a: Any) -> str:
    if a.dropout_p:
        raise r.unsupported("dropout while predicting is not supported\n  hint: dropout_p=0.0 unless self.training")
    if a.enable_gqa:
        raise r.unsupported("heads that share keys (enable_gqa) are not supported")
    scale = r.shapes[a.query][-1] ** -0.5 if a.scale is None else float(a.scale)
    mask = a.attn_mask
    is_truth = mask is not None and (mask in r.truths or ((k := r.known(mask)) is not None and k.dtype == bool))
    return r.emit(
        "aten.attention", [a.query, a.key, a.value, mask], scale=scale, causal=bool(a.is_causal), choose=is_truth
    )


@own("aten.attention")
def _own_attention(values: Values, node: Node) -> View:
    """Attention of Vaswani et al. 2017: softmax(q k' scale + mask) v."""
    query, key, value = (values.view(node, i) for i in range(3))
    turned = key.transposed((*range(key.rank - 2), key.rank - 1, key.rank - 2))
    scores = functional.affine(functional.matmul(query.as_plain(), turned.as_plain()), scale=node.attributes["scale"])
    masks = [_mask(values, node)] if node.has_input(3) else []
    if node.attributes["causal"]:
        masks.append(np.triu(np.full(scores.shape[-2:], -np.inf, np.float32), 1))
    for mask in masks:
        scores = functional.add(scores, mask)
    return View.plain(functional.matmul(functional.softmax(scores), value.as_plain()))


def _mask(values: Values, node: Node) -> Any:
    """What is added to the scores: minus infinity where truth values say that nothing is to be seen."""
    given = values.get(node, 3)
    if not node.attributes["choose"]:
        return values.view(node, 3).as_plain()
    if isinstance(given, np.ndarray):
        return np.where(given, np.float32(0), np.float32(-np.inf))
    return functional.where(given.as_plain(), np.float32(0), np.float32(-np.inf))
