"""SIGINT and SIGTERM in a real process: while training, waiting for a data worker, or saving."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.train._signals import Interruption

SCRIPT = """
import signal, sys, time
import numpy as np
import pycnn as pc
from pycnn import nn, optim
from pycnn.train._signals import Interruption

where, folder = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)


class Data:
    labels, class_names = np.arange(64) % 3, ("a", "b", "c")
    image_shape, image_dtype = (6, 6, 1), np.dtype(np.float32)
    reads = 0

    def __len__(self):
        return 64

    def read(self, index):
        Data.reads += 1
        if where in ("worker", "stuck") and Data.reads == 6:
            print("here", flush=True)
            time.sleep(0.3 if where == "worker" else 300)
        return np.random.default_rng(int(index[0])).random((len(index), 6, 6, 1), np.float32)


save, saves = pc.nn.files.save, []


def slow_save(net, path, **options):
    saves.append(path)
    if where == "save" and len(saves) == 3:
        print("here", flush=True)
        time.sleep(0.3)
    save(net, path, **options)


class Say(pc.train.Callback):
    def on_step_end(self, trainer, logs):
        if where == "step" and trainer.steps == 5:
            print("here", flush=True)
            time.sleep(0.3)


note = Interruption._note


def tell(self, number, frame):
    note(self, number, frame)
    if where == "stuck":
        print("noted", flush=True)


pc.nn.files.save, Interruption._note = slow_save, tell
trainer = pc.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), optimizer=optim.SGD(0.1), seed=1)
try:
    options = {"callbacks": [Say()], "workers": 1, "progress": False}
    trainer.fit(Data(), epochs=10**6, batch_size=16, checkpoint_dir=folder, **options)
except BaseException as error:
    print(type(error).__name__, trainer.steps, time.monotonic(), flush=True)
    raise
"""


def start(where, folder):
    victim = subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, where, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert victim.stdout.readline() == "here\n"
    return victim


@pytest.mark.parametrize(
    ("where", "number"),
    [("step", signal.SIGINT), ("worker", signal.SIGTERM), ("save", signal.SIGINT), ("save", signal.SIGTERM)],
)
def test_step_ends_and_a_checkpoint_is_written_before_the_process_ends(tmp_path, where, number):
    with start(where, tmp_path) as victim:
        victim.send_signal(number)
        name, steps, _ = victim.stdout.readline().split()
    assert name == ("KeyboardInterrupt" if number == signal.SIGINT else "SystemExit")
    assert victim.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    trainer = pc.Trainer(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), optimizer=optim.SGD(0.1), seed=1)
    trainer.load_checkpoint(tmp_path / "last.safetensors")
    assert trainer.steps == int(steps) > 0
    assert not [p for p in tmp_path.iterdir() if ".tmp." in p.name]


def test_second_signal_does_not_wait_for_a_stuck_worker(tmp_path):
    with start("stuck", tmp_path) as victim:
        victim.send_signal(signal.SIGINT)
        assert victim.stdout.readline() == "noted\n"  # two signals at once would be one
        sent = time.monotonic()
        victim.send_signal(signal.SIGINT)
        name, _, when = victim.stdout.readline().split()
        victim.kill()
    assert name == "KeyboardInterrupt"
    assert float(when) - sent < 100
    assert pc.load(tmp_path / "last.safetensors").num_parameters == 111


def test_what_the_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGTERM)
            assert interruption.received is None
            signal.raise_signal(signal.SIGINT)
            assert interruption.received == signal.SIGINT
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
