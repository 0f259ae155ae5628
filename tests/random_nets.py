"""Small random nets: many kernels beside one another, odd shapes, values that several layers read or share memory."""

from __future__ import annotations

import numpy as np

from pycnn import functional, nn

# Kinds of layers, and how often each is drawn.
_SHARES = {"conv": 3, "winograd": 2, "grouped": 1, "pointwise": 1, "dense": 1, "norm": 2, "activation": 1}
_SHARES |= {"response": 1, "dropout": 1}
_SHARES |= {"pool": 1, "concat": 2, "slice": 2, "rows": 1, "pad": 1, "add": 1, "multiply": 1}
_KINDS = [kind for kind, share in _SHARES.items() for _ in range(share)]


class RandomNet(nn.Module):
    """A directed graph of layers, drawn from a seed: every layer reads values that any earlier one made.

    Attributes:
        MOST: Most values of one image that a layer makes, so that nets stay quick.
        SIDES: Of images: the least, and one more than the most.
        OUTPUTS: Channels that convolutions and dense layers may make.
        HIDDEN: Units of a dense layer before the last one; 0: there is none.
        image: (H, W, C) that it takes.
        story: One line for each layer, to be shown when something is wrong.
    """

    MOST = 6000
    SIDES = (3, 12)
    OUTPUTS = (1, 3, 5, 8, 16, 17, 24)
    HIDDEN = 0

    def __init__(self, seed: int, *, layers: int = 12, classes: int = 5) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        sides = rng.integers(*self.SIDES, 2)
        self.image = (int(sides[0]), int(sides[1]), int(rng.choice([1, 2, 3, 16, 32])))
        self.story = [f"seed {seed}: image {self.image}"]
        self._steps: list[tuple[list[int], str | None, object]] = []
        shapes, left = [self.image], layers
        while left > 0:
            made = self._draw(rng, shapes)
            if made is None:
                continue
            inputs, layer, function, shape = made
            name = None
            if layer is not None:
                name = f"layer{len(self._steps)}"
                setattr(self, name, layer)
            self._steps.append((inputs, name, function))
            self.story.append(f"  {len(shapes)}: {layer or function.__doc__} of {inputs} -> {shape}")
            shapes.append(shape)
            left -= 1
        read = {i for inputs, _, _ in self._steps for i in inputs}
        self._ends = [i for i in range(1, len(shapes)) if i not in read]
        features = int(np.prod(shapes[-1])) + sum(shapes[i][2] for i in self._ends)
        self.hidden = nn.Linear(features, self.HIDDEN) if self.HIDDEN else None
        self.head = nn.Linear(self.HIDDEN or features, classes)

    def _draw(self, rng, shapes):
        # Mostly what was made last, so that nets are deep.
        at = len(shapes) - 1 if rng.random() < 0.6 else int(rng.integers(len(shapes)))
        height, width, channels = shape = shapes[at]
        same = [i for i, other in enumerate(shapes) if other == shape]
        beside = [i for i, other in enumerate(shapes) if other[:2] == (height, width)]
        kind = rng.choice(_KINDS)
        if kind == "winograd":
            fitting = [i for i, other in enumerate(shapes) if other[2] >= 16 and min(other[:2]) >= 4]
            return self._conv(rng, kind, at := int(rng.choice(fitting)), shapes[at]) if fitting else None
        if kind in ("conv", "grouped", "pointwise"):
            return self._conv(rng, kind, at, shape)
        if kind == "dense":
            out = int(rng.choice(self.OUTPUTS))
            made = (height, width, out)
            return None if np.prod(made) > self.MOST else ([at], nn.Linear(channels, out), None, made)
        if kind == "norm":
            return [at], nn.BatchNorm2d(channels), None, shape
        if kind == "activation":
            layers = [nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Tanh, nn.ScaledTanh, lambda: nn.LeakyReLU(0.1)]
            return [at], layers[rng.integers(len(layers))](), None, shape
        if kind == "pool":
            return self._pool(rng, at, shape)
        if kind == "response":
            return [at], nn.LocalResponseNorm(3, alpha=0.1), None, shape
        if kind == "dropout":
            return [at], nn.Dropout(0.25), None, shape
        if kind == "concat":
            inputs = [int(rng.choice(beside)) for _ in range(rng.integers(2, 5))]
            total = sum(shapes[i][2] for i in inputs)

            def join(*parts):
                """channels side by side"""
                return functional.concat(list(parts))

            return None if height * width * total > self.MOST else (inputs, None, join, (height, width, total))
        if kind == "rows":
            if 2 * height * width * channels > self.MOST:
                return None

            def stack(*parts):
                """one below the other"""
                return functional.concat(list(parts), axis=1)

            return [at, int(rng.choice(same))], None, stack, (2 * height, width, channels)
        if kind == "slice":
            axis = int(rng.choice([0, 1, 2, 2]))
            begin = int(rng.integers(shape[axis]))
            size = int(rng.integers(1, shape[axis] - begin + 1))
            cut = tuple(size if i == axis else n for i, n in enumerate(shape))
            first = tuple(begin if i == axis else 0 for i in range(3))

            def part(x):
                """a part"""
                return functional.slice(x, begin=(0, *first), size=(-1, *cut))

            return [at], None, part, cut
        if kind == "pad":
            around = tuple(int(n) for n in rng.integers(0, 2, 3))

            def pad(x):
                """zeros around"""
                return functional.pad(x, before=(0, *around), after=(0, *around))

            grown = (height + 2 * around[0], width + 2 * around[1], channels + 2 * around[2])
            return None if np.prod(grown) > self.MOST else ([at], None, pad, grown)
        other = int(rng.choice(same))
        if kind == "add":

            def add(a, b):
                """sum"""
                return a + b

            return [at, other], None, add, shape

        def multiply(a, b):
            """product with a sigmoid"""
            return a * functional.sigmoid(b)

        return [at, other], None, multiply, shape

    def _conv(self, rng, kind, at, shape):
        height, width, channels = shape
        kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
        stride, dilation, groups = int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 1, 2])), 1
        out = int(rng.choice(self.OUTPUTS))
        padding = (int(rng.integers(kernel[0])), int(rng.integers(kernel[1])))
        if kind == "winograd":
            side = int(rng.choice([3, 5]))
            kernel, stride, dilation, out = (side, side), 1, 1, int(rng.choice([16, 19, 32]))
            padding = (int(rng.integers(side)),) * 2
        elif kind == "pointwise":
            kernel, dilation, padding = (1, 1), 1, (0, 0)
        elif kind == "grouped":
            fitting = [g for g in range(2, channels + 1) if channels % g == 0]
            if not fitting:
                return None
            groups = int(rng.choice(fitting))
            out = groups * int(rng.choice([1, 2, 4, 8, channels // groups]))
        window = [(k - 1) * dilation + 1 for k in kernel]
        sides = [(n + 2 * p - k) // stride + 1 for n, p, k in zip((height, width), padding, window, strict=True)]
        made = (*sides, out)
        if min(sides) < 1 or np.prod(made) > self.MOST:
            return None
        layer = nn.Conv2d(
            channels,
            out,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bool(rng.integers(2)),
        )
        return [at], layer, None, made

    def _pool(self, rng, at, shape):
        height, width, channels = shape
        kernel, stride = int(rng.integers(2, 4)), int(rng.integers(1, 4))
        padding = int(rng.integers(2))
        sides = [(n + 2 * padding - kernel) // stride + 1 for n in (height, width)]
        if min(sides) < 1:
            return None
        layer = (nn.MaxPool2d, nn.AvgPool2d)[rng.integers(2)](kernel, stride, padding=padding)
        return [at], layer, None, (*sides, channels)

    def forward(self, x):
        values = [x]
        for inputs, name, function in self._steps:
            parts = [values[i] for i in inputs]
            values.append(function(*parts) if name is None else getattr(self, name)(*parts))
        ends = [functional.global_avg_pool2d(values[i]) for i in self._ends]
        x = functional.concat([functional.flatten(values[-1]), *ends])
        return self.head(x if self.hidden is None else functional.relu(self.hidden(x)))
