"""`Trainer.step`: one batch at a time."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.nn import functional as F
from pycnn.tensor import Parameter
from pycnn.train import _programs


def data(n=16, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 6, 6, 1), np.float32)
    x[np.arange(n), y, y] += 2
    return x, y


def small(**options):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), **options)


def test_loss_falls_and_metrics_are_shares():
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1, momentum=0.9), metrics=("accuracy", "top2"))
    first = trainer.step(x, y)
    for _ in range(40):
        last = trainer.step(x, y)
    assert set(first) == {"loss", "accuracy", "top2"}
    assert last["loss"] < 0.2 * first["loss"]
    assert last["accuracy"] > 0.9
    assert 0 <= first["accuracy"] <= first["top2"] <= 1
    assert trainer.steps == 41


def test_step_is_one_call_of_the_core(monkeypatch):
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1))
    trainer.step(x, y)
    calls = []
    program = next(iter(trainer._training._programs.values())).program
    run = program._run
    program._run = lambda *arrays: calls.append(1) or run(*arrays)
    monkeypatch.setattr(type(trainer.variables), "__setitem__", lambda *a: pytest.fail("a variable was written"))
    trainer.step(x, y)
    assert calls == [1]


def test_a_step_neither_walks_the_net_nor_looks_at_labels(monkeypatch):
    x, y = data()
    training = pc.Trainer(small(), optimizer=optim.SGD(0.1))
    training.step(x, y)
    monkeypatch.setattr(nn.Module, "named_modules", lambda net: pytest.fail("the net was walked"))
    monkeypatch.setattr(_programs, "check_labels", lambda *a, **k: pytest.fail("labels were looked at"))
    training.train_batch(x, y)
    training.train_batch(x, y)


def test_labels_of_either_64_bit_type_of_numpy():
    trainers = [pc.Trainer(small(), optimizer=optim.SGD(0.1), seed=0) for _ in range(2)]
    x, y = data()
    losses = [t.step(x, y.astype(kind))["loss"] for t, kind in zip(trainers, ("l", "q"), strict=True)]
    assert losses[0] == losses[1]


def test_parameters_that_are_frozen_between_steps_stay_and_go_on_when_they_are_not():
    x, y = data()
    net = small()
    training = pc.Trainer(net, optimizer=optim.SGD(0.1))
    training.step(x, y)
    made = dict(training._training._programs)
    first, last = net[0].weight, net[3].weight
    for parameter in (first, last, first):
        parameter.trainable = False
        before = parameter.numpy()
        training.step(x, y)
        np.testing.assert_array_equal(parameter.numpy(), before)
        parameter.trainable = True
        training.step(x, y)
        assert not np.array_equal(parameter.numpy(), before)
    # The way back needs no new program, and another net's parameters none either.
    assert len(training._training._programs) == len(made) + 2
    assert all(training._training._programs[key] is program for key, program in made.items())
    small()[0].weight.trainable = False
    training.step(x, y)
    assert len(training._training._programs) == len(made) + 2


def test_a_frozen_parameter_put_in_the_place_of_another_stays():
    x, y = data()
    net = small()
    training = pc.Trainer(net, optimizer=optim.SGD(0.1))
    training.step(x, y)
    fresh = Parameter(net[3].weight.shape, init=net[3].weight.numpy())
    fresh.trainable = False
    net[3].weight = fresh
    before = fresh.numpy()
    training.step(x, y)
    np.testing.assert_array_equal(fresh.numpy(), before)


def test_a_frozen_parameter_is_frozen_when_it_was_pickled():
    weight = small()[0].weight
    weight.trainable = False
    assert not pickle.loads(pickle.dumps(weight)).trainable
    assert not copy.deepcopy(weight).trainable


@pytest.mark.parametrize("loss", [None, "mse", lambda scores, y: F.mean(scores)])
def test_all_labels_that_are_out_of_range_are_counted_whoever_sees_them(loss):
    x, y = data()
    training = pc.Trainer(small(), optimizer=optim.SGD(0.1), loss=loss, metrics=() if callable(loss) else ("accuracy",))
    y[3], y[9] = 7, -1
    with pytest.raises(
        pc.LabelError, match=r"^step: label 7 at position 3, the net has 3 classes \(0\.\.2\); 2 such labels$"
    ):
        training.step(x, y)
    assert training.steps == 0


@pytest.mark.parametrize(("label", "text"), [(-1, r"label -1 at position 2"), (3, r"label 3 at position 2.*3 classes")])
def test_label_out_of_range_names_position_and_value_and_changes_nothing(label, text):
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1))
    trainer.step(x, y)
    before = trainer.fingerprint()
    bad = y.copy()
    bad[2] = label
    with pytest.raises(pc.LabelError, match=text):
        trainer.step(x, bad)
    assert trainer.fingerprint() == before
    assert trainer.steps == 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda x, y: (x, y.astype(np.float32)), pc.DTypeError, "labels must be integers.*position"),
        (lambda x, y: (x, y + 0.5), pc.DTypeError, "value .*.5 at position 0"),
        (lambda x, y: (x, y[:-1]), pc.ShapeError, "16 images but targets"),
        (lambda x, y: (x, y[:, None]), pc.ShapeError, "ravel"),
        (lambda x, y: (x, np.eye(3, dtype=int)[y]), pc.ShapeError, "argmax"),
        (lambda x, y: (x, y > 0), pc.DTypeError, "bool"),
        (lambda x, y: (x[:0], y[:0]), pc.ShapeError, "at least one image"),
        (lambda x, y: (x.astype(np.int64), y), pc.DTypeError, "int64"),
        (lambda x, y: (x[..., 0], y), pc.ShapeError, "3 axes"),
        (lambda x, y: (np.repeat(x, 2, 3), y), pc.ShapeError, "channel"),
    ],
)
def test_bad_batches_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        pc.Trainer(small(), optimizer=optim.SGD(0.1)).step(*make(*data()))


def test_all_frozen_is_an_error_and_some_frozen_stay():
    x, y = data()
    net = small()
    net.freeze()
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.1))
    with pytest.raises(pc.ArgumentError, match="all 4 parameters are frozen(.|\n)*unfreeze"):
        trainer.step(x, y)
    net.unfreeze("3")
    before = net.state_dict()
    trainer.step(x, y)
    after = net.state_dict()
    assert np.array_equal(before["0.weight"], after["0.weight"])
    assert not np.array_equal(before["3.weight"], after["3.weight"])


def test_freezing_while_training_takes_effect():
    x, y = data()
    net = small()
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.1, momentum=0.9))
    trainer.step(x, y)
    net.freeze("0")
    before = net.state_dict()
    trainer.step(x, y)
    assert np.array_equal(before["0.weight"], net.state_dict()["0.weight"])


def test_step_that_changes_nothing_warns_once():
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(1e-30))
    with pytest.warns(RuntimeWarning, match="changed no weight"):
        trainer.step(x, y)
    trainer.step(x, y)


def test_infinite_loss_warns():
    x, y = data()
    x[0] = np.nan
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1))
    with pytest.warns(RuntimeWarning, match="loss is nan at step 1"):
        assert np.isnan(trainer.step(x, y)["loss"])


def test_second_thread_is_refused():
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1))
    inside, leave = threading.Event(), threading.Event()
    trainer.step(x, y)
    original = trainer.train_batch

    def slow(*args):
        inside.set()
        leave.wait(120)
        return original(*args)

    trainer.train_batch = slow
    worker = threading.Thread(target=trainer.step, args=(x, y))
    worker.start()
    assert inside.wait(120)
    second = pc.Trainer(trainer.net, optimizer=optim.SGD(0.1))
    try:
        for other in (trainer, second):
            with pytest.raises(pc.Error, match="training already"):
                other.step(x, y)
    finally:
        leave.set()
        worker.join()
    assert trainer.steps == 2


def test_same_seed_same_bits_for_any_number_of_threads():
    def run(threads):
        net = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(80, 3)
        )
        trainer = pc.Trainer(net, optimizer=optim.SGD(0.05, momentum=0.9, weight_decay=1e-3), threads=threads, seed=4)
        for i in range(20):
            trainer.step(*data(37, seed=i))
        return trainer.fingerprint()

    assert len({run(threads) for threads in (1, 2, 3, 7, None)}) == 1


def test_seed_changes_the_dropout():
    def loss(seed):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3))
        return pc.Trainer(net, optimizer=optim.SGD(0.1), seed=seed).step(*data())["loss"]

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_running_statistics_follow_the_batches():
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=0.5), nn.Flatten(), nn.Linear(36, 3))
    x, y = data()
    pc.Trainer(net, optimizer=optim.SGD(0.1)).step(x, y)
    state = net.state_dict()
    assert state["0.running_mean"][0] == pytest.approx(0.5 * x.mean(), rel=1e-5)
    assert state["0.running_var"][0] == pytest.approx(0.5 + 0.5 * x.var(ddof=1), rel=1e-5)


def test_frozen_batch_norm_keeps_its_statistics():
    net = nn.Sequential(nn.BatchNorm2d(1, frozen=True), nn.Flatten(), nn.Linear(36, 3))
    before = net.state_dict()
    pc.Trainer(net, optimizer=optim.SGD(0.1)).step(*data())
    after = net.state_dict()
    assert np.array_equal(before["0.running_var"], after["0.running_var"])
    assert not np.array_equal(before["0.weight"], after["0.weight"])


def test_mean_squared_error_makes_targets_of_labels():
    x, y = data()
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1), loss="mse")
    scores = trainer.net(x)
    expected = ((scores - np.eye(3, dtype=np.float32)[y]) ** 2).mean()
    values = trainer.step(x, y)
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert "accuracy" in values


def test_mean_squared_error_of_real_targets():
    x, _ = data()
    target = x.mean((1, 2, 3), keepdims=True)[:, :, 0, 0]
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    trainer = pc.Trainer(net, optimizer=optim.Adam(0.01), loss="mse")
    first = trainer.step(x, target)
    for _ in range(200):
        last = trainer.step(x, target)
    assert set(first) == {"loss"}
    assert last["loss"] < 0.1 * first["loss"]


def test_loss_may_be_a_function_or_a_module():
    x, y = data()
    reference = pc.Trainer(small(), optimizer=optim.SGD(0.1), label_smoothing=0.1).step(x, y)
    as_module = pc.Trainer(small(), optimizer=optim.SGD(0.1), loss=nn.CrossEntropyLoss(label_smoothing=0.1)).step(x, y)
    as_function = pc.Trainer(
        small(),
        optimizer=optim.SGD(0.1),
        loss=lambda s, t: F.cross_entropy(s, t, label_smoothing=0.1),
    ).step(x, y)
    assert reference == as_module == as_function


def test_soft_targets_train():
    x, y = data()
    soft = np.eye(3, dtype=np.float32)[y] * 0.8 + 0.1 / 1.5 * (1 - np.eye(3, dtype=np.float32)[y])
    values = pc.Trainer(small(), optimizer=optim.SGD(0.1)).step(x, soft.astype(np.float32))
    assert np.isfinite(values["loss"])


def test_groups_scale_the_rate():
    x, y = data()
    net = small()
    before = net.state_dict()
    pc.Trainer(net, optimizer=optim.SGD(0.1, groups=[optim.Group("0", lr_scale=0.0)])).step(x, y)
    after = net.state_dict()
    assert np.array_equal(before["0.weight"], after["0.weight"])
    assert not np.array_equal(before["3.weight"], after["3.weight"])


def test_uint8_images_train():
    x, y = data()
    pixels = (x * 80).astype(np.uint8)
    trainer = pc.Trainer(small(), optimizer=optim.SGD(0.1, momentum=0.9), normalize=(0.2, 0.3))
    first = trainer.step(pixels, y)
    for _ in range(20):
        last = trainer.step(pixels, y)
    assert last["loss"] < first["loss"]


def test_averages_are_those_of_the_weights():
    x, y = data()
    net = small()
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.1), ema_decay=0.5)
    with pytest.raises(pc.ArgumentError, match="no step was made yet"):
        trainer.use_averages()
    average = net.state_dict()["3.bias"].astype(np.float64)
    for step in range(6):
        trainer.step(x, y)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * net.state_dict()["3.bias"]
    own = trainer.fingerprint()
    with trainer.averaged():
        np.testing.assert_allclose(net.state_dict()["3.bias"], average, rtol=1e-5, atol=1e-6)
        assert trainer.fingerprint() != own
    assert trainer.fingerprint() == own
    trainer.use_averages()
    assert trainer.fingerprint() != own


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"optimizer": "sgd"}, pc.ArgumentError, "optimizer"),
        ({"loss": "hinge"}, pc.ArgumentError, "'hinge'"),
        ({"dtype": "float64"}, pc.DTypeError, "'float64' is not accepted here; expected one of float32, bfloat16"),
        ({"seed": -1}, pc.ArgumentError, "seed"),
        ({"clip_norm": 0}, pc.ArgumentError, "clip_norm"),
        ({"ema_decay": 1.0}, pc.ArgumentError, "ema_decay"),
        ({"label_smoothing": 1.5}, pc.ArgumentError, "label_smoothing"),
        ({"label_smoothing": 0.1, "loss": "mse"}, pc.ArgumentError, "label_smoothing goes with"),
        ({"metrics": ("f1",)}, pc.ArgumentError, "'f1'"),
        ({"metrics": ("accuracy", "accuracy")}, pc.ArgumentError, "two metrics"),
        ({"schedule": 0.1}, pc.ArgumentError, "schedule"),
        ({"normalize": 3}, pc.ArgumentError, "normalize"),
    ],
)
def test_bad_arguments_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        pc.Trainer(small(), **options)


def test_metric_of_more_classes_than_there_are_is_refused():
    with pytest.raises(pc.ArgumentError, match="'top5' but 3 classes"):
        pc.Trainer(small(), metrics=("top5",)).step(*data())


def test_absent_device_is_a_device_error():
    with pytest.raises(pc.DeviceError):
        pc.Trainer(small(), device="cuda").step(*data())
