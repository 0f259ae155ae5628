"""Everything about a net and some images in one HTML file that refers to nothing outside."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.arguments import as_path
from pycnn.errors import ArgumentError, FileError, ShapeError
from pycnn.inspect import plots
from pycnn.inspect._recording import as_images, spatial_layers
from pycnn.inspect.feature_maps import activations, receptive_field
from pycnn.inspect.gradients import default_cam_layer, grad_cam, guided_backpropagation, saliency
from pycnn.inspect.inverted_features import invert_features
from pycnn.inspect.learned_filters import filter_pictures, filters
from pycnn.inspect.mistakes import predictions
from pycnn.inspect.occlude import occlusion
from pycnn.inspect.preferred_inputs import maximize, top_patches
from pycnn.nn.module import Module, _unknown
from pycnn.program import check_device
from pycnn.textfile import write_text

__all__ = ["Picture", "Report", "report"]

_SHOWN_CLASSES = 10
_SHOWN_LARGE = 4
_SMALL_IMAGE = 64
_SHOWN_PATCH_CHANNELS = 6
_PATCHES = 8
_INVERTED = 4


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        section: Heading that it stands under.
        name: Short, for file names: letters, digits and dashes.
        caption: What it shows and how to read it.
        png: The file's bytes.
    """

    section: str
    name: str
    caption: str
    png: bytes


@dataclass
class Report:
    """Pictures and a table, to be written as one page or as files.

    Attributes:
        title: Of the page.
        notes: Lines under the title.
        table: HTML of the net's summary.
        pictures: In order.
    """

    title: str
    notes: list[str]
    table: str
    pictures: list[Picture] = field(default_factory=list)

    def to_html(self) -> str:
        """The page: well-formed, with all pictures inside."""
        parts = [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(self.title)}</h1>",
            *(f"<p>{escape(note)}</p>" for note in self.notes),
        ]
        section = None
        for picture in self.pictures:
            if picture.section != section:
                section = picture.section
                parts.append(f"<h2>{escape(section)}</h2>")
            data = base64.b64encode(picture.png).decode("ascii")
            caption = escape(picture.caption)
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"/>'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        return "\n".join([*parts, "<h2>Layers</h2>", self.table, "</body></html>\n"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page."""
        write_text(path, self.to_html())

    def save_pictures(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write each picture as a PNG file; the folder is made if need be.

        Raises:
            FileError: The system refused.
        """
        directory = as_path(folder, who="save_pictures")
        paths = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(self.pictures):
                paths.append(directory / f"{index:02d}-{picture.name}.png")
                paths[-1].write_bytes(picture.png)
        except OSError as error:
            raise FileError(error.errno, error.strerror, str(paths[-1] if paths else directory)) from None
        return paths


_STYLE = (
    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:1150px;padding:0 1em;color:#222}"
    "figure{margin:1em 0 2em}img{max-width:100%}figcaption{color:#555;font-size:13px}"
    "table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}"
    "td,th{padding:1px 8px;border-bottom:1px solid #ddd}caption{font-weight:bold;text-align:left;padding:6px 0}"
)


def report(
    net: Module,
    images: Any,
    *,
    image_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    classes: Any = None,
    data: Any = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Draw what can be seen of a net: filters, feature maps, what they keep, what it looks at and likes, where it errs.

    Args:
        net: A net that gives scores (N, classes).
        images: (N, H, W, C), float32 in 0..1, or uint8; grey or colour.
        image_names: One for each image.
        class_names: One for each class.
        layers: Feature maps to show. Default: an early, a middle and the last one.
        classes: A class for all images, or one for each, to explain. Default: the predicted ones.
        data: A data set, for the confusion matrix, the surest mistakes and the patches that channels like best.
        title: Of the page.
        notes: Lines under it.
        seed: Of the gradient ascent and descent.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        progress: Told what is being drawn.

    Raises:
        ArgumentError: There is no such layer, or the names do not match the images or classes.
        ShapeError: The net gives no scores, or has no feature map.
        UnsupportedError: Matplotlib is not installed.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn
        >>> _, test = pycnn.data.digits()
        >>> page = report(pycnn.models.lenet5(), test.images[:1])  # doctest: +SKIP
        >>> page.save("report.html")  # doctest: +SKIP
    """
    where = check_device(device, who="report")
    pixels = as_images(net, images, "report")
    if pixels.shape[3] not in (1, 3):
        raise ArgumentError(f"report: images have {pixels.shape[3]} channels, only grey and colour can be shown")
    shape = pixels.shape[1:]
    probabilities = net.predict_proba(pixels, device=where)
    named = _names(class_names, probabilities.shape[1], "class_names")
    titles = _names(image_names, len(pixels), "image_names", default="image ")
    maps = spatial_layers(net, shape)
    chosen = _default_layers(net, shape) if layers is None else list(layers)
    for layer in chosen:
        if layer not in maps:
            raise ArgumentError(f"report: {_unknown('feature map', layer, maps)}")
    page = Report(title or f"Inside {type(net).__name__}", list(notes), net.summary(shape, compact=True)._repr_html_())
    tell = progress or (lambda _text: None)
    drawing = _Drawing(net, pixels, named, titles, chosen, page, tell, where)
    drawing.images(probabilities, classes, seed)
    drawing.filters()
    drawing.favourites(seed)
    if data is not None:
        drawing.data(data)
    return page


def _names(given: Sequence[str] | None, count: int, what: str, default: str = "") -> list[str]:
    if given is None:
        return [f"{default}{index}" for index in range(count)]
    if len(given) != count:
        raise ArgumentError(f"report: {len(given)} {what}, but there are {count}")
    return [str(name) for name in given]


def _default_layers(net: Module, shape: tuple[int, ...]) -> list[str]:
    """An early, a middle and the last feature map behind a non-linearity, as far as there are such."""
    maps = spatial_layers(net, shape)
    if not maps:
        raise ShapeError(f"report: {type(net).__name__} has no feature map with more than one position")
    kinds = {row.layer: row.kind.lower() for row in net.summary(shape).rows}
    squashed = [name for name in maps if kinds.get(name, "").rstrip("6") in _NON_LINEAR]
    found = squashed or list(maps)
    return list(dict.fromkeys([found[0], found[len(found) // 2], found[-1]]))


_NON_LINEAR = (
    *("relu", "leaky_relu", "leakyrelu", "tanh", "scaled_tanh", "scaledtanh", "sigmoid"),
    *("basicblock", "bottleneck", "inception"),
)


@dataclass
class _Drawing:
    """The pictures of one report."""

    net: Module
    pixels: np.ndarray
    class_names: list[str]
    titles: list[str]
    layers: list[str]
    page: Report
    tell: Callable[[str], None]
    device: str

    def add(self, section: str, name: str, caption: str, figure: Any) -> None:
        """Render a figure."""
        self.page.pictures.append(Picture(section, name, caption, plots.png(figure)))

    def images(self, probabilities: np.ndarray, classes: Any, seed: int) -> None:
        """For each image: what it is taken for, why, and how it looks inside."""
        net, pixels = self.net, self.pixels
        explained = probabilities.argmax(axis=1) if classes is None else np.broadcast_to(classes, (len(pixels),))
        cam_layer = default_cam_layer(net, pixels.shape[1:])
        self.tell("saliency, guided back-propagation, Grad-CAM, occlusion")
        slopes = saliency(net, pixels, explained, device=self.device)
        guided = guided_backpropagation(net, pixels, explained, device=self.device)
        cams = grad_cam(net, pixels, cam_layer, explained, device=self.device)
        # Some hundred squares are enough for a picture.
        size = max(3, min(pixels.shape[1:3]) // 8)
        stride = max(size // 2, math.ceil((min(pixels.shape[1:3]) - size) / 11))
        covered = occlusion(net, pixels, explained, size=size, stride=stride, device=self.device)
        maps = activations(net, pixels, self.layers, device=self.device)
        inverted = self._inverted(maps, seed)
        for index, title in enumerate(self.titles):
            self.tell(f"pictures of {title}")
            name = self.class_names[int(explained[index])]
            probability = probabilities[index, int(explained[index])]
            best = ", ".join(
                f"{self.class_names[i]} {100 * probabilities[index, i]:.1f} %"
                for i in np.argsort(-probabilities[index], kind="stable")[:3]
            )
            section = f"{title}: {best}"
            figure = plots.plot_heat_maps(
                pixels[index],
                [
                    ("saliency", slopes[index], "|score per pixel value|", False),
                    ("guided back-propagation", guided[index], "", False),
                    (f"Grad-CAM at layer {cam_layer}", cams[index], "score", True),
                    ("occlusion", covered[index], "fall of probability", True),
                ],
                f'What speaks for "{name}" ({100 * probability:.1f} %)',
            )
            caption = (
                "Saliency: how much the class score changes with each pixel. Guided back-propagation: the same, only "
                "through what is active and speaks for the class; grey is nothing. Grad-CAM: where the last feature "
                "maps speak for the class. Occlusion: how much the probability falls when a square there is covered."
            )
            self.add(section, f"attention-{index}", caption, figure)
            for layer in self.layers:
                figure = plots.plot_feature_maps(maps[layer][index], f"Feature maps of layer {layer}")
                self.add(
                    section, f"maps-{index}-{_file_name(layer)}", f"What the channels of layer {layer} give.", figure
                )
            if inverted[index]:
                given = pixels[index] / np.float32(255.0) if pixels.dtype == np.uint8 else pixels[index]
                pictures = np.stack([given, *(picture for _, picture in inverted[index])])
                captions = ["image\n", *(caption for caption, _ in inverted[index])]
                figure = plots.plot_images(pictures, "What the layers still know of the image", captions)
                caption = (
                    "Images with nearly the same features, from grey by gradient descent; what differs from the given "
                    "image is what a layer has forgotten. Below its name: how far off the features still are."
                )
                self.add(section, f"inverted-{index}", caption, figure)
        self._fields()

    def _inverted(self, maps: dict[str, np.ndarray], seed: int) -> list[list[tuple[str, np.ndarray]]]:
        """For each image, captions and pictures of the inverted layers, as far as they are drawn."""
        self.tell("inversion of the feature maps")
        large = min(self.pixels.shape[1:3]) > _SMALL_IMAGE
        found: list[list[tuple[str, np.ndarray]]] = [[] for _ in self.pixels]
        for layer in self.layers:
            # What is 0 everywhere tells nothing.
            alive = [i for i in range(min(1 if large else _INVERTED, len(found))) if maps[layer][i].any()]
            if alive:
                given, steps = self.pixels[alive], 64 if large else 256
                result = invert_features(self.net, given, layer, steps=steps, seed=seed, device=self.device)
                for index, picture, error in zip(alive, result.images, result.errors, strict=True):
                    found[index].append((f"{layer}\n{100 * error:.2g} % off", picture))
        return found

    def _fields(self) -> None:
        shape = self.pixels.shape[1:]
        maps = spatial_layers(self.net, shape)
        fields = [
            (layer, receptive_field(self.net, layer, shape), (maps[layer][0] // 2, maps[layer][1] // 2))
            for layer in self.layers
        ]
        figure = plots.plot_receptive_fields(self.pixels[0], fields, "Receptive fields of middle units")
        caption = "The pixels that one unit sees; beyond the image lies padding."
        self.add("Receptive fields", "receptive-fields", caption, figure)

    def filters(self) -> None:
        """The first convolution and one in the middle."""
        from pycnn.inspect.learned_filters import _convolutions

        self.tell("filters")
        found = list(_convolutions(self.net))
        for layer in dict.fromkeys([*found[:1], *found[len(found) // 2 : len(found) // 2 + 1]]):
            weights = filters(self.net, layer)
            if weights.shape[1] * weights.shape[2] == 1:
                continue
            pictures = filter_pictures(weights)
            out, _, _, inputs = weights.shape
            captions = [str(i) if inputs in (1, 3) else f"{i // inputs}:{i % inputs}" for i in range(len(pictures))]
            total = out if inputs == 3 else out * inputs
            size = f"{weights.shape[1]} x {weights.shape[2]}"
            shown = f"all {total}" if total == len(pictures) else f"{len(pictures)} of {total:,}"
            largest = float(np.abs(weights).max())
            title = f"Filters of layer {layer}: {shown}, {size}, black {-largest:.2g}, white {largest:.2g}"
            caption = f"{out} filters over {inputs} channels; middle grey is 0, bright positive, dark negative."
            if inputs not in (1, 3):
                caption += " A tile is labelled output:input channel."
            figure = plots.plot_filters(pictures, title, captions=captions)
            self.add("Filters", f"filters-{_file_name(layer)}", caption, figure)

    def favourites(self, seed: int) -> None:
        """Inputs that classes and channels like best."""
        self.tell("gradient ascent")
        shape = self.pixels.shape[1:]
        units = list(range(min(_SHOWN_CLASSES, len(self.class_names))))
        if len(self.class_names) > _SHOWN_CLASSES:
            # Of many classes, those that the images are taken for.
            units = list(dict.fromkeys(int(i) for i in self.net.predict(self.pixels, device=self.device)))[
                :_SHOWN_LARGE
            ]
        large = min(shape[:2]) > _SMALL_IMAGE
        steps = 48 if large else 96
        best = maximize(self.net, units, input_shape=shape, seed=seed, steps=steps, device=self.device)
        figure = plots.plot_images(best, "Inputs that raise a class score most", [self.class_names[i] for i in units])
        caption = "Made by gradient ascent on the pixels from grey noise; not images that anybody took."
        self.add("What the net likes", "class-inputs", caption, figure)

    def data(self, data: Any) -> None:
        """Confusion matrix, mistakes and patches."""
        self.tell("confusion matrix and mistakes")
        found = predictions(self.net, data, device=self.device)
        part = f"{100 * found.accuracy:.2f} % of {len(data):,} images are right"
        figure = plots.plot_confusion(found.confusion_matrix(), self.class_names, f"Confusion matrix: {part}")
        self.add("Data set", "confusion", "Rows add up to the images of a class.", figure)
        wrong = found.mistakes(16)
        if len(wrong.images):
            pictures = data.read(wrong.images)
            figure = plots.plot_mistakes(pictures, wrong, self.class_names, "The mistakes that the net is most sure of")
            self.add("Data set", "mistakes", "True class, and what the net says instead.", figure)
        maps = spatial_layers(self.net, self.pixels.shape[1:])
        for layer in dict.fromkeys([self.layers[0], self.layers[-1]]):
            self.tell(f"patches that layer {layer} likes")
            channels = list(range(min(_SHOWN_PATCH_CHANNELS, maps[layer][2])))
            count = min(_PATCHES, len(data))
            best = top_patches(self.net, data, layer, channels, count=count, device=self.device)
            pictures = best.patches.reshape(-1, *best.patches.shape[2:])
            captions = [
                f"{channel}: {value:.2g}" for channel, row in zip(channels, best.values, strict=True) for value in row
            ]
            figure = plots.plot_images(
                pictures, f"Patches that channels of layer {layer} react to most", captions, tile=1.0
            )
            caption = (
                "A row for each channel; above each patch the channel and its activation. Patches are as large as "
            )
            self.add("Data set", f"patches-{_file_name(layer)}", caption + "the receptive field.", figure)


def _file_name(layer: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in layer)
