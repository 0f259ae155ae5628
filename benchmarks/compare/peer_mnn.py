"""MNN on its CPU backend, converted from ONNX by its own converter; weights and threads as it prefers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare.peer import Candidate, Result, Setting, UnavailableError
from benchmarks.compare.workload import Workload

name = "mnn"
packages = ("MNN",)


def settings(mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
    """One, in the form that its authors advise for a fixed shape."""
    with _silenced_output():
        import MNN  # noqa: F401

    if mode == "train":
        raise UnavailableError("its training is not that of a given graph")
    if dtype == "bfloat16":
        raise UnavailableError("its wheel computes no bfloat16 on x86")
    return [Setting(name, "", _start)]


def _start(work: Workload) -> Candidate:
    with _silenced_output():
        import MNN

        interpreter = MNN.Interpreter(str(_converted(work.onnx())))
        session = interpreter.createSession({"backend": "CPU", "numThread": work.case.threads, "precision": "high"})
        target = interpreter.getSessionInput(session)
        interpreter.resizeTensor(target, work.x_nchw.shape)
        interpreter.resizeSession(session)
    kind = MNN.Tensor_DimensionType_Caffe
    shape = work.x_nchw.shape
    source = MNN.Tensor(shape, MNN.Halide_Type_Float, work.x_nchw, kind)
    output = interpreter.getSessionOutput(session)
    scores = MNN.Tensor(output.getShape(), MNN.Halide_Type_Float, np.zeros(output.getShape(), np.float32), kind)

    def call() -> Any:
        target.copyFrom(source)
        interpreter.runSession(session)
        output.copyToHostTensor(scores)
        return scores

    return Candidate(
        call, lambda: Result(scores=np.array(call().getNumpyData(), np.float32).reshape(scores.getShape()))
    )


def _converted(onnx: Path) -> Path:
    path = onnx.with_suffix(".mnn")
    if not path.exists():
        # The converter itself: the wheel's Python wrapper of it (MNN.tools) installs a package by pip when imported,
        # and reports its use to a server.
        code = "import _tools, sys; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
        command = [sys.executable, "-P", "-c", code, "-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(path)]
        done = subprocess.run(
            [*command, "--bizCode", "pycnn"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode or not path.exists():
            raise UnavailableError(f"its converter failed: {done.stdout[-200:]}")
    return path


@contextmanager
def _silenced_output() -> Iterator[None]:
    """Keep what the C++ side prints away from the tables."""
    sys.stdout.flush()
    kept = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
