"""What a library must leave alone: modes of the processor, signals, locale, environment, generators, limits, inputs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import contextlib, ctypes, locale, os, random, resource, signal, sys, tempfile, threading, warnings
import numpy as np

with contextlib.suppress(locale.Error):  # the user's may not be installed
    locale.setlocale(locale.LC_ALL, "")
libm = ctypes.CDLL("libm.so.6")


def processor_modes():
    # fenv_t ends with MXCSR: denormals, rounding and masks; its low 6 bits only tell what happened.
    environment = (ctypes.c_uint32 * 8)()
    libm.fegetenv(environment)
    return libm.fegetround(), environment[0] & 0xFFFF, environment[7] & ~0x3F


def state():
    return {
        "modes": processor_modes(),
        "denormals": (float(np.float32(1e-40) * np.float32(1)), 5e-324 * 1.0),
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": dict(os.environ),
        "affinity": os.sched_getaffinity(0),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "folder": os.getcwd(),
        "limits": [resource.getrlimit(kind) for kind in range(16)],
        "numpy": (np.geterr(), np.get_printoptions()),
        "random": (random.getstate(), np.random.get_state()[1].tobytes()),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.getrecursionlimit()),
        "warnings": (list(warnings.filters), warnings.showwarning),
    }


def compare(what):
    now = state()
    changed = [name for name in before if before[name] != now[name]]
    assert not changed, (what, {name: (before[name], now[name]) for name in changed})


np.random.seed(3), random.seed(3)
before = state()
import pycnn as pc
from pycnn import nn, optim

compare("import")
x, y = np.random.RandomState(0).rand(32, 6, 6, 1).astype(np.float32), np.arange(32) % 3
images, labels = x.copy(), y.copy()
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3))
trainer = pc.Trainer(net, optimizer=optim.SGD(0.1), threads=2)
trainer.step(x, y)
with tempfile.TemporaryDirectory() as folder:
    shift = pc.data.transforms.RandomCrop(padding=1)
    options = {"batch_size": 8, "transform": shift, "workers": 2, "checkpoint_dir": folder, "progress": False}
    trainer.fit((x, y), val=(x, y), epochs=2, **options)
    loaded = pc.load(folder + "/last.safetensors")
compare("training")
net.predict(x), loaded(x), pc.grad(lambda v: pc.functional.sum(net(v)))(x), trainer.evaluate((x, y))
compare("inference")
for wrong in (lambda: net(x[..., :0]), lambda: trainer.step(x, y + 9), lambda: pc.load("/nowhere")):
    try:
        wrong()
        raise SystemExit("accepted")
    except pc.Error:
        pass
worker = threading.Thread(target=lambda: trainer.fit((x, y), epochs=1, progress=False))
worker.start(), worker.join()
compare("errors and threads")
assert np.array_equal(images, x) and np.array_equal(labels, y), "inputs changed"
print("as before")
"""


def test_import_training_inference_and_errors_change_nothing_of_the_process_or_the_inputs():
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("as before\n", 0), done.stderr
