"""The stop of a training program between gradients and updates, with what stands in for other processes."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_bits

import pycnn as pc
from pycnn import nn, optim
from pycnn.errors import ArgumentError


class Net(nn.Module):
    """Convolutions, batch norm, a weight that is used twice, a concat: gradients of several kinds."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Linear(2 * 5 * 36, 3)

    def forward(self, x):
        x = nn.functional.relu(self.norm(self.conv1(x)))
        y = nn.functional.relu(self.conv2(self.conv2(x)))
        return self.head(nn.functional.flatten(nn.functional.concat([x, y], axis=3)))


class Recorder:
    """Notes what it gets, and changes it by a factor."""

    def __init__(self, factor=1.0, error=None):
        self.factor, self.error = factor, error
        self.buckets, self.calls, self.open = {}, [], []

    def begin(self, bucket, gradients):
        self.calls.append(bucket)
        self.open.append(gradients)
        self.buckets[bucket] = gradients.copy()

    def finish(self):
        self.calls.append("finish")
        if self.error is not None:
            raise self.error
        for gradients in self.open:
            gradients *= np.float32(self.factor)
        self.open.clear()


def batch():
    rng = np.random.default_rng(3)
    return rng.random((7, 6, 6, 1), np.float32), rng.integers(0, 3, 7)


def trained(exchange, monkeypatch, *, steps=3, bucket_bytes=4 << 20, optimizer=None, loss="cross_entropy", **options):
    pc.manual_seed(5)
    trainer = pc.Trainer(Net(), optimizer=optimizer or optim.SGD(0.1, momentum=0.9), loss=loss, **options)
    trainer._training.exchange = exchange
    if exchange is not None:
        compile_traced = pc.train._programs.compile_traced
        monkeypatch.setattr(
            "pycnn.train._programs.compile_traced", lambda *a, **k: compile_traced(*a, **k, bucket_bytes=bucket_bytes)
        )
    values = [trainer.step(*batch()) for _ in range(steps)]
    monkeypatch.undo()
    return trainer, values


OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.1, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: optim.Adam(0.01),
    "muon": lambda: optim.Muon(0.02),
}


@pytest.mark.parametrize("bucket_bytes", [4, 1200, 4 << 20])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_gradients_that_are_given_back_as_they_were_change_no_bit(kind, bucket_bytes, monkeypatch):
    options = {"clip_norm": 0.5, "ema_decay": 0.9} if kind != "adam" else {"recompute": "sqrt"}
    plain, values = trained(None, monkeypatch, optimizer=OPTIMIZERS[kind](), **options)
    recorder = Recorder()
    exchanged, theirs = trained(
        recorder, monkeypatch, optimizer=OPTIMIZERS[kind](), bucket_bytes=bucket_bytes, **options
    )
    assert theirs == values
    assert set(plain.variables) == set(exchanged.variables)
    for name in plain.variables:
        assert_bits(exchanged.variables[name].numpy(), plain.variables[name].numpy(), name)
    count = len(recorder.buckets)
    assert recorder.calls == [*range(count), "finish"] * 3
    assert (count == 1) == (bucket_bytes == 4 << 20)
    if bucket_bytes == 4:
        assert count == 7  # each parameter's alone


def test_updates_take_what_the_exchange_left(monkeypatch):
    def mean_of(factor):
        return lambda scores, y: factor * nn.functional.mse_loss(scores, y)

    x, y = batch()
    target = np.eye(3, dtype=np.float32)[y]
    results = []
    for factor, exchange in ((0.25, None), (1.0, Recorder(0.25))):
        pc.manual_seed(5)
        trainer = pc.Trainer(Net(), optimizer=optim.SGD(0.1, momentum=0.9), loss=mean_of(factor))
        trainer._training.exchange = exchange
        for _ in range(3):
            trainer.step(x, target)
        results.append(trainer)
    for name, parameter in results[0].net.named_tensors():
        # A power of two: nothing is rounded otherwise.
        assert_bits(dict(results[1].net.named_tensors())[name].numpy(), parameter.numpy(), name)


def test_buckets_hold_the_gradients_last_layers_first(monkeypatch):
    recorder = Recorder()
    trainer, _ = trained(recorder, monkeypatch, steps=1, bucket_bytes=4, optimizer=optim.SGD(1.0))
    pc.manual_seed(5)
    net = Net()
    net.build((6, 6, 1))  # values are drawn when they are needed
    before = dict(net.named_parameters())
    names = list(before)
    assert len(recorder.buckets) == len(names)
    for name, bucket in zip(reversed(names), recorder.buckets.values(), strict=True):
        parameter = dict(trainer.net.named_parameters())[name]
        start = before[name].tensor.numpy()  # in the order of memory
        moved = start.ravel() - bucket[: start.size].reshape(start.shape).ravel()
        assert_bits(parameter.tensor.numpy().ravel(), moved, name)
        assert start.size <= bucket.size < start.size + 16


def test_the_layout_does_not_depend_on_the_batch(monkeypatch):
    sizes = []
    for count in (1, 7, 12):
        recorder = Recorder()
        pc.manual_seed(5)
        trainer = pc.Trainer(Net(), optimizer=optim.SGD(0.1))
        trainer._training.exchange = recorder
        trainer.step(np.zeros((count, 6, 6, 1), np.float32), np.zeros(count, np.int64))
        sizes.append([bucket.size for bucket in recorder.buckets.values()])
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("where", ["begin", "finish"])
def test_an_error_reaches_the_caller_and_no_parameter_changes(where, monkeypatch):
    class Failing(Recorder):
        def begin(self, bucket, gradients):
            if where == "begin" and self.calls.count("finish") == 1:
                raise ConnectionError("the other rank has gone")
            super().begin(bucket, gradients)

        def finish(self):
            self.error = ConnectionError("the other rank has gone") if self.calls.count("finish") == 1 else None
            super().finish()

    failing = Failing()
    trainer, _ = trained(failing, monkeypatch, steps=1)
    before = {name: p.numpy().copy() for name, p in trainer.net.named_parameters()}
    momentum = {n: trainer.variables[n].numpy().copy() for n in trainer.variables if n.startswith("optim.")}
    with pytest.raises(ConnectionError, match="the other rank has gone"):
        trainer.step(*batch())
    assert trainer.steps == 1
    for name, parameter in trainer.net.named_parameters():
        assert_bits(parameter.numpy(), before[name], name)
    for name, values in momentum.items():
        assert_bits(trainer.variables[name].numpy(), values, name)
    if where == "finish":
        failing.error = None
        assert np.isfinite(trainer.step(*batch())["loss"])


def test_an_exchange_without_an_optimizer_is_refused():
    from pycnn.program import compile_traced
    from pycnn.tracing import trace

    net = Net()
    traced = trace(lambda x: net(x), {"x": ((1, 6, 6, 1), "float32")}, root=net)
    with pytest.raises(ArgumentError, match="needs an optimizer"):
        compile_traced(traced, mode="training", exchange=Recorder())
