"""Pictures, and the page that gathers them."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import pycnn as pc
from pycnn import inspect, nn
from pycnn.inspect import plots

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def page():
    _, test = pc.data.digits(seed=0)
    net = pc.models.lenet5(activation="relu")
    part = pc.data.subset(test, np.arange(40))
    names = ["<zero> & co", *"123456789"]
    images = test.images[:1]
    return inspect.report(
        net,
        images,
        image_names=["a<b>.png"],
        class_names=names,
        data=part,
        notes=["1 < 2"],
        title="Net & page",
    )


def test_page_is_well_formed_escaped_and_whole(page):
    text = page.to_html()
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert root.find("head/title").text == "Net & page"
    sources = [element.get("src") for element in root.iter("img")]
    assert len(sources) == len(page.pictures) >= 10
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    # Nothing is fetched from anywhere.
    assert not [e for e in root.iter() if e.tag in ("script", "link", "iframe") or e.get("href")]
    assert "url(" not in text
    assert any("a<b>.png" in heading.text for heading in root.iter("h2"))
    assert root.find("body/table") is not None
    for source, picture in zip(sources, page.pictures, strict=True):
        data = base64.b64decode(source.partition(",")[2])
        assert data == picture.png
        width, height = Image.open(io.BytesIO(data)).size
        assert 400 <= width <= 1800, picture.name
        assert 200 <= height <= 2400, picture.name


def test_page_has_every_kind_of_picture(page):
    names = {picture.name for picture in page.pictures}
    assert {
        *("attention-0", "maps-0-activation", "maps-0-activation-1", "inverted-0", "receptive-fields"),
        *("filters-conv1", "filters-conv2", "class-inputs", "confusion", "mistakes", "patches-activation-1"),
    } <= names


def test_pictures_are_written_as_files(page, tmp_path):
    paths = page.save_pictures(tmp_path / "new" / "folder")
    assert [path.read_bytes() for path in paths] == [picture.png for picture in page.pictures]
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.to_html()


def test_nothing_is_cut_off_at_the_border(page):
    """The outermost pixels of every picture are blank: no label reaches over the border."""
    for picture in page.pictures:
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("L"))
        edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edges == 255).all(), picture.name


def test_names_that_do_not_match_are_refused():
    net, x = pc.models.lenet5(), np.zeros((1, 28, 28, 1), np.uint8)
    with pytest.raises(pc.ArgumentError, match="2 image_names.*1"):
        inspect.report(net, x, image_names=["a", "b"])
    with pytest.raises(pc.ArgumentError, match="3 class_names.*10"):
        inspect.report(net, x, class_names=["a", "b", "c"])
    with pytest.raises(pc.ArgumentError, match="channels"):
        inspect.report(nn.Sequential(nn.Conv2d(2, 1, 3)), np.zeros((1, 5, 5, 2), np.uint8))


def test_a_confusion_matrix_of_many_classes_can_be_drawn():
    matrix = np.eye(70, dtype=np.int64)
    data = plots.png(plots.plot_confusion(matrix, [f"class {i}" for i in range(70)], "many"))
    assert Image.open(io.BytesIO(data)).size[0] <= 2000


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(pc.UnsupportedError, match=r"pycnn\[plot\]"):
        plots.plot_filters(np.zeros((1, 3, 3, 1)), "filters")


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, pycnn, pycnn.inspect; assert not {'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
