"""Write a net as an ONNX file, which other programs run.

The file takes float32 images (N, C, H, W), any number of them, as the net takes them: in 0..1 unless it was trained
otherwise. With --normalize imagenet the normalization becomes part of the file.

Examples:
  pycnn export lenet5.safetensors lenet5.onnx
  pycnn export resnet50 resnet50.onnx --weights resnet50.pth --normalize imagenet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pycnn
from pycnn.cli import _options, _weights
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("net", metavar="NET", help="a model file, or the name of a net (without --weights: fresh ones)")
    parser.add_argument("output", type=Path, metavar="FILE", help="where to; usually NAME.onnx")
    parser.add_argument("--opset", type=_options.count, default=17, metavar="N", help="13 to 22 (default: 17)")
    parser.add_argument("--input-shape", type=_options.image_shape, metavar="H,W,C", help="default: the net's own")
    parser.add_argument(
        "--input-layout", choices=("NCHW", "NHWC"), default="NCHW", help="how the file takes images (default: NCHW)"
    )
    _weights.add_arguments(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Load and write."""
    _options.check_output("FILE", args.output, example="net.onnx")
    net = _weights.find(args.net, args, fresh=True)
    if args.input_shape is None and net.input_shape is None:
        raise UsageError(f"{args.net} has no input size of its own; give --input-shape H,W,C")
    pycnn.onnx.export(net, args.output, opset=args.opset, input_shape=args.input_shape, input_layout=args.input_layout)
    size = args.output.stat().st_size
    values = {"net": args.net, "weights": args.weights, "output": str(args.output), "opset": args.opset, "bytes": size}
    output.result(values, f"written: {args.output} ({size:,} bytes, opset {args.opset})")
    return 0
