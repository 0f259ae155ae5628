"""A short training of a net that classifies images, to be held against one that is computed otherwise."""

from __future__ import annotations

import numpy as np

import pycnn
from pycnn import functional
from pycnn.program import compile_traced
from pycnn.tracing import trace


def train(make, images, steps=3, **options):
    """Losses, the net's arrays and the program, of a net that `make` makes for batches of shape `images`."""
    pycnn.manual_seed(5)
    net = make()
    net.build(images[1:])
    rng = np.random.default_rng(1)
    traced = trace(
        lambda x, y: {"loss": functional.cross_entropy(net(x), y)},
        {"x": (images, "float32"), "y": ((images[0],), "int64")},
        root=net,
    )
    spec = pycnn.optim.SGD(lr=0.02, momentum=0.9).spec(dict(net.named_parameters()))
    program = compile_traced(traced, mode="training", optimizer=spec, **options)
    losses = []
    for _ in range(steps):
        x = rng.standard_normal(images, np.float32)
        losses.append(program(x, rng.integers(0, 10, images[0]))["loss"])
    return np.array(losses, np.float32), net.state_dict(), program
