"""Event files for TensorBoard, written by tensorboardX."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from pycnn.arguments import as_path
from pycnn.errors import ArgumentError
from pycnn.optional import optional
from pycnn.train._files import make_directory
from pycnn.train._ranks import is_main
from pycnn.train.callbacks import Callback

if TYPE_CHECKING:
    from pycnn.train.trainer import Trainer

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Write losses, metrics, learning rate and speed as TensorBoard scalars.

    Per epoch (the step is the number of training steps so far): "loss/train", "loss/held_out", "accuracy/train",
    "accuracy/held_out" and so on for other metrics, "learning_rate", in float16 "loss_scale", "images_per_second". Per
    `every` steps: "loss/step" and "learning_rate/step". A resumed training adds a file, which hides what an interrupted
    epoch left.

    Args:
        directory: For the event files; ``tensorboard --logdir DIRECTORY`` shows them.
        every: Steps between two values of "loss/step"; 0 writes none.

    Raises:
        ArgumentError: `every` is negative or no integer.
        UnsupportedError: tensorboardX is not installed.

    Example:
        >>> callback = TensorBoard("runs/first")  # doctest: +SKIP
        >>> trainer.fit(train, epochs=3, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, directory: str | PathLike[str], *, every: int = 50) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 0:
            raise ArgumentError(f"TensorBoard: every must be an integer of at least 0, got {every!r}")
        self.directory = as_path(directory, who="TensorBoard")
        self.every = every
        self._library = optional("tensorboardX", extra="tensorboard", who="TensorBoard")
        self._writer: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Open the file."""
        if not is_main():
            return
        make_directory(self.directory, who="TensorBoard")
        # The name holds the second only: with the step, a quick resumption does not overwrite what it goes on from.
        more = {"purge_step": trainer.steps, "filename_suffix": f".{trainer.steps}"} if trainer.steps else {}
        self._writer = self._library.SummaryWriter(str(self.directory), **more)

    def on_step_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Write the loss of some steps."""
        if self._writer is not None and self.every and trainer.steps % self.every == 0:
            self._writer.add_scalar("loss/step", logs["loss"], trainer.steps)
            self._writer.add_scalar("learning_rate/step", trainer.rate, trainer.steps)

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, Any]) -> None:
        """Write an epoch, and see that it is on the disk."""
        if self._writer is None:  # of several ranks only rank 0 has one
            return
        for name, value in logs.items():
            if name in ("epoch", "seconds", "data_wait_percent"):
                continue
            self._writer.add_scalar(_tag(name), value, trainer.steps)
        self._writer.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; `fit` does it at its end, but not after an error."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str) -> str:
    if name in ("learning_rate", "loss_scale", "images_per_second"):
        return name
    return f"{name.removeprefix('val_')}/{'held_out' if name.startswith('val_') else 'train'}"
