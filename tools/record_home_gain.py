"""Measure what depth gains on the training images of CIFAR-10, and write it into an encoder's file.

To be run after pycnn/weights/pretrain-small.safetensors was replaced:

    python tools/record_home_gain.py pycnn/weights/pretrain-small.safetensors --data-dir DIR

The images are the first of each class that the net was trained on, without augmentation; the test images have no part
in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import pycnn as pc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="model file; it is replaced atomically")
    parser.add_argument("--data-dir", type=Path, required=True, help="of CIFAR-10")
    parser.add_argument("--images", type=int, default=100, help="of each class (default: 100)")
    args = parser.parse_args()
    train, _ = pc.data.cifar10(args.data_dir)
    chosen = [np.flatnonzero(train.labels == label)[: args.images] for label in range(len(train.class_names))]
    gain = pc.transfer.record_home_gain(args.file, pc.data.subset(train, np.concatenate(chosen)))
    print(f"{args.file}: the top layer gains {gain.value:.3f} +- {gain.error:.3f} over the stages below it")


if __name__ == "__main__":
    main()
