"""Writing a trainer's whole state as a model file, and taking it over again.

The file is an ordinary model file (`pycnn.load` reads it) with the optimizer's arrays under
"optim.", averages under "ema.", counters under "train." and, as metadata "trainer", the place in
the data, the schedule, the callbacks and the history as JSON.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn import checkpoint
from pycnn.errors import ArgumentError, FormatError, ShapeError
from pycnn.nn import _range, files
from pycnn.nn._running import stack_level
from pycnn.nn._state import warn_not_finite
from pycnn.program import Variables
from pycnn.tensor import Tensor

if TYPE_CHECKING:
    from pycnn.train._loop import Position
    from pycnn.train.trainer import Trainer

__all__ = ["find_last", "restore", "write"]

_FORMAT = 1
_PREFIXES = ("optim.", "ema.", "train.")
_ENTRY = "trainer"
# What older files lack, as they were written; all else is None there.
_FORMERLY = {"dtype": "float32", "winograd": True, "tf32": False}


def extras(variables: Variables) -> Variables:
    """Everything that a trainer keeps beside the weights."""
    result = Variables()
    for name in variables:
        if name.startswith(_PREFIXES):
            result.share(name, variables[name])
    return result


def class_metadata(names: tuple[str, ...] | None) -> dict[str, str]:
    """Class names as they stand in a file's metadata."""
    return {} if names is None else {"class_names": json.dumps(list(names))}


def write(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write the state of a trainer, atomically.

    Raises:
        FileError: The system refused; an older file at the path is intact.
        ArgumentError: No step was made yet.
    """
    if not trainer.steps:
        raise ArgumentError("save_checkpoint: no step was made yet, there is nothing to go on from")
    kept = extras(trainer.variables)
    shapes = {name: list(kept[name].shape) for name in kept}
    state = {"format": _FORMAT, "tensors": shapes, **trainer.state()}
    metadata = {_ENTRY: json.dumps(state), **class_metadata(trainer.class_names)}
    files.save(trainer.net, path, metadata=metadata, extra=kept)


def find_last(directory: str | os.PathLike[str]) -> Path | None:
    """The checkpoint that `fit` left in a directory, if there is one."""
    path = Path(directory) / "last.safetensors"
    return path if path.exists() else None


@dataclass(frozen=True)
class State:
    """A trainer's state that was read and fits.

    Attributes:
        position: The place in the data.
        callbacks: What callbacks remembered, by kind.
        take_over: Makes the trainer go on from there; cannot fail.
    """

    position: Position
    callbacks: list[dict[str, Any]]
    take_over: Callable[[], None]


def restore(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Take over a state; all is checked before anything changes. Errors are those of `prepare`."""
    prepare(trainer, path).take_over()


def prepare(trainer: Trainer, path: str | os.PathLike[str]) -> State:
    """Read a state and check that it fits; nothing changes.

    Weights that hold NaN or infinity are told by a warning.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is malformed, or no trainer's checkpoint.
        ArgumentError: It belongs to another net, optimizer, loss or seed; the text says which.
        ShapeError: Arrays have other shapes.
    """
    who = f"load_checkpoint '{os.fspath(path)}'"
    _, tensors, metadata = checkpoint.load_model(path)
    state = _read_state(metadata, who)
    _compare(trainer.identity(), state["identity"], who)
    _check_tensors(trainer, tensors, who)
    _check_kept(tensors, state.get("tensors"), who)
    found = trainer.prepare_state(state)
    warn_not_finite({name: tensors[name].numpy() for name, _ in trainer.net.named_tensors()}, who)

    def take_over() -> None:
        for name, parameter in trainer.net.named_tensors():
            parameter.tensor.copy_(tensors[name].numpy())
        for name in [name for name in trainer.variables if name.startswith(_PREFIXES)]:
            if name not in tensors:
                del trainer.variables[name]
        for name, tensor in tensors.items():
            if name.startswith(_PREFIXES):
                trainer.variables[name] = tensor.numpy()
        found.take_over()
        object.__setattr__(trainer.net, "input_range", _range.from_text(metadata.get(_range.METADATA_NAME)))

    return replace(found, take_over=take_over)


def _read_state(metadata: dict[str, str], who: str) -> dict[str, Any]:
    text = metadata.get(_ENTRY)
    if text is None:
        raise FormatError(
            f"{who}: holds a net but no training state\n"
            "  hint: to train its weights further from the beginning, load it with pycnn.load"
        )
    try:
        state = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{who}: metadata '{_ENTRY}' is no JSON ({error})") from None
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise FormatError(f"{who}: metadata '{_ENTRY}' is not a trainer's state")
    if state.get("format") != _FORMAT:
        raise FormatError(f"{who}: training state of format {state.get('format')!r}, this version reads {_FORMAT}")
    return state


def _compare(own: dict[str, Any], saved: dict[str, Any], who: str) -> None:
    """Refuse another kind of training; warn where only a hyper-parameter differs."""
    for key in ("optimizer", "loss", "seed", "ema"):
        if own[key] != saved.get(key):
            raise ArgumentError(f"{who}: was written with {key} {saved.get(key)!r}, this trainer has {own[key]!r}")
    for key in ("settings", "groups", "schedule", "clip_norm", "auxiliary_weight", "dtype", "winograd", "tf32"):
        before = saved.get(key, _FORMERLY.get(key))
        if own[key] != before:
            warnings.warn(
                f"{who}: was written with {key} {before}, goes on with {own[key]}; the "
                "result differs from uninterrupted training",
                stacklevel=stack_level(),
            )


def _check_kept(tensors: dict[str, Tensor], shapes: Any, who: str) -> None:
    """Compare optimizer state, averages and counters with what was written: without them training would go astray."""
    if not isinstance(shapes, dict):
        raise FormatError(f"{who}: metadata '{_ENTRY}' does not list the trainer's tensors")
    found = {name: list(tensor.shape) for name, tensor in tensors.items() if name.startswith(_PREFIXES)}
    wrong = [
        f"'{name}' is {found.get(name, 'missing')}, expected {shapes.get(name, 'none')}"
        for name in sorted({*found, *shapes})
        if found.get(name) != shapes.get(name)
    ]
    if wrong:
        raise FormatError(f"{who}: {len(wrong)} tensors of the trainer differ: " + "; ".join(wrong[:10]))


def _check_tensors(trainer: Trainer, tensors: dict[str, Tensor], who: str) -> None:
    own = dict(trainer.net.named_tensors())
    saved = {name for name in tensors if not name.startswith(_PREFIXES) and not name.startswith("constant.")}
    missing, unexpected = sorted(set(own) - saved), sorted(saved - set(own))
    if missing or unexpected:
        text = f"{who}: belongs to another net"
        if missing:
            text += f"; {len(missing)} tensors are missing: {', '.join(missing[:10])}"
        if unexpected:
            text += f"; {len(unexpected)} are unexpected: {', '.join(unexpected[:10])}"
        raise ArgumentError(text)
    wrong = [
        f"'{name}' is {tensors[name].shape}, the net has {parameter.shape}"
        for name, parameter in own.items()
        if tensors[name].shape != parameter.shape
    ]
    for name, tensor in tensors.items():
        if name.startswith(("optim.", "ema.")) and name in trainer.variables:
            expected = trainer.variables[name].shape
            if tensor.shape != expected:
                wrong.append(f"'{name}' is {tensor.shape}, expected {expected}")
    if wrong:
        raise ShapeError(f"{who}: {len(wrong)} shapes differ: " + "; ".join(wrong[:10]))
