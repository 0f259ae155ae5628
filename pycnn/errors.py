"""The exceptions of pycnn. Each is a `pycnn.Error` and the builtin a caller expects."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DeviceError",
    "Error",
    "FileError",
    "FormatError",
    "GraphError",
    "InternalError",
    "LabelError",
    "MemoryLimitError",
    "ShapeError",
    "UnsupportedError",
]


class Error(Exception):
    """Base of every exception that pycnn raises on purpose."""


class ShapeError(Error, ValueError):
    """Sizes or ranks disagree."""


class DTypeError(Error, TypeError):
    """An element type is not accepted."""


class ArgumentError(Error, ValueError):
    """A parameter is outside its range."""


class GraphError(Error, ValueError):
    """A graph is not well formed: foreign symbol, cycle, no path from loss to parameter."""


class DeviceError(Error, RuntimeError):
    """A device is absent, out of memory, or pycnn was built without it."""


class FormatError(Error, ValueError):
    """A checkpoint, ONNX or data file is bad; the text gives file and byte offset or node."""


class UnsupportedError(Error, NotImplementedError):
    """Legal input that pycnn does not implement."""


class LabelError(Error, IndexError):
    """A class label is outside the classes; the text gives its position and value."""


class FileError(Error, OSError):
    """The operating system refused a file; carries errno and path."""


class MemoryLimitError(Error, MemoryError):
    """A plan or allocation needs more memory than is allowed; the text gives both numbers."""


class InternalError(Error, RuntimeError):
    """A fault of pycnn itself; please report it."""
