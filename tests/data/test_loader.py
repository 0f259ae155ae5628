"""The loader: same bits for any number of workers, exact resume, no thread left behind."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
import weakref

import numpy as np
import pytest

from pycnn.data import ArrayDataset, Loader, ReadableDataset, subset
from pycnn.data import transforms as T  # noqa: N812
from pycnn.errors import ArgumentError, DTypeError, FormatError, ShapeError

COUNT = 53


@pytest.fixture
def data(rng):
    images = rng.integers(0, 256, (COUNT, 8, 7, 2)).astype(np.uint8)
    return ArrayDataset(images, np.arange(COUNT) % 10)


class Files(ReadableDataset):
    """Stands for images on disk: reads late, may be slow, may fail."""

    def __init__(self, data, *, bad=(), seconds=0.0):
        self.source, self.bad, self.seconds = data, set(bad), seconds
        self.gate = threading.Event()
        self.gate.set()
        self.labels, self.class_names = data.labels, data.class_names
        self.image_shape, self.image_dtype = data.image_shape, data.image_dtype
        self.reads = 0

    def read(self, indices):
        self.reads += 1
        time.sleep(self.seconds)
        assert self.gate.wait(120)
        for i in indices:
            if int(i) in self.bad:
                raise FormatError(f"image {i} '{i}.png': cut off")
        return self.source.read(indices)


AUGMENT = T.Compose([T.RandomShift(1), T.RandomAffine(10), T.ElasticDistortion(5, 2)])


def digest(loader, epochs=2):
    result = hashlib.sha256()
    for _ in range(epochs):
        for images, labels in loader:
            result.update(repr((images.shape, images.dtype)).encode())
            result.update(images.tobytes() + labels.tobytes())
    return result.hexdigest()


def data_threads():
    return [t for t in threading.enumerate() if t.name.startswith("pycnn-data")]


def wait_for_threads_to_end():
    deadline = time.monotonic() + 120
    while data_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    return data_threads()


@pytest.mark.parametrize("keywords", [{}, {"transform": AUGMENT}, {"normalize": (0.5, 0.2)}])
def test_bits_do_not_depend_on_workers_or_prefetch(data, keywords):
    expected = digest(Loader(data, 8, workers=0, seed=4, **keywords))
    for workers, prefetch in ((1, 1), (2, 3), (3, 1), (7, 50)):
        loader = Loader(data, 8, workers=workers, prefetch=prefetch, seed=4, **keywords)
        assert digest(loader) == expected
    assert digest(Loader(Files(data), 8, workers=2, seed=4, **keywords)) == expected


def test_every_sample_comes_once_with_its_own_label(data):
    loader = Loader(data, 8)
    rows = {image.tobytes(): i for i, image in enumerate(data.images)}
    seen = []
    for images, labels in loader:
        where = [rows[image.tobytes()] for image in images]
        np.testing.assert_array_equal(data.labels[where], labels)
        seen += where
    assert sorted(seen) == list(range(COUNT))
    assert seen != sorted(seen)


def order(loader):
    return np.concatenate([images[:, 0, 0, 0] for images, _ in loader]).tolist()


def test_order_is_a_function_of_seed_and_epoch():
    data = ArrayDataset(np.arange(50, dtype=np.float32).reshape(50, 1, 1, 1), np.zeros(50, int))
    loader = Loader(data, 8, seed=1)
    first, second = order(loader), order(loader)
    assert first != second
    loader.set_epoch(0)
    assert order(loader) == first
    loader.set_epoch(1)
    assert order(loader) == second
    assert order(Loader(data, 50, seed=1)) == first
    assert order(Loader(data, 8, seed=2)) != first
    assert order(Loader(data, 8, shuffle=False)) == list(range(50))


def test_shuffled_order_never_changes():
    """A golden order: checkpoints of earlier releases must resume with the same samples."""
    data = ArrayDataset(np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1), np.zeros(10, int))
    assert order(Loader(data, 10, seed=0)) == GOLDEN


GOLDEN = [1, 4, 0, 8, 9, 6, 2, 5, 7, 3]


def test_last_batch_is_short_or_dropped(data):
    sizes = [len(labels) for _, labels in Loader(data, 10)]
    assert sizes == [10] * 5 + [3]
    assert len(Loader(data, 10)) == 6
    dropping = Loader(data, 10, drop_last=True)
    assert [len(labels) for _, labels in dropping] == [10] * 5
    assert len(dropping) == 5
    assert [len(labels) for _, labels in Loader(data, 100)] == [COUNT]


def test_images_stay_uint8_unless_normalized(data):
    images, labels = next(iter(Loader(data, 4)))
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert images.flags.c_contiguous
    loader = Loader(data, 4, shuffle=False, normalize=((0.4, 0.5), (0.1, 0.2)))
    images, _ = next(iter(loader))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, T.Normalize((0.4, 0.5), (0.1, 0.2))(data.images[:4]))


def test_batches_belong_to_the_caller(data):
    before = data.images.copy()
    for images, labels in Loader(data, 8, shuffle=False):
        images[...] = 0
        labels[...] = 0
    np.testing.assert_array_equal(data.images, before)
    assert data.labels.any()


def test_transform_sees_the_index_in_the_data_set(data):
    step = T.RandomShift(2)
    loader = Loader(data, 8, transform=step, seed=6)
    loader.set_epoch(3)
    together = {}
    for images, _ in loader:
        for image in images:
            together[image.tobytes()] = True
    direct = step(data.images, seed=6, epoch=3)
    assert set(together) == {image.tobytes() for image in direct}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_resume_in_the_middle_equals_uninterrupted(data, workers, stop):
    def make():
        return Loader(data, 8, seed=9, transform=AUGMENT, workers=workers)

    whole = make()
    whole.set_epoch(2)
    expected = [images.tobytes() for images, _ in whole] + [images.tobytes() for images, _ in whole]
    loader = make()
    loader.set_epoch(2)
    got = []
    if stop:
        for number, (images, _) in enumerate(loader, 1):
            got.append(images.tobytes())
            if number == stop:
                break
    state = loader.state
    resumed = make()
    resumed.seek(state["epoch"], state["position"])
    while resumed.epoch < 4:
        got += [images.tobytes() for images, _ in resumed]
    assert got == expected


def test_state_counts_batches_handed_out(data):
    loader = Loader(data, 20, workers=2, prefetch=3)
    assert loader.state == {"epoch": 0, "position": 0}
    iterator = iter(loader)
    next(iterator)
    assert loader.state == {"epoch": 0, "position": 1}
    next(iterator)
    next(iterator)
    assert loader.state == {"epoch": 0, "position": 3}
    assert next(iterator, None) is None
    assert loader.state == {"epoch": 1, "position": 0}
    assert next(iterator, None) is None
    assert loader.state == {"epoch": 1, "position": 0}


def test_a_new_loop_after_break_repeats_the_epoch(data):
    loader = Loader(data, 20)
    for first, _ in loader:
        break
    again, _ = next(iter(loader))
    np.testing.assert_array_equal(first, again)
    assert loader.state == {"epoch": 0, "position": 1}


def test_seek_to_the_end_is_the_next_epoch(data):
    loader = Loader(data, 20)
    loader.seek(4, 3)
    assert loader.state == {"epoch": 5, "position": 0}


def test_an_older_iterator_does_not_move_the_state(data):
    loader = Loader(data, 20)
    old, new = iter(loader), iter(loader)
    next(new)
    for _ in old:
        pass
    assert loader.state == {"epoch": 0, "position": 1}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_worker_errors_reach_the_caller_naming_batch_and_sample(data, workers):
    loader = Loader(Files(data, bad=[19]), 8, shuffle=False, workers=workers)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    with pytest.raises(FormatError, match=r"image 19 '19\.png'") as caught:
        next(iterator)
    assert caught.value.__notes__ == ["in batch 2 of epoch 0, samples 16, 17, 18, 19, 20, 21, 22, 23"]
    assert next(iterator, None) is None
    del iterator, caught
    assert wait_for_threads_to_end() == []
    assert loader.state == {"epoch": 0, "position": 2}


def test_a_loader_is_usable_after_an_error(data):
    files = Files(data, bad=[5])
    loader = Loader(files, 8, workers=2)
    with pytest.raises(FormatError):
        list(loader)
    files.bad.clear()
    assert sum(len(labels) for _, labels in loader) == COUNT


@pytest.mark.parametrize("moment", ["before the first batch", "in the middle", "at the end"])
def test_abandoned_iterators_leave_no_threads_and_no_memory(data, moment):
    loader = Loader(Files(data), 4, workers=3, prefetch=6)
    iterator = iter(loader)
    if moment == "in the middle":
        next(iterator)
    elif moment == "at the end":
        list(iterator)
    gone = weakref.ref(iterator)
    gc.disable()
    try:
        del iterator
        assert gone() is None  # no reference cycle: freed at once
    finally:
        gc.enable()
    assert wait_for_threads_to_end() == []


def test_closing_drops_batches_that_nobody_began(data):
    files = Files(data)
    files.gate.clear()
    iterator = iter(Loader(files, 4, workers=2, prefetch=6))
    del iterator
    files.gate.set()
    assert wait_for_threads_to_end() == []
    assert files.reads <= 2


def test_no_thread_lives_between_epochs(data):
    loader = Loader(data, 8, workers=2)
    list(loader)
    assert wait_for_threads_to_end() == []


def test_prefetch_bounds_what_is_ahead(data):
    files = Files(data)
    iterator = iter(Loader(files, 4, workers=2, prefetch=3))
    next(iterator)
    time.sleep(0.05)
    assert files.reads <= 1 + 3


def test_wait_seconds_measures_waiting_in_the_current_epoch(data):
    loader = Loader(Files(data, seconds=0.01), 10, workers=1)

    def waited():
        started = time.perf_counter()
        list(loader)
        assert loader.wait_seconds <= time.perf_counter() - started
        return loader.wait_seconds

    # On a busy machine batches may be there before this thread comes to ask for them; not always.
    assert any(waited() > 6 * 0.01 - 0.01 for _ in range(50))
    iter(loader)
    assert loader.wait_seconds == 0


def test_loader_takes_any_object_with_the_members_of_a_data_set(data):
    class Mine:
        labels = np.arange(5)
        class_names = tuple("abcde")
        image_shape = (2, 2, 1)
        image_dtype = np.dtype(np.float32)

        def __len__(self):
            return 5

        def read(self, indices):
            return np.ones((len(indices), 2, 2, 1), np.float32)

    assert [labels.tolist() for _, labels in Loader(Mine(), 3, shuffle=False)] == [
        [0, 1, 2],
        [3, 4],
    ]
    assert sum(1 for _ in Loader(subset(data, range(9)), 2)) == 5


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (np.zeros((3, 8, 7, 2), np.uint8), ShapeError, r"gave images \(3, 8, 7, 2\), expected \(4"),
        (np.zeros((4, 2, 8, 7), np.uint8), ShapeError, r"expected \(4, 8, 7, 2\)"),
        (np.zeros((4, 8, 7, 2)), DTypeError, "must be uint8 or float32, got float64"),
        (None, DTypeError, "gave NoneType"),
    ],
)
def test_loader_checks_what_a_data_set_reads(data, result, error, text):
    files = Files(data)
    files.read = lambda indices: result
    with pytest.raises(error, match=text):
        next(iter(Loader(files, 4, workers=1)))


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"seed": -1}, "seed must be in"),
        ({"workers": -1}, r"workers must be in 0\.\.256, got -1"),
        ({"prefetch": 0}, "prefetch must be in"),
        ({"transform": "flip"}, "transform is 'flip'"),
        ({"normalize": 0.5}, r"normalize must be \(mean, std\)"),
        ({"normalize": (0.5, 0)}, "std must be finite"),
        ({"batch_size": 54, "drop_last": True}, "drop_last leaves no batch of 54 from 53"),
    ],
)
def test_loader_refuses_bad_arguments(data, keywords, text):
    with pytest.raises(ArgumentError, match=text):
        Loader(data, **{"batch_size": 8, **keywords})


def test_loader_refuses_what_does_not_fit_before_it_starts(data):
    with pytest.raises(ShapeError, match="mean has 3 values, the images have 2 channels"):
        Loader(data, 8, normalize=((0.1, 0.2, 0.3), 1.0))
    with pytest.raises(ShapeError, match="CenterCrop"):
        Loader(data, 8, transform=T.CenterCrop(9))
    with pytest.raises(ArgumentError, match=r"ndarray is not a data set\n.*ArrayDataset"):
        Loader(data.images, 8)


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 8), (1.5, 0)])
def test_seek_refuses_places_that_do_not_exist(data, place):
    with pytest.raises(ArgumentError, match=r"Loader\.seek"):
        Loader(data, 8).seek(*place)
