"""Data sets: what the loader needs from one, arrays in memory, subsets and splits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pycnn.arguments import as_integer, as_number
from pycnn.data import _image
from pycnn.data._checks import (
    Images,
    Index,
    Labels,
    as_class_names,
    as_images,
    as_index,
    as_labels,
    as_plain,
    as_seed,
)
from pycnn.data._parallel import in_order
from pycnn.data._random import permutation
from pycnn.data._statistics import mean_std
from pycnn.errors import ArgumentError, LabelError, ShapeError
from pycnn.tensor import expect_memory

if TYPE_CHECKING:
    from pycnn.data.transforms._resized_crop import CropPlan

__all__ = ["ArrayDataset", "Dataset", "ImageView", "ReadableDataset", "Subset", "split", "subset"]

Shape = tuple[int, int, int]


@runtime_checkable
class Dataset(Protocol):
    """What the loader and the trainer need; any class with these members will do."""

    @property
    def labels(self) -> Labels:
        """Class of each sample, int64 (N,)."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        ...

    @property
    def image_shape(self) -> Shape:
        """(H, W, C) of every image."""
        ...

    @property
    def image_dtype(self) -> np.dtype[Any]:
        """uint8 (0..255) or float32."""
        ...

    def __len__(self) -> int: ...
    def read(self, indices: Index) -> Images:
        """Images of these samples, a new C-contiguous array (len(indices), H, W, C).

        Called from several threads at once.
        """
        ...


class ImageView:
    """The images of a data set that are read when asked for; indexed like an array.

    An integer gives one image (H, W, C); a slice or an integer array gives a batch (N, H, W, C).
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self._dataset), *self._dataset.image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or float32."""
        return self._dataset.image_dtype

    def __getitem__(self, key: int | slice | ArrayLike) -> Images:
        count = len(self._dataset)
        if isinstance(key, slice):
            return self._dataset.read(np.arange(count, dtype=np.int64)[key])
        if np.ndim(key) == 0:
            image: Images = self._dataset.read(_position(key, count)[None])[0]
            return image
        array = np.asarray(key)
        if array.dtype == np.bool_:
            array = np.flatnonzero(array)
        return self._dataset.read(as_index(array, count=count, who="images"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("these images are read from files; they cannot be viewed uncopied")
        images = self[:]
        return images if dtype is None else images.astype(dtype, copy=False)


def _position(key: Any, count: int) -> NDArray[np.int64]:
    number = as_integer(key, who="dataset", name="index", low=-(2**63), high=2**63 - 1)
    if not -count <= number < count:
        raise LabelError(f"dataset: index {number}, there are {count} samples")
    return np.array(number % count, np.int64)


class ReadableDataset:
    """Base of data sets that read images when asked: `images`, `len` and `dataset[i]`.

    A subclass sets the four attributes of `Dataset` and implements `read`.
    """

    labels: Labels
    class_names: tuple[str, ...]
    image_shape: Shape
    image_dtype: np.dtype[Any] = np.dtype(np.uint8)

    def read(self, indices: Index) -> Images:
        """Images of these samples, a new array (len(indices), H, W, C)."""
        raise NotImplementedError

    def read_crops(self, indices: Index, plan: CropPlan) -> Images:
        """Windows of these samples, resampled (see `transforms.RandomResizedCrop`), a new array."""
        return plan.apply(as_plain(self.read(indices)))

    @property
    def images(self) -> ImageView | Images:
        """All images, indexed like an array."""
        return ImageView(self)

    def fingerprint(self) -> bytes | None:
        """A digest of all that the images follow from, to tell whether results of them are still up to date.

        Equal digests mean equal images. It is of the bytes of arrays; of files, of their names, sizes and times of
        change, which is quick. None where that is not known, as for classes of one's own that do not define it.

        Raises:
            FileError: A file is gone.
        """
        return None

    @property
    def class_counts(self) -> dict[str, int]:
        """How many samples each class has, by name; 0 for a class that is not seen."""
        counts = np.bincount(self.labels, minlength=self.num_classes).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in 0..1 units for uint8.

        Every image is read once. The result is what `Trainer(normalize=...)` takes, which puts it
        into the net and so into its files; see `pycnn.data.mean_std`.
        """
        return mean_std(self)

    def split(self, first: float, *, seed: int = 0, stratify: bool = True) -> tuple[Dataset, Dataset]:
        """Divide at random into two data sets that share no sample.

        Args:
            first: Part of the samples that go to the first one, above 0 and below 1. (The function
                `pycnn.data.split` is told the part of the second one.)
            seed: Another seed gives another division.
            stratify: Divide every class by itself, so that both parts have the same mixture.

        Raises:
            ArgumentError: `first` or `seed` out of range, or fewer than two samples.

        Example:
            >>> import pycnn as pc
            >>> train, _ = pc.data.digits()
            >>> [len(part) for part in train.split(0.8, seed=0)]
            [1078, 269]
        """
        part = as_number(first, who="split", name="first", low=0, high=1)
        return split(self, 1.0 - part, seed=seed, stratify=stratify)

    def in_memory(self) -> ArrayDataset:
        """The same samples as an `ArrayDataset`, read in several threads.

        Raises:
            FormatError: An image is bad.
            MemoryLimitError: They are more than the machine has memory for.
        """
        shape = (len(self), *self.image_shape)
        expect_memory(f"in_memory: images {shape} {self.image_dtype}", math.prod(shape) * self.image_dtype.itemsize)
        chunks = [np.arange(i, min(i + 64, len(self)), dtype=np.int64) for i in range(0, len(self), 64)]
        out = np.empty(shape, self.image_dtype)
        for index, images in zip(chunks, in_order(self.read, chunks), strict=True):
            out[index[0] : index[-1] + 1] = images
        return ArrayDataset(out, self.labels, self.class_names)

    @property
    def num_classes(self) -> int:
        """How many classes there are, seen or not."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int) -> tuple[Images, int]:
        where = _position(key, len(self))
        return self.read(where[None])[0], int(self.labels[where])

    def __iter__(self) -> Iterator[tuple[Images, int]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        return (
            f"<{type(self).__name__}: {len(self)} images {height}x{width}x{channels} "
            f"{self.image_dtype}, {self.num_classes} classes>"
        )


class ArrayDataset(ReadableDataset):
    """Images and labels that are in memory.

    The arrays are not copied unless they have to be, so a later change to them is seen; but not one during a `fit` that
    keeps a copy of the images on a GPU (its `augment_in`).

    Args:
        images: uint8 in 0..255, or float32; float64 is converted, with a warning. Anything with
            the buffer protocol, `__array__` or `__dlpack__`.
        labels: Integers in 0..classes-1.
        class_names: One name per class. Default: "0", "1", ... up to the largest label.

    Shape:
        images ``(N, H, W, C)``, labels ``(N,)``, N at least 1.

    Raises:
        ShapeError: Wrong rank, channels first, no images, or lengths that differ.
        DTypeError: Images neither uint8, float32 nor float64; labels that are not integers.
        LabelError: A label outside of the classes; the text gives position and value.

    Example:
        >>> import numpy as np
        >>> ArrayDataset(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], class_names=["cat", "dog"])
        <ArrayDataset: 2 images 8x8x1 uint8, 2 classes>
    """

    def __init__(self, images: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None) -> None:
        who = "ArrayDataset"
        self._images = as_images(images, who=who)
        if not len(self._images):
            raise ShapeError(f"{who}: no images, got shape {self._images.shape}")
        self.labels = as_labels(labels, count=len(self._images), who=who)
        self.class_names = as_class_names(class_names, labels=self.labels, who=who)
        self.image_shape = (
            self._images.shape[1],
            self._images.shape[2],
            self._images.shape[3],
        )
        self.image_dtype = self._images.dtype
        # Rows of bytes: one gather serves every element type.
        self._rows = _bytes(self._images)

    @property
    def images(self) -> Images:
        """The images themselves (N, H, W, C)."""
        return self._images

    def fingerprint(self) -> bytes:
        """A digest of shape, type and bytes of the images."""
        digest = hashlib.sha256(f"arrays {self.images.shape} {self.images.dtype}\n".encode())
        digest.update(np.ascontiguousarray(self._rows).data)
        return digest.digest()

    def read(self, indices: Index) -> Images:
        """Copy these images into a new array, with the GIL released."""
        out = np.empty((len(indices), *self.image_shape), self.image_dtype)
        _image.gather(self._rows, indices, _bytes(out))
        return out


def _bytes(images: Images) -> NDArray[np.uint8]:
    return images.reshape(len(images), math.prod(images.shape[1:])).view(np.uint8)


class Subset(ReadableDataset):
    """Some samples of another data set, in a given order; made by `subset`."""

    def __init__(self, base: Dataset, indices: Index) -> None:
        self.base = base
        self.indices = indices
        self.labels = base.labels[indices]
        self.class_names = base.class_names
        self.image_shape = base.image_shape
        self.image_dtype = base.image_dtype

    def fingerprint(self) -> bytes | None:
        """That of the whole and the choice; None if the whole has none."""
        base = self.base.fingerprint() if isinstance(self.base, ReadableDataset) else None
        return None if base is None else hashlib.sha256(base + self.indices.tobytes()).digest()

    def read(self, indices: Index) -> Images:
        """Images of these samples of the subset."""
        return self.base.read(self.indices[indices])

    def read_crops(self, indices: Index, plan: CropPlan) -> Images:
        """Windows of these samples of the subset, from the whole pictures where there are files."""
        if isinstance(self.base, ReadableDataset):
            return self.base.read_crops(self.indices[indices], plan)
        return super().read_crops(indices, plan)


@overload
def subset(dataset: ArrayDataset, indices: ArrayLike) -> ArrayDataset: ...
@overload
def subset(dataset: Dataset, indices: ArrayLike) -> Dataset: ...
def subset(dataset: Dataset, indices: ArrayLike) -> Dataset:
    """Pick samples, in the order given; an index may come twice.

    Args:
        dataset: Any data set.
        indices: Sample numbers in 0..N-1.

    Returns:
        An `ArrayDataset` of copied rows from an `ArrayDataset`, otherwise a `Subset` that reads
        through `dataset`. The class names stay, seen or not.

    Raises:
        ArgumentError: No indices, or not integers.
        LabelError: An index is out of range; the text gives position and value.
    """
    index = as_index(indices, count=len(dataset), who="subset")
    if not len(index):
        raise ArgumentError("subset: no indices, a data set needs at least one sample")
    if isinstance(dataset, ArrayDataset):
        return ArrayDataset(dataset.read(index), dataset.labels[index], dataset.class_names)
    if isinstance(dataset, Subset):
        return Subset(dataset.base, dataset.indices[index])
    return Subset(dataset, index)


@overload
def split(
    dataset: ArrayDataset, fraction: float, *, seed: int = 0, stratify: bool = True
) -> tuple[ArrayDataset, ArrayDataset]: ...
@overload
def split(dataset: Dataset, fraction: float, *, seed: int = 0, stratify: bool = True) -> tuple[Dataset, Dataset]: ...
def split(dataset: Dataset, fraction: float, *, seed: int = 0, stratify: bool = True) -> tuple[Dataset, Dataset]:
    """Divide at random into two data sets that share no sample.

    Args:
        dataset: Any data set with at least two samples.
        fraction: Part of the samples that go to the second one, above 0 and below 1. Each part
            gets at least one sample. (`ReadableDataset.split` is told the part of the first one.)
        seed: Another seed gives another division.
        stratify: Divide every class by itself, so that both parts have the same mixture.

    Returns:
        ``(first, second)``, each in the order of `dataset`.

    Raises:
        ArgumentError: `fraction` or `seed` out of range, or fewer than two samples.
    """
    part = as_number(fraction, who="split", name="fraction", low=0, high=1)
    key = as_seed(seed, who="split")
    count = len(dataset)
    if count < 2 or not 0 < part < 1:
        raise ArgumentError(
            f"split: cannot put the fraction {fraction} of {count} samples aside; both parts need at least one"
        )
    order = permutation(count, seed=key, epoch=0, stream=1)
    chosen = np.zeros(count, np.bool_)
    if stratify:
        labels = dataset.labels[order]
        for label in np.unique(labels):
            members = order[labels == label]
            chosen[members[: round(part * len(members))]] = True
    if not stratify or not 0 < int(chosen.sum()) < count:
        # Classes of one or two samples may round to nothing; then divide the whole.
        chosen[:] = False
        chosen[order[: min(max(round(part * count), 1), count - 1)]] = True
    return subset(dataset, np.flatnonzero(~chosen)), subset(dataset, np.flatnonzero(chosen))
