"""Measure loss and accuracy of saved nets on held-out images, one by one or as an ensemble.

Examples:
  pycnn evaluate lenet5.safetensors
  pycnn evaluate lenet5.safetensors --data mnist --data-dir DIR
  pycnn evaluate alexnet.safetensors --data folder --data-dir DIR --ten-crop
  pycnn evaluate resnet50 --weights resnet50.pth --normalize imagenet --data folder --data-dir DIR --image-size 256
  pycnn evaluate a.safetensors b.safetensors c.safetensors --ensemble     or, of a list:  pycnn evaluate three.toml
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.cli import _data, _nets, _options, _weights
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.data import Dataset
from pycnn.data.transforms import CenterCrop, Transform
from pycnn.ensemble import Ensemble, read_list
from pycnn.nn.module import Module
from pycnn.train import Trainer, evaluate_crops, weights_fingerprint

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

#: 256 pixels for a window of 224, as in AlexNet's paper.
_MARGIN = 8 / 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "file",
        nargs="+",
        metavar="FILE",
        help="model files or checkpoints (.safetensors), or a list of them (.toml); with --weights, the name of a net",
    )
    _data.add_arguments(parser)
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which images (default: test)")
    parser.add_argument("--batch-size", type=_options.count, default=256, metavar="N", help="default: 256")
    parser.add_argument(
        "--ensemble", action="store_true", help="average the probabilities of all nets (a .toml list is one anyway)"
    )
    parser.add_argument(
        "--image-size",
        type=_options.count,
        metavar="PX",
        help="side that files are brought to before the net's window is cut from the middle (default: that window; "
        "with --ten-crop an eighth more)",
    )
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--ten-crop",
        dest="crops",
        action="store_const",
        const=10,
        help="average the probabilities of ten windows of each image: corners and middle, mirrored too",
    )
    several.add_argument(
        "--mirror",
        dest="crops",
        action="store_const",
        const=2,
        help="average the probabilities of each image and its mirror image",
    )
    _options.add_numerics(parser)
    _weights.add_arguments(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure and report."""
    is_list = any(Path(file).suffix == ".toml" for file in args.file)
    if is_list and len(args.file) > 1:
        raise UsageError("a .toml list of model files is given alone")
    paths = [str(path) for path in read_list(args.file[0])] if is_list else list(args.file)
    if args.weights is not None and (is_list or len(paths) > 1):
        raise UsageError("--weights goes with the name of one net")
    nets = [_weights.find(path, args) for path in paths]
    shape = _shared_shape(paths, nets)
    side = args.image_size
    if side is None and args.crops == 10 and args.data in ("digits", "folder"):
        side = round(max(shape[:2]) * _MARGIN)
    if side is not None and side < max(shape[:2]):
        raise UsageError(f"--image-size {side} is below the net's {shape[0]}x{shape[1]}")
    size = (shape[0], shape[1]) if side is None else (side, side)
    data = _data.load_data(
        args.data, args.data_dir, size=size, channels=shape[2], on_error=args.on_error, used=args.split
    )
    images = data.part(args.split)
    for path, net in zip(paths, nets, strict=True):
        _nets.check_classes(path, net, tuple(images.class_names), output)
    is_exact = images.image_shape[:2] == shape[:2]
    if is_exact and args.crops == 10:
        raise UsageError(
            f"--ten-crop: the images have {shape[0]}x{shape[1]} pixels, as many as the net sees; they must be larger"
        )
    window = None if is_exact else CenterCrop((shape[0], shape[1]))
    if is_list or args.ensemble:
        return _together(args, output, paths, nets, data, window)
    results = [_measure(args, path, net, data, window) for path, net in zip(paths, nets, strict=True)]
    if len(results) == 1:
        output.result(results[0], _text(args, results[0]) + data.skipped_text)
        output.suggest(f"pycnn predict {paths[0]} IMAGE...{_weights.words(args)}")
        return 0
    output.form = "evaluate-several"
    lines = [f"{r['file']}: {_text(args, r)}" for r in results]
    output.result({"nets": results}, "\n".join(lines) + data.skipped_text)
    output.suggest(f"pycnn evaluate {' '.join(paths)} --ensemble")
    return 0


def _shared_shape(paths: list[str], nets: list[Module]) -> tuple[int, int, int]:
    shapes = [net.input_shape or () for net in nets]
    for path, shape in zip(paths, shapes, strict=True):
        if len(shape) != 3:
            raise ValueError(f"'{path}': the net takes {shape}, not images (H, W, C)")
        if shape != shapes[0]:
            raise ValueError(f"'{path}': the net takes images {shape}, that of '{paths[0]}' takes {shapes[0]}")
    height, width, channels = shapes[0]
    return height, width, channels


def _measure(
    args: argparse.Namespace, path: str, net: Module, data: _data.Data, window: Transform | None
) -> dict[str, Any]:
    images = data.part(args.split)
    started = time.perf_counter()
    if args.crops is not None:
        measured = _crops(args, Ensemble([net], **_execution(args)), images)
    else:
        trainer = Trainer(
            net,
            loss=_nets.own_loss(net),
            seed=args.seed,
            **_execution(args),
        )
        measured = trainer.evaluate(images, batch_size=args.batch_size, transform=window)
    seconds = time.perf_counter() - started
    return {
        "file": path,
        "weights": args.weights,
        "data": args.data,
        "split": args.split,
        "images": len(images),
        "crops": args.crops or 1,
        "skipped_images": data.skipped,
        "accuracy": measured["accuracy"],
        "loss": measured["loss"],
        "largest_class": _largest_class(images),
        "seconds": seconds,
        "images_per_second": len(images) / max(seconds, 1e-9),
        "weights_fingerprint": weights_fingerprint(net),
    }


def _execution(args: argparse.Namespace) -> dict[str, Any]:
    return {"device": args.device, "threads": args.threads, **_options.numerics(args)}


def _crops(args: argparse.Namespace, nets: Ensemble, images: Dataset) -> dict[str, float]:
    height, width, _ = nets.nets[0].input_shape or (0, 0, 0)
    return evaluate_crops(nets, images, size=(height, width), crops=args.crops, batch_size=args.batch_size)


def _largest_class(images: Dataset) -> float:
    return float(np.bincount(images.labels).max()) / len(images)


def _text(args: argparse.Namespace, result: dict[str, Any]) -> str:
    count = result["images"]
    return (
        f"accuracy {100 * result['accuracy']:.2f} % ({round(result['accuracy'] * count):,} of {count:,} {args.split} "
        f"images; always the largest class: {100 * result['largest_class']:.2f} %), loss {result['loss']:.4f}"
    )


def _together(
    args: argparse.Namespace,
    output: Output,
    paths: list[str],
    nets: list[Module],
    data: _data.Data,
    window: Transform | None,
) -> int:
    images = data.part(args.split)
    started = time.perf_counter()
    ensemble = Ensemble(nets, **_execution(args))
    if args.crops is not None:
        members = [_crops(args, Ensemble([net], **_execution(args)), images)["accuracy"] for net in nets]
        measured: dict[str, Any] = {**_crops(args, ensemble, images), "members": members}
    else:
        measured = ensemble.evaluate(images, batch_size=args.batch_size, transform=window)
    seconds = time.perf_counter() - started
    result = {
        "files": paths,
        "data": args.data,
        "split": args.split,
        "images": len(images),
        "crops": args.crops or 1,
        "skipped_images": data.skipped,
        "accuracy": measured["accuracy"],
        "loss": measured["loss"],
        "member_accuracies": measured["members"],
        "largest_class": _largest_class(images),
        "seconds": seconds,
    }
    lines = [f"{path}: accuracy {100 * a:.2f} %" for path, a in zip(paths, measured["members"], strict=True)]
    lines.append(f"ensemble of {len(nets)}: {_text(args, result)}")
    output.form = "evaluate-ensemble"
    output.result(result, "\n".join(lines) + data.skipped_text)
    output.suggest(f"pycnn predict {paths[0]} IMAGE...")
    return 0
