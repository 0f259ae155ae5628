"""What the machine does not have: threads, memory, another thread's turn."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import pycnn
from pycnn import nn


def _net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("threads", [10**9 + 7, 10**30, np.int64(2**40)])
def test_more_threads_than_there_are_is_clamped_with_one_warning(threads):
    with pytest.warns(UserWarning, match=r"compile: threads=\d+ is more than there are; \d+ will be used"):
        program = pycnn.compile(_net(), (2, 2, 2, 3), threads=threads)
    assert 1 <= program.threads <= 1024
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pycnn.compile(_net(), (2, 2, 2, 3), threads=threads).threads == program.threads


@pytest.mark.parametrize("threads", [-1, "abc", 2.5, True, float("nan")])
def test_a_count_that_is_none_is_refused(threads):
    with pytest.raises(pycnn.ArgumentError, match="threads"):
        pycnn.compile(_net(), (2, 2, 2, 3), threads=threads)


def _in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1000000000"])
def test_variables_that_hold_no_count_are_ignored_with_one_warning(value):
    code = (
        "import pycnn, numpy as np\n"
        "net = pycnn.nn.Linear(3, 2)\n"
        "[pycnn.compile(net, (n, 3)) for n in (1, 2, 3)]\n"
        "print(pycnn.compile(net, (4, 3)).threads)\n"
    )
    usual = _in_a_process(code, PYCNN_NUM_THREADS="", OMP_NUM_THREADS="")
    for name in ("PYCNN_NUM_THREADS", "OMP_NUM_THREADS"):
        other = {"PYCNN_NUM_THREADS": "", "OMP_NUM_THREADS": "", name: value}
        result = _in_a_process(code, **other)
        assert result.stdout == usual.stdout
        assert result.stderr.count(f"{name} is '{value}', expected a whole number from 1") == (value != "1000000000")


def test_a_batch_that_memory_cannot_hold_says_both_numbers_and_a_smaller_one_works():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.GlobalAvgPool2d())
    with pytest.raises(MemoryError, match=r"needs \d+ bytes.*\d+ are available") as caught:
        pycnn.compile(net, (2**31, 64, 64, 3))
    assert isinstance(caught.value, pycnn.MemoryLimitError)
    assert caught.value.wanted_bytes > caught.value.available_bytes > 0
    for number in (caught.value.wanted_bytes, caught.value.available_bytes):
        assert str(number) in str(caught.value)
    assert pycnn.compile(net, (2, 64, 64, 3))(np.zeros((2, 64, 64, 3), np.float32)).shape == (2, 8)


def test_a_limit_is_what_is_available():
    with pytest.raises(pycnn.MemoryLimitError, match="the limit is 64") as caught:
        pycnn.compile(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 4)), (100, 8), memory_limit_bytes=64)
    assert caught.value.available_bytes == 64


def test_a_program_refuses_labels_that_are_no_classes():
    def loss(x, y):
        return pycnn.functional.cross_entropy(x, y)

    traced = pycnn.tracing.trace(loss, {"x": ((2, 3), "float32"), "y": ((2,), "int64")})
    program = pycnn.program.compile_traced(traced)
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(pycnn.LabelError, match="label 3 at position 1 of input 'y', there are 3 classes"):
        program(x, np.array([0, 3]))
    assert np.isfinite(program(x, np.array([0, 2])))


MANY = np.broadcast_to(np.zeros((1, 2, 2, 3), np.float32), (2**40, 2, 2, 3))


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda net: net(MANY), "Sequential input: no memory for a plain copy of float32"),
        (lambda net: net.predict(MANY), "predict: no memory for the results of 1099511627776 images"),
        (lambda net: net.predict_proba(MANY), "predict_proba: no memory for the results"),
        (lambda net: net.features(MANY, layer="1"), "features: no memory for the results"),
        (lambda net: pycnn.data.ArrayDataset(MANY, [0]), "ArrayDataset: no memory for a plain copy"),
        (lambda net: pycnn.data.transforms.RandomCrop(padding=1)(MANY), "RandomCrop: no memory for a plain copy"),
        (lambda net: pycnn.functional.relu(MANY), "bytes.* for results"),
        (lambda net: pycnn.functional.broadcast(MANY[0, 0, 0], shape=(2**40, 3)), "bytes.* for results"),
        (lambda net: pycnn.bench(net, batch_size=2**40), "bench: no memory for images"),
    ],
    ids=["call", "predict", "proba", "features", "dataset", "transform", "relu", "broadcast", "bench"],
)
@pytest.mark.filterwarnings("ignore:.*copied because")
def test_more_than_memory_holds_is_refused_before_the_work_with_both_numbers(use, text):
    net = _net().build((2, 2, 3))
    with pytest.raises(pycnn.MemoryLimitError, match=text) as caught:
        use(net)
    assert caught.value.wanted_bytes > caught.value.available_bytes > 0
    for number in (caught.value.wanted_bytes, caught.value.available_bytes):
        assert str(number) in str(caught.value)
    assert net(np.zeros((1, 2, 2, 3), np.float32)).shape == (1, 3)


def test_a_folder_that_memory_cannot_hold_is_refused_before_it_is_read():
    class Large(pycnn.data.ReadableDataset):
        labels, class_names = np.zeros(1000, np.int64), ("a",)
        image_shape, image_dtype = (60000, 60000, 3), np.dtype(np.uint8)

        def read(self, indices):
            raise AssertionError("read")

    with pytest.raises(pycnn.MemoryLimitError, match="in_memory: images .* 10800000000000 bytes are wanted"):
        Large().in_memory()
