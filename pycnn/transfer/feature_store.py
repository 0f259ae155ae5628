"""Features of whole data sets: computed in batches, kept in memory or as files that know what they were made from.

    DIR/features.json             layers, labels, class names, file names, and a digest of everything that matters
    DIR/layer3-0a1b2c3d.npy       float32 (N, features), opened memory-mapped

The JSON file is written last, and arrays of another digest have other names, so that a crash leaves the old store, the
new one, or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_integer
from pycnn.data import Dataset, Loader
from pycnn.data.datasets import ReadableDataset, Subset
from pycnn.errors import ArgumentError, FileError, TrainingError
from pycnn.program import check_device, compile
from pycnn.textfile import clear_strays, temporary_suffix, write_text
from pycnn.train._batches import as_dataset
from pycnn.transfer.encoder import Encoder

__all__ = ["FeatureSet", "extract", "features"]

_INDEX = "features.json"
_SCHEMA = "pycnn.features/1"
_ARRAY_FILE = r".+-[0-9]+-[0-9a-f]{12}\.npy"


@dataclass(frozen=True)
class FeatureSet:
    """Features of a data set.

    Attributes:
        arrays: By layer, float32 (N, features); memory-mapped where they are kept in files.
        labels: Class of each sample, int64 (N,).
        class_names: One name per class.
        paths: Files of the images, where they are files; otherwise empty.
        directory: Where the arrays are kept, or None.
        cached: Whether they were found there rather than computed.
        seconds: That computing them took; of those found, when they were put there. 0 of a subset.
    """

    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray
    class_names: tuple[str, ...]
    paths: tuple[str, ...] = ()
    directory: Path | None = None
    cached: bool = False
    seconds: float = 0.0

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.labels)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.arrays)

    def matrix(self, layers: str | Sequence[str] | None = None) -> np.ndarray:
        """Join the features of layers, float32 (N, features).

        Args:
            layers: One name or several, in the order wanted; default: all.

        Raises:
            ArgumentError: There is no such layer.
        """
        names = self.layers if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)
        for name in names:
            if name not in self.arrays:
                raise ArgumentError(f"features: no layer {name!r}; there is {', '.join(self.arrays)}")
        if not names:
            raise ArgumentError("features: no layer is named")
        if len(names) == 1:
            return np.asarray(self.arrays[names[0]])
        return np.concatenate([self.arrays[name] for name in names], axis=1)

    def subset(self, indices: Any) -> FeatureSet:
        """Pick samples, in the order given; in memory."""
        index = np.asarray(indices)
        paths = tuple(self.paths[i] for i in np.arange(len(self))[index]) if self.paths else ()
        arrays = {name: np.asarray(array[index]) for name, array in self.arrays.items()}
        return FeatureSet(arrays, self.labels[index], self.class_names, paths)

    def __repr__(self) -> str:
        """Show samples and sizes."""
        sizes = ", ".join(f"{name}: {array.shape[1]}" for name, array in self.arrays.items())
        return f"<FeatureSet: {len(self)} samples, {sizes}>"


def extract(
    encoder: Encoder,
    dataset: Dataset | tuple[Any, Any],
    *,
    out: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    transform: Any = None,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> FeatureSet:
    """Compute the features of a data set; images are decoded ahead in threads.

    Args:
        encoder: The encoder.
        dataset: A data set of `pycnn.data`, or ``(images, labels)``.
        out: A folder to keep the features in, as .npy files that are opened memory-mapped; made if it is missing. If
            it holds the features of the same images through the same encoder, they are taken from there. What counts
            as the same: the weights and the graph up to the layers, the transform, and, of files, names, sizes and
            times of change; of arrays, their bytes (`fingerprint` of the data set). Features of data that cannot be
            recognised (other data sets) are computed every time. What they were computed on does not count, though
            devices and instruction sets round differently. Default: the features stay in memory.
        batch_size: Images per run; on the CPU the result does not depend on it.
        transform: What is done to the images first, of `pycnn.data.transforms`, for example a `CenterCrop`.
        workers: Threads that prepare batches (see `pycnn.data.Loader`).
        threads: At most this many for the net; None chooses.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.

    Returns:
        The features, with labels and names.

    Raises:
        ShapeError: The images do not fit the net.
        TrainingError: A feature is not finite; names layer and image.
        FileError: The folder cannot be written, or what was written not be read again; an older store in it is
            intact. An image file is gone.
        ArgumentError: An argument is out of range, or the data set is empty.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn as pc
        >>> encoder = pc.transfer.Encoder(pc.models.create("lenet5").build((28, 28, 1)), ["pool2", "fc2"])
        >>> train, _ = pc.data.digits(seed=0)
        >>> extract(encoder, pc.data.subset(train, range(100)))
        <FeatureSet: 100 samples, pool2: 16, fc2: 84>
    """
    data = as_dataset(dataset, who="features")
    size = as_integer(batch_size, who="features", name="batch_size", low=1)
    how = {"threads": threads, "device": check_device(device, who="features")}
    loader = Loader(data, min(size, len(data)), shuffle=False, transform=transform, workers=workers)
    paths = tuple(str(path) for path in _paths(data))
    names = tuple(str(name) for name in data.class_names)
    labels = np.asarray(data.labels, np.int64)
    if out is None:
        sizes = encoder.feature_sizes(loader.image_shape)
        arrays = {name: np.empty((len(data), count), np.float32) for name, count in sizes.items()}
        seconds = _fill(encoder, loader, arrays, paths, how)
        return FeatureSet(arrays, labels, names, paths, seconds=seconds)
    directory = Path(out)
    clear_strays(directory, _ARRAY_FILE)
    digest = _digest(encoder, data, loader)
    if digest is not None:
        found = _read(directory, digest, encoder, len(data))
        if found is not None:
            return FeatureSet(found[0], labels, names, paths, directory, cached=True, seconds=found[1])
    _write(encoder, loader, directory, digest, (labels, names, paths), how)
    written = _read(directory, digest, encoder, len(data))
    if written is None:
        raise FileError(errno.EIO, "the features that were just written cannot be read again", str(directory))
    return FeatureSet(written[0], labels, names, paths, directory, seconds=written[1])


def features(
    net: Any,
    x: Any,
    layer: str | Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    device: str = "cpu",
    **options: Any,
) -> np.ndarray:
    """Compute pooled features of images in one call.

    Args:
        net: A net.
        x: Images (N, H, W, C), float32, or uint8, which is read as 0..1.
        layer: A layer's name, or several, whose features are joined; default: the top layer.
        batch_size: Images per run.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        options: Of `Encoder`: `pool` and `normalize`.

    Returns:
        float32 (N, features).

    Raises:
        ArgumentError: There is no such layer, or an argument is out of range.
        ShapeError: The images do not fit the net.
        DeviceError: The device is absent.

    Example:
        >>> import numpy as np, pycnn as pc
        >>> features(pc.models.create("cifar_resnet20"), np.zeros((2, 32, 32, 3), np.uint8), "layer2").shape
        (2, 32)
    """
    encoder = Encoder(net, layer, **options)
    images = x if hasattr(x, "shape") else np.asarray(x)
    found = extract(encoder, (images, np.zeros(len(images), np.int64)), batch_size=batch_size, device=device)
    return found.matrix()


def _fill(
    encoder: Encoder, loader: Loader, arrays: Mapping[str, np.ndarray], paths: Sequence[str], how: Mapping[str, Any]
) -> float:
    """Compute the features; seconds that it took. `how` is of `compile`: threads and device."""
    begun = time.perf_counter()
    run = _runner(encoder, loader, how)
    start = 0
    for images, _ in loader:
        count = len(images)
        if count < loader.batch_size:
            # The program for full batches serves the last one too.
            images = np.concatenate([images, np.repeat(images[-1:], loader.batch_size - count, axis=0)])
        for name, values in run(images).items():
            part = values[:count]
            bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
            if bad.size:
                where = start + int(bad[0])
                shown = f"image {where}" + (f" '{paths[where]}'" if paths else "")
                raise TrainingError(
                    f"features: layer '{name}' gives NaN or infinity for {shown}; are the weights finite and the "
                    "images scaled as in training?"
                )
            arrays[name][start : start + count] = part
        start += count
    return time.perf_counter() - begun


def _runner(
    encoder: Encoder, loader: Loader, how: Mapping[str, Any]
) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """What maps a full batch to features by layer."""
    if how == {"threads": None, "device": "cpu"}:
        return encoder
    dtype = np.dtype(loader.dataset.image_dtype).name
    program = compile(encoder, (loader.batch_size, *loader.image_shape), dtype, **how)
    return program.run


# ---- What features follow from


def _digest(encoder: Encoder, data: Dataset, loader: Loader) -> str | None:
    """A text that is equal only where the features are; None for data that cannot be recognised."""
    # Of data sets that are others' classes nothing is known.
    token = data.fingerprint() if isinstance(data, ReadableDataset) else None
    if token is None:
        return None
    traced = encoder.cut((1, *loader.image_shape), np.dtype(data.image_dtype).name)
    digest = hashlib.sha256()
    digest.update(f"{_SCHEMA}\n{encoder.extra_repr()}\n{traced.graph.text()}\n".encode())
    for name, parameter in sorted(traced.parameters.items()):
        digest.update(f"{name} {parameter.shape} {parameter.dtype}\n".encode())
        digest.update(parameter.core.view().tobytes())
    digest.update(f"{loader.transform!r}\n{loader.image_shape}\n".encode())
    digest.update(token)
    digest.update(np.asarray(data.labels, np.int64).tobytes())
    return digest.hexdigest()


def _paths(data: Dataset) -> Iterator[Path]:
    if isinstance(data, Subset):
        base = list(_paths(data.base))
        return (base[i] for i in data.indices) if base else iter(())
    return iter(getattr(data, "paths", ()))


# ---- Files


def _read(
    directory: Path, digest: str | None, encoder: Encoder, count: int
) -> tuple[dict[str, np.ndarray], float] | None:
    """The arrays of a store and the seconds that they took, if it was made from just this; else it counts as absent."""
    try:
        index = json.loads((directory / _INDEX).read_text(encoding="utf-8"))
        if index["schema"] != _SCHEMA or (digest is not None and index["digest"] != digest):
            return None
        seconds = float(index["seconds"])
        arrays = {}
        for name in encoder.layers:
            file, size = index["layers"][name]["file"], index["layers"][name]["features"]
            array = np.load(directory / Path(file).name, mmap_mode="r", allow_pickle=False)
            if array.shape != (count, size) or array.dtype != np.float32:
                return None
            arrays[name] = array
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return arrays, seconds


def _write(
    encoder: Encoder,
    loader: Loader,
    directory: Path,
    digest: str | None,
    about: tuple[np.ndarray, tuple[str, ...], tuple[str, ...]],
    how: Mapping[str, Any],
) -> None:
    labels, names, paths = about
    sizes = encoder.feature_sizes(loader.image_shape)
    mark = (digest or hashlib.sha256(os.urandom(16)).hexdigest())[:12]
    # Two layers may differ only in letters that file names do not show.
    files = {
        name: f"{re.sub(r'[^A-Za-z0-9_.]', '_', name)[:80]}-{i}-{mark}.npy" for i, name in enumerate(encoder.layers)
    }
    temporary = {name: directory / (file + temporary_suffix()) for name, file in files.items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        before = _own_files(directory)
        arrays = {
            name: np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                temporary[name], mode="w+", dtype=np.float32, shape=(len(loader.dataset), sizes[name])
            )
            for name in files
        }
        seconds = _fill(encoder, loader, arrays, paths, how)
        for name in files:
            arrays[name].flush()
        del arrays
        for name, file in files.items():
            with temporary[name].open("rb") as written:
                os.fsync(written.fileno())
            temporary[name].replace(directory / file)
        index = {
            "schema": _SCHEMA,
            "digest": digest or mark,
            "layers": {name: {"file": files[name], "features": sizes[name]} for name in files},
            "pool": dict(zip(encoder.layers, encoder.pools, strict=True)),
            "normalize": encoder.normalize,
            "image_shape": list(loader.image_shape),
            "seconds": seconds,
            "class_names": list(names),
            "labels": labels.tolist(),
            "paths": list(paths),
        }
        write_text(directory / _INDEX, json.dumps(index, ensure_ascii=False) + "\n")
        for stale in before - set(files.values()):
            (directory / stale).unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(error.errno, error.strerror, str(error.filename or directory)) from None
    finally:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _own_files(directory: Path) -> set[str]:
    """Arrays that the store in a folder names."""
    try:
        layers = json.loads((directory / _INDEX).read_text(encoding="utf-8"))["layers"]
        return {Path(layer["file"]).name for layer in layers.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
