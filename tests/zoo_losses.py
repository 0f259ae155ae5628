"""Twenty steps of any net of the zoo, and how far a GPU's losses may be from the CPU's; it needs no pytest.

A net of fifty layers with fresh weights and few pixels behind its last batch norms turns a rounding into a third of the
loss within twenty steps. Blocks that begin as the identity (`zero_init_residual`) do not: convolutions by other
algorithms on the CPU then stay within 1e-5 of one another, and the nets learn all the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import pycnn
from pycnn.config import manual_seed

# No more pixels than the layers need.
IMAGES = {
    "lenet5": (28, 28, 1),
    "lenet5_1998": (32, 32, 1),
    "alexnet_2012": (227, 227, 3),
    "googlenet": (128, 128, 3),
    "inception_v3": (160, 160, 3),
}
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"aux_logits": False}, "inception_v3": {"aux_logits": False}}
# Deep, and no blocks. inception_v3's fresh weights have large gradients: at 1e-7 convolutions by other algorithms on
# the CPU are 9 % of the loss off within 20 steps, at 1e-8 0.2 %, and the loss falls.
RATES = {"googlenet": 1e-5, "inception_v3": 1e-8}
BATCH, CLASSES = 8, 10


def losses(name: str, device: str, **options: Any) -> list[float]:
    """Losses of a net's first twenty steps; the same images and weights whenever it is asked."""
    manual_seed(1)
    image = IMAGES.get(name, (32, 32, 3) if name.startswith("cifar_") else (64, 64, 3))
    arguments: dict[str, Any] = {"input_shape": image, **OPTIONS.get(name, {})}
    if name != "lenet5_1998":
        arguments["num_classes"] = CLASSES
    residual = "resne" in name and name != "cifar_resnext"  # which has no such option
    net = pycnn.models.create(name, **arguments, **({"zero_init_residual": True} if residual else {}))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, *image), dtype=np.float32)
    y = rng.integers(0, CLASSES, BATCH)
    optimizer = pycnn.optim.SGD(lr=1e-3 if residual else RATES.get(name, 1e-4), momentum=0.9)
    trainer = pycnn.Trainer(net, optimizer=optimizer, device=device, seed=0, **options)
    return [float(trainer.step(x, y)["loss"]) for _ in range(20)]


def assert_as_the_cpu(actual: list[float], expected: list[float]) -> None:
    """Losses in float32 are those of the CPU, and numbers."""
    assert np.isfinite([actual, expected]).all(), f"a loss is not finite: {actual}, on the CPU {expected}"
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4)
    # Of a loss that is learnt away little is left to be a share of.
    np.testing.assert_allclose(actual, expected, rtol=0.02, atol=0.02)
