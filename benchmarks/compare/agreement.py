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


def disagreement(found: Result, expected: Result, dtype: str) -> str:
    """What is wrong with a result, "" where nothing is.

    Args:
        found: Of a candidate.
        expected: Of the reference.
        dtype: "float32" or "bfloat16", which sets the tolerances.
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
        apart = float(np.linalg.norm(found.updates[name] - update) / max(np.linalg.norm(update), 1e-30))
        wrong = _too_far(f"update of {name}", apart, UPDATES[dtype])
        if wrong:
            return wrong
    return ""


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def _too_far(what: str, apart: float, allowed: float) -> str:
    # NaN is too far as well.
    return "" if apart <= allowed else f"{what}: off by {apart:.2g}, allowed {allowed:g}"
