"""The status line while training: on a terminal only, at most ten times a second."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Shows an epoch on stderr: a bar on a terminal, and one line when it has ended."""

    def __init__(self, *, enabled: bool, epochs: int) -> None:
        self._enabled = enabled
        self._epochs = epochs
        self._bar: Any = None
        self._is_terminal = enabled and sys.stderr is not None and sys.stderr.isatty()
        self._shown = 0.0

    def begin(self, epoch: int, images: int, done: int) -> None:
        """Start the bar of an epoch (counted from 0)."""
        if not self._is_terminal:
            return
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[misc]
            monitor_interval = 0  # no thread of its own

        self._bar = Bar(
            total=images,
            initial=done,
            desc=f"epoch {epoch + 1}/{self._epochs}",
            unit=" images",
            mininterval=0.1,
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
        )

    def step(self, images: int, loss: float, wait_percent: float) -> None:
        """Note a step."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._shown >= 0.1:
            self._shown = now
            self._bar.set_postfix_str(f"loss {loss:.4f}, data wait {wait_percent:.0f}%", False)
        self._bar.update(images)

    def end(self, row: dict[str, Any] | None) -> None:
        """End the bar; print the epoch's line unless it was broken off."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._enabled and row is not None:
            self.say(_line(row, self._epochs))

    def say(self, text: str) -> None:
        """Print a line on stderr, if progress is wanted."""
        if self._enabled and sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def _line(row: dict[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for key, value in row.items():
        if key in ("epoch", "seconds", "images_per_second", "data_wait_percent"):
            continue
        if key == "learning_rate":
            parts.append(f"rate {value:.3g}")
        elif key == "loss_scale":
            parts.append(f"scale {value:g}")
        else:
            parts.append(f"{key} {value:.4f}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    parts.append(f"data wait {row['data_wait_percent']:.0f}%")
    parts.append(f"{row['seconds']:.1f} s")
    return "  ".join(parts)
