"""Transforms as recipes write them: names of augmentations, or lists of steps."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any

from pycnn.data import transforms
from pycnn.data.transforms import Transform
from pycnn.errors import ArgumentError

__all__ = ["check_steps", "make_transform"]


def make_transform(steps: str | list[dict[str, Any]], data: str, image_shape: tuple[int, int, int]) -> Transform | None:
    """The transform of a recipe's "augment" or "test_transform".

    A name means what suits the data: "light" turns and moves written characters a little and "strong" bends them too;
    for photographs see `pycnn.data.transforms.policy`.

    Args:
        steps: A name, or a list of steps as `check_steps` takes them.
        data: Name of the data set; "digits" and "mnist" are characters.
        image_shape: (H, W, C) of the images.

    Raises:
        ArgumentError: There is no such augmentation or transform, or it refuses its arguments.
    """
    if not isinstance(steps, str):
        made = check_steps(steps)
        return transforms.Compose(made) if made else None
    if data not in ("digits", "mnist") or steps not in ("light", "strong"):
        return transforms.policy(steps, image_shape)
    if steps == "light":
        return transforms.RandomAffine(degrees=8, translate=0.07, scale=(0.93, 1.07))
    return transforms.Compose(
        [
            transforms.RandomAffine(degrees=8, translate=0.05, scale=(0.93, 1.07), shear=4),
            transforms.ElasticDistortion(alpha=16, sigma=4),
        ]
    )


def check_steps(steps: list[dict[str, Any]]) -> list[Transform]:
    """Make each step's transform.

    Args:
        steps: For example ``[{"transform": "RandomCrop", "padding": 4}]``: a class of `pycnn.data.transforms` and its
            arguments.

    Raises:
        ArgumentError: There is no such transform, or it refuses its arguments.
    """
    known = sorted(
        name
        for name in transforms.__all__
        if inspect.isclass(kind := getattr(transforms, name)) and issubclass(kind, Transform)
    )
    known = [name for name in known if name not in ("Compose", "Transform")]
    made = []
    for position, step in enumerate(steps):
        arguments = dict(step)
        name = arguments.pop("transform")
        if name not in known:
            close = get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise ArgumentError(f"step {position}: no transform is called {name!r}; there is {', '.join(close)}")
        kind = getattr(transforms, name)
        accepted = list(inspect.signature(kind).parameters)
        for argument in arguments:
            if argument not in accepted:
                raise ArgumentError(
                    f"step {position}: {name} has no argument {argument!r}; there is {', '.join(accepted) or 'none'}"
                )
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
        try:
            made.append(kind(**values))
        except TypeError as error:  # an argument that must be there is missing
            raise ArgumentError(f"step {position}: {name}: {error}") from None
    return made
