"""Images per second from files or memory to augmented float32 batches; the usual PyTorch pipeline in the same run.

Photographs: JPEG folder -> random resized crop to 224x224, mirrored half the time, normalised; batches of 32.
CIFAR: 32x32 images in memory -> random crop after padding by 4, mirrored half the time, normalised; batches of 128.

The peers are a torch DataLoader with as many worker processes as pycnn has threads: Pillow and NumPy for each sample,
torchvision's transforms too where they can be imported, and for CIFAR also whole batches in torch. Epochs take turns;
medians are compared. First the outputs are checked to agree: the same windows by Pillow and by slicing.

    python benchmarks/data_throughput.py --folder DIR
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from timing import environment, save, summarise

import pycnn as pc
from pycnn.data import transforms
from pycnn.data.transforms import Draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, BATCH, CIFAR_BATCH, CIFAR_COUNT = 224, 32, 128, 20_000


def main() -> None:
    """Run both parts and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="JPEG files in folders by class (default: CIFAR only)")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads, processes (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "environment": environment("torch", "torchvision", "pillow", "simplejpeg"),
        "workers": args.workers,
    }
    if args.folder is not None:
        result["photographs"] = measure(photograph_candidates(args.folder, args.workers), args.rounds, "photographs")
    result["cifar"] = measure(cifar_candidates(args.workers), args.rounds, "CIFAR, in memory")
    save("data_throughput", result, args.json)


def measure(candidates: dict[str, Callable[[], Iterable[Any]]], rounds: int, title: str) -> dict[str, Any]:
    """Let each candidate run an epoch in turn."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, epoch in candidates.items():
            started, count = time.perf_counter(), 0
            for images, _ in epoch():
                count += len(images)
            if round_number:  # the first starts workers and fills the system's file cache
                samples[name].append((time.perf_counter() - started) / count)
    rates = {name: 1 / summarise(values).median for name, values in samples.items()}
    peers = {name: rate for name, rate in rates.items() if not name.startswith("pycnn")}
    best = max(peers, key=lambda name: peers[name]) if peers else None
    print(f"\n{title}: images per second (median of {rounds} epochs), against the best peer")
    for name, rate in rates.items():
        ratio = f"{rate / peers[best]:6.2f}" if best else ""
        print(f"  {name:<58} {rate:>9,.0f} {ratio}", flush=True)
    return {"images_per_second": rates, "best_peer": best, "seconds_per_image": samples}


# ---- Photographs


def photograph_candidates(folder: Path, workers: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """Epochs over a folder of JPEG files."""
    from pycnn.data import _decode

    augment = transforms.Compose([transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()])

    def loader(**options: Any) -> pc.data.Loader:
        data = pc.data.ImageFolder(folder, size=SIDE, **options)
        return pc.data.Loader(
            data, BATCH, transform=augment, normalize=(MEAN, STD), workers=workers, prefetch=2 * workers
        )

    plain, reduced, kept = loader(cache_bytes=0), loader(reduced_decoding=True), loader(cache_bytes=2**30)
    check_photographs(plain.dataset, augment)
    fast = _decode._simplejpeg()
    decoder = "simplejpeg" if fast is not None else "Pillow"
    candidates: dict[str, Callable[[], Iterable[Any]]] = {
        f"pycnn, {decoder}": lambda: plain,
        f"pycnn, {decoder}, reduced decoding": lambda: reduced,
        "pycnn, decoded pictures kept in memory": lambda: kept,
    }
    if fast is not None:

        def with_pillow() -> Iterable[Any]:
            _decode._fast_decoder = None
            try:
                yield from plain
            finally:
                _decode._fast_decoder = fast

        candidates["pycnn, Pillow"] = with_pillow
    paths, labels = plain.dataset.paths, plain.dataset.labels
    add_torch(candidates, "DataLoader, Pillow and NumPy", PillowPhotos(paths, labels), BATCH, workers)
    vision = torchvision_transforms()
    if vision is not None:
        steps = [
            vision.RandomResizedCrop(SIDE),
            vision.RandomHorizontalFlip(),
            vision.ToTensor(),
            vision.Normalize(MEAN, STD),
        ]
        dataset = PillowPhotos(paths, labels, vision.Compose(steps))
        add_torch(candidates, "DataLoader, torchvision", dataset, BATCH, workers)
    return candidates


def check_photographs(data: Any, augment: transforms.Compose) -> None:
    """Compare one batch with Pillow's crop and resize of the same windows."""
    from PIL import Image

    count = min(24, len(data))
    loader = pc.data.Loader(data, count, shuffle=False, transform=augment, normalize=(MEAN, STD))
    images, _ = next(iter(loader))
    index = np.arange(count)
    plan = augment.steps[0].plan(Draw(0, 0, index))
    mirrored = Draw(0, 0, index, 1).uniform(1)[:, 0] < 0.5
    worst = 0.0
    for n in range(count):
        with Image.open(data.paths[n]) as opened:
            picture = opened.convert("RGB")
        top, left, height, width = plan.window(n, picture.height, picture.width)
        window = picture.crop((left, top, left + width, top + height))
        pixels = np.asarray(window.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
        pixels = pixels[:, ::-1] if mirrored[n] else pixels
        expected = (pixels / 255 - MEAN) / STD
        worst = max(worst, float(np.abs((images[n] - expected) * STD).max()) * 255)
    # Pillow rounds after each of its two passes, pycnn once.
    if worst > 1.5:
        raise SystemExit(f"outputs differ by {worst:.2f} of 255 levels")
    print(f"outputs agree with Pillow's within {worst:.2f} of 255 levels")


class PillowPhotos:
    """Map-style data set for a DataLoader."""

    def __init__(self, paths: list[Path], labels: np.ndarray, transform: Any = None) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import random

        import torch
        from PIL import Image

        with Image.open(self.paths[i]) as opened:
            picture = opened.convert("RGB")
        if self.transform is not None:
            return self.transform(picture), int(self.labels[i])
        top, left, height, width = random_window(picture.height, picture.width, random)
        window = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        if random.random() < 0.5:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(window, np.float32)
        pixels *= np.float32(1) / (255 * np.array(STD, np.float32))
        pixels -= np.array(MEAN, np.float32) / np.array(STD, np.float32)
        return torch.from_numpy(pixels), int(self.labels[i])


def random_window(height: int, width: int, random: Any) -> tuple[int, int, int, int]:
    """Draw a window as torchvision's RandomResizedCrop does."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


# ---- CIFAR


def cifar_candidates(workers: int) -> dict[str, Callable[[], Iterable[Any]]]:
    """Epochs over 32x32 images in memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (CIFAR_COUNT, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, CIFAR_COUNT)
    augment = transforms.Compose([transforms.RandomCrop(padding=4), transforms.RandomHorizontalFlip()])
    data = pc.data.ArrayDataset(images, labels)
    loader = pc.data.Loader(data, CIFAR_BATCH, transform=augment, normalize=(MEAN, STD), workers=workers)
    check_cifar(data, augment)
    candidates: dict[str, Callable[[], Iterable[Any]]] = {"pycnn": lambda: loader}
    add_torch(candidates, "DataLoader, NumPy", SlicedImages(images, labels), CIFAR_BATCH, workers)
    vision = torchvision_transforms()
    if vision is not None:
        steps = [
            vision.RandomCrop(32, padding=4),
            vision.RandomHorizontalFlip(),
            vision.ToTensor(),
            vision.Normalize(MEAN, STD),
        ]
        dataset = SlicedImages(images, labels, vision.Compose(steps))
        add_torch(candidates, "DataLoader, torchvision", dataset, CIFAR_BATCH, workers)
    add_whole_batches(candidates, images, labels, workers)
    return candidates


def check_cifar(data: Any, augment: transforms.Compose) -> None:
    """Compare one batch with padding and slicing."""
    count = 64
    loader = pc.data.Loader(data, count, shuffle=False, transform=augment, normalize=(MEAN, STD))
    images, _ = next(iter(loader))
    places = np.floor(Draw(0, 0, np.arange(count)).uniform(2) * 9).astype(int)
    mirrored = Draw(0, 0, np.arange(count), 1).uniform(1)[:, 0] < 0.5
    padded = np.pad(data.images[:count], ((0, 0), (4, 4), (4, 4), (0, 0))).astype(np.float64) / 255
    for n, (top, left) in enumerate(places):
        window = padded[n, top : top + 32, left : left + 32]
        window = window[:, ::-1] if mirrored[n] else window
        if np.abs(images[n] - (window - MEAN) / STD).max() > 1e-5:
            raise SystemExit(f"image {n} differs from its window")
    print("outputs agree with padding and slicing")


class SlicedImages:
    """Map-style data set for a DataLoader."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any = None) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import random

        import torch

        if self.transform is not None:
            from PIL import Image

            return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])
        padded = np.zeros((40, 40, 3), np.uint8)
        padded[4:36, 4:36] = self.images[i]
        top, left = random.randint(0, 8), random.randint(0, 8)
        window = padded[top : top + 32, left : left + 32]
        if random.random() < 0.5:
            window = window[:, ::-1]
        pixels = window.astype(np.float32)
        pixels *= np.float32(1) / (255 * np.array(STD, np.float32))
        pixels -= np.array(MEAN, np.float32) / np.array(STD, np.float32)
        return torch.from_numpy(pixels), int(self.labels[i])


def add_whole_batches(candidates: dict[str, Any], images: np.ndarray, labels: np.ndarray, workers: int) -> None:
    """The quickest way known in torch itself: gather whole batches from padded images by index."""
    try:
        import torch
    except ImportError:
        return
    padded = torch.from_numpy(np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0))))
    target = torch.from_numpy(labels)
    ramp = torch.arange(32)
    scale, shift = 1 / (255 * torch.tensor(STD)), torch.tensor(MEAN) / torch.tensor(STD)

    def epoch() -> Iterable[Any]:
        torch.set_num_threads(max(1, workers))
        order = torch.randperm(len(images))
        for index in order.split(CIFAR_BATCH):
            count = len(index)
            rows = torch.randint(0, 9, (count, 1)) + ramp
            columns = torch.randint(0, 9, (count, 1)) + ramp
            columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
            batch = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield batch.float().mul_(scale).sub_(shift), target[index]

    candidates["torch, whole batches by index"] = epoch


# ---- Peers


def torchvision_transforms() -> Any:
    """Give torchvision.transforms, or None."""
    try:
        from torchvision import transforms as vision
    except Exception:  # absent, or built for another PyTorch
        return None
    return vision


def add_torch(candidates: dict[str, Any], name: str, dataset: Any, batch_size: int, workers: int) -> None:
    """Add a DataLoader over a data set, with worker processes that stay."""
    try:
        from torch.utils.data import DataLoader
    except ImportError:
        print(f"{name}: PyTorch is not installed, left out")
        return
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    candidates[name] = lambda: loader


if __name__ == "__main__":
    main()
