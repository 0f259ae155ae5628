"""Batches in a shuffled order, prepared ahead in threads.

Everything about a batch follows from (seed, epoch, batch number): which samples, in which order,
and every random number of the augmentation. So the bits do not depend on the number of workers,
and reading can go on exactly where it stopped.

    iterator (caller's thread)                 workers (threads, GIL released in the loops)
    submit batches k .. k+prefetch  ------->   read -> transform -> normalise
    wait for batch k, hand it out   <-------   (by batch number, not by who is first)
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from pycnn.arguments import as_integer
from pycnn.data._checks import Images, Index, Labels, as_plain, as_seed, check_image_dtype
from pycnn.data._parallel import processors
from pycnn.data._random import Draw, permutation
from pycnn.data.datasets import ArrayDataset, Dataset, ReadableDataset
from pycnn.data.transforms import Compose, Mixup, Normalize, Transform
from pycnn.data.transforms._mixup import split_mixup
from pycnn.data.transforms._resized_crop import split_crop
from pycnn.data.transforms._windows import Uncut, Windows, as_windows
from pycnn.dist._reduction import part_of
from pycnn.errors import ArgumentError, DTypeError, ShapeError
from pycnn.fork import renew_after_fork

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Batch", "Loader", "LoaderState"]

_MAX_EPOCH = 2**63 - 1


class Batch(NamedTuple):
    """What the loader yields."""

    images: Images
    labels: Labels | NDArray[np.float32]


class LoaderState(TypedDict):
    """Where a loader stands; plain integers, ready for a checkpoint."""

    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that a worker needs; it does not know the iterator, so that can be abandoned."""

    dataset: Dataset
    transform: Transform | None
    normalize: Normalize | None
    mixup: Mixup | None
    seed: int
    epoch: int
    order: Index
    batch_size: int
    shard: tuple[int, int]
    windows: Windows | None
    is_whole: bool

    def make(self, number: int) -> Batch:
        start = number * self.batch_size
        whole = self.order[start : start + self.batch_size]
        part = part_of(len(whole), *self.shard)
        index = whole[part] if part.start < part.stop else whole[:1]
        try:
            if self.mixup is None:
                if self.windows is not None:
                    return Batch(self._uncut(index, self.windows), self.dataset.labels[index])  # type: ignore[arg-type]
                return Batch(self._images(index), self.dataset.labels[index])
            weight, partner = self.mixup.draw(len(whole), self.seed, self.epoch, number)
            if len(index) == len(whole):
                pairs = partner
            else:  # partners are those of the whole batch
                index = np.concatenate([index, whole[partner[part] if part.start < part.stop else partner[:1]]])
                pairs = np.roll(np.arange(len(index)), len(index) // 2)
            images, labels = self._images(index), self.dataset.labels[index]
            images, targets = self.mixup.mix(images, labels, len(self.dataset.class_names), weight, pairs)
            count = max(part.stop - part.start, 1)
            return Batch(np.ascontiguousarray(images[:count]), targets[:count])
        except Exception as error:
            shown = ", ".join(str(i) for i in index[:8]) + (", ..." if len(index) > 8 else "")
            error.add_note(f"in batch {number} of epoch {self.epoch}, samples {shown}")
            raise

    def _images(self, index: Index) -> Images:
        plain = self.transform is None and type(self.dataset) is ArrayDataset
        if plain and self.normalize is not None:
            return self.normalize.gather(self.dataset.images, index)  # type: ignore[attr-defined]
        shape = self.dataset.image_shape
        draw = Draw(self.seed, self.epoch, index)
        crop, transform = split_crop(self.transform)
        if crop is not None and isinstance(self.dataset, ReadableDataset):
            images = self.dataset.read_crops(index, crop.plan(draw))
            shape, rest = crop.output_shape(shape), Draw(self.seed, self.epoch, index, 1)
        else:
            images, transform, rest = self.dataset.read(index), self.transform, draw
        if plain:
            return images
        _check(images, index, shape, "dataset.read")
        if transform is not None:
            shape = transform.output_shape(shape)
            images = transform.apply(as_plain(images), rest)
            _check(images, index, shape, type(transform).__name__)
        images = as_plain(images)
        return images if self.normalize is None else self.normalize.apply(images, draw)

    def _uncut(self, index: Index, windows: Windows) -> Uncut:
        places = windows.places(Draw(self.seed, self.epoch, index))
        if self.is_whole:
            return Uncut(self.dataset.images, places, windows, is_whole=True)  # type: ignore[attr-defined]
        images = self.dataset.read(index)
        _check(images, index, windows.image_shape, "dataset.read")
        places[:, 0] = np.arange(len(index))
        return Uncut(as_plain(images), places, windows, is_whole=False)


def _check(images: Any, index: Index, shape: tuple[int, ...], who: str) -> None:
    if not isinstance(images, np.ndarray):
        raise DTypeError(f"{who}: gave {type(images).__name__}, expected a NumPy array")
    check_image_dtype(images.dtype, who=who)
    if images.shape != (len(index), *shape):
        raise ShapeError(f"{who}: gave images {images.shape}, expected {(len(index), *shape)}")


class Loader:
    """Iterate over batches of a data set; one pass of a ``for`` loop is one epoch.

    Args:
        dataset: An `ArrayDataset`, `ImageFolder`, `TarShards`, or any `Dataset`.
        batch_size: Samples in a batch, at least 1.
        shuffle: Draw a new order in every epoch, from (seed, epoch). Otherwise 0, 1, 2, ...
        seed: 0..2**64 - 1, for the order and the augmentation.
        transform: Augmentation, from `pycnn.data.transforms`. It runs in the workers. With a `Mixup`
            at its end the labels are float32 (B, classes).
        drop_last: Leave out the last batch if it is short.
        workers: Threads that prepare batches; 0 prepares each in the caller's thread. Default: 0
            for arrays in memory without transform, where handing over costs more than it gives; for
            other arrays in memory 1 or, with 4 processors and more, 2; for image files as many as
            there are processors, at most 8. The result does not depend on it.
        prefetch: Batches prepared ahead, at least 1 and at least the number of workers.
        normalize: ``(mean, std)``, each a number or one per channel, or a `Normalize`: the images
            become float32. Default: they stay as they are.
        shard: ``(rank, size)``: of every batch only the part of one of several processes, in the order of the ranks;
            together they see what one would. Where a batch has fewer samples than there are ranks, those without one
            get its first. See `pycnn.dist`.

    Shape:
        Each item is ``(images, labels)``: images ``(B, H, W, C)`` uint8 or float32, C-contiguous
        and the caller's own; labels ``(B,)`` int64. B is `batch_size`, or less in the last batch.

    Attributes:
        wait_seconds: Time that the caller has waited for data since the current epoch began.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: The transform does not fit the images.
        Exception: While iterating, whatever reading or transforming a sample raised, in the
            thread of the caller, with a note that names batch and samples.

    Example:
        >>> import numpy as np
        >>> from pycnn.data import ArrayDataset, Loader
        >>> data = ArrayDataset(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        >>> [len(labels) for images, labels in Loader(data, 4)]
        [4, 4, 2]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        transform: Transform | None = None,
        drop_last: bool = False,
        workers: int | None = None,
        prefetch: int = 2,
        normalize: Normalize | tuple[Any, Any] | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        who = "Loader"
        if not isinstance(dataset, Dataset):
            raise ArgumentError(
                f"{who}: {type(dataset).__name__} is not a data set\n"
                "  hint: wrap arrays, pycnn.data.ArrayDataset(images, labels)"
            )
        self.dataset = dataset
        self.batch_size = as_integer(batch_size, who=who, name="batch_size", low=1)
        self.shuffle = bool(shuffle)
        self.seed = as_seed(seed, who=who)
        self.drop_last = bool(drop_last)
        if transform is not None and not isinstance(transform, Transform):
            raise ArgumentError(f"{who}: transform is {transform!r}, expected one of pycnn.data.transforms")
        self.transform = transform
        self._sample_transform, self._mixup = split_mixup(transform)
        if normalize is not None and not isinstance(normalize, Normalize):
            if not isinstance(normalize, tuple) or len(normalize) != 2:
                raise ArgumentError(f"{who}: normalize must be (mean, std), got {normalize!r}")
            normalize = Normalize(mean=normalize[0], std=normalize[1])
        self.normalize = normalize
        # Both also fail here, rather than in the first batch, if they do not fit.
        both = [step for step in (self._sample_transform, normalize) if step is not None]
        self.image_shape = Compose(both).output_shape(dataset.image_shape)
        if workers is None:
            workers = _default_workers(dataset, transform)
        self.workers = as_integer(workers, who=who, name="workers", low=0, high=256)
        self.prefetch = as_integer(prefetch, who=who, name="prefetch", low=1, high=65536)
        if not len(self):
            raise ArgumentError(f"{who}: drop_last leaves no batch of {self.batch_size} from {len(dataset)} samples")
        self.shard = _check_shard(shard, who=who)
        self._windows: Windows | None = None
        self._is_whole = False
        self.wait_seconds = 0.0
        self._epoch = 0
        self._position = 0
        self._start = 0
        self._current: weakref.ref[_Iterator] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration runs, or the current one continues."""
        return self._epoch

    @property
    def state(self) -> LoaderState:
        """Epoch, and how many of its batches were handed out; for ``seek(epoch, position)``.

        After the last batch of epoch e, once the loop has ended, it is (e + 1, 0).
        """
        return {"epoch": self._epoch, "position": self._position}

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run this epoch from its first batch."""
        self.seek(epoch)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Make the next iteration run `epoch` from batch number `batch` on.

        Args:
            epoch: 0..2**63 - 1.
            batch: 0..len(loader); len(loader) is the start of the next epoch.

        Raises:
            ArgumentError: Out of range.
        """
        epoch = as_integer(epoch, who="Loader.seek", name="epoch", low=0, high=_MAX_EPOCH)
        batch = as_integer(batch, who="Loader.seek", name="batch", low=0, high=len(self))
        if batch == len(self):
            epoch, batch = epoch + 1, 0
        self._epoch, self._position, self._start = epoch, batch, batch
        self._current = None

    def __iter__(self) -> Iterator[Batch]:
        """Start the current epoch: from its beginning, or from where `seek` said."""
        iterator = _Iterator(self, self._plan(), self._start)
        self._position, self._start, self.wait_seconds = self._start, 0, 0.0
        self._current = weakref.ref(iterator)
        return iterator

    def _plan(self) -> _Plan:
        count = len(self.dataset)
        if self.shuffle:
            order = permutation(count, seed=self.seed, epoch=self._epoch)
        else:
            order = np.arange(count, dtype=np.int64)
        return _Plan(
            self.dataset,
            self._sample_transform,
            self.normalize,
            self._mixup,
            self.seed,
            self._epoch,
            order,
            self.batch_size,
            self.shard,
            self._windows,
            self._is_whole,
        )

    def samples(self, batch: int) -> tuple[int, int]:
        """Samples of a batch of an epoch: in this loader's part of it, which may be 0, and in the whole."""
        whole = min(self.batch_size, len(self.dataset) - batch * self.batch_size)
        part = part_of(whole, *self.shard)
        return part.stop - part.start, whole

    def _leave_uncut(self, *, whole: bool) -> bool:
        """Leave the transform to whoever trains: batches hold `Uncut` instead of images from the next epoch on.

        Args:
            whole: Batches refer to the images of the whole data set, which must be in memory.

        Returns:
            Whether it can be left: the images are uint8, and the transform only moves, mirrors and covers them.
        """
        if self.dataset.image_dtype != np.uint8 or self.normalize is not None or self._mixup is not None:
            return False
        if whole and type(self.dataset) is not ArrayDataset:
            return False
        self._windows = as_windows(self._sample_transform, self.dataset.image_shape, self.dataset.image_dtype)
        self._is_whole = whole
        return self._windows is not None

    def _advance(self, iterator: _Iterator, position: int, waited: float) -> None:
        # Only the newest iterator moves the state; seek() detaches all of them.
        if self._current is None or self._current() is not iterator:
            return
        self.wait_seconds += waited
        if position > len(self):
            self._epoch, self._position = self._epoch + 1, 0
        else:
            self._position = position


class _Iterator(Iterator[Batch]):
    """One pass over an epoch. Closing, exhausting or dropping it stops its threads."""

    def __init__(self, loader: Loader, plan: _Plan, start: int) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[Batch]] = deque()
        self._loader = loader
        self._plan: _Plan | None = plan
        self._next = start
        self._submitted = start
        self._end = len(loader)
        self._ahead = max(loader.prefetch, loader.workers)
        if loader.workers:
            self._pool = self._new_pool()
            self._submit()
            renew_after_fork(self, _Iterator._renew)

    def _new_pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # late: slow to import

        return ThreadPoolExecutor(self._loader.workers, thread_name_prefix="pycnn-data")

    def _renew(self) -> None:
        """In a forked child the threads are gone, and with them the batches ahead."""
        if self._pool is not None:
            self._waiting.clear()
            self._submitted = self._next
            self._pool = self._new_pool()

    def _submit(self) -> None:
        if self._pool is None or self._plan is None:
            return
        while self._submitted < min(self._end, self._next + self._ahead):
            self._waiting.append(self._pool.submit(self._plan.make, self._submitted))
            self._submitted += 1

    def __next__(self) -> Batch:
        if self._plan is None:
            raise StopIteration
        if self._next >= self._end:
            self.close()
            self._loader._advance(self, self._end + 1, 0.0)
            raise StopIteration
        started = time.perf_counter()
        try:
            if self._pool is None:
                batch = self._plan.make(self._next)
            else:
                self._submit()  # nothing to do but in a forked child
                batch = self._waiting.popleft().result()
        except BaseException:
            self.close()
            raise
        waited = time.perf_counter() - started
        self._next += 1
        self._submit()
        self._loader._advance(self, self._next, waited)
        return batch

    def close(self) -> None:
        """Stop the threads; batches that nobody took are dropped. May be called twice."""
        self._plan = None
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def __del__(self) -> None:
        self.close()


def _check_shard(shard: tuple[int, int], *, who: str) -> tuple[int, int]:
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ArgumentError(f"{who}: shard must be (rank, size), got {shard!r}")
    size = as_integer(shard[1], who=who, name="shard's size", low=1)
    return as_integer(shard[0], who=who, name="shard's rank", low=0, high=size - 1), size


def _default_workers(dataset: Dataset, transform: Transform | None) -> int:
    in_memory = isinstance(dataset, ArrayDataset)
    if transform is None and in_memory:
        return 0
    if in_memory or not isinstance(dataset, ReadableDataset):
        return 2 if processors() >= 4 else 1
    return min(processors(), 8)
