"""Which layers of a net are worth cutting at, and which parameters are trained together."""

from __future__ import annotations

from collections.abc import Sequence

from pycnn.errors import GraphError
from pycnn.inspect._recording import Layers
from pycnn.nn.heads import head_names, head_node
from pycnn.nn.module import Module
from pycnn.transfer.recording import Recording

__all__ = ["depth_groups", "stage_layers", "top_layer"]

# What may stand between the features and the layer that makes scores of them.
_BETWEEN = frozenset(("dropout", "reshape", "transpose"))
_POOLS = frozenset(("global_avg_pool2d", "global_max_pool2d", "adaptive_avg_pool2d"))
# A part of the net that holds more of the weights' layers than this is divided further.
_LARGEST_SHARE = 0.5


def top_layer(net: Module, input_shape: Sequence[int] | None = None) -> str:
    """Name of the layer whose result the classifier of a net reads: its top features.

    Where a map is averaged over its places in front of the classifier, it is the map.

    Args:
        net: A net that ends in a dense layer or convolution.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
        ArgumentError: The size of the input is not known.

    Example:
        >>> import pycnn as pc
        >>> top_layer(pc.models.create("cifar_resnet20"))
        'layer3'
    """
    return _survey(net, input_shape)[1]


def stage_layers(net: Module, input_shape: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of the layers that end the stages of a net: the last map of each size, and the top features.

    Args:
        net: A net that ends in a dense layer or convolution.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
        ArgumentError: The size of the input is not known.

    Example:
        >>> import pycnn as pc
        >>> stage_layers(pc.models.create("cifar_resnet20"))
        ('layer1', 'layer2', 'layer3')
    """
    stages, top = _survey(net, input_shape)
    return (*(name for name in stages if name != top), top)


def _survey(net: Module, input_shape: Sequence[int] | None) -> tuple[list[str], str]:
    recording, who = Recording(net, input_shape, who="stage_layers"), type(net).__name__
    nodes, layers = recording.nodes, recording.layers
    head = head_node(nodes, recording.result.id.node)
    if head is None:
        raise GraphError(f"{who}: no dense layer or convolution gives the scores; name the layers to cut at")
    top = nodes[head]["inputs"][0].node
    while nodes[top]["kind"] == "op" and nodes[top]["op"].name in _BETWEEN | _POOLS:
        top = nodes[top]["inputs"][0].node
    names = _names_by_node(layers)
    last: dict[tuple[int, ...], str] = {}
    for node, name in sorted((layers[name].id.node, name) for name in layers.maps()):
        if node <= top:
            last[tuple(layers[name].shape[1:3])] = names[node]
    if top not in names:
        raise GraphError(f"{who}: the classifier reads the image itself; there are no features to cut at")
    return list(last.values()), names[top]


def _names_by_node(layers: Layers) -> dict[int, str]:
    """The shortest name of each value."""
    best: dict[int, str] = {}
    for name in layers.names():
        if layers.is_single(name):
            node = layers[name].id.node
            if node not in best or (len(name), name) < (len(best[node]), best[node]):
                best[node] = name
    return best


def depth_groups(net: Module, input_shape: Sequence[int] | None = None) -> list[tuple[str, ...]]:
    """Divide the parameters of a net into groups from the classifier down to the image.

    The first group is the head: the layer that gives the scores (with those of auxiliary heads). Then follow the parts
    of the net as its attributes name them, in the order from the top down; a part with most of the layers is divided
    by the next part of its names, and scales and shifts of norms go with the weights in front of them. What lies
    behind the cut of an `Encoder` is in no group.

    Args:
        net: A net that ends in a dense layer or convolution.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Returns:
        Names of parameters.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
        ArgumentError: The size of the input is not known.

    Example:
        >>> import pycnn as pc
        >>> [group[0].partition(".")[0] for group in depth_groups(pc.models.create("cifar_resnet20"))]
        ['fc', 'layer3', 'layer2', 'layer1', 'conv1']
    """
    head = head_names(net, input_shape)
    recording = Recording(net, input_shape, who="depth_groups")
    ordered = [name for name in recording.weights() if name not in head]
    # Parameters that only training uses (auxiliary heads) go with the head.
    used = {id(parameter) for parameter in net._used_parameters(set())}
    unseen = [
        name
        for name, parameter in net.named_parameters()
        if id(parameter) in used and name not in head and name not in ordered
    ]
    ranks = {name: len(parameter.shape) for name, parameter in net.named_parameters()}
    groups = _divide(ordered, ranks, 1, len(ordered))
    return [(*head, *unseen), *reversed(groups)]


def _divide(names: Sequence[str], ranks: dict[str, int], depth: int, total: int) -> list[tuple[str, ...]]:
    """Neighbours that share the first `depth` parts of their names, in order; large groups by further parts."""
    groups: list[list[str]] = []
    last = None
    for name in names:
        key = tuple(name.split(".")[:depth])
        if key != last and any(key == tuple(other.split(".")[:depth]) for group in groups for other in group):
            # A layer that is recorded in several places stays where it was first.
            next(g for g in groups if tuple(g[0].split(".")[:depth]) == key).append(name)
            continue
        if key != last:
            groups.append([])
        groups[-1].append(name)
        last = key
    merged: list[list[str]] = []
    for group in groups:
        if merged and all(ranks[name] < 2 for name in group):
            merged[-1] += group
        else:
            merged.append(group)
    result: list[tuple[str, ...]] = []
    for group in merged:
        deeper = any(name.count(".") > depth for name in group)
        if deeper and len(group) > _LARGEST_SHARE * total and len(group) > 2:
            result += _divide(group, ranks, depth + 1, total)
        else:
            result.append(tuple(group))
    return result
