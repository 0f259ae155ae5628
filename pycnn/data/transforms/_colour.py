"""Transforms of colours: jitter, and lighting noise along the principal components."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_number
from pycnn.data import _image
from pycnn.data._checks import Images
from pycnn.data._random import Draw
from pycnn.data.transforms._base import Shape, Transform
from pycnn.errors import ArgumentError, ShapeError

_ORDERS = np.array(list(itertools.permutations(range(4))), np.uint8)

# Of ImageNet's training pixels in 0..1 units, as published with fb.resnet.torch (2016); one
# eigenvector per column.
IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

Span = float | tuple[float, float]


def _span(value: Any, *, name: str, centre: float, low: float, high: float) -> tuple[float, float]:
    """``0.4`` -> (centre - 0.4, centre + 0.4) cut at `low`; ``(a, b)`` stays."""
    who = "ColorJitter"
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{who}: {name} must be a number or (low, high), got {value!r}")
        first, second = (as_number(v, who=who, name=name, low=low, high=high) for v in value)
        if first > second:
            raise ArgumentError(f"{who}: {name} has low {first} above high {second}")
        return first, second
    wide = as_number(value, who=who, name=name, low=0.0, high=high)
    return max(low, centre - wide), centre + wide


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue at random, in a random order.

    Definitions and ranges are those of torchvision's transform of this name: a factor f gives
    ``f * image + (1 - f) * other`` with black, the mean grey of the image, or the grey image as the
    other; hue is turned in the HSV hexagon. Grey is 0.299 R + 0.587 G + 0.114 B. After each step
    values are cut to 0..255 (uint8) or 0..1 (float32). Other than there, uint8 images are rounded
    once, at the end. On images of one channel saturation and hue do nothing.

    Args:
        brightness: Factor in [max(0, 1 - b), 1 + b], or (low, high) of at least 0.
        contrast: Likewise.
        saturation: Likewise.
        hue: Turn in [-h, h], or (low, high), within ±0.5; 0.5 is the opposite colour.

    Raises:
        ArgumentError: A number out of range.
        ShapeError: When applied: neither 1 nor 3 channels.

    Example:
        >>> import numpy as np
        >>> image = np.full((4, 4, 3), 100, np.uint8)
        >>> int(ColorJitter(brightness=(0.5, 0.5))(image)[0, 0, 0])
        50
    """

    brightness: Span = 0.0
    contrast: Span = 0.0
    saturation: Span = 0.0
    hue: Span = 0.0

    def __post_init__(self) -> None:
        self._spans()

    def _spans(self) -> list[tuple[float, float]]:
        named = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        spans = [_span(value, name=name, centre=1.0, low=0.0, high=100.0) for name, value in named.items()]
        return [*spans, _span(self.hue, name="hue", centre=0.0, low=-0.5, high=0.5)]

    def output_shape(self, shape: Shape) -> Shape:
        if shape[2] not in (1, 3):
            raise ShapeError(f"ColorJitter: images must have 1 or 3 channels, got {shape[2]}")
        return shape

    def draw_parameters(self, draw: Draw) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Factors (N, 4) and order (N, 4) of each sample."""
        unit = draw.uniform(5)
        low, high = np.array(self._spans()).T
        order = _ORDERS[(unit[:, 4] * len(_ORDERS)).astype(np.int64)]
        return np.ascontiguousarray(low + unit[:, :4] * (high - low)), order

    def apply(self, images: Images, draw: Draw) -> Images:
        out = np.empty_like(images)
        _image.jitter(images, *self.draw_parameters(draw), out)
        return out


@dataclass(frozen=True)
class PCALighting(Transform):
    """Add noise along the principal components of the data set's colours.

    Krizhevsky et al. 2012, section 4.1: every pixel of an image gets the same
    ``sum over k of a[k] * eigenvalues[k] * eigenvectors[:, k]``, with a[k] normal of mean 0 and
    deviation `std`, in 0..1 units (times 255 for uint8, which is rounded and cut to 0..255;
    float32 is not cut).

    Args:
        std: Deviation of the amplitudes, at least 0; 0.1 in the paper.
        eigenvalues: One per component. Default: ImageNet's, as published with fb.resnet.torch.
        eigenvectors: Rows are channels, columns are components; unit length each.

    Raises:
        ArgumentError: A number out of range, or not as many rows and columns as values.
        ShapeError: When applied: another number of channels.

    Example:
        >>> import pycnn as pc
        >>> train, _ = pc.data.digits()
        >>> step = PCALighting.of(train)
        >>> len(step.eigenvalues)
        1
    """

    std: float = 0.1
    eigenvalues: tuple[float, ...] = IMAGENET_EIGENVALUES
    eigenvectors: tuple[tuple[float, ...], ...] = IMAGENET_EIGENVECTORS

    def __post_init__(self) -> None:
        who = "PCALighting"
        as_number(self.std, who=who, name="std", low=0.0)
        try:
            values = tuple(float(v) for v in self.eigenvalues)
            vectors = tuple(tuple(float(v) for v in row) for row in self.eigenvectors)
        except (TypeError, ValueError):
            raise ArgumentError(f"{who}: eigenvalues and eigenvectors must be numbers") from None
        if not values or len(vectors) != len(values) or any(len(row) != len(values) for row in vectors):
            raise ArgumentError(
                f"{who}: {len(values)} eigenvalues need as many rows and columns of eigenvectors, "
                f"got rows of {[len(row) for row in vectors]}"
            )
        if not all(map(math.isfinite, [*values, *itertools.chain(*vectors)])) or min(values) < 0:
            raise ArgumentError(f"{who}: eigenvalues must be finite and at least 0, eigenvectors finite")
        # Tuples, so that equal transforms compare and hash equal.
        object.__setattr__(self, "eigenvalues", values)
        object.__setattr__(self, "eigenvectors", vectors)

    @classmethod
    def of(cls, dataset: Any, *, std: float = 0.1) -> PCALighting:
        """With the eigenvectors of a data set's own pixels.

        Args:
            dataset: A data set of `pycnn.data`; every image is read once.
            std: Deviation of the amplitudes.

        Raises:
            FormatError: An image is bad.
        """
        from pycnn.data._statistics import covariance

        values, vectors = np.linalg.eigh(covariance(dataset))
        # Largest first, the sign by the largest element: LAPACK leaves both open.
        values, vectors = values[::-1], vectors[:, ::-1]
        largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))]
        vectors = vectors * np.where(largest < 0, -1.0, 1.0)
        return cls(std, tuple(np.maximum(values, 0.0).tolist()), tuple(map(tuple, vectors.tolist())))

    def output_shape(self, shape: Shape) -> Shape:
        if shape[2] != len(self.eigenvalues):
            raise ShapeError(f"PCALighting: {len(self.eigenvalues)} components, the images have {shape[2]} channels")
        return shape

    def shifts(self, draw: Draw) -> NDArray[np.float64]:
        """What each sample gets, (N, C), in 0..1 units."""
        amplitude = draw.normal(len(self.eigenvalues)) * self.std * np.array(self.eigenvalues)
        vectors = np.array(self.eigenvectors)
        # Term by term: a matrix product may add up in another order for another batch size.
        out = np.zeros((len(amplitude), len(vectors)))
        for k in range(len(self.eigenvalues)):
            out += amplitude[:, k, None] * vectors[None, :, k]
        return out

    def apply(self, images: Images, draw: Draw) -> Images:
        unit = 255.0 if images.dtype == np.uint8 else 1.0
        out = np.empty_like(images)
        _image.add_colour(images, (self.shifts(draw) * unit).astype(np.float32), out)
        return out
