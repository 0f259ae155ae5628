"""Several nets as one: the average of their probabilities."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_path
from pycnn.data import Dataset, Loader
from pycnn.errors import ArgumentError, FileError, FormatError, LabelError, ShapeError
from pycnn.nn.files import load
from pycnn.nn.module import Module
from pycnn.program import check_execution
from pycnn.textfile import write_text

__all__ = ["Ensemble"]

_KEY = "members"
_SHOWN_NAMES = 10


class Ensemble:
    """Nets that vote with their probabilities (Krizhevsky et al. 2012: seven nets, 18.2 % -> 15.4 % top-5 error).

    ``probability = mean over the nets of softmax(scores)``. As a file, an ensemble is a list of model files: a TOML
    file with ``members = ["one.safetensors", ...]``, paths relative to its own folder.

    Args:
        nets: One or more nets that take the same images and tell the same classes; they may be different networks.
        device: Where they run: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far. An
            absent one is told by the first run.
        threads: At most this many; None chooses. The result does not depend on it.
        dtype: "float32"; "bfloat16", or on a GPU "float16", for activations (see `pycnn.compile`).
        emulate_bfloat16: Let "bfloat16" run on any processor, slowly.
        winograd: Whether convolutions may use Winograd's algorithms.
        tf32: Whether a GPU's tensor cores may round float32 to TF32.

    Attributes:
        nets: The nets.

    Raises:
        ArgumentError: There is no net, something is no `pycnn.nn.Module`, or the files of two nets name other classes
            or another order of them; `device` is no text; `threads` is not positive; or a flag is not True or False.
        DTypeError: `dtype` is none of these.

    Example:
        >>> import pycnn as pc
        >>> train, test = pc.data.digits(seed=0)
        >>> nets = [pc.models.create("lenet5").build((28, 28, 1)) for _ in range(2)]
        >>> Ensemble(nets).predict_proba(test.images[:3]).shape
        (3, 10)
    """

    def __init__(
        self,
        nets: Sequence[Module],
        *,
        device: str = "cpu",
        threads: int | None = None,
        dtype: str = "float32",
        emulate_bfloat16: bool = False,
        winograd: bool = True,
        tf32: bool = False,
    ) -> None:
        if isinstance(nets, Module):
            raise ArgumentError(f"Ensemble: nets is one {type(nets).__name__}, expected a list of nets")
        self.nets = tuple(nets)
        self._how = check_execution(
            device=device,
            threads=threads,
            dtype=dtype,
            emulate_bfloat16=emulate_bfloat16,
            winograd=winograd,
            tf32=tf32,
            who="Ensemble",
        )
        if not self.nets:
            raise ArgumentError("Ensemble: there is no net, one or more are needed")
        for position, net in enumerate(self.nets):
            if not isinstance(net, Module):
                raise ArgumentError(
                    f"Ensemble: net {position} is {type(net).__name__}, expected a pycnn.nn.Module\n"
                    "  hint: Ensemble.load reads model files"
                )
        named = [(position, names) for position, net in enumerate(self.nets) if (names := _class_names(net))]
        for position, names in named[1:]:
            first, expected = named[0]
            if names != expected:
                raise ArgumentError(
                    f"Ensemble: net {position} has the classes {_shown(names)}, net {first} has {_shown(expected)}; "
                    "all must tell the same classes in the same order"
                )

    def __len__(self) -> int:
        """How many nets there are."""
        return len(self.nets)

    def predict_proba(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """Compute the mean probability of each class.

        Args:
            x: Images (N, H, W, C) as for a net.
            batch_size: Images per run.

        Returns:
            float32 (N, classes), rows that sum to 1.

        Raises:
            ShapeError: A net refuses the images, or the nets tell different numbers of classes.
            DeviceError: The device is absent.
        """
        total: np.ndarray | None = None
        for position, net in enumerate(self.nets):
            part = net.predict_proba(x, batch_size=batch_size, **self._how)
            if total is None:
                total = part.astype(np.float64)
            elif part.shape != total.shape:
                raise ShapeError(
                    f"Ensemble: net {position} gives {part.shape}, the nets before {total.shape}; all must tell the "
                    "same classes"
                )
            else:
                total += part
        assert total is not None
        return (total / len(self.nets)).astype(np.float32)

    def predict(self, x: Any, *, batch_size: int = 256) -> np.ndarray:
        """Say which class each image belongs to: the one with the largest mean probability.

        Returns:
            int64 (N,).

        Raises:
            ShapeError: As `predict_proba`.
            DeviceError: As `predict_proba`.
        """
        return self.predict_proba(x, batch_size=batch_size).argmax(axis=1).astype(np.int64)

    def evaluate(self, data: Dataset, *, batch_size: int = 256, transform: Any = None) -> dict[str, Any]:
        """Measure the ensemble and, with the same runs, each net.

        Args:
            data: A data set of `pycnn.data`.
            batch_size: Images per run.
            transform: What is done to the images first, for example a `CenterCrop`.

        Returns:
            "accuracy" and "loss" (mean of -log of the mean probability of the right class); "members": the accuracy
            of each net, in order.

        Raises:
            LabelError: A label is outside of the nets' classes.
            ShapeError: As `predict_proba`.
            DeviceError: As `predict_proba`.
            ArgumentError: The data set is empty.
        """
        if not len(data):
            raise ArgumentError("Ensemble.evaluate: the data set is empty")
        right, loss = np.zeros(len(self.nets) + 1, np.int64), 0.0
        for images, labels in Loader(data, batch_size, shuffle=False, transform=transform):
            parts = [net.predict_proba(images, batch_size=batch_size, **self._how) for net in self.nets]
            shapes = {part.shape for part in parts}
            if len(shapes) > 1:
                raise ShapeError(f"Ensemble: the nets tell different numbers of classes: {sorted(shapes)}")
            mean = np.asarray(np.mean(parts, axis=0, dtype=np.float64))
            if labels.min() < 0 or labels.max() >= mean.shape[1]:
                raise LabelError(
                    f"Ensemble.evaluate: labels are {labels.min()}..{labels.max()}, "
                    f"the nets tell {mean.shape[1]} classes"
                )
            right += [int((part.argmax(axis=1) == labels).sum()) for part in [*parts, mean]]
            chosen = mean[np.arange(len(labels)), labels]
            loss -= float(np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).sum())
        shares = (right / len(data)).tolist()
        return {"accuracy": shares[-1], "loss": loss / len(data), "members": shares[:-1]}

    # ---- Files

    def save(self, path: str | PathLike[str]) -> list[Path]:
        """Write every net beside a list of them.

        Args:
            path: Of the list, for example ``seven.toml``; the nets become ``seven-1.safetensors`` and so on.

        Returns:
            The model files.

        Raises:
            ArgumentError: The path does not end in .toml.
            FileError: The system refused.
        """
        listing = _as_list_path(path)
        members = [listing.with_name(f"{listing.stem}-{number}.safetensors") for number in range(1, len(self.nets) + 1)]
        for net, member in zip(self.nets, members, strict=True):
            net.save(member)
        write_list(listing, members)
        return members

    @classmethod
    def load(
        cls,
        source: str | PathLike[str] | Sequence[str | PathLike[str]],
        *,
        device: str = "cpu",
        threads: int | None = None,
        dtype: str = "float32",
        emulate_bfloat16: bool = False,
        winograd: bool = True,
        tf32: bool = False,
    ) -> Ensemble:
        """Read an ensemble.

        Args:
            source: A list file, or the model files themselves.
            device: Where it runs; this and what follows as for `Ensemble`. No file tells it.
            threads: At most this many; None chooses.
            dtype: Of activations.
            emulate_bfloat16: Let "bfloat16" run on any processor, slowly.
            winograd: Whether convolutions may use Winograd's algorithms.
            tf32: Whether a GPU's tensor cores may round float32 to TF32.

        Raises:
            FileError: A file cannot be read.
            FormatError: A file is no model file, or the list is malformed.
            ArgumentError: There is no file, or the files name other classes or another order of them; or as for
                `Ensemble`.
            DTypeError: As for `Ensemble`.
        """
        paths = read_list(source) if isinstance(source, str | PathLike) else [Path(path) for path in source]
        return cls(
            [load(path) for path in paths],
            device=device,
            threads=threads,
            dtype=dtype,
            emulate_bfloat16=emulate_bfloat16,
            winograd=winograd,
            tf32=tf32,
        )

    def __repr__(self) -> str:
        """Show the nets."""
        return f"Ensemble({', '.join(type(net).__name__ for net in self.nets)})"


def _class_names(net: Module) -> list[str] | None:
    """Names that a net's file gives its classes, if it does."""
    try:
        names = json.loads(getattr(net, "metadata", {}).get("class_names", "null"))
    except (ValueError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _shown(names: list[str]) -> str:
    text = ", ".join(repr(name) for name in names[:_SHOWN_NAMES])
    return f"{text}, ... ({len(names)})" if len(names) > _SHOWN_NAMES else text


def _as_list_path(path: str | PathLike[str]) -> Path:
    listing = as_path(path, who="Ensemble")
    if listing.suffix != ".toml":
        raise ArgumentError(f"Ensemble: '{listing}' must end in .toml, it holds the list of the model files")
    return listing


def write_list(path: str | PathLike[str], members: Sequence[Path]) -> None:
    """Write a list of model files, with paths relative to the list.

    Raises:
        ArgumentError: The path does not end in .toml.
        FileError: The system refused.
    """
    listing = _as_list_path(path)
    names = [os.path.relpath(member, listing.parent) for member in members]
    text = f"# An ensemble of pycnn: the probabilities of these nets are averaged.\n{_KEY} = [\n"
    text += "".join(f"  {json.dumps(name, ensure_ascii=False)},\n" for name in names) + "]\n"
    write_text(listing, text)


def read_list(path: str | PathLike[str]) -> list[Path]:
    """Read the paths in a list of model files.

    Raises:
        FileError: It cannot be read.
        FormatError: It is malformed.
        ArgumentError: The path does not end in .toml.
    """
    listing = _as_list_path(path)
    try:
        values = tomllib.loads(listing.read_bytes().decode("utf-8"))
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(listing)) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"ensemble '{listing}': this is no TOML: {error}") from None
    names = values.get(_KEY)
    if set(values) != {_KEY} or not isinstance(names, list) or not names:
        raise FormatError(
            f"ensemble '{listing}': expected '{_KEY}' with one or more files and nothing else, got {values!r}"
        )
    for name in names:
        if not isinstance(name, str):
            raise FormatError(f"ensemble '{listing}': '{_KEY}' has {name!r}, expected the path of a model file")
    return [listing.parent / name for name in names]
