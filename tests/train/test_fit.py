"""`Trainer.fit`, `evaluate`, callbacks, history and progress."""

from __future__ import annotations

import csv
import io
import json
import sys
import time

import numpy as np
import pytest
from tiny_nets import bright_spots

import pycnn as pc
from pycnn import nn, optim, train
from pycnn.train._progress import Progress


def trainer(**options):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    options.setdefault("optimizer", optim.SGD(0.1, momentum=0.9))
    return pc.Trainer(net, **options)


def test_best_is_left_out_on_request(tmp_path):
    images, labels = np.zeros((8, 28, 28, 1), np.float32), np.arange(8)
    for best in (True, False):
        trainer = pc.Trainer(pc.models.create("lenet5"))
        folder = tmp_path / str(best)
        trainer.fit(
            (images, labels), val=(images, labels), epochs=1, checkpoint_dir=folder, save_best=best, progress=False
        )
        assert {path.name for path in folder.iterdir()} == {"last.safetensors", *(["best.safetensors"] * best)}


def test_history_holds_an_epoch_a_row():
    t = trainer()
    history = t.fit(bright_spots(), val=bright_spots(seed=1), epochs=3, batch_size=16, progress=False)
    assert history["epoch"] == [1, 2, 3]
    assert history["loss"][-1] < history["loss"][0]
    assert {"val_loss", "val_accuracy", "learning_rate", "images_per_second"} <= set(history.columns)
    assert history.fingerprint == train.weights_fingerprint(t.net)
    assert t.steps == 3 * 4
    text = history.to_csv()
    assert [row["epoch"] for row in csv.DictReader(text.splitlines())] == ["1", "2", "3"]
    json.dumps(history.to_dict())


def test_layers_that_have_seen_no_input_get_their_sizes_from_the_data():
    def fitted(*sizes):
        pc.manual_seed(4)
        net = nn.Sequential(nn.Conv2d(sizes[0], 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(sizes[1], 3))
        t = pc.Trainer(net, optimizer=optim.SGD(0.1), seed=2)
        return t.fit(
            bright_spots(), epochs=1, batch_size=16, transform=pc.data.transforms.RandomShift(1), progress=False
        )

    assert fitted(None, None).fingerprint == fitted(1, 64).fingerprint


def test_second_fit_goes_on():
    t, once = trainer(), trainer()
    t.fit(bright_spots(), epochs=1, batch_size=16, progress=False)
    t.fit(bright_spots(), epochs=2, batch_size=16, progress=False)
    once.fit(bright_spots(), epochs=3, batch_size=16, progress=False)
    assert t.history["epoch"] == [1, 2, 3]
    assert t.fingerprint() == once.fingerprint()


def test_short_last_batch_is_trained_on_or_left_out():
    whole, dropped = trainer(), trainer()
    whole.fit(bright_spots(50), epochs=1, batch_size=16, progress=False)
    dropped.fit(bright_spots(50), epochs=1, batch_size=16, drop_last=True, progress=False)
    assert (whole.steps, dropped.steps) == (4, 3)


def test_workers_do_not_change_the_bits():
    def run(workers):
        t = trainer()
        t.fit(bright_spots(), epochs=2, batch_size=16, workers=workers, progress=False)
        return t.fingerprint()

    assert run(0) == run(1) == run(3)


def test_evaluate_counts_every_sample_once():
    t, held_out = trainer(), bright_spots(37, seed=2)
    scores = t.net(held_out.images)
    picked = scores[np.arange(37), held_out.labels]
    loss = (np.log(np.exp(scores.astype(np.float64)).sum(1)) - picked).mean()
    accuracy = (scores.argmax(1) == held_out.labels).mean()
    for batch_size in (5, 16, 37, 100):
        result = t.evaluate(held_out, batch_size=batch_size)
        assert result["loss"] == pytest.approx(loss, rel=1e-5)
        assert result["accuracy"] == pytest.approx(accuracy)


def test_evaluate_takes_arrays_and_changes_nothing():
    t, d = trainer(), bright_spots()
    before = t.fingerprint()
    assert t.evaluate((d.images, d.labels)) == t.evaluate(d)
    assert t.fingerprint() == before
    assert t.steps == 0


def test_evaluate_refuses_labels_the_net_does_not_have():
    with pytest.raises(pc.LabelError, match="label 7 at position 1"):
        trainer().evaluate((np.zeros((2, 6, 6, 1), np.float32), np.array([0, 7])))


def test_predict_gives_classes():
    t, d = trainer(), bright_spots()
    assert np.array_equal(t.predict(d.images), t.net(d.images).argmax(1))


def test_nan_loss_stops_with_step_and_last_good_checkpoint(tmp_path):
    t = trainer()
    t.fit(bright_spots(), epochs=1, batch_size=16, checkpoint_dir=tmp_path, progress=False)
    good = (tmp_path / "last.safetensors").read_bytes()
    d = bright_spots()
    d.images[3] = np.nan
    with pytest.raises(pc.Error, match=r"loss is nan at step [5-8](.|\n)*last.safetensors"):
        t.fit(d, epochs=1, batch_size=16, checkpoint_dir=tmp_path, progress=False)
    assert (tmp_path / "last.safetensors").read_bytes() == good


def test_divergence_is_noticed():
    t = trainer(optimizer=optim.SGD(1e30))
    with pytest.raises(pc.Error, match="smaller learning rate"):
        t.fit(bright_spots(), epochs=5, batch_size=16, progress=False)


def test_schedule_sets_the_rate():
    rates = []
    t = trainer(optimizer=optim.SGD(1.0), schedule=optim.CosineWithWarmup(2))
    callback = train.LambdaCallback(on_step_end=lambda tr, logs: rates.append(tr.rate))
    t.fit(bright_spots(48), epochs=2, batch_size=16, callbacks=[callback], progress=False)
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(0.5 * (1 + np.cos(np.pi * 3 / 4)))
    assert float(t.variables["train.learning_rate"].numpy()[0]) == pytest.approx(rates[-1])


def test_plateau_hears_the_validation():
    t = trainer(optimizer=optim.SGD(1e-6), schedule=optim.ReduceOnPlateau(patience=0, mode="min"))
    t.fit(bright_spots(), val=bright_spots(), epochs=3, batch_size=16, progress=False)
    assert t.rate < 1e-6


def test_early_stopping_ends_after_patience():
    t = trainer(optimizer=optim.SGD(1e-6))
    stopping = train.EarlyStopping(patience=1, monitor="val_loss", min_delta=1.0)
    history = t.fit(
        bright_spots(), val=bright_spots(seed=1), epochs=20, batch_size=16, callbacks=[stopping], progress=False
    )
    assert len(history) == 3


def test_early_stopping_of_an_unknown_value_lists_what_there_is():
    with pytest.raises(pc.ArgumentError, match="'val_f1'(.|\n)*loss"):
        trainer().fit(
            bright_spots(),
            epochs=1,
            callbacks=[train.EarlyStopping(monitor="val_f1")],
            progress=False,
        )


def test_model_checkpoint_keeps_the_last_and_the_best(tmp_path):
    t = trainer()
    keeper = train.ModelCheckpoint(tmp_path / "run", keep=2)
    t.fit(bright_spots(), val=bright_spots(seed=1), epochs=4, batch_size=16, callbacks=[keeper], progress=False)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["best.safetensors", "epoch-0003.safetensors", "epoch-0004.safetensors"]
    last = pc.load(tmp_path / "run" / "epoch-0004.safetensors")
    assert train.weights_fingerprint(last) == t.fingerprint()


def test_loggers_write_after_every_epoch(tmp_path):
    callbacks = [train.CSVLogger(tmp_path / "a" / "log.csv"), train.JSONLines(tmp_path / "log.jsonl")]
    trainer().fit(bright_spots(), epochs=2, batch_size=16, callbacks=callbacks, progress=False)
    rows = list(csv.DictReader((tmp_path / "a" / "log.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert float(rows[1]["loss"]) == lines[1]["loss"]


def test_progress_is_a_line_an_epoch_on_stderr(capsys):
    trainer().fit(bright_spots(), val=bright_spots(), epochs=2, batch_size=16)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "images/s" in lines[1]
    assert "data wait" in lines[1]
    assert lines[2].startswith("weights ")


def test_no_progress_prints_nothing(capsys):
    trainer().fit(bright_spots(), epochs=1, batch_size=16, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1, "batch_size": 0}, "batch_size"),
        ({"epochs": 1, "callbacks": [print]}, "callback"),
        ({"epochs": 1, "resume": True}, "checkpoint_dir"),
        ({"epochs": 1, "transform": 3}, "transform"),
    ],
)
def test_bad_arguments_are_refused(options, text):
    with pytest.raises(pc.ArgumentError, match=text):
        trainer().fit(bright_spots(), progress=False, **options)


def test_data_of_another_kind_is_refused():
    with pytest.raises(pc.ArgumentError, match="no data set"):
        trainer().fit([1, 2, 3], epochs=1)


def test_nested_fit_is_refused():
    t = trainer()
    nested = train.LambdaCallback(on_epoch_end=lambda tr, logs: tr.fit(bright_spots(), epochs=1))
    with pytest.raises(pc.Error, match="training already"):
        t.fit(bright_spots(), epochs=1, batch_size=16, callbacks=[nested], progress=False)


def test_validation_uses_the_averages_when_there_are_some():
    t = trainer(ema_decay=0.9)
    held_out = bright_spots(seed=1)
    history = t.fit(bright_spots(), val=held_out, epochs=2, batch_size=16, progress=False)
    assert history["val_loss"][-1] == t.evaluate(held_out, batch_size=16, averages=True)["loss"]
    assert history["val_loss"][-1] != t.evaluate(held_out, batch_size=16)["loss"]


def test_augmentation_is_a_function_of_the_seed():
    def run(seed):
        t = trainer(seed=seed)
        shift = pc.data.transforms.RandomCrop(6, padding=1)
        t.fit(bright_spots(), epochs=1, batch_size=16, transform=shift, progress=False)
        return t.fingerprint()

    assert run(3) == run(3) != run(4)


def test_status_line_on_a_terminal_is_drawn_at_most_ten_times_a_second(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(enabled=True, epochs=1)
    started = time.monotonic()
    progress.begin(0, 4000, 0)
    for _ in range(4000):
        progress.step(1, 0.5, 3.0)
        time.sleep(0.0001)
    progress.end(None)
    seconds = time.monotonic() - started
    drawn = terminal.getvalue().split("\r")
    assert any("epoch 1/1" in line and "images/s" in line and "data wait 3%" in line for line in drawn)
    assert len(drawn) <= 10 * seconds + 6
