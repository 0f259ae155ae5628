"""Augmentation in the step: the bits are those of the loader's, whoever cuts the windows.

With `PYCNN_CUDA_MODULE` naming the emulated module the tests for a device run without a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn, optim
from pycnn.config import manual_seed
from pycnn.data import ArrayDataset, Loader
from pycnn.data.transforms import (
    CenterCrop,
    Compose,
    Cutout,
    Draw,
    Mixup,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
)
from pycnn.data.transforms._windows import Uncut, as_windows
from pycnn.errors import ArgumentError, MemoryLimitError, TrainingError
from pycnn.train import Callback, _placement
from pycnn.train._programs import IMAGES, MEASURED_IMAGES, PendingMeans, ProgramSet

CROP, FLIP, HIDE = RandomCrop(padding=2, fill=17.5), RandomHorizontalFlip(), Cutout(3, p=0.7, fill=(1.0, 300.0, -4.0))
AUGMENT = Compose([CROP, FLIP, HIDE])
EMULATED = pytest.mark.skipif(
    "emulated" not in os.environ.get("PYCNN_CUDA_MODULE", ""), reason="counted by the emulated device"
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def data(count=50, dtype=np.uint8):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (count, 10, 9, 3)).astype(dtype)
    return ArrayDataset(images, np.arange(count) % 3)


def trainer(device="cpu", **options):
    manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(8, 3)
    )
    normalize = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    return pc.Trainer(net, optimizer=optim.SGD(0.05), device=device, seed=1, normalize=normalize, **options)


def fit(training, augment_in, **options):
    options = {"epochs": 2, "batch_size": 16, "transform": AUGMENT, "progress": False} | options
    history = training.fit(data(), augment_in=augment_in, **options)
    return history["loss"], history.fingerprint


TRANSFORMS = {
    "none": None,
    "crop": CROP,
    "smaller": RandomCrop(size=(7, 5), padding=1),
    "shift": RandomShift(3, fill=9.4),
    "flip": FLIP,
    "alternate": RandomHorizontalFlip(p=0.3, alternate=True),
    "hide": HIDE,
    "crop flip": Compose([CROP, FLIP]),
    "flip crop": Compose([FLIP, RandomCrop(size=(7, 5), padding=1)]),
    "flip shift flip hide": Compose([FLIP, RandomShift(2), RandomHorizontalFlip(0.3), Cutout(4)]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_windows_are_what_the_transform_makes(name, dtype):
    transform, images = TRANSFORMS[name], data(dtype=dtype).images
    windows = as_windows(transform, images.shape[1:], images.dtype)
    indices = np.array([4, 4, 49, 0, 17, 3, 8, 9, 30, 31, 32])
    for epoch in (0, 1):
        draw = Draw(11, epoch, indices)
        expected = images[indices] if transform is None else transform.apply(images[indices], draw)
        cut = pc.functional.take_windows(
            images, windows.places(draw), size=windows.size, fill=windows.fill, box_fill=windows.box_fill
        )
        assert cut.dtype == dtype
        np.testing.assert_array_equal(cut, expected)


class Other(RandomCrop):
    """Might do anything."""


class Others(Compose):
    """Might do anything, too."""


@pytest.mark.parametrize(
    "transform",
    [
        CenterCrop(8),
        Other(padding=1),
        Others([CROP, FLIP]),
        Compose([CROP, CROP]),
        Compose([HIDE, FLIP]),
        Compose([CROP, RandomShift(1)]),
    ],
)
def test_other_transforms_are_no_windows(transform):
    assert as_windows(transform, (10, 9, 3), np.dtype(np.uint8)) is None


def test_a_loader_leaves_batches_uncut():
    whole, cut = (Loader(data(), 16, transform=AUGMENT, seed=2, workers=workers) for workers in (1, 0))
    other = Loader(data(), 16, transform=AUGMENT, seed=2)
    assert whole._leave_uncut(whole=True)
    assert other._leave_uncut(whole=False)
    for (a, labels), (b, same), (images, again) in zip(whole, other, cut, strict=True):
        assert isinstance(a, Uncut)
        assert isinstance(b, Uncut)
        assert a.shape == b.shape == images.shape
        assert (labels == same).all()
        assert (labels == again).all()
        for batch in (a, b, a.with_own_images()):
            windows = batch.windows
            found = pc.functional.take_windows(
                batch.images, batch.places, size=windows.size, fill=windows.fill, box_fill=windows.box_fill
            )
            np.testing.assert_array_equal(found, images)
    for loader in (
        Loader(data(), 16, transform=Compose([CROP, Mixup()])),
        Loader(data(), 16, transform=CROP, normalize=(0.5, 0.5)),
        Loader(data(dtype=np.float32), 16, transform=CROP),
    ):
        assert not loader._leave_uncut(whole=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_has_the_same_bits_whoever_augments(device, dtype):
    options = {"dtype": dtype, "emulate_bfloat16": dtype == "bfloat16" and device == "cpu"}
    expected = fit(trainer(device, **options), "loader")
    for where in ("step", "resident", "auto"):
        assert fit(trainer(device, **options), where) == expected


@pytest.mark.cuda
def test_a_gpu_keeps_the_images_by_itself(monkeypatch):
    training = trainer("cuda")
    fit(training, "auto")
    assert IMAGES in training.variables
    assert [name for name, _, _ in training._training.get(*last_batch(training)).program.inputs] == ["places", "y"]
    monkeypatch.setattr(_placement, "_MOST_RESIDENT", 50 * 10 * 9 * 3 - 1)
    training = trainer("cuda")
    fit(training, "auto")
    assert IMAGES not in training.variables


def last_batch(training):
    windows = as_windows(AUGMENT, (10, 9, 3), np.dtype(np.uint8))
    places = windows.places(Draw(0, 0, np.arange(16)))
    return Uncut(data().images, places, windows, is_whole=True), np.zeros(16, np.int64)


@pytest.mark.cuda
@EMULATED
def test_a_resident_step_is_told_numbers_alone(monkeypatch, tmp_path):
    calls = tmp_path / "calls"
    monkeypatch.setenv("PYCNN_EMULATED_CALLS", str(calls))
    copied = {}
    for where, epochs in itertools.product(("step", "resident"), (1, 2)):
        calls.unlink(missing_ok=True)
        fit(trainer("cuda"), where, epochs=epochs, drop_last=True)
        words = calls.read_text().split()
        copied[where, epochs] = [int(b) for a, b in zip(words, words[1:], strict=False) if a == "copy_in"]
    aligned = lambda count: -(-count // 256) * 256  # noqa: E731
    batch, numbers = aligned(16 * 10 * 9 * 3), aligned(16 * 64) + aligned(16 * 8)
    assert sum(copied["step", 2]) - sum(copied["step", 1]) >= 3 * (batch + numbers)
    assert sum(copied["resident", 2]) - sum(copied["resident", 1]) == 3 * numbers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.cuda
def test_one_kernel_cuts_normalises_and_rounds(dtype):
    training = trainer("cuda", dtype=dtype)
    fit(training, "resident", epochs=1)
    steps = {s["op"]: s for s in training._training.get(*last_batch(training)).program.steps() if s["phase"] == "run"}
    assert "normalize_image" not in steps
    ops = [op for _, op in steps["take_windows"]["absorbed"]]
    assert ops == ["normalize_image"] + ["cast"] * (dtype == "bfloat16")


@pytest.mark.parametrize("device", DEVICES)
def test_images_that_changed_between_two_fits_are_seen(device):
    def both(where):
        training, dataset = trainer(device), data()
        first = training.fit(dataset, epochs=1, transform=AUGMENT, progress=False, augment_in=where)["loss"][-1]
        dataset.images[:] = dataset.images[::-1].copy()
        return first, training.fit(dataset, epochs=1, transform=AUGMENT, progress=False, augment_in=where)["loss"][-1]

    assert both("resident") == both("loader")


@pytest.mark.parametrize("device", DEVICES)
def test_a_fit_that_is_refused_changes_no_image_of_one_under_way(device):
    class Another(Callback):
        """Fits to other images, in vain."""

        def on_epoch_begin(self, trainer, epoch):
            other = ArrayDataset(255 - data().images, data().labels)
            with pytest.raises(TrainingError, match="training already"):
                trainer.fit(other, epochs=1, transform=AUGMENT, progress=False, augment_in="resident")

    expected = fit(trainer(device), "loader")
    assert fit(trainer(device), "resident", callbacks=[Another()]) == expected


def test_images_are_kept_no_longer_than_they_are_read():
    training = trainer()
    for where in ("loader", "step"):
        fit(training, "resident")
        assert IMAGES in training.variables
        fit(training, where)
        assert IMAGES not in training.variables
    expected = trainer()
    for _ in range(4):
        fit(expected, "loader")
    assert training.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("device", DEVICES)
def test_a_resumed_training_has_the_same_bits_and_a_checkpoint_no_images(device, tmp_path):
    expected = fit(trainer(device), "resident", epochs=3)
    fit(trainer(device), "resident", epochs=1, checkpoint_dir=tmp_path)
    kept = pc.checkpoint.load_model(tmp_path / "last.safetensors")[1]
    assert IMAGES not in kept
    assert fit(trainer(device), "resident", epochs=3, checkpoint_dir=tmp_path, resume=True) == expected


def refuse_whole(monkeypatch):
    get = ProgramSet.get

    def without_room(self, x, y):
        if isinstance(x, Uncut) and x.is_whole:
            raise MemoryLimitError("no memory for the images")
        return get(self, x, y)

    monkeypatch.setattr(ProgramSet, "get", without_room)


@pytest.mark.cuda
def test_without_memory_for_all_images_each_batch_is_sent(monkeypatch):
    expected = fit(trainer("cuda"), "loader")
    refuse_whole(monkeypatch)
    training = trainer("cuda")
    assert fit(training, "auto") == expected
    assert training._training._images is None
    with pytest.raises(MemoryLimitError, match="no memory for the images"):
        fit(trainer("cuda"), "resident")


@pytest.mark.parametrize("device", DEVICES)
def test_validation_has_the_same_bits_wherever_its_images_are(device):
    def measured(where, **options):
        training = trainer(device, ema_decay=0.9)
        history = training.fit(data(), data(37), epochs=2, batch_size=16, progress=False, augment_in=where, **options)
        return training, (history["val_loss"], history["val_accuracy"], history.fingerprint)

    for transform in (None, AUGMENT):
        expected = measured("loader", val_transform=transform)[1]
        training, found = measured("resident", val_transform=transform)
        assert found == expected
        assert MEASURED_IMAGES in training.variables
        assert training.evaluate(data(37)) == trainer_evaluates(training, device)
    training, found = measured("resident", val_transform=CenterCrop(8))
    assert found == measured("loader", val_transform=CenterCrop(8))[1]
    assert MEASURED_IMAGES not in training.variables


def trainer_evaluates(training, device):
    """What a trainer without any images measures with the weights of another."""
    other = trainer(device)
    other.net.load_state_dict(training.net.state_dict())
    return other.evaluate(data(37))


def test_images_of_a_validation_are_kept_no_longer_than_they_are_read():
    training = trainer()
    for where, val in (("loader", data(37)), ("step", data(37)), ("resident", None)):
        training.fit(data(), data(37), epochs=1, progress=False, augment_in="resident")
        assert MEASURED_IMAGES in training.variables
        training.fit(data(), val, epochs=1, progress=False, augment_in=where)
        assert MEASURED_IMAGES not in training.variables


def test_runs_that_were_broken_off_keep_nothing_once_images_are_settled_anew():
    class Result:
        """What such a run holds."""

    training, result = trainer(), Result()
    held = weakref.ref(result)
    training._placement.note_begun(PendingMeans(1, lambda result=result: {"loss": 0.0}, overlaps=True))
    del result
    assert held() is not None
    fit(training, "loader", epochs=1)
    assert held() is None


def test_means_of_a_run_may_be_waited_for_by_two_threads():
    class Pending(PendingMeans):
        """Another thread waits for it between two looks at it."""

        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name == "_wait" and not waited:
                waited.append(True)
                self.wait()
            return value

    waited = []
    assert Pending(1, lambda: {"loss": 1.0}, overlaps=True).wait() == {"loss": 1.0}
    assert waited


@pytest.mark.cuda
def test_images_of_a_validation_are_kept_in_what_room_is_left(monkeypatch):
    for room, kept in ((87, (True, True)), (86, (True, False)), (49, (False, True)), (36, (False, False))):
        monkeypatch.setattr(_placement, "_MOST_RESIDENT", room * 10 * 9 * 3)
        training = trainer("cuda")
        training.fit(data(), data(37), epochs=1, progress=False)
        assert (IMAGES in training.variables, MEASURED_IMAGES in training.variables) == kept


@pytest.mark.cuda
@EMULATED
def test_images_are_given_up_where_programs_find_no_memory_beside_them(monkeypatch):
    def fit_within(limit, augment_in):
        gc.collect()  # what trainings before have taken
        if limit:
            monkeypatch.setenv("PYCNN_EMULATED_MEMORY", str(limit))
        training = trainer("cuda")
        history = training.fit(
            data(400),
            data(330),
            epochs=1,
            batch_size=16,
            transform=AUGMENT,
            val_transform=FLIP,
            progress=False,
            augment_in=augment_in,
        )
        kept = tuple(name in training.variables for name in (IMAGES, MEASURED_IMAGES))
        return (history["loss"], history["val_loss"], history.fingerprint), kept

    expected, _ = fit_within(0, "loader")
    seen = {"auto": [], "resident": []}
    for limit, augment_in in itertools.product(range(150_000, 750_001, 60_000), seen):
        try:
            found, kept = fit_within(limit, augment_in)
        except MemoryLimitError:
            kept = None
        else:
            assert found == expected
        if kept not in seen[augment_in]:
            seen[augment_in].append(kept)
    # With ever more memory.
    assert seen["auto"] == [None, (False, False), (True, False), (True, True)]
    assert seen["resident"] == [None, (True, False), (True, True)]


@pytest.mark.parametrize("is_training", [False, True])
def test_a_measurement_takes_no_images_from_a_training_of_another_thread(monkeypatch, is_training):
    training = trainer()
    fit(training, "resident", epochs=1)
    training._placement._must_keep = False

    def refused(self, x, y):
        if training._training.keeps_images:
            raise MemoryLimitError("no memory")
        return get(self, x, y)

    get = ProgramSet.get
    monkeypatch.setattr(ProgramSet, "get", refused)
    with ThreadPoolExecutor(1) as pool:
        if is_training:
            with training._turn.take("test"), pytest.raises(MemoryLimitError):
                pool.submit(training.evaluate, data()).result()
        else:
            pool.submit(training.evaluate, data()).result()
    assert (IMAGES in training.variables) == is_training


def test_two_threads_without_memory_give_up_the_images_of_a_validation_once(monkeypatch):
    training = trainer()
    training.fit(data(), data(37), epochs=1, progress=False, augment_in="resident")
    training._placement._must_keep = False
    both = Barrier(2)

    def refused(self, x, y):
        is_refused = training._measuring.keeps_images
        with contextlib.suppress(BrokenBarrierError):
            both.wait(1.0)  # until the other one has seen the same, where it can
        if is_refused:
            raise MemoryLimitError("no memory beside the images of the validation")
        return get(self, x, y)

    expected = training.evaluate(data())
    get = ProgramSet.get
    monkeypatch.setattr(ProgramSet, "get", refused)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(training.evaluate, data()) for _ in range(2)]
        assert [run.result() for run in runs] == [expected] * 2
    # One thread did not take the other's success for another failure.
    assert IMAGES in training.variables
    assert MEASURED_IMAGES not in training.variables


@pytest.mark.parametrize(("count", "held"), [(50, True), (40, False)])
def test_images_of_a_validation_make_room_for_other_images_of_a_training(monkeypatch, count, held):
    def keep(self, images):
        if self is training._training:
            seen.append(training._measuring.keeps_images)
        keep_images(self, images)

    training, seen = trainer(), []
    training.fit(data(), data(37), epochs=1, progress=False, augment_in="resident")
    keep_images = ProgramSet.keep_images
    monkeypatch.setattr(ProgramSet, "keep_images", keep)
    training.fit(data(count), data(37), epochs=1, progress=False, augment_in="resident")
    assert seen == [held]
    assert MEASURED_IMAGES in training.variables


def test_images_of_a_validation_stay_where_a_training_keeps_none(monkeypatch):
    training = trainer()
    monkeypatch.setattr(training._placement, "_device", "cuda")
    monkeypatch.setattr(_placement, "_MOST_RESIDENT", 49 * 10 * 9 * 3)
    training.fit(data(), data(37), epochs=1, progress=False)
    kept = training._measuring._images
    assert kept is not None
    training.fit(data(), data(37), epochs=1, progress=False)
    assert training._measuring._images is kept


def test_a_dataset_of_files_follows_one_of_arrays():
    class Files:
        """`images` are its own affair."""

        labels, class_names = data().labels, ("a", "b", "c")
        image_shape, image_dtype, images = (10, 9, 3), np.dtype(np.uint8), ["a file"] * 50

        def __len__(self):
            return len(self.images)

        def read(self, indices):
            return data().read(indices)

    training = trainer()
    training.fit(data(), epochs=1, progress=False, augment_in="resident")
    training.fit(Files(), epochs=1, progress=False, transform=AUGMENT, augment_in="step")
    assert IMAGES not in training.variables


def test_what_cannot_be_augmented_in_the_step_is_refused():
    with pytest.raises(ArgumentError, match="augment_in must be 'auto', .* got 'gpu'"):
        fit(trainer(), "gpu")
    with pytest.raises(ArgumentError, match="augment_in must be 'auto', .* got array"):
        fit(trainer(), np.array(["step", "loader"]))
    for where in ("step", "resident"):
        with pytest.raises(ArgumentError, match=r"(?s)augment_in is .*uint8 images of ArrayDataset, .*CenterCrop"):
            fit(trainer(), where, transform=CenterCrop(8))
    with pytest.raises(ArgumentError, match="(?s)'step', .*float32 images of ArrayDataset"):
        trainer().fit(data(dtype=np.float32), epochs=1, transform=CROP, augment_in="step", progress=False)
    fit(trainer(), "auto", transform=CenterCrop(8), epochs=1)


def test_a_transform_made_of_lists_is_one_too():
    options = {"transform": RandomCrop(size=[7, 5], padding=1), "epochs": 1}
    assert fit(trainer(), "step", **options) == fit(trainer(), "loader", **options)
