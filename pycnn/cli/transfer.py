"""Use a trained net for pictures of your own: look, advise, carry the advice out, and measure the alternatives.

DIR holds a folder for each class in DIR/train and DIR/val (or DIR/test), or in itself, of which a fifth is held out.
The encoder is the one that comes along (ResNet-20, trained on CIFAR-10), a model file, or a net by name with weights.
First its layers are searched for those that tell the classes apart; then strategies are carried out, each with several
seeds, and measured on the held-out pictures. The best net is written as an ordinary model file.

Examples:
  pycnn transfer photos --output photos.safetensors
  pycnn transfer photos --strategies advised --seeds 1
  pycnn transfer photos --net resnet50 --weights resnet50.pth --normalize imagenet --strategies nearest,linear-top
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from pycnn.cli import _data, _nets, _options
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.nn.module import Module
from pycnn.nn.norm import Normalize
from pycnn.nn.weights import load_weights
from pycnn.optional import optional
from pycnn.transfer import STRATEGIES, Comparison, Survey, compare, default_encoder, survey

__all__ = ["add_arguments", "run"]

_SIDE = 64
_ALL, _ADVISED = "all", "advised"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="pictures: DIR/{train,val}/CLASS, or DIR/CLASS")
    encoder = parser.add_argument_group("encoder (default: the one that comes along)")
    encoder.add_argument("--net", metavar="NET", help="a model file, or with --weights the name of a net")
    encoder.add_argument("--weights", metavar="FILE", help="a model file; with --net NAME, path or URL of its weights")
    encoder.add_argument("--sha256", metavar="HEX", help="digest of that file, or its first 8 digits or more")
    encoder.add_argument(
        "--normalize", choices=("imagenet", "none"), help="what weights of --net NAME expect of pixels"
    )
    encoder.add_argument("--layers", metavar="A,B", help="stages, the top last (default: where maps change size)")
    encoder.add_argument(
        "--size",
        type=_options.side,
        metavar="H,W",
        help=f"pixels that pictures are brought to (default: {_SIDE}, or as the net of --net was made for)",
    )
    work = parser.add_argument_group("strategies")
    work.add_argument(
        "--strategies",
        default=_ALL,
        metavar="A,B",
        help=f"{', '.join(STRATEGIES)}; {_ALL}, {_ADVISED} (default: {_ALL})",
    )
    work.add_argument(
        "--similarity",
        type=_similarity,
        metavar="S",
        help="of the pictures to those the encoder saw: similar, different, or 0 to 1 (default: estimated)",
    )
    work.add_argument("--seeds", type=_options.count, default=3, metavar="N", help="runs of each strategy (default: 3)")
    work.add_argument("--epochs", type=_options.count, default=15, metavar="N", help="of training (default: 15)")
    work.add_argument(
        "--batch-size", type=_options.count, default=32, metavar="N", help="pictures in a step (default: 32)"
    )
    work.add_argument(
        "--lr", type=_options.number, metavar="RATE", help="of training (default: 0.05; nets without batch norm: 0.005)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the best net here (.safetensors)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument("--features", type=Path, metavar="DIR", help="keep features here, and take them from here")


def _similarity(text: str) -> str | float:
    if text in ("similar", "different"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not similar, different, or a number from 0 to 1")
    return value


def run(args: argparse.Namespace, output: Output) -> int:
    """Look, advise, compare, write."""
    names = _strategies(args.strategies)
    _options.check_output("--output", args.output, example="net.safetensors")
    _options.check_output("--csv", args.csv, example="table.csv")
    if not args.dir.is_dir():
        raise NotADirectoryError(f"'{args.dir}' is no directory")
    optional("sklearn.linear_model", extra="transfer", who="pycnn transfer")
    net, shown, size = _encoder(args)
    channels = (net.input_shape or (0, 0, 3))[2]
    data = _data.load_data("folder", args.dir, size=size, channels=channels)
    if len(data.train.class_names) < 2:
        raise ValueError(f"'{args.dir}': there is only the class {data.train.class_names[0]}; nothing to tell apart")
    started = time.perf_counter()
    net.build((*size, channels))
    output.progress(
        f"{len(data.train):,} pictures to learn from and {len(data.test):,} held out, "
        f"{len(data.train.class_names)} classes, {size[0]}x{size[1]} pixels; encoder {shown}"
    )
    layers = None if args.layers is None else [name.strip() for name in args.layers.split(",")]
    with _options.as_usage():
        found = survey(
            net,
            data.train,
            layers=layers,
            similarity=args.similarity,
            out=None if args.features is None else args.features / "train",
            batch_size=args.batch_size,
            epochs=args.epochs,
            seed=args.seed,
        )
    output.progress(str(found))
    chosen = [found.advice.strategy] if names == [_ADVISED] else names
    compared = compare(
        net,
        data.train,
        data.test,
        strategies=chosen,
        seeds=range(args.seed, args.seed + args.seeds),
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        layers=layers,
        out=args.features,
        threads=args.threads,
        report=output.progress,
    )
    written = None
    if args.output is not None:
        written = compared.save_best(args.output)
    if args.csv is not None:
        compared.to_csv(args.csv)
    seconds = time.perf_counter() - started
    values = _values(args, data, shown, size, found, compared)
    values |= {"seconds": seconds, "output": args.output, "written": None if written is None else written.name}
    lines = [str(compared), _verdict(found, compared)]
    if written is not None:
        lines.append(f"written: {args.output} ({written.name})")
    output.result(values, "\n".join(lines))
    if args.output is not None:
        output.suggest(f"pycnn predict {args.output} IMAGE")
    else:
        output.suggest(f"pycnn transfer {args.dir} --strategies {compared.best.name} --output net.safetensors")
    return 0


def _strategies(text: str) -> list[str]:
    if text == _ALL:
        return list(STRATEGIES)
    names = [name.strip() for name in text.split(",")]
    if names == [_ADVISED]:
        return names
    for name in names:
        if name not in STRATEGIES:
            raise UsageError(f"--strategies: '{name}' is none of {', '.join(STRATEGIES)}, {_ALL}, {_ADVISED}")
    return names


def _encoder(args: argparse.Namespace) -> tuple[Module, str, tuple[int, int]]:
    """The net, what to call it, and the size of its pictures."""
    by_name = args.net is not None and not _nets.is_file(args.net)
    for option, value in (("--sha256", args.sha256), ("--normalize", args.normalize)):
        if value is not None and not by_name:
            raise UsageError(f"{option} goes with --net NAME --weights FILE")
    if by_name:
        if args.weights is None:
            raise UsageError(f"--net {args.net}: a net with fresh weights has nothing to transfer; add --weights FILE")
        if args.normalize is None:
            raise UsageError(
                "--weights: the file does not tell what its net expects; add --normalize imagenet, or none"
            )
        net = _nets.create(args.net, {})
        load_weights(net, args.weights, sha256=args.sha256)
        if args.normalize == "imagenet":
            net.normalization = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        shown = f"{args.net} with {args.weights}"
    elif args.net is not None and args.weights is not None:
        raise UsageError(f"--weights: '{args.net}' is a file, its weights are there already; give the name of a net")
    elif args.net is not None or args.weights is not None:
        shown = args.net or args.weights
        net = _nets.load_file(shown)
    else:
        return default_encoder(), "cifar_resnet20, trained on CIFAR-10", args.size or (_SIDE, _SIDE)
    shape = net.input_shape or (_SIDE, _SIDE, 3)
    return net, shown, args.size or (shape[0], shape[1])


def _values(
    args: argparse.Namespace, data: _data.Data, shown: str, size: tuple[int, int], found: Survey, compared: Comparison
) -> dict[str, Any]:
    return {
        "dir": args.dir,
        "encoder": shown,
        "image_size": list(size),
        "train_images": len(data.train),
        "val_images": len(data.test),
        "class_names": list(data.train.class_names),
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "seeds": args.seeds,
        "survey": {
            "depths": [
                {"layers": list(d.layers), "features": d.features, "nearest": d.nearest, "linear": d.linear}
                for d in found.depths
            ],
            "chance": found.chance,
            "standard_error": found.standard_error,
            "similarity": found.similarity,
            "similarity_given": args.similarity is not None,
            "seconds": found.seconds,
            "predicted_seconds": found.predicted,
        },
        "advice": {
            "strategy": found.advice.strategy,
            "reason": found.advice.reason,
            "confident": found.advice.confident,
        },
        "strategies": compared.rows(),
        "standard_error": compared.standard_error,
        "best": compared.best.name,
        "close_to_best": compared.close_to_best(),
        "advice_is_best": found.advice.strategy == compared.best.name,
        "advice_is_close": found.advice.strategy in compared.close_to_best(),
    }


def _verdict(found: Survey, compared: Comparison) -> str:
    """Compare the advice with what was found."""
    advised, best = found.advice.strategy, compared.best
    result = next((r for r in compared.results if r.name == advised), None)
    if result is None or len(compared.results) == 1:
        return f"advice: {found.advice}"
    text = f"advice: {advised} ({100 * result.mean:.1f} %); best found: {best.name} ({100 * best.mean:.1f} %)"
    if advised == best.name:
        return text + ": the advice is the best found"
    if advised in compared.close_to_best():
        return text + "; the held-out pictures are too few to tell the two apart"
    return text + ": here the advice is not the best"
