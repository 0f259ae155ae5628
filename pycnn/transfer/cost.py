"""How long each strategy takes, predicted from multiply-adds and the measured speed of a forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from pycnn.nn.module import Module
from pycnn.program import compile
from pycnn.transfer.encoder import Encoder
from pycnn.transfer.layers import depth_groups
from pycnn.transfer.recording import Recording
from pycnn.transfer.tuning import chosen_groups

__all__ = ["forward_seconds", "predicted_seconds"]

# Gradients for a layer's input and weights cost about a forward pass each.
_BACKWARD = 2.0
_REPEATS = 3


def forward_seconds(encoder: Encoder, images: np.ndarray, *, threads: int | None = None, device: str = "cpu") -> float:
    """Time of a forward pass for one image: the best of three runs after a first one."""
    program = compile(encoder, images.shape, images.dtype.name, device, threads)
    program.run(images)
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        program.run(images)
        best = min(best, time.perf_counter() - started)
    return best / len(images)


def predicted_seconds(
    net: Module, forward: float, images: int, epochs: int, *, input_shape: Sequence[int] | None = None
) -> dict[str, float]:
    """Predict how long the strategies of `compare` take with one seed; decoding and measuring come on top.

    A step costs the forward pass and, for the part that learns, twice its multiply-adds more; frozen layers cost their
    forward pass only. Classifiers on features cost one pass over the images.

    Args:
        net: The net.
        forward: Seconds of a forward pass for one image (`forward_seconds`).
        images: To learn from.
        epochs: Of training.
        input_shape: (H, W, C) of the images; default: what the net was made for or called with last.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
    """
    shares = _shares(net, input_shape)
    groups = depth_groups(net, input_shape)
    one_pass = forward * images
    times = {"scratch": one_pass * epochs * (1 + _BACKWARD)}
    times |= dict.fromkeys(("nearest", "linear-top", "linear-stages"), one_pass)
    for part in ("head", "few", "more", "all"):
        learning = chosen_groups(net, groups, part)
        share = sum(shares.get(name, 0.0) for names in learning for name in names)
        times[f"finetune-{part}"] = one_pass * epochs * (1 + _BACKWARD * share)
    return times


def _shares(net: Module, input_shape: Sequence[int] | None) -> dict[str, float]:
    """Which part of the multiply-adds each weight takes part in; those of one layer share its part evenly."""
    recording = Recording(net, input_shape, who="predicted_seconds")
    total = 0.0
    macs: dict[str, float] = {}
    for node in recording.ops():
        if not node["macs"]:
            continue
        total += node["macs"]
        sources = [recording.name(p) for symbol in node["inputs"][1:2] for p in recording.sources(symbol)]
        names = dict.fromkeys(name for name in sources if name is not None)
        for name in names:
            macs[name] = macs.get(name, 0.0) + node["macs"] / len(names)
    return {name: count / total for name, count in macs.items()}
