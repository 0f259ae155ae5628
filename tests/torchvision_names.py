"""Names and shapes of the weights in torchvision 0.29.1, kept as a digest for each net.

The rule: of the state dict without `num_batches_tracked`, one line "name shape" for each tensor, such as
"features.0.weight (64, 3, 11, 11)", sorted and joined by newlines; the first 16 hexadecimal digits of its SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Golden(NamedTuple):
    tensors: int
    parameters: int
    digest: str


def describe(shapes):
    """The text of the rule, from shapes by name."""
    lines = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if not name.endswith("num_batches_tracked")]
    return "\n".join(sorted(lines))


def digest(shapes):
    return hashlib.sha256(describe(shapes).encode()).hexdigest()[:16]


GOLDEN = {}
