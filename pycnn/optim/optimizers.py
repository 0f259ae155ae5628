"""SGD, Adam, AdamW and Muon, with groups of parameters that are treated differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pycnn.arguments import as_flag, as_number
from pycnn.errors import ArgumentError
from pycnn.program import GroupSpec, OptimizerSpec
from pycnn.tensor import Parameter

__all__ = ["SGD", "Adam", "AdamW", "Group", "Muon", "Optimizer"]


@dataclass(frozen=True)
class Group:
    """Parameters that are trained in their own way.

    Args:
        patterns: Names of parameters or of modules above them; ``*`` and ``?`` match.
        lr_scale: Factor on the learning rate; 0 keeps the parameters, at the cost of their
            gradients (freeze them instead).
        weight_decay: Default: the optimizer's.
        frozen: No gradient is computed and no update made.

    Raises:
        ArgumentError: A number is negative or not finite, or there is no pattern.
    """

    patterns: tuple[str, ...]
    lr_scale: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False

    def __init__(
        self,
        *patterns: str,
        lr_scale: float = 1.0,
        weight_decay: float | None = None,
        frozen: bool = False,
    ) -> None:
        if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ArgumentError(f"Group: patterns must be one or more str, got {patterns!r}")
        put = object.__setattr__
        put(self, "patterns", patterns)
        put(self, "lr_scale", as_number(lr_scale, who="Group", name="lr_scale", low=0.0))
        decay = weight_decay
        if decay is not None:
            decay = as_number(decay, who="Group", name="weight_decay", low=0.0)
        put(self, "weight_decay", decay)
        put(self, "frozen", as_flag(frozen, who="Group", name="frozen"))

    def matches(self, name: str) -> bool:
        """Whether a parameter belongs to the group."""
        return any(fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*") for pattern in self.patterns)


def _is_exempt(name: str, parameter: Parameter, no_decay: Sequence[str]) -> bool:
    for pattern in no_decay:
        is_bias = name.rpartition(".")[2] == "bias"
        if pattern == "bias":
            if is_bias:
                return True
        elif pattern == "norm":
            # Scales of batch norms are the vectors that are no biases.
            if not is_bias and len(parameter.shape) == 1:
                return True
        elif fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*"):
            return True
    return False


# The step computes in float32; a larger rate would be infinite there.
_MAX_RATE = 3.4028234663852886e38


class Optimizer:
    """Base of the optimizers: hyper-parameters, checked.

    `lr` may be changed while training; all else is settled when a step is compiled, so a new optimizer and `Trainer`
    are needed for other values.

    Attributes:
        lr: Learning rate before the schedule.
        weight_decay: L2 penalty (decoupled in AdamW).
        no_decay: What has no weight decay: "bias", "norm" (scales of batch norms), or patterns of
            names.
        groups: Parameters with settings of their own; the first that matches decides.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float,
        no_decay: Sequence[str],
        groups: Sequence[Group],
    ) -> None:
        who = type(self).__name__
        self.lr = lr
        self.weight_decay = as_number(weight_decay, who=who, name="weight_decay", low=0.0)
        if isinstance(no_decay, str) or not all(isinstance(p, str) for p in no_decay):
            raise ArgumentError(f"{who}: no_decay must be a sequence of 'bias', 'norm' or patterns, got {no_decay!r}")
        self.no_decay = tuple(no_decay)
        if not isinstance(groups, Sequence):
            raise ArgumentError(f"{who}: groups must be a sequence of optim.Group, got {groups!r}")
        for group in groups:
            if not isinstance(group, Group):
                raise ArgumentError(f"{who}: groups must hold optim.Group, got {group!r}")
        self.groups = tuple(groups)

    @property
    def lr(self) -> float:
        """Learning rate before the schedule, above 0.

        Raises:
            ArgumentError: When set to 0, a negative number, NaN or more than float32 holds.
        """
        rate: float = vars(self)["_lr"]
        return rate

    @lr.setter
    def lr(self, value: float) -> None:
        who = type(self).__name__
        vars(self)["_lr"] = as_number(value, who=who, name="lr", low=0.0, high=_MAX_RATE, above=True)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes that a compiled step would not notice."""
        if name in vars(self):
            raise ArgumentError(
                f"{type(self).__name__}: {name} cannot be changed, only lr\n  hint: make a new optimizer and Trainer"
            )
        object.__setattr__(self, name, value)

    def _base(self) -> OptimizerSpec:
        raise NotImplementedError

    def _own(self, parameter: Parameter) -> tuple[float, float]:
        """Weight decay and factor on the rate, where no group says anything."""
        return self.weight_decay, 1.0

    def spec(
        self,
        parameters: Mapping[str, Parameter],
        *,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ) -> OptimizerSpec:
        """Settle what happens to each parameter.

        Args:
            parameters: What can be trained, by name; frozen ones stay as they are.
            clip_norm: Limit of the global L2 norm of the gradients.
            ema_decay: Of the exponential averages of the parameters.

        Raises:
            ArgumentError: A group matches no parameter.
        """
        members: dict[tuple[float, float, bool], list[str]] = {}
        used: set[int] = set()
        for name, parameter in parameters.items():
            decay, own_scale = self._own(parameter)
            scale, frozen = own_scale, not parameter.trainable
            exempt = _is_exempt(name, parameter, self.no_decay)
            for index, group in enumerate(self.groups):
                if group.matches(name):
                    used.add(index)
                    scale, frozen = own_scale * group.lr_scale, frozen or group.frozen
                    if group.weight_decay is not None:
                        decay, exempt = group.weight_decay, False
                    break
            members.setdefault((0.0 if exempt else decay, scale, frozen), []).append(name)
        for index, group in enumerate(self.groups):
            if index not in used:
                raise ArgumentError(
                    f"{type(self).__name__}: group {index}, {group.patterns}, matches no parameter "
                    "that an earlier group left"
                )
        base = self._base()
        ordinary = (self.weight_decay, 1.0, False)
        groups = tuple(
            GroupSpec(tuple(names), weight_decay=decay, rate_scale=scale, frozen=frozen)
            for (decay, scale, frozen), names in members.items()
            # Without a group the core's muon decays matrices only.
            if (decay, scale, frozen) != ordinary or base.kind == "muon"
        )
        return replace(base, groups=groups, clip_norm=clip_norm, ema_decay=ema_decay)

    def _fields(self) -> dict[str, object]:
        return {"lr": self.lr, "weight_decay": self.weight_decay}

    def __repr__(self) -> str:
        """Show what was asked for."""
        shown = ", ".join(f"{key}={value}" for key, value in self._fields().items())
        return f"{type(self).__name__}({shown})"


class SGD(Optimizer):
    """Stochastic gradient descent.

    ``g = gradient + weight_decay * parameter``, ``velocity = momentum * velocity + g``,
    ``parameter -= lr * velocity`` (with `nesterov`: ``lr * (g + momentum * velocity)``), as
    PyTorch.

    Args:
        lr: Learning rate, above 0.
        momentum: In [0, 1).
        nesterov: Look-ahead form; needs momentum.
        weight_decay: L2 penalty, at least 0.
        no_decay: What has no weight decay: "bias", "norm" (scales of batch norms), or patterns of
            names, for example ``("bias", "norm")``. Default: nothing, as PyTorch.
        groups: `Group`s with settings of their own; the first that matches a parameter decides.

    Raises:
        ArgumentError: A number is out of range or not finite.

    Example:
        >>> SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, no_decay=("bias", "norm"))
        SGD(lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0005)
    """

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        no_decay: Sequence[str] = (),
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(lr, weight_decay, no_decay, groups)
        self.momentum = as_number(momentum, who="SGD", name="momentum", low=0.0, high=1.0, below=True)
        self.nesterov = as_flag(nesterov, who="SGD", name="nesterov")
        if self.nesterov and self.momentum == 0.0:
            raise ArgumentError("SGD: nesterov needs momentum above 0")

    def _base(self) -> OptimizerSpec:
        return OptimizerSpec(
            kind="sgd",
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def _fields(self) -> dict[str, object]:
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
        }


class Adam(Optimizer):
    """Adam (Kingma, Ba 2015), as PyTorch's; weight decay enters the gradient.

    Args:
        lr: Learning rate, above 0.
        betas: Decay of the averages of the gradient and of its square, in [0, 1).
        eps: Added to the root of the second average, above 0.
        weight_decay: L2 penalty, at least 0.
        no_decay: As `SGD`.
        groups: As `SGD`.

    Raises:
        ArgumentError: A number is out of range or not finite.
    """

    kind = "adam"

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_decay: Sequence[str] = (),
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(lr, weight_decay, no_decay, groups)
        who = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"{who}: betas must be two numbers, got {betas!r}")
        self.betas = (
            as_number(betas[0], who=who, name="betas[0]", low=0.0, high=1.0, below=True),
            as_number(betas[1], who=who, name="betas[1]", low=0.0, high=1.0, below=True),
        )
        self.eps = as_number(eps, who=who, name="eps", low=0.0, above=True)

    def _base(self) -> OptimizerSpec:
        return OptimizerSpec(
            kind=self.kind,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
        )

    def _fields(self) -> dict[str, object]:
        return {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019), as PyTorch's.

    Args:
        lr: Learning rate, above 0.
        betas: As `Adam`.
        eps: As `Adam`.
        weight_decay: At least 0; per step the parameter shrinks by ``lr * weight_decay``.
        no_decay: As `SGD`.
        groups: As `SGD`.

    Raises:
        ArgumentError: A number is out of range or not finite.
    """

    kind = "adamw"

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        no_decay: Sequence[str] = (),
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            no_decay=no_decay,
            groups=groups,
        )


class Muon(Optimizer):
    """Momentum, made orthogonal, for matrices; plain momentum for the rest (Jordan 2024).

    A weight of two axes or more is a matrix of its outputs by all else. Its momentum ``u`` (as `SGD`'s) is replaced by
    the nearest matrix ``x`` whose singular values are about 1 (five steps of Newton-Schulz), so that rare directions
    move as far as common ones: ``weight = (1 - lr * weight_decay) * weight - lr * sqrt(max(1, outputs / rest)) * x``.
    The rate is therefore a length, not a factor on gradients, and most nets with batch norms do well from 0.02 to 0.1.
    Biases, scales and other vectors are updated as by `SGD` at `vector_lr`.

    A step costs about ``5 * rows * rows * (2 * columns + rows)`` multiplications for a matrix (rows the smaller side):
    little beside the gradients of convolutions, much for dense layers of thousands of units.

    Weights grow larger than by `SGD`; to fine-tune a net that Muon trained, take Muon again, or a larger rate of `SGD`.

    Args:
        lr: Learning rate of the matrices, above 0.
        momentum: In [0, 1), of all parameters.
        nesterov: Look-ahead form; needs momentum.
        weight_decay: Of the matrices, decoupled, at least 0; the vectors have none but by a group.
        vector_lr: Learning rate of the vectors, above 0. It follows schedules and changes of `lr` in proportion.
        no_decay: As `SGD`.
        groups: As `SGD`.

    Raises:
        ArgumentError: A number is out of range or not finite.

    Source: K. Jordan, Muon: an optimizer for hidden layers in neural networks, 2024,
    https://kellerjordan.github.io/posts/muon. PyTorch's ``torch.optim.Muon`` is this for matrices alone, computed in
    bfloat16.

    Example:
        >>> Muon(lr=0.05, momentum=0.9, weight_decay=0.02)
        Muon(lr=0.05, vector_lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.02)
    """

    def __init__(
        self,
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        vector_lr: float = 0.1,
        no_decay: Sequence[str] = (),
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(lr, weight_decay, no_decay, groups)
        self.momentum = as_number(momentum, who="Muon", name="momentum", low=0.0, high=1.0, below=True)
        self.nesterov = as_flag(nesterov, who="Muon", name="nesterov")
        if self.nesterov and self.momentum == 0.0:
            raise ArgumentError("Muon: nesterov needs momentum above 0")
        vector_rate = as_number(vector_lr, who="Muon", name="vector_lr", low=0.0, high=_MAX_RATE, above=True)
        self._vector_scale = vector_rate / self.lr

    @property
    def vector_lr(self) -> float:
        """Learning rate of the vectors before the schedule."""
        return self.lr * self._vector_scale

    def _own(self, parameter: Parameter) -> tuple[float, float]:
        return (self.weight_decay, 1.0) if len(parameter.shape) >= 2 else (0.0, self._vector_scale)

    def _base(self) -> OptimizerSpec:
        return OptimizerSpec(
            kind="muon",
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def _fields(self) -> dict[str, object]:
        return {
            "lr": self.lr,
            "vector_lr": self.vector_lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
        }
