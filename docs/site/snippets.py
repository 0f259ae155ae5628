"""Runs what the pages show: Python and commands from top to bottom of a page, in a folder of their own.

The site puts the output under each block (`hooks.py`), and a test runs the same pages (`tests/docs`). A comment on the
line above a block changes what happens to it:

    <!-- not run: REASON -->            only shown
    <!-- checked, not run: REASON -->   commands of pycnn whose options are looked at
    <!-- needs: MODULE -->              run where that module is installed
    <!-- file: NAME -->                 written as a file for the blocks below

and `<!-- picture: NAME | CAPTION -->` on a line of its own shows a picture that a block above has written.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PICTURE", "Block", "Snippets", "blocks", "commands", "excerpt_of", "page_files"]

_FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_MARK = re.compile(r"(?P<kind>not run|checked, not run|needs|file): (?P<value>\S.*)")
#: Groups: the file's name, and the words under the picture.
PICTURE = re.compile(r"^<!-- picture: (\S+) \| ([^\n]+) -->$", re.M)
_SHELLS = ("console", "sh", "bash")
_SOURCES = {"cpp": ("*.cpp", "*.h"), "c": ("*.c", "*.h"), "cmake": ("CMakeLists.txt",)}
_BUILT = ("examples", "csrc")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: Behind the opening fence.
        text: Between the fences.
        line: Number of its first line in the page, from 1.
        end: Place behind the closing fence in the page's text.
        kind: "run", "excerpt", "shown" (no code), or what a comment asks for: "not run", "checked, not run", "file".
        value: The reason or the file's name.
    """

    language: str
    text: str
    line: int
    end: int
    kind: str
    value: str


def blocks(page: str, name: str) -> list[Block]:
    """The fenced blocks of a page.

    Args:
        page: Its text.
        name: Of the page, for errors.

    Raises:
        ValueError: A fence is indented or not closed, or a comment above a block is not understood.
    """
    found = []
    for match in _FENCE.finditer(page):
        language, text, mark = match["language"], match["text"], match["mark"]
        line = page.count("\n", 0, match.start("text")) + 1
        kind, value = "shown", ""
        if language in ("python", *_SHELLS):
            kind = "run"
        elif language in _SOURCES:
            kind = "excerpt"
        if mark is not None and not mark.startswith("picture: "):
            said = _MARK.fullmatch(mark)
            if said is None:
                raise ValueError(f"{name}:{line - 2}: what is '{mark}'?")
            kind, value = said["kind"], said["value"]
            if kind == "needs":
                there = importlib.util.find_spec(value) is not None
                kind, value = ("run", "") if there else ("not run", f"{value} is not installed here")
        found.append(Block(language, text, line, match.end(), kind, value))
    fences = len(re.findall(r"^\s*```", page, re.M))
    if fences != 2 * len(found):
        raise ValueError(f"{name}: {fences} lines with fences, but {len(found)} blocks: one is indented or not closed")
    return found


def commands(block: Block, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and words of the commands of a block; lines that end in a backslash go on.

    Raises:
        ValueError: A line of a console is no command: its output is put there by the site.
    """
    joined, start = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        start = start or number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        text, first, joined, start = joined.strip(), start, "", 0
        if block.language == "console":
            if not text.startswith("$ "):
                raise ValueError(f"{name}:{first}: '{text}' in a console is no command")
            text = text.removeprefix("$ ")
        words = shlex.split(text, comments=True)
        if words:
            yield first, words


def excerpt_of(block: Block, root: Path) -> Path | None:
    """The file of the examples or the core, all of which are built by tests, that holds a block.

    Word for word, but for spaces and line breaks; parts between empty lines may stand apart.
    """
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", block.text.strip())]
    for folder in _BUILT:
        for pattern in _SOURCES[block.language]:
            for path in sorted((root / folder).rglob(pattern)):
                whole = " ".join(path.read_text(encoding="utf-8").split())
                if all(part in whole for part in parts):
                    return path
    return None


class Snippets:
    """Runs the blocks of one page, which share their names and a folder.

    Args:
        name: Of the page, for errors.
        folder: Current folder of the blocks.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.names: dict[str, object] = {"__name__": "page"}

    def run(self, block: Block) -> str:
        """Run a block, or write its file.

        Returns:
            What it wrote to standard output and standard error.

        Raises:
            ValueError: It is no command of pycnn, a command fails, or its options are wrong.
            Exception: Of the snippet.
        """
        written = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            if block.kind == "file":
                Path(block.value).write_text(block.text, encoding="utf-8")
            elif block.kind == "checked, not run":
                self._check(block)
            elif block.kind == "run" and block.language == "python":
                # Empty lines above, so that errors and origins of symbols name the page's own lines.
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, self.name, "exec"), self.names)
            elif block.kind == "run":
                for line, words in commands(block, self.name):
                    self._command(line, words, written)
        return written.getvalue()

    def _command(self, line: int, words: list[str], written: io.StringIO) -> None:
        from pycnn.cli import main

        if words[0] != "pycnn":
            raise ValueError(f"{self.name}:{line}: '{words[0]}' is not run here: say so above, with the reason")
        start = written.tell()
        code = main(words[1:])
        if code != 0:
            raise ValueError(f"{self.name}:{line}: {shlex.join(words)} gave {code}\n{written.getvalue()[start:]}")

    def _check(self, block: Block) -> None:
        from pycnn.cli import COMMANDS
        from pycnn.cli._options import UsageError, parse

        for line, words in commands(block, self.name):
            if words[0] != "pycnn" or words[1] not in COMMANDS:
                raise ValueError(f"{self.name}:{line}: '{shlex.join(words[:2])}' is no command of pycnn")
            command = importlib.import_module(f"pycnn.cli.{words[1].replace('-', '_')}")
            try:
                parse(command, words[1], COMMANDS[words[1]], words[2:])
            except UsageError as error:
                raise ValueError(f"{self.name}:{line}: {shlex.join(words)}: {error}") from error


def page_files(root: Path) -> list[Path]:
    """All pages whose blocks are run, of the repository at `root`."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
