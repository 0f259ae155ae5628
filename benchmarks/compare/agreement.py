"""Do candidates compute the same? The reference is PyTorch, eager and in float32."""

from __future__ import annotations

import numpy as np

from benchmarks.compare.peer import Result

# Scores: largest difference as a share of the largest score.
SCORES = {"float32": 1e-3, "bfloat16": 0.1}
# Loss: difference as a share of the loss, or of 1 where that is more.
LOSS = {"float32": 1e-4, "bfloat16": 0.05}
# Updates of a weight: norm of the difference as a share of the norm. In float32 ReLUs near zero that fall the other way
# change a gradient by some per cent; bfloat16 has 8 bits, and is only to go the same way.
UPDATES = {"float32": 0.05, "bfloat16": 0.5}
# In deep nets with batch norm and random weights bfloat16 turns the first layers' updates altogether: as far from
# float32 as PyTorch's autocast, and a little, is not wrong.
OF_YARDSTICK = 1.25


def disagreement(found: Result, expected: Result, dtype: str, yardstick: Result | None = None) -> str:
    """What is wrong with a result, "" where nothing is.

    Args:
        found: Of a candidate.
        expected: Of the reference.
        dtype: "float32" or "bfloat16", which sets the tolerances.
        yardstick: PyTorch's own result in that type: an update may be as far from the reference as its is.
    """
    if expected.scores is not None:
        if found.scores is None or found.scores.shape != expected.scores.shape:
            return f"scores are {None if found.scores is None else found.scores.shape}, not {expected.scores.shape}"
        return _too_far("scores", _distance(found.scores, expected.scores), SCORES[dtype])
    assert found.loss is not None and expected.loss is not None  # noqa: PT018
    apart = abs(found.loss - expected.loss) / max(1.0, abs(expected.loss))
    wrong = _too_far(f"loss {found.loss:.6g}, not {expected.loss:.6g}", apart, LOSS[dtype])
    if wrong:
        return wrong
    assert found.updates is not None and expected.updates is not None  # noqa: PT018
    for name, update in expected.updates.items():
        if found.updates[name].shape != update.shape:
            return f"update of {name} is {found.updates[name].shape}, not {update.shape}"
        allowed = UPDATES[dtype]
        if yardstick is not None and yardstick.updates is not None:
            allowed = max(allowed, OF_YARDSTICK * _share(yardstick.updates[name], update))
        wrong = _too_far(f"update of {name}", _share(found.updates[name], update), allowed)
        if wrong:
            return wrong
    return ""


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def _too_far(what: str, apart: float, allowed: float) -> str:
    # NaN is too far as well.
    return "" if apart <= allowed else f"{what}: off by {apart:.2g}, allowed {allowed:.2g}"
