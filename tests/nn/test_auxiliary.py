"""Heads for training only: their losses count in training programs, and nothing of them is anywhere else."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import checkpoint, functional, nn
from pycnn.tracing import name_parameters


class Head(nn.Module):
    def __init__(self):
        self.bn = nn.BatchNorm2d(5)
        self.fc = nn.Linear(out_features=3)

    def forward(self, x):
        return self.fc(functional.global_avg_pool2d(self.bn(x)))


class Net(nn.Module):
    """Two convolutions, a head for training behind the first."""

    def __init__(self):
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.head = Head()
        self.conv2 = nn.Conv2d(5, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = functional.relu(self.conv1(x))
        nn.auxiliary(self.head, x, weight=0.3)
        return self.fc(functional.global_avg_pool2d(functional.relu(self.conv2(x))))


@pytest.fixture
def net():
    return Net().build((6, 7, 2))


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 6, 7, 2)).astype(np.float32), np.array([0, 2, 1, 1, 0])


def gradients(net, batch, weight):
    """Of the sum of both losses, written out by hand, by name in the layout of files."""
    x, y = batch

    def loss(x, y):
        name_parameters(dict(net.named_tensors()))
        inner = functional.relu(net.conv1(x))
        main = net.fc(functional.global_avg_pool2d(functional.relu(net.conv2(inner))))
        total = functional.cross_entropy(main, y)
        return total + weight * functional.cross_entropy(net.head(inner), y) if weight else total

    value, (_, found) = pc.value_and_grad(loss, parameters=(), training=True)(x.astype(np.float64), y)
    return float(value), {k: g.transpose(0, 3, 1, 2) if g.ndim == 4 else g for k, g in found.items()}


@pytest.mark.parametrize(("given", "weight"), [(None, 0.3), (0.7, 0.7), (0.0, 0.0)])
def test_a_step_follows_the_gradient_of_the_weighted_sum(net, batch, given, weight):
    before = net.state_dict()
    value, expected = gradients(net, batch, weight)
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=1.0, momentum=0.0), auxiliary_weight=given)
    assert trainer.step(*batch)["loss"] == pytest.approx(value, rel=1e-5)
    assert ("head.fc.weight" in expected) == (weight != 0)
    for name, parameter in net.named_parameters():
        step = before[name] - parameter.numpy()
        gradient = expected.get(name, np.zeros_like(step))
        # Of a step, the digits below the weight's own are lost.
        bound = tolerances.sum_bound(np.abs(before[name]) + np.abs(gradient).max(), 5 * 20 * 45)
        tolerances.assert_within(step, gradient, bound, name)


def test_metrics_and_evaluation_look_at_the_main_output(net, batch):
    x, y = batch
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=1e-9))
    scores = net(x)
    main = float(functional.cross_entropy(scores, y))
    assert trainer.evaluate(batch)["loss"] == pytest.approx(main, rel=1e-6)
    measured = trainer.step(x, y)
    assert measured["accuracy"] == pytest.approx(float((scores.argmax(1) == y).mean()))
    assert measured["loss"] > main + 0.1


def test_any_loss_is_applied_to_every_head(net, batch):
    x, y = batch

    def double(scores, target):
        return 2.0 * functional.cross_entropy(scores, target)

    value, _ = gradients(net, batch, 0.3)
    trainer = pc.Trainer(net, loss=double, optimizer=pc.optim.SGD(lr=0.1))
    assert trainer.step(x, y)["loss"] == pytest.approx(2 * value, rel=1e-5)


def test_heads_are_called_for_training_and_files_only(net, batch, tmp_path):
    calls = []
    head = net.head.forward
    object.__setattr__(net.head, "forward", lambda x: calls.append(x.shape) or head(x))
    net(batch[0])
    net.predict(batch[0])
    pc.compile(net, shape=(1, 6, 7, 2))
    trainer = pc.Trainer(net)
    trainer.evaluate(batch)
    pc.Trainer(net, auxiliary_weight=0.0).step(*batch)
    assert calls == []
    trainer.step(*batch)
    assert calls == [(5, 4, 5, 5)]
    net.save(tmp_path / "net.safetensors")
    assert calls[1:] == [(1, 4, 5, 5)]


def test_programs_for_inference_hold_nothing_of_the_heads(net, tmp_path):
    net.save(tmp_path / "net.safetensors")
    for candidate in (net, pc.load(tmp_path / "net.safetensors")):
        program = pc.compile(candidate, shape=(2, 6, 7, 2))
        assert "conv1" in program.explain()
        assert "head" not in program.explain()
        assert not [name for name in program.variables if "head" in name]


def test_a_file_keeps_the_heads_and_its_net_trains_with_them(net, batch, tmp_path):
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    assert set(loaded.state_dict()) == set(net.state_dict())
    for candidate in (net, loaded):
        trainer = pc.Trainer(candidate, seed=1)
        for _ in range(3):
            trainer.step(*batch)
    for name, values in net.state_dict().items():
        tolerances.assert_bits(loaded.state_dict()[name], values, name)
    loaded.save(tmp_path / "again.safetensors")
    again = pc.load(tmp_path / "again.safetensors")
    assert pc.Trainer(again).step(*batch)["loss"] == pc.Trainer(loaded).step(*batch)["loss"]


def test_training_with_heads_is_resumed_bit_by_bit(net, batch, tmp_path):
    trainer = pc.Trainer(net)
    trainer.step(*batch)
    trainer.save_checkpoint(tmp_path / "last.safetensors")
    trainer.step(*batch)
    other = Net().build((6, 7, 2))
    resumed = pc.Trainer(other)
    resumed.load_checkpoint(tmp_path / "last.safetensors")
    resumed.step(*batch)
    for name, values in net.state_dict().items():
        tolerances.assert_bits(other.state_dict()[name], values, name)
    with pytest.warns(UserWarning, match="auxiliary_weight None, goes on with 0.5"):
        pc.Trainer(Net().build((6, 7, 2)), auxiliary_weight=0.5).load_checkpoint(tmp_path / "last.safetensors")


def test_the_summary_counts_heads_as_for_training_only(net):
    summary = net.summary()
    assert summary.parameters == net.num_parameters
    assert summary.training_only_parameters == sum(p.size for p in net.head.parameters())
    assert summary.macs == 5 * 4 * 5 * 18 + 4 * 2 * 3 * 45 + 12


def test_collecting_gives_outputs_and_weights(net, batch):
    found = []

    def loss(x):
        with nn.collect_auxiliary() as heads:
            net(x)
        found.extend(heads)
        return functional.sum(heads[0].output)

    pc.value_and_grad(loss)(batch[0])
    assert [(head.output.shape, head.weight) for head in found] == [((5, 3), 0.3)]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), True, "much"])
def test_a_weight_that_is_no_number_of_at_least_0_is_refused(net, weight):
    with pytest.raises(pc.ArgumentError, match="Trainer: auxiliary_weight must be"):
        pc.Trainer(net, auxiliary_weight=weight)


def test_a_head_with_several_results_is_refused(net, batch):
    object.__setattr__(net.head, "forward", lambda x: (x, x))
    with pytest.raises(pc.GraphError, match="auxiliary: Head gives tuple, expected one Symbol"):
        pc.Trainer(net).step(*batch)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[", "is damaged"),
        ('[{"node": "conv1"}]', "is damaged"),
        ('[{"node": "nowhere", "weight": 1}]', "no node 'nowhere'"),
        ('[{"node": "conv1", "weight": -1}]', "weight of 'conv1' is -1"),
        ('[{"node": "conv1", "weight": "NaN"}]', "weight of 'conv1' is nan"),
    ],
)
def test_damaged_marks_in_a_file_are_refused(net, tmp_path, entry, message):
    path = tmp_path / "net.safetensors"
    net.save(path)
    graph, tensors, metadata = checkpoint.load_model(path)
    variables = pc.program.Variables()
    for name, tensor in tensors.items():
        variables[name] = tensor.numpy()
    checkpoint.save_model(path, graph, variables, {**metadata, "pycnn.auxiliary": entry})
    with pytest.raises(pc.FormatError, match=message):
        pc.load(path)
