"""Everything that is settled before a training begins: recipe, data, net."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycnn
from pycnn.cli import _data, _nets
from pycnn.cli._options import UsageError, as_usage
from pycnn.config import manual_seed
from pycnn.data import Dataset, split
from pycnn.data._overlap import warn_shared_files
from pycnn.data.transforms import Transform
from pycnn.nn.module import Module
from pycnn.train import Recipe, Trainer

__all__ = ["Plan", "make_plan"]


@dataclass
class Plan:
    """A training, settled.

    Attributes:
        args: What was typed.
        recipe: How to train; its net, options and seed are those of this training.
        net: With fresh weights.
        data: All images.
        fit: Those that are trained on.
        validation: Those that are measured after each epoch.
        run_dir: Where everything is kept, or None.
    """

    args: argparse.Namespace
    recipe: Recipe
    net: Module
    data: _data.Data
    fit: Dataset
    validation: Dataset
    run_dir: Path | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what the net sees."""
        return _seen(self.data.train, self.recipe.make_test_transform())

    def fresh_net(self) -> Module:
        """The net as training begins."""
        manual_seed(self.recipe.seed)
        name = self.recipe.net
        net = _nets.find(name, {}) if _nets.is_file(name) else _nets.create(name, self.recipe.option)
        net.build(self.image_shape)
        return net

    def trainer(self, net: Module, threads: int | None) -> Trainer:
        """A trainer of a net."""
        with as_usage():
            return self.recipe.make_trainer(
                net,
                self.fit,
                device=self.args.device,
                threads=threads,
                recompute=self.args.recompute or "cheap",
                loss=_nets.own_loss(net),
                normalize=not _nets.is_file(self.recipe.net),
            )

    def settings(self) -> dict[str, Any]:
        """What `--config` takes to do the same again."""
        args, keys = self.args, self.recipe.to_dict()
        option, name = keys.pop("option"), keys.pop("net")
        del keys["about"]
        values = {
            "net": str(Path(name).resolve()) if _nets.is_file(name) else name,
            "data_dir": None if args.data_dir is None else str(args.data_dir.resolve()),
            "on_error": args.on_error,
            **keys,
            "ensemble": args.ensemble,
            "threads": args.threads,
            "recompute": args.recompute,
            "device": args.device,
            "output": None if args.output is None else str(args.output.resolve()),
            "option": option,
        }
        return {key: value for key, value in values.items() if value is not None}

    def metadata(self, accuracy: float | None) -> dict[str, str]:
        """What a saved net knows beside its weights; accuracy None: it was not measured yet."""
        values = {"class_names": json.dumps(list(self.data.train.class_names)), "data": self.data.name}
        if accuracy is not None:
            values["test_accuracy"] = f"{accuracy:.6f}"
        original = getattr(self.net, "metadata", {}).get("net")
        name = original if _nets.is_file(self.recipe.net) else self.recipe.net
        return {**values, "net": name} if name else values

    def evaluate_command(self, file: Path) -> str:
        """How to measure a file of the trained net on the same test images."""
        recipe, side = self.recipe, self.recipe.image_size
        words = f"pycnn evaluate {file} --data {recipe.data}"
        if self.args.data_dir is not None:
            words += f" --data-dir {self.args.data_dir}"
        steps = [] if isinstance(recipe.test_transform, str) else recipe.test_transform
        if side and recipe.data in ("digits", "folder") and [step["transform"] for step in steps] == ["CenterCrop"]:
            # Without it the images would be brought straight to the window that is cut here.
            words += f" --image-size {side}"
        if self.args.on_error != "raise":
            words += f" --on-error {self.args.on_error}"
        return words


def make_plan(args: argparse.Namespace, recipe: Recipe, run_dir: Path | None, data: _data.Data | None = None) -> Plan:
    """Read the data and make the net that fits them.

    Args:
        args: What was typed.
        recipe: How to train.
        run_dir: Where everything is kept.
        data: The images, when they have been read already.

    Raises:
        UsageError: The net does not exist, or does not go with the data.
        FileError: Data or net cannot be read.
    """
    name, options = recipe.net, dict(recipe.option)
    if not name:
        raise UsageError(f"the recipe names no net; give one: pycnn train NET --recipe {args.recipe}")
    manual_seed(recipe.seed)
    by_name = not _nets.is_file(name)
    if not by_name and args.option:
        raise UsageError(f"--option {args.option[0]}: '{name}' is a file, its net is made already")
    net = _nets.find(name, options if by_name else {})
    if data is None:
        data = _read(args, recipe, net)
    shape = _seen(data.train, recipe.make_test_transform())
    if by_name:
        net, options = _nets.fit_to_data(name, options, net, shape, len(data.train.class_names))
        recipe = recipe.override(option=options)
    net.build(shape)
    _check_classes(net, shape, data.train, args.device)
    with as_usage():
        trained = _seen(data.train, recipe.make_transform(data.train.image_shape))
    if trained != shape:
        raise UsageError(
            f"the augmentation gives images {trained}, but the test images are {shape}\n"
            f"  test_transform {recipe.test_transform}"
        )
    if by_name:
        # Of the validation part too: it differs between the nets of an ensemble, these numbers should not.
        recipe = recipe.with_statistics(data.train)
    part = recipe.validation
    fit, validation = split(data.train, part, seed=recipe.seed) if part else (data.train, data.test)
    if part:  # otherwise `fit` compares
        warn_shared_files(data.train, data.test, who="train", name="test")
    return Plan(args, recipe, net, data, fit, validation, run_dir)


def _read(args: argparse.Namespace, recipe: Recipe, net: Module) -> _data.Data:
    expected = net.input_shape or (32, 32, 3)
    size = (recipe.image_size, recipe.image_size) if recipe.image_size else (expected[0], expected[1])
    channels: int = expected[2]
    if not _nets.is_file(recipe.net):
        free = {"in_channels", "input_shape"} & _nets.known_options(recipe.net)
        if free and not free & set(recipe.option):
            channels = 3
    return _data.load_data(recipe.data, args.data_dir, size=size, channels=channels, on_error=args.on_error)


def _seen(data: Dataset, transform: Transform | None) -> tuple[int, int, int]:
    return data.image_shape if transform is None else transform.output_shape(data.image_shape)


def _check_classes(net: Module, image_shape: tuple[int, int, int], data: Dataset, device: str) -> None:
    (_, shape, _), *_others = pycnn.compile(net, (1, *image_shape), device=device, threads=1).outputs
    if len(shape) != 2 or shape[1] < len(data.class_names):
        raise UsageError(
            f"the net gives {shape}, but there are {len(data.class_names)} classes: (N, classes) is needed"
        )
