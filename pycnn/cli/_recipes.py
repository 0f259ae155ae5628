"""How a net is trained when nothing else is asked for: by data set, then by network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pycnn import optim
from pycnn.cli._options import UsageError, as_usage

__all__ = ["OPTIMIZERS", "SCHEDULES", "Recipe", "recipe"]

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine", "plateau")
_WARMUP_STEPS = 40


@dataclass(frozen=True)
class Recipe:
    """Settled hyper-parameters; the names are those of the options."""

    epochs: int = 20
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: str = "sgd"
    schedule: str = "cosine"
    augment: str = "light"

    def make_optimizer(self) -> optim.Optimizer:
        """The optimizer; biases and norms have no weight decay."""
        exempt = ("bias", "norm")
        with as_usage():
            if self.optimizer == "sgd":
                return optim.SGD(self.lr, momentum=self.momentum, weight_decay=self.weight_decay, no_decay=exempt)
            kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
            return kind(self.lr, weight_decay=self.weight_decay, no_decay=exempt)

    def make_schedule(self, steps: int) -> optim.Schedule:
        """The schedule of so many steps; "step" divides the rate by 10 after half and three quarters of the epochs."""
        if self.schedule == "step":
            drops = sorted({max(1, self.epochs // 2), max(1, self.epochs * 3 // 4)})
            return optim.StepLR(drops)
        if self.schedule == "cosine":
            return optim.CosineWithWarmup(min(_WARMUP_STEPS, steps // 10))
        if self.schedule == "plateau":
            return optim.ReduceOnPlateau(patience=max(2, self.epochs // 10))
        return optim.Constant()


_BY_DATA = {
    "digits": Recipe(epochs=30, batch_size=32),
    "mnist": Recipe(epochs=10, weight_decay=1e-4),
    "cifar10": Recipe(epochs=30),
    "folder": Recipe(epochs=30, batch_size=32, lr=0.02),
}
# Gradients of squared distances over 84 units are large.
_BY_NET: dict[str, dict[str, Any]] = {"lenet5_1998": {"lr": 0.002, "weight_decay": 0.0}}


def recipe(data: str, net: str, chosen: dict[str, Any]) -> Recipe:
    """Fill in what the user did not choose (None).

    Raises:
        UsageError: A choice contradicts another.
    """
    given = {key: value for key, value in chosen.items() if value is not None}
    adaptive = given.get("optimizer", "sgd") != "sgd"
    if adaptive and "momentum" in given:
        raise UsageError(f"--momentum goes with --optimizer sgd, not {given['optimizer']}")
    base = replace(_BY_DATA[data], **_BY_NET.get(net, {}))
    if adaptive:
        base = replace(base, lr=min(base.lr, 2e-3))
    settled = replace(base, **given)
    if settled.lr <= 0.0:
        raise UsageError("--lr must be above 0")
    return settled
