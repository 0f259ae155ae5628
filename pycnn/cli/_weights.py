"""Weights that others trained, in a net by name: --weights, and what goes with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pycnn import models
from pycnn.cli import _nets
from pycnn.cli._options import UsageError
from pycnn.nn.module import Module
from pycnn.nn.norm import Normalize
from pycnn.nn.weights import load_weights

__all__ = ["add_arguments", "find", "words"]

_IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --weights, --sha256, --normalize and --option."""
    group = parser.add_argument_group("weights of others, for a net by name")
    group.add_argument("--weights", metavar="FILE", help="path or URL: .safetensors, or .pth, which torch opens")
    group.add_argument("--sha256", metavar="HEX", help="digest of that file, or its first 8 digits or more")
    group.add_argument(
        "--normalize",
        choices=("imagenet", "none"),
        help="what the weights expect: pixels less ImageNet's mean over its deviation, or pixels in 0..1",
    )
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example num_classes=8"
    )


def find(net: str, args: argparse.Namespace, *, fresh: bool = False) -> Module:
    """Load a model file, or make a net by name and give it the weights of --weights.

    Args:
        net: What was typed for the net.
        args: With the options of `add_arguments`.
        fresh: A name without --weights gives fresh weights; otherwise it is refused.

    Raises:
        UsageError: There is no such net or option, or the words do not go together.
        FileError: A file cannot be read.
        FormatError: A file is malformed, or has another digest.
        ArgumentError: The weights are those of another net.
        ShapeError: Likewise, as their shapes tell.
    """
    options = _nets.parse_options(args.option)
    if args.weights is None and _nets.is_onnx(net):
        return _onnx(net, args)
    if args.weights is None:
        alone = {"--sha256": args.sha256, "--normalize": args.normalize, "--option": args.option and not fresh}
        given = next((name for name, value in alone.items() if value), None)
        if given:
            raise UsageError(f"{given} goes with --weights")
        if fresh:
            return _nets.find(net, options)
        if net in models.list() and not Path(net).is_file():
            raise UsageError(f"'{net}' is the name of a net, without weights; give a model file, or --weights FILE too")
        return _nets.load_file(net)
    if _nets.is_file(net):
        raise UsageError(f"--weights: '{net}' is a file, its weights are there already; give the name of a net")
    if args.normalize is None:
        # A wrong guess would give probabilities that look as good as right ones.
        raise UsageError("--weights: the file does not tell what its net expects; add --normalize imagenet (or none)")
    if "transform_input" in _nets.known_options(net) and "transform_input" not in options:
        raise UsageError(
            f"--weights: the file does not tell which scale of images its {net} expects; add --option "
            "transform_input=true for torchvision's published weights, transform_input=false for others"
        )
    made = _nets.create(net, options)
    load_weights(made, args.weights, sha256=args.sha256)
    if args.normalize == "imagenet":
        made.normalization = _IMAGENET
    return made


def _onnx(path: str, args: argparse.Namespace) -> Module:
    for name, value in (("--sha256", args.sha256), ("--option", args.option)):
        if value:
            raise UsageError(f"{name} goes with --weights")
    made = _nets.load_file(path)
    if args.normalize is None and made.input_range is None:
        raise UsageError(
            f"'{path}' does not tell what its net expects of pixels; add --normalize imagenet, or none for 0..1"
        )
    if args.normalize == "imagenet":
        made.normalization = _IMAGENET
    return made


def words(args: argparse.Namespace) -> str:
    """The options of `add_arguments` as they were typed, with a space before; for commands to try next."""
    named = {"--weights": args.weights, "--sha256": args.sha256, "--normalize": args.normalize}
    shown = [f" {name} {value}" for name, value in named.items() if value is not None]
    return "".join([*shown, *(f" --option {pair}" for pair in args.option)])
