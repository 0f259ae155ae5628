"""Blocks whose topology and names live in the core: residual and inception."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pycnn import functional
from pycnn.arguments import as_number
from pycnn.errors import ArgumentError
from pycnn.nn import init
from pycnn.nn._arguments import as_count, as_optional_count
from pycnn.nn.module import Module
from pycnn.tensor import Initializer, Parameter

__all__ = ["BasicBlock", "Bottleneck", "Inception", "TensorTree"]


class TensorTree(Module):
    """Parameters under dotted names, without a computation: ``block.conv1.weight``."""

    def add_tensor(self, name: str, parameter: Parameter) -> None:
        """Keep a parameter under a dotted name, making the trees in between."""
        head, _, rest = name.partition(".")
        if not rest:
            setattr(self, head, parameter)
            return
        child = vars(self).get(head)
        if not isinstance(child, TensorTree):
            child = TensorTree()
            setattr(self, head, child)
        child.add_tensor(rest, parameter)


class _Block(TensorTree):
    """A composite of the core: its parameters by name, and a call that builds its nodes."""

    in_channels: int | None
    converts_uint8 = True
    #: How the convolutions' weights are drawn; None: as the core says.
    _rule: init.Rule | None = None

    def _make(self) -> Iterable[tuple[str, Parameter]]:
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def _create(self) -> None:
        self._order: list[str] = []
        for name, parameter in self._make():
            self._order.append(name)
            if self._rule is not None and parameter.layout == "conv":
                drawn = self._rule(init.fans_of(parameter))
                parameter = Parameter(parameter.shape, init=drawn, layout=parameter.layout)
            self.add_tensor(name, parameter)

    def is_built(self) -> bool:
        """Whether the parameters exist."""
        return self.in_channels is not None

    def infer_sizes(self, x: Any) -> None:
        """Create the parameters for this input."""
        self.in_channels = int(x.shape[-1])
        self._create()

    def _tensors(self) -> list[Parameter]:
        own = dict(self.named_tensors())
        return [own[name] for name in self._order]

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        settings = self._settings()
        return ", ".join(f"{key}={value}" for key, value in settings.items() if key != "kind")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class _Residual(_Block):
    kind = ""
    expansion = 1

    def __init__(
        self,
        in_channels: int | None,
        channels: int | None,
        stride: int,
        eps: float,
        momentum: float,
        zero_init_residual: bool,
        shortcut: str,
        pre_activation: bool,
        weight_init: init.Rule | Initializer | None,
    ) -> None:
        who = type(self).__name__
        if channels is None:
            raise ArgumentError(f"{who}: channels must be given\n  hint: only in_channels may be left out")
        self.in_channels = as_optional_count(in_channels, who=who, name="in_channels")
        self.channels = as_count(channels, who=who, name="channels")
        self.stride = as_count(stride, who=who, name="stride")
        self.eps = as_number(eps, who=who, name="eps", low=0.0, above=True)
        self.momentum = as_number(momentum, who=who, name="momentum", low=0.0, high=1.0)
        self.zero_init_residual = bool(zero_init_residual)
        if shortcut not in ("projection", "zero_pad"):
            raise ArgumentError(f"{who}: shortcut must be 'projection' or 'zero_pad', got {shortcut!r}")
        self.shortcut = shortcut
        self.pre_activation = bool(pre_activation)
        if weight_init is not None:
            self._rule = init.as_rule(weight_init, who=who, name="weight_init")

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.channels * self.expansion

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "in_channels": self.in_channels,
            "channels": self.channels,
            "stride": self.stride,
            "eps": self.eps,
            "momentum": self.momentum,
            "zero_init_residual": self.zero_init_residual,
            "shortcut": self.shortcut,
            "pre_activation": self.pre_activation,
        }

    def _make(self) -> Iterable[tuple[str, Parameter]]:
        return functional.residual_parameters(**self._settings())

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.residual_block(x, self._tensors(), **self._settings())


class BasicBlock(_Residual):
    """Residual block of two 3x3 convolutions (He et al. 2015, figure 5 left).

    conv3x3(stride) bn relu conv3x3 bn, plus the shortcut, relu. The shortcut is the identity where the shape stays,
    otherwise as `shortcut` says. Names as torchvision's.

    Args:
        in_channels: Channels of the input. Left out: taken from the first input.
        channels: Channels of the output; must be given.
        stride: Of the first convolution and the shortcut.
        eps: Of the batch norms.
        momentum: Of the batch norms.
        zero_init_residual: The last batch norm's scale starts at 0 (Goyal et al. 2017).
        shortcut: Where the shape changes, "projection" (1x1 convolution and batch norm) or "zero_pad" (every
            stride-th pixel, zeros for new channels: the paper's option A, without weights).
        pre_activation: Batch norm and ReLU come before each convolution and nothing follows the sum (He et al.
            2016); a projection then reads what the first ReLU gives and has no batch norm.
        weight_init: Rule for the convolutions. Default: normal of variance 2 / fan_out (He et al. 2015).

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H / stride, W / stride, channels)``, rounded up.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    kind = "basic"

    def __init__(
        self,
        in_channels: int | None = None,
        channels: int | None = None,
        *,
        stride: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        zero_init_residual: bool = False,
        shortcut: str = "projection",
        pre_activation: bool = False,
        weight_init: init.Rule | Initializer | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            stride,
            eps,
            momentum,
            zero_init_residual,
            shortcut,
            pre_activation,
            weight_init,
        )
        if self.in_channels is not None:
            self._create()


class Bottleneck(_Residual):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution (He et al. 2015, figure 5 right).

    conv1x1 bn relu conv3x3(stride, groups) bn relu conv1x1 bn, plus the shortcut, relu. Grouped, it
    is the block of ResNeXt (Xie et al. 2017). Names and place of the stride as torchvision's.

    Args:
        in_channels: Channels of the input. Left out: taken from the first input.
        channels: A quarter of the output's channels; must be given.
        stride: Of the 3x3 convolution and the shortcut.
        groups: Of the 3x3 convolution (cardinality).
        base_width: The inner width is ``channels * base_width / 64 * groups``.
        eps: Of the batch norms.
        momentum: Of the batch norms.
        zero_init_residual: The last batch norm's scale starts at 0 (Goyal et al. 2017).
        shortcut: Where the shape changes, "projection" (1x1 convolution and batch norm) or "zero_pad" (every
            stride-th pixel, zeros for new channels: the paper's option A, without weights).
        pre_activation: Batch norm and ReLU come before each convolution and nothing follows the sum (He et al.
            2016); a projection then reads what the first ReLU gives and has no batch norm.
        weight_init: Rule for the convolutions. Default: normal of variance 2 / fan_out (He et al. 2015).

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H / stride, W / stride, 4 * channels)``, rounded up.

    Raises:
        ArgumentError: An argument is out of range.
        ShapeError: While recording: another number of channels.
    """

    kind = "bottleneck"
    expansion = 4

    def __init__(
        self,
        in_channels: int | None = None,
        channels: int | None = None,
        *,
        stride: int = 1,
        groups: int = 1,
        base_width: int = 64,
        eps: float = 1e-5,
        momentum: float = 0.1,
        zero_init_residual: bool = False,
        shortcut: str = "projection",
        pre_activation: bool = False,
        weight_init: init.Rule | Initializer | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            stride,
            eps,
            momentum,
            zero_init_residual,
            shortcut,
            pre_activation,
            weight_init,
        )
        self.groups = as_count(groups, who="Bottleneck", name="groups")
        self.base_width = as_count(base_width, who="Bottleneck", name="base_width")
        if self.in_channels is not None:
            self._create()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "groups": self.groups, "base_width": self.base_width}


class Inception(_Block):
    """Inception block of GoogLeNet (Szegedy et al. 2014, figure 2b): four branches, concatenated.

    1x1 | 1x1 then 3x3 | 1x1 then 5x5 | 3x3 max-pool then 1x1. Names as torchvision's.

    Args:
        in_channels: Channels of the input. Left out: taken from the first input.
        branch1: Filters of the 1x1 branch; all six widths must be given.
        reduce3: Filters of the 1x1 before the 3x3.
        branch3: Filters of the 3x3.
        reduce5: Filters of the 1x1 before the 5x5.
        branch5: Filters of the 5x5.
        pool: Filters of the 1x1 behind the pool.
        branch5_kernel: 5 as in the paper, or 3 as torchvision's weights have it.
        batch_norm: Convolutions without bias, then batch norm (eps 1e-3), then ReLU; otherwise
            convolutions with bias and ReLU.
        weight_init: Rule for the convolutions. Default: normal of variance 2 / fan_in (He et al. 2015).

    Shape:
        ``(N, H, W, in_channels)`` -> ``(N, H, W, branch1 + branch3 + branch5 + pool)``

    Raises:
        ArgumentError: An argument is missing or out of range.
        ShapeError: While recording: another number of channels.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        branch1: int,
        reduce3: int,
        branch3: int,
        reduce5: int,
        branch5: int,
        pool: int,
        branch5_kernel: int = 5,
        batch_norm: bool = False,
        weight_init: init.Rule | Initializer | None = None,
    ) -> None:
        who = "Inception"
        self.in_channels = as_optional_count(in_channels, who=who, name="in_channels")
        self.branch1_channels = as_count(branch1, who=who, name="branch1")
        self.reduce3 = as_count(reduce3, who=who, name="reduce3")
        self.branch3_channels = as_count(branch3, who=who, name="branch3")
        self.reduce5 = as_count(reduce5, who=who, name="reduce5")
        self.branch5_channels = as_count(branch5, who=who, name="branch5")
        self.pool = as_count(pool, who=who, name="pool")
        self.branch5_kernel = as_count(branch5_kernel, who=who, name="branch5_kernel")
        self.batch_norm = bool(batch_norm)
        if weight_init is not None:
            self._rule = init.as_rule(weight_init, who=who, name="weight_init")
        if self.in_channels is not None:
            self._create()

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.branch1_channels + self.branch3_channels + self.branch5_channels + self.pool

    def _settings(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels,
            "branch1": self.branch1_channels,
            "reduce3": self.reduce3,
            "branch3": self.branch3_channels,
            "reduce5": self.reduce5,
            "branch5": self.branch5_channels,
            "pool": self.pool,
            "branch5_kernel": self.branch5_kernel,
            "batch_norm": self.batch_norm,
        }

    def _make(self) -> Iterable[tuple[str, Parameter]]:
        return functional.inception_parameters(**self._settings())

    def forward(self, x: Any) -> Any:
        """Record the layer."""
        return functional.inception_block(x, self._tensors(), **self._settings())
