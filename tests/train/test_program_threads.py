"""Programs of a trainer that several threads ask for: nobody waits for another one's, nothing is made twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.config import manual_seed
from pycnn.data import ArrayDataset
from pycnn.errors import ArgumentError
from pycnn.program import Variables, _check_threads, compile_traced
from pycnn.tracing import trace
from pycnn.train import _programs
from pycnn.train._programs import IMAGES

WAIT_S = 60.0


def data(count=16):
    rng = np.random.default_rng(5)
    return ArrayDataset(rng.integers(0, 256, (count, 9, 9, 3)).astype(np.uint8), np.arange(count) % 3)


def trainer(**options):
    manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(8, 3))
    return pc.Trainer(net, optimizer=optim.SGD(0.05), seed=1, normalize=((0.5,) * 3, (0.2,) * 3), **options)


def batch(count=16):
    return data(count).images, np.arange(count) % 3


class Compiler:
    """In place of `compile_traced`: takes until it is allowed to go on, first of all by `refusal`."""

    def __init__(self, monkeypatch, mode="training"):
        self.began, self.may_end = Event(), Event()
        self.mode = mode
        self.made = 0
        self.refusal = None
        monkeypatch.setattr(_programs, "compile_traced", self)

    def __call__(self, traced, **options):
        if options["mode"] == self.mode:
            self.made += 1
            self.began.set()
            assert self.may_end.wait(WAIT_S)
            refusal, self.refusal = self.refusal, None
            if refusal is not None:
                raise refusal
        return compile_traced(traced, **options)


def test_a_measurement_goes_on_while_the_program_of_a_step_is_compiled(monkeypatch):
    training = trainer()
    expected = training.evaluate(data())
    compiler = Compiler(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        try:
            step = pool.submit(training.step, *batch())
            assert compiler.began.wait(WAIT_S)
            assert pool.submit(training.evaluate, data()).result(WAIT_S) == expected
            # Of a shape that there is no program for, too.
            assert pool.submit(training.evaluate, data(7)).result(WAIT_S)["loss"] > 0
            assert not step.done()
        finally:
            compiler.may_end.set()
        assert step.result(WAIT_S)["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("refusal", [None, ArgumentError("not this time")])
def test_threads_that_want_the_same_program_wait_for_the_one_that_compiles_it(monkeypatch, refusal):
    training = trainer()
    compiler = Compiler(monkeypatch, mode="inference")
    compiler.refusal = refusal
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(training.evaluate, data())
        assert compiler.began.wait(WAIT_S)
        second = pool.submit(training.evaluate, data())
        time.sleep(0.2)
        assert compiler.made == 1
        compiler.may_end.set()
        found = second.result(WAIT_S)
        if refusal is None:
            assert first.result(WAIT_S) == found
        else:  # the other one makes it then
            with pytest.raises(ArgumentError, match="not this time"):
                first.result(WAIT_S)
        assert compiler.made == (1 if refusal is None else 2)
    assert not training._measuring._making


def test_what_a_thread_compiles_of_a_net_that_changes_meanwhile_is_not_kept(monkeypatch):
    training = trainer()
    compiler = Compiler(monkeypatch, mode="inference")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(training.evaluate, data())
        assert compiler.began.wait(WAIT_S)
        training.net._changed()
        compiler.may_end.set()
        expected = first.result(WAIT_S)
    for _ in range(2):
        assert training.evaluate(data()) == expected
    assert compiler.made == 2


def test_images_that_are_dropped_while_a_program_for_them_is_compiled_are_gone(monkeypatch):
    def compile_late(traced, **options):
        program = compile_traced(traced, **options)
        if training._training.keeps_images:
            training._training.drop_images()
            training.variables[IMAGES] = np.zeros((16, 9, 9, 3), np.uint8)  # as a late compilation does
        return program

    expected, training = trainer(), trainer()
    expected.fit(data(), epochs=2, progress=False, augment_in="step")
    monkeypatch.setattr(_programs, "compile_traced", compile_late)
    training.fit(data(), epochs=2, progress=False, augment_in="resident")
    assert IMAGES not in training.variables
    assert training.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("refusal", [None, ArgumentError("not this time")])
def test_images_that_take_the_place_of_others_stay_when_a_program_of_those_comes_late(monkeypatch, refusal):
    more = np.concatenate([data().images, data(7).images])
    named = []

    def compile_late(traced, **options):
        if options["mode"] == "training":
            named.append(IMAGES in training.variables and training.variables[IMAGES].shape == more.shape)
        program = compile_traced(traced, **options)
        if named == [False]:
            training._training.keep_images(more)
            if refusal is None:
                training.variables.update({IMAGES: training._training._images})  # as a program of these does
            else:
                raise refusal
        return program

    training = trainer()
    monkeypatch.setattr(_programs, "compile_traced", compile_late)
    with nullcontext() if refusal is None else pytest.raises(ArgumentError, match="not this time"):
        training.fit(data(), epochs=1, progress=False, augment_in="resident")
    assert named == ([False, True] if refusal is None else [False])
    assert np.array_equal(training.variables[IMAGES], more)


def test_a_program_that_cannot_be_compiled_leaves_no_images_behind_that_were_dropped(monkeypatch):
    def refuse_late(traced, **options):
        training._training.drop_images()
        training.variables[IMAGES] = np.zeros((16, 9, 9, 3), np.uint8)  # as a late compilation does
        raise ArgumentError("not this time")

    training = trainer()
    monkeypatch.setattr(_programs, "compile_traced", refuse_late)
    with pytest.raises(ArgumentError, match="not this time"):
        training.fit(data(), epochs=1, progress=False, augment_in="resident")
    assert IMAGES not in training.variables


def test_a_program_that_cannot_be_compiled_leaves_the_net_as_it_was(monkeypatch):
    training = trainer()
    training.net.build((12, 12, 3))
    compiler = Compiler(monkeypatch)
    compiler.may_end.set()
    compiler.refusal = ArgumentError("not this time")
    with pytest.raises(ArgumentError, match="not this time"):
        training.step(*batch())
    assert training.net.input_shape == (12, 12, 3)
    training.step(*batch())
    assert training.net.input_shape == (9, 9, 3)


class Marked(nn.Module):
    """Adds a number to images that is that of no other size: a constant of each recording."""

    def __init__(self, net):
        self.net = net

    def forward(self, x):
        return self.net(x + np.array([0.2 * x.shape[1]], np.float32))


def test_programs_for_images_of_two_sizes_that_are_made_at_once_keep_their_constants(monkeypatch):
    def samples(size):
        return np.random.default_rng(size).random((4, size, size, 3), np.float32), np.arange(4) % 3

    def late(threads):
        # Between the arrays that a program is given and its compilation.
        if not began.is_set():
            began.set()
            assert may_go.wait(WAIT_S)
        _check_threads(threads)

    manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(8, 3))
    net = Marked(body)
    expected = [pc.Trainer(net).evaluate(samples(size)) for size in (9, 21)]
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    began, may_go = Event(), Event()
    monkeypatch.setattr("pycnn.program._check_threads", late)
    training = pc.Trainer(net)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(training.evaluate, samples(9))
        try:
            assert began.wait(WAIT_S)
            assert training.evaluate(samples(21)) == expected[1]
        finally:
            may_go.set()
        assert first.result(WAIT_S) == expected[0]
    assert [training.evaluate(samples(size)) for size in (9, 21)] == expected


def test_programs_in_float64_have_constants_of_their_own():
    """Both recordings number theirs from 0, and each run writes what its program has copies of."""
    programs = [pc.compile(lambda x, by=by: x + np.full(2, by), (2,), "float64") for by in (1.0, 2.0)]
    for _ in range(2):
        assert [program(np.zeros(2)).tolist() for program in programs] == [[1.0, 1.0], [2.0, 2.0]]
    with pytest.raises(ArgumentError, match="float64 has copies of the parameters, it shares no variables"):
        compile_traced(programs[0].traced, variables=Variables())


def test_names_that_are_given_while_a_program_is_compiled_stay():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    net.build((9, 9, 3))
    has_ended = Event()

    def compile_on():
        count = 0
        while not has_ended.is_set():
            compile_traced(trace(net, {"x": ((1, 9, 9, 3), "float32")}), variables=variables)
            count += 1
        return count

    variables, names = Variables(), [f"given{i}" for i in range(300)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(compile_on) for _ in range(2)]
        try:
            for name in names:
                variables[name] = np.zeros(1, np.float32)
                time.sleep(0.001)
        finally:
            has_ended.set()
        assert all(run.result(WAIT_S) > 1 for run in runs)
    assert [name for name in names if name not in variables] == []
