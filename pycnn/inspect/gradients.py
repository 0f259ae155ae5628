"""Which pixels a class score depends on, from gradients: saliency, guided back-propagation, Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.errors import ShapeError
from pycnn.inspect._recording import (
    Recorded,
    Specs,
    as_floats,
    check_double,
    gradients,
    one_hot_classes,
    record,
    run,
    score_of,
)
from pycnn.inspect._resize import enlarge
from pycnn.inspect.feature_maps import receptive_field
from pycnn.nn.module import Module
from pycnn.tracing import Symbol

__all__ = ["default_cam_layer", "grad_cam", "guided_backpropagation", "input_gradients", "saliency"]

_BATCH = 16
# What stands between the last feature map and the classifier without adding to it.
_AFTERWARDS = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "transpose", "dropout", "pad", "slice")


def _in_batches(
    net: Module,
    images: np.ndarray,
    weights: np.ndarray,
    wrt: list[str | None],
    who: str,
    device: str,
    relu_rule: str = "exact",
) -> list[dict[str, np.ndarray]]:
    """Gradients of the chosen scores, piece by piece."""
    parts, programs = [], {}
    for start in range(0, len(images), _BATCH):
        x, w = images[start : start + _BATCH], weights[start : start + _BATCH]
        if len(x) not in programs:
            specs: Specs = {"x": (x.shape, x.dtype.name), "weights": (w.shape, w.dtype.name)}
            double = x.dtype == np.float64
            programs[len(x)] = gradients(
                net, specs, score_of("weights", who), wrt, double=double, relu_rule=relu_rule, device=device
            )
        parts.append(run(programs[len(x)], {"x": x, "weights": w}))
    return parts


def input_gradients(
    net: Module, x: Any, classes: Any = None, *, double: bool = False, device: str = "cpu"
) -> np.ndarray:
    """Compute the gradient of a class score with respect to the pixels.

    The score is the one before a closing softmax. Batch norms use their running statistics, dropout does nothing.

    Args:
        net: A net that gives scores (N, classes).
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        classes: A class for all images, or one for each. Default: the predicted ones.
        double: Run in float64 with the slow reference kernels, for checks; on the CPU alone.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        (N, H, W, C), score per unit of pixel value; float32, or float64 with `double`.

    Raises:
        ShapeError: `x` is no batch of images, or the net gives no scores.
        LabelError: There is no such class.
        GraphError: The score does not depend on the pixels.
        ArgumentError: `double` and another device than the CPU.
        DeviceError: The device is absent.

    Example:
        >>> import numpy as np, pycnn
        >>> input_gradients(pycnn.models.lenet5(), np.zeros((1, 28, 28, 1), np.float32), 3).shape
        (1, 28, 28, 1)
    """
    who = "input_gradients"
    where = check_double(double, device, who)
    images = as_floats(net, x, who, double=double)
    weights = one_hot_classes(net, images, classes, who, where)
    return np.concatenate([part["gradient_0"] for part in _in_batches(net, images, weights, [None], who, where)])


def saliency(net: Module, x: Any, classes: Any = None, *, double: bool = False, device: str = "cpu") -> np.ndarray:
    """Tell how much a class score changes with each pixel (Simonyan, Vedaldi, Zisserman 2013).

    The largest absolute gradient over the colour channels. Arguments and errors are those of `input_gradients`.

    Returns:
        (N, H, W), not negative, score per unit of pixel value.

    Example:
        >>> import numpy as np, pycnn
        >>> saliency(pycnn.models.lenet5(), np.zeros((1, 28, 28, 1), np.float32)).shape
        (1, 28, 28)
    """
    where = check_double(double, device, "saliency")
    found: np.ndarray = np.abs(input_gradients(net, x, classes, double=double, device=where)).max(axis=3)
    return found


def guided_backpropagation(
    net: Module, x: Any, classes: Any = None, *, double: bool = False, device: str = "cpu"
) -> np.ndarray:
    """Trace a class score back through what is active and speaks for it (Springenberg et al. 2015).

    The gradient with respect to the pixels, except that a ReLU lets only positive gradients through. In a net without
    ReLUs these are the plain gradients. Arguments and errors are those of `input_gradients`.

    Returns:
        (N, H, W, C), signed, score per unit of pixel value.

    Example:
        >>> import numpy as np, pycnn
        >>> net = pycnn.models.lenet5(activation="relu")
        >>> guided_backpropagation(net, np.zeros((1, 28, 28, 1), np.float32)).shape
        (1, 28, 28, 1)
    """
    who = "guided_backpropagation"
    where = check_double(double, device, who)
    images = as_floats(net, x, who, double=double)
    weights = one_hot_classes(net, images, classes, who, where)
    parts = _in_batches(net, images, weights, [None], who, where, relu_rule="guided")
    return np.concatenate([part["gradient_0"] for part in parts])


def default_cam_layer(net: Module, image_shape: tuple[int, ...]) -> str:
    """The layer that Grad-CAM looks at: the last feature map before pooling, flattening and the classifier.

    Raises:
        ShapeError: The net has no feature map with more than one position.
    """
    found: list[str] = []

    def outputs(recorded: Recorded) -> dict[str, Symbol]:
        nodes = recorded.x._trace.graph.nodes()
        by_node = {recorded.layers[name].id.node: name for name in _single_names(recorded)}
        for index in range(recorded.result.id.node, recorded.x.id.node, -1):
            node = nodes[index]
            if node["kind"] != "op" or index not in by_node:
                continue
            shape = node["outputs"][0][0]
            moved = node["op"].name in _AFTERWARDS
            if len(shape) == 4 and shape[1] * shape[2] > 1 and not moved:
                found.append(by_node[index])
                break
        return {"result": recorded.result}

    record(net, {"x": ((1, *image_shape), "float32")}, outputs)
    if not found:
        raise ShapeError("grad_cam: the net has no feature map with more than one position")
    return found[0]


def _single_names(recorded: Recorded) -> list[str]:
    return [name for name in recorded.layers.names() if recorded.layers.is_single(name)]


def grad_cam(
    net: Module,
    x: Any,
    layer: str | None = None,
    classes: Any = None,
    *,
    upsample: bool = True,
    double: bool = False,
    device: str = "cpu",
) -> np.ndarray:
    """Tell where a layer's feature maps speak for a class: Grad-CAM (Selvaraju et al. 2017).

    ``map = relu(sum over k of alpha_k * A_k)``, A_k the layer's k-th feature map and alpha_k the mean over its
    positions of the gradient of the class score (equations 1 and 2).

    Args:
        net: A net that gives scores (N, classes).
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        layer: Name of a feature map. Default: the last one before pooling and the classifier.
        classes: A class for all images, or one for each. Default: the predicted ones.
        upsample: Enlarge the map to the image by bilinear interpolation; each position of the map lies at the middle of
            its receptive field, so that nothing is shifted where convolutions have no padding.
        double: Run in float64 with the slow reference kernels, for checks; on the CPU alone.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        (N, H, W), or (N, H', W') of the layer without `upsample`; not negative, in units of the score. All zeros where
        nothing speaks for the class.

    Raises:
        ArgumentError: There is no such layer, or the class score does not depend on it; as `input_gradients`.
        ShapeError: The layer is no feature map; as `input_gradients`.
        LabelError: There is no such class.
        DeviceError: The device is absent.

    Example:
        >>> import numpy as np, pycnn
        >>> grad_cam(pycnn.models.lenet5(), np.ones((1, 28, 28, 1), np.float32), "conv2", upsample=False).shape
        (1, 10, 10)
    """
    who = "grad_cam"
    where = check_double(double, device, who)
    images = as_floats(net, x, who, double=double)
    weights = one_hot_classes(net, images, classes, who, where)
    name = default_cam_layer(net, images.shape[1:]) if layer is None else layer
    parts = _in_batches(net, images, weights, [name], who, where)
    values = np.concatenate([part["layer_0"] for part in parts])
    slopes = np.concatenate([part["gradient_0"] for part in parts])
    if values.ndim != 4:
        raise ShapeError(f"{who}: layer '{name}' gives {values.shape}, a feature map is (N, H, W, C)")
    maps = np.maximum((slopes.mean(axis=(1, 2), keepdims=True) * values).sum(axis=3), 0)
    if not upsample:
        return maps
    return enlarge(maps, (images.shape[1], images.shape[2]), receptive_field(net, name, images.shape[1:]))
