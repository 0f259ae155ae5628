"""Ready-made augmentation of photographs, by name."""

from __future__ import annotations

from collections.abc import Callable

from pycnn.data.transforms._base import Shape, Transform
from pycnn.data.transforms._colour import ColorJitter, PCALighting
from pycnn.data.transforms._compose import Compose
from pycnn.data.transforms._cutout import Cutout
from pycnn.data.transforms._mixup import Mixup
from pycnn.data.transforms._resized_crop import RandomResizedCrop
from pycnn.data.transforms._warp import RandomAffine
from pycnn.data.transforms._window import RandomCrop, RandomHorizontalFlip
from pycnn.errors import ArgumentError

# The middle of 0..255 stands for the mean colour, which is not known here.
_GREY = 127.0


def _padded_crop(shape: Shape) -> list[Transform]:
    # 4 pixels on 32x32, as He et al. 2015, section 4.2.
    return [RandomCrop(padding=max(1, min(shape[:2]) // 8)), RandomHorizontalFlip()]


def _lighting(shape: Shape) -> list[Transform]:
    # Components of ImageNet's colours; grey images have none.
    return [PCALighting()] if shape[2] == 3 else []


def _jitter(shape: Shape) -> list[Transform]:
    return [ColorJitter(0.4, 0.4, 0.4)] if shape[2] in (1, 3) else []


# In the order in which they are carried out.
_STEPS: dict[str, Callable[[Shape], list[Transform]]] = {
    "light": _padded_crop,
    "strong": lambda shape: [*_padded_crop(shape), RandomAffine(degrees=15, scale=(0.8, 1.2), shear=8)],
    "crop-mirror": _padded_crop,
    "resized-crop": lambda shape: [RandomResizedCrop(shape[:2]), RandomHorizontalFlip()],
    "mirror": lambda shape: [RandomHorizontalFlip()],
    "jitter": _jitter,
    "lighting": _lighting,
    "cutout": lambda shape: [Cutout(max(1, min(shape[:2]) // 2), fill=_GREY)],
    "mixup": lambda shape: [Mixup(0.2)],
}
_CROPS = ("light", "strong", "crop-mirror", "resized-crop", "mirror")
POLICIES = ("none", *_STEPS)


def policy(name: str, image_shape: Shape) -> Transform | None:
    """Augmentation of photographs by name; several names are joined by "+".

    * ``"none"``: nothing.
    * ``"crop-mirror"``, also called ``"light"``: random window of the image padded by an eighth of its
      side, mirrored half the time (4 pixels on 32x32: He et al. 2015 on CIFAR-10).
    * ``"strong"``: that, and turned, scaled and sheared.
    * ``"resized-crop"``: `RandomResizedCrop` to the same size, mirrored half the time (ImageNet).
    * ``"mirror"``: mirrored half the time.
    * ``"jitter"``: `ColorJitter` of brightness, contrast and saturation by 0.4.
    * ``"lighting"``: `PCALighting` with ImageNet's colours.
    * ``"cutout"``: `Cutout` of half the side, grey.
    * ``"mixup"``: `Mixup` with alpha 0.2.

    Whatever their order in `name`, crops come first, then colours, cutout and mixup.

    Args:
        name: For example ``"crop-mirror"`` or ``"resized-crop+jitter+mixup"``.
        image_shape: (H, W, C) of the images, which are uint8.

    Raises:
        ArgumentError: A name is unknown or comes twice, or two crops are named.

    Example:
        >>> policy("mirror+mixup", (32, 32, 3))
        Compose(steps=(RandomHorizontalFlip(p=0.5, alternate=False), Mixup(alpha=0.2)))
    """
    names = check_policy(name)
    steps = [step for key, make in _STEPS.items() if key in names for step in make(image_shape)]
    return Compose(steps) if steps else None


def check_policy(name: str) -> list[str]:
    """The names joined in `name`.

    Raises:
        ArgumentError: A name is unknown or comes twice, or two crops are named.
    """
    names = name.split("+")
    for part in names:
        if part not in POLICIES:
            raise ArgumentError(
                f"augmentation {part!r} is not known; there is {', '.join(POLICIES)}, and several joined by '+'"
            )
        if names.count(part) > 1:
            raise ArgumentError(f"augmentation {name!r}: {part!r} comes twice")
    crops = [part for part in names if part in _CROPS]
    if len(crops) > 1:
        raise ArgumentError(f"augmentation {name!r}: {crops[0]!r} and {crops[1]!r} exclude each other")
    return names
