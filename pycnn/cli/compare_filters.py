"""Compare one large filter with chains of small ones: weights, multiply-adds, receptive field.

Chains are separated by spaces, the filters of a chain by commas. Every filter keeps the size and the channels.

Examples:
  pycnn compare-filters 7x7 3x3,3x3,3x3
  pycnn compare-filters 5x5 3x3,3x3 1x5,5x1 --channels 128 --size 28
"""

from __future__ import annotations

import argparse

from pycnn.cli import _options
from pycnn.cli._options import as_usage
from pycnn.cli._output import Output
from pycnn.inspect.filter_chains import compare_filters

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("chains", nargs="+", metavar="CHAIN", help="filters of a chain, for example 3x3,3x3,3x3")
    parser.add_argument(
        "--channels", type=_options.count, default=64, metavar="N", help="into and out of each filter (default: 64)"
    )
    parser.add_argument(
        "--size", type=_options.side, default=(56, 56), metavar="H,W", help="positions (default: 56,56)"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Compare."""
    with as_usage():
        table = compare_filters(args.chains, channels=args.channels, size=args.size)
    output.result(table.to_dict(), str(table))
    output.suggest("pycnn summary lenet5 shows the same numbers layer by layer")
    return 0
