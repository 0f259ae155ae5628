"""Pictures of what the other functions compute; each returns a matplotlib figure, and `png` its bytes.

Matplotlib is imported when the first picture is drawn, and without a display (Agg).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn.errors import UnsupportedError
from pycnn.inspect.mistakes import Mistakes
from pycnn.nn.receptive_field import ReceptiveField

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_confusion",
    "plot_feature_maps",
    "plot_filters",
    "plot_heat_maps",
    "plot_images",
    "plot_mistakes",
    "plot_receptive_fields",
    "png",
]

_DPI = 110


def _figure(width: float, height: float) -> Any:
    """An empty figure of a size in inches.

    Raises:
        UnsupportedError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedError(
            "inspect: pictures need matplotlib, which is not installed\n"
            "  hint: pip install 'pycnn[plot]' or pip install matplotlib"
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The bytes of a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _show(axes: Any, image: np.ndarray, **place: Any) -> None:
    """Draw an image (H, W, 1 or 3), uint8 or 0..1, as it looks."""
    pixels = image if image.dtype == np.uint8 else np.clip(image, 0, 1)
    if pixels.shape[2] == 3:
        axes.imshow(pixels, interpolation="nearest", **place)
    else:
        top = 255 if image.dtype == np.uint8 else 1
        axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=top, interpolation="nearest", **place)


class _Tiles:
    """A figure with a grid of small pictures and captions in one pair of axes, in inches.

    One pair of axes for each picture would look the same and take matplotlib ten times as long.

    Args:
        count: Number of pictures.
        title: Above all.
        shape: (height, width) of the pictures in pixels.
        tile: Longer side of a picture in inches.
        caption_lines: Lines above each picture.
    """

    def __init__(self, count: int, title: str, shape: Sequence[int], tile: float, caption_lines: int) -> None:
        longer = max(shape[0], shape[1])
        self.height, self.width = tile * shape[0] / longer, tile * shape[1] / longer
        self.columns = min(count, 8, math.ceil(math.sqrt(2 * count)))
        self.step_y = self.height + 0.08 + 0.15 * caption_lines
        self.step_x = max(self.width, tile) + 0.1
        rows = math.ceil(count / self.columns)
        wide, high = self.columns * self.step_x, rows * self.step_y
        self.figure = _figure(max(wide + 1.2, 5.0), high + 0.4 + 0.2 * (title.count("\n") + 1))
        self.figure.suptitle(title, fontsize=11)
        self.axes = self.figure.subplots()
        self.limits = (0.0, wide, high, 0.0)

    def place(self, index: int, caption: str) -> tuple[float, float, float, float]:
        """Write a caption; the (left, right, bottom, top) of its picture."""
        row, column = divmod(index, self.columns)
        left = column * self.step_x + (self.step_x - self.width) / 2
        bottom = (row + 1) * self.step_y - 0.04
        top = bottom - self.height
        self.axes.text(left + self.width / 2, top - 0.03, caption, ha="center", va="bottom", fontsize=8)
        return left, left + self.width, bottom, top

    def finish(self) -> None:
        """Show all of the grid and nothing else."""
        self.axes.set_xlim(*self.limits[:2])
        self.axes.set_ylim(*self.limits[2:])
        self.axes.set_aspect("equal")
        self.axes.set_axis_off()


def plot_feature_maps(maps: np.ndarray, title: str, *, limit: int = 32) -> Figure:
    """Feature maps of one image as tiles with one colour scale.

    Args:
        maps: (H, W, C), one image of what `activations` gives.
        title: Above the picture.
        limit: At most so many channels, the first ones.
    """
    count = min(limit, maps.shape[2])
    more = f"first {count} of {maps.shape[2]} channels" if count < maps.shape[2] else f"{count} channels"
    tiles = _Tiles(count, f"{title}\n{more}, {maps.shape[0]} x {maps.shape[1]} positions", maps.shape, 1.15, 1)
    low, high = float(maps[:, :, :count].min()), float(maps[:, :, :count].max())
    drawn = None
    for channel in range(count):
        place = tiles.place(channel, str(channel))
        drawn = tiles.axes.imshow(maps[:, :, channel], vmin=low, vmax=high, interpolation="nearest", extent=place)
    tiles.finish()
    tiles.figure.colorbar(drawn, ax=tiles.axes, label="activation", shrink=0.8, aspect=30)
    return tiles.figure


def plot_filters(pictures: np.ndarray, title: str, *, captions: Sequence[str] | None = None) -> Figure:
    """Filters as tiles, weight 0 in middle grey.

    Args:
        pictures: (count, KH, KW, 1 or 3) in 0..1 as `filter_pictures` gives them.
        title: Above the picture.
        captions: Above each tile; default: its number.
    """
    return plot_images(pictures, title, captions or [str(i) for i in range(len(pictures))], tile=0.9)


def plot_images(images: np.ndarray, title: str, captions: Sequence[str], *, tile: float | None = None) -> Figure:
    """Images as tiles.

    Args:
        images: (count, H, W, 1 or 3), uint8 or 0..1.
        title: Above the picture.
        captions: Above each tile.
        tile: Longer side of a tile in inches. Default: 1.3, or 2.4 where there are many pixels.
    """
    if tile is None:
        tile = 2.4 if max(images.shape[1:3]) > _SMALL_IMAGE and len(images) <= _LARGE_TILES else 1.3
    lines = max(caption.count("\n") + 1 for caption in captions)
    tiles = _Tiles(len(images), title, images.shape[1:], tile, lines)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        _show(tiles.axes, image, extent=tiles.place(index, caption))
    tiles.finish()
    return tiles.figure


def plot_heat_maps(image: np.ndarray, maps: Sequence[tuple[str, np.ndarray, str, bool]], title: str) -> Figure:
    """An image, and maps beside it.

    Args:
        image: (H, W, 1 or 3), uint8 or 0..1.
        maps: For each its name, the map (H, W) or picture (H, W, C), the unit of its values, and whether it is laid
            over the image.
        title: Above the picture.
    """
    columns = min(3, len(maps) + 1)
    rows = math.ceil((len(maps) + 1) / columns)
    figure = _figure(3.5 * columns, 3.1 * rows + 0.5)
    figure.suptitle(title, fontsize=11)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    _show(grid[0], image)
    grid[0].set_title("image", fontsize=9)
    for axes, (name, values, unit, over) in zip(grid[1:], maps, strict=False):
        axes.set_title(name, fontsize=9)
        if values.ndim == 3:
            # Signed gradients: no gradient is middle grey.
            largest = float(np.percentile(np.abs(values), 99.5)) or 1.0
            _show(axes, 0.5 + values / (2 * largest))
            continue
        signed = float(values.min()) < 0
        largest = float(np.abs(values).max()) or 1.0
        colours: dict[str, Any] = {
            "cmap": "RdBu_r" if signed else ("turbo" if over else "magma"),
            "vmin": -largest if signed else 0,
            "vmax": largest,
            "interpolation": "nearest",
        }
        # The colour bar belongs to the opaque drawing; the one over the image lets it through where little is to say.
        drawn = axes.imshow(values, **colours)
        if over:
            _show(axes, image)
            axes.imshow(values, alpha=0.1 + 0.7 * np.abs(values) / largest, **colours)
        bar = figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85)
        bar.formatter.set_powerlimits((-3, 4))
    for axes in grid[: len(maps) + 1]:
        axes.tick_params(labelsize=7)
        axes.set_xlabel("pixels", fontsize=7)
    for axes in grid[len(maps) + 1 :]:
        axes.set_axis_off()
    return figure


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: rows are true classes, columns what the net says; coloured by the part of the row.

    Args:
        matrix: Counts (classes, classes) as `Predictions.confusion_matrix` gives them.
        class_names: One for each class.
        title: Above the picture.
    """
    classes = len(matrix)
    side = min(max(4.5, 0.55 * classes + 2), 16)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    parts = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label="part of the true class", shrink=0.8)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if classes <= _NAMED_CLASSES:
        turned = {"rotation": 45, "ha": "right"} if max(map(len, class_names)) > 3 else {}
        axes.set_xticks(range(classes), labels=list(class_names), fontsize=8, **turned)
        axes.set_yticks(range(classes), labels=list(class_names), fontsize=8)
    if classes <= _COUNTED_CLASSES:
        for row, column in np.argwhere(matrix > 0):
            dark = parts[row, column] > 0.5
            axes.text(
                *(column, row, f"{matrix[row, column]:,}"),
                **{"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"},
            )
    return figure


_SMALL_IMAGE = 64
_LARGE_TILES = 8
# Beyond this, names and counts would overlap.
_NAMED_CLASSES = 60
_COUNTED_CLASSES = 25


def plot_mistakes(images: np.ndarray, mistakes: Mistakes, class_names: Sequence[str], title: str) -> Figure:
    """Images that were taken for something else.

    Args:
        images: (count, H, W, C) of `mistakes.images`.
        mistakes: As `Predictions.mistakes` gives them.
        class_names: One for each class.
        title: Above the picture.
    """
    captions = [
        f"{_short(class_names[label])} taken for\n{_short(class_names[said])}, {100 * probability:.1f} %"
        for label, said, probability in zip(mistakes.labels, mistakes.predicted, mistakes.probability, strict=True)
    ]
    return plot_images(images, title, captions)


def _short(name: str, length: int = 16) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def plot_receptive_fields(
    image: np.ndarray, fields: Sequence[tuple[str, ReceptiveField | None, tuple[int, int]]], title: str
) -> Figure:
    """What units of layers see, as frames on the image.

    Args:
        image: (H, W, 1 or 3), uint8 or 0..1.
        fields: For each layer its name, its field (None: the whole image) and a unit (row, column).
        title: Above the picture.
    """
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    boxes = [(0, 0, height, width) if field is None else field.box(unit) for _, field, unit in fields]
    figure = _figure(6.0, 5.6 + 0.2 * len(fields))
    axes = figure.subplots()
    _show(axes, image)
    colours = ["tab:red", "tab:cyan", "tab:orange", "tab:green", "tab:purple", "tab:pink", "tab:olive"]
    for index, ((name, field, unit), (top, left, bottom, right)) in enumerate(zip(fields, boxes, strict=True)):
        seen = "the whole image"
        if field is not None:
            seen = f"{field.size[0]} x {field.size[1]} px, stride {field.stride[0]}"
        axes.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                linewidth=2,
                edgecolor=colours[index % len(colours)],
                label=f"layer {name}, unit {unit}: {seen}",
            )
        )
    # Fields reach into the padding: show it.
    axes.set_xlim(min([0, *(b[1] for b in boxes)]) - 1, max([width, *(b[3] for b in boxes)]))
    axes.set_ylim(max([height, *(b[2] for b in boxes)]), min([0, *(b[0] for b in boxes)]) - 1)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("column in pixels")
    axes.set_ylabel("row in pixels")
    figure.legend(loc="outside lower center", fontsize=8)
    return figure
