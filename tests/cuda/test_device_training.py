"""Trainings whose variables stay on the device: whoever reads, writes, saves or copies them has the newest values.

With `PYCNN_CUDA_MODULE` naming the emulated module, `pycnn_cuda_emulated.so` among the C++ tests, no GPU is needed.
"""

from __future__ import annotations

import copy
import pickle
import weakref

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.config import manual_seed
from pycnn.data import ArrayDataset

pytestmark = pytest.mark.cuda


def data(count=48, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.random((count, 6, 6, 2), np.float32)
    x[np.arange(count), y, y] += 2
    return x, y


def net():
    manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 3)
    )


def trainer(device="cuda", **options):
    options.setdefault("optimizer", optim.SGD(0.05, momentum=0.9))
    return pc.Trainer(net(), device=device, seed=1, **options)


def arrays(training):
    """All that a training holds: copies by name."""
    return {name: np.array(training.variables[name].numpy()) for name in training.variables}


def views(training):
    """Kept, these make every step copy all variables back."""
    return {name: training.variables[name].numpy() for name in training.variables}


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(actual[name], value), name


def steps(training, count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = data()
    return [training.step(x[part], y[part])["loss"] for part in (rng.permutation(48)[:16] for _ in range(count))]


def test_reading_gives_what_always_copying_gives():
    lazy, eager = trainer(), trainer()
    assert steps(lazy, 1) == steps(eager, 1)
    kept = views(eager)
    assert steps(lazy, 4, 1) == steps(eager, 4, 1)
    assert_same(arrays(lazy), {name: np.array(view) for name, view in kept.items()})
    assert_same(lazy.net.state_dict(), eager.net.state_dict())
    assert lazy.fingerprint() == eager.fingerprint()


def test_a_kept_view_follows_the_training_also_through_views_of_it():
    training = trainer()
    steps(training, 1)
    weight = training.net[0].weight
    view = weight.tensor.numpy()
    part = view[2:4].transpose(3, 0, 1, 2)
    del view
    for seed in range(3):
        steps(training, 2, seed)
        assert np.array_equal(part, np.array(weight.tensor.numpy())[2:4].transpose(3, 0, 1, 2))
    assert not part.flags.writeable
    with pytest.raises(ValueError, match="flag to True"):
        part.base.setflags(write=True)


def test_a_view_keeps_its_memory_when_all_else_is_gone():
    training = trainer()
    steps(training, 2)
    view = training.net[0].weight.tensor.numpy()
    before = view.copy()
    del training
    assert np.array_equal(view, before)


def test_what_is_written_between_steps_counts():
    lazy, eager = trainer(), trainer()
    kept = None
    for training in (lazy, eager):
        steps(training, 2)
        if training is eager:
            kept = views(training)
        state = {name: np.array(value) for name, value in training.net.state_dict().items()}
        state["5.bias"] = state["5.bias"] + 1
        training.net.load_state_dict(state)
        steps(training, 1, 1)
        training.net[0].weight.copy_(training.net[0].weight.numpy() * 0.5)
        steps(training, 1, 2)
        training.variables["train.seed"] = np.array([9], np.int64)
        steps(training, 2, 3)
    assert kept is not None
    assert_same(arrays(lazy), arrays(eager))


def test_copies_pickles_and_dlpack_hold_the_newest_values():
    training = trainer()
    steps(training, 3)
    image = data()[0][:4]
    copied, pickled = copy.deepcopy(training.net), pickle.loads(pickle.dumps(training.net))
    tensor = training.net[0].weight.tensor
    through = np.from_dlpack(tensor)
    steps(training, 2, 1)
    expected = trainer()
    steps(expected, 3)
    assert_same(copied.state_dict(), expected.net.state_dict())
    assert_same(pickled.state_dict(), expected.net.state_dict())
    assert np.array_equal(copied(image), expected.net(image))
    steps(expected, 2, 1)
    assert np.array_equal(through, expected.net[0].weight.tensor.numpy())
    assert np.array_equal(training.net(image), expected.net(image))


def test_a_training_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path):
    first, second = trainer(ema_decay=0.9), trainer(ema_decay=0.9)
    steps(first, 3)
    first.save_checkpoint(tmp_path / "at3.safetensors")
    steps(first, 3, 1)
    second.load_checkpoint(tmp_path / "at3.safetensors")
    steps(second, 3, 1)
    assert_same(arrays(second), arrays(first))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_fit_ahead_of_its_results_has_the_bits_of_fit_step_by_step(ema):
    class Losses(pc.train.Callback):
        def __init__(self):
            self.seen = []

        def on_step_end(self, trainer, logs):
            self.seen.append((trainer.steps, logs["loss"], float(trainer.net[5].bias.numpy()[0])))

    options = {"epochs": 2, "batch_size": 2, "progress": False}  # more steps in each than are begun ahead
    ahead, watched = (trainer(ema_decay=ema, schedule=optim.OneCycle()) for _ in range(2))
    losses = Losses()
    rows = [
        ahead.fit(data(), data(seed=1), **options).rows,
        watched.fit(data(), data(seed=1), callbacks=[losses], **options).rows,
    ]
    timed = ("seconds", "images_per_second", "data_wait_percent")
    plain = [[{k: v for k, v in row.items() if k not in timed} for row in each] for each in rows]
    assert plain[0] == plain[1]
    assert_same(arrays(ahead), arrays(watched))
    assert [step for step, _, _ in losses.seen] == list(range(1, 49))
    assert len({bias for _, _, bias in losses.seen}) > 5  # weights of every step were there to be read


def test_steps_under_way_keep_no_images():
    training = trainer()
    x, y = data()
    images = weakref.ref(x)
    pending = training.begin_batch(x, y, late=True)
    del x
    assert images() is None
    assert np.isfinite(pending.wait()["loss"])


def test_a_broken_epoch_counts_the_steps_that_were_made():
    class Breaks(ArrayDataset):
        left = 40

        def read(self, indices):
            self.left -= len(indices)
            if self.left < 0:
                raise OSError("no such image")
            return super().read(indices)

    dataset = Breaks(*data())
    whole, broken = trainer(), trainer()
    options = {"epochs": 1, "batch_size": 8, "progress": False, "workers": 1}
    with pytest.raises(OSError, match="no such image"):
        broken.fit(dataset, **options)
    assert broken.position.batch == broken.steps >= 2
    dataset.left = 10**6
    broken.fit(dataset, **options)
    assert broken.steps == 6
    whole.fit(dataset, **options)
    assert_same(arrays(broken), arrays(whole))


def test_a_loss_that_is_lost_is_found_and_its_step_named():
    x, y = data()
    training = trainer(optimizer=optim.SGD(1e30))
    with pytest.raises(pc.TrainingError, match=r"the loss is (nan|inf) at step [23] "), np.errstate(all="ignore"):
        training.fit((x, y), epochs=5, batch_size=8, progress=False)


def test_evaluation_between_steps_sees_them_and_harms_none():
    plain, measured = trainer(), trainer()
    on_cpu = trainer("cpu")
    for seed in range(3):
        assert steps(plain, 2, seed) == steps(measured, 2, seed)
        steps(on_cpu, 2, seed)
        actual, expected = measured.evaluate(data(seed=5), batch_size=10), on_cpu.evaluate(data(seed=5), batch_size=10)
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert measured.net.predict(data()[0]).shape == (48,)
    assert_same(arrays(measured), arrays(plain))


def test_runs_begun_ahead_give_the_results_of_calls():
    program = pc.compile(net(), (4, 6, 6, 2), device="cuda")
    assert program.overlaps
    x, _ = data()
    expected = [program(x[at : at + 4]) for at in range(0, 40, 4)]
    spoilt = np.empty((4, 6, 6, 2), np.float32)
    begun = []
    for at in range(0, 40, 4):
        spoilt[...] = x[at : at + 4]
        begun.append(program.begin(spoilt))
    spoilt[...] = np.nan
    for run, scores in zip(reversed(begun), reversed(expected), strict=True):
        assert np.array_equal(run.wait()["output"], scores)
    with pytest.raises(pc.ShapeError):
        program.begin(x[:3])
