"""Weights from files that others wrote, into a net that exists."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.download import fetch
from pycnn.errors import ArgumentError, Error, FileError, FormatError, UnsupportedError
from pycnn.nn import _state, heads
from pycnn.nn._running import stack_level
from pycnn.nn._state import LoadReport
from pycnn.nn.module import Module

__all__ = ["load_weights", "read_weights"]

# First bytes of what torch.save writes: a zip file, or a bare pickle before version 1.6.
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")
# What a trainer's checkpoint holds beside the net.
_TRAINING = ("optim.", "train.", "ema.", "constant.")
# Entries under which training scripts put the state dict among other things.
_NESTED = ("state_dict", "model_state_dict", "model")
# Published DenseNets name "denselayer1.norm.1" what torchvision has called "denselayer1.norm1" since.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def read_weights(source: str | os.PathLike[str], *, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Read a state dict from a file.

    Args:
        source: Path or URL (see `pycnn.download.fetch`) of a safetensors file, ours or others', or of a file that
            torch.save wrote. The latter is opened by torch, which must be installed, with ``weights_only=True``: only
            tensors are built from it, no code is run.
        sha256: Digest of the file, or its first 8 hex digits or more.

    Returns:
        Arrays by name, bfloat16 as float32. The prefix "module.", which data-parallel training puts in front of
        every name, is dropped; the old names in published DenseNets become today's.

    Raises:
        ArgumentError: The source is neither a path nor a URL.
        FileError: The file cannot be read or fetched.
        FormatError: The file is malformed or no regular file, has another digest, or holds something else than tensors.
        UnsupportedError: It is torch's, and torch is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(f"load_weights: expected a path or URL, got {source!r}")
    path = fetch(source, sha256=sha256)
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Opening a pipe that nobody writes to would wait for ever.
        raise FormatError(f"'{path}': not a regular file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from None
    # A safetensors header may be 128 bytes long, so that its length starts as a pickle does.
    opens_header = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8
    from_torch = start.startswith(_TORCH_MAGIC) and not opens_header
    state = _read_torch(path) if from_torch else _read_safetensors(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    return {_OLD_DENSE_LAYER.sub(r"\1\2", name): array for name, array in state.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors, metadata = _core.read_checkpoint(os.fspath(path))
    if "pycnn.format" in metadata:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRAINING)}
    narrow = {name for name, tensor in tensors.items() if tensor.dtype == "bfloat16"}
    state = {name: tensor.view() for name, tensor in tensors.items() if name not in narrow}
    return {**state, **_read_bfloat16(path, narrow)} if narrow else state


def _read_bfloat16(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Arrays of a type that NumPy lacks, of a file that the core has checked already."""
    state = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name in names:
            begin, end = header[name]["data_offsets"]
            file.seek(8 + length + begin)
            # The upper half of a float32.
            halves = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32)
            state[name] = (halves << 16).view(np.float32).reshape(header[name]["shape"])
    return state


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    who = f"load_weights '{path}'"
    try:
        import torch
    except ImportError:
        raise UnsupportedError(
            f"{who}: a file of PyTorch's, which torch must open, and torch is not installed\n"
            "  hint: pip install torch, or save the state dict as safetensors where torch is"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Its messages go on for pages, and advise to switch the protection off.
        first = str(error).strip().partition("\n")[0].partition(". ")[0][:200]
        raise FormatError(f"{who}: torch refuses to read tensors from it: {type(error).__name__}: {first}") from None
    state: Any = content
    if isinstance(content, Mapping):
        state = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), content)
    if not isinstance(state, Mapping):
        raise FormatError(f"{who}: holds {type(content).__name__}, expected a state dict (names to tensors)")
    arrays = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise FormatError(f"{who}: '{name}' is {type(tensor).__name__}, expected a tensor")
        dense = tensor.detach()
        arrays[str(name)] = (dense.float() if dense.dtype == torch.bfloat16 else dense).contiguous().numpy()
    return arrays


def load_weights(
    net: Module,
    source: str | os.PathLike[str],
    *,
    strict: bool = True,
    skip: str | Sequence[str] = (),
    num_classes: int | None = None,
    sha256: str | None = None,
) -> LoadReport:
    """Load a file of weights into a net; all is checked before anything changes.

    State dicts of torchvision's nets fit the nets of the same name in `pycnn.models`.

    Args:
        net: The net.
        source: Path or URL of a .safetensors file, or of a .pth file, which torch opens (see `read_weights`).
        strict: Every name must be on both sides with the same shape; as in `pycnn.nn.Module.load_state_dict`.
        skip: Names of parameters or modules to leave out on both sides; ``*`` and ``?`` match.
        num_classes: Scores that the net shall give. A head of another size, in the net or in the file, starts anew,
            and a warning says so.
        sha256: Digest of the file, or its first 8 hex digits or more.

    Returns:
        Which names were loaded, missing, unexpected, of another shape, skipped, and fresh; it prints.

    Raises:
        FileError: The file cannot be read or fetched.
        FormatError: The file is malformed or has another digest.
        ShapeError: Shapes differ (strict).
        ArgumentError: Names differ (strict), nothing can be loaded, or an argument is out of range.
        UnsupportedError: The file is torch's, and torch is not installed.

    Example:
        >>> import pycnn as pc
        >>> pc.models.lenet5(num_classes=10).save("ten.safetensors")
        >>> net = pc.models.lenet5(num_classes=26)
        >>> report = pc.load_weights(net, "ten.safetensors", skip="fc3.*")
        >>> print(report)
        8 loaded
        2 skipped:
          fc3.weight
          fc3.bias
    """
    state = read_weights(source, sha256=sha256)
    who = f"load_weights '{os.fspath(source)}'"
    if num_classes is None:
        return _state.load(net, state, strict=strict, skip=skip, who=who)
    names = heads.head_names(net)
    replaced, changes = heads._replace(net, num_classes)
    try:
        report = _state.load(net, state, strict=strict, skip=skip, may_differ=names, who=who)
    except Error:
        heads.undo(changes)
        raise
    unloaded = [name for name in replaced if name not in report.loaded and name not in report.fresh]
    report = replace(report, fresh=(*report.fresh, *unloaded))
    if report.fresh:
        warn_fresh(report.fresh, num_classes, who)
    return report


def warn_fresh(names: Sequence[str], num_classes: int, who: str) -> None:
    """Say that a head was not loaded."""
    layers = ", ".join(dict.fromkeys(f"'{name.rpartition('.')[0]}'" for name in names))
    warnings.warn(
        f"{who}: fresh weights for {num_classes} classes in {layers}; they must be trained",
        stacklevel=stack_level(),
    )
