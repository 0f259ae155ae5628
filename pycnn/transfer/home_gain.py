"""What depth gains on an encoder's own kind of images, measured once and kept in its file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pycnn import checkpoint
from pycnn.data import Dataset
from pycnn.errors import ArgumentError
from pycnn.nn.files import load
from pycnn.program import check_device
from pycnn.transfer.depth_gain import HOME_GAIN, DepthGain, home_gain_text
from pycnn.transfer.labelled import as_labelled
from pycnn.transfer.layer_survey import survey

__all__ = ["record_home_gain"]


def record_home_gain(
    path: str | os.PathLike[str],
    data: Dataset | tuple[Any, Any],
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
) -> DepthGain:
    """Measure the depth gain of a trained net on its own kind of images, and write it into the net's file.

    `survey` measures the similarity of other images to these by it. A thousand images that the net was trained on will
    do; the images of a test set are better kept for what they are for. Weights, graph and all other entries of the
    file stay as they are, bit for bit; the file is replaced atomically. A gain that is there already is replaced. It
    counts no more once the net is trained further, the head alone excepted.

    Args:
        path: A model file.
        data: Labelled images of the kind that the net was trained on, of the size that it was trained with.
        layers: From the bottom up; the gain then counts only where the same are looked at. Default: the ends of the
            net's stages.
        batch_size: Images per run.
        seed: Of the folds.
        threads: At most this many for the features; None chooses.
        device: As for `survey`.

    Returns:
        The gain.

    Raises:
        ArgumentError: Depth gains nothing on these images, or not clearly; or `layers` names a single layer; or as
            for `survey`. The file stays as it was.
        FileError: The file cannot be read or written.
        FormatError: It is no model file.
        ShapeError: The images do not fit the net.
        LabelError: A label is outside of the classes.
        UnsupportedError: scikit-learn is not installed.
        DeviceError: The device is absent.

    Example:
        >>> import tempfile, pycnn as pc
        >>> train, _ = pc.data.digits(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.models.create("lenet5").build((28, 28, 1)).save(f"{folder}/net.safetensors")
        ...     few = pc.data.subset(train, range(60))
        ...     record_home_gain(f"{folder}/net.safetensors", few, layers=["pool1", "fc2"]).is_clear
        True
    """
    who = "record_home_gain"
    where = check_device(device, who=who)
    net = load(path)
    net.metadata.pop(HOME_GAIN, None)
    found = survey(net, data, layers=layers, batch_size=batch_size, seed=seed, threads=threads, device=where)
    if found.gain is None:
        raise ArgumentError(f"{who}: layers must name two or more, got {', '.join(found.depths[0].layers)}")
    if not found.gain.is_clear:
        raise ArgumentError(
            f"{who}: on these {found.images:,} images the top layer gains {found.gain.value:.3f} +- "
            f"{found.gain.error:.3f} over the stages below it, expected more than two errors above 0\n"
            "  hint: is the net trained, and on images of this kind and size? More images make the error smaller"
        )
    text = home_gain_text(net, found.gain, layers, found.images, as_labelled(data, who=who).image_shape)
    tensors, metadata = checkpoint.read_tensors(path)
    checkpoint.write_tensors(path, tensors, {**metadata, HOME_GAIN: text})
    return found.gain
