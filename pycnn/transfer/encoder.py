"""A net cut at named layers, used as an encoder of images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.inspect._recording import Layers, Recorded, record
from pycnn.nn.auxiliary import collect_auxiliary
from pycnn.nn.linear import Linear
from pycnn.nn.module import Module, alone
from pycnn.tensor import Parameter
from pycnn.tracing import Symbol, Traced, inline, prune
from pycnn.transfer.layers import top_layer

__all__ = ["POOLS", "Classifier", "Encoder"]

#: What becomes of a feature map (N, H, W, C).
POOLS = ("average", "max", "flatten")

# Added to the square of the sum of squares, so that features that are all zero stay zero; its power -1.75, which the
# gradient takes, is a float32 still.
_TINY = 1e-20


class Encoder(Module):
    """The part of a net in front of one or several layers, each of which gives a vector of features.

    The net is cut: nothing behind the last of the layers is computed or kept in files, and all layers come from one
    pass of one program. The weights are the net's own, not a copy, so that training one trains the other. An encoder
    is a module as others are: it can be called, compiled, be part of another net, and saved.

    Args:
        net: The net.
        layers: Names of layers as the summary shows them; for a module, its result is meant. Default: the layer that
            feeds the classifier (`top_layer`).
        pool: What becomes of a feature map (N, H, W, C): "average" over its places gives (N, C); "max" likewise;
            "flatten" gives (N, H * W * C) in C order: rows, in them columns, in them channels. One for all, or one by
            layer.
        normalize: Scale every vector to L2 norm 1, each layer's by itself; all zeros stay zeros.

    Attributes:
        net: The net.
        layers: Names of the layers.

    Shape:
        ``(N, H, W, C)`` -> by layer ``(N, features)``, float32.

    Raises:
        ArgumentError: There is no such layer (the closest names are listed), it is called more than once, or it is
            named twice; a `pool` is unknown.
        ShapeError: While recording: the image is too small for the net.

    Example:
        >>> import numpy as np, pycnn as pc
        >>> encoder = Encoder(pc.models.create("cifar_resnet20"), ["layer2", "layer3"])
        >>> features = encoder(np.zeros((2, 48, 64, 3), np.uint8))
        >>> {layer: array.shape for layer, array in features.items()}
        {'layer2': (2, 32), 'layer3': (2, 64)}
    """

    net: Module

    def __init__(
        self,
        net: Module,
        layers: str | Sequence[str] | None = None,
        *,
        pool: str | Mapping[str, str] = "average",
        normalize: bool = False,
    ) -> None:
        if not isinstance(net, Module):
            raise ArgumentError(f"Encoder: {type(net).__name__} is no pycnn.nn.Module")
        if layers is None:
            layers = top_layer(net)
        if not isinstance(layers, Iterable):
            raise ArgumentError(f"Encoder: layers must be a name or several, got {layers!r}")
        names = (layers,) if isinstance(layers, str) else tuple(layers)
        if not names:
            raise ArgumentError("Encoder: no layer is named")
        for name in names:
            if not isinstance(name, str):
                raise ArgumentError(f"Encoder: layers must be names, got {name!r}")
            if names.count(name) > 1:
                raise ArgumentError(f"Encoder: layer {name!r} is named twice")
        self.net = net
        self.layers = names
        self.pools = _pools(pool, names)
        self.normalize = bool(normalize)
        self.input_shape = net.input_shape
        if net.input_shape is not None:
            self.feature_sizes()

    def forward(self, x: Any) -> dict[str, Symbol]:
        """Record the net up to the layers."""
        traced = self.cut(x.shape, x.dtype)
        found, _ = inline(traced.graph, {"x": x}, traced.parameters)
        return {name: self._finish(found[f"layer_{i}"], self.pools[i]) for i, name in enumerate(self.layers)}

    def cut(self, shape: Sequence[int], dtype: str = "float32") -> Traced:
        """Record the net up to the layers, for images of one shape (N, H, W, C): outputs "layer_0", "layer_1", ..."""

        def outputs(recorded: Recorded) -> dict[str, Symbol]:
            return {f"layer_{i}": _find(recorded.layers, name) for i, name in enumerate(self.layers)}

        # Heads for training belong to the whole net; collected here they are dropped.
        with alone(), collect_auxiliary():
            return prune(record(self.net, {"x": (shape, dtype)}, outputs))

    def _used_parameters(self, seen: set[int]) -> Iterator[Parameter]:
        """Those in front of the cut; all where the size of the image is not known, so that it cannot be told."""
        if self.input_shape is None:
            yield from super()._used_parameters(seen)
            return
        for parameter in self.cut((1, *self.input_shape)).parameters.values():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter

    def _finish(self, x: Symbol, pool: str) -> Symbol:
        if x.ndim == 4 and pool != "flatten":
            x = functional.global_avg_pool2d(x) if pool == "average" else functional.global_max_pool2d(x)
        if x.ndim == 4:
            # Not functional.flatten, which puts the channels first as PyTorch does.
            x = functional.reshape(x, shape=(0, math.prod(x.shape[1:])))
        return unit_rows(x) if self.normalize else x

    def feature_sizes(self, input_shape: Sequence[int] | None = None) -> dict[str, int]:
        """How many features each layer gives for images of a shape.

        Args:
            input_shape: (H, W, C); default: what the net was made for or called with last.

        Raises:
            ArgumentError: The size of the input is not known.
            ShapeError: The image is too small for the net.
        """
        shape = self._input_shape(input_shape, "Encoder")
        traced = self.cut((1, *shape))
        sizes = {}
        for (_, symbol), name, pool in zip(traced.graph.outputs(), self.layers, self.pools, strict=True):
            _, *extents = traced.graph.spec(symbol)[0]
            if len(extents) == 3 and pool != "flatten":
                extents = extents[-1:]
            sizes[name] = math.prod(extents)
        return sizes

    def extra_repr(self) -> str:
        """Layers and what becomes of their maps."""
        shown = ", ".join(f"{name} ({pool})" for name, pool in zip(self.layers, self.pools, strict=True))
        return shown + (", normalize=True" if self.normalize else "")


class Classifier(Module):
    """An encoder and a dense layer on the features of all its layers: an ordinary net that gives class scores.

    Args:
        encoder: The encoder; the features of its layers are joined in their order.
        head: From the features to the scores.

    Attributes:
        encoder: The encoder.
        head: The dense layer.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, classes)``.

    Raises:
        ShapeError: While recording: the head takes another number of features.

    Example:
        >>> import numpy as np, pycnn as pc
        >>> encoder = Encoder(pc.models.create("cifar_resnet20"), ["layer2", "layer3"])
        >>> Classifier(encoder, pc.nn.Linear(96, 5))(np.zeros((2, 48, 64, 3), np.uint8)).shape
        (2, 5)
    """

    encoder: Encoder
    head: Linear

    def __init__(self, encoder: Encoder, head: Linear) -> None:
        if not isinstance(encoder, Encoder) or not isinstance(head, Linear):
            raise ArgumentError(
                f"Classifier: expected an Encoder and an nn.Linear, got {type(encoder).__name__} and "
                f"{type(head).__name__}"
            )
        self.encoder = encoder
        self.head = head
        self.input_shape = encoder.input_shape

    def forward(self, x: Any) -> Symbol:
        """Record encoder and head."""
        parts = list(self.encoder(x).values())
        joined: Symbol = parts[0] if len(parts) == 1 else functional.concat(parts, axis=1)
        if self.head.in_features not in (None, joined.shape[1]):
            raise ShapeError(
                f"Classifier: the head takes {self.head.in_features} features, the encoder gives {joined.shape[1]} "
                f"from {', '.join(self.encoder.layers)} of images {x.shape[1:]}"
            )
        scores: Symbol = self.head(joined)
        return scores


def unit_rows(x: Symbol) -> Symbol:
    """Scale the rows of (N, D) to L2 norm 1; rows of zeros stay."""
    total = functional.sum(x * x, axes=1, keep_dims=True)
    # A response norm with a window of one makes of the sum of squares s its inverse root: s / (s^2)^0.75.
    scaled: Symbol = x * functional.local_response_norm(total, size=1, alpha=1.0, beta=0.75, k=_TINY)
    return scaled


def _pools(pool: str | Mapping[str, str], layers: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(pool, Mapping):
        for name in pool:
            if name not in layers:
                raise ArgumentError(f"Encoder: pool names {name!r}, which is none of the layers {', '.join(layers)}")
        chosen = tuple(pool.get(name, "average") for name in layers)
    else:
        chosen = (pool,) * len(layers)
    for value in chosen:
        if value not in POOLS:
            raise ArgumentError(f"Encoder: pool must be one of {', '.join(POOLS)}, got {value!r}")
    return chosen


def _find(layers: Layers, name: str) -> Symbol:
    """A layer's value; in a net from a file, where only ops have names, the last op below the name."""
    names = layers.names()
    if name in names:
        return layers[name]
    below = [other for other in names if other.startswith(f"{name}.") and layers.is_single(other)]
    if below:
        return max((layers[other] for other in below), key=lambda symbol: symbol.id.node)
    prefixes = {other[:i] for other in names for i, letter in enumerate(other) if letter == "."}
    known = list(dict.fromkeys([*names, *sorted(prefixes)]))
    close = get_close_matches(name, known, n=3, cutoff=0.4) or names[:5]
    raise ArgumentError(f"Encoder: no layer is called {name!r}\n  hint: there is {', '.join(map(repr, close))}")
