"""Known networks by name; the file of a family is imported when one of its nets is first used.

Example:
    >>> net = create("lenet5", num_classes=10, activation="relu")
    >>> net.num_parameters
    61706
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pycnn.errors import ArgumentError
from pycnn.nn.module import Module
from pycnn.nn.weights import load_weights

__all__ = ["create", "list"]

# name -> "file:function". Another net is one more line.
_MODELS: dict[str, str] = {
    "alexnet": "alexnet:alexnet",
    "alexnet_2012": "alexnet:alexnet_2012",
    "alexnet_simplified": "alexnet:alexnet_simplified",
    "cifar_alexnet": "cifar_nets:cifar_alexnet",
    "cifar_googlenet": "cifar_nets:cifar_googlenet",
    "cifar_resnet20": "cifar_resnet:cifar_resnet20",
    "cifar_resnet32": "cifar_resnet:cifar_resnet32",
    "cifar_resnet44": "cifar_resnet:cifar_resnet44",
    "cifar_resnet56": "cifar_resnet:cifar_resnet56",
    "cifar_resnet110": "cifar_resnet:cifar_resnet110",
    "cifar_resnext": "cifar_nets:cifar_resnext",
    "cifar_speed": "cifar_speed:cifar_speed",
    "cifar_vgg": "cifar_nets:cifar_vgg",
    "densenet121": "densenet:densenet121",
    "densenet161": "densenet:densenet161",
    "densenet169": "densenet:densenet169",
    "densenet201": "densenet:densenet201",
    "googlenet": "googlenet:googlenet",
    "googlenet_paper": "googlenet_paper:googlenet_paper",
    "inception_v3": "inception_v3:inception_v3",
    "lenet5": "lenet5:lenet5",
    "lenet5_1998": "lenet5_1998:lenet5_1998",
    "mobilenet_v2": "mobilenet:mobilenet_v2",
    "resnet18": "resnet:resnet18",
    "resnet34": "resnet:resnet34",
    "resnet50": "resnet:resnet50",
    "resnet101": "resnet:resnet101",
    "resnet152": "resnet:resnet152",
    "resnext50_32x4d": "resnet:resnext50_32x4d",
    "resnext101_32x8d": "resnet:resnext101_32x8d",
    "resnext101_64x4d": "resnet:resnext101_64x4d",
    "squeezenet1_0": "squeezenet:squeezenet1_0",
    "squeezenet1_1": "squeezenet:squeezenet1_1",
    "vgg11": "vgg:vgg11",
    "vgg11_bn": "vgg:vgg11_bn",
    "vgg11_lrn": "vgg:vgg11_lrn",
    "vgg13": "vgg:vgg13",
    "vgg13_bn": "vgg:vgg13_bn",
    "vgg16": "vgg:vgg16",
    "vgg16_bn": "vgg:vgg16_bn",
    "vgg16_c": "vgg:vgg16_c",
    "vgg19": "vgg:vgg19",
    "vgg19_bn": "vgg:vgg19_bn",
    "wide_resnet50_2": "resnet:wide_resnet50_2",
    "wide_resnet101_2": "resnet:wide_resnet101_2",
    "zfnet": "zfnet:zfnet",
}
# Everything else that is reached as an attribute; an empty name is the file itself.
_OTHERS: dict[str, str] = {
    "LeNet5": "lenet5:LeNet5",
    "LeNet5_1998": "lenet5_1998:LeNet5_1998",
    "filters": "filters:",
}


class _Package(ModuleType):
    """A net may share its name with its family's file: the name stays the net's.

    Importing a submodule sets it as an attribute of its package, which would hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODELS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    place = _MODELS.get(name) or _OTHERS.get(name)
    if place is None:
        raise AttributeError(f"module 'pycnn.models' has no attribute '{name}'")
    file, _, attribute = place.partition(":")
    module = importlib.import_module(f"pycnn.models.{file}")
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> Any:
    return sorted({*__all__, *_MODELS, *_OTHERS})


def list() -> tuple[str, ...]:
    """Names that `create` knows, sorted."""
    return tuple(sorted(_MODELS))


def create(
    name: str, *, weights: str | os.PathLike[str] | None = None, sha256: str | None = None, **options: Any
) -> Module:
    """Make a network with fresh weights or those of a file.

    Args:
        name: One of `list()`.
        weights: Path or URL of a file for `pycnn.load_weights`. If ``num_classes`` is among the options and the
            file's head is for another number, the head is fresh and a warning says so.
        sha256: Digest of that file, or its first 8 hex digits or more.
        options: Arguments of the function of that name. Every net takes ``num_classes`` and
            ``input_shape``, (H, W, C) of the images, where its architecture leaves them free.

    Returns:
        The network. Its weights follow from `pycnn.manual_seed` and their names.

    Raises:
        ArgumentError: There is no such network or option, an option is out of range, or the weights are for a net
            of other names or shapes.
        FileError: The weights cannot be read or fetched.
        FormatError: The file of weights is malformed or has another digest.

    Example:
        >>> create("lenet5", num_classes=5, input_shape=(32, 32, 3)).input_shape
        (32, 32, 3)
    """
    if name not in _MODELS:
        from difflib import get_close_matches

        close = get_close_matches(str(name), _MODELS, n=3, cutoff=0.4) or sorted(_MODELS)
        raise ArgumentError(f"models.create: no network is called {name!r}\n  hint: there is {', '.join(close)}")
    make: Callable[..., Module] = getattr(sys.modules[__name__], name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ArgumentError(f"models.create: {name} has no option {option!r}\n  hint: there is {', '.join(known)}")
    net = make(**options)
    if weights is not None:
        load_weights(net, weights, num_classes=options.get("num_classes"), sha256=sha256)
    elif sha256 is not None:
        raise ArgumentError(f"models.create: {name}: sha256 goes with weights, and none are given")
    return net
