"""LeNet-5 as published: 60,000 weights, partial connections, sub-sampling that learns, codes.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (11), 1998, section II.B and appendix A.

| layer  | what                                  | parameters |
|--------|---------------------------------------|------------|
| input  | 32x32, background -0.1, ink 1.175     |            |
| C1     | 6 maps 28x28, 5x5 convolution         | 156        |
| S2     | 6 maps 14x14, trainable sub-sampling  | 12         |
| C3     | 16 maps 10x10, 5x5, table I           | 1,516      |
| S4     | 16 maps 5x5, trainable sub-sampling   | 32         |
| C5     | 120 maps 1x1, 5x5, all connected      | 48,120     |
| F6     | 84 units                              | 10,164     |
| output | squared distances to fixed 7x12 codes |            |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.errors import ArgumentError
from pycnn.models._arguments import as_image_shape
from pycnn.models._digit_codes import digit_codes
from pycnn.nn import Conv2d, Linear, Module, Normalize, init
from pycnn.tensor import Initializer, Parameter

__all__ = ["CONNECTIONS", "LeNet5_1998", "lenet5_1998"]

# Table I of the paper: the maps of S2 that feed each map of C3.
CONNECTIONS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
_BACKGROUND, _INK = -0.1, 1.175


def _uniform(fan_in: int) -> Initializer:
    return init.lecun_1998()(init.Fans(fan_in, fan_in))


class SubSampling(Module):
    """Sum of each 2x2 window times a coefficient plus a bias, both learned, one per map.

    Args:
        channels: Number of maps.

    Shape:
        ``(N, H, W, C)`` -> ``(N, H // 2, W // 2, C)``, before squashing.
    """

    def __init__(self, channels: int) -> None:
        self.weight = Parameter((channels,), init=_uniform(4))
        self.bias = Parameter((channels,), init=_uniform(4))

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        total = functional.affine(functional.avg_pool2d(x, kernel_size=2), scale=4.0)
        return functional.add(functional.multiply(total, self.weight), self.bias)


class PartialConv2d(Module):
    """5x5 convolution in which each output map sees only some input maps (table I).

    Weights exist for the connections that are there, 60 windows of 5x5. They stand in three
    parameters, by the number of inputs of their map, since that is what their initial range
    depends on.

    Attributes:
        weight3: (18, 5, 5), of the maps with three inputs.
        weight4: (36, 5, 5), of the maps with four inputs.
        weight6: (6, 5, 5), of the map with all six.
        bias: (16).
    """

    def __init__(self) -> None:
        counts = {size: sum(len(c) for c in CONNECTIONS if len(c) == size) for size in (3, 4, 6)}
        self.weight3 = Parameter((counts[3], 5, 5), init=_uniform(3 * 25))
        self.weight4 = Parameter((counts[4], 5, 5), init=_uniform(4 * 25))
        self.weight6 = Parameter((counts[6], 5, 5), init=_uniform(6 * 25))
        # The biases' ranges differ as little as their fans; the narrowest keeps to all.
        self.bias = Parameter((len(CONNECTIONS),), init=_uniform(6 * 25))
        self._indices = self._table()

    @staticmethod
    def _table() -> tuple[int, ...]:
        """For each (output map, input map) the row of the connection, or -1 for none."""
        rows: list[int] = []
        next_row = 0
        # CONNECTIONS lists the maps by their number of inputs, as the three parameters stand.
        for inputs in CONNECTIONS:
            for channel in range(6):
                connected = channel in inputs
                rows.append(next_row if connected else -1)
                next_row += connected
        return tuple(rows)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        windows = functional.concat([self.weight3, self.weight4, self.weight6], axis=0)
        table = functional.take(windows, indices=self._indices)
        dense = functional.reshape(table, shape=(len(CONNECTIONS), 6, 5, 5))
        weight = functional.transpose(dense, permutation=(0, 2, 3, 1))
        return functional.conv2d(x, weight, self.bias)


class RadialOutput(Module):
    """Minus the squared distance to each class's code: ``-sum of (x - code)**2``.

    The paper's output layer gives the distance (the penalty); its negative is a score, so that the
    smallest distance is the prediction and softmax cross-entropy the paper's criterion.

    Attributes:
        codes: (classes, 84), +1 and -1, fixed.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = Parameter(codes.shape, init=codes.astype(np.float32), trainable=False)

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        classes, units = self.codes.shape
        difference = functional.subtract(
            functional.reshape(x, shape=(0, 1, units)),
            functional.reshape(self.codes, shape=(1, classes, units)),
        )
        distance = functional.sum(functional.multiply(difference, difference), axes=2)
        return functional.affine(distance, scale=-1.0)


class LeNet5_1998(Module):  # noqa: N801
    """The network that `lenet5_1998` makes; layers c1, s2, c3, s4, c5, f6, output."""

    def __init__(self, input_size: int, rubbish: float) -> None:
        if input_size not in (28, 32):
            raise ArgumentError(f"lenet5_1998: input_size must be 28 or 32, got {input_size!r}")
        if not isinstance(rubbish, int | float) or not (rubbish > 0 and math.isfinite(rubbish)):
            raise ArgumentError(f"lenet5_1998: rubbish must be above 0, got {rubbish!r}")
        # Images come as 0 (background) to 1 (ink).
        span = _INK - _BACKGROUND
        self.normalization = Normalize(mean=-_BACKGROUND / span, std=1.0 / span)
        self.rubbish = float(rubbish)
        rule = init.lecun_1998()
        self.c1 = Conv2d(1, 6, kernel_size=5, weight_init=rule, bias_init=rule)
        self.s2 = SubSampling(6)
        self.c3 = PartialConv2d()
        self.s4 = SubSampling(16)
        self.c5 = Conv2d(16, 120, kernel_size=5, weight_init=rule, bias_init=rule)
        self.f6 = Linear(120, 84, weight_init=rule, bias_init=rule)
        self.output = RadialOutput(digit_codes())
        self.input_shape = (input_size, input_size, 1)

    def forward(self, x: Any) -> Any:
        """Record the layers."""
        squash = functional.scaled_tanh
        if x.shape[1:3] == (28, 28):
            x = functional.pad(x, before=(0, 2, 2, 0), after=(0, 2, 2, 0), value=_BACKGROUND)
        x = squash(self.c1(x))
        x = squash(self.s2(x))
        x = squash(self.c3(x))
        x = squash(self.s4(x))
        x = squash(self.c5(x))
        x = functional.reshape(x, shape=(0, 120))
        x = squash(self.f6(x))
        return self.output(x)

    def default_loss(self, scores: Any, target: Any) -> Any:
        """Maximum a posteriori criterion of the paper, equation 9, mean over the batch.

        ``E = distance to the right code + log(exp(-rubbish) + sum of exp(-distance))``: softmax
        cross-entropy over the scores and one more class, "rubbish", whose distance is constant.

        Args:
            scores: What the net gives, (N, 10).
            target: Digits (N).
        """
        with_rubbish = functional.pad(scores, before=(0, 0), after=(0, 1), value=-self.rubbish)
        return functional.cross_entropy(with_rubbish, target)


def lenet5_1998(*, input_size: int = 28, rubbish: float = 1.0, input_shape: Sequence[int] | None = None) -> LeNet5_1998:
    """LeNet-5 exactly as published in 1998: 60,000 trainable parameters, ten digits.

    C3 is connected to S2 by the paper's table, sub-sampling has a learned coefficient and bias, the
    squashing function is 1.7159 tanh(2x/3), weights start uniform in ±2.4 / fan_in, and the output
    is the distance to ten fixed codes, drawn as 7x12 bitmaps of the digits. `Trainer` uses the
    paper's criterion (`LeNet5_1998.default_loss`) unless told otherwise.

    Args:
        input_size: 28 (surrounded by 2 pixels of background) or 32, in pixels.
        rubbish: The constant j of equation 9, above 0: distance of the class "not a digit". It
            keeps the net from pushing apart what is far apart already.
        input_shape: (28, 28, 1) or (32, 32, 1) instead of `input_size`.

    Shape:
        ``(N, input_size, input_size, 1)``, uint8 or 0 (background) to 1 (ink) -> minus the distances
        ``(N, 10)``; the largest is the prediction.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> lenet5_1998().num_parameters
        60000
    """
    if input_shape is not None:
        height, width, channels = as_image_shape(input_shape, who="lenet5_1998", default=(28, 28, 1))
        if height != width or channels != 1:
            raise ArgumentError(
                f"lenet5_1998: input_shape must be (28, 28, 1) or (32, 32, 1), got {tuple(input_shape)}; its "
                "connection table is made for one channel"
            )
        input_size = height
    net = LeNet5_1998(input_size, rubbish)
    net.name_tensors()
    return net
