"""Any of the package's nets as a PyTorch module: the recorded graph, run op by op with PyTorch's own functions.

So a comparison has the same architecture and the same weights by construction, and no second definition to keep alike.
PyTorch gets what it likes best: channels-last memory, one call an op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import pycnn as pc
from pycnn.tracing import trace

Attributes = dict[str, Any]


def _symmetric(padding: tuple[int, int, int, int], x: Tensor, value: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """The padding that PyTorch's functions take; what they do not take is padded before."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _conv2d(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _symmetric(a["padding"], x)
    return functional.conv2d(x, weight, bias, a["stride"], padding, a["dilation"], a["groups"])


def _max_pool2d(a: Attributes, x: Tensor) -> Tensor:
    x, padding = _symmetric(a["padding"], x, -torch.inf)
    return functional.max_pool2d(x, a["kernel_size"], a["stride"], padding, a["dilation"], a["ceil_mode"])


def _avg_pool2d(a: Attributes, x: Tensor) -> Tensor:
    top, bottom, left, right = a["padding"]
    if (top, left) != (bottom, right):
        raise NotImplementedError("avg_pool2d with unequal padding")
    return functional.avg_pool2d(x, a["kernel_size"], a["stride"], (top, left), a["ceil_mode"], a["count_include_pad"])


def _activation(a: Attributes, x: Tensor) -> Tensor:
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "relu6": functional.relu6,
        "leaky_relu": lambda v: functional.leaky_relu(v, a["slope"]),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }
    return kinds[a["kind"]](x)


def _pad(a: Attributes, x: Tensor) -> Tensor:
    before, after = ((side[0], side[3], side[1], side[2]) for side in (a["before"], a["after"]))
    flat = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, flat, value=a["value"])


def _transpose(a: Attributes, x: Tensor) -> Tensor:
    # The only one in the nets: to (N, C, H, W) in front of a classifier, the order that the tensor has here anyway.
    if tuple(a["permutation"]) != (0, 3, 1, 2):
        raise NotImplementedError(f"transpose {a['permutation']}")
    return x


def _reshape(a: Attributes, x: Tensor) -> Tensor:
    if len(a["shape"]) != 2:
        raise NotImplementedError(f"reshape to {a['shape']}")
    return x.flatten(1)


def _local_response_norm(a: Attributes, x: Tensor) -> Tensor:
    return functional.local_response_norm(x, a["size"], a["alpha"], a["beta"], a["k"])


def _normalize_image(a: Attributes, x: Tensor) -> Tensor:
    mean, std = (x.new_tensor(a[name] or empty).view(1, -1, 1, 1) for name, empty in (("mean", [0.0]), ("std", [1.0])))
    return (x * a["scale"] - mean) / std


def _unary(a: Attributes, x: Tensor) -> Tensor:
    if a["kind"] != "gelu":
        raise NotImplementedError(f"unary of kind {a['kind']}")
    return functional.gelu(x)


_OPS: dict[str, Callable[..., Tensor]] = {
    "activation": _activation,
    "adaptive_avg_pool2d": lambda a, x: functional.adaptive_avg_pool2d(x, a["output_size"]),
    "add": lambda a, x, y: x + y,
    "affine": lambda a, x: x * a["scale"] + a["offset"],
    "avg_pool2d": _avg_pool2d,
    "concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "conv2d": _conv2d,
    "dense": lambda a, x, weight, bias=None: functional.linear(x, weight, bias),
    "global_avg_pool2d": lambda a, x: x.mean((2, 3)),
    "global_max_pool2d": lambda a, x: x.amax((2, 3)),
    "local_response_norm": _local_response_norm,
    "max_pool2d": _max_pool2d,
    "multiply": lambda a, x, y: x * y,
    "normalize_image": _normalize_image,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "unary": _unary,
}


class Training:
    """PyTorch's training of a twin by a recipe with SGD.

    Args:
        net: The package's net, whose present weights are copied.
        recipe: Gives the optimizer. The net has the recipe's mean and std already (`make_trainer`).
        dtype: Of weights and computation.
    """

    def __init__(self, net: pc.nn.Module, recipe: pc.train.Recipe, dtype: torch.dtype = torch.float32) -> None:
        for key in ("no_decay", "label_smoothing", "clip_norm", "ema", "groups"):
            if getattr(recipe, key):
                raise NotImplementedError(f"recipe with {key}")
        if recipe.optimizer != "sgd":
            raise NotImplementedError(f"recipe with {recipe.optimizer}")
        self.net = TorchTwin(net).to(dtype).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.dtype = dtype

    def images(self, x: np.ndarray) -> Tensor:
        """uint8 (N, H, W, C) as 0..1 (N, C, H, W) in channels-last memory; the twin's first op normalises them."""
        return torch.from_numpy(x).permute(0, 3, 1, 2).to(self.dtype) / 255.0

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One update; the loss before it."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.net(self.images(x)), torch.from_numpy(y))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def accuracy(self, images: np.ndarray, labels: np.ndarray, batch_size: int = 500) -> float:
        """Share of images that get their label."""
        self.net.eval()
        right = 0
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                part = slice(start, start + batch_size)
                right += int((self.net(self.images(images[part])).argmax(1).numpy() == labels[part]).sum())
        self.net.train()
        return right / len(images)

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters in float64 under the package's names."""
        return {name.replace("/", "."): value.detach().double().numpy() for name, value in self.net.named_parameters()}


class TorchTwin(nn.Module):
    """A net of the package in PyTorch, with its present weights; images are (N, C, H, W) floats.

    Args:
        net: Any built net of one input and one result whose ops are known here.

    Raises:
        NotImplementedError: An op is not known here; it is named.
    """

    def __init__(self, net: pc.nn.Module) -> None:
        super().__init__()
        shape = net.input_shape
        if shape is None:
            raise ValueError("the net is not built")
        graph = trace(lambda x: net(x), {"x": ((1, *shape), "float32")}, root=net).graph
        self.nodes = graph.nodes()
        self.result = dict(graph.outputs())["output"].node
        self.last_use = {s.node: i for i, node in enumerate(self.nodes) for s in node["inputs"]}
        self.steps: list[tuple[int, str, str, Attributes, tuple[int, ...]]] = []
        state = net.state_dict()
        self.places: dict[int, str] = {}
        for index, node in enumerate(self.nodes):
            if node["kind"] in ("parameter", "buffer"):
                place = node["name"].replace(".", "/")
                value = torch.from_numpy(state[node["name"]].copy())
                if node["kind"] == "parameter":
                    self.register_parameter(place, nn.Parameter(value))
                else:
                    self.register_buffer(place, value)
                self.places[index] = place
            elif node["kind"] == "op":
                name = node["op"].name
                before = self.nodes[node["inputs"][0].node] if node["inputs"] else {}
                if name == "reshape" and len(before["outputs"][0][0]) == 4 and before["op"].name != "transpose":
                    raise NotImplementedError(f"'{node['name']}': reshape of an image in (H, W, C) order")
                if name not in (*_OPS, "batch_norm", "dropout"):
                    raise NotImplementedError(f"'{node['name']}': no twin of {name}")
                inputs = tuple(s.node for s in node["inputs"])
                attributes = dict(node["op"].attributes())
                if name == "concat" and len(node["outputs"][0][0]) == 4:
                    # An axis of (N, H, W, C) as one of (N, C, H, W).
                    attributes["axis"] = (0, 2, 3, 1)[attributes["axis"]]
                self.steps.append((index, node["name"], name, attributes, inputs))
        self.image = next(i for i, node in enumerate(self.nodes) if node["kind"] == "input")

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images."""
        values = {self.image: x}
        for index, _, name, attributes, inputs in self.steps:
            arguments = [getattr(self, self.places[i]) if i in self.places else values[i] for i in inputs]
            if name == "batch_norm":
                y, weight, bias, mean, variance = arguments
                values[index] = functional.batch_norm(
                    y, mean, variance, weight, bias, self.training, attributes["momentum"], attributes["eps"]
                )
            elif name == "dropout":
                values[index] = functional.dropout(arguments[0], attributes["p"], self.training)
            else:
                values[index] = _OPS[name](attributes, *arguments)
            for i in inputs:
                if self.last_use[i] == index:
                    values.pop(i, None)
        return values[self.result]
