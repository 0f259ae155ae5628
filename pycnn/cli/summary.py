"""Show a net as a table: output shapes, parameters, multiply-adds, memory, receptive fields.

Examples:
  pycnn summary lenet5
  pycnn summary lenet5.safetensors --batch 32
"""

from __future__ import annotations

import argparse

from pycnn.cli import _nets, _options
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("net", metavar="NET", help="name of a net, or a model file")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example num_classes=8"
    )
    parser.add_argument("--input-shape", type=_options.image_shape, metavar="H,W,C", help="default: the net's own")
    parser.add_argument("--batch", type=_options.count, default=1, metavar="N", help="images at once (default: 1)")


def run(args: argparse.Namespace, output: Output) -> int:
    """Tabulate."""
    net = _nets.find(args.net, _nets.parse_options(args.option))
    if args.input_shape is None and net.input_shape is None:
        raise UsageError(f"{args.net} has no input size of its own; give --input-shape H,W,C")
    table = net.summary(args.input_shape, batch=args.batch)
    output.result({"net": args.net, **table.to_dict()}, str(table))
    output.suggest(f"pycnn bench {args.net}")
    return 0
