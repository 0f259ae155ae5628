"""Depth gain: how much better a net's top layer tells classes apart than the stages below it.

The top layer is made for the classes that the net was trained on. On images of that kind it is far better than the
stages below it; on others it need not be. What going up the net gains on new images, as a part of what it gained on
the encoder's own kind of images, is therefore a measure of how alike the two are, and needs no threshold that was set
on the new data. Accuracies count from chance, so that data sets with few and with many classes compare. A hard data
set is not taken for an unlike one: there all layers do badly, but the top one still best.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pycnn.errors import FormatError
from pycnn.nn.heads import head_names
from pycnn.nn.module import Module

__all__ = ["HOME_GAIN", "DepthGain", "depth_gain", "home_gain", "home_gain_text", "standard_error"]

#: Entry of a file's metadata: the gain on the encoder's own kind of images (`record_home_gain`).
HOME_GAIN = "home_gain"

# A gain that is larger than so many of its errors is taken for one.
_ERRORS = 2.0


@dataclass(frozen=True)
class DepthGain:
    """What the top layer gains over the best stage below it.

    Attributes:
        value: Difference of the accuracies of linear classifiers, each counted as (accuracy - chance) / (1 - chance):
            at most 1; 0 or less where depth brings nothing.
        error: Its standard error, as if the two accuracies were independent; as they are of the same images it is
            smaller in truth.
    """

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than two of its errors above 0."""
        return self.value > _ERRORS * self.error

    def similarity(self, home: float | None) -> DepthGain:
        """Relate the gain to that on the encoder's own images: about 1 for images like those, 0 and less for others.

        Args:
            home: The gain there; None where it is not known. Then the unit is four of the errors, so that what is
                more than two of them above 0 counts as similar (0.5 and more).
        """
        unit = 2 * _ERRORS * self.error if home is None else home
        return DepthGain(self.value / unit, self.error / unit)


def standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy; never 0, since a perfect score on few images is no proof."""
    return math.sqrt(max(accuracy * (1 - accuracy), 1.0 / (images + 2)) / images)


def depth_gain(accuracies: Sequence[float], chance: float, images: int) -> DepthGain | None:
    """Compute the gain from accuracies of linear classifiers.

    Args:
        accuracies: On one stage each, from the bottom up, the top layer last; 0..1.
        chance: Accuracy without any features, 0 up to but not including 1.
        images: That each accuracy was measured on.

    Returns:
        The gain; None where there are not two layers to compare.
    """
    if len(accuracies) < 2:
        return None
    top, below = accuracies[-1], max(accuracies[:-1])
    error = math.hypot(standard_error(top, images), standard_error(below, images))
    return DepthGain((top - below) / (1 - chance), error / (1 - chance))


def home_gain_text(
    net: Module, gain: DepthGain, layers: Sequence[str] | None, images: int, input_shape: Sequence[int]
) -> str:
    """Make the entry of the metadata."""
    entry = {
        "gain": round(gain.value, 4),
        "error": round(gain.error, 4),
        "images": images,
        "layers": None if layers is None else list(layers),
        "weights": _digest(net, input_shape),
    }
    return json.dumps(entry)


def home_gain(net: Module, layers: Sequence[str] | None, input_shape: Sequence[int] | None = None) -> float | None:
    """The gain on the encoder's own images that a net's file knows, above 0.

    Args:
        net: As `load` or `default_encoder` give it.
        layers: Those that are looked at, from the bottom up; None for the ends of the net's stages.
        input_shape: (H, W, C); default: what the net was made for or called with last.

    Returns:
        The gain; None where it is not known, or only for other layers, or of the net before it was trained further.

    Raises:
        FormatError: The entry is not what `record_home_gain` writes.
    """
    metadata = getattr(net, "metadata", None)
    text = metadata.get(HOME_GAIN) if isinstance(metadata, dict) else None
    if text is None:
        return None
    try:
        entry = json.loads(text)
        gain, names, weights = float(entry["gain"]), entry["layers"], entry["weights"]
        named = None if names is None else [str(name) for name in names]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"metadata '{HOME_GAIN}' is damaged ({type(error).__name__}: {error})") from None
    if not 0.0 < gain <= 1.0:
        raise FormatError(f"metadata '{HOME_GAIN}': the gain is {gain}, expected above 0 and at most 1")
    if named != (None if layers is None else list(layers)) or weights != _digest(net, input_shape):
        return None
    return gain


def _digest(net: Module, input_shape: Sequence[int] | None) -> str:
    """A digest of the weights below the head: metadata outlive further training, what was measured does not."""
    head = head_names(net, input_shape)
    state = net.state_dict()
    digest = hashlib.sha256()
    for name in sorted(name for name, _ in net.named_parameters() if name not in head):
        digest.update(f"{name} {state[name].shape} ".encode())
        digest.update(state[name].tobytes())
    return digest.hexdigest()
