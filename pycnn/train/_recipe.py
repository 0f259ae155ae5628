"""Recipes: a net, its data and how it is trained, as a plain TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from difflib import get_close_matches
from importlib import resources
from typing import Any, cast

from pycnn import optim
from pycnn.arguments import as_path
from pycnn.data import Dataset, mean_std
from pycnn.data.transforms import Transform
from pycnn.errors import ArgumentError, FileError, FormatError
from pycnn.nn.module import Module
from pycnn.program import COMPUTED
from pycnn.train import _recipe_kinds as kinds
from pycnn.train._augmentation import make_transform
from pycnn.train._recipe_kinds import key
from pycnn.train.callbacks import Callback, EarlyStopping
from pycnn.train.metrics import as_metrics
from pycnn.train.trainer import Trainer
from pycnn.train.whitening import first_convolution, whiten

__all__ = ["Recipe", "find_recipe", "keys_in_file", "recipe", "recipes"]

# Most that the learning rate may be when a recipe of another optimizer is changed to this one.
_MAX_LR = {"adam": 2e-3, "adamw": 2e-3, "muon": 5e-2}
_ONLY_WITH = {"momentum": ("sgd", "muon"), "nesterov": ("sgd", "muon"), "vector_lr": ("muon",)}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, but the images; each key is checked.

    The keys are those of the TOML files and, with dashes, the options of ``pycnn train``. See the files in
    ``pycnn/recipes`` for examples, and `recipe` to read one.

    Raises:
        ArgumentError: A value is of another kind or out of range, or contradicts another; key, value and what was
            expected are named.
    """

    about: str = key("", kinds.text, "what this is for, in a sentence")
    net: str = key("", kinds.text, "name of a network")
    option: dict[str, Any] = key({}, kinds.table, "options of the network")
    data: str = key("digits", kinds.choice("digits", "mnist", "cifar10", "cifar100", "folder"), "data set")
    image_size: int = key(0, kinds.integer(0), "side in pixels that files are brought to; 0: what the net takes")
    epochs: int = key(20, kinds.integer(1), "passes over the training images")
    batch_size: int = key(128, kinds.integer(1), "images in a step")
    drop_last: bool = key(False, kinds.flag, "leave out a short last batch")
    optimizer: str = key("sgd", kinds.choice("sgd", "adam", "adamw", "muon"), "which update")
    lr: float = key(0.01, kinds.number(above=True), "learning rate; the peak of cosine and one-cycle")
    momentum: float = key(0.9, kinds.number(high=1.0, below=True), "of sgd and muon")
    nesterov: bool = key(False, kinds.flag, "look-ahead form of momentum")
    weight_decay: float = key(5e-4, kinds.number(), "L2 penalty; decoupled for adamw and muon")
    vector_lr: float = key(0.1, kinds.number(above=True), "muon: learning rate of biases and scales")
    no_decay: list[str] = key([], kinds.names, "parameters without weight decay: bias, norm, or patterns of names")
    schedule: str = key(
        "constant", kinds.choice("constant", "step", "cosine", "one-cycle", "plateau"), "of the learning rate"
    )
    milestones: Any = key(
        [], kinds.counts, "step: epochs before each drop, or one number: after every so many; default: 1/2 and 3/4"
    )
    gamma: float = key(0.1, kinds.number(high=1.0, above=True, below=True), "step and plateau: factor of a drop")
    patience: int = key(5, kinds.integer(0), "plateau: epochs without improvement that are borne")
    warmup_steps: int = key(0, kinds.integer(0), "cosine: steps of the rise, at most a tenth of all")
    rise: float = key(0.3, kinds.number(high=1.0, above=True, below=True), "one-cycle: part of the steps that rise")
    augment: Any = key("none", kinds.steps, "augmentation: a name (none, light, strong, ...) or a list of transforms")
    test_transform: Any = key([], kinds.steps, "transforms without randomness of validation and test images")
    groups: list[dict[str, Any]] = key(
        [],
        kinds.groups,
        "parameters by patterns of names, with their own lr_scale, weight_decay or frozen = true",
    )
    mean: list[float] | str = key(
        [],
        kinds.numbers(),
        'of the images as 0..1: subtracted by the net\'s first layer; "computed": that of all training images',
    )
    std: list[float] | str = key([], kinds.numbers(positive=True), "likewise: divided by")
    whiten: bool = key(
        False,
        kinds.flag,
        "the first convolution of a fresh net starts as the whitening of the training images' patches",
    )
    label_smoothing: float = key(0.0, kinds.number(high=1.0), "part of each label that is spread over all classes")
    auxiliary_weight: float = key(
        -1.0, kinds.number(low=-1.0), "of the losses of auxiliary heads while training; -1: as the net says"
    )
    clip_norm: float = key(0.0, kinds.number(), "limit of the gradients' norm; 0: none")
    ema: float = key(0.0, kinds.number(high=1.0, below=True), "average the weights with this decay; 0: no")
    validation: float = key(
        0.0,
        kinds.number(high=1.0, below=True),
        'part of the training images that chooses the "best" net and the plateaus; 0: the test images are measured '
        "after each epoch, and the last net counts",
    )
    early_stopping: int = key(0, kinds.integer(0), "epochs without improvement after which training ends; 0: never")
    metrics: list[str] = key([], kinds.names, "measured beside loss and accuracy: top5 and the like")
    dtype: str = key("float32", kinds.choice(*COMPUTED), "element type of activations and their gradients")
    emulate_bfloat16: bool = key(False, kinds.flag, "bfloat16 on any processor, slowly")
    winograd: bool = key(True, kinds.flag, "let convolutions multiply less and round more")
    tf32: bool = key(False, kinds.flag, "let a GPU's tensor cores round float32 to 10 bits of mantissa")
    seed: int = key(0, kinds.integer(0, 2**63 - 1), "of everything random")

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, check_key(field, value))
        if self.nesterov and (self.optimizer not in _ONLY_WITH["nesterov"] or self.momentum == 0.0):
            raise ArgumentError("recipe: 'nesterov' is true, expected optimizer sgd or muon with momentum above 0")
        if -1 < self.auxiliary_weight < 0:
            raise ArgumentError(f"recipe: 'auxiliary_weight' is {self.auxiliary_weight!r}, expected -1 or at least 0")
        given = self.mean and self.std and kinds.COMPUTED not in (self.mean, self.std)
        if given and 1 != len(self.mean) != len(self.std) != 1:
            raise ArgumentError(
                f"recipe: 'mean' is {self.mean!r} and 'std' {self.std!r}, expected as many numbers in both"
            )
        for name, make in (
            ("metrics", lambda: as_metrics(self.metrics)),
            ("augment", lambda: self.make_transform((224, 224, 3))),
            ("test_transform", self.make_test_transform),
            ("groups", self._make_groups),
        ):
            try:
                make()
            except ArgumentError as error:
                raise ArgumentError(f"recipe: '{name}': {error}") from None

    # ---- What it makes

    def make_net(self, **options: Any) -> Module:
        """Make the network with fresh weights.

        Args:
            options: Of the network, beside and before those of the recipe.

        Raises:
            ArgumentError: No network is named, or it or an option does not exist.
        """
        from pycnn import models

        if not self.net:
            raise ArgumentError("recipe: 'net' is '', expected the name of a network")
        return models.create(self.net, **{**self.option, **options})

    def make_optimizer(self) -> optim.Optimizer:
        """Make the optimizer."""
        exempt, groups = tuple(self.no_decay), self._make_groups()
        if self.optimizer == "sgd":
            return optim.SGD(
                self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
                no_decay=exempt,
                groups=groups,
            )
        if self.optimizer == "muon":
            return optim.Muon(
                self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
                vector_lr=self.vector_lr,
                no_decay=exempt,
                groups=groups,
            )
        kind = optim.Adam if self.optimizer == "adam" else optim.AdamW
        return kind(self.lr, weight_decay=self.weight_decay, no_decay=exempt, groups=groups)

    def _make_groups(self) -> list[optim.Group]:
        made = []
        for group in self.groups:
            settings = dict(group)
            made.append(optim.Group(*settings.pop("match"), **settings))
        return made

    def make_schedule(self, steps: int) -> optim.Schedule:
        """Make the schedule of a training of so many steps."""
        if self.schedule == "step":
            drops = self.milestones or sorted({max(1, self.epochs // 2), max(1, self.epochs * 3 // 4)})
            return optim.StepLR(drops, gamma=self.gamma)
        if self.schedule == "cosine":
            return optim.CosineWithWarmup(min(self.warmup_steps, steps // 10))
        if self.schedule == "one-cycle":
            return optim.OneCycle(rise=self.rise)
        if self.schedule == "plateau":
            return optim.ReduceOnPlateau(self.gamma, patience=self.patience)
        return optim.Constant()

    def make_transform(self, image_shape: tuple[int, int, int]) -> Transform | None:
        """Make the augmentation of images (H, W, C)."""
        return make_transform(self.augment, self.data, image_shape)

    def make_test_transform(self) -> Transform | None:
        """Make what is done to images that are measured."""
        if isinstance(self.test_transform, str):
            raise ArgumentError(f"{self.test_transform!r} is a name, expected a list of transforms")
        return make_transform(self.test_transform, self.data, (224, 224, 3))

    def make_callbacks(self) -> list[Callback]:
        """Make the callbacks that belong to the recipe: early stopping."""
        return [EarlyStopping(self.early_stopping)] if self.early_stopping else []

    def make_trainer(
        self,
        net: Module,
        train: Dataset | int,
        *,
        device: str = "cpu",
        threads: int | None = None,
        recompute: str = "cheap",
        loss: Any = None,
        normalize: bool = True,
    ) -> Trainer:
        """Make the trainer of a net.

        Args:
            net: As `make_net` gives it.
            train: The training images, or how many there are.
            device: As `Trainer`.
            threads: As `Trainer`.
            recompute: As `Trainer`.
            loss: As `Trainer`.
            normalize: Give the net the recipe's mean and std, and whiten its first layer if the recipe says so; False
                for a net that has its own.

        Raises:
            ArgumentError: The net or this version does not go with a key, or something is to be computed from the
                images and `train` is a number.
        """
        if normalize and kinds.COMPUTED in (self.mean, self.std):
            if isinstance(train, int):
                raise ArgumentError(
                    "recipe: 'mean' or 'std' is 'computed', and there are no images to compute it from\n"
                    "  hint: give make_trainer the training images, not their number"
                )
            settled = self.with_statistics(train)
            return settled.make_trainer(net, train, device=device, threads=threads, recompute=recompute, loss=loss)
        if normalize and self.whiten:
            if isinstance(train, int):
                raise ArgumentError(
                    "recipe: 'whiten' is true, and there are no images to compute it from\n"
                    "  hint: give make_trainer the training images, not their number"
                )
            mean, std = (cast(list[float], numbers) for numbers in (self.mean, self.std))  # settled above
            whiten(first_convolution(net), train, mean=mean, std=std)
        count = train if isinstance(train, int) else len(train)
        batches = count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        has_norm = normalize and bool(self.mean or self.std)
        return Trainer(
            net,
            loss=loss,
            optimizer=self.make_optimizer(),
            schedule=self.make_schedule(self.epochs * batches),
            dtype=self.dtype,
            emulate_bfloat16=self.emulate_bfloat16,
            winograd=self.winograd,
            tf32=self.tf32,
            device=device,
            threads=threads,
            recompute=recompute,
            seed=self.seed,
            clip_norm=self.clip_norm or None,
            ema_decay=self.ema or None,
            label_smoothing=self.label_smoothing,
            auxiliary_weight=None if self.auxiliary_weight == -1 else self.auxiliary_weight,
            metrics=tuple(dict.fromkeys(("accuracy", *self.metrics))),
            normalize=(self.mean or None, self.std or None) if has_norm else None,
        )

    def fit_options(self, train: Dataset) -> dict[str, Any]:
        """Arguments of `Trainer.fit`: epochs, batch size, transforms; callbacks are apart (`make_callbacks`).

        Example:
            >>> import pycnn as pc
            >>> way = pc.train.recipe("lenet5-digits", epochs=1)
            >>> train, test = pc.data.digits(seed=0)
            >>> trainer = way.make_trainer(way.make_net(), train)
            >>> history = trainer.fit(train, val=test, progress=False, **way.fit_options(train))
            >>> len(history)
            1
        """
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "transform": self.make_transform(train.image_shape),
            "val_transform": self.make_test_transform(),
        }

    # ---- Variations

    def with_statistics(self, train: Dataset) -> Recipe:
        """The recipe with numbers in place of "computed": mean and deviation of the colours of images.

        Args:
            train: The images; each is read once. Nothing is read when there is nothing to compute.

        Example:
            >>> import pycnn as pc
            >>> train, _ = pc.data.digits(seed=0)
            >>> way = pc.train.recipe("lenet5-digits", mean="computed", std="computed").with_statistics(train)
            >>> len(way.mean), len(way.std)
            (1, 1)
        """
        wanted = [name for name in ("mean", "std") if getattr(self, name) == kinds.COMPUTED]
        if not wanted:
            return self
        found = dict(zip(("mean", "std"), mean_std(train), strict=True))
        return self.override(**{name: list(found[name]) for name in wanted})

    def override(self, **changes: Any) -> Recipe:
        """The recipe with other values.

        A change to adam or adamw without a learning rate limits that to 0.002, one to muon to 0.05.

        Raises:
            ArgumentError: There is no such key, or a value is refused.
        """
        _check_names(changes, "recipe")
        optimizer = changes.get("optimizer", self.optimizer)
        _check_goes_with(optimizer, changes)
        if optimizer != self.optimizer and optimizer in _MAX_LR:
            changes = {"lr": min(self.lr, _MAX_LR[optimizer]), **changes}
        if optimizer not in _ONLY_WITH["nesterov"]:
            changes = {"nesterov": False, **changes}
        option = {**self.option, **changes.pop("option", {})}
        return Recipe(**{**asdict(self), **changes, "option": option})

    def to_dict(self) -> dict[str, Any]:
        """All keys and values, as a file would hold them."""
        values = asdict(self)
        for name, optimizers in _ONLY_WITH.items():
            if self.optimizer not in optimizers:
                del values[name]
        return values


def check_key(field: Field[Any], value: Any) -> Any:
    """The settled value of a key.

    Raises:
        ArgumentError: It is of another kind or out of range.
    """
    kind: kinds.Kind = field.metadata["kind"]
    try:
        return kind.check(value)
    except ArgumentError as error:
        raise ArgumentError(f"recipe: '{field.name}': {error}") from None
    except (ValueError, TypeError):
        raise ArgumentError(f"recipe: '{field.name}' is {value!r}, expected {kind.expected}") from None


def _check_goes_with(optimizer: Any, values: Mapping[str, Any]) -> None:
    for name, optimizers in _ONLY_WITH.items():
        if name in values and optimizer not in optimizers:
            raise ArgumentError(f"recipe: {name!r} goes with optimizer {' or '.join(optimizers)}, not {optimizer!r}")


def _check_names(values: Mapping[str, Any], who: str) -> None:
    known = [field.name for field in fields(Recipe)]
    for name, value in values.items():
        if name not in known:
            close = get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise ArgumentError(f"{who}: there is no key '{name}' (value {value!r}); there is {', '.join(close)}")


# ---- Files


def recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("pycnn") / "recipes"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def recipe(name: str | os.PathLike[str], **changes: Any) -> Recipe:
    """Read a recipe.

    Args:
        name: One of `recipes`, or the path of a ``.toml`` file.
        changes: Values of keys that replace the file's.

    Returns:
        The recipe; all that it leaves out has the defaults of `Recipe`.

    Raises:
        ArgumentError: There is no such recipe, or a change is refused.
        FileError: The file cannot be read.
        FormatError: It is no TOML, or a key is unknown or its value refused; file, key and value are named, and what
            was expected.

    Example:
        >>> recipe("alexnet").weight_decay
        0.0005
        >>> recipe("cifar_resnet20", epochs=2).epochs
        2
    """
    base = _read(name)
    return base.override(**changes) if changes else base


def keys_in_file(name: str | os.PathLike[str]) -> frozenset[str]:
    """The keys that a recipe's file gives; all others have their defaults.

    Raises:
        ArgumentError: There is no such recipe.
        FileError: The file cannot be read.
        FormatError: It is no TOML.
    """
    _, values = _values(name)
    return frozenset(values)


def _values(name: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """What messages call the file, and its content."""
    text = os.fspath(name)
    if text.endswith(".toml") or os.sep in text:
        where = f"recipe '{text}'"
        try:
            data = as_path(text, who="recipe").read_bytes()
        except OSError as error:
            raise FileError(error.errno, error.strerror, text) from None
    else:
        known = recipes()
        if text not in known:
            close = get_close_matches(text, known, n=4, cutoff=0.4) or known
            raise ArgumentError(
                f"recipe: no recipe is called {text!r}\n  hint: there is {', '.join(close)}; files end in .toml"
            )
        where = f"recipe '{text}'"
        data = (resources.files("pycnn") / "recipes" / f"{text}.toml").read_bytes()
    try:
        return where, tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"{where}: this is no TOML: {error}") from None


def _read(name: str | os.PathLike[str]) -> Recipe:
    where, values = _values(name)
    try:
        _check_names(values, "recipe")
        _check_goes_with(values.get("optimizer", "sgd"), values)
        return Recipe(**values)
    except ArgumentError as error:
        raise FormatError(f"{where}{str(error).removeprefix('recipe')}") from None


def find_recipe(net: str, data: str) -> str:
    """Name of the recipe that is used when none is asked for.

    That of the network on these data, else the one of the network, if it is for these data, else the one for any
    network on these data.
    """
    known = recipes()
    if f"{net}-{data}" in known:
        return f"{net}-{data}"
    if net in known and recipe(net).data == data:
        return net
    return f"any-{data}"
