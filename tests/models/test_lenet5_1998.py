"""LeNet-5 as published: every layer against the paper's numbers and a NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn.models._digit_codes import digit_codes
from pycnn.models.lenet5_1998 import CONNECTIONS


def test_parameters_of_each_layer_are_the_papers():
    net = pc.models.lenet5_1998()
    counts = {}
    for name, parameter in net.named_parameters():
        layer = name.partition(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.size
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert net.num_parameters == 60_000


def test_connections_are_table_one():
    assert [len(c) for c in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    assert sum(len(c) for c in CONNECTIONS) == 60
    assert all(sum(i in c for c in CONNECTIONS) == 10 for i in range(6))
    assert len(set(CONNECTIONS)) == 16


def test_codes_are_ten_distinct_bitmaps():
    codes = digit_codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    distances = ((codes[:, None] - codes[None]) ** 2).sum(-1) + 1000 * np.eye(10)
    assert distances.min() >= 28


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


def conv(x, weight, bias):
    """(N, H, W, C) with (OC, C, 5, 5), valid."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
    return np.einsum("nhwcij,ocij->nhwo", windows, weight) + bias


def subsample(x, weight, bias):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).sum((2, 4)) * weight + bias


def reference(state, x):
    s = {k: v.astype(np.float64) for k, v in state.items()}
    x = np.pad(x.astype(np.float64) * 1.275 - 0.1, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-0.1)
    x = squash(conv(x, s["c1.weight"], s["c1.bias"]))
    x = squash(subsample(x, s["s2.weight"], s["s2.bias"]))
    windows = np.concatenate([s["c3.weight3"], s["c3.weight4"], s["c3.weight6"]])
    dense, row = np.zeros((16, 6, 5, 5)), 0
    for out, inputs in enumerate(CONNECTIONS):
        for channel in inputs:
            dense[out, channel] = windows[row]
            row += 1
    x = squash(conv(x, dense, s["c3.bias"]))
    x = squash(subsample(x, s["s4.weight"], s["s4.bias"]))
    x = squash(conv(x, s["c5.weight"], s["c5.bias"]))[:, 0, 0]
    x = squash(x @ s["f6.weight"].T + s["f6.bias"])
    return ((x[:, None] - digit_codes()[None]) ** 2).sum(-1)


def test_scores_are_minus_the_distances_of_the_paper():
    net = pc.models.lenet5_1998()
    x = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    distances = reference(net.state_dict(), x)
    np.testing.assert_allclose(-net(x), distances, rtol=1e-5)
    assert np.array_equal(net.predict(x), distances.argmin(1))


def test_padded_image_equals_the_full_one():
    small, full = pc.models.lenet5_1998(), pc.models.lenet5_1998(input_size=32)
    x = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(small(x), full(padded), rtol=1e-6)


def test_loss_is_equation_nine():
    net = pc.models.lenet5_1998(rubbish=70.0)
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 28, 28, 1), np.float32), rng.integers(0, 10, 4)
    d = reference(net.state_dict(), x)
    expected = (d[np.arange(4), y] + np.log(np.exp(-70.0) + np.exp(-d).sum(1))).mean()
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(1e-4))
    assert trainer.loss == "default_loss"
    assert trainer.step(x, y)["loss"] == pytest.approx(expected, rel=1e-4)


def test_weights_start_within_the_papers_range():
    state = pc.models.lenet5_1998().state_dict()
    fans = {"c1.weight": 25, "c3.weight3": 75, "c3.weight4": 100, "c5.weight": 400, "f6.weight": 120}
    for name, fan_in in fans.items():
        assert np.abs(state[name]).max() <= 2.4 / fan_in
        assert np.abs(state[name]).max() > 2.2 / fan_in


def test_codes_do_not_change_while_training():
    net = pc.models.lenet5_1998()
    x, y = np.zeros((2, 28, 28, 1), np.float32), np.array([0, 1])
    pc.Trainer(net, optimizer=pc.optim.SGD(1e-4)).step(x, y)
    assert np.array_equal(net.output.codes.numpy(), digit_codes())


def test_saved_net_computes_the_same(tmp_path):
    net = pc.models.lenet5_1998()
    net.save(tmp_path / "net.safetensors")
    x = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    assert np.array_equal(pc.load(tmp_path / "net.safetensors").predict(x), net.predict(x))


@pytest.mark.parametrize("options", [{"input_size": 30}, {"rubbish": 0.0}, {"rubbish": float("inf")}])
def test_bad_options_are_refused(options):
    with pytest.raises(pc.ArgumentError):
        pc.models.lenet5_1998(**options)


def test_learns_the_embedded_digits():
    train, test = pc.data.digits(seed=0)
    trainer = pc.Trainer(pc.models.lenet5_1998(), optimizer=pc.optim.SGD(2e-3, momentum=0.9))
    trainer.fit(train, epochs=6, batch_size=32, progress=False)
    assert trainer.evaluate(test)["accuracy"] > 0.9
