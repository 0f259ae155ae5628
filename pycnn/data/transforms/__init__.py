"""Image transforms whose randomness is a function of (seed, epoch, sample index).

A transform is a small frozen dataclass. Called on a batch it returns a new batch of the same dtype
(except `Normalize`, which gives float32). What happens to a sample depends on the seed, the epoch
and the sample's index in the data set, and on nothing else: not on the batch it is in, nor on the
thread that computes it. `Mixup` blends the samples of a batch: it follows from the seed, the epoch and
the number of the batch.

Example:
    >>> import numpy as np
    >>> from pycnn.data import transforms
    >>> augment = transforms.Compose([
    ...     transforms.RandomAffine(degrees=10, translate=0.1),
    ...     transforms.ElasticDistortion(alpha=34, sigma=4),
    ... ])
    >>> images = np.zeros((2, 28, 28, 1), np.uint8)
    >>> augment(images, seed=0, epoch=3, indices=[17, 4]).shape
    (2, 28, 28, 1)
"""

from pycnn.data._random import Draw
from pycnn.data.transforms._base import Transform
from pycnn.data.transforms._colour import (
    IMAGENET_EIGENVALUES,
    IMAGENET_EIGENVECTORS,
    ColorJitter,
    PCALighting,
)
from pycnn.data.transforms._compose import Compose
from pycnn.data.transforms._cutout import Cutout
from pycnn.data.transforms._mixup import Mixup
from pycnn.data.transforms._normalize import Normalize
from pycnn.data.transforms._policies import POLICIES, policy
from pycnn.data.transforms._resized_crop import RandomResizedCrop
from pycnn.data.transforms._ten_crop import five_crop, mirror_pair, ten_crop
from pycnn.data.transforms._warp import ElasticDistortion, RandomAffine
from pycnn.data.transforms._window import (
    CenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    Resize,
)

__all__ = [
    "IMAGENET_EIGENVALUES",
    "IMAGENET_EIGENVECTORS",
    "POLICIES",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "Cutout",
    "Draw",
    "ElasticDistortion",
    "Mixup",
    "Normalize",
    "PCALighting",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomShift",
    "Resize",
    "Transform",
    "five_crop",
    "mirror_pair",
    "policy",
    "ten_crop",
]
