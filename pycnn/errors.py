"""The exception classes of pycnn.

Each is a `pycnn.Error` and the builtin that a caller would expect. C++ errors arrive as the class of the same name.
"""

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
    "TrainingError",
    "UnsupportedError",
]


class Error(Exception):
    """Base of all errors raised by pycnn."""


class ShapeError(Error, ValueError):
    """Sizes or ranks disagree."""


class DTypeError(Error, TypeError):
    """An element type is not accepted here."""


class ArgumentError(Error, ValueError):
    """An argument other than a shape or element type is out of its range."""


class GraphError(Error, ValueError):
    """Foreign symbol, duplicate name, no path from loss to parameter, not differentiable."""


class DeviceError(Error, RuntimeError):
    """Device absent, or the package was built without it."""


class FormatError(Error, ValueError):
    """A model, checkpoint or data file is malformed."""


class UnsupportedError(Error, NotImplementedError):
    """Legal, but not something this version can do."""


class LabelError(Error, IndexError):
    """A class label is negative or not below the number of classes."""


class FileError(Error, OSError):
    """The operating system refused a file operation; `errno` and `filename` are set."""


class MemoryLimitError(Error, MemoryError):
    """More memory is wanted than the limit or the machine allows.

    Attributes:
        wanted_bytes: What was asked for; 0 where that is not known.
        available_bytes: The limit that was set, or what the machine had left.
    """

    wanted_bytes: int = 0
    available_bytes: int = 0


class TrainingError(Error, RuntimeError):
    """Training cannot go on: the loss is not finite, or another thread is training."""


class InternalError(Error, RuntimeError):
    """A fault of pycnn itself; please report it."""
