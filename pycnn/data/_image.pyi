from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.float32] | NDArray[Any]
Index = NDArray[np.int64]

def random_words(seed: int, epoch: int, stream: int, sample: int, out: NDArray[np.uint64]) -> None: ...
def uniform(seed: int, epoch: int, stream: int, index: Index, out: NDArray[np.float64]) -> None: ...
def gather(rows: NDArray[np.uint8], index: Index, out: NDArray[np.uint8]) -> None: ...
def gather_normalize(
    rows: Pixels,
    index: Index,
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def crop(images: Pixels, top: Index, left: Index, fill: float, out: Pixels) -> None: ...
def flip(images: Pixels, chosen: NDArray[np.uint8], out: Pixels) -> None: ...
def affine_matrices(parameters: NDArray[np.float64], height: int, width: int, out: NDArray[np.float32]) -> None: ...
def displacement(
    seed: int,
    epoch: int,
    stream: int,
    index: Index,
    alpha: float,
    taps: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def warp(
    images: Pixels,
    matrices: NDArray[np.float32],
    field: NDArray[np.float32],
    fill: float,
    out: Pixels,
) -> None: ...
def resize(
    images: Pixels,
    row_start: Index,
    row_taps: NDArray[np.float32],
    column_start: Index,
    column_taps: NDArray[np.float32],
    out: Pixels,
) -> None: ...
