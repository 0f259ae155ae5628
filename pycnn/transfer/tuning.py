"""Fine-tuning: some layers of a trained net go on learning on new images, the others stay as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pycnn.arguments import as_integer, as_number
from pycnn.data import Dataset, Loader
from pycnn.errors import ArgumentError
from pycnn.nn import heads, init
from pycnn.nn.module import Module
from pycnn.optim import SGD, CosineWithWarmup, Group
from pycnn.program import require_device
from pycnn.train import History, Trainer
from pycnn.transfer.labelled import as_labelled, images_by_class
from pycnn.transfer.layers import depth_groups
from pycnn.transfer.recording import Recording

__all__ = ["SMALL_BATCH", "WORTH_FREEZING", "FineTuned", "chosen_groups", "finetune", "fresh_head"]

#: Below so many images in a batch, its own statistics are too noisy for batch norms (`finetune`).
SMALL_BATCH = 32
#: Layers that hold a smaller share of the weights below the head are not frozen by "more" (`finetune`).
WORTH_FREEZING = 0.1

Part = Literal["head", "few", "more", "all"]
Statistics = Literal["auto", "frozen", "train"]


@dataclass(frozen=True)
class FineTuned:
    """What `finetune` did.

    Attributes:
        net: The net itself.
        trained: Names of the parameters that learned.
        frozen: Names of those that did not. What lies behind the cut of an `Encoder` is in neither.
        history: Of all epochs, those of the head alone first.
        val_accuracy: After the last epoch, 0..1; None without validation data.
    """

    net: Module
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    history: History
    val_accuracy: float | None


def finetune(
    net: Module,
    train: Dataset | tuple[Any, Any],
    val: Dataset | tuple[Any, Any] | None = None,
    *,
    part: Part | int | Sequence[str] = "few",
    epochs: int = 15,
    head_epochs: int | None = None,
    lr: float = 0.01,
    lr_decay: float = 0.5,
    weight_decay: float = 5e-4,
    batch_size: int = 32,
    transform: Any = None,
    statistics: Statistics = "auto",
    keep_head: bool = False,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> FineTuned:
    """Train the upper layers of a net on new images: first the head alone, then more.

    A call that is refused leaves the net as it was.

    Frozen layers are neither differentiated nor is anything of them stored for the backward pass: a step costs their
    forward pass only. Their batch norms use and keep their running statistics.

    Layer groups go from the head down to the image (`depth_groups`), each with the rate of the one above times
    `lr_decay` (Howard, Ruder 2018, section 3.2). SGD with momentum 0.9; in each phase the rate falls along a cosine.

    Layers are frozen to withhold weights from too little data. In most nets the lower half of the groups holds few: a
    twentieth in ResNet-20, a hundredth in ResNet-50 and VGG-16. Freezing those would protect from nothing, and would
    hold fast just the layers that see the other kind of pixels; so "more" is all layers there, and half of the groups
    in nets as GoogLeNet and DenseNet-121, where the lower half holds a sixth and more.

    Args:
        net: Trained; it knows the size of its input. It is changed in place, and its parameters are trainable or
            frozen afterwards as they were while training.
        train: A data set of `pycnn.data`, or ``(images, labels)``.
        val: Measured after every epoch.
        part: What learns after the head: "head" alone, "few" (a quarter of the groups below it, at least one), "more"
            (half of them; all where the others hold less than a tenth of the weights below the head), "all"; how many
            groups, head included; or patterns of names of parameters and modules (the head always learns).
        epochs: In all.
        head_epochs: Of these, the first ones train the head alone; fewer than `epochs`. Default: a third of them, at
            least one if there is more than one. Without meaning for "head".
        lr: Rate of the head.
        lr_decay: Factor from each group to the next below, above 0 and at most 1.
        weight_decay: L2 penalty, not of biases and norms.
        batch_size: Images in a step.
        transform: Augmentation, of `pycnn.data.transforms`.
        statistics: What batch norms of layers that learn do: "train" uses and collects the statistics of batches,
            "frozen" does not; "auto" freezes where batches have less than `SMALL_BATCH` images.
        keep_head: Go on from the head that is there rather than from a fresh one; it must give as many classes, and
            where the net knows their names, the same ones in the same order.
        seed: Of the fresh head, shuffling, augmentation and dropout.
        threads: At most this many; None chooses.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        progress: Report on stderr.

    Returns:
        The net, what learned, and the history.

    Raises:
        ArgumentError: An argument is out of range, a pattern matches nothing, or there are fewer than two classes.
        GraphError: No dense layer or convolution gives the scores.
        ShapeError: The images do not fit the net.
        LabelError: A label is outside of the classes.
        TrainingError: The loss is not finite.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn as pc
        >>> train, val = pc.data.digits(seed=0)
        >>> few = pc.data.subset(train, range(64))
        >>> net = pc.models.create("lenet5").build((28, 28, 1))
        >>> tuned = finetune(net, few, part=["fc2"], epochs=2, head_epochs=1)
        >>> tuned.trained
        ('fc2.weight', 'fc2.bias', 'fc3.weight', 'fc3.bias')
    """
    who = "finetune"
    data = as_labelled(train, who=f"{who}: train")
    held_out = None if val is None else as_labelled(val, who=f"{who}: val")
    classes = len(data.class_names)
    _check(data, held_out, who)
    total = as_integer(epochs, who=who, name="epochs", low=1)
    first = max(1, total // 3) if head_epochs is None else as_integer(head_epochs, who=who, name="head_epochs", low=0)
    if head_epochs is None and total == 1:
        first = 0
    size = min(as_integer(batch_size, who=who, name="batch_size", low=1), len(data))
    rate = as_number(lr, who=who, name="lr", low=0.0, above=True)
    decay = as_number(lr_decay, who=who, name="lr_decay", low=0.0, high=1.0, above=True)
    if statistics not in ("auto", "frozen", "train"):
        raise ArgumentError(f"{who}: statistics must be 'auto', 'frozen' or 'train', got {statistics!r}")
    hold = statistics == "frozen" or (statistics == "auto" and size < SMALL_BATCH)
    all_groups = depth_groups(net)
    used = {name for names in all_groups for name in names}
    groups = _chosen(net, all_groups, part, who)
    if len(groups) > 1 and first >= total:
        raise ArgumentError(f"{who}: head_epochs ({first}) must be fewer than epochs ({total})")
    require_device(device, who=who)
    phases = [(groups[:1], total)] if len(groups) == 1 else [(groups[:1], first), (groups, total - first)]
    phases = [(learning, count) for learning, count in phases if count]
    trainers = [
        Trainer(
            net,
            optimizer=SGD(
                lr=rate,
                momentum=0.9,
                weight_decay=weight_decay,
                no_decay=("bias", "norm"),
                groups=[Group(*names, lr_scale=decay**depth) for depth, names in enumerate(learning) if depth],
            ),
            schedule=CosineWithWarmup(),
            seed=as_integer(seed, who=who, name="seed", low=0, high=2**63 - 1),
            threads=None if threads is None else as_integer(threads, who=who, name="threads", low=1),
            device=device,
        )
        for learning, _ in phases
    ]
    _check_images(net, data, held_out, transform)
    if keep_head:
        _check_head(net, tuple(str(name) for name in data.class_names), who)
    else:
        fresh_head(net, classes, seed=seed)
    history = History()
    for (learning, count), trainer in zip(phases, trainers, strict=True):
        _freeze(net, learning, hold)
        trainer.fit(data, held_out, epochs=count, batch_size=size, transform=transform, progress=progress)
        for row in trainer.history:
            history.append({**row, "epoch": len(history) + 1})
        history.fingerprint = trainer.history.fingerprint
    learned = {name for names in groups for name in names}
    everything = [name for name, _ in net.named_parameters() if name in used]
    return FineTuned(
        net,
        tuple(name for name in everything if name in learned),
        tuple(name for name in everything if name not in learned),
        history,
        float(history["val_accuracy"][-1]) if held_out is not None else None,
    )


def fresh_head(net: Module, num_classes: int, *, seed: int = 0) -> tuple[str, ...]:
    """Start the layers that give the scores anew, whatever number of classes they had.

    Args:
        net: The net; it is changed in place.
        num_classes: Scores that it shall give.
        seed: Of the new weights: uniform in ±1 / sqrt(inputs of the layer).

    Returns:
        Names of the fresh parameters.

    Raises:
        GraphError: No dense layer or convolution gives the scores.
        UnsupportedError: What follows the head has the old number of classes built in.
        ArgumentError: `num_classes` is not positive, or the size of the net's input is not known.

    Example:
        >>> import pycnn as pc
        >>> fresh_head(pc.models.create("lenet5"), 3, seed=1)
        ('fc3.weight', 'fc3.bias')
    """
    heads.replace_head(net, num_classes)
    names = heads.head_names(net)
    parameters = dict(net.named_parameters())
    for name in names:
        layer = name.rpartition(".")[0]
        # A bias is drawn with the fans of its weight.
        weight = next(parameters[other] for other in names if other.rpartition(".")[0] == layer)
        parameters[name].draw(init.default(init.fans_of(weight)), seed)
    metadata = getattr(net, "metadata", None)
    if metadata is not None:
        metadata.pop("class_names", None)
    return names


def _check(train: Dataset, val: Dataset | None, who: str) -> None:
    seen = images_by_class(train)
    if np.count_nonzero(seen) < 2:
        raise ArgumentError(f"{who}: all {len(train)} images are of one class; there is nothing to tell apart")
    if not seen.all():
        raise ArgumentError(f"{who}: class '{train.class_names[int((seen == 0).argmax())]}' has no image")
    if val is not None and tuple(val.class_names) != tuple(train.class_names):
        raise ArgumentError(
            f"{who}: the classes of train and val differ: {', '.join(train.class_names)}; {', '.join(val.class_names)}"
        )


def _check_images(net: Module, train: Dataset, val: Dataset | None, transform: Any) -> None:
    """Refuse images that do not fit the net, and a transform that does not fit them."""
    shapes = [Loader(train, 1, transform=transform).image_shape, *([] if val is None else [val.image_shape])]
    for shape in shapes:
        Recording(net, shape, who="finetune", heads=True)


def _check_head(net: Module, classes: tuple[str, ...], who: str) -> None:
    parameters = dict(net.named_parameters())
    for name in heads.head_names(net):
        count = parameters[name].shape[0]
        if count != len(classes):
            raise ArgumentError(f"{who}: keep_head, but the head gives {count} classes and the data has {len(classes)}")
    known = _class_names(net)
    if known is not None and known != classes:
        raise ArgumentError(
            f"{who}: keep_head, but the net knows the classes {', '.join(known)}; the data has {', '.join(classes)}"
        )


def _class_names(net: Module) -> tuple[str, ...] | None:
    """Names that a net from a file gives its classes, if it does."""
    try:
        names = json.loads(getattr(net, "metadata", {}).get("class_names", "null"))
    except ValueError:
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def chosen_groups(net: Module, groups: Sequence[tuple[str, ...]], part: str) -> list[tuple[str, ...]]:
    """Of groups from the head down (`depth_groups`), those that learn: "head", "few", "more" or "all"."""
    below = len(groups) - 1
    counts = {"head": 0, "few": max(1, below // 4), "more": -(-below // 2), "all": below}
    count = counts[part]
    if part == "more":
        elements = {name: parameter.size for name, parameter in net.named_parameters()}
        sizes = [sum(elements[name] for name in names) for names in groups[1:]]
        if sum(sizes[count:]) < WORTH_FREEZING * sum(sizes):
            count = below
    return list(groups[: 1 + count])


def _chosen(net: Module, groups: list[tuple[str, ...]], part: Any, who: str) -> list[tuple[str, ...]]:
    """Of all groups those that learn, the head first."""
    if isinstance(part, str):
        if part not in ("head", "few", "more", "all"):
            raise ArgumentError(f"{who}: part must be 'head', 'few', 'more', 'all', a number or patterns, got {part!r}")
        return chosen_groups(net, groups, part)
    if isinstance(part, int) and not isinstance(part, bool):
        return groups[: as_integer(part, who=who, name="part", low=1, high=len(groups))]
    if not isinstance(part, Sequence):
        raise ArgumentError(f"{who}: part must be 'head', 'few', 'more', 'all', a number or patterns, got {part!r}")
    from pycnn.nn._state import select

    used = {name for names in groups for name in names}
    known = {name: parameter for name, parameter in net.named_parameters() if name in used}
    wanted = select(known, tuple(part), who=who) if part else {}
    found = [tuple(name for name in names if name in wanted) for names in groups[1:]]
    return [groups[0], *(names for names in found if names)]


def _freeze(net: Module, learning: Sequence[tuple[str, ...]], hold: bool) -> None:
    """Let only these parameters learn, and batch norms of other layers keep their statistics, or all with `hold`."""
    wanted = {name for names in learning for name in names}
    layers = {name.rpartition(".")[0] for name in wanted}
    used = {id(tensor) for tensor in net._used_parameters(set())}
    for name, tensor in net.named_tensors():
        if id(tensor) not in used:
            continue
        if tensor.is_buffer:
            tensor.frozen = hold or name.rpartition(".")[0] not in layers
        else:
            tensor.trainable = name in wanted
    net._changed()
