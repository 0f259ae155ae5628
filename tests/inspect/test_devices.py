"""Whatever looks inside of a net does so on the device that it is told; a GPU is not needed."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import inspect, nn
from pycnn.data import ArrayDataset


@pytest.fixture
def net():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(4, 3)).build((10, 10, 1))


RNG = np.random.default_rng(0)
X = RNG.random((2, 10, 10, 1), np.float32)
DATA = ArrayDataset(RNG.integers(0, 256, (5, 10, 10, 1)).astype(np.uint8), RNG.integers(0, 3, 5), ["a", "b", "c"])
LOOKS = {
    "activations": lambda net, device: inspect.activations(net, X, device=device),
    "features": lambda net, device: net.features(X, layer="3", device=device),
    "input_gradients": lambda net, device: inspect.input_gradients(net, X, device=device),
    "saliency": lambda net, device: inspect.saliency(net, X, device=device),
    "guided_backpropagation": lambda net, device: inspect.guided_backpropagation(net, X, device=device),
    "grad_cam": lambda net, device: inspect.grad_cam(net, X, device=device),
    "occlusion": lambda net, device: inspect.occlusion(net, X, size=5, stride=5, device=device),
    "predictions": lambda net, device: inspect.predictions(net, DATA, device=device),
    "maximize": lambda net, device: inspect.maximize(net, [0, 2], steps=2, device=device),
    "top_patches": lambda net, device: inspect.top_patches(net, DATA, "3", [0, 1], count=2, device=device),
    "invert_features": lambda net, device: inspect.invert_features(net, X, "0", steps=2, device=device),
}


@pytest.mark.parametrize("name", LOOKS)
def test_every_program_is_compiled_for_the_device(net, compiled_for, name):
    LOOKS[name](net, "cuda:1")
    assert set(compiled_for) == {"cuda:1"}


@pytest.mark.parametrize("name", LOOKS)
def test_an_absent_device_is_told(net, name):
    LOOKS[name](net, "cpu")  # the programs of the CPU are not those that are asked for
    with pytest.raises(pc.DeviceError, match="device 'cuda:99'"):
        LOOKS[name](net, "cuda:99")


def test_auto_is_the_cpu_so_far(net, compiled_for):
    for look in LOOKS.values():
        look(net, "auto")
    assert set(compiled_for) == {"cpu"}


@pytest.mark.parametrize("name", [*LOOKS, "report"])
def test_who_asked_refuses_what_names_no_device(net, name):
    looks = LOOKS | {"report": lambda net, device: inspect.report(net, X, device=device)}
    with pytest.raises(pc.ArgumentError, match=f"^{name}: device must be .*, got 1$"):
        looks[name](net, 1)


def test_a_report_is_computed_on_the_device(net, compiled_for):
    pytest.importorskip("matplotlib")
    told = []
    inspect.report(net, X[:1], data=DATA, layers=["3"], device="cuda", progress=told.append)
    assert set(compiled_for) == {"cuda"}
    assert len(told) > 5


@pytest.mark.parametrize("look", [inspect.input_gradients, inspect.saliency, inspect.grad_cam])
def test_float64_is_for_the_cpu_alone(net, look):
    with pytest.raises(pc.ArgumentError, match="double=True runs on the CPU alone, the device is 'cuda'"):
        look(net, X, double=True, device="cuda")
    assert look(net, X, double=True, device="auto").dtype == np.float64
