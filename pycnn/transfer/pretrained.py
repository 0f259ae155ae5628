"""The encoder that comes along."""

from __future__ import annotations

from pathlib import Path

from pycnn import checkpoint, models
from pycnn.nn.module import Module
from pycnn.nn.norm import Normalize
from pycnn.transfer.depth_gain import HOME_GAIN

__all__ = ["DEFAULT_ENCODER", "default_encoder", "weights_path"]

#: ResNet-20 on CIFAR-10; pycnn/weights/README.md tells the recipe and the accuracy.
DEFAULT_ENCODER = "pretrain-small"
# As the recipe has them.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def default_encoder() -> Module:
    """Load the net that comes along to transfer from: ResNet-20, trained on CIFAR-10 by the recipe "pretrain-small".

    It takes colour images of any size from about 16 pixels on; it saw objects of about 32 pixels, so photographs of 64
    to 128 pixels suit it. `pycnn/weights/README.md` tells how it was trained and how well it does. Its file
    knows what depth gains on its own kind of images (`record_home_gain`).

    Returns:
        A fresh copy, ready for `Encoder`, `finetune` or prediction of the ten classes of CIFAR-10.

    Example:
        >>> default_encoder().num_parameters
        269722
    """
    net = models.create("cifar_resnet20", weights=weights_path())
    net.normalization = Normalize(mean=_MEAN, std=_STD)
    _, metadata = checkpoint.read_tensors(weights_path())
    net.metadata = {name: text for name, text in metadata.items() if name == HOME_GAIN}
    return net


def weights_path() -> Path:
    """The model file of `default_encoder`."""
    return Path(__file__).resolve().parent.parent / "weights" / f"{DEFAULT_ENCODER}.safetensors"
