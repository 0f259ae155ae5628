"""A short text that tells two sets of weights apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from pycnn.nn.module import Module

__all__ = ["weights_fingerprint"]


def weights_fingerprint(net: Module | Mapping[str, np.ndarray]) -> str:
    """Hash all parameters and buffers: equal bits give equal texts.

    Args:
        net: A net, or a state dict.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of names, shapes, types and bytes, in the
        order of the names.

    Raises:
        GraphError: A layer of the net has not seen its input yet.
    """
    state = net.state_dict() if isinstance(net, Module) else net
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
