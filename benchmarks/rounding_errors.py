"""Rounding of convolutions by Winograd's and Strassen's algorithms beside plain sums, against float64.

    python benchmarks/rounding_errors.py [--isa avx2] [--draws 4] [--channels 512] [--json FILE]

Images are what a ReLU leaves of normal numbers, weights are He's, gradients normal. Of each draw the largest error is
divided by the largest result, the RMS error by the RMS result; the worst draw counts. The tables are those of
docs/design.md. Rows are left out where another kernel runs than the one that the table is about.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass

import numpy as np
from timing import environment, save

from pycnn import _core
from pycnn import functional as F
from pycnn.program import compile_traced
from pycnn.tracing import emit, trace


@dataclass(frozen=True)
class Kind:
    """A table: what is convolved, and the word in the names of the kernels that it is about."""

    title: str
    size: int
    window: int
    kernel: str
    images: int = 1
    group_channels: int = 0
    gradient: bool = False


KINDS = (
    Kind("3x3, outputs of 7x7 (tiles of 2)", 7, 3, "winograd"),
    Kind("3x3, outputs of 16x16 (tiles of 4)", 16, 3, "winograd"),
    Kind("5x5, outputs of 16x16 (tiles of 2)", 16, 5, "winograd"),
    Kind("3x3 in groups of 8, outputs of 14x14", 14, 3, "grouped.winograd", group_channels=8),
    Kind("3x3 in groups of 32, outputs of 14x14", 14, 3, "grouped.winograd", group_channels=32),
    Kind("1x1, 16x16 pixels (Strassen)", 16, 1, "strassen"),
    Kind("gradient of 3x3 weights, 16 images of 28x28", 28, 3, "winograd", images=16, gradient=True),
    Kind("gradient of 1x1 weights, 16 images of 28x28", 28, 1, "strassen", images=16, gradient=True),
)
CHANNELS = (16, 64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Row:
    """The worst errors of a kind with so many channels on both sides."""

    kind: str
    channels: int
    plain_largest: float
    fast_largest: float
    plain_rms: float
    fast_rms: float


def convolve(kind: Kind, x: np.ndarray, w: np.ndarray, g: np.ndarray, winograd: bool, isa: str | None) -> np.ndarray:
    """Return the result, or the gradient of the weights; LookupError where another kernel than the kind's runs."""
    groups, edge = x.shape[3] // w.shape[3], kind.window // 2
    if kind.gradient:
        op = _core.Conv2dGradWeight(kernel_size=w.shape[1:3], padding=(edge,) * 4, groups=groups)
        arrays = {"x": x, "g": g}
        traced = trace(lambda x, g: emit(op, [x, g]), _specs(arrays))
    else:
        arrays = {"x": x, "w": w}
        traced = trace(lambda x, w: F.conv2d(x, w, padding=edge, groups=groups), _specs(arrays))
    program = compile_traced(traced, winograd=winograd, isa=isa)
    variants = [step["variant"] for step in program.steps() if step["op"].startswith("conv2d")]
    if winograd and not any(f".{kind.kernel}." in variant for variant in variants):
        raise LookupError(f"{kind.title}: {', '.join(variants)}")
    return program(*arrays.values())


def _specs(arrays: dict[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, "float32") for name, array in arrays.items()}


def expected(kind: Kind, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the same in float64, tap by tap."""
    edge = kind.window // 2
    wide = np.pad(x.astype(np.float64), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    per_group = w.shape[3]
    result = np.zeros(w.shape if kind.gradient else g.shape)
    for row in range(kind.window):
        for column in range(kind.window):
            seen = wide[:, row : row + kind.size, column : column + kind.size]
            for first in range(0, x.shape[3], per_group):
                part = slice(first, first + per_group)
                pixels = seen[..., part].reshape(-1, per_group)
                if kind.gradient:
                    result[part, row, column] = g[..., part].reshape(-1, per_group).astype(np.float64).T @ pixels
                else:
                    products = pixels @ w[part, row, column].astype(np.float64).T
                    result[..., part] += products.reshape(*g.shape[:3], per_group)
    return result


def measure(kind: Kind, channels: int, draws: int, isa: str | None) -> Row:
    """Return the worst of some draws."""
    per_group = kind.group_channels or channels
    errors = np.zeros((2, 2))
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        shape = (kind.images, kind.size, kind.size, channels)
        x = np.maximum(rng.standard_normal(shape, np.float32), 0)
        w = rng.standard_normal((channels, kind.window, kind.window, per_group), np.float32)
        w *= np.float32(np.sqrt(2 / (kind.window**2 * per_group)))
        g = rng.standard_normal(shape, np.float32)
        wanted = expected(kind, x, w, g)
        for index, winograd in enumerate((False, True)):
            off = convolve(kind, x, w, g, winograd, isa) - wanted
            largest = np.abs(off).max() / np.abs(wanted).max()
            rms = np.sqrt(np.mean(off**2) / np.mean(wanted**2))
            errors[index] = np.maximum(errors[index], (largest, rms))
    (plain_largest, plain_rms), (fast_largest, fast_rms) = errors.tolist()
    return Row(kind.title, channels, plain_largest, fast_largest, plain_rms, fast_rms)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--isa", choices=("baseline", "avx2", "avx512"), help="instruction set (default: the best)")
    parser.add_argument("--draws", type=int, default=4, help="of images and weights (default: 4)")
    parser.add_argument("--channels", type=int, default=CHANNELS[-1], help="at most (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all rows there")
    args = parser.parse_args()
    os.environ.setdefault("PYCNN_STRASSEN", "1")  # also where plain sums are chosen
    rows = []
    for kind in KINDS:
        print(f"\n{kind.title}\nchannels  largest: plain     fast    RMS: plain     fast")
        most = min(args.channels, 2048 if kind.window == 1 and not kind.gradient else 512)
        for channels in (count for count in CHANNELS if kind.group_channels <= count <= most):
            try:
                row = measure(kind, channels, args.draws, args.isa)
            except LookupError:
                continue
            rows.append(row)
            numbers = row.plain_largest, row.fast_largest, row.plain_rms, row.fast_rms
            print(f"{channels:8}{numbers[0]:16.1e} {numbers[1]:8.1e} {numbers[2]:13.1e} {numbers[3]:8.1e}", flush=True)
    save(
        "rounding_errors",
        {"environment": environment(), "isa": args.isa, "rows": [asdict(row) for row in rows]},
        args.json,
    )


if __name__ == "__main__":
    main()
