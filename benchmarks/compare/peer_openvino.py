"""OpenVINO's CPU plugin: one stream of all threads, or a stream a thread, each with its part of the batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare.peer import Candidate, Result, Setting, UnavailableError
from benchmarks.compare.workload import Workload

name = "openvino"
packages = ("openvino",)


def settings(mode: str, dtype: str, batch: int, threads: int) -> list[Setting]:
    """The hints for latency and, where the batch can be split, for throughput."""
    import openvino

    if mode == "train":
        raise UnavailableError("trains nothing")
    if dtype == "bfloat16":
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in able:
            raise UnavailableError(f"its CPU plugin offers no BF16 on this machine, only {', '.join(sorted(able))}")
    found = [Setting(name, "latency", partial(_start, streams=1))]
    if threads > 1 and batch % threads == 0:
        found.append(Setting(name, f"throughput, {threads} streams", partial(_start, streams=threads)))
    return found


def _start(work: Workload, *, streams: int) -> Candidate:
    import openvino

    core = openvino.Core()
    model = core.read_model(work.onnx())
    images = work.x_nchw
    parts = np.split(images, streams)
    model.reshape(list(parts[0].shape))
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": work.case.threads,
            # Else it takes bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[work.case.dtype],
        },
    )
    requests = []
    for part in parts:
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(part), shared_memory=True))
        requests.append(request)

    def call() -> Any:
        if streams == 1:
            requests[0].infer()
        else:
            for request in requests:
                request.start_async()
            for request in requests:
                request.wait()
        return [request.get_output_tensor().data for request in requests]

    return Candidate(call, lambda: Result(scores=np.concatenate(call()).astype(np.float32)))
