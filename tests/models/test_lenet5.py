"""LeNet-5 as built today."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_parameter_count(activation, pool):
    assert pc.models.lenet5(activation=activation, pool=pool).num_parameters == 61_706


@pytest.mark.parametrize("size", [28, 32])
def test_both_input_sizes(size):
    net = pc.models.lenet5(input_size=size)
    assert net.num_parameters == 61_706
    assert net(np.zeros((2, size, size, 1), np.uint8)).shape == (2, 10)


def test_names_and_shapes():
    shapes = {name: value.shape for name, value in pc.models.lenet5().state_dict().items()}
    assert shapes["conv1.weight"] == (6, 1, 5, 5)
    assert shapes["conv2.weight"] == (16, 6, 5, 5)
    assert shapes["fc1.weight"] == (120, 400)
    assert list(shapes) == [f"{n}.{k}" for n in ("conv1", "conv2", "fc1", "fc2", "fc3") for k in ("weight", "bias")]


def test_other_classes_and_colours():
    net = pc.models.lenet5(7, in_channels=3)
    assert net(np.zeros((1, 28, 28, 3), np.float32)).shape == (1, 7)


@pytest.mark.parametrize(
    "options",
    [{"activation": "gelu"}, {"pool": "min"}, {"input_size": 30}, {"num_classes": 0}, {"in_channels": 0}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(pc.ArgumentError):
        pc.models.lenet5(**options)


def test_wrong_image_size_is_refused():
    with pytest.raises(pc.ShapeError):
        pc.models.lenet5()(np.zeros((1, 40, 40, 1), np.float32))


@pytest.mark.interop
def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    net = pc.models.lenet5()
    f = torch.nn.functional
    w = {k: torch.from_numpy(v) for k, v in net.state_dict().items()}
    x = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    with torch.no_grad():
        h = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        h = f.avg_pool2d(torch.tanh(f.conv2d(h, w["conv1.weight"], w["conv1.bias"], padding=2)), 2)
        h = f.avg_pool2d(torch.tanh(f.conv2d(h, w["conv2.weight"], w["conv2.bias"])), 2).flatten(1)
        h = torch.tanh(f.linear(h, w["fc1.weight"], w["fc1.bias"]))
        h = torch.tanh(f.linear(h, w["fc2.weight"], w["fc2.bias"]))
        expected = f.linear(h, w["fc3.weight"], w["fc3.bias"]).numpy()
    np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)


def test_learns_the_embedded_digits():
    train, test = pc.data.digits(seed=0)
    trainer = pc.Trainer(pc.models.lenet5(), optimizer=pc.optim.SGD(0.05, momentum=0.9))
    trainer.fit(train, epochs=6, batch_size=32, progress=False)
    assert trainer.evaluate(test)["accuracy"] > 0.94
