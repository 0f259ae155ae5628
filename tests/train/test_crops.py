"""Evaluation over crops, and training on mixed batches."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn.data import transforms
from pycnn.errors import ArgumentError, LabelError, ShapeError
from pycnn.train import evaluate_crops, predict_crops

CLASSES = 7


@pytest.fixture
def rng():
    return np.random.default_rng(20260705)


class Brightness:
    """Probabilities that follow from one pixel, so that every crop's part can be told."""

    def predict_proba(self, x, *, batch_size=256):
        assert batch_size == 40
        corner = x[:, 0, 0, 0].astype(np.float64) / 255
        rest = (1 - corner) / (CLASSES - 1)
        scores = np.repeat(rest[:, None], CLASSES, axis=1)
        scores[:, 2] = corner
        return scores.astype(np.float32)


@pytest.mark.parametrize("crops", [2, 5, 10])
def test_probabilities_are_averaged_over_the_crops_of_each_image(rng, crops):
    images = rng.integers(0, 256, (3, 9, 8, 1)).astype(np.uint8)
    scores = predict_crops(Brightness(), images, size=(6, 5), crops=crops, batch_size=40)
    places = [(2, 2)] if crops == 2 else [(0, 0), (0, 3), (3, 0), (3, 3), (2, 2)]
    values = [images[:, y, x, 0] for y, x in places]
    if crops != 5:
        values += [images[:, y, x + 4, 0] for y, x in places]
    expected = np.mean(values, axis=0) / 255
    assert np.abs(scores[:, 2] - expected).max() < 1e-6
    assert np.abs(scores.sum(axis=1) - 1).max() < 1e-6


def test_measures_are_those_of_the_averaged_probabilities(rng):
    images = rng.integers(0, 256, (33, 9, 8, 1)).astype(np.uint8)
    labels = rng.integers(0, CLASSES, 33)
    labels[:10] = 2
    scores = predict_crops(Brightness(), images, size=5, batch_size=40).astype(np.float64)
    measured = evaluate_crops(Brightness(), (images, labels), size=5, batch_size=40)
    assert measured["accuracy"] == (scores.argmax(axis=1) == labels).mean()
    five = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert measured["top5"] == (five == labels[:, None]).any(axis=1).mean()
    assert abs(measured["loss"] + np.log(scores[np.arange(33), labels]).mean()) < 1e-6


def test_crops_of_the_whole_image_measure_what_evaluate_does():
    _, test = pc.data.digits(seed=0, size=28)
    pc.manual_seed(0)
    net = pc.models.lenet5()
    whole = pc.Trainer(net).evaluate(test)
    cropped = evaluate_crops(net, test, size=28, crops=5)
    assert cropped["accuracy"] == whole["accuracy"]
    assert abs(cropped["loss"] - whole["loss"]) < 1e-5


def test_bad_arguments_of_crops_are_named():
    images = np.zeros((2, 6, 6, 1), np.uint8)
    with pytest.raises(ArgumentError, match="crops must be 2, 5 or 10, got 7"):
        evaluate_crops(Brightness(), (images, [0, 1]), size=4, crops=7)
    with pytest.raises(ArgumentError, match="batch_size must be an integer of at least 1, got 0"):
        evaluate_crops(Brightness(), (images, [0, 1]), size=4, batch_size=0)
    with pytest.raises(ShapeError, match=r"ten_crop: windows \(8, 8\) exceed the images \(6, 6\)"):
        evaluate_crops(Brightness(), (images, [0, 1]), size=8, batch_size=40)
    with pytest.raises(LabelError, match="label 9 at position 1"):
        evaluate_crops(Brightness(), (images, [0, 9]), size=4, batch_size=40)


def mixed_training(tmp_path, epochs, **keywords):
    train, test = pc.data.digits(seed=0, size=28)
    train = pc.data.subset(train, range(96))
    pc.manual_seed(3)
    trainer = pc.Trainer(pc.models.lenet5(), optimizer=pc.optim.SGD(lr=0.05, momentum=0.9), seed=5)
    augment = transforms.Compose([transforms.RandomShift(2), transforms.Cutout(6), transforms.Mixup(0.4)])
    trainer.fit(
        train,
        val=pc.data.subset(test, range(64)),
        epochs=epochs,
        batch_size=32,
        transform=augment,
        progress=False,
        **keywords,
    )
    return trainer


def test_training_on_mixed_batches_learns_and_reports(tmp_path):
    trainer = mixed_training(tmp_path, 12)
    assert trainer.history["loss"][-1] < trainer.history["loss"][0]
    assert trainer.history["val_accuracy"][-1] > 0.3


def test_mixed_training_goes_on_with_the_same_bits(tmp_path):
    whole = mixed_training(tmp_path, 3, workers=2)
    mixed_training(tmp_path, 1, checkpoint_dir=tmp_path)
    resumed = mixed_training(tmp_path, 3, checkpoint_dir=tmp_path, resume=True, workers=0)
    assert resumed.fingerprint() == whole.fingerprint()
