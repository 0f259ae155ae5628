"""What a training goes on from, and what must be as it was for the result to be that of one training."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_path
from pycnn.data import Loader
from pycnn.errors import ArgumentError
from pycnn.nn._running import stack_level
from pycnn.train import _checkpoint
from pycnn.train._loop import Position
from pycnn.train.callbacks import Callback

__all__ = ["compare_data", "describe", "match_callbacks", "source"]


def source(resume: bool | str | PathLike[str], directory: Path | None) -> Path | None:
    """The checkpoint that `resume` of `Trainer.fit` means; None where training does not go on from one.

    Raises:
        ArgumentError: It is True, and there is no directory.
    """
    if resume is False or resume is None:
        return None
    if resume is True:
        if directory is None:
            raise ArgumentError("fit: resume=True needs checkpoint_dir")
        return _checkpoint.find_last(directory)
    return as_path(resume, who="fit: resume")


def compare_data(loader: Loader, position: Position, source: Path | None) -> dict[str, Any]:
    """Compare the data with that of the epochs before; returns what there is to compare next time.

    Raises:
        ArgumentError: It is other data, in the middle of an epoch.
    """
    own = {
        "samples": len(loader.dataset),
        "batch_size": loader.batch_size,
        "drop_last": loader.drop_last,
        "image_shape": list(loader.image_shape),
        # Other data often has the same size; its labels then tell.
        "labels_crc32": zlib.crc32(np.asarray(loader.dataset.labels, np.int64).tobytes()),
        "transform": describe(loader.transform),
    }
    before = position.data
    different = [key for key in own if key in before and own[key] != before[key]]
    shown = ", ".join(f"{key} {before.get(key)!r} -> {own[key]!r}" for key in different)
    if different and position.batch:
        raise ArgumentError(
            f"fit: training stands inside of an epoch of other data: {shown}" + (f"\n  in {source}" if source else "")
        )
    if different and source is not None:
        warnings.warn(
            f"fit: resumed from {source} with other data: {shown}; the result differs from uninterrupted training",
            stacklevel=stack_level(),
        )
    return own


def match_callbacks(
    callbacks: Sequence[Callback], states: Sequence[dict[str, Any]], source: Path | None
) -> Callable[[], None]:
    """Find a callback for what each of its kind remembered, in order; returns what hands it over.

    Raises:
        ArgumentError: There is none for one of them.
    """
    waiting = list(callbacks)
    pairs: list[tuple[Callback, Any]] = []
    for state in states:
        match = next((c for c in waiting if type(c).__name__ == state["kind"]), None)
        if match is not None:
            waiting.remove(match)
            pairs.append((match, state["state"]))
        elif state["state"]:
            raise ArgumentError(
                f"fit: {source or 'the training state'} was written with a {state['kind']}, which is not among the "
                "callbacks now"
            )

    def hand_over() -> None:
        for callback, state in pairs:
            callback.load_state_dict(state)

    return hand_over


def describe(value: Any) -> str:
    """Text of an object that is the same in another process."""
    text = repr(value)
    # The default text holds an address.
    return type(value).__name__ if " object at 0x" in text else text
