"""Same seed, same bits: for any number of threads, run after run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
import pycnn
from pycnn import nn
from pycnn.train import weights_fingerprint

net_name, threads = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
if net_name == "lenet5":
    net, side, channels = pycnn.models.create("lenet5"), 28, 1
else:
    net, side, channels = nn.Sequential(
        nn.Conv2d(3, 17, 3, padding=1, bias=False), nn.BatchNorm2d(17), nn.ReLU(),
        nn.BasicBlock(17, 33, stride=2), nn.Dropout(0.3), nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2), nn.GlobalAvgPool2d(), nn.Linear(33, 10),
    ), 17, 3
optimizer = pycnn.optim.SGD(lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)
trainer = pycnn.Trainer(net, optimizer=optimizer, threads=threads, seed=7, clip_norm=5.0, ema_decay=0.99)
losses = []
for _ in range(100):
    x = rng.random((48, side, side, channels), dtype=np.float32)
    losses.append(trainer.step(x, rng.integers(0, 10, 48))["loss"])
print(weights_fingerprint(net), trainer.fingerprint(), repr(losses[-1]))
"""


def train(net: str, threads: int) -> str:
    return subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, net, str(threads)],
        env={"PYCNN_OVERSUBSCRIBE": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("net", ["lenet5", "mixed"])
def test_100_steps_have_the_same_bits_for_1_2_3_and_7_threads_and_twice(net):
    reference = train(net, 1)
    assert reference.strip()
    for threads in (1, 2, 3, 7):
        assert train(net, threads) == reference, f"{threads} threads"
