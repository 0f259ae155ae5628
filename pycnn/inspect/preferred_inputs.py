"""The input that a unit likes best, by gradient ascent, and the image patches that it likes best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError, ShapeError
from pycnn.inspect._recording import Recorded, class_scores, gradients, layer_program, record, run
from pycnn.inspect.feature_maps import receptive_field
from pycnn.nn.module import Module
from pycnn.program import check_device
from pycnn.tracing import Symbol

__all__ = ["Patches", "maximize", "top_patches"]


def maximize(
    net: Module,
    units: Sequence[int],
    layer: str | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    steps: int = 128,
    step_size: float = 0.05,
    decay: float = 0.01,
    jitter: int | None = None,
    blur: float = 0.5,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Find images that make units as active as possible, by gradient ascent on the pixels.

    After Erhan et al. 2009 and Simonyan, Vedaldi, Zisserman 2013, regularised as by Yosinski et al. 2015: every step
    moves the image by a random shift, goes along the gradient (scaled to a mean square of 1), pulls pixels towards grey
    and keeps them in 0..1; every fourth step blurs a little.

    Args:
        net: The net.
        units: Channels of the layer, or classes; one image is made for each.
        layer: Name of a layer; of a feature map the mean over the positions counts. Default: the class scores.
        input_shape: (H, W, C); default: what the net was made for or called with last.
        steps: Number of steps.
        step_size: Length of a step, in units of the pixel range.
        decay: Part by which pixels go towards 0.5 at each step.
        jitter: Largest shift in pixels. Default: an eighth of the shorter side, at most 16.
        blur: Standard deviation in pixels; 0 for none.
        seed: Of the first image (grey with a little noise) and of the shifts; the same seed gives the same images.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        float32 (len(units), H, W, C) in 0..1.

    Raises:
        ArgumentError: There is no such layer or unit, or a number is out of range.
        ShapeError: The net gives no class scores.
        GraphError: The unit does not depend on the pixels.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn
        >>> maximize(pycnn.models.lenet5(), [0, 7], steps=2).shape
        (2, 28, 28, 1)
    """
    where = check_device(device, who="maximize")
    shape = net._input_shape(input_shape, "maximize")
    if len(shape) != 3:
        raise ShapeError(f"maximize: the net takes {shape}, expected images (H, W, C)")
    chosen = _check_units(units, _unit_count(net, shape, layer), "maximize")
    if jitter is None:
        jitter = min(min(shape[:2]) // 8, 16)
    for name, value, low in (("steps", steps, 0), ("jitter", jitter, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ArgumentError(f"maximize: {name} must be a whole number of at least {low}, got {value!r}")
    if not step_size > 0 or not 0 <= decay < 1 or not blur >= 0:
        raise ArgumentError(
            f"maximize: step_size {step_size!r} must be above 0, decay {decay!r} in 0..1, blur {blur!r} not negative"
        )
    rng = np.random.default_rng(seed)
    images = np.clip(rng.normal(0.5, 0.02, (len(chosen), *shape)), 0, 1).astype(np.float32)
    program, weights = _ascent(net, images.shape, layer, chosen, where)
    for step in range(steps):
        shift = rng.integers(-jitter, jitter + 1, 2)
        moved = np.roll(images, shift, axis=(1, 2))
        slope = run(program, {"x": moved, "weights": weights})["gradient_0"]
        slope = np.roll(slope, -shift, axis=(1, 2))
        scale = np.sqrt(np.square(slope).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
        images = images + np.float32(step_size) * slope / scale
        images = 0.5 + (images - 0.5) * np.float32(1 - decay)
        if blur and step % 4 == 3 and step < steps - 1:
            images = _blurred(images, blur)
        images = np.clip(images, 0, 1).astype(np.float32)
    return images


def _ascent(
    net: Module, shape: Sequence[int], layer: str | None, units: np.ndarray, device: str
) -> tuple[Any, np.ndarray]:
    def value(recorded: Recorded) -> Symbol:
        return class_scores(recorded.result, "maximize") if layer is None else recorded.layers[layer]

    def objective(recorded: Recorded) -> Symbol:
        found = value(recorded)
        if found.ndim == 4:
            found = functional.global_avg_pool2d(found)
        return functional.sum(found * recorded.extra["weights"])

    count = _unit_count(net, shape[1:], layer)
    weights = np.zeros((len(units), count), np.float32)
    weights[np.arange(len(units)), units] = 1
    specs = {"x": (tuple(shape), "float32"), "weights": (weights.shape, "float32")}
    return gradients(net, specs, objective, [None], device=device), weights


def _unit_count(net: Module, image_shape: Sequence[int], layer: str | None) -> int:
    def outputs(recorded: Recorded) -> dict[str, Symbol]:
        return {"value": class_scores(recorded.result, "maximize") if layer is None else recorded.layers[layer]}

    traced = record(net, {"x": ((1, *image_shape), "float32")}, outputs)
    shape = traced.graph.spec(dict(traced.graph.outputs())["value"])[0]
    if len(shape) not in (2, 4):
        raise ShapeError(f"layer {layer!r} gives {shape}, expected (N, units) or (N, H, W, C)")
    return int(shape[-1])


def _check_units(units: Any, count: int, who: str) -> np.ndarray:
    chosen = np.asarray(units)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise ArgumentError(f"{who}: units must be a list of channel or class numbers, got {units!r}")
    if chosen.min() < 0 or chosen.max() >= count:
        raise ArgumentError(f"{who}: units {units!r}, the layer has the units 0 to {count - 1}")
    return chosen.astype(np.int64)


def _blurred(images: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur of (N, H, W, C); borders repeat."""
    radius = max(1, int(3 * deviation + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        width = [(0, 0)] * 4
        width[axis] = (radius, radius)
        padded = np.pad(images, width, mode="edge")
        length = images.shape[axis]
        images = sum(
            (weight * padded.take(range(i, i + length), axis=axis) for i, weight in enumerate(kernel)),
            start=np.zeros_like(images),
        )
    return images.astype(np.float32)


@dataclass(frozen=True)
class Patches:
    """The parts of images that channels react to most.

    Attributes:
        patches: (channels, count, h, w, C) in the type of the data; as large as the receptive field, if that fits in
            the image.
        values: float32 (channels, count), the activations, largest first.
        images: int64 (channels, count), index of the image.
        units: int64 (channels, count, 2), row and column in the feature map.
    """

    patches: np.ndarray
    values: np.ndarray
    images: np.ndarray
    units: np.ndarray


def top_patches(
    net: Module,
    data: Any,
    layer: str,
    channels: Sequence[int],
    *,
    count: int = 9,
    batch_size: int = 64,
    device: str = "cpu",
) -> Patches:
    """Find the image patches that channels of a feature map react to most, at most one from an image.

    Args:
        net: The net.
        data: A data set (`len`, `read`), as `pycnn.data` has them.
        layer: Name of a feature map.
        channels: Which of its channels.
        count: Patches for each.
        batch_size: Images per run.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Raises:
        ArgumentError: There is no such layer or channel, or there are fewer images than `count`.
        ShapeError: The layer is no feature map.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn
        >>> train, _ = pycnn.data.digits()
        >>> top_patches(pycnn.models.lenet5(), train, "conv2", [0, 1], count=4).patches.shape
        (2, 4, 14, 14, 1)
    """
    where = check_device(device, who="top_patches")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(data):
        raise ArgumentError(f"top_patches: count is {count!r}, there are {len(data)} images")
    shape = tuple(data.image_shape)
    chosen = _check_units(channels, _unit_count(net, shape, layer), "top_patches")
    values = np.empty((len(chosen), len(data)), np.float32)
    units = np.empty((len(chosen), len(data), 2), np.int64)
    program = None
    for start in range(0, len(data), batch_size):
        part = data.read(np.arange(start, min(start + batch_size, len(data))))
        if program is None or program.inputs[0][1] != part.shape:
            program = layer_program(net, part.shape, part.dtype.name, [layer], where)
        maps = program.run(part)["layer_0"]
        if maps.ndim != 4:
            raise ShapeError(f"top_patches: layer '{layer}' gives {maps.shape}, a feature map is (N, H, W, C)")
        flat = maps.reshape(len(part), -1, maps.shape[3])[:, :, chosen]
        best = flat.argmax(axis=1)
        values[:, start : start + len(part)] = flat.max(axis=1).T
        units[:, start : start + len(part)] = np.stack(np.unravel_index(best, maps.shape[1:3]), axis=-1).transpose(
            1, 0, 2
        )
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(chosen))[:, None]
    patches = _cut(net, data, layer, order, units[rows, order])
    return Patches(patches, values[rows, order], order.astype(np.int64), units[rows, order])


def _cut(net: Module, data: Any, layer: str, images: np.ndarray, units: np.ndarray) -> np.ndarray:
    height, width, _ = data.image_shape
    field = receptive_field(net, layer, data.image_shape)
    size = (height, width) if field is None else (min(field.size[0], height), min(field.size[1], width))
    result = []
    for row, places in zip(images, units, strict=True):
        pictures = data.read(np.asarray(row, np.int64))
        for picture, unit in zip(pictures, places, strict=True):
            top, left = (0, 0) if field is None else field.box((int(unit[0]), int(unit[1])))[:2]
            # At the border the patch moves inside, so that all have one size.
            top, left = min(max(top, 0), height - size[0]), min(max(left, 0), width - size[1])
            result.append(picture[top : top + size[0], left : left + size[1]])
    return np.stack(result).reshape(*images.shape, *size, -1)
