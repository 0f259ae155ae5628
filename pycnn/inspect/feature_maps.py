"""Feature maps: what the layers of a net give for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError
from pycnn.inspect._recording import as_images, layer_program, record, spatial_layers
from pycnn.nn.module import Module
from pycnn.nn.receptive_field import ReceptiveField, receptive_fields
from pycnn.program import check_device

__all__ = ["activations", "layer_names", "receptive_field"]


def layer_names(net: Module, input_shape: Sequence[int] | None = None) -> list[str]:
    """Names of everything inside a net that `activations` can show, in no particular order.

    Args:
        net: The net.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Raises:
        ArgumentError: The size of the input is not known.

    Example:
        >>> import pycnn
        >>> "conv2" in layer_names(pycnn.models.lenet5())
        True
    """
    shape = net._input_shape(input_shape, "layer_names")
    found: list[str] = []

    def outputs(recorded: Any) -> dict[str, Any]:
        found.extend(recorded.layers.names())
        return {"result": recorded.result}

    record(net, {"x": ((1, *shape), "float32")}, outputs)
    return found


def activations(
    net: Module, x: Any, layers: Sequence[str] | None = None, *, batch_size: int = 32, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Compute what layers give for images, all in one pass.

    Args:
        net: The net.
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        layers: Names as the summary shows them. Default: every feature map with more than one position.
        batch_size: Images per run; on the CPU the result does not depend on it.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        float32 arrays by layer, in the order asked for: (N, H', W', C') for feature maps.

    Raises:
        ArgumentError: There is no such layer (the closest names are listed), or it is called several times.
        ShapeError: `x` is no batch of images, or a layer refuses the shape.
        DTypeError: The element type is not accepted.
        DeviceError: The device is absent.

    Example:
        >>> import numpy as np, pycnn
        >>> maps = activations(pycnn.models.lenet5(), np.zeros((2, 28, 28, 1), np.float32), ["conv1", "pool2"])
        >>> {name: array.shape for name, array in maps.items()}
        {'conv1': (2, 28, 28, 6), 'pool2': (2, 5, 5, 16)}
    """
    where = check_device(device, who="activations")
    images = as_images(net, x, "activations")
    if isinstance(layers, str):
        raise ArgumentError(f"activations: layers must be a list of names, got {layers!r}\n  hint: [{layers!r}]")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError(f"activations: batch_size must be an integer of at least 1, got {batch_size!r}")
    names = list(spatial_layers(net, images.shape[1:])) if layers is None else list(dict.fromkeys(layers))
    parts: list[dict[str, np.ndarray]] = []
    program = None
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        if program is None or program.inputs[0][1] != part.shape:
            program = layer_program(net, part.shape, part.dtype.name, names, where)
        parts.append(program.run(part))
    return {name: np.concatenate([part[f"layer_{i}"] for part in parts]) for i, name in enumerate(names)}


def receptive_field(net: Module, layer: str, input_shape: Sequence[int] | None = None) -> ReceptiveField | None:
    """Tell which pixels the units of a layer see.

    Args:
        net: The net.
        layer: Name as the summary shows it.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Returns:
        Size, stride and offset in pixels; its `box` gives the pixels of one unit. None when every unit sees the whole
        image.

    Raises:
        ArgumentError: There is no such layer, or the size of the input is not known.

    Example:
        >>> import pycnn
        >>> field = receptive_field(pycnn.models.lenet5(), "conv2")
        >>> field.size, field.stride, field.box((3, 4), (28, 28))
        ((14, 14), (2, 2), (4, 6, 18, 20))
    """
    shape = net._input_shape(input_shape, "receptive_field")
    traced = record(net, {"x": ((1, *shape), "float32")}, lambda r: {"layer": r.layers[layer]})
    nodes = traced.graph.nodes()
    return receptive_fields(nodes)[dict(traced.graph.outputs())["layer"].node]
