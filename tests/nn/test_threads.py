"""Numbers of threads that cannot be: what is wrong is told once, and the rest decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys, warnings
threads = json.loads(sys.argv[1])
if sys.argv[2] == "one":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import pycnn as pc
from pycnn.config import machine
net = pc.nn.Sequential(pc.nn.Flatten(), pc.nn.Linear(36, 3))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    used = [pc.compile(net, (n, 6, 6, 1), threads=threads).threads for n in (1, 2)]
print(json.dumps([used, machine()["threads"], [str(w.message) for w in caught], [w.filename for w in caught]]))
"""


def run(threads=None, affinity="all", **variables):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS") and k != "PYCNN_OVERSUBSCRIBE"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, json.dumps(threads), affinity],
        env={**environment, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    used, chosen, texts, files = json.loads(done.stdout)
    assert used[0] == used[1]
    assert all(file == "<string>" for file in files)
    return used[0], chosen, texts


@pytest.mark.parametrize("value", ["0", "-1", "abc"])
def test_variable_that_holds_no_count_is_told_once_and_ignored(value):
    used, chosen, texts = run(PYCNN_NUM_THREADS=value)
    assert used == chosen >= 1
    (text,) = texts
    assert "PYCNN_NUM_THREADS" in text
    assert f"'{value}'" in text


@pytest.mark.parametrize("threads", [10**9, 2**40])
def test_more_threads_than_may_be_are_clamped_and_told_once(threads):
    used, _, texts = run(threads)
    assert 1 <= used <= len(os.sched_getaffinity(0))
    (text,) = texts
    assert f"threads={threads}" in text
    assert f"{used} will be used" in text


def test_documented_precedence():
    assert run(1)[0] == 1
    assert run(PYCNN_NUM_THREADS="1")[:2] == (1, 1)
    assert run(OMP_NUM_THREADS="1,2")[:2] == (1, 1)
    assert run(affinity="one")[:2] == (1, 1)
    used, _, texts = run(2, affinity="one")
    assert used == 1
    assert "threads=2" in texts[0]


ONE_CORE = """
import hashlib, json, os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import numpy as np
import pycnn as pc
from pycnn import nn
from pycnn.cli import main
pc.manual_seed(1)
x = np.random.default_rng(1).standard_normal((16, 12, 12, 3)).astype(np.float32)
net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(16, 3))
trainer = pc.Trainer(net, seed=1)
for _ in range(5):
    trainer.step(x, np.arange(16) % 3)
bits = [trainer.fingerprint(), hashlib.sha256(net(x).tobytes()).hexdigest()]
print(json.dumps([pc.compile(net, x.shape).threads, bits]), flush=True)
main(["doctor", "--no-speed", "--json"])
"""


def test_one_core_means_one_thread_that_doctor_explains_and_the_same_bits():
    def report(affinity):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        command = [sys.executable, "-P", "-c", ONE_CORE, affinity]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        first, doctor = done.stdout.splitlines()
        return *json.loads(first), json.loads(doctor)

    threads, bits, doctor = report("one")
    assert threads == doctor["threads"] == 1
    assert doctor["thread_limits"]["affinity"] == 1
    if len(os.sched_getaffinity(0)) > 1 and doctor["thread_limits"]["cgroup_quota"] != 1:
        assert doctor["threads_reason"] == "CPU affinity"
    assert report("all")[1] == bits
