"""What happened in each epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from pycnn.textfile import write_text

__all__ = ["History"]


class History:
    """One row an epoch: losses, metrics, rate, speed.

    Attributes:
        rows: A dict for each epoch: "epoch" (from 1), "loss", metrics, the same with "val_",
            "learning_rate", in float16 "loss_scale", "seconds", "images_per_second", "data_wait_percent".
        fingerprint: Of the weights after the last epoch; "" before.
    """

    def __init__(self, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self.fingerprint = ""

    def append(self, row: dict[str, Any]) -> None:
        """Add an epoch."""
        self.rows.append(dict(row))

    @property
    def columns(self) -> list[str]:
        """Names of all values, in the order of their first appearance."""
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> list[Any]:
        """One value over the epochs, None where it is absent.

        Raises:
            KeyError: No epoch has it.
        """
        if name not in self.columns:
            raise KeyError(name)
        return [row.get(name) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Lists over the epochs by name, and the fingerprint."""
        values: dict[str, Any] = {name: self[name] for name in self.columns}
        return {**values, "fingerprint": self.fingerprint}

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Give the table as CSV text, and write it when a path is given.

        Raises:
            FileError: The file cannot be written; an older one is intact.
        """
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        text = out.getvalue()
        if path is not None:
            write_text(path, text)
        return text

    def plot(self, path: str | PathLike[str] | None = None, *, title: str = "Training") -> Figure:
        """Draw loss, accuracy and learning rate against the epochs.

        Args:
            path: Write the picture here too; the ending says the format (".png", ".svg", ".pdf").
            title: Above the picture.

        Returns:
            A matplotlib figure.

        Raises:
            ArgumentError: There is no epoch.
            UnsupportedError: matplotlib is not installed.
            OSError: The file cannot be written.

        Example:
            >>> row = {"epoch": 1, "loss": 0.5, "val_loss": 0.6, "accuracy": 0.8, "learning_rate": 0.1}
            >>> len(History([row]).plot().axes)
            3
        """
        from pycnn.train.curves import draw_curves

        return draw_curves(self, path, title=title)

    def __repr__(self) -> str:
        """Show how many epochs there are and the last one."""
        if not self.rows:
            return "<History: no epoch>"
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.rows[-1].items()
        )
        return f"<History: {len(self.rows)} epochs; {shown}>"
