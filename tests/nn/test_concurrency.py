"""Threads, forks, arrays and nets that go away in the middle; the same bits in any division of a batch."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.config import machine

RNG = np.random.default_rng(3)


def mixed():
    """Convolutions of several kinds, batch norm, pooling, local response norm, dense."""
    return nn.Sequential(
        nn.Conv2d(3, 17, 3, padding=1),
        nn.BatchNorm2d(17),
        nn.ReLU(),
        nn.BasicBlock(17, 33, stride=2),
        nn.Conv2d(33, 33, 3, groups=33, padding=1),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(33, 40, 1),
        nn.Tanh(),
        nn.GlobalAvgPool2d(),
        nn.Linear(40, 10),
        nn.Softmax(),
    ).build((17, 19, 3))


X = RNG.standard_normal((8, 17, 19, 3)).astype(np.float32)


@pytest.mark.parametrize("isa", machine()["isas"])
def test_batch_of_8_has_the_bits_of_8_single_images_and_of_any_number_of_threads(isa, monkeypatch):
    monkeypatch.setenv("PYCNN_OVERSUBSCRIBE", "1")
    net = mixed()
    whole = pc.compile(net, X.shape, isa=isa, threads=1)(X)
    for threads in (2, 3, 7):
        assert pc.compile(net, X.shape, isa=isa, threads=threads)(X).tobytes() == whole.tobytes()
    for size in (1, 3, 5):
        program = pc.compile(net, (size, *X.shape[1:]), isa=isa, threads=2)
        parts = [program(X[i : i + size]) for i in range(0, 8 - size + 1, size)]
        assert np.concatenate(parts).tobytes() == whole[: len(parts) * size].tobytes()


def test_8_threads_on_one_net_with_several_shapes_get_the_bits_of_one_alone():
    net = mixed()
    expected = {n: net(X[:n]) for n in range(1, 9)}
    wrong = []

    def work(i):
        for k in range(12):
            n = (i + k) % 8 + 1
            if net(X[:n]).tobytes() != expected[n].tobytes() or net.predict(X[:n]).shape != (n,):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_predicting_while_another_thread_trains_neither_crashes_nor_changes_the_training():
    x, y = X[..., :1].copy(), np.arange(8) % 3

    def trained(disturbed):
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(8, 3))
        trainer = pc.Trainer(net, optimizer=optim.SGD(0.05, momentum=0.9))
        trainer.step(x, y)
        worker = threading.Thread(target=lambda: [trainer.step(x, y) for _ in range(60)])
        worker.start()
        while disturbed and worker.is_alive():
            assert np.isfinite(net(x)).all()
        worker.join()
        return trainer.fingerprint()

    assert trained(True) == trained(False)


def test_two_trainers_with_heads_of_their_own_share_a_frozen_encoder():
    y = np.arange(8) % 3

    def nets():
        pc.manual_seed(3)
        encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.GlobalAvgPool2d()).build((17, 19, 3))
        encoder.freeze()
        heads = [nn.Sequential(encoder, nn.Linear(8, 3)).build((17, 19, 3)) for _ in range(2)]
        for head in heads:
            assert head(X).shape == (8, 3)  # somebody looks at them first
        return heads

    def steps(trainer):
        for _ in range(100):
            trainer.step(X, y)

    def make():
        return [pc.Trainer(net, optimizer=optim.SGD(rate)) for net, rate in zip(nets(), (0.05, 0.02), strict=True)]

    trainers = make()
    workers = [threading.Thread(target=steps, args=(trainer,)) for trainer in trainers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    alone = make()
    for trainer in alone:
        steps(trainer)
    assert [t.fingerprint() for t in trainers] == [t.fingerprint() for t in alone]
    assert trainers[0].fingerprint() != trainers[1].fingerprint()


def test_fork_after_a_parallel_run_computes_and_trains_in_the_child(monkeypatch):
    monkeypatch.setenv("PYCNN_OVERSUBSCRIBE", "1")
    net, x = mixed(), np.tile(X, (4, 1, 1, 1))
    program = pc.compile(net, x.shape, threads=3)
    expected = program(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            same = program(x).tobytes() == expected.tobytes() and net(X).tobytes() == expected[:8].tobytes()
            step = pc.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(969, 3)), threads=3).step(X, np.arange(8) % 3)
            os._exit(0 if same and np.isfinite(step["loss"]) else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert program(x).tobytes() == expected.tobytes()


def test_array_that_its_owner_drops_or_resizes_during_a_run_is_held():
    net = mixed()
    many = np.tile(X, (16, 1, 1, 1))
    expected = net(many)
    raw = bytearray(many.tobytes())
    refused, results = [], []
    array = np.frombuffer(raw, np.float32).reshape(many.shape)
    worker = threading.Thread(target=lambda value: results.append(net(value)), args=(array,))
    worker.start()
    del array
    while worker.is_alive():
        try:
            raw.append(0)
            break
        except BufferError:
            refused.append(True)
    worker.join()
    assert np.array_equal(results[0], expected)
    own = X.copy()
    worker = threading.Thread(target=lambda value: results.append(net(value)), args=(own,))
    worker.start()
    del own
    gc.collect()
    np.full(X.shape, np.nan, np.float32)
    worker.join()
    assert np.array_equal(results[1], expected[:8])


def test_views_results_and_programs_outlive_the_net():
    net = mixed()
    view = net[10].weight.tensor.numpy()
    shared = np.from_dlpack(net[10].weight.tensor)
    program = pc.compile(net, X.shape)
    result, values = program(X), view.copy()
    kept = result.copy()
    del net
    gc.collect()
    assert np.array_equal(program(X), kept)
    del program
    gc.collect()
    _ = [np.full(100_000, np.nan) for _ in range(20)]
    assert np.array_equal(view, values)
    assert np.array_equal(shared, values)
    assert np.array_equal(result, kept)
    assert not view.flags.writeable


def test_program_dropped_while_another_thread_runs_it_finishes_the_run():
    programs = [pc.compile(mixed(), X.shape)]
    expected = programs[0](X)
    results = []
    run = programs[0].run
    workers = [threading.Thread(target=lambda call: results.append(call(X)["output"]), args=(run,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    programs.clear()
    del run
    gc.collect()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(result, expected) for result in results)
    assert len(results) == 4


@pytest.mark.parametrize("what", ["inference", "training"])
def test_other_threads_of_python_go_on_while_the_core_computes(what):
    net = nn.Sequential(nn.Conv2d(3, 32, 5), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(32, 3))
    x = RNG.random((64, 64, 64, 3), np.float32)
    y = np.arange(64) % 3
    trainer = pc.Trainer(net, optimizer=optim.SGD(0.01), threads=1)
    program = pc.compile(net, x.shape, threads=1, variants={"conv2d": "reference"})
    run = {"inference": lambda: program(x), "training": lambda: trainer.step(x, y)}[what]
    run()

    def wakes_within():
        """Whether this thread wakes up and runs while another one is in the core; with the GIL held, only after it."""
        entered, times = threading.Event(), []

        def compute():
            entered.set()
            times.append(time.perf_counter())
            run()
            times.append(time.perf_counter())

        worker = threading.Thread(target=compute)
        worker.start()
        entered.wait()
        time.sleep(0.005)
        woke = time.perf_counter()
        worker.join()
        begin, end = times
        return begin + 0.002 < woke < begin + (end - begin) / 2

    assert any(wakes_within() for _ in range(20))  # more often only on a machine that is busy with other things
