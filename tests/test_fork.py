"""Children forked while other threads of the process are at work, or from within a training."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("PIL")

SCRIPT = """
import os, signal, sys, threading, warnings
import numpy as np
from PIL import Image
import pycnn as pc
from pycnn import nn, optim
from pycnn.changes import clock

warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads
where, folder = sys.argv[1:]
for i in range(8):
    os.makedirs(f"{folder}/{i % 2}", exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), 20 * i, np.uint8)).save(f"{folder}/{i % 2}/{i}.png")

inside, done = threading.Event(), threading.Event()


def stay():
    inside.set()
    done.wait()


class Net(nn.Module):
    waits = False

    def __init__(self):
        self.fc = nn.Linear(108, 2)

    def forward(self, x):
        if Net.waits:
            stay()
        return self.fc(pc.functional.flatten(x))


class Stay(pc.train.Callback):
    def on_step_end(self, trainer, logs):
        if trainer.steps == 2:
            stay()


class Pixels:
    @property
    def nbytes(self):
        stay()
        return 1


def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def beside(function, work):
    # A child while another thread is inside of the function.
    worker = threading.Thread(target=function)
    worker.start()
    assert inside.wait(120)
    code = in_child(work)
    done.set()
    worker.join()
    return code


data = pc.data.ImageFolder(folder, size=6)
net = Net().build((6, 6, 3))
x, y = data.read(np.arange(8)), data.labels
expected = net(x)
trainer = pc.Trainer(net, optimizer=optim.SGD(1e-3))


def everything():
    Net.waits = False
    assert net(x[:3]).tobytes() == expected[:3].tobytes() or where == "fit"
    assert np.isfinite(trainer.step(x, y)["loss"])
    assert np.isfinite(pc.Trainer(net).step(x, y)["loss"])
    assert net(x).tobytes() != expected.tobytes()
    for images in (data, pc.data.ImageFolder(folder, size=6)):
        assert (images.read(np.arange(8)) == x).all()
        pc.Trainer(Net()).fit(images, epochs=1, batch_size=4, workers=2, progress=False)
    net.extra = nn.ReLU()
    pc.nn.save(net, f"{folder}/net.safetensors")


def fit(*callbacks):
    return trainer.fit(data, epochs=1, batch_size=4, callbacks=callbacks, progress=False)


def hold(lock):
    with lock:
        stay()


if where == "net":
    Net.waits = True
    code = beside(lambda: net(x[:5]), everything)
elif where == "fit":
    code = beside(lambda: fit(Stay()), everything)
elif where == "change":
    code = beside(lambda: hold(clock._lock), everything)
elif where == "images":
    data._cache.clear()
    code = beside(lambda: data._cache.offer(("sized", 100), Pixels()), everything)
elif where == "loader":
    batches = iter(pc.data.Loader(data, 1, workers=2, seed=3))
    rest = [images for images, _ in pc.data.Loader(data, 1, workers=2, seed=3)][2:]
    next(batches), next(batches)
    code = in_child(lambda: np.testing.assert_array_equal([images for images, _ in batches], rest))
elif where == "callback":
    codes = []

    def refused():
        try:
            trainer.step(x, y)
        except pc.errors.TrainingError:
            pc.Trainer(Net()).step(x, y)
            sys.exit(7)

    class Fork(pc.train.Callback):
        def on_step_end(self, trainer, logs):
            codes.append(in_child(refused))

    fit(Fork())
    code = 0 if codes == [7, 7] else codes
elif where == "signal":
    codes = []

    class Beside(pc.train.Callback):
        def on_step_end(self, trainer, logs):
            end = lambda: (os.kill(os.getpid(), signal.SIGTERM), signal.pause())
            thread = threading.Thread(target=lambda: codes.append(in_child(end)))
            thread.start()
            thread.join()

    fit(Beside())
    code = 0 if codes == [-signal.SIGTERM] * 2 else codes
assert code == 0, code
net(x), trainer.step(x, y)  # the parent goes on
"""


@pytest.mark.parametrize("where", ["net", "fit", "change", "images", "loader", "callback", "signal"])
def test_child_forked_beside_another_thread_predicts_trains_and_reads_images(where, tmp_path):
    command = [sys.executable, "-P", "-c", SCRIPT, where, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
