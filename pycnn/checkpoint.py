"""Model files and checkpoints: one safetensors file, read and written by the core."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn import _core
from pycnn.arguments import as_path
from pycnn.errors import ArgumentError, FormatError
from pycnn.program import Variables
from pycnn.tensor import Tensor, as_array

__all__ = ["load_model", "read_tensors", "save_model", "write_tensors"]


def _as_text(path: str | os.PathLike[str], who: str) -> str:
    as_path(path, who=who)
    # Not what that gave, which lacks a slash at the end: the system shall see it.
    text = os.fsdecode(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{who}: path {text!r} is no UTF-8 text; rename the file or its folder") from None
    return text


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as a safetensors file, atomically: the old file or the new one is there at any instant.

    Raises:
        FileError: The system refused; an older file at the path is intact.
    """
    core = {name: _core.Tensor.from_array(np.ascontiguousarray(as_array(a, what=name))) for name, a in tensors.items()}
    _core.write_checkpoint(_as_text(path, "save"), core, dict(metadata or {}))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        Arrays by name, read-only, and the file's metadata.

    Raises:
        FileError: The file cannot be read.
        FormatError: The file is malformed; the message names tensor, field or byte offset.
    """
    tensors, metadata = _core.read_checkpoint(_as_text(path, "load"))
    return {name: tensor.view() for name, tensor in tensors.items()}, metadata


def save_model(
    path: str | os.PathLike[str],
    graph: _core.Graph,
    variables: Variables,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network and its arrays as one file, atomically.

    Args:
        path: Where to.
        graph: The recorded network.
        variables: A value for each parameter and buffer of the graph; names starting with "optim.", "train." and
            "ema." may come along.
        metadata: Further text entries.

    Raises:
        FileError: The system refused; an older file at the path is intact.
    """
    tensors = {name: variables.core[name] for name in variables}
    _core.save_model(_as_text(path, "save"), graph, tensors, dict(metadata or {}))


def load_model(path: str | os.PathLike[str]) -> tuple[_core.Graph, dict[str, Tensor], dict[str, str]]:
    """Read a model file.

    Returns:
        The graph, the arrays by name in memory layout, the metadata.

    Raises:
        FileError: The file cannot be read.
        FormatError: The file is malformed or of a newer format.
    """
    try:
        graph, tensors, metadata = _core.load_model(_as_text(path, "load"))
    except FormatError as error:
        what, _, hint = str(error).partition("\n")
        if "is missing" in what:  # 'pycnn.format' or 'pycnn.graph'
            advice = "weights without a network? make the net, then pycnn.load_weights(net, path)"
        elif "PyTorch's .pth" in hint:
            what = f"load '{os.fspath(path)}': a zip archive, expected a safetensors file"
            advice = "weights that PyTorch saved? make the net, then pycnn.load_weights(net, path)"
        else:
            raise
        raise FormatError(f"{what}\n  hint: {advice}") from None
    return graph, {name: Tensor(tensor) for name, tensor in tensors.items()}, metadata
