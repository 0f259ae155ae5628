"""ZFNet, winner of ILSVRC 2013: AlexNet with smaller first filters and strides, found by looking inside.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.models._arguments import as_image_shape, is_small
from pycnn.models.alexnet import hidden_units
from pycnn.nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, Module, ReLU, init
from pycnn.nn._arguments import as_count

__all__ = ["ZFNet", "zfnet"]


class ZFNet(Module):
    """The network that `zfnet` makes.

    conv1, relu1, pool1, norm1, ... conv5, relu5, pool5, flatten, fc6, relu6, drop6, fc7, relu7, drop7, fc8.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, dropout: float, hidden: int | None) -> None:
        small = is_small(shape)
        units = hidden_units(hidden, who="zfnet", small=small)
        rules: dict[str, Any] = {"weight_init": init.normal(0.01), "bias_init": init.constant(0.0)}
        first: dict[str, Any] = {"kernel_size": 5, "padding": 2}
        if not small:
            first = {"kernel_size": 7, "stride": 2, "padding": 1}
        second: dict[str, Any] = {"padding": 2} if small else {"stride": 2}
        self.conv1 = Conv2d(shape[2], 96, **first, **rules)
        self.relu1 = ReLU()
        # Rounding up makes the sizes of the figure: 110, 55, 26, 13, 6.
        self.pool1 = MaxPool2d(3, 2, ceil_mode=True)
        # The paper's alpha is not divided by the size, the layer's is.
        self.norm1 = LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.conv2 = Conv2d(96, 256, kernel_size=5, **second, **rules)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(3, 2, ceil_mode=True)
        self.norm2 = LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.conv3 = Conv2d(256, 384, kernel_size=3, padding=1, **rules)
        self.relu3 = ReLU()
        self.conv4 = Conv2d(384, 384, kernel_size=3, padding=1, **rules)
        self.relu4 = ReLU()
        self.conv5 = Conv2d(384, 256, kernel_size=3, padding=1, **rules)
        self.relu5 = ReLU()
        self.pool5 = MaxPool2d(3, 2)
        self.flatten = Flatten()
        self.fc6 = Linear(out_features=units, **rules)
        self.relu6 = ReLU()
        self.drop6 = Dropout(dropout)
        self.fc7 = Linear(units, units, **rules)
        self.relu7 = ReLU()
        self.drop7 = Dropout(dropout)
        self.fc8 = Linear(units, num_classes, **rules)
        self.input_shape = shape

    def forward(self, x: Any) -> Any:
        """Record the layers one after the other, as they were created."""
        for _, layer in self.named_children():
            if layer is not self.normalization:
                x = layer(x)
        return x


def zfnet(
    num_classes: int = 1000,
    *,
    input_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    hidden: int | None = None,
) -> ZFNet:
    """ZFNet (Zeiler and Fergus 2014): 62,357,608 parameters.

    AlexNet with 7x7/2 filters first, then 5x5/2. Maps of 110, 55, 26, 13 and 6 pixels a side, as in the paper's figure
    3. Contrast normalisation across maps is AlexNet's, n = 5, k = 2, alpha = 1e-4, beta = 0.75. Weights start normal
    with deviation 0.01, biases at 0, as in the paper.

    Images below 64 pixels a side get a variant for small images: the first two convolutions have stride 1 (5x5, padding
    2), and the hidden layers have 512 units.

    Args:
        num_classes: Units of the last layer.
        input_shape: (H, W, C) of the images, at least 24x24 pixels. Default: (224, 224, 3). The size is built into
            fc6.
        dropout: Probability of zero behind fc6 and fc7.
        hidden: Units of fc6 and fc7. Default: 4096, or 512 for small images.

    Shape:
        ``(N, H, W, C)`` -> scores ``(N, num_classes)``

    Raises:
        ArgumentError: An argument is out of range.

    Example:
        >>> zfnet().num_parameters
        62357608
    """
    shape = as_image_shape(input_shape, who="zfnet", default=(224, 224, 3), smallest=24)
    net = ZFNet(shape, as_count(num_classes, who="zfnet", name="num_classes"), dropout, hidden)
    net.build(shape)
    return net
