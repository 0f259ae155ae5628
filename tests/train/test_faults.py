"""Training that goes wrong: what is bad is told, and the last good checkpoint is kept."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim, train


def data(n=16, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 6, 6, 1), np.float32) * np.float32(scale), rng.integers(0, 3, n)


def make(lr=0.1, **options):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return pc.Trainer(net, optimizer=optim.SGD(lr), **options)


class Fixed(optim.Schedule):
    def __init__(self, value):
        self.value = value

    def factor(self, progress):
        return self.value


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e39, "0.1", None, True])
def test_bad_learning_rate_is_refused_when_made_and_when_changed(rate):
    for kind in (optim.SGD, optim.Adam, optim.AdamW):
        with pytest.raises(pc.ArgumentError, match="lr must be"):
            kind(rate)
    trainer = make()
    with pytest.raises(pc.ArgumentError, match="SGD: lr must be"):
        trainer.optimizer.lr = rate
    assert trainer.optimizer.lr == 0.1


def test_learning_rate_may_be_changed_and_what_a_step_would_not_notice_may_not():
    x, y = data()
    slow, fast = make(0.1), make(0.1)
    fast.optimizer.lr = 0.2
    before = slow.net.state_dict()["3.bias"]
    for trainer in (slow, fast):
        trainer.step(x, y)
    moved = [t.net.state_dict()["3.bias"] - before for t in (slow, fast)]
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-5)
    with pytest.raises(pc.ArgumentError, match="momentum cannot be changed"):
        fast.optimizer.momentum = 0.9


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), "a", None])
def test_bad_factor_of_a_schedule_is_refused_and_changes_nothing(factor):
    trainer = make(schedule=Fixed(factor))
    before = trainer.fingerprint()
    with pytest.raises(pc.ArgumentError, match=r"Fixed gives the factor .* at step 0"):
        trainer.step(*data())
    assert trainer.fingerprint() == before


def test_overflow_in_the_last_step_of_an_epoch_does_not_replace_the_good_checkpoint(tmp_path):
    trainer = make()
    trainer.fit(data(), epochs=1, batch_size=8, checkpoint_dir=tmp_path, progress=False)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "last.safetensors" in kept
    trainer.optimizer.lr = 3e38
    with pytest.raises(
        pc.TrainingError, match=r"NaN or infinity \('0.weight'(.|\n)*step 3 (.|\n)*last good checkpoint"
    ):
        trainer.fit(data(8, scale=1e3), epochs=1, batch_size=8, checkpoint_dir=tmp_path, progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    fresh = make()
    with pytest.warns(UserWarning, match="batch_size|samples"):
        fresh.fit(data(8), epochs=2, batch_size=8, checkpoint_dir=tmp_path, resume=True, progress=False)
    assert np.isfinite(fresh.history["loss"]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_number_in_an_image_passes_through_and_stops_training(value):
    x, y = data()
    x[5, 2, 2] = value
    trainer = make()
    scores = trainer.net(x)
    assert not np.isfinite(scores[5]).any()
    assert np.isfinite(np.delete(scores, 5, axis=0)).all()
    with pytest.raises(pc.TrainingError, match=r"the loss is nan at step \d+(.|\n)*no checkpoint was written"):
        trainer.fit((x, y), epochs=2, batch_size=4, progress=False)


def test_epoch_that_changes_no_weight_warns_once():
    trainer = make()
    trainer.step(*data())
    trainer.optimizer.lr = 1e-42
    with pytest.warns(RuntimeWarning, match="epoch 1 changed no weight") as caught:
        trainer.fit(data(), epochs=3, batch_size=8, progress=False)
    assert [w.filename for w in caught] == [__file__]


def test_masked_and_negative_targets_are_refused():
    x, y = data()
    with pytest.raises(pc.DTypeError, match="step: y: a masked array"):
        make().step(x, np.ma.masked_array(y))
    soft = np.full((16, 3), 1 / 3, np.float32)
    soft[4, 1] = -0.5
    with pytest.raises(pc.ArgumentError, match=r"y has -0\.5 at \(4, 1\), a probability is at least 0"):
        make().step(x, soft)
    with pytest.warns(UserWarning, match="step: y: converted from float64 to float32"):
        make().step(x, np.abs(soft).astype(np.float64))


def test_labels_of_another_data_set_of_the_same_size_are_noticed(tmp_path):
    def fit(seed, resume):
        make().fit(data(seed=seed), epochs=1 + resume, checkpoint_dir=tmp_path, resume=resume, progress=False)

    fit(0, False)
    with pytest.warns(UserWarning, match="resumed from .*last.safetensors with other data: labels_crc32"):
        fit(1, True)


def test_checkpoint_that_cannot_be_written_ends_training_or_is_told(tmp_path, monkeypatch):
    trainer = make()
    trainer.fit(data(), epochs=1, checkpoint_dir=tmp_path, progress=False)
    kept = (tmp_path / "last.safetensors").read_bytes()

    def full(*arguments, **named):
        raise pc.FileError(28, "No space left on device", str(arguments[1]))

    monkeypatch.setattr(pc.nn.files, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*safetensors'"):
        trainer.fit(data(), epochs=1, checkpoint_dir=tmp_path, progress=False)
    with pytest.warns(RuntimeWarning, match=r"No space left.*training goes on without this checkpoint"):
        trainer.fit(data(), epochs=2, checkpoint_dir=tmp_path, progress=False, on_save_error="warn")
    assert trainer.position.epoch == 4
    assert (tmp_path / "last.safetensors").read_bytes() == kept
    with pytest.raises(pc.ArgumentError, match="on_save_error"):
        trainer.fit(data(), epochs=1, on_save_error="ignore")


def test_checkpoint_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f", tmp_path / "f" / "x"):
        with pytest.raises(pc.FileError, match="checkpoint_dir") as caught:
            make().fit(data(), epochs=1, checkpoint_dir=path, progress=False)
        assert caught.value.filename == str(path)
    with pytest.raises(pc.FileError, match="checkpoint_dir: is a file, expected a directory"):
        make().fit(data(), epochs=1, checkpoint_dir=tmp_path / "f", progress=False)


def test_second_trainer_in_another_thread_is_refused_by_fit_and_evaluate_goes_on():
    trainer = make()
    seen = []

    def inside(own, logs):
        with pytest.raises(pc.TrainingError, match="training already"):
            pc.Trainer(own.net, optimizer=optim.SGD(0.1)).fit(data(), epochs=1, progress=False)
        seen.append(own.evaluate(data())["loss"])

    trainer.fit(data(), epochs=1, progress=False, callbacks=[train.LambdaCallback(on_step_end=inside)])
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("where", ["train", "val"])
def test_labels_that_the_net_cannot_tell_are_refused_before_any_step_with_their_place_in_the_data_set(where):
    x, y = data(40)
    bad = y.copy()
    bad[33] = 7
    trainer = make()
    trainer.net.build((6, 6, 1))
    before = trainer.fingerprint()
    sets = {"train": (x, bad if where == "train" else y), "val": (x, bad if where == "val" else y)}
    with pytest.raises(
        pc.LabelError, match=rf"^fit: {where}: label 7 at position 33, the net has 3 classes \(0\.\.2\)"
    ):
        trainer.fit(**sets, epochs=1, batch_size=4, progress=False)
    assert (trainer.steps, trainer.fingerprint(), len(trainer.history)) == (0, before, 0)
    with pytest.raises(pc.LabelError, match="^evaluate: label 7 at position 33, the net has 3 classes"):
        trainer.evaluate((x, bad), batch_size=4)
    assert len(trainer.fit((x, y), val=(x, y), epochs=1, progress=False)) == 1


def test_validation_images_that_do_not_fit_are_refused_before_any_step():
    x, y = data()
    trainer = make()
    with pytest.raises(pc.ShapeError, match=r"dense '3': input has 48 features, weight expects 64"):
        trainer.fit((x, y), val=(np.ascontiguousarray(x[:, :5]), y), epochs=1, progress=False)
    with pytest.raises(pc.ShapeError, match=r"channels-last"):
        trainer.fit((x, y), val=(np.zeros((16, 1, 6, 6), np.float32), y), epochs=1, progress=False)
    assert trainer.steps == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"epochs": 0}, pc.ArgumentError, "fit: epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, pc.ArgumentError, "fit: epochs must be an integer, got 1.5"),
        ({"epochs": True}, pc.ArgumentError, "fit: epochs must be an integer, got True"),
        ({"resume": 3}, pc.ArgumentError, "fit: resume: expected a path, got 3"),
        ({"resume": True}, pc.ArgumentError, "resume=True needs checkpoint_dir"),
        ({"resume": "/nowhere/c"}, pc.FileError, "'/nowhere/c'"),
        ({"checkpoint_dir": 3}, pc.ArgumentError, "fit: checkpoint_dir: expected a path, got 3"),
        ({"transform": 3}, pc.ArgumentError, "transform is 3"),
        ({"val": 3}, pc.ArgumentError, r"fit: val: int is no data set"),
        ({"val_transform": 3, "val": data()}, pc.ArgumentError, "transform is 3"),
    ],
)
def test_bad_arguments_of_fit_are_refused_before_any_step(options, error, text):
    trainer = make()
    with pytest.raises(error, match=text):
        trainer.fit(data(), **{"epochs": 1, "progress": False, **options})
    assert trainer.steps == 0
    assert len(trainer.fit(data(), epochs=np.int64(1), progress=False)) == 1


def test_model_checkpoint_that_cannot_be_written_forgets_nothing(tmp_path):
    keeper = train.ModelCheckpoint(tmp_path / "run", keep=1)
    trainer = make()
    trainer.fit(data(), epochs=1, callbacks=[keeper], progress=False)
    before = keeper.state_dict(), {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    (tmp_path / "run" / "epoch-0002.safetensors").mkdir()
    with pytest.raises(pc.FileError, match="Is a directory: .*epoch-0002.safetensors"):
        trainer.fit(data(), epochs=1, callbacks=[keeper], progress=False)
    (tmp_path / "run" / "epoch-0002.safetensors").rmdir()
    assert (keeper.state_dict(), {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}) == before
    (tmp_path / "f").write_text("")
    for folder, text in (
        (tmp_path / "f", "is a file, expected a directory"),
        (tmp_path / "f" / "x", "Not a directory"),
    ):
        with pytest.raises(pc.FileError, match=f"ModelCheckpoint: {text}") as caught:
            make().fit(data(), epochs=1, callbacks=[train.ModelCheckpoint(folder)], progress=False)
        assert caught.value.filename == str(folder)
