"""Data sets by name."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pycnn.cli._options import UsageError
from pycnn.data import Dataset, ImageFolder, cifar10, cifar100, digits, mnist, split, subset
from pycnn.data.datasets import Subset

__all__ = ["NAMES", "Data", "add_arguments", "add_on_error", "load_data"]

NAMES = ("digits", "mnist", "cifar10", "cifar100", "folder")
_HELD_OUT = 0.2


@dataclass(frozen=True)
class Data:
    """Training and test images.

    Attributes:
        name: One of `NAMES`.
        train: To learn from.
        test: Held out.
        skipped: How many broken files were left out.
    """

    name: str
    train: Dataset
    test: Dataset
    skipped: int = 0

    def part(self, name: str) -> Dataset:
        """The images called "train" or "test"."""
        return self.train if name == "train" else self.test

    @property
    def skipped_text(self) -> str:
        """A line for people, with a line break before it; nothing if no file was left out."""
        return f"\nleft out: {self.skipped:,} broken image files (pycnn data names them)" if self.skipped else ""


def add_arguments(parser: argparse.ArgumentParser, *, on_error: bool = True) -> None:
    """Add --data, --data-dir and --on-error."""
    parser.add_argument("--data", choices=NAMES, default="digits", help="data set (default: digits, which comes along)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where mnist, cifar10, cifar100 or folder is; folder: DIR/train/CLASS and DIR/test/CLASS, or DIR/CLASS, "
        "of which a fifth is held out",
    )
    if on_error:
        add_on_error(parser)


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """Add --on-error."""
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="broken image files of a folder end the work when they are read, or all files are looked at first and "
        "the broken ones left out and counted (default: raise)",
    )


def load_data(
    name: str,
    directory: Path | None,
    *,
    size: tuple[int, int],
    channels: int,
    on_error: str = "raise",
    used: Literal["both", "train", "test"] = "both",
) -> Data:
    """Read a data set.

    The held-out images are the same for every --seed, so that a saved net is never measured on images that it
    learned from.

    Args:
        name: One of `NAMES`.
        directory: Where it is; not for "digits".
        size: (height, width) of images that can be resized: "digits" and "folder".
        channels: Of the images of "folder".
        on_error: Of "folder": "raise", or "skip" to leave out broken files.
        used: The part whose broken files are looked for, when the folder has two.

    Raises:
        UsageError: The directory is missing or not wanted, or "skip" is for something else than a folder.
        FileError: It cannot be read.
        FormatError: It holds something else.
    """
    if on_error == "skip" and name != "folder":
        raise UsageError(f"--on-error skip goes with --data folder; {name} is not made of image files")
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
    return _folder(directory, size, channels, on_error, used)


def _folder(directory: Path, size: tuple[int, int], channels: int, on_error: str, used: str) -> Data:
    def read(place: Path, policy: str) -> ImageFolder:
        return ImageFolder(place, size=size, channels=channels, on_error="skip" if policy == "skip" else "raise")

    test_directory = next((d for part in ("test", "val") if (d := directory / part).is_dir()), None)
    if (directory / "train").is_dir() and test_directory is not None:
        train = read(directory / "train", on_error if used != "test" else "raise")
        test = read(test_directory, on_error if used != "train" else "raise")
        if train.class_names != test.class_names:
            raise ValueError(
                f"'{directory}': classes of train and {test_directory.name} differ: "
                f"{', '.join(train.class_names)}; {', '.join(test.class_names)}"
            )
        return Data("folder", train, test, len(train.skipped) + len(test.skipped))
    images = read(directory, on_error)
    if not images.skipped:
        return Data("folder", *split(images, _HELD_OUT, seed=0))
    # Which files are held out must not depend on --on-error: a net is measured with another one than it was trained.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # All of them were told when `images` was read.
        everything = read(directory, "raise")
    place = {path: index for index, path in enumerate(images.paths)}
    parts = []
    for part in split(everything, _HELD_OUT, seed=0):
        assert isinstance(part, Subset)
        kept = [place[path] for index in part.indices if (path := everything.paths[index]) in place]
        parts.append(subset(images, np.array(kept, np.int64)))
    return Data("folder", parts[0], parts[1], len(images.skipped))
