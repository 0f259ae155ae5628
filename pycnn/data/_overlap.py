"""Files that two data sets share: what was learned by heart then counts as recognised."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.data.datasets import Subset
from pycnn.data.folder import ImageFolder
from pycnn.tensor import stack_level

__all__ = ["shared_files", "warn_shared_files"]

# Beyond this many files only their paths are compared: looking at each would take too long.
_MAX_FILES = 50_000


def shared_files(first: Any, second: Any) -> list[tuple[Path, Path]]:
    """Pairs of files of two data sets that are the same file, or have the same bytes.

    Args:
        first: An `ImageFolder`, or a subset of one; anything else shares nothing.
        second: The same.
    """
    ours, theirs = _files(first), _files(second)
    if not ours or not theirs:
        return []
    if len(ours) + len(theirs) > _MAX_FILES:
        known = {path.resolve(): path for path in ours}
        return [(known[real], path) for path in theirs if (real := path.resolve()) in known]
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in ours:
        by_size[_size(path)].append(path)
    digests: dict[int, dict[bytes, Path]] = {}
    found = []
    for path in theirs:
        size = _size(path)
        if size not in by_size or size < 0:
            continue
        if size not in digests:
            digests[size] = {_digest(own): own for own in reversed(by_size[size])}
        if own := digests[size].get(_digest(path)):
            found.append((own, path))
    return found


def warn_shared_files(train: Any, held_out: Any, *, who: str, name: str) -> None:
    """Say when held-out images were trained on."""
    found = shared_files(train, held_out)
    if found:
        own, path = found[0]
        same = f"'{path}'" if own == path else f"'{path}' equals '{own}'"
        warnings.warn(
            f"{who}: {len(found)} of {len(held_out)} images of {name} are among the training images too, so what is "
            f"measured there is too good; the first: {same}",
            stacklevel=stack_level(),
        )


def _files(dataset: Any) -> Sequence[Path]:
    if isinstance(dataset, ImageFolder):
        return dataset.paths
    if isinstance(dataset, Subset) and isinstance(dataset.base, ImageFolder):
        return [dataset.base.paths[i] for i in np.unique(dataset.indices)]
    return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # Reading it will tell.


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return str(path).encode("utf-8", "surrogateescape")
