"""The revolution of depth on one's own machine: networks of 1998 to 2017, same data, same budget.

Each network is the small-image form of a generation (see `pycnn.models.cifar_nets`), trained by the same recipe: one
cycle of the learning rate over as many steps as the budget allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import models, optim
from pycnn.config import manual_seed
from pycnn.data import Dataset, Loader
from pycnn.data.transforms import Transform
from pycnn.errors import ArgumentError
from pycnn.nn.module import Module
from pycnn.optional import optional
from pycnn.train import Trainer
from pycnn.train._files import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GENERATIONS", "Generation", "GenerationResult", "compare_generations", "draw_generations"]

_TIMED_STEPS = 4
_FEWEST_STEPS = 4


@dataclass(frozen=True)
class Generation:
    """A network of its time.

    Attributes:
        year: Of the paper.
        title: As people call it.
        net: Name for `pycnn.models.create`.
        lr: Peak of the learning rate; deep nets with batch norm bear more.
        options: Of the network.
    """

    year: int
    title: str
    net: str
    lr: float
    options: dict[str, Any] = field(default_factory=dict)


#: In the order of the lecture.
GENERATIONS = (
    Generation(1998, "LeNet-5", "lenet5", 0.05),
    Generation(2012, "AlexNet", "cifar_alexnet", 0.02),
    Generation(2014, "VGG", "cifar_vgg", 0.1),
    Generation(2014, "GoogLeNet", "cifar_googlenet", 0.1),
    Generation(2015, "ResNet-20", "cifar_resnet20", 0.1),
    Generation(2017, "ResNeXt-29", "cifar_resnext", 0.1),
)


@dataclass(frozen=True)
class GenerationResult:
    """What a network reached with the budget.

    Attributes:
        year: Of the paper.
        title: As people call it.
        net: Name of the network.
        parameters: Trainable numbers.
        macs: Multiply-adds for one image.
        steps: That the budget allowed.
        images: That were trained on, repetitions counted.
        seconds: Of training behind the first step, which compiles; of a single step, its own.
        seconds_per_1000_images: Of the same steps.
        train_loss: Mean over the last tenth of the steps.
        test_loss: On held-out images.
        test_accuracy: On held-out images, 0..1.
    """

    year: int
    title: str
    net: str
    parameters: int
    macs: int
    steps: int
    images: int
    seconds: float
    seconds_per_1000_images: float
    train_loss: float
    test_loss: float
    test_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)


def compare_generations(
    train: Dataset,
    test: Dataset,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    generations: Sequence[Generation] = GENERATIONS,
    batch_size: int = 128,
    transform: Transform | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    report: Callable[[str], None] | None = None,
) -> list[GenerationResult]:
    """Train each network with the same budget, and measure it.

    Args:
        train: Images of 28x28 or 32x32 pixels, grey or coloured.
        test: Held-out images.
        seconds: Budget of each network: its speed is measured first, which settles the number of steps. So the result
            depends on the machine.
        steps: Budget in steps instead; the result then depends on the seed alone.
        generations: Which networks.
        batch_size: Images in a step, at most as many as there are.
        transform: Augmentation.
        seed: Of fresh weights, shuffling, augmentation and dropout.
        device: "cpu", "cuda" (the first NVIDIA GPU), "cuda:N", or "auto", which is the CPU so far.
        threads: At most this many; None chooses.
        report: Told what is going on, a line at a time.

    Returns:
        A result for each network, in order.

    Raises:
        ArgumentError: Not exactly one of `seconds` and `steps` is given, or it is not positive; or `device` is no text.
        ShapeError: A network does not take such images.
        DeviceError: The device is absent.

    Example:
        >>> import pycnn as pc
        >>> train, test = pc.data.digits(seed=0)
        >>> (result,) = compare_generations(train, test, steps=5, generations=GENERATIONS[:1], batch_size=16)
        >>> result.net, result.images
        ('lenet5', 80)
    """
    if (seconds is None) == (steps is None):
        raise ArgumentError("compare_generations: give either seconds or steps")
    for name, value in (("seconds", seconds), ("steps", steps)):
        if value is not None and not value > 0:
            raise ArgumentError(f"compare_generations: {name} must be above 0, got {value!r}")
    batch_size = min(batch_size, len(train))
    say = report or (lambda _: None)
    results = []
    for generation in generations:
        loader = Loader(train, batch_size, seed=seed, transform=transform, drop_last=True)
        count = steps
        if count is None:
            assert seconds is not None
            each = _step_seconds(_trainer(generation, train, 1000, seed, device, threads), loader)
            count = max(int(seconds / each), _FEWEST_STEPS)
        say(f"{generation.title} ({generation.year}): {count:,} steps of {batch_size} images")
        result = _train(generation, train, test, loader, count, seed, device, threads)
        say(
            f"{generation.title} ({generation.year}): test accuracy {100 * result.test_accuracy:.2f} %, "
            f"{result.seconds:.1f} s of training"
        )
        results.append(result)
    return results


def _net(generation: Generation, data: Dataset, seed: int) -> Module:
    manual_seed(seed)
    options = {**generation.options, "num_classes": len(data.class_names), "input_shape": data.image_shape}
    return models.create(generation.net, **options).build(data.image_shape)


def _trainer(generation: Generation, data: Dataset, steps: int, seed: int, device: str, threads: int | None) -> Trainer:
    optimizer = optim.SGD(lr=generation.lr, momentum=0.9, weight_decay=5e-4, no_decay=("bias", "norm"))
    schedule = optim.OneCycle(rise=0.25, total_steps=steps)
    net = _net(generation, data, seed)
    return Trainer(net, optimizer=optimizer, schedule=schedule, seed=seed, device=device, threads=threads)


def _step_seconds(trainer: Trainer, loader: Loader) -> float:
    """Median time of a step, the waiting for data included; the first step compiles and does not count."""
    times: list[float] = []
    while len(times) <= _TIMED_STEPS:
        last = time.perf_counter()
        for x, y in loader:
            trainer.step(x, y)
            now = time.perf_counter()
            times.append(now - last)
            last = now
            if len(times) > _TIMED_STEPS:
                break
    loader.seek(0, 0)
    return float(np.median(times[1:]))


def _train(
    generation: Generation,
    train: Dataset,
    test: Dataset,
    loader: Loader,
    steps: int,
    seed: int,
    device: str,
    threads: int | None,
) -> GenerationResult:
    trainer = _trainer(generation, train, steps, seed, device, threads)
    losses: list[float] = []
    images = untimed = 0
    started = time.perf_counter()
    while trainer.steps < steps:
        for x, y in loader:
            losses.append(trainer.step(x, y)["loss"])
            images += len(x)
            if trainer.steps == steps:
                break
            if trainer.steps == 1:  # it compiles, for minutes on a GPU
                started, untimed = time.perf_counter(), images
    seconds = time.perf_counter() - started
    measured = trainer.evaluate(test)
    return GenerationResult(
        year=generation.year,
        title=generation.title,
        net=generation.net,
        parameters=trainer.net.num_parameters,
        macs=int(trainer.net.summary(train.image_shape).to_dict()["macs"]),
        steps=steps,
        images=images,
        seconds=seconds,
        seconds_per_1000_images=1000.0 * seconds / (images - untimed),
        train_loss=float(np.mean(losses[-max(steps // 10, 1) :])),
        test_loss=measured["loss"],
        test_accuracy=measured["accuracy"],
    )


def draw_generations(
    results: Sequence[GenerationResult], path: str | PathLike[str] | None = None, *, title: str = "Generations of nets"
) -> Figure:
    """Draw accuracy against parameters, multiply-adds and training time.

    Args:
        results: Of `compare_generations`.
        path: Write the picture here too; the ending says the format.
        title: Above the picture.

    Returns:
        A matplotlib figure.

    Raises:
        ArgumentError: There is no result.
        UnsupportedError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    if not results:
        raise ArgumentError("draw_generations: there is no result to draw")
    optional("matplotlib", extra="plot", who="draw_generations")
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11.0, 4.8), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    figure.suptitle(title)
    accuracies = [100 * result.test_accuracy for result in results]
    colors = colormaps["viridis"](np.linspace(0.0, 0.9, len(results)))
    columns: tuple[tuple[str, list[float]], ...] = (
        ("parameters", [float(r.parameters) for r in results]),
        ("multiply-adds for an image", [float(r.macs) for r in results]),
        ("training time for 1,000 images (s)", [r.seconds_per_1000_images for r in results]),
    )
    for axis, (label, values) in zip(axes, columns, strict=True):
        axis.plot(values, accuracies, color="#bbbbbb", linewidth=1, zorder=1)
        for index, result in enumerate(results):
            axis.scatter(
                values[index],
                accuracies[index],
                s=60,
                color=colors[index],
                marker="osD^vP*X<>"[index % 10],
                zorder=2,
                label=f"{result.title} ({result.year})",
            )
        axis.set_xscale("log")
        axis.margins(x=0.15, y=0.1)
        axis.xaxis.set_major_formatter(FuncFormatter(_short))
        axis.xaxis.set_minor_formatter(FuncFormatter(partial(_minor, span=max(values) / min(values))))
        axis.tick_params(axis="x", which="minor", labelsize="small")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("accuracy on held-out images (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(results), 6), frameon=False)
    if path is not None:
        save_figure(figure, path, who="plot")
    return figure


def _short(value: float, _position: int | None = None) -> str:
    """A number of an axis: 300k, 20M, 0.5."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _minor(value: float, _position: int | None = None, *, span: float) -> str:
    """Label 2 and 5 between the powers of ten where an axis spans little."""
    leading = value / 10 ** np.floor(np.log10(value))
    return "" if span > 60 or round(leading) not in (2, 5) else _short(float(f"{value:.6g}"))
