"""Tell what image files show: the most probable classes of each.

Images are converted to the net's size and to grey or colour. Digits are white on black, as in MNIST; for dark
writing on white paper give --invert.

Weights that others trained, torchvision's for example, come without a net: give its name, and what they expect of
pixels.

Examples:
  pycnn predict lenet5.safetensors seven.png --top-k 3
  pycnn predict resnet50 photo.jpg --weights resnet50.pth --normalize imagenet
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import pycnn
from pycnn import functional
from pycnn.cli import _nets, _options, _weights
from pycnn.cli._output import Output
from pycnn.data._decode import decode, read_file, require_pillow
from pycnn.nn import _range
from pycnn.nn._running import ends_in_softmax
from pycnn.nn.module import Module
from pycnn.program import COMPUTED, LOW_PRECISION
from pycnn.tracing import check_dtype

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

_BATCH = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "file", metavar="FILE", help="a model file or checkpoint (.safetensors); with --weights, the name of a net"
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files (PNG, JPEG, ...)")
    parser.add_argument("--top-k", type=_options.count, default=3, metavar="K", help="classes to show (default: 3)")
    parser.add_argument("--fit", choices=("crop", "stretch"), default="crop", help="how other proportions are handled")
    parser.add_argument("--invert", action="store_true", help="swap dark and bright")
    _options.add_numerics(parser)
    _weights.add_arguments(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Decode, run, report."""
    require_pillow("predict")
    net = _weights.find(args.file, args)
    shape = net.input_shape or ()
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(f"'{args.file}': the net takes {shape}, not grey or colour images (H, W, C)")
    images = _read(args, shape)
    _range.check(net, images)
    probabilities = _probabilities(net, images, args)
    names = _nets.class_names(net) or tuple(str(index) for index in range(probabilities.shape[1]))
    if len(names) != probabilities.shape[1]:
        raise ValueError(f"'{args.file}': {len(names)} class names, but the net gives {probabilities.shape[1]} classes")
    shown = min(args.top_k, len(names))
    predictions: list[dict[str, Any]] = []
    for path, row in zip(args.images, probabilities, strict=True):
        # Stable, so that equal probabilities come in the order of the classes.
        best = np.argsort(-row, kind="stable")[:shown]
        classes = [{"class": names[i], "index": int(i), "probability": float(row[i])} for i in best]
        predictions.append({"image": str(path), "classes": classes})
    lines = [
        f"{p['image']}: " + ", ".join(f"{c['class']} {100 * c['probability']:.1f} %" for c in p["classes"])
        for p in predictions
    ]
    output.result({"file": args.file, "weights": args.weights, "predictions": predictions}, "\n".join(lines))
    output.suggest(f"pycnn bench {args.file}")
    return 0


def _read(args: argparse.Namespace, shape: tuple[int, ...]) -> np.ndarray:
    images = np.empty((len(args.images), *shape), np.uint8)
    for index, path in enumerate(args.images):
        where = f"'{path}'"
        data = read_file(path, where=where)
        pixels = decode(data, where=where, channels=shape[2], size=(shape[0], shape[1]), fit=args.fit)
        images[index] = 255 - pixels if args.invert else pixels
    return images


def _probabilities(net: Module, images: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    def function(x: Any) -> Any:
        scores = net(x)
        if not hasattr(scores, "shape") or len(scores.shape) != 2:
            raise ValueError(f"'{args.file}': the net gives {getattr(scores, 'shape', scores)}, not (N, classes)")
        return scores if ends_in_softmax(scores) else functional.softmax(scores)

    numerics = _options.numerics(args)
    if check_dtype(numerics["dtype"], allowed=COMPUTED) in LOW_PRECISION:
        numerics["input_dtype"] = "uint8"
    else:
        numerics["dtype"] = "uint8"
    parts = []
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        program = pycnn.compile(function, part.shape, device=args.device, threads=args.threads, **numerics)
        parts.append(program(part))
    return np.concatenate(parts)
