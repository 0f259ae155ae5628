"""Measure loss and accuracy of a saved net on held-out images.

Examples:
  pycnn evaluate lenet5.safetensors
  pycnn evaluate lenet5.safetensors --data mnist --data-dir DIR
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from pycnn.cli import _data, _nets, _options
from pycnn.cli._output import Output
from pycnn.nn.files import load
from pycnn.train import Trainer, weights_fingerprint

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("file", metavar="FILE", help="a model file or checkpoint (.safetensors)")
    _data.add_arguments(parser)
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which images (default: test)")
    parser.add_argument("--batch-size", type=_options.count, default=256, metavar="N", help="default: 256")


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure and report."""
    net = load(args.file)
    shape = net.input_shape or ()
    if len(shape) != 3:
        raise ValueError(f"'{args.file}': the net takes {shape}, not images (H, W, C)")
    data = _data.load_data(args.data, args.data_dir, size=(shape[0], shape[1]), channels=shape[2])
    images = data.test if args.split == "test" else data.train
    names = _nets.class_names(net)
    if names is not None and names != tuple(images.class_names):
        raise ValueError(f"the net knows the classes {', '.join(names)}; the data has {', '.join(images.class_names)}")
    trainer = Trainer(net, loss=_nets.own_loss(net), device=args.device, threads=args.threads, seed=args.seed)
    started = time.perf_counter()
    measured = trainer.evaluate(images, batch_size=args.batch_size)
    seconds = time.perf_counter() - started
    right = round(measured["accuracy"] * len(images))
    chance = float(np.bincount(images.labels).max()) / len(images)
    result = {
        "file": args.file,
        "data": args.data,
        "split": args.split,
        "images": len(images),
        "accuracy": measured["accuracy"],
        "loss": measured["loss"],
        "largest_class": chance,
        "seconds": seconds,
        "images_per_second": len(images) / max(seconds, 1e-9),
        "weights_fingerprint": weights_fingerprint(net),
    }
    output.result(
        result,
        f"accuracy {100 * measured['accuracy']:.2f} % ({right:,} of {len(images):,} {args.split} images; "
        f"always the largest class: {100 * chance:.2f} %), loss {measured['loss']:.4f}",
    )
    output.suggest(f"pycnn predict {args.file} IMAGE...")
    return 0
