"""How fast a net is, whole and step by step, and how fast this machine would let it be."""

from pycnn.benchmark._bench import bench, environment
from pycnn.benchmark._peaks import ComputePeak, MemoryPeak, Peaks, machine_peaks
from pycnn.benchmark._picture import draw_roofline
from pycnn.benchmark._report import BenchReport, Clock, Layer, Refusal, Timing
from pycnn.benchmark._roofline import Bound, bound

__all__ = [
    "BenchReport",
    "Bound",
    "Clock",
    "ComputePeak",
    "Layer",
    "MemoryPeak",
    "Peaks",
    "Refusal",
    "Timing",
    "bench",
    "bound",
    "draw_roofline",
    "environment",
    "machine_peaks",
]
