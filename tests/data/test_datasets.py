"""Arrays in memory: what is accepted, what is refused; subsets and splits."""

from __future__ import annotations

import array as array_module
import subprocess
import sys
import warnings

import numpy as np
import pytest

from pycnn.data import ArrayDataset, Dataset, ReadableDataset, Subset, split, subset
from pycnn.data._random import permutation
from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError

IMAGES = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)
LABELS = np.array([0, 2, 1, 2])


class Lazy(ReadableDataset):
    """Images made when asked for, as from files."""

    def __init__(self, images=IMAGES, labels=LABELS):
        self._all = images
        self.labels = np.asarray(labels, np.int64)
        self.class_names = ("a", "b", "c")
        self.image_shape = images.shape[1:]
        self.image_dtype = images.dtype

    def read(self, indices):
        return self._all[indices]


def test_array_dataset_keeps_arrays_without_copy():
    data = ArrayDataset(IMAGES, LABELS)
    assert data.images is IMAGES
    assert len(data) == 4
    assert data.class_names == ("0", "1", "2")
    assert data.num_classes == 3
    assert data.image_shape == (5, 6, 3)
    assert data.labels.dtype == np.int64
    assert isinstance(data, Dataset)
    image, label = data[-1]
    np.testing.assert_array_equal(image, IMAGES[3])
    assert label == 2
    assert len(list(data)) == 4
    assert repr(data) == "<ArrayDataset: 4 images 5x6x3 uint8, 3 classes>"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_read_gives_a_new_contiguous_array(dtype):
    images = IMAGES.astype(dtype)
    got = ArrayDataset(images, LABELS).read(np.array([3, 0, 3]))
    np.testing.assert_array_equal(got, images[[3, 0, 3]])
    assert got.flags.c_contiguous
    assert not np.may_share_memory(got, images)


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    result = raw.view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


FLOATS = IMAGES.astype(np.float32)


@pytest.mark.parametrize(
    "images",
    [
        np.asfortranarray(FLOATS),
        np.concatenate([FLOATS, FLOATS])[::2][[0, 2, 0, 2]][[0, 1, 2, 3]],
        np.repeat(FLOATS, 2, axis=2)[:, :, ::2],
        FLOATS[::-1, ::-1],
        np.broadcast_to(FLOATS[:1], FLOATS.shape),
        unaligned(FLOATS),
        FLOATS.astype(">f4"),
        FLOATS.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1),
    ],
    ids=["fortran", "indexed", "sliced", "negative", "broadcast", "unaligned", "swapped", "nchw"],
)
def test_array_dataset_treats_any_memory_layout_like_a_plain_copy(images):
    plain = np.array(images, np.float32, order="C")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = ArrayDataset(images, LABELS)
    assert data.images.flags.c_contiguous
    assert data.images.flags.aligned
    assert data.images.dtype == np.float32
    assert data.images.dtype.isnative
    np.testing.assert_array_equal(data.images, plain)


def test_array_dataset_accepts_read_only_arrays():
    images = IMAGES.copy()
    images.flags.writeable = False
    assert ArrayDataset(images, LABELS).images is images


def test_array_dataset_holds_the_array_that_the_caller_drops():
    images = IMAGES.copy()
    data = ArrayDataset(images, LABELS)
    with pytest.raises(ValueError, match="resize"):
        images.resize(1)
    del images
    np.testing.assert_array_equal(data.read(np.arange(4)), IMAGES)


def test_array_dataset_says_that_it_converts_or_copies():
    with pytest.warns(UserWarning, match="from float64 to float32") as caught:
        assert ArrayDataset(IMAGES.astype(float), LABELS).images.dtype == np.float32
    assert caught[0].filename == __file__
    with pytest.warns(
        UserWarning, match=r"copied because the array is not C-contiguous; pass numpy.ascontiguousarray\(images\)"
    ) as caught:
        ArrayDataset(IMAGES[:, ::-1], LABELS)
    assert caught[0].filename == __file__


def test_array_dataset_lets_nan_and_infinity_pass():
    images = FLOATS.copy()
    images[0, 0, 0] = [np.nan, np.inf, -np.inf]
    np.testing.assert_array_equal(ArrayDataset(images, LABELS).read(np.arange(4)), images)


def test_array_dataset_accepts_buffers_and_dlpack():
    class Exporter:
        def __dlpack__(self, **keywords):
            return FLOATS.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return FLOATS.__dlpack_device__()

    np.testing.assert_array_equal(ArrayDataset(Exporter(), LABELS).images, FLOATS)
    view = memoryview(IMAGES)
    labels = array_module.array("i", [0, 1, 0, 1])
    np.testing.assert_array_equal(ArrayDataset(view, labels).images, IMAGES)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((4, 28, 28), np.uint8), r"\(N, H, W, C\), got \(4, 28, 28\)\n.*\[\.\.\., None\]"),
        (np.zeros((4, 784), np.uint8), r"got \(4, 784\)"),
        (np.uint8(3), r"got \(\)"),
        (np.zeros((4, 1, 1, 1, 1), np.uint8), r"got \(4, 1, 1, 1, 1\)"),
        (np.zeros((4, 3, 32, 32), np.uint8), r"try images\.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 1, 28, 28), np.uint8), r"\(4, 1, 28, 28\).*\n.*transpose\(0, 2, 3, 1\)"),
        (np.zeros((0, 28, 28, 1), np.uint8), r"no images, got shape \(0, 28, 28, 1\)"),
        (np.zeros((4, 28, 0, 1), np.uint8), r"empty side, got \(4, 28, 0, 1\)"),
    ],
)
def test_array_dataset_refuses_wrong_shapes_with_the_repair(images, text):
    with pytest.raises(ShapeError, match=text):
        ArrayDataset(images, np.zeros(4, int))


def test_array_dataset_accepts_flat_feature_images():
    assert len(ArrayDataset(np.zeros((4, 1, 1, 512), np.float32), LABELS)) == 4


@pytest.mark.parametrize("dtype", ["f2", "i1", "i8", "u2", "?", "c8", "O", "S3", "M8[s]", np.longdouble])
def test_array_dataset_refuses_other_element_types(dtype):
    with pytest.raises(DTypeError, match="must be uint8 or float32, got") as caught:
        ArrayDataset(np.zeros((4, 8, 8, 1), dtype), LABELS)
    assert isinstance(caught.value, TypeError)


def test_array_dataset_refuses_masked_and_foreign_objects():
    with pytest.raises(DTypeError, match="masked array"):
        ArrayDataset(np.ma.masked_array(IMAGES), LABELS)

    class OnDevice:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(DTypeError, match="OnDevice.*cuda:0 device"):
        ArrayDataset(OnDevice(), LABELS)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0, 1, -1, -2], LabelError, r"label -1 at position 2 is outside of 0\.\.2 \(2 such"),
        ([0, 1, 2, 3], LabelError, r"label 3 at position 3 is outside of 0\.\.2$"),
        (np.array([0, 2**64 - 1, 0, 0], np.uint64), LabelError, r"18446744073709551615 at posit"),
        ([0.0, 1.0, 2.0, 0.0], DTypeError, r"float64 .*\n.*astype\(np\.int64\)"),
        ([0.0, 1.5, 2.0, 0.0], DTypeError, r"value 1\.5 at position 1"),
        ([0.0, 1.0, np.nan, 0.0], DTypeError, r"value nan at position 2"),
        ([True, False, True, True], DTypeError, r"got bool"),
        (["a", "b", "c", "d"], DTypeError, r"must be integers, got <U1"),
        ([0, 1, 2], ShapeError, r"4 images but 3 labels"),
        ([], ShapeError, r"4 images but 0 labels"),
        ([[0], [1], [2], [0]], ShapeError, r"got \(4, 1\)\n.*ravel"),
        (np.eye(4, 3, dtype=int), ShapeError, r"got \(4, 3\)\n.*argmax"),
        (7, ShapeError, r"got \(\)"),
    ],
)
def test_array_dataset_refuses_bad_labels_with_position_and_value(labels, error, text):
    with pytest.raises(error, match=text):
        ArrayDataset(IMAGES, labels, class_names=["a", "b", "c"])


def test_array_dataset_refuses_a_stray_label_instead_of_naming_a_billion_classes():
    with pytest.raises(LabelError, match=r"label 1099511627776 at position 1"):
        ArrayDataset(IMAGES, [0, 2**40, 0, 0])


def test_label_error_is_an_index_error():
    with pytest.raises(IndexError):
        ArrayDataset(IMAGES, [0, 0, 0, 5], class_names=["a"])


@pytest.mark.parametrize("names", ["abc", [1, 2, 3], ["a", "b", "a"]])
def test_array_dataset_refuses_bad_class_names(names):
    with pytest.raises(ArgumentError, match="class"):
        ArrayDataset(IMAGES, LABELS, class_names=names)


@pytest.mark.parametrize("key", [4, -5, 2**70])
def test_indexing_outside_raises_index_error(key):
    with pytest.raises((LabelError, ArgumentError)):
        ArrayDataset(IMAGES, LABELS)[key]


def test_images_of_a_lazy_data_set_index_like_an_array():
    images = Lazy().images
    assert images.shape == IMAGES.shape
    assert images.dtype == np.uint8
    for key in (2, -1, slice(1, 3), slice(None, None, -1), [3, 0], np.array([True, False] * 2)):
        np.testing.assert_array_equal(images[key], IMAGES[key])
    np.testing.assert_array_equal(np.asarray(images), IMAGES)
    with pytest.raises(LabelError, match="index 9 at position 1, there are 4"):
        images[[0, 9]]


def test_subset_of_arrays_is_arrays_and_of_others_reads_through():
    data = subset(ArrayDataset(IMAGES, LABELS, ["x", "y", "z"]), [3, 1])
    assert isinstance(data, ArrayDataset)
    assert data.class_names == ("x", "y", "z")
    np.testing.assert_array_equal(data.images, IMAGES[[3, 1]])
    lazy = subset(subset(Lazy(), [3, 1, 0]), [2, 0])
    assert isinstance(lazy, Subset)
    assert lazy.labels.tolist() == [0, 2]
    np.testing.assert_array_equal(lazy.read(np.array([0, 1])), IMAGES[[0, 3]])


def test_subset_refuses_bad_indices():
    data = ArrayDataset(IMAGES, LABELS)
    with pytest.raises(LabelError, match="index 4 at position 1, there are 4 samples"):
        subset(data, [0, 4])
    with pytest.raises(LabelError, match="index -1 at position 0"):
        subset(data, [-1])
    with pytest.raises(ArgumentError, match="no indices"):
        subset(data, [])
    with pytest.raises(ArgumentError, match="float64"):
        subset(data, [0.5])


def numbered(count, classes=10):
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    return ArrayDataset(images, np.arange(count) % classes)


@pytest.mark.parametrize("stratify", [True, False])
def test_split_shares_no_sample_and_loses_none(stratify):
    first, second = split(numbered(100), 0.3, seed=1, stratify=stratify)
    values = np.concatenate([first.images.ravel(), second.images.ravel()])
    assert sorted(values) == list(range(100))
    assert len(second) == 30
    if stratify:
        assert np.bincount(second.labels).tolist() == [3] * 10


def test_split_is_a_function_of_the_seed():
    one, again, other = (split(numbered(100), 0.3, seed=s)[1].images.ravel() for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_split_and_shuffle_share_no_random_numbers():
    one, other = (permutation(50, seed=3, epoch=0, stream=s) for s in (0, 1))
    assert sorted(one) == sorted(other) == list(range(50))
    assert (one != other).any()


def test_split_never_leaves_a_part_empty():
    for fraction in (0.001, 0.999):
        first, second = split(numbered(6, 6), fraction)
        assert len(first) >= 1
        assert len(second) >= 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.1, float("nan"), "half"])
def test_split_refuses_fractions_that_divide_nothing(fraction):
    with pytest.raises(ArgumentError, match="fraction"):
        split(numbered(10), fraction)


def test_importing_data_pulls_in_no_optional_package():
    code = "import sys, pycnn.data; print([m for m in ('PIL', 'sklearn', 'scipy', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("value", [None, "photos", b"photos", {"images": IMAGES}])
def test_what_is_no_array_is_refused_by_its_type(value):
    kind = type(value).__name__
    with pytest.raises(DTypeError, match=f"ArrayDataset: images must be an array of numbers, got {kind}"):
        ArrayDataset(value, LABELS)
    with pytest.raises(DTypeError, match=f"ArrayDataset: labels must be an array of numbers, got {kind}"):
        ArrayDataset(IMAGES, value)
