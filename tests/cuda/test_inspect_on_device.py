"""What is seen inside of a net on a GPU is what the CPU sees, and `pycnn visualize` draws it.

As `test_device_training.py`, this needs no GPU where the emulated module is named.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import pycnn as pc
from pycnn import inspect, nn
from pycnn.cli import main
from pycnn.config import manual_seed
from pycnn.data import ArrayDataset

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def chosen_untimed(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")


@pytest.fixture(scope="module")
def net():
    """Convolutions with and without batch norm and groups, pools, an inner block, a closing softmax."""
    manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.BasicBlock(8, 16, stride=2), nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 4), nn.Softmax()).build((16, 16, 3))


RNG = np.random.default_rng(0)
X = RNG.random((2, 16, 16, 3), np.float32)
BYTES = ArrayDataset(RNG.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8), RNG.integers(0, 4, 6), list("abcd"))
LOOKS = {
    "activations": lambda net, device: inspect.activations(net, X, device=device),
    "activations of bytes": lambda net, device: inspect.activations(net, BYTES.images, device=device),
    "features": lambda net, device: net.features(X, layer="4", device=device),
    "input_gradients": lambda net, device: inspect.input_gradients(net, X, 1, device=device),
    "guided_backpropagation": lambda net, device: inspect.guided_backpropagation(net, X, 1, device=device),
    "grad_cam": lambda net, device: inspect.grad_cam(net, X, "4", 1, device=device),
    "occlusion": lambda net, device: inspect.occlusion(net, X, 1, size=8, stride=4, device=device),
    "predictions": lambda net, device: inspect.predictions(net, BYTES, device=device),
    "maximize": lambda net, device: inspect.maximize(net, [0, 2], steps=3, device=device),
    "maximize a layer": lambda net, device: inspect.maximize(net, [0, 2], "4", steps=3, device=device),
    "top_patches": lambda net, device: inspect.top_patches(net, BYTES, "4", [0, 1], count=2, device=device),
    "invert_features": lambda net, device: inspect.invert_features(net, X, "4", steps=3, device=device),
}


def arrays(found):
    if dataclasses.is_dataclass(found):
        found = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return dict(found) if isinstance(found, dict) else {"found": found}


@pytest.mark.parametrize("name", LOOKS)
def test_it_is_what_the_cpu_sees(net, name):
    here, there = arrays(LOOKS[name](net, "cpu")), arrays(LOOKS[name](net, "cuda"))
    assert here.keys() == there.keys()
    for key, expected in here.items():
        expected = np.asarray(expected)
        if expected.dtype.kind != "f":
            assert np.array_equal(there[key], expected), key
        else:
            largest = float(np.abs(expected).max())
            assert largest > 0
            np.testing.assert_allclose(there[key], expected, rtol=1e-3, atol=1e-4 * largest, err_msg=key)


def test_what_a_device_does_not_compute_is_named_with_what_does():
    with pytest.raises(
        pc.UnsupportedError, match=r"dense: not on cuda yet: float64[^\n]*\n(.*\n)+ *hint: device 'cpu'"
    ):
        pc.compile(nn.Linear(4, 2), (1, 4), "float64", device="cuda")


def test_the_page_is_drawn_from_it(net, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    small = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).build((12, 12, 1))
    small.save(tmp_path / "net.safetensors")
    image.fromarray(BYTES.images[0, :12, :12, 0]).save(tmp_path / "picture.png")
    words = ["visualize", tmp_path / "net.safetensors", tmp_path / "picture.png", "--output", tmp_path / "page.html"]
    assert main([*map(str, words), "--device", "cuda", "--quiet"]) == 0
    assert "pictures in" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<img") > 3
