"""Networks of PyTorch as nets here: the same results, gradients and statistics, or an error that names the node."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
import tolerances

torch = pytest.importorskip("torch")

import pycnn  # noqa: E402
from pycnn import functional, nn  # noqa: E402

T, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.interop


def randomize(module, seed=0):
    """Weights that float32 holds, and running statistics that a trained net could have."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                drawn = rng.standard_normal(tuple(tensor.shape)) * np.sqrt(
                    1 / max(1, tensor[0].numel() if tensor.ndim else 1)
                )
                if name.endswith("running_var"):
                    drawn = abs(drawn) + 0.5
                tensor.copy_(torch.from_numpy(drawn.astype(np.float32)))
    return module


def images(shape, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(dtype)


def agree(found, expected, what, dtype=np.float64, length=10**4):
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    tolerances.assert_within(found, expected, tolerances.sum_bound(largest, length, dtype), what)


def compare(module, shape, *, training=True, both_layouts=False, length=10**4, backward=np.float64):
    """Predictions in both precisions, and value and gradients of a training step in float64."""
    twin = randomize(copy.deepcopy(module)).double()
    net = pycnn.from_torch(twin.train(), shape)
    assert all(part.training for part in twin.modules())
    x = images(shape)
    with torch.no_grad():
        expected = twin.eval()(torch.from_numpy(x)).numpy()
    agree(pycnn.compile(net, shape, dtype="float64")(x), expected, "float64", length=length)
    agree(net(x.astype(np.float32)), expected, "float32", np.float32, length=length)
    if both_layouts:
        last = pycnn.from_torch(twin, shape, input_layout="NHWC")
        rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        agree(pycnn.compile(last, rows.shape, dtype="float64")(rows), expected, "NHWC", length=length)
    if not training:
        return net
    weights = images(expected.shape, seed=2)
    inputs = torch.from_numpy(x).requires_grad_()
    loss = (twin.train()(inputs) * torch.from_numpy(weights)).sum()
    loss.backward()
    value, (gradient, by_name) = pycnn.value_and_grad(
        lambda s, w: functional.sum(net(s) * w), parameters=(), training=True
    )(x, weights)
    agree(value, loss.item(), "loss", length=length * 100)
    agree(gradient, inputs.grad.numpy(), "gradient of the images", backward, length=length * 100)
    wanted = {name: p.grad.numpy() for name, p in twin.named_parameters() if p.grad is not None}
    assert set(by_name) == set(wanted)
    for name, want in wanted.items():
        # Given in memory layout.
        channels_last = dict(net.named_parameters())[name].layout == "conv"
        got = by_name[name].transpose(0, 3, 1, 2) if channels_last else by_name[name]
        agree(got, want, f"gradient of {name}", backward, length=length * 100)
    return net


class Apply(T.Module):
    """A function as a module."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers = T.ModuleList(layers)
        self.function = function

    def forward(self, x):
        return self.function(x, *self.layers)


LAYERS = {
    "conv": (T.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 9, 7)),
    "conv_groups": (T.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (2, 4, 5, 7)),
    "conv_depthwise": (T.Conv2d(5, 5, 5, padding=2, groups=5), (2, 5, 7, 6)),
    "conv_same": (T.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 7, 8)),
    "conv_valid": (T.Conv2d(3, 4, 2, padding="valid"), (2, 3, 5, 6)),
    "conv_reflect": (T.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 6)),
    "conv1d": (T.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 11)),
    "conv_transpose": (T.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5, 3)),
    "batch_norm": (T.BatchNorm2d(5, eps=1e-3, momentum=0.2), (3, 5, 4, 3)),
    "batch_norm_plain": (T.BatchNorm2d(5, affine=False), (3, 5, 4, 3)),
    "group_norm": (T.GroupNorm(2, 6), (2, 6, 5, 3)),
    "instance_norm": (T.InstanceNorm2d(4), (2, 4, 5, 3)),
    "instance_norm_affine": (T.InstanceNorm2d(4, affine=True), (2, 4, 5, 3)),
    "layer_norm": (T.LayerNorm((5, 3)), (2, 4, 5, 3)),
    "lrn": (T.LocalResponseNorm(5, alpha=1e-2, beta=0.6, k=2.0), (2, 7, 3, 4)),
    "lrn_even": (T.LocalResponseNorm(4, alpha=1e-2), (2, 7, 3, 4)),
    "max_pool": (T.MaxPool2d(3, stride=2, padding=1), (2, 3, 8, 7)),
    "max_pool_ceil": (T.MaxPool2d((3, 2), stride=2, dilation=(1, 2), ceil_mode=True), (2, 3, 8, 9)),
    "avg_pool": (T.AvgPool2d(3, stride=2, padding=1), (2, 3, 8, 7)),
    "avg_pool_ceil": (T.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (2, 3, 8, 7)),
    "avg_pool_ceil_pad": (T.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 3, 8, 7)),
    "avg_pool_divisor": (T.AvgPool2d(2, divisor_override=3), (2, 3, 6, 7)),
    "adaptive_avg_1": (T.AdaptiveAvgPool2d(1), (2, 3, 5, 7)),
    "adaptive_avg": (T.AdaptiveAvgPool2d((3, 4)), (2, 3, 5, 7)),
    "adaptive_max": (T.AdaptiveMaxPool2d((2, 3)), (2, 3, 4, 9)),
    "adaptive_max_1": (T.AdaptiveMaxPool2d(1), (2, 3, 4, 9)),
    "max_pool1d": (T.MaxPool1d(3, stride=2, padding=1), (2, 3, 9)),
    "linear": (T.Linear(7, 4), (3, 7)),
    "linear_rows": (T.Linear(5, 4, bias=False), (2, 3, 5)),
    "flatten": (T.Sequential(T.Flatten(), T.Linear(3 * 4 * 5, 6)), (2, 3, 4, 5)),
    "unflatten": (T.Sequential(T.Linear(7, 12), T.Unflatten(1, (3, 2, 2)), T.Conv2d(3, 2, 1)), (2, 7)),
    "upsample": (T.Upsample(scale_factor=2), (2, 3, 4, 5)),
    "upsample_odd": (T.Upsample(scale_factor=1.7), (2, 3, 4, 5)),
    "upsample_exact": (T.Upsample(size=(7, 3), mode="nearest-exact"), (2, 3, 4, 5)),
    "upsample_bilinear": (T.Upsample(scale_factor=1.5, mode="bilinear"), (2, 3, 4, 5)),
    "upsample_corners": (T.Upsample(size=(7, 3), mode="bilinear", align_corners=True), (2, 3, 4, 5)),
    "pad": (Apply(lambda x: F.pad(x, (1, 0, 2, 3), value=0.5)), (2, 3, 4, 5)),
    "pad_negative": (Apply(lambda x: F.pad(x, (-1, 0, 2, -1))), (2, 3, 4, 5)),
    "reflect": (T.ReflectionPad2d((1, 2, 0, 1)), (2, 3, 4, 5)),
    "replicate": (T.ReplicationPad2d(2), (2, 3, 4, 5)),
    "zero_pad": (T.ZeroPad2d(1), (2, 3, 4, 5)),
    "pixel_shuffle": (T.PixelShuffle(2), (2, 8, 3, 4)),
    "pixel_unshuffle": (T.PixelUnshuffle(2), (2, 2, 4, 6)),
    "channel_shuffle": (T.ChannelShuffle(3), (2, 6, 3, 4)),
    "softmax": (T.Softmax(dim=1), (3, 5)),
    "softmax_images": (T.Softmax(dim=1), (2, 5, 3, 2)),
    "log_softmax": (T.LogSoftmax(dim=-1), (3, 5)),
    "conv3d": (T.Conv3d(3, 4, (2, 3, 3), stride=(1, 2, 1), padding=(1, 0, 1), groups=1), (2, 3, 4, 5, 6)),
    "conv3d_same": (T.Conv3d(2, 4, (2, 3, 2), padding="same", groups=2), (2, 2, 3, 4, 5)),
    "conv_transpose3d": (T.ConvTranspose3d(2, 3, (2, 3, 2), stride=2, output_padding=1), (2, 2, 2, 3, 3)),
    "volumes": (T.Sequential(T.BatchNorm3d(3), T.MaxPool3d(2, padding=1), T.AvgPool3d((1, 2, 2))), (2, 3, 4, 5, 6)),
    "adaptive_3d": (T.Sequential(T.AdaptiveAvgPool3d((2, 1, 3)), T.AdaptiveMaxPool3d(1)), (2, 3, 4, 5, 6)),
    "glu": (T.GLU(1), (2, 6, 3, 4)),
    "lp_pool": (T.LPPool2d(2, (2, 3), stride=1), (2, 3, 5, 6)),
    "lp_pool1d": (T.LPPool1d(2, 3), (2, 3, 9)),
    "upsample_bicubic": (T.Upsample(size=(9, 4), mode="bicubic"), (2, 3, 5, 6)),
    "upsample_linear": (T.Upsample(scale_factor=2.0, mode="linear"), (2, 3, 5)),
    "upsample_rows": (T.Upsample(size=7), (2, 3, 4)),
    "attention": (
        Apply(lambda x, a: a(x, x, x, need_weights=False)[0], T.MultiheadAttention(8, 2, batch_first=True)),
        (3, 5, 8),
    ),
    "attention_weights": (
        Apply(lambda x, a: sum(y.sum((1, 2)) for y in a(x, x, x)), T.MultiheadAttention(8, 2, batch_first=True)),
        (3, 5, 8),
    ),
    "shrinks": (T.Sequential(T.Softshrink(0.25), T.Tanhshrink(), T.Hardshrink(2**-8), T.LogSigmoid()), (2, 3, 4)),
    "dropout2d": (T.Sequential(T.Conv2d(2, 3, 1), T.Dropout2d(0.0)), (2, 2, 3, 3)),
    "identity": (T.Sequential(T.Identity(), T.Conv2d(2, 3, 1), T.Identity()), (2, 2, 3, 3)),
}
ACTIVATIONS = [
    T.ReLU(), T.ReLU6(), T.Sigmoid(), T.Tanh(), T.LeakyReLU(0.2), T.ELU(0.7), T.SELU(), T.GELU(),
    T.GELU(approximate="tanh"), T.SiLU(), T.Mish(), T.Hardswish(), T.Hardtanh(-0.5, 0.8), T.Softplus(2.0),
    T.Softsign(), T.PReLU(), T.Threshold(0.1, -0.3),
]  # fmt: skip
FUNCTIONS = {
    "arithmetic": lambda x: (2 * x - 1) / 3 + (1 - x) * x - 0.5 * (x / (x * x + 2)),
    "alpha": lambda x: torch.add(x, x * x, alpha=0.3) + torch.sub(1.0, x, alpha=2) + torch.rsub(x, 3.0),
    "functions": lambda x: torch.exp(-x.abs()) + (x.square() + 1).sqrt() + torch.log(x**2 + 2) + torch.rsqrt(x * x + 1),
    "clamps": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp_max(0.2) + x.erf() * (x * x + 1).reciprocal(),
    "maxima": lambda x: torch.maximum(x, x * 0.5) - torch.minimum(x, 1 - x),
    "means": lambda x: x.mean((2, 3)) + x.amax((2, 3)) + x.sum((-1, 2)) + x.mean(3).amin(2) + x.max(3)[0].sum(2),
    "pieces": lambda x: torch.cat([x[:, 1:3], x[:, :, 1:, ::2].mean((2, 3), keepdim=True).expand(-1, 4, 4, 5)], 1),
    "chunks": lambda x: torch.cat([part * (i + 1) for i, part in enumerate(x.chunk(3, 1))], 1),
    "splits": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "stacks": lambda x: torch.stack([x, x * 2], 2).flatten(1, 2).mean((2, 3)) + x[:, 0].mean((1, 2)).unsqueeze(1),
    "unbinds": lambda x: sum(part * (i + 1) for i, part in enumerate(x.unbind(1))).unsqueeze(1).squeeze(1),
    "moves": lambda x: x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1, 4).transpose(1, 2).mean(2),
    "numbers": lambda x: x * torch.arange(4.0).view(1, 4, 1, 1).to(x) + torch.ones(5).to(x),
    "repeats": lambda x: x.repeat(1, 2, 1, 3)[..., :5] + x.repeat_interleave(2, 1) + torch.tile(x, (2, 1, 1)),
    "turns": lambda x: x.flip(1, 3) * 2 - x.roll((1, 2), (2, 3)) + x.movedim(1, 3).swapaxes(1, 3).transpose(2, 3),
    "indices": lambda x: x[:, [2, 0, 0]].mean((1, 2)) + x[:, :, torch.tensor([[0, -1], [2, 1]])].amax((1, 2, 3)),
    "selected": lambda x: torch.index_select(x, 3, torch.tensor([1, 4])) + x[:, 0][:, None, :, [-1, 2]],
    "chosen": lambda x: torch.where(x > 0.25, x * 2, 0.5) + x.masked_fill(x.le(-0.5) | (x.abs() >= 1.5), 0.125),
    "truth": lambda x: x * (x != 0.25) + (x < 0).float() - x.sign() * ~(x == x.amax(1, keepdim=True)),
    "spread": lambda x: x.var((2, 3)) + x.std(1).sum(2) + x.var(dim=(1, 2, 3), correction=0, keepdim=True).flatten(1),
    "norms": lambda x: F.normalize(x, dim=1).sum(3) + x.norm(dim=3) + torch.logsumexp(x, 3) + x.norm(p=1, dim=3),
    "products": lambda x: torch.bmm(x[:, 0, :, :4], torch.baddbmm(x[:, 1], x[:, 2, :, :4], x[:, 3], beta=2, alpha=0.5)),
    "einsum": lambda x: torch.einsum("nchw,ncvw->nhv", x, x / 2) + torch.einsum("nchw,ncd->ndh", x, x[..., 0]),
    "scaled": lambda x: F.scaled_dot_product_attention(x, x * 0.5, x, is_causal=True),
    "likes": lambda x: torch.zeros_like(x) + torch.full_like(x, 2.0) * x - torch.ones_like(x[:, :1]).expand_as(x),
    "attention": lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_agree_forward_and_backward(name):
    module, shape = LAYERS[name]
    compare(module, shape, both_layouts=name in ("conv", "flatten", "upsample_bilinear"))


@pytest.mark.parametrize(
    ("layers", "backward"),
    # PyTorch's gradients of the second kind have a constant in float32.
    [(ACTIVATIONS, np.float64), ([T.CELU(0.6), T.Hardsigmoid()], np.float32)],
)
def test_activations_agree_forward_and_backward(layers, backward):
    class All(T.Module):
        def __init__(self):
            super().__init__()
            self.each = T.ModuleList(layers)

        def forward(self, x):
            return torch.cat([layer(x) for layer in self.each], 1)

    compare(All(), (2, 3, 4, 5), backward=backward)


def test_functions_agree_forward_and_backward():
    class All(T.Module):
        def forward(self, x):
            return torch.cat([f(x).flatten(1) for f in FUNCTIONS.values()], 1)

    compare(All(), (2, 4, 4, 5))


# ---- Networks


class Basic(T.Module):
    def __init__(self, c, out, stride=1):
        super().__init__()
        self.conv1 = T.Conv2d(c, out, 3, stride, 1, bias=False)
        self.bn1 = T.BatchNorm2d(out)
        self.relu = T.ReLU(inplace=True)
        self.conv2 = T.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = T.BatchNorm2d(out)
        self.downsample = T.Sequential(T.Conv2d(c, out, 1, stride, bias=False), T.BatchNorm2d(out))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Bottleneck(T.Module):
    def __init__(self, c, width, groups):
        super().__init__()
        self.body = T.Sequential(
            T.Conv2d(c, width, 1, bias=False), T.BatchNorm2d(width), T.ReLU(True),
            T.Conv2d(width, width, 3, padding=1, groups=groups, bias=False), T.BatchNorm2d(width), T.ReLU(True),
            T.Conv2d(width, c, 1, bias=False), T.BatchNorm2d(c),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(self.body(x) + x, inplace=True)


class Resnet(T.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = T.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = T.BatchNorm2d(8)
        self.relu = T.ReLU(inplace=True)
        self.maxpool = T.MaxPool2d(3, 2, 1)
        self.layer1 = T.Sequential(Basic(8, 8), Bottleneck(8, 4, 2))
        self.layer2 = T.Sequential(Basic(8, 12, 2))
        self.avgpool = T.AdaptiveAvgPool2d((1, 1))
        self.fc = T.Linear(12, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Inception(T.Module):
    def __init__(self):
        super().__init__()
        self.branch1 = T.Conv2d(3, 4, 1)
        self.branch2 = T.Sequential(T.Conv2d(3, 2, 1), T.ReLU(), T.Conv2d(2, 5, 3, padding=1))
        self.branch3 = T.Sequential(T.Conv2d(3, 2, (1, 5), padding=(0, 2)), T.Conv2d(2, 3, (5, 1), padding=(2, 0)))
        self.branch4 = T.Sequential(T.MaxPool2d(3, 1, 1, ceil_mode=True), T.Conv2d(3, 2, 1))
        self.lrn = T.LocalResponseNorm(3)
        self.fc = T.Linear(14, 4)

    def forward(self, x):
        x = self.lrn(F.relu(torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)))
        return self.fc(F.avg_pool2d(x, x.shape[-1]).view(x.shape[0], -1))


class Dense(T.Module):
    def __init__(self):
        super().__init__()
        self.features = T.ModuleList(
            T.Sequential(T.BatchNorm2d(3 + 2 * i), T.ReLU(), T.Conv2d(3 + 2 * i, 2, 3, padding=1)) for i in range(3)
        )
        self.classifier = T.Linear(9, 4)

    def forward(self, x):
        known = [x]
        for layer in self.features:
            known.append(layer(torch.cat(known, 1)))
        return self.classifier(torch.cat(known, 1).mean([2, 3]))


class Mobile(T.Module):
    """Inverted residuals with squeeze and excitation, a learned scale of layers, shared weights."""

    def __init__(self):
        super().__init__()
        self.expand = T.Sequential(T.Conv2d(3, 8, 1, bias=False), T.BatchNorm2d(8), T.ReLU6(inplace=True))
        self.depth = T.Sequential(T.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), T.BatchNorm2d(8), T.Hardswish())
        self.squeeze = T.Sequential(T.AdaptiveAvgPool2d(1), T.Conv2d(8, 2, 1), T.SiLU(), T.Conv2d(2, 8, 1), T.Sigmoid())
        self.project = T.Conv2d(8, 3, 1)
        self.gamma = T.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.ones(1, 3, 1, 1))
        self.drop = T.Dropout(0.0)

    def forward(self, x):
        x = x - self.mean
        for _ in range(2):
            y = self.depth(self.expand(x))
            x = x + self.gamma * self.project(y * self.squeeze(y))
        return self.drop(x.flatten(2).mean(2))


@pytest.mark.parametrize("kind", [Resnet, Inception, Dense, Mobile])
def test_networks_agree_forward_and_backward_and_keep_their_names(kind):
    module = randomize(kind())
    net = compare(module, (4, 3, 17, 17), both_layouts=True, length=10**7)
    expected = {n: tuple(t.shape) for n, t in module.state_dict().items() if n != "mean" and "num_batches" not in n}
    assert {name: array.shape for name, array in net.state_dict().items()} == expected
    net.load_state_dict({n: t for n, t in module.state_dict().items() if n != "mean"})
    x = images((2, 3, 17, 17), dtype=np.float32)
    with torch.no_grad():
        agree(net(torch.from_numpy(x)), module.eval()(torch.from_numpy(x)).numpy(), "loaded", np.float32, length=10**7)


def test_a_training_step_moves_weights_and_statistics_as_torch_does():
    module = randomize(Resnet())
    net = pycnn.from_torch(module, torch.zeros(2, 3, 21, 19), input_layout="NHWC")
    x, y = images((6, 3, 21, 19), dtype=np.float32), np.array([0, 1, 2, 3, 4, 0])
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.05, momentum=0.9))
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
        trainer.step(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y)
    for name, tensor in module.state_dict().items():
        if "num_batches" not in name:
            agree(net.state_dict()[name], tensor.numpy(), name, np.float32, length=10**7)


def test_what_is_frozen_stays_frozen_and_dropout_acts_in_training_only(tmp_path):
    module = T.Sequential(T.Conv2d(3, 4, 3), T.BatchNorm2d(4), T.Dropout(0.5), T.Flatten(), T.Linear(36, 3))
    module[0].weight.requires_grad_(False)
    module.train()
    module[1].eval()
    net = pycnn.from_torch(module, (1, 3, 5, 5))
    assert {name for name, p in net.named_parameters() if not p.trainable} == {"0.weight"}
    assert {name for name, p in net.named_buffers() if p.frozen} == {"1.running_mean", "1.running_var"}
    assert [part.training for part in module] == [True, False, True, True, True]
    x = images((8, 3, 5, 5), dtype=np.float32)
    before = net.state_dict()
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.1), seed=0)
    first = trainer.step(x, np.arange(8) % 3)["loss"]
    assert first != pytest.approx(
        float(functional.cross_entropy(pycnn.from_torch(module, (1, 3, 5, 5))(x), np.arange(8) % 3))
    )
    changed = {name for name, value in net.state_dict().items() if not np.array_equal(value, before[name])}
    assert changed == {"0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    np.testing.assert_array_equal(net(x), net(x))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(x), net(x))
    net.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(pycnn.load(tmp_path / "net.safetensors")(x), net(x))


def test_shared_weights_stay_shared_and_computed_ones_become_weights():
    shared = T.Linear(5, 5)
    net = pycnn.from_torch(T.Sequential(shared, T.Tanh(), shared), (1, 5))
    assert set(net.state_dict()) == {"0.weight", "0.bias"}
    x = images((3, 5), dtype=np.float32)
    agree(net(x), T.Sequential(shared, T.Tanh(), shared)(torch.from_numpy(x)).detach().numpy(), "shared", np.float32)
    normed = torch.nn.utils.parametrizations.weight_norm(T.Conv2d(2, 3, 3))
    net = pycnn.from_torch(normed, (1, 2, 5, 5))
    assert len(list(net.parameters())) == 2
    x = images((3, 2, 5, 5), dtype=np.float32)
    agree(net(x), normed(torch.from_numpy(x)).detach().numpy(), "computed", np.float32)


def test_a_head_for_other_classes_takes_the_place_of_the_old_one():
    module = randomize(T.Sequential(T.Conv2d(3, 4, 3), T.ReLU(), T.Flatten(), T.Linear(36, 5)))
    net = pycnn.from_torch(module, (1, 3, 5, 5))
    assert nn.replace_head(net, 2) == ("3.weight", "3.bias")
    assert {name: array.shape for name, array in net.state_dict().items()} == {
        "0.weight": (4, 3, 3, 3), "0.bias": (4,), "3.weight": (2, 36), "3.bias": (2,)
    }  # fmt: skip
    module[3] = T.Linear(36, 2)
    net.load_state_dict({name: tensor.detach() for name, tensor in module.state_dict().items()})
    x = images((3, 3, 5, 5), dtype=np.float32)
    for other in (net, pickle.loads(pickle.dumps(net))):
        agree(other(x), module(torch.from_numpy(x)).detach().numpy(), "head", np.float32)
    before = net.state_dict()["3.weight"]
    pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.1)).step(x, np.array([0, 1, 1]))
    assert not np.array_equal(net.state_dict()["3.weight"], before)


def test_several_inputs_and_results_keep_their_form():
    class Two(T.Module):
        def forward(self, a, b):
            return {"sum": a + b, "parts": a * b}

    a, b = images((2, 3), dtype=np.float32), images((2, 3), seed=5, dtype=np.float32)
    found = pycnn.from_torch(Two(), (torch.zeros(1, 3), torch.zeros(1, 3)))(a, b)
    np.testing.assert_array_equal(found["sum"], a + b)
    np.testing.assert_array_equal(found["parts"], a * b)
    pair = pycnn.from_torch(Apply(lambda x: (x, x * 2)), (1, 3))(a)
    assert isinstance(pair, tuple)
    np.testing.assert_array_equal(pair[1], a * 2)


# ---- In place


def test_changes_in_place_are_seen_by_all_names_of_the_tensor():
    def names(x, conv):
        y = conv(x)
        z = y
        y.relu_()
        y.mul_(2).add_(1)
        return z + y

    compare(Apply(names, T.Conv2d(3, 2, 1)), (2, 3, 4, 5), training=False)


def test_a_view_that_would_see_a_change_in_place_is_refused():
    def view(x, conv):
        y = conv(x)
        part = y[:, :1]
        y.relu_()
        return y + part

    with pytest.raises(
        pycnn.UnsupportedError, match=r"aten.relu_.default.*another view that is read later(.|\n)*inplace"
    ):
        pycnn.from_torch(Apply(view, T.Conv2d(3, 2, 1)), (2, 3, 4, 5))


# ---- The number of images


def test_numbers_that_do_not_follow_from_the_number_of_images_are_kept():
    def count(x):
        rows = x.view(x.size(0), 2, -1) * 13 + 0.0625
        wide = rows.mean(2, keepdim=True).expand(x.size(0), 2, 13)
        return wide + torch.arange(13.0)

    compare(Apply(count), (3, 4, 4, 5), training=False)


# ---- Refusals


class Named(T.Module):
    def __init__(self, part):
        super().__init__()
        self.block = T.Sequential(T.Conv2d(3, 4, 3), part)

    def forward(self, x):
        return self.block(x)


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        (
            T.FeatureAlphaDropout(),
            pycnn.UnsupportedError,
            r"node 'block.1' \(aten.feature_alpha_dropout.default\): the operator is not supported",
        ),
        (Apply(lambda x: x[:, x.amax((0, 2, 3)).long()]), pycnn.UnsupportedError, "to torch.int64 is not supported"),
        (Apply(lambda x: torch.einsum("nii->ni", x[:, 0])), pycnn.UnsupportedError, "each label once"),
        (T.RReLU(), pycnn.UnsupportedError, "block.1.*rrelu"),
        (T.BatchNorm2d(4, track_running_stats=False), pycnn.UnsupportedError, "block.1.*statistics of the batch"),
        (T.BatchNorm2d(4, momentum=None), pycnn.UnsupportedError, r"'block.1' \(BatchNorm2d\).*momentum=None"),
        (T.AdaptiveMaxPool2d(4), pycnn.UnsupportedError, "block.1.*must be divisible"),
        (Apply(lambda x: x.cumsum(1)), pycnn.UnsupportedError, r"cumsum(.|\n)*at .*test_from_torch.py:\d+"),
        (Apply(lambda x: F.dropout(x)), pycnn.UnsupportedError, r"dropout(.|\n)*training=self.training"),
        (Apply(lambda x: x.flatten()), pycnn.UnsupportedError, "axis of images"),
        (Apply(lambda x: x.view(2, -1)), pycnn.UnsupportedError, "axis of images"),
        (Apply(lambda x: x.view(17, -1)), pycnn.GraphError, "torch.export cannot record"),
        (Apply(lambda x: x / x.shape[0]), pycnn.UnsupportedError, r"aten.div.Tensor\): a number .*number of images"),
        (Apply(lambda x: x - x.sum() / x.numel()), pycnn.UnsupportedError, r"aten.div.Tensor\): a number"),
        (Apply(lambda x: x + torch.ones(len(x), 1, 1, 1)), pycnn.UnsupportedError, r"aten.ones.default\): a number"),
        (Apply(lambda x: x + torch.ones(1).expand(x.shape[0], 1, 1, 1)), pycnn.UnsupportedError, "expand.*: a number"),
        (Apply(lambda x: x * 2 if len(x) > 12 else x + 2), pycnn.GraphError, "other operators for another number"),
        (Apply(lambda x: x[1:]), pycnn.UnsupportedError, "axis of images cannot be cut"),
        (Apply(lambda x: x if x.sum() > 0 else -x), pycnn.GraphError, "torch.export cannot record"),
        (Apply(lambda x: x + torch.rand(1)), pycnn.UnsupportedError, "random numbers"),
    ],
)
def test_what_is_not_supported_is_refused_by_node_and_operator(part, error, text):
    with pytest.raises(error, match=f"^from_torch: .*{text}"):
        pycnn.from_torch(Named(part), (1, 3, 9, 9))


def test_bad_arguments_are_told():
    module = T.Conv2d(3, 4, 3)
    with pytest.raises(pycnn.ArgumentError, match="module is str, expected a torch.nn.Module"):
        pycnn.from_torch("resnet50", (1, 3, 8, 8))
    with pytest.raises(pycnn.ArgumentError, match="NCHW, NHWC"):
        pycnn.from_torch(module, (1, 3, 8, 8), input_layout="HWC")
    with pytest.raises(pycnn.DTypeError, match="int64"):
        pycnn.from_torch(module, torch.zeros(1, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(pycnn.GraphError, match="cannot record Conv2d: .*channels"):
        pycnn.from_torch(module, (1, 8, 8, 3))
    net = pycnn.from_torch(module, (1, 3, 8, 8))
    with pytest.raises(
        pycnn.ShapeError,
        match=r"from_torch: input 'input' is \(2, 3, 9, 9\), the module declares \(\?, 3, 8, 8\) in NCHW",
    ):
        net(np.zeros((2, 3, 9, 9), np.float32))


def test_the_documentation_lists_every_operator(root):
    from pycnn.pytorch._operators import TRANSLATIONS

    text = (root / "docs" / "pytorch.md").read_text(encoding="utf-8").partition("## Operators")[2]
    assert set(re.findall(r"`(\w+)`", text)) == {name.partition(".")[0] for name in TRANSLATIONS}


def test_without_torch_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(pycnn.UnsupportedError, match=r"from_torch needs torch(.|\n)*pip install 'pycnn\[torch\]'"):
        pycnn.from_torch(object(), (1, 3, 8, 8))
