"""Residual and inception families in PyTorch, written again from the papers; weights are named as ours.

Widths and depths are small, and free where the package's are. `with_heads` gives the auxiliary heads' results too.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d


class Block(nn.Module):
    """Basic block or bottleneck; `pad`: shortcuts of zeros; `pre`: norm and ReLU in front of each convolution."""

    def __init__(self, inputs, channels, stride, *, bottleneck=False, groups=1, base_width=64, pad=False, pre=False):
        super().__init__()
        out, width = channels * (4 if bottleneck else 1), int(channels * base_width / 64) * groups
        if bottleneck:
            sizes = [(inputs, width, 1, 1, 1), (width, width, 3, stride, groups), (width, out, 1, 1, 1)]
        else:
            sizes = [(inputs, out, 3, stride, 1), (out, out, 3, 1, 1)]
        for i, (a, b, window, step, split) in enumerate(sizes, 1):
            conv = nn.Conv2d(a, b, window, step, window // 2, groups=split, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(a if pre else b))
        self.count, self.pre, self.stride, self.out = len(sizes), pre, stride, out
        self.downsample = None
        if (stride != 1 or inputs != out) and not pad:
            conv = nn.Conv2d(inputs, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv) if pre else nn.Sequential(conv, nn.BatchNorm2d(out))

    def shortcut(self, x, activated):
        if self.downsample is not None:
            return self.downsample(activated)
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.cat([x, x.new_zeros(len(x), self.out - x.shape[1], *x.shape[2:])], 1)

    def forward(self, x):
        y, activated = x, x
        for i in range(1, self.count + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            if self.pre:
                y = torch.relu(norm(y))
                activated = y if i == 1 else activated
                y = conv(y)
            else:
                y = norm(conv(y))
                y = torch.relu(y) if i < self.count else y
        y = y + self.shortcut(x, activated)
        return y if self.pre else torch.relu(y)


class ResNet(nn.Module):
    def __init__(self, classes, counts, channels, *, stem="imagenet", pre=False, **options):
        super().__init__()
        large = stem == "imagenet"
        self.conv1 = nn.Conv2d(3, channels, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.pre, self.stages, width = pre, [], channels
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                block = Block(width, channels << stage, 2 if stage and not i else 1, pre=pre, **options)
                blocks.append(block)
                width = block.out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.stages.append(f"layer{stage + 1}")
        self.bn1 = nn.BatchNorm2d(width if pre else channels)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = self.conv1(x)
        x = x if self.pre else self.pool(torch.relu(self.bn1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        x = torch.relu(self.bn1(x)) if self.pre else x
        return self.fc(x.mean((2, 3)))


class Unit(nn.Module):
    """Convolution and ReLU, with batch norm in between or a bias."""

    def __init__(self, inputs, outputs, window, stride=1, padding=0, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, window, stride, padding, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3) if norm else nn.Identity()

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class InceptionModule(nn.Module):
    def __init__(self, inputs, one, reduce3, three, reduce5, five, pool, paper):
        super().__init__()
        norm, window = not paper, 5 if paper else 3
        self.branch1 = Unit(inputs, one, 1, norm=norm)
        self.branch2 = nn.Sequential(Unit(inputs, reduce3, 1, norm=norm), Unit(reduce3, three, 3, padding=1, norm=norm))
        self.branch3 = nn.Sequential(
            Unit(inputs, reduce5, 1, norm=norm), Unit(reduce5, five, window, padding=window // 2, norm=norm)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Unit(inputs, pool, 1, norm=norm))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNetHead(nn.Module):
    def __init__(self, inputs, classes, filters, units, paper):
        super().__init__()
        self.conv = nn.Conv2d(inputs, filters, 1) if paper else Unit(inputs, filters, 1)
        self.fc1, self.fc2, self.paper = nn.Linear(16 * filters, units), nn.Linear(units, classes), paper

    def forward(self, x):
        x = avg_pool2d(x, 5, 3) if self.paper and x.shape[2:] == (14, 14) else adaptive_avg_pool2d(x, 4)
        return self.fc2(torch.relu(self.fc1(torch.relu(self.conv(x)).flatten(1))))


class GoogLeNet(nn.Module):
    """`paper`: biases, response normalisation, 5x5; else batch norm."""

    def __init__(self, classes, modules, filters, head, *, paper=False, small=False):
        super().__init__()

        def conv(inputs, outputs, window, stride=1, padding=0):
            make = nn.Conv2d if paper else Unit
            return make(inputs, outputs, window, stride, padding)

        first = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = conv(3, filters[0], *first)
        self.conv2 = conv(filters[0], filters[1], 1)
        self.conv3 = conv(filters[1], filters[2], 3, 1, 1)
        width, widths = filters[2], {}
        for name, (one, reduce3, three, reduce5, five, pool) in modules.items():
            module = InceptionModule(width, one, reduce3, three, reduce5, five, pool, paper)
            self.add_module(f"inception{name}", module)
            width = widths[name] = one + three + five + pool
        self.aux1 = GoogLeNetHead(widths["4a"], classes, *head, paper)
        self.aux2 = GoogLeNetHead(widths["4d"], classes, *head, paper)
        self.fc = nn.Linear(width, classes)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) if paper else nn.Identity()
        self.last_window, self.small = 3 if paper else 2, small

    def run(self, x):
        def pool(x, window=3):
            return max_pool2d(x, window, 2, ceil_mode=True)

        x = self.norm(pool(torch.relu(self.conv1(x))))
        x = self.norm(torch.relu(self.conv3(torch.relu(self.conv2(x)))))
        x = x if self.small else pool(x)
        x = pool(self.inception3b(self.inception3a(x)))
        first = self.inception4a(x)
        second = self.inception4d(self.inception4c(self.inception4b(first)))
        x = pool(self.inception4e(second), self.last_window)
        x = self.inception5b(self.inception5a(x))
        return self.fc(x.mean((2, 3))), lambda: [self.aux1(first), self.aux2(second)]

    def forward(self, x):
        return self.run(x)[0]

    def with_heads(self, x):
        scores, heads = self.run(x)
        return scores, heads()


class Branches(nn.Module):
    """Chains of units by name, side by side; a chain may begin with a pool and end in two units side by side."""

    def __init__(self, inputs, chains, pools):
        super().__init__()
        self.chains, self.pools, self.width = chains, pools, 0
        for chain in chains:
            channels = inputs
            for step in chain:
                fork = step if isinstance(step, list) else [step]
                for name, outputs, *geometry in fork:
                    if name:
                        self.add_module(name, Unit(channels, outputs, *geometry))
                channels = sum(outputs or channels for _, outputs, *_ in fork)
            self.width += channels

    def forward(self, x):
        results = []
        for chain in self.chains:
            y = x
            for step in chain:
                fork = step if isinstance(step, list) else [step]
                parts = [getattr(self, name)(y) if name else self.pools(y) for name, *_ in fork]
                y = torch.cat(parts, 1)
            results.append(y)
        return torch.cat(results, 1)


def mean3(x):
    return avg_pool2d(x, 3, 1, 1)


def max3(x):
    return max_pool2d(x, 3, 2)


POOL = ("", 0)


class InceptionHead(nn.Module):
    def __init__(self, inputs, classes, c):
        super().__init__()
        self.conv0, self.conv1 = Unit(inputs, c(128), 1), Unit(c(128), c(768), 5)
        self.fc = nn.Linear(c(768), classes)

    def forward(self, x):
        return self.fc(self.conv1(self.conv0(avg_pool2d(x, 5, 3))).mean((2, 3)))


class InceptionV3(nn.Module):
    """Channels are the paper's times `width`."""

    def __init__(self, classes, width, aux):
        super().__init__()

        def c(channels):
            return max(1, round(channels * width))

        self.Conv2d_1a_3x3 = Unit(3, c(32), 3, 2)
        self.Conv2d_2a_3x3 = Unit(c(32), c(32), 3)
        self.Conv2d_2b_3x3 = Unit(c(32), c(64), 3, 1, 1)
        self.Conv2d_3b_1x1 = Unit(c(64), c(80), 1)
        self.Conv2d_4a_3x3 = Unit(c(80), c(192), 3)
        row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        channels = c(192)
        self.names = []

        def add(name, chains, pools):
            nonlocal channels
            module = Branches(channels, chains, pools)
            self.add_module(name, module)
            self.names.append(name)
            channels = module.width

        def double(last):
            return [
                ("branch3x3dbl_1", c(64), 1),
                ("branch3x3dbl_2", c(96), 3, 1, 1),
                ("branch3x3dbl_3", c(96), 3, *last),
            ]

        for name, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
            one, five = [("branch1x1", c(64), 1)], [("branch5x5_1", c(48), 1), ("branch5x5_2", c(64), 5, 1, 2)]
            add(f"Mixed_{name}", [one, five, double((1, 1)), [POOL, ("branch_pool", c(pool), 1)]], mean3)
        add("Mixed_6a", [[("branch3x3", c(384), 3, 2)], double((2,)), [POOL]], max3)
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            short = [("1", c(inner), 1), ("2", c(inner), *row), ("3", c(192), *column)]
            long = [("1", c(inner), 1), ("2", c(inner), *column), ("3", c(inner), *row), ("4", c(inner), *column)]
            long.append(("5", c(192), *row))
            chains = [
                [("branch1x1", c(192), 1)],
                [("branch7x7_" + step[0], *step[1:]) for step in short],
                [("branch7x7dbl_" + step[0], *step[1:]) for step in long],
                [POOL, ("branch_pool", c(192), 1)],
            ]
            add(f"Mixed_{name}", chains, mean3)
        self.AuxLogits = InceptionHead(channels, classes, c) if aux else None
        seven = [("1", c(192), 1), ("2", c(192), *row), ("3", c(192), *column), ("4", c(192), 3, 2)]
        chains = [
            [("branch3x3_1", c(192), 1), ("branch3x3_2", c(320), 3, 2)],
            [("branch7x7x3_" + step[0], *step[1:]) for step in seven],
            [POOL],
        ]
        add("Mixed_7a", chains, max3)
        for name in ("7b", "7c"):

            def fork(prefix):
                return [(prefix + "a", c(384), (1, 3), 1, (0, 1)), (prefix + "b", c(384), (3, 1), 1, (1, 0))]

            chains = [
                [("branch1x1", c(320), 1)],
                [("branch3x3_1", c(384), 1), fork("branch3x3_2")],
                [("branch3x3dbl_1", c(448), 1), ("branch3x3dbl_2", c(384), 3, 1, 1), fork("branch3x3dbl_3")],
                [POOL, ("branch_pool", c(192), 1)],
            ]
            add(f"Mixed_{name}", chains, mean3)
        self.fc = nn.Linear(channels, classes)

    def run(self, x):
        x = max3(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = max3(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name in self.names:
            x = getattr(self, name)(x)
            if name == "Mixed_6e":
                inner = x
        return self.fc(x.mean((2, 3))), lambda: [self.AuxLogits(inner)]

    def forward(self, x):
        return self.run(x)[0]

    def with_heads(self, x):
        scores, heads = self.run(x)
        return scores, heads()
