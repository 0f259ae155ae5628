"""Data sets, transforms and the loader.

`digits` is embedded; `mnist`, `cifar10`, `cifar100`, `ImageFolder` and `TarShards` read files; `ArrayDataset`
wraps arrays. `Loader` makes batches of any of them.
"""

from pycnn.data import transforms
from pycnn.data._statistics import mean_std
from pycnn.data.cifar import cifar10, cifar100
from pycnn.data.datasets import ArrayDataset, Dataset, ReadableDataset, Subset, split, subset
from pycnn.data.digits import digits
from pycnn.data.folder import ImageFolder
from pycnn.data.idx import mnist, read_idx
from pycnn.data.loader import Batch, Loader, LoaderState
from pycnn.data.tar import TarShards

__all__ = [
    "ArrayDataset",
    "Batch",
    "Dataset",
    "ImageFolder",
    "Loader",
    "LoaderState",
    "ReadableDataset",
    "Subset",
    "TarShards",
    "cifar10",
    "cifar100",
    "digits",
    "mean_std",
    "mnist",
    "read_idx",
    "split",
    "subset",
    "transforms",
]
