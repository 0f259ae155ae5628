"""Transforms that move every pixel: affine maps and elastic distortion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_number
from pycnn.data import _image
from pycnn.data._checks import Images
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Range, Transform, as_range
from pycnn.errors import ArgumentError

_NO_MATRICES = np.empty((0, 6), np.float32)
_NO_FIELD = np.empty((0, 2, 0, 0), np.float32)


class Warp(Transform):
    """A transform that moves pixels by bilinear resampling."""

    fill: float

    def apply(self, images: Images, draw: Draw) -> Images:
        return resample(images, self, None, draw, draw)

    def matrices(self, images: Images, draw: Draw) -> NDArray[np.float32]:
        """Output-to-input matrices (N, 6), or no rows."""
        return _NO_MATRICES

    def field(self, images: Images, draw: Draw) -> NDArray[np.float32]:
        """Displacements (N, 2, H, W) in pixels, or no rows."""
        return _NO_FIELD


def resample(images: Images, first: Warp, second: Warp | None, a: Draw, b: Draw) -> Images:
    """Apply one warp, or an affine one and then an elastic one in a single resampling."""
    out = np.empty_like(images)
    field = first.field(images, a) if second is None else second.field(images, b)
    _image.warp(images, first.matrices(images, a), field, first.fill, out)
    return out


@dataclass(frozen=True)
class RandomAffine(Warp):
    """Rotate, shear, scale and move about the centre, with bilinear resampling.

    Forward: p' = c + t + R(angle) S(shear) scale (p - c), with the centre c, positive angles
    clockwise and S = [[1, tan(shear)], [0, 1]] on (x, y).

    Args:
        degrees: Largest rotation to either side, or (low, high), within ±360.
        translate: Largest move as a part of the side, 0..1; or (horizontal, vertical).
        scale: (low, high) in 0.01..100; drawn uniformly on a logarithmic scale.
        shear: Largest shear in degrees to either side, or (low, high), within ±60.
        fill: Value of pixels from outside.
    """

    degrees: Range = 0.0
    translate: Range = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: Range = 0.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        who = "RandomAffine"
        as_range(self.degrees, who=who, name="degrees", limit=360)
        as_range(self.shear, who=who, name="shear", limit=60)
        as_number(self.fill, who=who, name="fill")
        self._translate()
        if not isinstance(self.scale, (tuple, list)) or len(self.scale) != 2:
            raise ArgumentError(f"{who}: scale must be (low, high), got {self.scale!r}")
        low, high = (as_number(s, who=who, name="scale", low=0.01, high=100) for s in self.scale)
        if low > high:
            raise ArgumentError(f"{who}: scale has low {low} above high {high}")

    def _translate(self) -> tuple[float, float]:
        pair = self.translate
        if not isinstance(pair, (tuple, list)):
            pair = (pair, pair)
        if len(pair) != 2:
            raise ArgumentError(f"RandomAffine: translate must be a number or (horizontal, vertical), got {pair!r}")
        x, y = (as_number(v, who="RandomAffine", name="translate", low=0, high=1) for v in pair)
        return x, y

    def matrices(self, images: Images, draw: Draw) -> NDArray[np.float32]:
        _, height, width, _ = images.shape
        unit = draw.uniform(5)
        shift_x, shift_y = self._translate()
        scale = (math.log(self.scale[0]), math.log(self.scale[1]))
        degrees = as_range(self.degrees, who="RandomAffine", name="degrees", limit=360)
        shear = as_range(self.shear, who="RandomAffine", name="shear", limit=60)
        parameters = np.empty_like(unit)
        spans = (
            (math.radians(degrees[0]), math.radians(degrees[1])),
            (math.radians(shear[0]), math.radians(shear[1])),
            scale,
            (-shift_x * width, shift_x * width),
            (-shift_y * height, shift_y * height),
        )
        for column, (low, high) in enumerate(spans):
            parameters[:, column] = low + unit[:, column] * (high - low)
        # math.exp, not np.exp: the vector loop may round differently from its own tail.
        parameters[:, 2] = [math.exp(value) for value in parameters[:, 2]]
        out = np.empty((len(images), 6), np.float32)
        _image.affine_matrices(parameters, height, width, out)
        return out


@lru_cache(maxsize=32)
def _gaussian_taps(sigma: float) -> NDArray[np.float32]:
    """Half of a Gaussian filter, centre first, cut at 3 sigma; the whole filter sums to 1."""
    radius = math.ceil(3 * sigma)
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = taps[0] + 2 * math.fsum(taps[1:])
    return np.array([tap / total for tap in taps], np.float32)


@dataclass(frozen=True)
class ElasticDistortion(Warp):
    """Move every pixel by a random, smooth displacement (Simard et al., ICDAR 2003).

    The displacement is uniform noise in [-1, 1] smoothed by a Gaussian of standard deviation
    `sigma`, times `alpha`; the noise counts as 0 outside of the image. Its standard deviation is
    about 0.163 * alpha / sigma pixels: 1.4 for the defaults, which suit 28x28 digits.

    Args:
        alpha: Strength, 0..10000.
        sigma: Smoothness in pixels, 0.1..100.
        fill: Value of pixels from outside.
    """

    alpha: float = 34.0
    sigma: float = 4.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        as_number(self.alpha, who="ElasticDistortion", name="alpha", low=0, high=10000)
        as_number(self.sigma, who="ElasticDistortion", name="sigma", low=0.1, high=100)
        as_number(self.fill, who="ElasticDistortion", name="fill")

    def field(self, images: Images, draw: Draw) -> NDArray[np.float32]:
        count, height, width, _ = images.shape
        out = np.empty((count, 2, height, width), np.float32)
        taps = _gaussian_taps(float(self.sigma))
        _image.displacement(draw.seed, draw.epoch, draw.stream, draw.indices, self.alpha, taps, out)
        return out
