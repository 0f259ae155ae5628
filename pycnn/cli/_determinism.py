"""The check that a training gives the same bits for any number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pycnn.cli._output import Output
from pycnn.cli._plan import Plan
from pycnn.config import machine
from pycnn.data import Loader

__all__ = ["VERIFIED_STEPS", "verify"]

VERIFIED_STEPS = 20


@contextmanager
def _more_threads_than_processors() -> Iterator[None]:
    before = os.environ.get("PYCNN_OVERSUBSCRIBE")
    os.environ["PYCNN_OVERSUBSCRIBE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYCNN_OVERSUBSCRIBE"]
        else:
            os.environ["PYCNN_OVERSUBSCRIBE"] = before


def verify(plan: Plan, output: Output) -> int:
    """Train some steps with several numbers of threads, and compare the weights."""
    own = plan.args.threads or machine()["threads"]
    fingerprints: list[tuple[int, str]] = []
    with _more_threads_than_processors():
        for threads in (own, 1, 2, 3, 4):
            fingerprints.append((threads, train_steps(plan, threads)))
            output.progress(f"{VERIFIED_STEPS} steps with {threads} threads: weights {fingerprints[-1][1]}")
    same = len({text for _, text in fingerprints}) == 1
    result = {
        "net": plan.recipe.net,
        "data": plan.recipe.data,
        "seed": plan.recipe.seed,
        "steps": VERIFIED_STEPS,
        "deterministic": same,
        "runs": [{"threads": threads, "weights_fingerprint": text} for threads, text in fingerprints],
    }
    counted = ", ".join(str(threads) for threads, _ in fingerprints)
    verdict = "the same bits" if same else "DIFFERENT bits"
    output.form = "verify"
    output.result(result, f"{VERIFIED_STEPS} steps with {counted} threads: {verdict}")
    output.suggest("pycnn train" if same else "pycnn doctor, and please report this with its output")
    return 0 if same else 1


def train_steps(plan: Plan, threads: int) -> str:
    """Train some steps; the fingerprint of the weights."""
    # Schedules that need the number of epochs have none here.
    steady = replace(plan, recipe=replace(plan.recipe, schedule="constant"))
    trainer = steady.trainer(plan.fresh_net(), threads)
    recipe = plan.recipe
    transform = recipe.make_transform(plan.data.train.image_shape)
    while trainer.steps < VERIFIED_STEPS:
        for x, y in Loader(plan.fit, recipe.batch_size, seed=recipe.seed, transform=transform):
            trainer.step(x, y)
            if trainer.steps == VERIFIED_STEPS:
                break
    return trainer.fingerprint()
