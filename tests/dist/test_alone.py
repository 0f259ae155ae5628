"""`pycnn.dist` in one process, and what the environment says of several."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tolerances import assert_bits

from pycnn import dist
from pycnn.dist._environment import place, timeout_seconds
from pycnn.dist._reduction import combine, part_of
from pycnn.errors import ArgumentError

_VARIABLES = (
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PYCNN_DIST",
    "PYCNN_DIST_TIMEOUT",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


def run(code, **env):
    import os

    return subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )


def test_alone_there_is_one_rank_and_all_is_given_back():
    assert (dist.rank(), dist.size()) == (0, 1)
    dist.barrier()
    values = np.arange(6.0).reshape(2, 3)
    for op in ("sum", "mean", "max", "min"):
        result = dist.allreduce(values, op)
        assert_bits(result, values)
        assert not np.shares_memory(result, values)
    assert_bits(dist.allreduce([1, 2], "mean"), np.array([1.0, 2.0]))
    assert_bits(dist.broadcast(values), values)
    assert dist.allreduce(3).shape == ()


def test_training_alone_starts_no_mpi():
    code = """
import sys, numpy as np, pycnn as pc
from pycnn import dist
assert (dist.rank(), dist.size()) == (0, 1)
trainer = pc.Trainer(pc.models.lenet5(), seed=0)
trainer.fit((np.zeros((4, 28, 28, 1), np.float32), np.zeros(4, np.int64)), epochs=1, batch_size=2, progress=False)
assert trainer.ranks is None
assert not [name for name in sys.modules if name.startswith("mpi4py")], "MPI was started"
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: dist.allreduce(1, "product"), "op must be one of sum, mean, max, min, got 'product'"),
        (lambda: dist.allreduce(["a"]), "expected numbers, got an array of <U1"),
        (lambda: dist.broadcast(1, root=1), r"root must be a rank, 0..0, got 1"),
        (lambda: dist.broadcast(1, root=True), r"root must be a rank"),
    ],
)
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, (2, 4)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2)),
        ({"PMIX_RANK": "3", "SLURM_NTASKS": "5"}, (3, 5)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PYCNN_DIST": "off"}, (0, 1)),
        ({"SLURM_NTASKS": "5"}, (0, 1)),
    ],
)
def test_rank_and_size_are_the_launchers(names, expected, monkeypatch):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert (dist.rank(), dist.size()) == expected


def test_nonsense_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("PYCNN_DIST_TIMEOUT", "-3")
    with pytest.raises(ArgumentError, match="PYCNN_DIST_TIMEOUT is '-3', expected seconds, above 0"):
        timeout_seconds()
    monkeypatch.setenv("PMI_RANK", "2")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(ArgumentError, match="PMI_RANK is '2' and PMI_SIZE is '2'"):
        place()
    monkeypatch.setenv("PYCNN_DIST", "perhaps")
    with pytest.raises(ArgumentError, match="PYCNN_DIST is 'perhaps', expected 'on' or 'off'"):
        place()


def test_without_mpi4py_the_extra_is_named():
    code = """
import sys
sys.modules["mpi4py"] = None
import pycnn as pc
try:
    pc.Trainer(pc.models.lenet5()).step([[[[0.0]]]], [0])
except pc.UnsupportedError as error:
    print(error)
"""
    done = run(code, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")
    assert "training in 2 processes needs mpi4py" in done.stdout, done.stderr
    assert "pip install 'pycnn[mpi]'" in done.stdout


@pytest.mark.parametrize("size", range(1, 10))
def test_ranks_are_combined_in_pairs_of_neighbours(size):
    rng = np.random.default_rng(size)
    parts = [rng.normal(size=5).astype(np.float32) * 10.0**rank for rank in range(size)]

    def pairs(row):
        if len(row) == 1:
            return row[0]
        return pairs([left + right for left, right in zip(row[0::2], row[1::2])] + row[len(row) - len(row) % 2 :])

    assert_bits(combine([part.copy() for part in parts]), pairs(parts))
    assert_bits(combine([part.copy() for part in parts], "max"), np.max(parts, axis=0))
    assert_bits(combine([part.copy() for part in parts], "mean"), pairs(parts) / np.float32(size))


@pytest.mark.parametrize("count", [0, 1, 5, 64, 1001])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_follow_one_another_and_are_alike(count, size):
    parts = [range(count)[part_of(count, rank, size)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
