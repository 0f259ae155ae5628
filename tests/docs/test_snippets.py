"""Every page's Python and commands run, its pictures are drawn, its C++ is that of sources which other tests build."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))
try:
    import snippets
finally:
    sys.path.pop(0)

PAGES = [path.relative_to(ROOT).as_posix() for path in snippets.page_files(ROOT)]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_from_top_to_bottom(page, tmp_path):
    run = snippets.Snippets(page, tmp_path)
    found = snippets.blocks(text_of(page), page)
    for block in found:
        if block.kind == "excerpt":
            assert snippets.excerpt_of(block, ROOT), (
                f"{page}:{block.line}: no example or source holds this:\n{block.text}"
            )
        else:
            run.run(block)
    for name, _ in snippets.PICTURE.findall(text_of(page)):
        assert_shows_something(tmp_path / name)


def assert_shows_something(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64)
    assert min(pixels.shape[:2]) > 150, path
    # A picture that is nearly all background would be a mistake.
    assert pixels.std() > 5, path
    # Nothing is cut off: a frame of background all around.
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert np.ptp(edge) == 0, f"{path}: something reaches the edge"


def test_what_is_not_run_says_why(capsys):
    kinds = Counter()
    lines = []
    for page in PAGES:
        for block in snippets.blocks(text_of(page), page):
            kinds[block.kind] += 1
            if "not run" in block.kind:
                lines.append(f"{page}:{block.line}: {block.kind}: {block.value}")
                assert len(block.value.split()) >= 4, f"{lines[-1]}: that is no reason"
    with capsys.disabled():
        print(f"\nblocks of the pages: {dict(kinds)}", *lines, sep="\n  ")
    assert kinds["run"] > 100
    assert kinds["not run"] + kinds["checked, not run"] < 0.25 * kinds["run"]


def test_mistakes_of_a_page_are_noticed(tmp_path):
    def of(text: str) -> list[snippets.Block]:
        return snippets.blocks(text, "page.md")

    run = snippets.Snippets("page.md", tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        run.run(of("one\n\n```python\n\n1 / 0\n```\n")[0])
    assert caught.traceback[-1].lineno == 4  # the page's fifth line, counted from 0
    with pytest.raises(ValueError, match=r"page.md:2: .*summary nonsense gave [12]"):
        run.run(of("```console\n$ pycnn summary nonsense\n```\n")[0])
    with pytest.raises(ValueError, match="is not run here"):
        run.run(of("```sh\ncmake -S .\n```\n")[0])
    with pytest.raises(ValueError, match="is no command"):
        run.run(of("```console\nsome output\n```\n")[0])
    with pytest.raises(ValueError, match="--epoch"):
        run.run(of("<!-- checked, not run: no data here -->\n```sh\npycnn train --epoch 3\n```\n")[0])
    with pytest.raises(ValueError, match="indented or not closed"):
        of("- a\n\n  ```python\n  1 / 0\n  ```\n")
    with pytest.raises(ValueError, match="what is 'never run: x'"):
        of("<!-- never run: x -->\n```python\n1 / 0\n```\n")
    assert snippets.excerpt_of(of("```cpp\nint no_such_thing = 1;\n```\n")[0], ROOT) is None


def test_files_named_in_the_guide_to_ops_exist():
    import re

    for name in re.findall(r"`((?:csrc|tests|pycnn|tools)/[\w./]+\.\w+)`", text_of("docs/guides/write-an-op.md")):
        assert (ROOT / name).is_file(), name
