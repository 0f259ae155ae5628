"""Look at a data set: images per class, sizes, mean and deviation of the colours, broken files.

Examples:
  pycnn data --data folder --data-dir photos
  pycnn data --data cifar10 --data-dir DIR --json
  pycnn data
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.cli import _data, _options
from pycnn.cli._output import Output
from pycnn.data import Dataset, ImageFolder, mean_std

__all__ = ["add_arguments", "run"]

_SHOWN_CLASSES = 30
_SHOWN_BROKEN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    _data.add_arguments(parser, on_error=False)
    parser.add_argument(
        "--size",
        type=_options.count,
        default=224,
        metavar="N",
        help="side in pixels that images of a folder are brought to for mean and deviation (default: 224)",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure and report; code 1 if files are broken."""
    folders = _folders(args)
    if folders is None:
        loaded = _data.load_data(args.data, args.data_dir, size=(28, 28), channels=1)
        parts = [("train", loaded.train), ("test", loaded.test)]
    else:
        output.progress("decoding every image once")
        with _no_skip_warning():
            parts = [
                (name, ImageFolder(path, size=args.size, on_error="skip", cache_bytes=2**30)) for name, path in folders
            ]
    result = {"data": args.data, "parts": {name: _measure(part) for name, part in parts}}
    broken = sum(len(part["broken"]) for part in result["parts"].values())
    output.result(result, "\n\n".join(_text(name, part) for name, part in result["parts"].items()))
    where = f" --data-dir {args.data_dir}" if args.data_dir is not None else ""
    output.suggest("mend or remove the broken files" if broken else f"pycnn train --data {args.data}{where}")
    return 1 if broken else 0


@contextmanager
def _no_skip_warning() -> Iterator[None]:
    # What is skipped is the result here.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ImageFolder: skipped")
        yield


def _folders(args: argparse.Namespace) -> list[tuple[str, Path]] | None:
    """Parts of a folder of images by name; None for another data set."""
    if args.data != "folder":
        return None
    if args.data_dir is None:
        raise _options.UsageError("--data folder needs --data-dir DIR")
    if not args.data_dir.is_dir():
        raise NotADirectoryError(f"--data-dir '{args.data_dir}' is no directory")
    found = [(name, path) for name in ("train", "val", "test") if (path := args.data_dir / name).is_dir()]
    return found if found and found[0][0] == "train" else [("all", args.data_dir)]


def _measure(data: Dataset) -> dict[str, Any]:
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    mean, std = mean_std(data)
    part: dict[str, Any] = {
        "images": len(data),
        "classes": dict(zip(data.class_names, counts.tolist(), strict=True)),
        "image_shape": list(data.image_shape),
        "mean": list(mean),
        "std": list(std),
        "broken": [],
    }
    if isinstance(data, ImageFolder):
        sizes = np.array(data.file_sizes())
        part["broken"] = [{"file": str(path), "reason": reason} for path, reason in data.skipped]
        for name, column in (("height", sizes[:, 0]), ("width", sizes[:, 1])):
            part[name] = {"least": int(column.min()), "median": float(np.median(column)), "most": int(column.max())}
    return part


def _text(name: str, part: dict[str, Any]) -> str:
    counts = part["classes"]
    total = part["images"]
    lines = [f"{name}: {total:,} images of {len(counts)} classes"]
    wide = max(len(label) for label in counts)
    for label, count in list(counts.items())[:_SHOWN_CLASSES]:
        lines.append(f"  {label:<{wide}}  {count:>7,}  {100 * count / total:5.1f} %")
    if len(counts) > _SHOWN_CLASSES:
        lines.append(f"  ... and {len(counts) - _SHOWN_CLASSES} more classes (all of them with --json)")
    if "height" in part:
        spans = [f"{part[side]['least']} to {part[side]['most']} (median {part[side]['median']:g})" for side in _SIDES]
        lines.append(f"  in the files: height {spans[0]}, width {spans[1]} pixels")
    height, width, channels = part["image_shape"]
    lines.append(f"  as read: {height}x{width}, {channels} channel{'s' if channels > 1 else ''}, values 0 to 255")
    lines.append(f"  mean {_numbers(part['mean'])}, deviation {_numbers(part['std'])} of values as 0 to 1")
    broken = part["broken"]
    lines.append(f"  broken files: {len(broken) or 'none'}")
    lines += [f"    {entry['file']}: {entry['reason']}" for entry in broken[:_SHOWN_BROKEN]]
    if len(broken) > _SHOWN_BROKEN:
        lines.append(f"    ... and {len(broken) - _SHOWN_BROKEN} more")
    return "\n".join(lines)


_SIDES = ("height", "width")


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
