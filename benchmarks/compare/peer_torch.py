"""PyTorch, eager and compiled: channels last or not, bfloat16 by autocast or, in inference, by bfloat16 weights.

Compiled inference has frozen weights, so that Inductor folds batch norms and packs weights for oneDNN. The update is
the fused SGD.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

from benchmarks.compare.peer import Candidate, Result, Setting, UnavailableError
from benchmarks.compare.workload import MOMENTUM, RATE, Workload


class Torch:
    """One of the two ways to run PyTorch.

    Args:
        compiled: By `torch.compile` (Inductor), which needs a C++ compiler.
    """

    packages = ("torch",)

    def __init__(self, *, compiled: bool) -> None:
        self.compiled = compiled
        self.name = "torch-compiled" if compiled else "torch-eager"

    def settings(self, mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
        """Memory formats, and forms of bfloat16."""
        import torch  # noqa: F401

        if self.compiled and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise UnavailableError("torch.compile needs a C++ compiler, and there is none")
        forms = {"float32": ("",), "bfloat16": ("autocast", "bfloat16 weights")[: 2 if mode == "infer" else 1]}[dtype]
        start = self._infer if mode == "infer" else self._train
        found = []
        for form, last in product(forms, (True, False)):
            title = ", ".join(part for part in (form, "channels last" if last else "contiguous") if part)
            found.append(Setting(self.name, title, partial(start, last=last, form=form)))
        return found

    def _infer(self, work: Workload, *, last: bool, form: str) -> Candidate:
        import torch

        net, x, context = self._prepare(work, last=last, form=form)
        if self.compiled:
            net = torch.compile(net, options={"freezing": True})
        # Freezing wants plain no_grad.
        without = torch.no_grad if self.compiled else torch.inference_mode

        def call() -> Any:
            with without(), context():
                return net(x)

        if self.compiled:
            _quietly(call)
        return Candidate(call, lambda: Result(scores=call().float().numpy()))

    def _train(self, work: Workload, *, last: bool, form: str) -> Candidate:
        import torch
        from torch.nn.functional import cross_entropy

        plain, x, context = self._prepare(work, last=last, form=form)
        y = torch.from_numpy(work.y)
        optimizer = torch.optim.SGD(plain.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
        net = plain
        if self.compiled:
            net = torch.compile(plain)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            with context():
                scores = net(x)
            loss = cross_entropy(scores.float(), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        def check() -> Result:
            weights = {name: plain.get_parameter(name.replace(".", "/")) for name in work.watched}
            before = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
            loss = _quietly(step) if self.compiled else step()
            return Result(
                loss=loss, updates={name: weight.detach().numpy() - before[name] for name, weight in weights.items()}
            )

        return Candidate(step, check)

    @staticmethod
    def _prepare(work: Workload, *, last: bool, form: str) -> tuple[Any, Any, Callable[[], AbstractContextManager]]:
        """Net, images, and what calls happen in."""
        import torch

        torch.set_num_threads(work.case.threads)
        # Whoever reads the tables sees no idle workers of the compiler.
        import torch._inductor.config as inductor

        inductor.compile_threads = 1
        layout = torch.channels_last if last else torch.contiguous_format
        dtype = torch.bfloat16 if form == "bfloat16 weights" else torch.float32
        net = work.twin().to(dtype).to(memory_format=layout)
        x = torch.from_numpy(work.x_nchw).to(dtype).to(memory_format=layout)
        if form == "autocast":
            return net, x, partial(torch.autocast, "cpu", dtype=torch.bfloat16)
        return net, x, nullcontext


def _quietly(call: Callable[[], Any]) -> Any:
    """The first call compiles, and warns about its own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
