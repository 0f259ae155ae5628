"""Look inside of a net: filters, feature maps, what it looks at and why, in one HTML file.

For every image: saliency, guided back-propagation, Grad-CAM, occlusion, feature maps, and what these still
know of the image. With --data also the
confusion matrix, the surest mistakes, and the patches that channels react to most.

Examples:
  pycnn visualize lenet5.safetensors seven.png --output report.html
  pycnn visualize lenet5.safetensors seven.png --data mnist --data-dir DIR --layers conv1,conv2 --pictures folder
  pycnn visualize resnet18 photo.jpg --weights resnet18.pth --normalize imagenet --output report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pycnn.cli import _data, _nets, _weights
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.data._decode import decode, read_file, require_pillow
from pycnn.program import require_device

__all__ = ["RUNS_ON_DEVICES", "add_arguments", "run"]

RUNS_ON_DEVICES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("net", metavar="NET", help="a model file, or the name of a net (see --weights; else fresh)")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files (PNG, JPEG, ...)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="write the page here (.html)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the pictures as PNG files here too")
    parser.add_argument(
        "--layers",
        type=lambda text: text.split(","),
        metavar="LAYER,LAYER",
        help="feature maps to show (default: an early, a middle, the last)",
    )
    parser.add_argument("--class", dest="label", metavar="NAME", help="class to explain (default: the predicted one)")
    parser.add_argument("--fit", choices=("crop", "stretch"), default="crop", help="how other proportions are handled")
    parser.add_argument("--invert", action="store_true", help="swap dark and bright")
    _weights.add_arguments(parser)
    group = parser.add_argument_group("data set for confusion matrix, mistakes and patches")
    group.add_argument("--data", choices=_data.NAMES, help="data set (default: none)")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="where it is; not for digits")


def run(args: argparse.Namespace, output: Output) -> int:
    """Draw and write."""
    require_pillow("visualize")
    if not args.output.resolve().parent.is_dir():
        raise UsageError(f"--output '{args.output}': its folder does not exist")
    if args.data is None and args.data_dir is not None:
        raise UsageError("--data-dir goes with --data")
    require_device(args.device, who="visualize")
    from pycnn.inspect.html_report import report

    net = _weights.find(args.net, args, fresh=True)
    shape = net.input_shape or ()
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(f"'{args.net}': the net takes {shape}, not grey or colour images (H, W, C)")
    images = np.stack([_read(path, args, shape) for path in args.images])
    data = None
    if args.data is not None:
        data = _data.load_data(args.data, args.data_dir, size=(shape[0], shape[1]), channels=shape[2]).test
        _nets.check_classes(args.net, net, tuple(data.class_names), output)
    names = _nets.class_names(net) or (data.class_names if data is not None else None)
    notes = [f"{args.net}; images are resized to {shape[0]} x {shape[1]} pixels"]
    if args.weights is not None:
        notes.append(f"The weights are those of {args.weights}.")
    elif not _nets.is_file(args.net):
        notes.append("The weights are fresh: this net has learned nothing yet.")
        output.warn(f"{args.net} has fresh weights; give a model file, or --weights, to see what a net has learned")
    page = report(
        net,
        images,
        image_names=[path.name for path in args.images],
        class_names=names,
        layers=args.layers,
        classes=_label(args.label, names),
        data=data,
        title=f"Inside {Path(args.net).name}",
        notes=notes,
        seed=args.seed,
        device=args.device,
        progress=output.progress,
    )
    page.save(args.output)
    files = [] if args.pictures is None else page.save_pictures(args.pictures)
    pictures = [
        {"section": picture.section, "name": picture.name, "bytes": len(picture.png)} for picture in page.pictures
    ]
    result = {
        "net": args.net,
        "weights": args.weights,
        "images": [str(path) for path in args.images],
        "output": args.output,
        "pictures": pictures,
        "files": [str(path) for path in files],
    }
    text = f"{len(pictures)} pictures in {args.output}" + (f" and as files in {args.pictures}" if files else "")
    output.result(result, text)
    output.suggest(f"pycnn summary {args.net} --compact")
    return 0


def _read(path: Path, args: argparse.Namespace, shape: tuple[int, ...]) -> np.ndarray:
    where = f"'{path}'"
    data = read_file(path, where=where)
    pixels = decode(data, where=where, channels=shape[2], size=(shape[0], shape[1]), fit=args.fit)
    return 255 - pixels if args.invert else pixels


def _label(text: str | None, names: tuple[str, ...] | None) -> int | None:
    """Number of a class that is given by its name or number."""
    if text is None:
        return None
    if names is not None and text in names:
        return names.index(text)
    if text.isdigit():
        return int(text)
    from difflib import get_close_matches

    close = get_close_matches(text, names or (), n=3, cutoff=0.4)
    raise UsageError(f"--class '{text}': no class is called so" + (f"; there is {', '.join(close)}" if close else ""))
