"""Predictions of nets and ensembles on a GPU beside the CPU; the emulated device does so, too."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.config import manual_seed
from pycnn.generations import GENERATIONS, compare_generations

pytestmark = pytest.mark.cuda


def net(seed):
    manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)).build((8, 8, 2))


def data():
    rng = np.random.default_rng(0)
    return pc.data.ArrayDataset(rng.standard_normal((21, 8, 8, 2)).astype(np.float32), rng.integers(0, 5, 21))


def test_an_ensemble_tells_what_it_does_on_the_cpu():
    nets, images = [net(seed) for seed in range(2)], data().images
    here, there = pc.Ensemble(nets), pc.Ensemble(nets, device="cuda")
    np.testing.assert_allclose(there.predict_proba(images), here.predict_proba(images), rtol=1e-4, atol=1e-6)
    expected, measured = here.evaluate(data(), batch_size=8), there.evaluate(data(), batch_size=8)
    assert measured["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    crops = [pc.train.evaluate_crops(nets_, data(), size=8, crops=2)["loss"] for nets_ in (here, there)]
    assert crops[1] == pytest.approx(crops[0], rel=1e-4)


def test_float16_is_computed_there():
    images = data().images
    exact = net(0).predict_proba(images)
    halves = pc.Ensemble([net(0)], device="cuda", dtype="float16").predict_proba(images)
    assert 0 < np.abs(halves - exact).max() < 0.01


def test_weights_that_changed_since_are_taken():
    """By training on the device and by the host; the program is kept from one call to the next."""
    model, images, labels = net(0), data().images, data().labels
    first = model.predict_proba(images, device="cuda")
    assert np.array_equal(model.predict_proba(images, device="cuda:0"), first)
    assert len(model._private.cache._runners) == 1
    trainer = pc.Trainer(model, optimizer=pc.optim.SGD(lr=0.1), device="cuda")
    for _ in range(3):
        trainer.step(images, labels)
    trained = model.predict_proba(images, device="cuda")
    assert np.abs(trained - first).max() > 1e-3
    np.testing.assert_allclose(trained, model.predict_proba(images), rtol=1e-4, atol=1e-6)
    model.load_state_dict(net(1).state_dict())
    np.testing.assert_allclose(
        model.predict_proba(images, device="cuda"), net(1).predict_proba(images), rtol=1e-4, atol=1e-6
    )


def test_an_ensemble_that_is_read_runs_there(tmp_path):
    nets, images = [net(seed) for seed in range(2)], data().images
    pc.Ensemble(nets).save(tmp_path / "two.toml")
    read = pc.Ensemble.load(tmp_path / "two.toml", device="cuda", dtype="float16")
    expected = pc.Ensemble(nets, device="cuda", dtype="float16").predict_proba(images)
    np.testing.assert_array_equal(read.predict_proba(images), expected)


def test_the_comparison_of_generations_runs_there():
    train, test = pc.data.digits(seed=0)
    few = pc.data.subset(train, range(32)), pc.data.subset(test, range(20))
    options = {"steps": 1, "batch_size": 4, "generations": GENERATIONS[:1]}
    (here,), (there,) = (compare_generations(*few, device=device, **options) for device in ("cpu", "cuda"))
    assert there.train_loss == pytest.approx(here.train_loss, rel=1e-3)
    assert there.test_loss == pytest.approx(here.test_loss, rel=1e-2)
