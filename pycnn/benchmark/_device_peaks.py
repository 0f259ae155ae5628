"""How fast a GPU is at its best in products of large matrices and passes through large tensors of programs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from pycnn import functional, nn
from pycnn.benchmark._peaks import ComputePeak, MemoryPeak, Peaks
from pycnn.config import machine
from pycnn.errors import MemoryLimitError, UnsupportedError
from pycnn.program import Program, compile_traced
from pycnn.tensor import expect_memory
from pycnn.tracing import trace
from pycnn.version import __version__

__all__ = ["device_peaks"]

_DTYPES = ("float32", "tf32", "bfloat16", "float16")
_Rates = TypeVar("_Rates")
_RUNS = 5
_CHANNELS, _SCALE = 256, 4


def device_peaks(
    device: str, *, report: Callable[[str], object] | None = None, width: int = 8192, side: int = 1024
) -> Peaks:
    """Measure the highest rates of a device by running what takes nothing else.

    Products are those of a dense layer, in each type that the device multiplies (TF32 is float32 that
    may be rounded for that), by the kernel that is chosen for it
    (a library's, where there is one). Memory is copied by an activation and read by a mean over pixels. Of a few runs
    the fastest counts. The device's clock tells half microseconds, and no step is shorter than the host takes to give
    it: hence the sizes, of which smaller ones are taken only where the device or the host has no room.

    Args:
        device: As of `pycnn.compile`.
        report: Is told what takes time.
        width: Rows and columns of the matrices.
        side: Height and width of an image of 256 channels of float32 that no cache holds: 1 GiB.

    Returns:
        The peaks; their one level of memory is the device's own.

    Raises:
        DeviceError: The device is not there.
        MemoryLimitError: There is no room even for an eighth of the width or side.
    """
    if report is not None:
        report(f"measuring the peaks of {device}, some seconds")
    compute = _with_room(lambda size: _product_rates(size, device), width)
    read, copied = _with_room(lambda size: _memory_rates(size, device), side)
    return Peaks(
        cpu=machine()["cpu"],
        isa=device,
        threads=0,
        compute=compute,
        memory=(MemoryPeak("memory", 0, read / 1e9, copied / 1e9),),
        pycnn=__version__,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        busy=False,
    )


def _with_room(measure: Callable[[int], _Rates], size: int) -> _Rates:
    """The rates of the largest of a few sizes that there is memory for."""
    for smaller in (size, size // 2, size // 4):
        try:
            return measure(smaller)
        except MemoryLimitError:
            continue
    return measure(size // 8)


def _product_rates(width: int, device: str) -> tuple[ComputePeak, ...]:
    expect_memory(f"device_peaks: no memory for matrices ({width}, {width})", 3 * 4 * width * width)
    matrix = np.random.default_rng(0).random((width, width), np.float32) - np.float32(0.5)
    peaks = []
    for dtype in _DTYPES:
        try:
            rate = _product_rate(matrix, device, dtype)
        except UnsupportedError:
            continue
        peaks.append(ComputePeak(dtype, device, rate / 1e9))
    return tuple(peaks)


def _product_rate(matrix: np.ndarray, device: str, dtype: str) -> float:
    """Operations a second."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.build(matrix.shape[1:])
    layer.load_state_dict({"weight": matrix})
    program = compile_traced(
        trace(lambda x: layer(x), {"x": (matrix.shape, "float32")}, root=layer),
        device=device,
        dtype="float32" if dtype == "tf32" else dtype,
        tf32=dtype == "tf32",
    )
    return max(2 * step["macs"] / seconds for step, seconds in _times(program, matrix) if step["macs"] > 0)


def _memory_rates(side: int, device: str) -> tuple[float, float]:
    """Bytes a second, read alone and read and written."""
    shape = (1, side // _SCALE, side // _SCALE, _CHANNELS)
    expect_memory(f"device_peaks: no memory for an image {shape}", 4 * math.prod(shape))
    image = np.random.default_rng(0).random(shape, np.float32)

    def passes(x: Any) -> Any:
        # What the host sends is small beside what the device goes through.
        large = functional.resize(x, scale_factor=_SCALE)
        return functional.global_avg_pool2d(functional.relu(large))

    program = compile_traced(trace(passes, {"x": (image.shape, "float32")}), device=device)
    rates = {step["op"]: step["bytes"] / seconds for step, seconds in _times(program, image)}
    return rates["global_avg_pool2d"], rates["activation"]


def _times(program: Program, array: np.ndarray) -> list[tuple[Mapping[str, Any], float]]:
    """The steps of a run, each with its shortest time."""
    steps = [step for step in program.profile(array, runs=_RUNS) if step["phase"] == "run"]
    return [(step, max(step["min_seconds"], 1e-9)) for step in steps]
