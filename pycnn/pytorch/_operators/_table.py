"""The table itself, and what several families of operators share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._registry import Operator, Values
from pycnn.onnx._view import View
from pycnn.pytorch._graph import Reader

__all__ = ["OWN", "TRANSLATIONS", "affine", "enter", "function", "mapped", "number", "own", "spread", "translates"]

Translation = Callable[[Reader, Any], Any]
#: By name and overload, "conv2d.default"; those that change their first argument in place are translated as the others.
TRANSLATIONS: dict[str, Translation] = {}
#: Operators that nodes may have beside ONNX's.
OWN: dict[str, Operator] = {}
# ONNX's number of float32.
_FLOAT = 1


def translates(*names: str) -> Callable[[Translation], Translation]:
    """Enter what an operator becomes; without an overload, "default" is meant."""

    def register(translation: Translation) -> Translation:
        for name in names:
            TRANSLATIONS[name if "." in name else f"{name}.default"] = translation
        return translation

    return register


def own(name: str, roles: dict[int, str] | None = None) -> Callable[..., Any]:
    """Enter how an operator that is not ONNX's is recorded."""

    def register(convert: Callable[[Values, Node], Any]) -> Any:
        OWN[name] = Operator(name, (), convert, lambda _: roles or {})
        return convert

    return register


def mapped(values: Values, node: Node, function: Callable[[Any], Any]) -> View:
    """Apply a function of single elements, in whatever order they lie."""
    view = values.view(node, 0)
    return View(function(view.symbol), view.axes, view.shape)


def enter(name: str, function: Callable[..., Any]) -> None:
    """Enter a function of single numbers whose arguments are the node's attributes."""
    own(f"aten.{name}")(lambda values, node: mapped(values, node, lambda x: function(x, **node.attributes)))


def function(r: Reader, a: Any, name: str, **attributes: Any) -> str:
    """Emit a function of single numbers."""
    return r.emit(f"aten.{name}", [number(r, a.self)], **attributes)


def affine(r: Reader, name: str, *, scale: float = 1.0, offset: float = 0.0, shape: Sequence[int] | None = None) -> str:
    """Emit a number times each element and another one added."""
    name = number(r, name)
    if (scale, offset) == (1.0, 0.0):
        return name
    return r.emit("aten.affine", [name], shape, scale=float(scale), offset=float(offset))


enter("affine", functional.affine)


def number(r: Reader, value: Any) -> Any:
    """A tensor's name; truth values become 1 and 0."""
    if value not in r.truths:
        return value
    return r.emit("Cast", [value], r.shapes[value], to=_FLOAT)


def spread(values: Sequence[int], axes: int) -> list[int]:
    """A setting for each axis, of which one stands for all."""
    return [int(v) for v in values] * (axes if len(values) == 1 else 1)
