"""What a training leaves behind: curves as pictures, event files for TensorBoard, CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import struct

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, train


def fit(callbacks=(), **options):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    x = rng.random((40, 6, 6, 1), np.float32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(0.1), seed=1)
    options = {"epochs": 3, "batch_size": 16, "progress": False, **options}
    trainer.fit((x, y), val=(x, y), callbacks=callbacks, **options)
    return trainer


# ---- Curves


def pixels(path):
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int64)


def test_curves_show_what_the_history_holds(tmp_path):
    pytest.importorskip("matplotlib")
    history = fit().history
    figure = history.plot(tmp_path / "new" / "curves.png", title="Three epochs")
    loss, accuracy, rate = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in loss.get_lines()}
    assert list(drawn["training"]) == history["loss"]
    assert list(drawn["held out"]) == history["val_loss"]
    drawn = {line.get_label(): line.get_ydata() for line in accuracy.get_lines()}
    assert list(drawn["held out"]) == [100 * value for value in history["val_accuracy"]]
    assert list(rate.get_lines()[0].get_ydata()) == history["learning_rate"]
    assert list(rate.get_lines()[0].get_xdata()) == [1, 2, 3]
    assert (loss.get_ylabel(), accuracy.get_ylabel(), rate.get_xlabel()) == (
        "loss (mean over images)", "accuracy (%)", "epoch",
    )  # fmt: skip
    assert figure.get_suptitle() == "Three epochs"
    picture = pixels(tmp_path / "new" / "curves.png")
    assert picture.shape[0] > 700
    assert picture.shape[1] > 700
    assert (picture.min(axis=2) < 200).mean() > 0.01
    # Both colours of the lines are there.
    for color in ((0x1F, 0x77, 0xB4), (0xD9, 0x5F, 0x02)):
        assert (np.abs(picture - color).sum(axis=2) < 12).sum() > 100


def test_curves_of_other_losses_have_no_accuracy(tmp_path):
    pytest.importorskip("matplotlib")
    history = train.History([{"epoch": 1, "loss": 2.0, "learning_rate": 0.1}, {"epoch": 2, "loss": float("nan")}])
    assert len(history.plot().axes) == 2


def test_curves_need_an_epoch_and_matplotlib(monkeypatch):
    with pytest.raises(pc.ArgumentError, match="no epoch"):
        train.History().plot()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(pc.UnsupportedError, match=r"History\.plot needs matplotlib(.|\n)*pycnn\[plot\]"):
        train.History([{"epoch": 1, "loss": 1.0}]).plot()


# ---- Event files


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def message(data):
    """Fields of a protocol buffer: number -> list of values."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        else:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        found.setdefault(number, []).append(value)
    return found


def scalars(path):
    """(tag, step, value) of an event file: records of length, checksum, event, checksum."""
    data, at, rows = path.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = message(data[at + 12 : at + 12 + size])
        at += 12 + size + 4
        for summary in event.get(5, []):
            for value in message(summary)[1]:
                entry = message(value)
                (number,) = struct.unpack("<f", entry[2][0])
                rows.append((entry[1][0].decode(), event.get(2, [0])[0], number))
    return rows


def test_event_file_holds_every_epoch_and_some_steps(tmp_path):
    pytest.importorskip("tensorboardX")
    trainer = fit([train.TensorBoard(tmp_path, every=2)])
    (path,) = tmp_path.glob("events.out.tfevents.*")
    rows = scalars(path)
    history = trainer.history
    for tag, column in (
        ("loss/train", "loss"), ("loss/held_out", "val_loss"), ("accuracy/train", "accuracy"),
        ("accuracy/held_out", "val_accuracy"), ("learning_rate", "learning_rate"),
    ):  # fmt: skip
        found = [(step, value) for name, step, value in rows if name == tag]
        assert [step for step, _ in found] == [3, 6, 9]
        assert [value for _, value in found] == pytest.approx(history[column], rel=1e-6), tag
    assert [step for name, step, _ in rows if name == "loss/step"] == [2, 4, 6, 8]


def test_resumed_training_adds_to_the_events(tmp_path):
    pytest.importorskip("tensorboardX")
    for epochs in (1, 3):
        fit([train.TensorBoard(tmp_path, every=0)], epochs=epochs, checkpoint_dir=tmp_path, resume=True)
    rows = [row for path in sorted(tmp_path.glob("events*")) for row in scalars(path)]
    assert sorted(step for name, step, _ in rows if name == "loss/train") == [3, 6, 9]


def test_event_files_need_tensorboardx(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(pc.UnsupportedError, match=r"tensorboardX(.|\n)*pycnn\[tensorboard\]"):
        train.TensorBoard(tmp_path)


def test_bad_interval_is_refused(tmp_path):
    with pytest.raises(pc.ArgumentError, match="every"):
        train.TensorBoard(tmp_path, every=-1)


# ---- Tables


def test_csv_and_json_lines_hold_the_same_rows(tmp_path):
    trainer = fit([train.CSVLogger(tmp_path / "h.csv"), train.JSONLines(tmp_path / "h.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert lines == trainer.history.rows
    with (tmp_path / "h.csv").open(newline="") as file:
        assert [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)] == lines
