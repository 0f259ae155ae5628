"""Convolutional networks on a fast C++ core: define, train, inspect, save and deploy.

Submodules and names are loaded when they are first used, so that `import pycnn` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pycnn.version import __version__

if TYPE_CHECKING:
    from pycnn import (
        data,
        dist,
        errors,
        functional,
        inspect,
        models,
        nn,
        onnx,
        optim,
        pytorch,
        testing,
        train,
        transfer,
    )
    from pycnn.benchmark import bench
    from pycnn.config import machine, manual_seed
    from pycnn.ensemble import Ensemble
    from pycnn.errors import (
        ArgumentError,
        DeviceError,
        DTypeError,
        Error,
        FileError,
        FormatError,
        GraphError,
        InternalError,
        LabelError,
        MemoryLimitError,
        ShapeError,
        TrainingError,
        UnsupportedError,
    )
    from pycnn.gradients import grad, value_and_grad
    from pycnn.nn.files import load, save
    from pycnn.nn.weights import load_weights
    from pycnn.program import PendingRun, Program, compile
    from pycnn.pytorch import from_torch
    from pycnn.tensor import Parameter, Tensor
    from pycnn.tracing import Symbol
    from pycnn.train import Trainer

__all__ = [
    "ArgumentError",
    "DTypeError",
    "DeviceError",
    "Ensemble",
    "Error",
    "FileError",
    "FormatError",
    "GraphError",
    "InternalError",
    "LabelError",
    "MemoryLimitError",
    "Parameter",
    "PendingRun",
    "Program",
    "ShapeError",
    "Symbol",
    "Tensor",
    "Trainer",
    "TrainingError",
    "UnsupportedError",
    "__version__",
    "bench",
    "compile",
    "data",
    "dist",
    "errors",
    "from_torch",
    "functional",
    "grad",
    "inspect",
    "load",
    "load_weights",
    "machine",
    "manual_seed",
    "models",
    "nn",
    "onnx",
    "optim",
    "pytorch",
    "save",
    "testing",
    "train",
    "transfer",
    "value_and_grad",
]

_MODULES = (
    "data",
    "dist",
    "errors",
    "functional",
    "inspect",
    "models",
    "nn",
    "onnx",
    "optim",
    "pytorch",
    "sklearn",  # not in __all__: it needs scikit-learn
    "testing",
    "train",
    "transfer",
)
_HOMES = {
    "Ensemble": "ensemble",
    "Parameter": "tensor",
    "PendingRun": "program",
    "Program": "program",
    "Symbol": "tracing",
    "Tensor": "tensor",
    "Trainer": "train",
    "bench": "benchmark",
    "compile": "program",
    "from_torch": "pytorch",
    "grad": "gradients",
    "load": "nn.files",
    "load_weights": "nn.weights",
    "machine": "config",
    "manual_seed": "config",
    "save": "nn.files",
    "value_and_grad": "gradients",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pycnn.{name}")
    if name.endswith("Error") and name in __all__:
        return getattr(importlib.import_module("pycnn.errors"), name)
    if name in _HOMES:
        value = getattr(importlib.import_module(f"pycnn.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pycnn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
