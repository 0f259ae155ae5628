"""The linear classifier against scikit-learn's own predictions, and as a layer of a net."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from tiny_nets import coloured_images
from tolerances import assert_within, sum_bound

import pycnn as pc
from pycnn.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from pycnn.transfer import Encoder, extract, linear_probe

pytest.importorskip("sklearn.linear_model")


def blobs(count, classes, size, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, size)) * 3
    return (centres[labels] + spread * rng.normal(size=(count, size))) * rng.uniform(0.1, 50, size) + 7, labels


@pytest.mark.parametrize("kind", ["softmax", "svm"])
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(kind, classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    x, y = blobs(60, classes, 5, spread=3.0)
    x[:, 2] = 4.0  # never changes
    probe = linear_probe(x, y, kind=kind, c=0.1)
    model = LogisticRegression(C=0.1, max_iter=2000) if kind == "softmax" else LinearSVC(C=0.1, dual=False)
    model = make_pipeline(StandardScaler(), model).fit(x, y)
    expected = model.predict_proba(x) if kind == "softmax" else model.decision_function(x)
    scores = probe.scores(x)
    if kind == "softmax":
        exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = exponents / exponents.sum(axis=1, keepdims=True)
    elif classes == 2:
        scores = scores[:, 1]
    assert_within(scores, expected, sum_bound(50 * np.abs(expected).max(), 5))
    assert np.array_equal(probe.predict(x), model.predict(x))
    assert probe.c == 0.1


def test_the_penalty_is_chosen_by_folds_and_repeats():
    x, y = blobs(60, 3, 40, spread=9.0)
    probe = linear_probe(x, y, c=[1e-4, 1e-2, 1e2], seed=3)
    accuracies = {c: linear_probe(x, y, c=c, seed=3).cv_accuracy for c in (1e-4, 1e-2, 1e2)}
    assert probe.cv_accuracy == max(accuracies.values())
    assert probe.c == min(c for c, accuracy in accuracies.items() if accuracy == probe.cv_accuracy)
    again = linear_probe(x, y, c=[1e2, 1e-2, 1e-4], seed=3)
    assert np.array_equal(again.weight, probe.weight)
    # Honest: on labels that mean nothing the folds say so.
    noise = np.random.default_rng(0).permutation(y)
    assert linear_probe(x, noise).cv_accuracy < 0.6


def test_rare_classes_get_fewer_folds():
    x, y = blobs(30, 3, 4)
    y[:] = 0
    y[:9] = 1
    y[0] = 2
    probe = linear_probe(x, y)  # a class of one sample: none
    assert probe.cv_accuracy is None
    assert probe.c == 0.01
    y[1] = 2
    assert linear_probe(x, y).cv_accuracy is not None


def test_probe_becomes_an_ordinary_net(tiny_net, tmp_path):
    data = coloured_images(30)
    encoder = Encoder(tiny_net, ["conv1", "layer1", "layer2"])
    found = extract(encoder, data)
    probe = linear_probe(found, layers=["layer2", "conv1"])
    assert probe.layers == ("layer2", "conv1")
    assert probe.class_names == data.class_names
    assert probe.accuracy(found) > 0.8
    net = probe.to_net(encoder)
    expected = probe.scores(found)
    assert_within(net(data.images), expected, sum_bound(500 * np.abs(expected).max(), 20))
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    assert np.array_equal(loaded.predict(data.images), probe.predict(found))
    names = {name for name, _ in loaded.named_tensors()}
    assert "head.weight" in names
    assert not any("fc" in name for name in names)


def test_mistakes_are_named(tiny_net, monkeypatch):
    x, y = blobs(12, 3, 4)
    with pytest.raises(ArgumentError, match="all 12 samples are of one class"):
        linear_probe(x, np.zeros(12, int))
    for labels in (y * 2, y * 10**10):
        with pytest.raises(ArgumentError, match="class 1 has no sample"):
            linear_probe(x, labels)
    bad = x.copy()
    bad[5, 1] = np.inf
    with pytest.raises(ArgumentError, match="NaN or infinity in row 5"):
        linear_probe(bad, y)
    with pytest.raises(ArgumentError, match="needs labels"):
        linear_probe(x)
    with pytest.raises(ArgumentError, match="'softmax' or 'svm', got 'tree'"):
        linear_probe(x, y, kind="tree")
    with pytest.raises(ArgumentError, match="c must be above 0 and finite, got 0"):
        linear_probe(x, y, c=0)
    with pytest.raises(DTypeError, match="expected integers"):
        linear_probe(x, y.astype(float))
    with pytest.raises(ShapeError, match="expected 4 of each sample"):
        linear_probe(x, y).predict(x[:, :3])
    data = coloured_images(6)
    probe = linear_probe(extract(Encoder(tiny_net, "layer2"), data))
    with pytest.raises(ArgumentError, match="has no layer 'layer2'; it has conv1"):
        probe.to_net(Encoder(tiny_net, "conv1"))
    with pytest.raises(ShapeError, match="gives 360 features of layer2, the probe was fitted on 10"):
        probe.to_net(Encoder(tiny_net, "layer2", pool="flatten"))

    real = builtins.__import__

    def without(name, *rest, **named):
        if name.partition(".")[0] == "sklearn":
            raise ImportError("No module named 'sklearn'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("pycnn.optional.importlib.import_module", without)
    with pytest.raises(UnsupportedError, match=r"pip install 'pycnn\[transfer\]'"):
        linear_probe(x, y)
