"""Nets on arrays: what is accepted, what is refused, and the program cache."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn
from pycnn.nn import functional as F


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 5))


@pytest.fixture
def x():
    return np.random.default_rng(0).random((6, 9, 9, 3), np.float32)


def test_uint8_is_read_as_zero_to_one(net):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), np.uint8)
    floats = (pixels / np.float32(255)).astype(np.float32)
    np.testing.assert_array_almost_equal_nulp(net(pixels), net(floats), 64)


def test_float64_is_converted_and_said(net, x):
    with pytest.warns(UserWarning, match="converted from float64 to float32"):
        result = net(x.astype(np.float64))
    assert np.array_equal(result, net(x))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_, np.float16, np.complex64, object])
def test_other_element_types_are_refused(net, x, dtype):
    with pytest.raises(pc.DTypeError):
        net(x.astype(dtype))


def test_masked_array_is_refused(net, x):
    with pytest.raises(pc.DTypeError, match="filled"):
        net(np.ma.masked_array(x))


def test_layouts_give_the_bits_of_a_plain_copy(net, x):
    expected = net(x)
    variants = {
        "fortran": np.asfortranarray(x),
        "negative stride": x[::-1][::-1, ::-1][:, ::-1],
        "big-endian": x.astype(">f4"),
        "slice": np.repeat(x, 2, axis=0)[::2],
    }
    for name, array in variants.items():
        if array.flags.c_contiguous and array.dtype.isnative:
            result = net(array)
        else:
            with pytest.warns(UserWarning, match="copied"):
                result = net(array)
        assert np.array_equal(result, expected), name
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(net(frozen), expected)
    assert np.array_equal(net(memoryview(x)), expected)


def test_channels_first_images_are_refused_with_the_transpose(net, x):
    with pytest.raises(pc.ShapeError, match=r"transpose\(0, 2, 3, 1\)"):
        net(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    lazy = nn.Sequential(nn.Conv2d(out_channels=4, kernel_size=3))
    with pytest.raises(pc.ShapeError, match=r"transpose\(0, 2, 3, 1\)"):
        lazy(np.zeros((2, 3, 32, 32), np.float32))


def test_one_image_without_batch_axis_is_refused_with_the_index(net, x):
    with pytest.raises(pc.ShapeError, match=r"x\[None\]"):
        net(x[0])


def test_wrong_channels_name_layer_and_numbers(net):
    with pytest.raises(pc.ShapeError, match="2") as caught:
        net(np.zeros((1, 9, 9, 2), np.float32))
    assert "3" in str(caught.value)


def test_empty_batch_gives_an_empty_result(net):
    assert net(np.zeros((0, 9, 9, 3), np.float32)).shape == (0, 5)


def test_program_is_compiled_once_per_shape_and_follows_the_weights(net, x, monkeypatch):
    made = []
    original = nn._running.make_runner
    monkeypatch.setattr(nn._running, "make_runner", lambda *a, **k: made.append(1) or original(*a, **k))
    first = net(x)
    net(x)
    assert len(made) == 1
    net[3].bias.copy_(np.ones(5, np.float32))
    assert not np.array_equal(net(x), first)
    assert len(made) == 1
    net(x[:2])
    assert len(made) == 2


def test_changed_structure_is_compiled_again(net, x):
    before = net(x)
    setattr(net, "3", nn.Linear(4, 7))
    assert before.shape == (6, 5)
    assert net(x).shape == (6, 7)
    leaky = nn.Sequential(nn.LeakyReLU(0.5))
    y = np.array([[-2.0]], np.float32)
    assert leaky(y)[0, 0] == -1.0
    leaky[0].negative_slope = 0.25
    assert leaky(y)[0, 0] == -0.5


def test_many_threads_give_the_bits_of_one(net, x):
    expected = net(x)
    results = [None] * 8

    def work(i):
        for _ in range(5):
            results[i] = net(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, expected) for result in results)


def test_predict_in_batches_equals_at_once(net, x):
    scores = net(x)
    assert np.array_equal(net.predict(x), scores.argmax(1))
    assert np.array_equal(net.predict(x, batch_size=4), scores.argmax(1))
    assert net.predict(x).dtype == np.int64
    assert net.predict(x[:0]).shape == (0,)


def test_predict_proba_adds_softmax_only_where_there_is_none(net, x):
    probabilities = net.predict_proba(x, batch_size=4)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    ended = nn.Sequential(*net.layers, nn.Softmax())
    assert np.array_equal(ended.predict_proba(x), ended(x))
    logged = nn.Sequential(*net.layers, nn.LogSoftmax())
    np.testing.assert_allclose(logged.predict_proba(x), probabilities, rtol=1e-5)


def test_features_of_a_layer(net, x):
    hidden = net.features(x, layer="0", batch_size=4)
    assert hidden.shape == (6, 7, 7, 4)
    assert np.array_equal(hidden, net[0](x))
    with pytest.raises(pc.ArgumentError, match="no module is called 'conv'"):
        net.features(x, layer="conv")


def test_bad_batch_size_is_refused(net, x):
    with pytest.raises(pc.ArgumentError, match="batch_size"):
        net.predict(x, batch_size=0)


def test_several_results_keep_their_form(x):
    class Pair(nn.Module):
        def forward(self, x):
            return F.relu(x), {"a": 1} and F.tanh(x)

    class Named(nn.Module):
        def forward(self, x):
            return {"positive": F.relu(x), "squashed": F.tanh(x)}

    first, second = Pair()(x)
    assert first.shape == second.shape == x.shape
    assert set(Named()(x)) == {"positive", "squashed"}


def test_several_inputs(x):
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b

    assert np.array_equal(Sum()(x, x), x + x)


def test_normalization_of_the_net_is_applied_first(net, x):
    expected = net((x - np.float32(0.5)) / np.float32(0.25))
    net.normalization = nn.Normalize(mean=0.5, std=0.25)
    np.testing.assert_array_almost_equal_nulp(net(x), expected, 64)
    assert len(net) == 4


def test_loss_modules_run_eagerly_on_arrays():
    logits = np.zeros((3, 4), np.float32)
    loss = nn.CrossEntropyLoss()(logits, np.array([0, 1, 2]))
    assert float(loss) == pytest.approx(np.log(4))
    assert float(nn.MSELoss()(logits, logits + 2)) == 4.0


def test_repeated_prediction_does_not_grow_memory(net, x):
    resource = pytest.importorskip("resource")
    one = x[:1]
    for _ in range(200):
        net(one)

    def growth():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3000):
            net(one)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    # The system may make a huge page of some small ones, once.
    assert any(growth() < 2048 for _ in range(3))


def test_loaded_net_reads_uint8_as_the_net_that_was_saved(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), np.uint8)
    for first in (nn.Identity(), nn.Normalize(0.5, 0.2), nn.BasicBlock(3, 3)):
        net = nn.Sequential(first, nn.Conv2d(3, 4, 3)).build((9, 9, 3))
        net.save(tmp_path / "net.safetensors")
        loaded = pc.load(tmp_path / "net.safetensors")
        np.testing.assert_allclose(loaded(pixels), net(pixels), rtol=1e-5, atol=1e-6)
        floats = (pixels / np.float32(255)).astype(np.float32)
        assert np.array_equal(loaded(floats), net(floats))
