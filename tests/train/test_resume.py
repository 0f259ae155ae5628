"""Checkpoints: training that was interrupted and resumed has the bits of uninterrupted training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_nets import bright_spots

import pycnn as pc
from pycnn import nn, optim, train


def make(**options):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    )
    options.setdefault("optimizer", optim.SGD(0.1, momentum=0.9, weight_decay=1e-3))
    options.setdefault("schedule", optim.CosineWithWarmup(3))
    if callable(options["schedule"]):  # a schedule that remembers must be a new one
        options["schedule"] = options["schedule"]()
    return pc.Trainer(net, seed=5, **options)


def comparable(history):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "data_wait_percent")}
        for row in history
    ]


def everything(trainer):
    names = [n for n in trainer.variables if not n.startswith("constant.")]
    return {name: trainer.variables[name].numpy().copy() for name in names}


def same(a, b):
    return set(a) == set(b) and all(np.array_equal(a[k], b[k]) for k in a)


class StopAt(train.Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_step_end(self, trainer, logs):
        if trainer.steps == self.step:
            os.kill(os.getpid(), self.number)


OPTIONS = [
    {},
    {"optimizer": optim.Adam(0.01), "ema_decay": 0.9},
    {"optimizer": optim.AdamW(0.01), "clip_norm": 0.5},
    {"schedule": None},
    {"schedule": lambda: optim.OneCycle()},
    {"schedule": lambda: optim.StepLR([1, 2])},
    # Never content: it reduces after each epoch but the first.
    {"schedule": lambda: optim.ReduceOnPlateau(0.5, patience=0, threshold=10.0)},
]


@pytest.mark.parametrize(
    "options", OPTIONS, ids=["sgd", "adam ema", "adamw clipped", "constant", "one cycle", "steps", "plateau"]
)
@pytest.mark.parametrize("step", [3, 4, 7])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, options, step):
    shift = pc.data.transforms.RandomCrop(padding=1)
    arguments = {"epochs": 3, "batch_size": 16, "transform": shift, "progress": False}
    whole = make(**options)
    whole.fit(bright_spots(), val=bright_spots(seed=1), **arguments)

    first = make(**options)
    with pytest.raises(KeyboardInterrupt):
        first.fit(
            bright_spots(), val=bright_spots(seed=1), callbacks=[StopAt(step)], checkpoint_dir=tmp_path, **arguments
        )
    assert first.steps == step
    second = make(**options)
    second.fit(
        bright_spots(),
        val=bright_spots(seed=1),
        checkpoint_dir=tmp_path,
        resume=True,
        **arguments,
    )
    assert second.fingerprint() == whole.fingerprint()
    assert same(everything(second), everything(whole))
    assert comparable(second.history) == comparable(whole.history)
    if options.get("schedule"):
        rates = second.history["learning_rate"]
        assert len(rates) == 3
        assert len(set(rates)) > 1


def test_interruption_in_memory_goes_on_inside_the_epoch():
    whole, t = make(schedule=None), make(schedule=None)
    whole.fit(bright_spots(), epochs=2, batch_size=16, progress=False)
    with pytest.raises(KeyboardInterrupt):
        t.fit(bright_spots(), epochs=2, batch_size=16, callbacks=[StopAt(2)], progress=False)
    t.fit(bright_spots(), epochs=2, batch_size=16, progress=False)
    assert t.fingerprint() == whole.fingerprint()


def test_sigterm_ends_with_143_after_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    t = make()
    with pytest.raises(SystemExit) as caught:
        t.fit(
            bright_spots(),
            epochs=2,
            batch_size=16,
            callbacks=[StopAt(2, signal.SIGTERM)],
            checkpoint_dir=tmp_path,
            progress=False,
        )
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "last.safetensors").exists()


def test_handlers_are_put_back_after_success_and_error():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    make().fit(bright_spots(), epochs=1, batch_size=16, progress=False)
    with pytest.raises(ZeroDivisionError):
        make().fit(
            bright_spots(),
            epochs=1,
            batch_size=16,
            callbacks=[train.LambdaCallback(on_step_end=lambda *a: 1 / 0)],
            progress=False,
        )
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_fit_works_outside_of_the_main_thread():
    t, reference = make(), make()
    worker = threading.Thread(target=t.fit, args=(bright_spots(),), kwargs={"epochs": 1, "progress": False})
    worker.start()
    worker.join()
    reference.fit(bright_spots(), epochs=1, progress=False)
    assert t.fingerprint() == reference.fingerprint()


def test_ten_steps_and_ten_more_equal_twenty_through_a_file(tmp_path):
    batches = [bright_spots(16, seed=i) for i in range(20)]
    whole, first, second = (make(schedule=None) for _ in range(3))
    for batch in batches:
        whole.step(batch.images, batch.labels)
    for batch in batches[:10]:
        first.step(batch.images, batch.labels)
    first.save_checkpoint(tmp_path / "ten.safetensors")
    second.load_checkpoint(tmp_path / "ten.safetensors")
    assert second.steps == 10
    for batch in batches[10:]:
        second.step(batch.images, batch.labels)
    assert same(everything(second), everything(whole))


def test_loading_into_a_trainer_that_has_trained_rewinds_it(tmp_path):
    batch = bright_spots(16)
    t = make(schedule=None)
    t.step(batch.images, batch.labels)
    t.save_checkpoint(tmp_path / "one.safetensors")
    t.step(batch.images, batch.labels)
    expected = everything(t)
    t.load_checkpoint(tmp_path / "one.safetensors")
    t.step(batch.images, batch.labels)
    assert same(everything(t), expected)


def test_checkpoint_is_a_model_file(tmp_path):
    t = make()
    t.fit(bright_spots(), epochs=1, batch_size=16, checkpoint_dir=tmp_path, progress=False)
    net = pc.load(tmp_path / "last.safetensors")
    assert np.array_equal(net(bright_spots().images), t.net(bright_spots().images))
    assert net.metadata["class_names"] == '["a", "b", "c"]'


def saved(tmp_path, **options):
    t = make(**options)
    batch = bright_spots(16)
    t.step(batch.images, batch.labels)
    t.save_checkpoint(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimizer": optim.Adam(0.01)}, "optimizer 'SGD', this trainer has 'Adam'"),
        ({"loss": "mse"}, "loss 'cross_entropy', this trainer has 'mse'"),
        ({"ema_decay": 0.9}, "ema"),
    ],
)
def test_checkpoint_of_another_training_is_refused_and_nothing_changes(tmp_path, options, text):
    path = saved(tmp_path, schedule=None)
    other = make(**{"schedule": None, **options})
    before = everything(other)
    fingerprint = other.fingerprint()
    with pytest.raises(pc.ArgumentError, match=text):
        other.load_checkpoint(path)
    assert other.fingerprint() == fingerprint
    assert same(everything(other), before)


def test_checkpoint_of_another_net_is_refused_by_name(tmp_path):
    path = saved(tmp_path, schedule=None)
    other = pc.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), optimizer=optim.SGD(0.1), seed=5)
    with (
        pytest.warns(UserWarning, match="settings"),
        pytest.raises(pc.ArgumentError, match=r"another net(.|\n)*0.weight"),
    ):
        other.load_checkpoint(path)


def test_other_hyper_parameters_are_said(tmp_path):
    path = saved(tmp_path, schedule=None)
    with pytest.warns(UserWarning, match="lr=0.1.*lr=0.2"):
        make(schedule=None, optimizer=optim.SGD(0.2, momentum=0.9, weight_decay=1e-3)).load_checkpoint(path)


def test_other_groups_of_parameters_are_said(tmp_path):
    path = saved(tmp_path, schedule=None)
    groups = [optim.Group("*", lr_scale=0.5)]
    with pytest.warns(UserWarning, match="groups None, goes on with Group.*lr_scale=0.5"):
        make(schedule=None, optimizer=optim.SGD(0.1, momentum=0.9, weight_decay=1e-3, groups=groups)).load_checkpoint(
            path
        )


def test_other_data_within_an_epoch_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make().fit(
            bright_spots(), epochs=2, batch_size=16, callbacks=[StopAt(2)], checkpoint_dir=tmp_path, progress=False
        )
    with pytest.raises(pc.ArgumentError, match="batch_size 16 -> 8"):
        make().fit(
            bright_spots(),
            epochs=2,
            batch_size=8,
            checkpoint_dir=tmp_path,
            resume=True,
            progress=False,
        )


def test_model_file_without_state_is_refused_with_a_hint(tmp_path):
    t = make()
    t.net.build((6, 6, 1)).save(tmp_path / "net.safetensors")
    with pytest.raises(pc.FormatError, match=r"no training state(.|\n)*pycnn\.load"):
        t.load_checkpoint(tmp_path / "net.safetensors")


def test_checkpoint_before_the_first_step_is_refused(tmp_path):
    with pytest.raises(pc.ArgumentError, match="no step"):
        make().save_checkpoint(tmp_path / "x.safetensors")


def test_resume_without_a_checkpoint_begins(tmp_path):
    history = make().fit(bright_spots(), epochs=1, batch_size=16, checkpoint_dir=tmp_path, resume=True, progress=False)
    assert len(history) == 1


def test_early_stopping_remembers_over_a_resume(tmp_path):
    def fit(t, epochs, resume):
        stopping = train.EarlyStopping(2, monitor="val_loss", min_delta=10.0)
        return t.fit(
            bright_spots(),
            val=bright_spots(seed=1),
            epochs=epochs,
            batch_size=16,
            callbacks=[stopping],
            checkpoint_dir=tmp_path,
            resume=resume,
            progress=False,
        )

    fit(make(schedule=None), 2, False)
    assert len(fit(make(schedule=None), 20, True)) == 4


def test_killed_process_resumes_to_the_same_bits(tmp_path):
    """kill -9 at any moment: what was saved loads, and the end is that of undisturbed training."""
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_resume import bright_spots, make
make(schedule=None).fit(bright_spots(), epochs=10**6, batch_size=16, checkpoint_dir={str(tmp_path)!r})
"""
    with subprocess.Popen([sys.executable, "-P", "-c", code], stderr=subprocess.PIPE, text=True) as victim:
        for _ in range(4):
            assert victim.stderr.readline().startswith("epoch ")
        time.sleep(0.013)
        victim.kill()
    resumed, whole = make(schedule=None), make(schedule=None)
    resumed.load_checkpoint(tmp_path / "last.safetensors")
    epochs = resumed.position.epoch + 1
    assert epochs > 4
    resumed.fit(bright_spots(), epochs=1, batch_size=16, progress=False)
    whole.fit(bright_spots(), epochs=epochs, batch_size=16, progress=False)
    assert same(everything(resumed), everything(whole))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda state: state.pop("position"), "position"),
        (lambda state: state.update(format=99), "state of format 99, this version reads 1"),
        (lambda state: state.update(tensors=None), "does not list"),
        (lambda state: state.update(identity=3), "not a trainer's state"),
        (lambda state: state.update(steps="many"), "damaged"),
        (lambda state: state["position"].update(data=3), r"damaged \(data is 3\)"),
        (lambda state: state["position"].update(epoch="x"), r"damaged \(epoch is 'x'\)"),
        (lambda state: state["position"].update(batch=-1), r"damaged \(batch is -1\)"),
        (lambda state: state["position"].update(best=[]), r"damaged \(best is \[\]\)"),
        (lambda state: state["position"]["totals"].update(sums={"loss": "a"}), r"damaged \(loss is 'a'\)"),
        (lambda state: state["position"].update(color=1), "damaged"),
        (lambda state: state.update(schedule=3), "damaged"),
    ],
)
def test_damaged_state_is_refused_and_nothing_changes(tmp_path, damage, text):
    path = saved(tmp_path, schedule=None)
    tensors, metadata = pc.nn.files.checkpoint.read_tensors(path)
    state = json.loads(metadata["trainer"])
    damage(state)
    arrays = {name: np.zeros_like(array) for name, array in tensors.items()}
    pc.nn.files.checkpoint.write_tensors(tmp_path / "d.safetensors", arrays, {**metadata, "trainer": json.dumps(state)})
    t = make(schedule=None)
    before = t.fingerprint()
    with pytest.raises(pc.FormatError, match=text):
        t.load_checkpoint(tmp_path / "d.safetensors")
    assert t.fingerprint() == before


def test_callback_that_remembers_must_be_there_again(tmp_path):
    make().fit(
        bright_spots(),
        epochs=1,
        batch_size=16,
        callbacks=[train.EarlyStopping()],
        checkpoint_dir=tmp_path,
        progress=False,
    )
    with pytest.raises(pc.ArgumentError, match="EarlyStopping"):
        make().fit(bright_spots(), epochs=2, batch_size=16, checkpoint_dir=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("lost", ["optim.", "train.step"])
def test_checkpoint_without_optimizer_state_is_refused_and_changes_nothing(tmp_path, lost):
    from pycnn import _core

    rng = np.random.default_rng(0)
    x, y = rng.random((4, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, 4)

    def trainer():
        return pc.Trainer(pc.models.create("lenet5"), optimizer=pc.optim.SGD(lr=0.1, momentum=0.9))

    first = trainer()
    first.step(x, y)
    path = tmp_path / "state.safetensors"
    first.save_checkpoint(path)
    graph, tensors, metadata = _core.load_model(str(path))
    _core.save_model(str(path), graph, {k: v for k, v in tensors.items() if not k.startswith(lost)}, metadata)
    second = trainer()
    second.step(x, y)
    before = second.fingerprint()
    with pytest.raises(pc.FormatError, match="missing"):
        second.load_checkpoint(path)
    assert second.fingerprint() == before


def test_trainable_set_by_hand_takes_effect_at_the_next_step():
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, 4)
    net = pc.models.create("lenet5")
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1))
    trainer.step(x, y)
    weight = next(iter(net.parameters()))
    weight.trainable = False
    before = weight.numpy()
    trainer.step(x, y)
    np.testing.assert_array_equal(weight.numpy(), before)


def test_resume_that_is_refused_leaves_the_trainer_as_it_was(tmp_path):
    """Batch size and callbacks are compared before anything of the file is taken over."""
    options = {"batch_size": 16, "checkpoint_dir": tmp_path, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        make(schedule=None).fit(bright_spots(), epochs=2, callbacks=[train.EarlyStopping(), StopAt(2)], **options)
    other = make(schedule=None)
    batch = bright_spots(16, seed=3)
    other.step(batch.images, batch.labels)
    before, position = everything(other), other.position
    for wrong, text in (({"batch_size": 8}, "batch_size 16 -> 8"), ({"callbacks": []}, "EarlyStopping")):
        with pytest.raises(pc.ArgumentError, match=text):
            other.fit(
                bright_spots(), epochs=2, resume=True, **{**options, "callbacks": [train.EarlyStopping()], **wrong}
            )
        assert same(everything(other), before)
        assert (other.steps, len(other.history)) == (1, 0)
        assert other.position is position
    assert len(other.fit(bright_spots(), epochs=2, resume=True, callbacks=[train.EarlyStopping()], **options)) == 2


def test_checkpoint_of_lost_weights_loads_and_is_reported(tmp_path):
    path = saved(tmp_path, schedule=None)
    tensors, metadata = pc.nn.files.checkpoint.read_tensors(path)
    tensors = {**tensors, "5.bias": np.full(3, np.nan, np.float32)}
    pc.nn.files.checkpoint.write_tensors(path, tensors, metadata)
    t = make(schedule=None)
    with pytest.warns(RuntimeWarning, match=r"load_checkpoint '.*c.safetensors': NaN or infinity in '5.bias'"):
        t.load_checkpoint(path)
    assert np.isnan(t.net.state_dict()["5.bias"]).all()
