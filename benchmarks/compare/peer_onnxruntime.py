"""ONNX Runtime on its CPU provider: all graph optimisations, waiting threads spin as by default."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.compare.peer import Candidate, Result, Setting, UnavailableError
from benchmarks.compare.workload import Workload

name = "onnxruntime"
packages = ("onnxruntime", "onnx")


def settings(mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
    """All threads, and for one image also one."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    if mode == "train":
        raise UnavailableError("trains nothing")
    if dtype == "bfloat16":
        raise UnavailableError("its CPU provider has no bfloat16 convolution")
    counts = sorted({1, threads} if batch == 1 else {threads}, reverse=True)
    return [Setting(name, f"{n} threads" if n > 1 else "1 thread", partial(_start, threads=n)) for n in counts]


def _start(work: Workload, *, threads: int) -> Candidate:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(work.onnx()), options, providers=["CPUExecutionProvider"])
    feed = {"x": work.x_nchw}

    def call() -> Any:
        return session.run(None, feed)[0]

    return Candidate(call, lambda: Result(scores=call()))
