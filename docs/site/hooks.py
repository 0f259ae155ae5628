"""What mkdocs does with the pages of pycnn: it runs their snippets and shows what came out.

`PYCNN_SITE_RUN=0` leaves that out, for a quick look at the text: then there is no output and there are no pictures.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parent))
from snippets import PICTURE, Snippets, blocks

ROOT = Path(__file__).resolve().parents[2]
#: Pages that lie outside of docs/, by their place in the site.
ELSEWHERE = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "benchmarks.md": "benchmarks/README.md",
}
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_SECTION = re.compile(r"^<!-- README: (.+) -->$", re.M)
_SHOWN_LINES = 30


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for place, source in ELSEWHERE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put output and pictures where they belong, and links to where the site has the files."""
    place = page.file.src_uri
    markdown = _SECTION.sub(_section_of_readme, markdown)
    if place not in ELSEWHERE and not place.startswith("reference/") and os.environ.get("PYCNN_SITE_RUN", "1") != "0":
        markdown = _with_output(markdown, place, config, files)
    return _with_links(markdown, place, files)


def _section_of_readme(match: re.Match[str]) -> str:
    """A section of the README, which the start page shows instead of repeating it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(match[1])}\n.*?(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise PluginError(f"README.md has no section '{match[1]}'")
    return _LINK.sub(lambda link: link[0] if "://" in link[2] else f"{link[1]}../{link[2]}{link[3]}", found[0]).rstrip()


def _with_output(text: str, place: str, config: MkDocsConfig, files: Files) -> str:
    from pycnn.config import manual_seed

    manual_seed(0)
    parts, last = [], 0
    with tempfile.TemporaryDirectory() as folder:
        snippets = Snippets(f"docs/{place}", Path(folder))
        for block in blocks(text, place):
            try:
                output = snippets.run(block)
            except Exception as error:
                raise PluginError(f"docs/{place}:{block.line}: {type(error).__name__}: {error}") from error
            parts += [text[last : block.end], _output(output)]
            last = block.end
        markdown = "".join([*parts, text[last:]])

        def shown(match: re.Match[str]) -> str:
            source = Path(folder) / match[1]
            if not source.is_file():
                raise PluginError(f"docs/{place}: no block writes the picture '{match[1]}'")
            target = f"pictures/{posixpath.splitext(place)[0].replace('/', '-')}-{match[1]}"
            files.append(File.generated(config, target, content=source.read_bytes()))
            link = posixpath.relpath(target, posixpath.dirname(place) or ".")
            return f"![{match[2]}]({link})\n/// caption\n{match[2]}\n///"

        return PICTURE.sub(shown, markdown)


def _output(text: str) -> str:
    """A block with the output, folded where it is long."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    if not lines:
        return ""
    body = "\n".join(["```{.text .no-copy .output}", *lines, "```"])
    if len(lines) <= _SHOWN_LINES:
        return f"\n\n{body}\n"
    indented = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f'\n\n??? quote "Output: {len(lines)} lines"\n\n{indented}\n'


def _with_links(text: str, place: str, files: Files) -> str:
    """Point links between the repository's files to the pages made of them."""
    here = "docs/" + place if place not in ELSEWHERE else ELSEWHERE[place]
    places = {source: target for target, source in ELSEWHERE.items()}

    def moved(match: re.Match[str]) -> str:
        link = match[2]
        if "://" in link or link.startswith("mailto:"):
            return match[0]
        source = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        if source == "README.md":
            target = "index.md"
        elif source in places:
            target = places[source]
        elif source.startswith("docs/"):
            target = source.removeprefix("docs/")
        else:
            raise PluginError(f"{here}: '{link}' leads out of the site")
        return match[1] + posixpath.relpath(target, posixpath.dirname(place) or ".") + match[3]

    return _LINK.sub(moved, text)


def on_startup(**_: Any) -> None:
    """Import the installed package before mkdocstrings sees the sources; keep measurements out of the user's cache."""
    importlib.import_module("pycnn.models")
    os.environ.setdefault("PYCNN_CACHE", tempfile.mkdtemp(prefix="pycnn-site-"))
