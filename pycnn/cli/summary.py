"""Show a net as a table: output shapes, parameters, multiply-adds, memory, receptive fields.

The memory of inference and of training is what the compiler planned; nothing is run.

Examples:
  pycnn summary lenet5
  pycnn summary lenet5 --compact --budget 16M
  pycnn summary lenet5.safetensors --batch 32 --html lenet5.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pycnn.cli import _nets, _options
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.textfile import write_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("net", metavar="NET", help="name of a net, or a model file")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the net, for example num_classes=8"
    )
    parser.add_argument("--input-shape", type=_options.image_shape, metavar="H,W,C", help="default: the net's own")
    parser.add_argument("--batch", type=_options.count, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument("--depth", type=_options.count, metavar="N", help="group the rows by modules N names deep")
    parser.add_argument(
        "--compact", action="store_true", help="activations, batch norms, dropout and flatten join the layer before"
    )
    parser.add_argument(
        "--budget",
        type=_options.size_bytes,
        metavar="SIZE",
        help="find the largest batches in, for example, 8G or 512M",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the table as a page of its own too")


def run(args: argparse.Namespace, output: Output) -> int:
    """Tabulate."""
    _options.check_output("--html", args.html, example="summary.html")
    net = _nets.find(args.net, _nets.parse_options(args.option))
    if args.input_shape is None and net.input_shape is None:
        raise UsageError(f"{args.net} has no input size of its own; give --input-shape H,W,C")
    table = net.summary(args.input_shape, batch=args.batch, depth=args.depth, compact=args.compact, budget=args.budget)
    if args.html is not None:
        write_text(args.html, table.to_html())
        output.progress(f"written: {args.html}")
    output.result({"net": args.net, "html": args.html, **table.to_dict()}, str(table))
    output.suggest(f"pycnn bench {args.net}")
    return 0
