"""Data sets by name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from pycnn.cli._options import UsageError
from pycnn.data import Dataset, ImageFolder, cifar10, cifar100, digits, mnist, split

__all__ = ["NAMES", "Data", "add_arguments", "load_data"]

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Data:
    """Training and test images.

    Attributes:
        name: One of `NAMES`.
        train: To learn from.
        test: Held out.
    """

    name: str
    train: Dataset
    test: Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data and --data-dir."""
    parser.add_argument("--data", choices=NAMES, default="digits", help="data set (default: digits, which comes along)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where mnist, cifar10, cifar100 or folder is; folder: DIR/train/CLASS and DIR/test/CLASS, or DIR/CLASS, "
        "of which a fifth is held out",
    )


def load_data(name: str, directory: Path | None, *, size: tuple[int, int], channels: int) -> Data:
    """Read a data set.

    The held-out images are the same for every --seed, so that a saved net is never measured on images that it
    learned from.

    Args:
        name: One of `NAMES`.
        directory: Where it is; not for "digits".
        size: (height, width) of images that can be resized: "digits" and "folder".
        channels: Of the images of "folder".

    Raises:
        UsageError: The directory is missing or not wanted.
        FileError: It cannot be read.
        FormatError: It holds something else.
    """
    if name == "digits":
        if directory is not None:
            raise UsageError("--data-dir goes with --data mnist, cifar10, cifar100 or folder; the digits come along")
        return Data(name, *digits(seed=0, size=size))
    if directory is None:
        raise UsageError(f"--data {name} needs --data-dir DIR")
    if not directory.is_dir():
        raise NotADirectoryError(f"--data-dir '{directory}' is no directory")
    if name == "mnist":
        return Data(name, *mnist(directory))
    if name == "cifar10":
        return Data(name, *cifar10(directory))
    if name == "cifar100":
        return Data(name, *cifar100(directory))
    test_directory = next((d for part in ("test", "val") if (d := directory / part).is_dir()), None)
    if (directory / "train").is_dir() and test_directory is not None:
        train, test = (ImageFolder(d, size=size, channels=channels) for d in (directory / "train", test_directory))
        if train.class_names != test.class_names:
            raise ValueError(
                f"'{directory}': classes of train and {test_directory.name} differ: "
                f"{', '.join(train.class_names)}; {', '.join(test.class_names)}"
            )
        return Data(name, train, test)
    return Data(name, *split(ImageFolder(directory, size=size, channels=channels), _HELD_OUT, seed=0))
