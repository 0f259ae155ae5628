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
import shlex
import time
from pathlib import Path
from typing import Any

from pycnn.cli import _data, _options, _weights
from pycnn.cli._options import UsageError
from pycnn.cli._output import Output
from pycnn.errors import FileError
from pycnn.nn.module import Module
from pycnn.optional import optional
from pycnn.program import require_device
from pycnn.transfer import STRATEGIES, Comparison, Survey, compare, default_encoder, survey

__all__ = ["RUNS_ON_DEVICES", "RUNS_ON_THREADS", "add_arguments", "run"]

RUNS_ON_DEVICES = True
RUNS_ON_THREADS = True

_SIDE, _EPOCHS, _BATCH = 64, 15, 32
_ALL, _ADVISED = "all", "advised"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="pictures: DIR/{train,val}/CLASS, or DIR/CLASS")
    encoder = parser.add_argument_group("encoder (default: the one that comes along)")
    encoder.add_argument("--net", metavar="NET", help="a model file, or with --weights the name of a net")
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
    work.add_argument(
        "--epochs", type=_options.count, default=_EPOCHS, metavar="N", help=f"of training (default: {_EPOCHS})"
    )
    work.add_argument(
        "--batch-size", type=_options.count, default=_BATCH, metavar="N", help=f"pictures in a step (default: {_BATCH})"
    )
    work.add_argument(
        "--lr", type=_options.number, metavar="RATE", help="of training (default: 0.05; nets without batch norm: 0.005)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the best net here (.safetensors)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument("--features", type=Path, metavar="DIR", help="keep features here, and take them from here")
    _data.add_on_error(parser)
    _weights.add_arguments(parser)


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
    if args.output is not None and names == ["nearest"]:
        raise UsageError("--output: --strategies nearest gives no net to write; add another one")
    _options.check_output("--output", args.output, example="net.safetensors")
    _options.check_output("--csv", args.csv, example="table.csv")
    if not args.dir.is_dir():
        raise NotADirectoryError(f"'{args.dir}' is no directory")
    require_device(args.device, who="transfer")
    optional("sklearn.linear_model", extra="transfer", who="pycnn transfer")
    net, shown, size = _encoder(args)
    channels = (net.input_shape or (0, 0, 3))[2]
    data = _data.load_data("folder", args.dir, size=size, channels=channels, on_error=args.on_error)
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
            threads=args.threads,
            device=args.device,
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
        device=args.device,
        report=output.progress,
    )
    written, failure = _write(args, compared)
    seconds = time.perf_counter() - started
    values = _values(args, data, shown, size, found, compared)
    values |= {"seconds": seconds, "output": args.output, "written": written}
    lines = [str(compared), _verdict(found, compared)]
    if written is not None:
        lines.append(f"written: {args.output} ({written})")
    output.result(values, "\n".join(lines) + data.skipped_text)
    if failure is not None:
        raise failure
    output.suggest(_next(args, compared))
    return 0


def _write(args: argparse.Namespace, compared: Comparison) -> tuple[str | None, FileError | None]:
    """Write net and table; whose net it is, and what failed: the result is shown before that is told."""
    written, failure = None, None
    try:
        if args.output is not None:
            written = compared.save_best(args.output).name
    except FileError as error:
        failure = error
    try:
        if args.csv is not None:
            compared.to_csv(args.csv)
    except FileError as error:
        failure = failure or error
    return written, failure


def _next(args: argparse.Namespace, compared: Comparison) -> str:
    if args.output is not None:
        return f"pycnn predict {shlex.quote(str(args.output))} IMAGE"
    nets = [result for result in compared.results if result.net is not None]
    # Nearest neighbours are no net that could be kept.
    best = max(nets, key=lambda result: result.mean).name if nets else _ADVISED
    words = f"pycnn transfer {shlex.quote(str(args.dir))}"
    if args.net is not None:
        words += f" --net {shlex.quote(args.net)}{_weights.words(args)}"
    if args.size is not None:
        words += f" --size {args.size[0]},{args.size[1]}"
    for option, value in (
        ("--layers", args.layers),
        ("--lr", args.lr),
        ("--epochs", args.epochs if args.epochs != _EPOCHS else None),
        ("--batch-size", args.batch_size if args.batch_size != _BATCH else None),
        ("--on-error", args.on_error if args.on_error != "raise" else None),
        ("--device", args.device if args.device not in ("cpu", "auto") else None),
    ):
        if value is not None:
            words += f" {option} {shlex.quote(str(value))}"
    return f"{words} --strategies {best} --output net.safetensors"


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
    if args.net is None:
        for option in ("weights", "sha256", "normalize", "option"):
            if getattr(args, option):
                raise UsageError(f"--{option} goes with --net NAME")
        return default_encoder(), "cifar_resnet20, trained on CIFAR-10", args.size or (_SIDE, _SIDE)
    net = _weights.find(args.net, args)
    shown = args.net if args.weights is None else f"{args.net} with {args.weights}"
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
        "skipped_images": data.skipped,
        "survey": {
            "depths": [
                {"layers": list(d.layers), "features": d.features, "nearest": d.nearest, "linear": d.linear}
                for d in found.depths
            ],
            "chance": found.chance,
            "standard_error": found.standard_error,
            "depth_gain": None if found.gain is None else found.gain.value,
            "depth_gain_error": None if found.gain is None else found.gain.error,
            "home_gain": found.home_gain,
            "similarity": found.similarity,
            "similarity_error": found.similarity_error,
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
