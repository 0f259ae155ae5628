"""Operators that are one layer together: PyTorch's local response norm is nine operators of ATen."""

from __future__ import annotations

from typing import Any

__all__ = ["find_local_response_norms"]


def _is_call(node: Any, *names: str) -> bool:
    return getattr(node, "op", "") == "call_function" and str(node.target) in {f"aten.{name}" for name in names}


def _behind(node: Any, chain: list[Any], *names: str, optional: bool = False) -> Any:
    """The first argument of a call, which goes to the chain; the node itself where it is another call and may be."""
    if not _is_call(node, *names) or len(node.users) != 1:
        if optional:
            return node
        return None
    chain.append(node)
    return node.args[0]


def find_local_response_norms(graph: Any) -> dict[Any, tuple[dict[str, Any], list[Any]]]:
    """Local response norms of `torch.nn.functional.local_response_norm`: x / (k + alpha * mean of squares) ** beta.

    Returns:
        For each division that ends one, its arguments (x, size, alpha, beta, k), and the operators it stands for.
    """
    return {node: found for node in graph.nodes if _is_call(node, "div.Tensor") and (found := _match(node)) is not None}


def _match(division: Any) -> tuple[dict[str, Any], list[Any]] | None:
    x, powered = division.args
    chain: list[Any] = []
    added = _behind(powered, chain, "pow.Tensor_Scalar")
    scaled = _behind(added, chain, "add.Tensor")
    mean = _behind(scaled, chain, "mul.Tensor")
    if mean is None:
        return None
    squeezed = _behind(mean, chain, "view.default", "reshape.default", optional=True)
    pooled = _behind(squeezed, chain, "squeeze.dim")
    padded = _behind(pooled, chain, "avg_pool3d.default", "avg_pool2d.default")
    wide = _behind(padded, chain, "pad.default", "constant_pad_nd.default")
    square = _behind(wide, chain, "view.default", "reshape.default", "unsqueeze.default")
    if square is None or _behind(square, chain, "mul.Tensor") is not x or list(square.args) != [x, x]:
        return None
    window, size = pooled.args[1], pooled.args[1][0]
    numbers = {"beta": powered.args[1], "k": added.args[1], "alpha": scaled.args[1]}
    front = list(padded.args[1])[-2:] == [size // 2, (size - 1) // 2]
    if not front or set(window[1:]) != {1} or not all(isinstance(n, int | float) for n in numbers.values()):
        return None
    return {"self": x, "size": size, **numbers}, chain
