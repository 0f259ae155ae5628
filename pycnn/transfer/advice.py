"""What to do with little or a lot of data, similar to that of the encoder or not: the 2x2 table as a function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pycnn.arguments import as_float, as_integer
from pycnn.errors import ArgumentError

__all__ = ["LITTLE_PER_CLASS", "SIMILAR_FROM", "TOO_FEW_PER_CLASS", "Advice", "advise"]

#: With fewer images of a class than this, nothing can be told: held-out images would be a handful.
TOO_FEW_PER_CLASS = 10
#: Fewer images of a class are "very little data", more are "quite a lot".
LITTLE_PER_CLASS = 100
#: From this similarity on (0..1) the data set counts as similar.
SIMILAR_FROM = 0.5

Similarity = Literal["similar", "different"]


@dataclass(frozen=True)
class Advice:
    """What `advise` recommends.

    Attributes:
        strategy: "linear-top", "linear-stages", "finetune-few" or "finetune-more": a name of `compare`.
        reason: One or two sentences.
        little_data: Which row of the table it was.
        similar: Which column.
        confident: False where there is too little data to tell, or where a number lies near the border of two cells.
    """

    strategy: str
    reason: str
    little_data: bool
    similar: bool
    confident: bool

    def __str__(self) -> str:
        """The strategy and why."""
        return f"{self.strategy}: {self.reason}"


def advise(n_images: int, n_classes: int, similarity: Similarity | float) -> Advice:
    """Recommend how to use a trained net for a new data set.

    ====================  ===================================  ====================================
    (the lecture's)       very similar data set                very different data set
    ====================  ===================================  ====================================
    very little data      linear classifier on the top layer   linear classifier on several stages
    quite a lot of data   fine-tune a few layers               fine-tune a larger number of layers
    ====================  ===================================  ====================================

    "Very little" is fewer than `LITTLE_PER_CLASS` (100) images of each class on average. The number is a convention,
    not a law; it lies where it does because with 122 photographs of a class, augmented, fine-tuning a small net with
    batch norms did better than a linear classifier (benchmarks/README.md). Between half and twice of it, and with a
    similarity within 0.1 of the border, the advice says that it is not confident; below
    `TOO_FEW_PER_CLASS` (10) images of a class it says that there is too little data to tell.

    "A larger number" is the part "more" of `finetune`: all layers where freezing the lower ones would withhold few of
    the weights, as in most nets. That rule was written after a table had been seen in which all layers did best; its
    argument does not use the table.

    Args:
        n_images: Labelled images to learn from.
        n_classes: Classes, at least 2.
        similarity: "similar", "different", or a number from 0 to 1, where `SIMILAR_FROM` and more is similar (see
            `survey`, which estimates it).

    Returns:
        The strategy with its reason.

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> advise(n_images=60, n_classes=2, similarity="different").strategy
        'linear-stages'
        >>> advise(n_images=100_000, n_classes=20, similarity="similar").strategy
        'finetune-few'
    """
    who = "advise"
    images = as_integer(n_images, who=who, name="n_images", low=1)
    classes = as_integer(n_classes, who=who, name="n_classes", low=2)
    if isinstance(similarity, str):
        if similarity not in ("similar", "different"):
            raise ArgumentError(f"{who}: similarity must be 'similar', 'different' or in 0..1, got {similarity!r}")
        share, sure = float(similarity == "similar"), True
    else:
        share = as_float(similarity, who=who, name="similarity")
        if not 0.0 <= share <= 1.0:
            raise ArgumentError(f"{who}: similarity must be 'similar', 'different' or in 0..1, got {similarity!r}")
        sure = abs(share - SIMILAR_FROM) >= 0.1
    each = images // classes
    little, similar = each < LITTLE_PER_CLASS, share >= SIMILAR_FROM
    amount = f"({each:,} images of a class)"
    if little and similar:
        strategy = "linear-top"
        reason = f"little data {amount} like the encoder's: its top features fit, and more weights could not be learnt."
    elif little:
        strategy = "linear-stages"
        reason = (
            f"little data {amount} unlike the encoder's: its top layer is too special, earlier stages are more "
            "general, and a linear classifier has few weights to learn."
        )
    elif similar:
        strategy = "finetune-few"
        reason = f"a lot of data {amount} like the encoder's: lower layers fit as they are, the last ones can adapt."
    else:
        strategy = "finetune-more"
        reason = f"a lot of data {amount} unlike the encoder's: enough to adapt a larger number of layers."
    near = LITTLE_PER_CLASS / 2 <= each < LITTLE_PER_CLASS * 2
    if each < TOO_FEW_PER_CLASS:
        reason = f"too little data to tell {amount}; a linear classifier risks least. " + reason[0].upper() + reason[1:]
    elif near or not sure:
        reason += " This lies near the border of two cells: compare the neighbours."
    return Advice(strategy, reason, little, similar, sure and not near and each >= TOO_FEW_PER_CLASS)
