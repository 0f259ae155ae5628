"""What a net or program refuses: the error names what came, and the net is as usable as before."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.config import machine

X = np.random.default_rng(3).standard_normal((8, 17, 19, 3)).astype(np.float32)


def mixed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(8, 10)
    ).build((17, 19, 3))


@pytest.mark.parametrize("value", [np.float32(3), 3.0, None, "cat.png", {}, object()])
def test_what_is_no_batch_is_refused_by_every_way_of_running(value):
    net = mixed()
    trainer = pc.Trainer(net)
    for run in (
        net,
        net.predict,
        net.predict_proba,
        lambda x: net.features(x, layer="0"),
        pc.compile(net, X.shape),
        lambda x: trainer.step(x, np.zeros(1, int)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises((pc.ShapeError, pc.DTypeError)):
                run(value)


def test_file_name_in_place_of_an_image_is_told():
    with pytest.raises(pc.DTypeError, match=r"got str, expected an array of numbers\n  hint: .*decode the image first"):
        mixed().predict("cat.png")


def test_failed_calls_leave_the_net_usable_and_the_input_as_it_was():
    net = mixed()
    x = X.copy()
    expected = net(x)
    for bad in (x[..., :2], x[:, :0], x[0], x.astype(int), np.zeros((1, 17, 19, 3), object)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(pc.Error):
                net(bad)
        assert np.array_equal(net(x), expected)
    assert np.array_equal(x, X)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"threads": -1}, pc.ArgumentError, "-1"),
        ({"threads": "abc"}, pc.ArgumentError, "'abc'"),
        ({"threads": 1.5}, pc.ArgumentError, "1.5"),
        ({"threads": True}, pc.ArgumentError, "True"),
        ({"isa": "avx9"}, pc.ArgumentError, "'avx9'"),
        ({"isa": 3}, pc.ArgumentError, "isa: 3"),
        ({"device": "cuda:x"}, pc.DeviceError, "'cuda:x'.*'cpu'"),
        ({"device": "cuda:77"}, pc.DeviceError, "'cuda:77'"),
        ({"device": None}, pc.ArgumentError, "compile: device must be .*, got None"),
        ({"dtype": "float16"}, pc.UnsupportedError, "float16 is computed on GPUs only"),
        ({"dtype": None}, pc.DTypeError, "None"),
        ({"dtype": "f3"}, pc.DTypeError, "f3"),
        ({"dtype": "i1"}, pc.DTypeError, r"dtype 'i1' \(int8\) is not accepted"),
        ({"variants": 3}, pc.ArgumentError, "variants is 3"),
        ({"variants": {"conv2d": 1}}, pc.ArgumentError, "variants is {'conv2d': 1}"),
        ({"memory_limit_bytes": -10}, pc.ArgumentError, "memory_limit_bytes must be .*, got -10"),
        ({"memory_limit_bytes": "1G"}, pc.ArgumentError, "memory_limit_bytes must be .*, got '1G'"),
        ({"shape": 5}, pc.ShapeError, "5"),
        ({"shape": "abc"}, pc.ShapeError, "abc"),
        ({"shape": (1, 17, 19.5, 3)}, pc.ShapeError, "19.5"),
        ({"shape": (1, -17, 19, 3)}, pc.ShapeError, "-17"),
        ({"shape": (2**50, 17, 19, 3)}, (pc.MemoryLimitError, pc.ShapeError), r"\d{9}"),
    ],
)
def test_bad_options_of_compile_are_refused_with_their_value(options, error, text):
    with pytest.raises(error, match=text):
        pc.compile(mixed(), **{"shape": X.shape, **options})


def test_device_auto_is_the_cpu_and_import_needs_no_gpu():
    assert pc.compile(mixed(), X.shape, device="auto")(X).shape == (8, 10)
    assert "cpu" in str(machine()["devices"])


def test_batch_that_is_too_large_names_the_bytes_and_a_smaller_one_works():
    net = mixed()
    with pytest.raises(pc.MemoryLimitError, match=r"\d+ bytes") as caught:
        pc.compile(net, X.shape, memory_limit_bytes=10_000)
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(pc.MemoryLimitError, match=r"\d+ are available(.|\n)*smaller batch") as caught:
        pc.compile(net, (2**34, *X.shape[1:]))
    assert caught.value.wanted_bytes > caught.value.available_bytes > 0
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.01))
    huge = np.broadcast_to(X[:1], (2**40, *X.shape[1:]))
    with pytest.raises(pc.MemoryLimitError, match="no memory for a plain copy"):
        net(huge)
    with pytest.raises((pc.MemoryLimitError, MemoryError)):
        trainer.step(huge, np.broadcast_to(np.int64(0), 2**40))
    assert trainer.steps == 0
    assert np.isfinite(trainer.step(X, np.arange(8))["loss"])
    assert net(X).shape == (8, 10)


class Odd(nn.Module):
    def __init__(self, forward):
        self.conv = nn.Conv2d(3, 4, 3)
        self.described = forward

    def forward(self, x):
        return self.described(self.conv(x))


@pytest.mark.parametrize(
    ("forward", "error", "text"),
    [
        (lambda y: y.sum(), AttributeError, "no 'sum'; what is done to it are functions"),
        (lambda y: y[0], TypeError, "cannot be indexed; pycnn.functional.slice"),
        (lambda y: y if y else y, TypeError, "no values until the program runs"),
        (lambda y: y.values, AttributeError, "no 'values'"),
        (lambda y: None, pc.GraphError, "forward returned NoneType"),
    ],
)
def test_symbol_used_as_an_array_explains_itself(forward, error, text):
    with pytest.raises(error, match=text):
        Odd(forward)(X)
    assert Odd(lambda y: y)(X).shape == (8, 15, 17, 4)


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda net: net.summary((8, 17, 19, 3)), pc.ShapeError, r"batch axis\n  hint: .*\(17, 19, 3\)"),
        (lambda net: pc.bench("lenet5"), pc.ArgumentError, "models.create"),
        (lambda net: pc.bench(net, threads=[]), pc.ArgumentError, r"bench: threads is \[\]"),
        (lambda net: pc.bench(net, threads=[0]), pc.ArgumentError, "threads: 0 must be an integer of at least 1"),
        (lambda net: pc.bench(net, seed=-1), pc.ArgumentError, "bench: seed must be at least 0, got -1"),
        (lambda net: pc.bench(net, seed="x"), pc.ArgumentError, "bench: seed must be an integer, got 'x'"),
        (lambda net: pc.bench(net, train="yes"), pc.ArgumentError, "bench: train must be True or False, got 'yes'"),
        (lambda net: pc.bench(net, layers=1), pc.ArgumentError, "bench: layers must be True or False, got 1"),
        (
            lambda net: pc.compile(net, X.shape, threads=0),
            pc.ArgumentError,
            "threads: 0 must be an integer of at least",
        ),
        (lambda net: pc.compile(3, X.shape), pc.ArgumentError, "compile: net is 3, expected a Module"),
        (lambda net: pc.compile(nn.ReLU, X.shape), pc.ArgumentError, r"the class is given.*write ReLU\(\.\.\.\)"),
        (lambda net: net.build("17,19,3"), pc.ArgumentError, "build: input_shape must be sizes.*got '17,19,3'"),
        (lambda net: net.build(17), pc.ArgumentError, "build: input_shape must be sizes.*got 17"),
        (lambda net: net.build((17.5, 19, 3)), pc.ArgumentError, "build: input_shape must be an integer, got 17.5"),
        (lambda net: pc.Ensemble(net), pc.ArgumentError, "Ensemble: nets is one Sequential, expected a list"),
        (lambda net: pc.data.mean_std(X), pc.ArgumentError, "mean_std: ndarray is not a data set"),
        (lambda net: pc.Trainer(net, loss=nn.CrossEntropyLoss), pc.ArgumentError, r"write CrossEntropyLoss\(\.\.\.\)"),
        (lambda net: pc.Trainer(net).fit(X, epochs=1), pc.ArgumentError, r"\(images, labels\)"),
        (
            lambda net: pc.Trainer(net).fit((X, [0] * 8), epochs=1, callbacks=pc.train.EarlyStopping()),
            pc.ArgumentError,
            "callbacks must be a list",
        ),
        (lambda net: net.features(X, layer="conv1"), pc.ArgumentError, "'conv1'\n  hint: there is '0'"),
    ],
)
def test_slips_of_a_new_user_get_the_call_that_repairs_them(use, error, text):
    with pytest.raises(error, match=text):
        use(mixed())
