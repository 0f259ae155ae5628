"""Networks by name or by file, fitted to the data."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pycnn
from pycnn import models
from pycnn.cli._options import UsageError, as_usage, parse_value
from pycnn.cli._output import Output
from pycnn.data._files import open_regular
from pycnn.errors import FormatError
from pycnn.nn.files import FileModule, GraphModule, load
from pycnn.nn.module import Module

__all__ = [
    "check_classes",
    "class_names",
    "create",
    "find",
    "fit_to_data",
    "is_file",
    "is_onnx",
    "known_options",
    "load_file",
    "own_loss",
    "parse_options",
]


_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")


def parse_options(pairs: list[str], activation: str | None = None) -> dict[str, Any]:
    """Read --option KEY=VALUE words, and --activation.

    Raises:
        UsageError: A word has no "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found or not key:
            raise UsageError(f"--option {pair!r} is not KEY=VALUE, for example --option activation=relu")
        options[key.strip()] = parse_value(value.strip())
    if activation is not None:
        options["activation"] = activation
    return options


def is_file(net: str) -> bool:
    """Whether a NET argument means a file; names of networks have neither a dot nor a slash."""
    return net not in models.list() and ("/" in net or "." in net or Path(net).is_file())


def known_options(name: str) -> frozenset[str]:
    """Names of the options of a network."""
    make = getattr(models, name, None)
    return frozenset() if make is None else frozenset(inspect.signature(make).parameters)


def create(name: str, options: dict[str, Any]) -> Module:
    """Make a network with fresh weights.

    Raises:
        UsageError: The name or an option is wrong.
    """
    with as_usage():
        return models.create(name, **options)


def is_onnx(path: str) -> bool:
    """Whether a name is that of an ONNX file."""
    return Path(path).suffix.lower() == ".onnx"


def load_file(path: str) -> FileModule:
    """Load a model file, of pycnn's own or ONNX; an image in its place is told.

    Raises:
        FileError: The file cannot be read.
        FormatError: It is no model file.
        UnsupportedError: It is an ONNX file that uses what is not supported, or onnx is not installed.
    """
    if is_onnx(path):
        return pycnn.onnx.load(path, input_layout="NHWC", scores=True)
    try:
        return load(path)
    except FormatError as error:
        with open_regular(Path(path)) as file:
            start = file.read(4)
        if start.startswith(_IMAGE_STARTS):
            error.add_note("  hint: this is an image; the model file comes first")
        raise


def find(net: str, options: dict[str, Any]) -> Module:
    """Load a file or make a network by name.

    Raises:
        UsageError: There is no such network, or options were given for a file.
        FileError: The file cannot be read.
        FormatError: It is no model file.
    """
    if not is_file(net):
        return create(net, options)
    if options:
        raise UsageError(f"--option {next(iter(options))}: '{net}' is a file, its net is made already")
    return load_file(net)


def fit_to_data(
    name: str, options: dict[str, Any], net: Module, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[Module, dict[str, Any]]:
    """Make the network again with as many classes, channels and pixels as the data has.

    Options that the user chose stay.

    Returns:
        The network, and all options that it was made with.
    """
    height, width, channels = image_shape
    known = known_options(name)
    wanted: dict[str, Any] = {"num_classes": num_classes, "in_channels": channels}
    if height == width:
        wanted["input_size"] = height
    if "input_shape" in known and not {"in_channels", "input_size"} & known and net.input_shape != image_shape:
        wanted["input_shape"] = list(image_shape)
    parameters = inspect.signature(getattr(models, name)).parameters if known else {}
    extra = {
        key: value
        for key, value in wanted.items()
        if key in known and key not in options and value != parameters[key].default
    }
    if not extra:
        return net, options
    return create(name, {**options, **extra}), {**options, **extra}


def class_names(net: Module) -> tuple[str, ...] | None:
    """Names that a file gives its classes, if it does."""
    text = getattr(net, "metadata", {}).get("class_names")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def check_classes(path: str, net: Module, classes: tuple[str, ...], output: Output) -> None:
    """Refuse data whose classes are not those that a net knows; where only their number can be compared, warn.

    Raises:
        ValueError: The file names other classes.
    """
    names = class_names(net)
    if names is not None and names != classes:
        raise ValueError(f"'{path}': the net knows the classes {', '.join(names)}; the data has {', '.join(classes)}")
    (_, scores, _), *_others = pycnn.compile(net, (1, *(net.input_shape or ())), threads=1).outputs
    if names is None and len(scores) == 2 and scores[1] != len(classes):
        output.warn(
            f"'{path}': the net tells {scores[1]} classes apart, the data has {len(classes)}; is it the right data?"
        )


def own_loss(net: Module) -> Any:
    """The loss that a loaded network was made for, where it is not cross-entropy; otherwise None.

    A file holds the graph, not the loss: the network's name in the metadata tells.
    """
    if not isinstance(net, GraphModule):
        return None
    name = net.metadata.get("net", "")
    return getattr(models.create(name), "default_loss", None) if name in models.list() else None
