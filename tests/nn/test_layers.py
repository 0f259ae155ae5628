"""Layers: defaults, sizes, arguments, and agreement with PyTorch where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn

RNG = np.random.default_rng(7)


def image(n=2, h=9, w=8, c=4):
    return RNG.standard_normal((n, h, w, c)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv2d(4, 6, 3), (2, 7, 6, 6)),
        (lambda: nn.Conv2d(4, 6, 3, 2, 1), (2, 5, 4, 6)),
        (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 5, 7, 6)),
        (lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2), (2, 9, 8, 6)),
        (lambda: nn.Conv2d(4, 6, 2, padding="same"), (2, 9, 8, 6)),
        (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (2, 7, 6, 4)),
        (lambda: nn.Conv2d(out_channels=6, kernel_size=1), (2, 9, 8, 6)),
        (lambda: nn.MaxPool2d(2), (2, 4, 4, 4)),
        (lambda: nn.MaxPool2d(3, 2, 1), (2, 5, 4, 4)),
        (lambda: nn.MaxPool2d(2, ceil_mode=True), (2, 5, 4, 4)),
        (lambda: nn.AvgPool2d(3, stride=2), (2, 4, 3, 4)),
        (lambda: nn.GlobalAvgPool2d(), (2, 4)),
        (lambda: nn.GlobalMaxPool2d(), (2, 4)),
        (lambda: nn.BatchNorm2d(), (2, 9, 8, 4)),
        (lambda: nn.LocalResponseNorm(), (2, 9, 8, 4)),
        (lambda: nn.Pad((1, 2, 3, 4)), (2, 12, 15, 4)),
        (lambda: nn.Pad(2, mode="reflect"), (2, 13, 12, 4)),
        (lambda: nn.Upsample(scale_factor=2), (2, 18, 16, 4)),
        (lambda: nn.Upsample((5, 3), mode="bilinear", align_corners=True), (2, 5, 3, 4)),
        (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 18, 16, 6)),
        (lambda: nn.ConvTranspose2d(out_channels=6, kernel_size=3, stride=2, padding=1, groups=2), (2, 17, 15, 6)),
        (lambda: nn.LPPool2d(2, 2), (2, 4, 4, 4)),
        (lambda: nn.InstanceNorm2d(affine=True), (2, 9, 8, 4)),
        (lambda: nn.InstanceNorm2d(4), (2, 9, 8, 4)),
        (lambda: nn.GroupNorm(2), (2, 9, 8, 4)),
        (lambda: nn.LayerNorm(4), (2, 9, 8, 4)),
        (lambda: nn.PReLU(4), (2, 9, 8, 4)),
        *[
            (layer, (2, 9, 8, 4))
            for layer in (
                nn.CELU,
                nn.ELU,
                nn.GELU,
                nn.Hardsigmoid,
                nn.Hardswish,
                nn.Hardtanh,
                nn.Mish,
                nn.PReLU,
                nn.SELU,
                nn.SiLU,
                nn.Softplus,
                nn.Softsign,
                lambda: nn.Threshold(0.5, 0.0),
            )
        ],
        (lambda: nn.Flatten(), (2, 288)),
        (lambda: nn.Identity(), (2, 9, 8, 4)),
        (lambda: nn.Dropout(0.5), (2, 9, 8, 4)),
        (lambda: nn.Parallel(nn.Conv2d(4, 2, 1), nn.Identity()), (2, 9, 8, 6)),
        (lambda: nn.Parallel(nn.Conv2d(4, 4, 1), nn.Identity(), join="add"), (2, 9, 8, 4)),
        (lambda: nn.BasicBlock(4, 8, stride=2), (2, 5, 4, 8)),
        (lambda: nn.BasicBlock(channels=4), (2, 9, 8, 4)),
        (lambda: nn.Bottleneck(4, 2), (2, 9, 8, 8)),
        (lambda: nn.Bottleneck(4, 4, groups=2, base_width=32, stride=2), (2, 5, 4, 16)),
        (
            lambda: nn.Inception(branch1=2, reduce3=2, branch3=3, reduce5=1, branch5=4, pool=5, batch_norm=True),
            (2, 9, 8, 14),
        ),
    ],
)
def test_output_shape(layer, shape):
    module = layer()
    assert module(image()).shape == shape
    module.state_dict()
    repr(module)


def test_dropout_does_nothing_for_inference():
    x = image()
    assert np.array_equal(nn.Dropout(0.9)(x), x)


def test_default_weights_are_uniform_within_one_over_root_fan_in():
    conv = nn.Conv2d(8, 64, 5)
    weight, bias = conv.weight.numpy(), conv.bias.numpy()
    bound = 1 / np.sqrt(8 * 25)
    assert weight.shape == (64, 8, 5, 5)
    assert np.abs(weight).max() <= bound
    assert np.abs(bias).max() <= bound
    assert np.abs(weight).max() > 0.99 * bound
    assert abs(weight.mean()) < 0.02 * bound


def test_batch_norm_starts_as_identity():
    x = image()
    norm = nn.BatchNorm2d(4, eps=1e-12)
    np.testing.assert_array_almost_equal_nulp(norm(x), x, 4)
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


def test_normalize_scales_uint8_before_mean_and_std():
    pixels = RNG.integers(0, 256, (2, 4, 4, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(nn.Normalize(mean, std)(pixels), expected, rtol=2e-6, atol=2e-6)
    floats = (pixels / 255).astype(np.float32)
    np.testing.assert_allclose(nn.Normalize(mean, std)(floats), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Conv2d(3, 8), "kernel_size must be given"),
        (lambda: nn.Conv2d(8, kernel_size=3), "out_channels must be given"),
        (lambda: nn.Conv2d(0, 8, 3), "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 8, 0), "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 8, 3.0), "kernel_size must be an integer, got 3.0"),
        (lambda: nn.Conv2d(3, 8, 3, stride=0), "stride must be at least 1"),
        (lambda: nn.Conv2d(3, 8, 3, padding=-1), "padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(3, 8, 3, padding=(1, 2, 3)), "top, bottom, left, right"),
        (lambda: nn.Conv2d(3, 8, 3, stride=2, padding="same"), "'same' needs stride 1"),
        (lambda: nn.Conv2d(3, 8, 3, padding="full"), "'full'"),
        (lambda: nn.Conv2d(3, 8, 3, groups=2), "no multiple of groups 2"),
        (lambda: nn.Conv2d(4, 9, 3, groups=2), "no multiple of groups 2"),
        (lambda: nn.Linear(10), "out_features must be given"),
        (lambda: nn.MaxPool2d(2, padding=2), "exceeds half of kernel_size 2"),
        (lambda: nn.BatchNorm2d(3, eps=0.0), "eps"),
        (lambda: nn.BatchNorm2d(3, momentum=1.5), r"momentum.*\[0, 1\]"),
        (lambda: nn.Dropout(1.0), r"p must be.*\[0, 1\).*1.0"),
        (lambda: nn.Dropout(float("nan")), "nan"),
        (lambda: nn.LeakyReLU(-1), "negative_slope"),
        (lambda: nn.Normalize(std=0.0), "std must not be 0"),
        (lambda: nn.Sequential(nn.ReLU), r"write ReLU\(...\)"),
        (lambda: nn.Sequential([nn.ReLU()]), r"unpack the list with \*"),
        (lambda: nn.Parallel(join="mean"), "no branch"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "label_smoothing"),
        (lambda: nn.BasicBlock(3), "channels must be given"),
    ],
)
def test_bad_arguments_name_the_argument_and_its_value(make, text):
    with pytest.raises(pc.ArgumentError, match=text):
        make()


def test_sequential_slices_share_their_layers():
    net = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Flatten())
    part = net[:2]
    assert len(net) == 3
    assert part[0] is net[0]
    assert net[-1] is net.layers[2]
    with pytest.raises(IndexError, match="index 3, there are 3 layers"):
        net[3]


def test_sequential_of_a_mapping_takes_its_names():
    net = nn.Sequential({"conv": nn.Conv2d(4, 2, 1), "act": nn.ReLU()})
    assert list(net.state_dict()) == ["conv.weight", "conv.bias"]


def test_geometry_without_output_names_the_layer():
    with pytest.raises(pc.ShapeError, match="conv2d"):
        nn.Sequential(nn.Conv2d(4, 2, 11))(image())


def test_residual_block_has_the_names_of_torchvision():
    block = nn.BasicBlock(4, 8, stride=2)
    assert set(block.state_dict()) == {
        f"{layer}.{key}"
        for layer, keys in {
            "conv1": ["weight"],
            "bn1": ["weight", "bias", "running_mean", "running_var"],
            "conv2": ["weight"],
            "bn2": ["weight", "bias", "running_mean", "running_var"],
            "downsample.0": ["weight"],
            "downsample.1": ["weight", "bias", "running_mean", "running_var"],
        }.items()
        for key in keys
    }
    assert block.conv1.weight.disk_shape == (8, 4, 3, 3)


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["conv", "grouped", "linear", "bn", "pool", "lrn"])
def test_layers_agree_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    ours, theirs = {
        "conv": lambda: (
            nn.Conv2d(4, 6, 3, 2, 1),
            torch.nn.Conv2d(4, 6, 3, 2, 1),
        ),
        "grouped": lambda: (
            nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False),
            torch.nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False),
        ),
        "linear": lambda: (
            nn.Sequential(nn.Flatten(), nn.Linear(288, 7)),
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(288, 7)),
        ),
        "bn": lambda: (nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4).eval()),
        "pool": lambda: (
            nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        ),
        "lrn": lambda: (nn.LocalResponseNorm(5, k=2.0), torch.nn.LocalResponseNorm(5, k=2.0)),
    }[kind]()
    with torch.no_grad():
        for p in [*theirs.parameters(), *theirs.buffers()]:
            if p.is_floating_point():
                p.copy_(torch.rand_like(p) + 0.5)
    ours.load_state_dict(theirs.state_dict())
    x = image()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(ours(x), expected, rtol=2e-5, atol=2e-5 * scale)
    if ours.state_dict():
        theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})


def test_transposed_convolution_is_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    ours = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    x = image()
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=1e-6)
    bound = 1 / np.sqrt(3 * 9)  # as torch: the window times the output channels of a group
    fresh = nn.ConvTranspose2d(64, 6, 3, groups=2).weight.numpy()
    assert 0.95 * bound < np.abs(fresh).max() <= bound


def test_layers_of_their_own_kind_are_saved_and_trained(tmp_path):
    net = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        nn.GroupNorm(3),
        nn.PReLU(6),
        nn.Upsample(scale_factor=0.5, mode="bilinear"),
        nn.InstanceNorm2d(affine=True),
        nn.Mish(),
        nn.GlobalAvgPool2d(),
        nn.LayerNorm(),
        nn.Linear(None, 3),
    )
    x = image(8)
    labels = np.arange(8) % 3
    trainer = pc.Trainer(net, optimizer=pc.optim.Adam(0.01))
    history = trainer.fit((x, labels), epochs=8, batch_size=8, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    net.save(tmp_path / "net.safetensors")
    assert np.array_equal(pc.load(tmp_path / "net.safetensors").predict(x), net.predict(x))
    assert net.summary((9, 8, 4)).macs > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.ConvTranspose2d(4), "out_channels must be given"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, output_padding=1), "output_padding 1 must be below stride 1"),
        (lambda: nn.ConvTranspose2d(3, 6, 3, groups=2), "in_channels 3 is no multiple of groups 2"),
        (lambda: nn.Upsample(), "either size or scale_factor"),
        (lambda: nn.Upsample(2, mode="cubic"), "'cubic'"),
        (lambda: nn.Upsample(2, align_corners=True), "align_corners is for modes 'bilinear' and 'bicubic'"),
        (lambda: nn.GroupNorm(3, 4), "4 channels are no multiple of num_groups 3"),
        (lambda: nn.GELU("erf"), "'erf'"),
        (lambda: nn.Softplus(0), "beta"),
        (lambda: nn.Hardtanh(1, 0), "max_val"),
        (lambda: nn.Pad(1, mode="wrap"), "'wrap'"),
        (lambda: nn.PReLU(3)(image()), "has 4 channels, weight is for 3"),
        (lambda: nn.LayerNorm(3)(image()), "has 4 channels, the layer has 3"),
    ],
)
def test_wrong_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
