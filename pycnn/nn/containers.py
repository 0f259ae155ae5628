"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.nn._arguments import as_count
from pycnn.nn.module import Module

__all__ = ["Concat", "ModuleList", "Parallel", "Sequential"]


class _Sequence(Module):
    """Children "0", "1", ... with the manners of a list."""

    def __init__(self, layers: Iterable[Any]) -> None:
        for layer in layers:
            self.append(layer)

    def append(self, layer: Module) -> None:
        """Add a layer at the end.

        Raises:
            ArgumentError: It is no module.
        """
        name = str(len(self))
        if not isinstance(layer, Module):
            hint = ""
            if isinstance(layer, type) and issubclass(layer, Module):
                hint = f"\n  hint: the class is given, not a layer; write {layer.__name__}(...)"
            elif isinstance(layer, tuple | list):
                hint = "\n  hint: unpack the list with *"
            raise ArgumentError(f"{type(self).__name__}: layer {name} is {layer!r}, expected a Module{hint}")
        setattr(self, name, layer)

    @property
    def layers(self) -> list[Module]:
        """The layers in order."""
        return [child for name, child in self.named_children() if name != "normalization"]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def _pick(self, index: int) -> Module:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"{type(self).__name__}: index {index}, there are {count} layers")
        return self.layers[index]


class Sequential(_Sequence):
    """Layers one after the other.

    Args:
        layers: Modules, or one mapping of names to modules. They are called "0", "1", ... or as
            the mapping says.

    Raises:
        ArgumentError: Something is no module.

    Example:
        >>> import pycnn as pc
        >>> net = pc.nn.Sequential(
        ...     pc.nn.Conv2d(1, 8, kernel_size=3), pc.nn.ReLU(),
        ...     pc.nn.Flatten(), pc.nn.Linear(out_features=10),
        ... )
        >>> net[0]
        Conv2d(1, 8, kernel_size=3)
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            super().__init__(())
            for name, layer in layers[0].items():
                if not isinstance(layer, Module):
                    raise ArgumentError(f"Sequential: layer {name!r} is {layer!r}, expected a Module")
                setattr(self, name, layer)
        else:
            super().__init__(layers)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        for layer in self.layers:
            x = layer(x)
        return x

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        """A layer, or a Sequential that shares the layers of a slice."""
        if isinstance(index, slice):
            return Sequential(*self.layers[index])
        return self._pick(index)


class ModuleList(_Sequence):
    """A list whose modules belong to the net; ``forward`` of the owner says how they are used.

    Args:
        layers: Any iterable of modules; they are called "0", "1", ...

    Raises:
        ArgumentError: Something is no module.
    """

    def __init__(self, layers: Iterable[Module] = ()) -> None:
        super().__init__(layers)

    def __getitem__(self, index: int) -> Module:
        """A module by position."""
        return self._pick(index)


class Concat(Module):
    """Join a list of inputs along an axis.

    Args:
        axis: Default: the last one, channels.

    Raises:
        ArgumentError: The axis is no integer.
        ShapeError: While recording: the other axes differ.
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = as_count(axis, who="Concat", name="axis", low=-8)

    def forward(self, inputs: Any) -> Any:
        """Record the layer."""
        return functional.concat(inputs, axis=self.axis)

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.axis == -1 else f"axis={self.axis}"


class Parallel(_Sequence):
    """Branches that see the same input; their results are joined.

    Args:
        branches: Modules, called "0", "1", ...
        join: "concat" (over channels) or "add".

    Raises:
        ArgumentError: Something is no module, there is no branch, or `join` is unknown.
        ShapeError: While recording: the results do not fit together.
    """

    def __init__(self, *branches: Module, join: str = "concat") -> None:
        super().__init__(branches)
        if not branches:
            raise ArgumentError("Parallel: no branch given")
        if join not in ("concat", "add"):
            raise ArgumentError(f"Parallel: join must be 'concat' or 'add', got {join!r}")
        self.join = join

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        results = [branch(x) for branch in self.layers]
        if self.join == "concat":
            return functional.concat(results, axis=-1)
        total = results[0]
        for result in results[1:]:
            total = functional.add(total, result)
        return total

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        return "" if self.join == "concat" else f"join={self.join!r}"
