"""Convolution and its transpose."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.arguments import as_flag
from pycnn.errors import ArgumentError
from pycnn.nn import init
from pycnn.nn._arguments import (
    Pair,
    Sides,
    as_count,
    as_optional_count,
    as_pair,
    as_sides,
    short_pair,
    short_sides,
)
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = ["Conv2d", "ConvTranspose2d"]


class _Filters(Module):
    """Weights and arguments of both layers."""

    weight: Parameter | None
    bias: Parameter | None

    padding: Sides
    # Of the kernel in the hint of an error.
    _usual_size = 3

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int | None,
        kernel_size: int | Pair | None,
        stride: int | Pair,
        dilation: int | Pair,
        groups: int,
        bias: bool,
        rules: tuple[init.Rule | Initializer | None, init.Rule | Initializer | None],
    ) -> None:
        who = type(self).__name__
        if out_channels is None or kernel_size is None:
            lacking = "out_channels" if out_channels is None else "kernel_size"
            raise ArgumentError(
                f"{who}: {lacking} must be given\n  hint: only in_channels may be left out, "
                f"{who}(out_channels=64, kernel_size={self._usual_size})"
            )
        self.in_channels = as_optional_count(in_channels, who=who, name="in_channels")
        self.out_channels = as_count(out_channels, who=who, name="out_channels")
        self.kernel_size = as_pair(kernel_size, who=who, name="kernel_size")
        self.stride = as_pair(stride, who=who, name="stride")
        self.dilation = as_pair(dilation, who=who, name="dilation")
        self.groups = as_count(groups, who=who, name="groups")
        self._rules = (
            init.as_rule(rules[0], who=who, name="weight_init"),
            init.as_rule(rules[1], who=who, name="bias_init"),
        )
        self._with_bias = as_flag(bias, who=who, name="bias")
        if self.out_channels % self.groups:
            raise ArgumentError(f"{who}: out_channels {self.out_channels} is no multiple of groups {self.groups}")
        self.weight = None
        self.bias = None
        if self.in_channels is not None:
            self._create(self.in_channels)

    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self.weight is not None

    def infer_sizes(self, x: Any) -> None:
        """Create the parameters for this input."""
        self._create(int(x.shape[-1]))

    def _ends(self, in_channels: int) -> tuple[int, int]:
        """First and last axis of the weight."""
        return self.out_channels, in_channels // self.groups

    def _create(self, in_channels: int) -> None:
        if in_channels % self.groups:
            who = type(self).__name__
            raise ArgumentError(f"{who}: in_channels {in_channels} is no multiple of groups {self.groups}")
        self.in_channels = in_channels
        first, last = self._ends(in_channels)
        shape = (first, *self.kernel_size, last)
        fans = init.fans_of(Parameter(shape, layout="conv"))
        weight_rule, bias_rule = self._rules
        self.weight = Parameter(shape, init=weight_rule(fans), layout="conv")
        if self._with_bias:
            self.bias = Parameter((self.out_channels,), init=bias_rule(fans))

    def _window_options(self) -> list[str]:
        pairs = [(name, getattr(self, name)) for name in ("stride", "dilation")]
        return [f"{name}={short_pair(pair)}" for name, pair in pairs if pair != (1, 1)]

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={short_pair(self.kernel_size)}"]
        parts += self._window_options()
        if self.padding != (0, 0, 0, 0):
            parts.append(f"padding={short_sides(self.padding)}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if not self._with_bias:
            parts.append("bias=False")
        return ", ".join(parts)


class Conv2d(_Filters):
    """Cross-correlation of images with learned filters.

    ``output[n, oh, ow, oc] = bias[oc] + sum of input[n, oh*stride - top + kh*dilation, ..., ic] *
    weight[oc, ic, kh, kw]`` over the window and the channels of the output's group.

    Args:
        in_channels: Channels of the input. Left out: taken from the first input.
        out_channels: Number of filters; must be given.
        kernel_size: Window in pixels, one number or (vertical, horizontal); must be given.
        stride: Step of the window in pixels.
        padding: Zeros around the image in pixels: one number, (vertical, horizontal), (top,
            bottom, left, right), "valid" (none) or "same" (output as large as the input, stride 1;
            an odd pixel goes to the bottom and right).
        dilation: Distance of the filter's cells in pixels.
        groups: Input and output channels are cut into this many independent groups.
        bias: Whether to add a learned number per output channel.
        weight_init: Rule of `pycnn.nn.init`. Default: uniform in ±1/sqrt(fan_in).
        bias_init: Rule, given the weight's fans. Default: uniform in ±1/sqrt(fan_in).

    Attributes:
        weight: (OC, IC / groups, KH, KW) in `state_dict` and files.
        bias: (OC), or None.

    Shape:
        ``(N, H, W, IC)`` -> ``(N, OH, OW, OC)``, OH = floor((H + top + bottom - (KH-1)*dilation
        - 1) / stride) + 1, OW likewise.

    Raises:
        ArgumentError: An argument is out of range, or channels are no multiple of `groups`.
        ShapeError: While recording: the channels differ, or the geometry leaves no output.

    Example:
        >>> Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
        Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: int | Pair | None = None,
        stride: int | Pair = 1,
        padding: int | Pair | Sides | str = 0,
        *,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: init.Rule | Initializer | None = None,
        bias_init: init.Rule | Initializer | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, (weight_init, bias_init)
        )
        self.padding = self._sides(padding)

    def _sides(self, padding: Any) -> Sides:
        if padding == "valid":
            return (0, 0, 0, 0)
        if padding == "same":
            if self.stride != (1, 1):
                raise ArgumentError(f"Conv2d: padding 'same' needs stride 1, got {short_pair(self.stride)}")
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            (top, left) = (span // 2 for span in spans)
            return (top, spans[0] - top, left, spans[1] - left)
        if isinstance(padding, str):
            raise ArgumentError(f"Conv2d: padding must be 'same', 'valid' or sizes, got {padding!r}")
        return as_sides(padding, who="Conv2d")

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2d(_Filters):
    """Spread each pixel over a window of learned numbers (Zeiler et al. 2010).

    What `Conv2d` with the same arguments does to its gradient: it brings images from the size of
    that layer's output to the size of its input.

    Args:
        in_channels: Channels of the input. Left out: taken from the first input.
        out_channels: Channels of the output; must be given.
        kernel_size: Window in pixels, one number or (vertical, horizontal); must be given.
        stride: Distance of the windows of neighbouring pixels.
        padding: Pixels that are cut off: one number, (vertical, horizontal) or (top, bottom, left,
            right).
        output_padding: Pixels more at the bottom and right, below the stride.
        groups: Input and output channels are cut into this many independent groups.
        bias: Whether to add a learned number per output channel.
        dilation: Distance of the window's cells in pixels.
        weight_init: Rule of `pycnn.nn.init`. Default: uniform in ±1/sqrt(fan), fan being the window
            times the output channels of a group, as PyTorch.
        bias_init: Rule, given the weight's fans. Default: the same.

    Attributes:
        weight: (IC, OC / groups, KH, KW) in `state_dict` and files.
        bias: (OC), or None.

    Shape:
        ``(N, H, W, IC)`` -> ``(N, OH, OW, OC)``, OH = (H - 1) * stride - top - bottom
        + (KH - 1) * dilation + output_padding + 1, OW likewise.

    Raises:
        ArgumentError: An argument is out of range, or channels are no multiple of `groups`.
        ShapeError: While recording: the channels differ, or the geometry leaves no output.

    Example:
        >>> ConvTranspose2d(64, 32, kernel_size=2, stride=2)
        ConvTranspose2d(64, 32, kernel_size=2, stride=2)
    """

    _usual_size = 2

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: int | Pair | None = None,
        stride: int | Pair = 1,
        padding: int | Pair | Sides = 0,
        output_padding: int | Pair = 0,
        *,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
        weight_init: init.Rule | Initializer | None = None,
        bias_init: init.Rule | Initializer | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation, groups, bias, (weight_init, bias_init)
        )
        who = "ConvTranspose2d"
        self.padding = as_sides(padding, who=who)
        self.output_padding = as_pair(output_padding, who=who, name="output_padding", low=0)
        if any(extra >= step for extra, step in zip(self.output_padding, self.stride, strict=True)):
            raise ArgumentError(
                f"{who}: output_padding {short_pair(self.output_padding)} must be below stride "
                f"{short_pair(self.stride)}"
            )

    def _ends(self, in_channels: int) -> tuple[int, int]:
        return in_channels, self.out_channels // self.groups

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def _window_options(self) -> list[str]:
        pair = self.output_padding
        extra = [f"output_padding={short_pair(pair)}"] if pair != (0, 0) else []
        return super()._window_options() + extra
