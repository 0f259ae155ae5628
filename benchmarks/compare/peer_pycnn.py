"""pycnn itself."""

from __future__ import annotations

import pycnn as pc
from benchmarks.compare.peer import Candidate, Result, Setting
from benchmarks.compare.workload import MOMENTUM, RATE, Workload

name = "pycnn"
packages = ()


def settings(mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
    """One: it chooses by itself."""
    return [Setting(name, "", _infer if mode == "infer" else _train)]


def _infer(work: Workload) -> Candidate:
    case = work.case
    options = {} if case.dtype == "float32" else {"dtype": case.dtype}
    program = pc.compile(work.net, shape=work.x.shape, threads=case.threads, **options)
    return Candidate(lambda: program(work.x), lambda: Result(scores=program(work.x)))


def _train(work: Workload) -> Candidate:
    case = work.case
    net = work.fresh_net()
    trainer = pc.Trainer(
        net,
        optimizer=pc.optim.SGD(lr=RATE, momentum=MOMENTUM),
        threads=case.threads,
        dtype=case.dtype,
        metrics=(),
        # Heads of other nets than those of the table would have no twin.
        auxiliary_weight=0,
        seed=case.seed,
    )

    def step() -> float:
        return trainer.step(work.x, work.y)["loss"]

    def check() -> Result:
        before = {name: net.state_dict()[name] for name in work.watched}
        loss = step()
        after = net.state_dict()
        return Result(loss=loss, updates={name: after[name] - before[name] for name in before})

    def planned() -> int:
        memory = trainer._training.get(work.x, work.y).program.memory
        weights = sum(array.nbytes for array in net.state_dict().values())
        return sum(memory[f"{part}_bytes"] for part in ("arena", "scratch", "prepared", "variable")) - weights

    return Candidate(step, check, planned)
