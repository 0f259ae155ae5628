"""Optimizers: arguments, groups, and steps that agree with PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim


@pytest.fixture
def parameters():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))
    return dict(net.named_parameters())


@pytest.mark.parametrize("lr", [0, -0.1, float("nan"), float("inf"), "0.1", None, True])
def test_bad_learning_rates_are_refused(lr):
    with pytest.raises(pc.ArgumentError, match="lr"):
        optim.SGD(lr=lr)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.SGD(0.1, momentum=1.0), "momentum"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov needs momentum"),
        (lambda: optim.SGD(0.1, weight_decay=-1), "weight_decay"),
        (lambda: optim.SGD(0.1, no_decay="bias"), "no_decay"),
        (lambda: optim.SGD(0.1, groups=["fc"]), "optim.Group"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda: optim.Adam(eps=0.0), "eps"),
        (lambda: optim.Group(), "patterns"),
        (lambda: optim.Group("a", lr_scale=-1), "lr_scale"),
    ],
)
def test_bad_arguments_are_refused(make, text):
    with pytest.raises(pc.ArgumentError, match=text):
        make()


def test_weight_decay_spares_biases_and_norms(parameters):
    spec = optim.SGD(0.1, weight_decay=1e-3, no_decay=("bias", "norm")).spec(parameters)
    assert spec.weight_decay == 1e-3
    (exempt,) = spec.groups
    assert exempt.weight_decay == 0.0
    assert set(exempt.names) == {"0.bias", "1.weight", "1.bias", "2.bias"}


def test_first_matching_group_decides_and_frozen_stays_frozen(parameters):
    parameters["2.bias"].trainable = False
    spec = optim.SGD(
        0.1,
        weight_decay=1e-3,
        groups=[optim.Group("0", lr_scale=0.1), optim.Group("*.weight", weight_decay=0.5)],
    ).spec(parameters)
    by_name = {name: group for group in spec.groups for name in group.names}
    assert by_name["0.weight"].rate_scale == 0.1
    assert by_name["0.weight"].weight_decay == 1e-3
    assert by_name["2.weight"].weight_decay == 0.5
    assert by_name["2.bias"].frozen
    assert "1.bias" not in by_name


def test_group_that_matches_nothing_is_refused(parameters):
    with pytest.raises(pc.ArgumentError, match="matches no parameter"):
        optim.SGD(0.1, groups=[optim.Group("fc9")]).spec(parameters)


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["sgd", "nesterov", "decay", "adam", "adamw", "clipped"])
def test_steps_agree_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    make = {
        "sgd": (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        "nesterov": (
            optim.SGD(0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        ),
        "decay": (
            optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        ),
        "adam": (optim.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
        "adamw": (
            optim.AdamW(0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
        "clipped": (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    }
    ours, theirs_of = make[kind]
    clip = 0.05 if kind == "clipped" else None
    rng = np.random.default_rng(3)
    x = rng.standard_normal((12, 10)).astype(np.float32)
    y = rng.integers(0, 4, 12)
    net = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 4))
    torch_net = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    torch_net.load_state_dict({k: torch.from_numpy(v) for k, v in net.state_dict().items()})
    theirs = theirs_of(torch_net.parameters())
    trainer = pc.Trainer(net, optimizer=ours, clip_norm=clip)
    for _ in range(8):
        values = trainer.step(x, y)
        theirs.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch_net(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(torch_net.parameters(), clip)
        theirs.step()
        assert values["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    for name, value in net.state_dict().items():
        expected = torch_net.state_dict()[name].numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


def test_muon_gives_vectors_a_rate_of_their_own(parameters):
    optimizer = optim.Muon(0.05, vector_lr=0.2, weight_decay=0.02, groups=[optim.Group("2", lr_scale=0.5)])
    by_name = {name: group for group in optimizer.spec(parameters).groups for name in group.names}
    assert set(by_name) == set(parameters)
    assert (by_name["0.weight"].rate_scale, by_name["0.weight"].weight_decay) == (1.0, 0.02)
    assert (by_name["2.weight"].rate_scale, by_name["2.weight"].weight_decay) == (0.5, 0.02)
    assert (by_name["1.weight"].rate_scale, by_name["1.weight"].weight_decay) == (pytest.approx(4.0), 0.0)
    assert (by_name["2.bias"].rate_scale, by_name["2.bias"].weight_decay) == (pytest.approx(2.0), 0.0)
    optimizer.lr = 0.1
    assert optimizer.vector_lr == pytest.approx(0.4)


def test_muon_trains_a_net():
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 8, 8, 3), np.float32), rng.integers(0, 3, 64)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(5, 3))
    trainer = pc.Trainer(net, optimizer=optim.Muon(0.05, weight_decay=0.01))
    losses = [trainer.step(x, y)["loss"] for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
