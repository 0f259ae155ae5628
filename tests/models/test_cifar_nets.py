"""The generations cut down for small images: their sizes, and the same numbers as PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc

SIZES = {
    "cifar_alexnet": (397_770, 23_610_880),
    "cifar_vgg": (288_746, 38_634_752),
    "cifar_googlenet": (261_850, 38_570_176),
    "cifar_resnext": (359_898, 56_674_816),
    "cifar_speed": (1_972_792, 118_147_360),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_that_the_comparison_relies_on(name):
    net = pc.models.create(name)
    table = net.summary().to_dict()
    assert (net.num_parameters, table["macs"]) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
def test_classes_channels_and_size_are_free(name):
    net = pc.models.create(name, num_classes=3, input_shape=(24, 20, 1))
    assert net(np.zeros((2, 24, 20, 1), np.uint8)).shape == (2, 3)
    with pytest.raises(pc.ArgumentError, match=f"{name}: num_classes"):
        pc.models.create(name, num_classes=0)
    with pytest.raises(pc.ArgumentError, match=f"{name}: input_shape"):
        pc.models.create(name, input_shape=(32, 32))


def test_groups_must_divide_the_width():
    with pytest.raises(pc.ArgumentError, match="cardinality must divide 32, got 5"):
        pc.models.cifar_resnext(cardinality=5)
    assert pc.models.cifar_resnext(cardinality=32).num_parameters < pc.models.cifar_resnext().num_parameters


# ---- The same numbers as PyTorch


def twin(name, torch):
    """The network written with PyTorch's layers, under the same names."""
    t = torch.nn

    class Inception(t.Module):
        def __init__(self, width, unit):
            super().__init__()

            def basic(a, b, size):
                part = t.Module()
                part.conv = t.Conv2d(a, b, size, padding=size // 2, bias=False)
                part.bn = t.BatchNorm2d(b, eps=1e-3)
                part.forward = lambda x: torch.relu(part.bn(part.conv(x)))
                return part

            self.branch1 = basic(width, 2 * unit, 1)
            self.branch2 = t.Sequential(basic(width, 2 * unit, 1), basic(2 * unit, 3 * unit, 3))
            self.branch3 = t.Sequential(basic(width, unit // 2, 1), basic(unit // 2, unit, 5))
            self.branch4 = t.Sequential(t.MaxPool2d(3, 1, 1), basic(width, unit, 1))

        def forward(self, x):
            return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    class Bottleneck(t.Module):
        def __init__(self, width, channels, stride):
            super().__init__()
            inner = 2 * channels
            self.conv1, self.bn1 = t.Conv2d(width, inner, 1, bias=False), t.BatchNorm2d(inner)
            self.conv2 = t.Conv2d(inner, inner, 3, stride, 1, groups=8, bias=False)
            self.bn2 = t.BatchNorm2d(inner)
            self.conv3, self.bn3 = t.Conv2d(inner, 4 * channels, 1, bias=False), t.BatchNorm2d(4 * channels)
            self.downsample = None
            if stride != 1 or width != 4 * channels:
                self.downsample = t.Sequential(
                    t.Conv2d(width, 4 * channels, 1, stride, bias=False), t.BatchNorm2d(4 * channels)
                )

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Pool(t.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    def pool_head(width):
        return t.Sequential(Pool(), t.Linear(width, 10))

    class Speed(t.Module):
        def __init__(self, before, channels):
            super().__init__()
            self.conv1 = t.Conv2d(before, channels, 3, padding=1, bias=False)
            self.conv2 = t.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm1, self.norm2 = (t.BatchNorm2d(channels, momentum=0.4) for _ in range(2))

        def forward(self, x):
            x = t.functional.gelu(self.norm1(t.functional.max_pool2d(self.conv1(x), 2)))
            return t.functional.gelu(self.norm2(self.conv2(x)))

    if name == "cifar_speed":
        net = t.Module()
        net.conv1 = t.Conv2d(3, 24, 2)
        net.layer1, net.layer2, net.layer3 = Speed(24, 64), Speed(64, 256), Speed(256, 256)
        net.fc = t.Linear(256, 10, bias=False)
        net.forward = lambda x: (
            net.fc(net.layer3(net.layer2(net.layer1(t.functional.gelu(net.conv1(x))))).amax((2, 3))) / 9
        )
        return net.double()
    if name == "cifar_alexnet":
        steps = []
        for channels, before, size in ((32, 3, 5), (64, 32, 5)):
            steps += [t.Conv2d(before, channels, size, padding=2), t.ReLU(), t.MaxPool2d(3, 2)]
            steps += [t.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)]
        for channels, before in ((96, 64), (96, 96), (64, 96)):
            steps += [t.Conv2d(before, channels, 3, padding=1), t.ReLU()]
        body = t.Sequential(*steps, t.MaxPool2d(3, 2))
        head = t.Sequential(
            t.Flatten(), t.Dropout(0.0), t.Linear(576, 256), t.ReLU(), t.Dropout(0.0), t.Linear(256, 10)
        )
    elif name == "cifar_vgg":
        steps, width = [], 3
        for stage, channels in enumerate((32, 64, 128)):
            steps += [t.MaxPool2d(2)] if stage else []
            for _ in range(2):
                steps += [t.Conv2d(width, channels, 3, padding=1, bias=False), t.BatchNorm2d(channels), t.ReLU()]
                width = channels
        body, head = t.Sequential(*steps), pool_head(128)
    elif name == "cifar_googlenet":
        steps, width = [t.Conv2d(3, 32, 3, padding=1, bias=False), t.BatchNorm2d(32), t.ReLU()], 32
        for stage, unit in enumerate((8, 16, 32)):
            steps += [t.MaxPool2d(3, 2, 1)] if stage else []
            for _ in range(2):
                steps.append(Inception(width, unit))
                width = 7 * unit
        body, head = t.Sequential(*steps), pool_head(width)
    else:
        steps, width = [t.Conv2d(3, 16, 3, padding=1, bias=False), t.BatchNorm2d(16), t.ReLU()], 16
        for stage in range(3):
            for index in range(3):
                steps.append(Bottleneck(width, 16 * 2**stage, 2 if stage and not index else 1))
                width = 64 * 2**stage
        body, head = t.Sequential(*steps), pool_head(width)
    net = t.Module()
    net.body, net.head = body, head
    net.forward = lambda x: head(body(x))
    return net.double()


@pytest.mark.interop
@pytest.mark.parametrize("name", SIZES)
def test_scores_and_gradients_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    options = {"dropout": 0.0} if name == "cifar_alexnet" else {}
    net = pc.models.create(name, **options)
    state = net.state_dict()
    theirs = twin(name, torch)
    theirs.load_state_dict({k: torch.from_numpy(v.astype(np.float64)) for k, v in state.items()}, strict=False)
    missing = set(dict(theirs.named_parameters())) - set(state)
    assert not missing
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 32, 32, 3), np.float32), rng.integers(0, 10, 6)
    inputs = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64))

    theirs.eval()
    with torch.no_grad():
        expected = theirs.forward(inputs).numpy()
    # Rounding grows with the depth: some units for each of up to 29 layers in a row.
    scale = np.abs(expected).max()
    tolerances.assert_within(net(x), expected, 30 * 12 * tolerances.unit() * scale, name)

    true = gradients(torch, twin(name, torch), state, x, y)
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=1.0))
    assert trainer.step(x, y)["loss"] == pytest.approx(true.pop("loss"), rel=1e-4)
    after = net.state_dict()
    for key, expected in true.items():
        found = state[key].astype(np.float64) - after[key]
        # Subtraction leaves the rounding of the weights.
        bound = 4 * tolerances.unit() * max(np.abs(state[key]).max(), 1.0) * np.sqrt(expected.size)
        bound += tolerances.KINKS * np.linalg.norm(expected)
        assert np.linalg.norm(found - expected) <= bound, key


def gradients(torch, net, state, x, y):
    """The loss of a training step and its gradients, by name."""
    net.load_state_dict({k: torch.from_numpy(v).double() for k, v in state.items()}, strict=False)
    net.train()
    scores = net.forward(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).double())
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))
    loss.backward()
    return {"loss": loss.item()} | {k: p.grad.numpy() for k, p in net.named_parameters()}
