"""`CNNClassifier` among scikit-learn's own tools, and what scikit-learn asks of every estimator."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn.linear_model")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import pycnn  # noqa: E402
from pycnn import nn  # noqa: E402
from pycnn.sklearn import CNNClassifier  # noqa: E402

#: scikit-learn's checks that this estimator cannot pass, and why. There are none.
EXPECTED_FAILURES: dict[str, str] = {}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [CNNClassifier(epochs=10, learning_rate=4e-3, random_state=0)], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learns_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    train, test = pycnn.data.digits(seed=0, size=8)
    return (
        train.images[:600],
        train.labels[:600].astype(np.int64),
        test.images[:200],
        test.labels[:200].astype(np.int64),
    )


def test_it_learns_digits_from_images_and_from_rows(digits):
    x, y, x_test, y_test = digits
    model = CNNClassifier(epochs=8, random_state=0).fit(x, y)
    assert model.score(x_test, y_test) > 0.9
    assert model.image_shape_ == x.shape[1:]
    rows = CNNClassifier(epochs=8, random_state=0).fit(x.reshape(len(x), -1), y)
    grey = CNNClassifier(epochs=8, random_state=0).fit(x[..., 0].astype(np.float64), y)
    for other, images in ((rows, x_test.reshape(len(x_test), -1)), (grey, x_test[..., 0].tolist())):
        np.testing.assert_array_equal(other.predict_proba(images), model.predict_proba(x_test))
    assert rows.image_shape_ == model.image_shape_


def test_colour_rows_need_their_shape():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 6, 5, 3)), np.arange(12) % 2
    rows = x.reshape(12, -1)
    model = CNNClassifier(image_shape=(6, 5, 3), epochs=2, random_state=0).fit(rows, y)
    np.testing.assert_array_equal(
        model.predict_proba(rows), CNNClassifier(epochs=2, random_state=0).fit(x, y).predict_proba(x)
    )
    with pytest.raises(pycnn.ShapeError, match=r"X has 90 features, image_shape \(6, 6, 3\) needs 108"):
        CNNClassifier(image_shape=(6, 6, 3)).fit(rows, y)
    with pytest.raises(pycnn.ShapeError, match=r"holds images \(6, 5, 3\).*image_shape is \(6, 5, 1\)"):
        CNNClassifier(image_shape=(6, 5)).fit(x, y)
    with pytest.raises(pycnn.ArgumentError, match=r"image_shape is \(6,\), expected \(H, W\)"):
        CNNClassifier(image_shape=(6,)).fit(rows, y)
    with pytest.raises(ValueError, match="is expecting 90 features"):
        model.predict(rows[:, :80])
    with pytest.raises(pycnn.ShapeError, match="expected .N, features"):
        CNNClassifier().fit(x[..., None], y)


def test_labels_of_any_kind_come_back():
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog"])[np.arange(20) % 2]
    x = rng.random((20, 8, 8)) + 2 * (names == "dog")[:, None, None]
    model = CNNClassifier(epochs=10, random_state=0).fit(x, names)
    assert model.classes_.tolist() == ["cat", "dog"]
    np.testing.assert_array_equal(model.predict(x), names)
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1, rtol=1e-6)


def test_same_state_same_bits_and_pickles_predict_the_same(digits):
    x, y, x_test, _ = digits
    first, second = (CNNClassifier(epochs=1, random_state=3).fit(x[:64], y[:64]) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(x_test), second.predict_proba(x_test))
    other = CNNClassifier(epochs=1, random_state=4).fit(x[:64], y[:64])
    assert not np.array_equal(first.predict_proba(x_test), other.predict_proba(x_test))
    loaded = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(loaded.predict_proba(x_test), first.predict_proba(x_test))
    loaded.partial_fit(x[:64], y[:64])


def test_it_works_in_pipelines_grid_search_and_cross_validation(digits):
    x, y = digits[0][:90].reshape(90, -1), digits[1][:90]
    pipeline = make_pipeline(StandardScaler(), CNNClassifier(epochs=1, random_state=0))
    search = GridSearchCV(pipeline, {"cnnclassifier__learning_rate": [1e-6, 3e-3]}, cv=2).fit(x, y)
    assert search.best_params_ == {"cnnclassifier__learning_rate": 3e-3}
    assert len(cross_val_score(CNNClassifier(epochs=1, random_state=0), x, y, cv=2, n_jobs=2)) == 2


def test_nets_by_name_module_and_function(digits):
    x, y = digits[0][:64], digits[1][:64]
    named = CNNClassifier("cifar_resnet20", epochs=1, random_state=0).fit(x, y)
    assert named.net_.num_parameters > 200_000
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(None, 3)).build(x.shape[1:])
    model = CNNClassifier(module, epochs=1, optimizer=pycnn.optim.SGD(lr=1e-9), random_state=0)
    fitted = clone(model).fit(x, y)
    np.testing.assert_allclose(fitted.net_.state_dict()["0.weight"], module.state_dict()["0.weight"], rtol=1e-5)
    assert fitted.predict_proba(x).shape == (64, 10)
    assert module.state_dict()["2.weight"].shape[0] == 3
    made = CNNClassifier(
        lambda num_classes, input_shape: nn.Sequential(nn.Flatten(), nn.Linear(None, num_classes)), epochs=1
    )
    assert made.fit(x, y).predict(x).shape == (64,)
    told = r"net Sequential does not take num_classes and input_shape by name \(.*\)(.|\n)*give an instance"
    for bad, text in ((3, "net is 3"), (lambda **_: 3, "net gave int"), (nn.Sequential, told)):
        with pytest.raises(pycnn.ArgumentError, match=text):
            CNNClassifier(bad).fit(x, y)


def test_fresh_weights_follow_random_state_and_nothing_else():
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 5, 4)), np.arange(12) % 2
    built = nn.Sequential(nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)).build((5, 4, 1))
    kept = built.state_dict()["1.weight"]
    # A head for another number of classes, and a layer that is first built here.
    for net in (built, nn.Sequential(nn.Flatten(), nn.Linear(None, 2))):

        def fitted(seed, state, net=net):
            pycnn.manual_seed(seed)
            optimizer = pycnn.optim.SGD(lr=1e-4)
            return CNNClassifier(net, epochs=1, optimizer=optimizer, random_state=state).fit(x, y).net_.state_dict()

        first, again, other = fitted(1, 5), fitted(2, 5), fitted(1, 6)
        last = max(name for name in first if name.endswith("weight"))
        np.testing.assert_array_equal(first[last], again[last])
        assert not np.array_equal(first[last], other[last])
        if net is built:
            np.testing.assert_allclose(first["1.weight"], kept, atol=1e-3)
    pycnn.manual_seed(0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_images_of_any_scale_are_learned_and_what_float32_cannot_hold_is_told(scale):
    y = np.arange(40) % 2
    x = np.random.default_rng(0).random((40, 8, 8)) + y[:, None, None]
    model = CNNClassifier(epochs=5, random_state=0).fit(x * scale, y)
    assert model.score(x * scale, y) == 1
    with pytest.raises(pycnn.ArgumentError, match=r"X holds .*e\+39, beyond the range of float32"):
        model.predict(x * 1e39)
    with pytest.raises(pycnn.ArgumentError, match="beyond the range of float32"):
        CNNClassifier(epochs=1).fit(x * 1e39, y)


def test_a_channel_that_is_the_same_everywhere_stays_as_it_is():
    x = np.full((8, 6, 6, 2), 0.1)
    x[..., 1] = np.random.default_rng(0).random((8, 6, 6))
    model = CNNClassifier(epochs=1, random_state=0).fit(x, np.arange(8) % 2)
    assert model.net_.normalization.std[0] == 1
    assert model.net_.normalization.std[1] < 0.5


def test_partial_fit_goes_on_and_checks_its_classes(digits):
    x, y, x_test, y_test = digits
    model = CNNClassifier(random_state=0)
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        model.partial_fit(x, y)
    for _ in range(8):
        model.partial_fit(x, y, classes=np.arange(10))
    assert model.score(x_test, y_test) > 0.9
    with pytest.raises(pycnn.LabelError, match="label 11 is none of the classes"):
        model.partial_fit(x[:1], [11])
    with pytest.raises(pycnn.ArgumentError, match="the first call's were"):
        model.partial_fit(x, y, classes=[0, 1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"optimizer": "adamax"}, "optimizer is 'adamax', expected adam, adamw, sgd"),
        ({"learning_rate": -1}, "learning_rate"),
    ],
)
def test_bad_arguments_are_told_when_fitting(digits, options, text):
    with pytest.raises(pycnn.ArgumentError, match=text):
        CNNClassifier(**options).fit(digits[0][:8], digits[1][:8])


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("pycnn.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        pycnn.UnsupportedError, match=r"pycnn.sklearn needs sklearn(.|\n)*pip install 'pycnn\[sklearn\]'"
    ):
        __import__("pycnn.sklearn")
