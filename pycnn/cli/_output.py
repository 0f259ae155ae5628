"""Where the commands write: results to standard output, the rest to standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pycnn.dist._environment import place
from pycnn.errors import FileError

__all__ = ["Output", "plain"]


def plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts as JSON has them; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Output:
    """The two streams of one command.

    Args:
        command: Its name.
        json: Results are one line of JSON.
        quiet: Standard error stays empty, but for warnings and errors.
    """

    def __init__(self, command: str, *, json: bool, quiet: bool) -> None:
        #: What the JSON is a form of; usually the command.
        self.form = command
        self.json = json
        #: Whether to write at all: of several processes (`pycnn.dist`) only the first does.
        self.is_main = place().rank == 0
        self.quiet = quiet or not self.is_main

    def record(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What `result` writes as JSON, with the name and version of its form."""
        return {"schema": f"pycnn.{self.form}/1", **plain(values)}

    def result(self, values: Mapping[str, Any], text: str) -> None:
        """Write the result: the values as one line of JSON, or the text."""
        if not self.is_main:
            return
        try:
            print(json.dumps(self.record(values), allow_nan=False) if self.json else text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise FileError(error.errno, error.strerror, "standard output") from None

    def progress(self, text: str) -> None:
        """Say what is going on."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Say what the user should know, quiet or not."""
        if not self.is_main:
            return
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def suggest(self, text: str) -> None:
        """Name the command to try next; the last line of every command."""
        self.progress(f"next: {text}")
