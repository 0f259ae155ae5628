"""The programs of a trainer: one for each batch shape, all over the same arrays.

Images go through the net; its result and the target give the output "loss", which a training
program minimises, and one further scalar for each metric.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn import functional
from pycnn.changes import clock
from pycnn.data.transforms._windows import Uncut, Windows
from pycnn.errors import ArgumentError, GraphError, LabelError, ShapeError
from pycnn.nn._running import StructureWatch, check_images
from pycnn.nn.auxiliary import Auxiliary, collect_auxiliary, total_loss
from pycnn.nn.module import Module
from pycnn.program import GradientExchange, OptimizerSpec, Program, Variables, compile_traced
from pycnn.tensor import Parameter, expect_memory
from pycnn.tracing import Symbol, Traced, freeze_statistics, scope, trace
from pycnn.train._batches import check_labels, check_probabilities, one_hot
from pycnn.train.metrics import Metric

__all__ = ["AHEAD", "IMAGES", "MEASURED_IMAGES", "BatchProgram", "Objective", "PendingMeans", "ProgramSet", "in_turn"]

_CACHED = 6
#: What the images of a whole data set are called among the arrays that programs share: for training, and for measuring.
IMAGES = "images of the data set"
MEASURED_IMAGES = "images that are measured"
#: Steps on a GPU that are begun before the result of one is looked at. Results stay there meanwhile; some come at once.
AHEAD = 12


@dataclass(frozen=True)
class Objective:
    """What is minimised and measured.

    Attributes:
        name: "cross_entropy", "mse" or the function's own name.
        loss: From the net's result and a target to a scalar symbol.
        one_hot: Class labels become targets of 0 and 1.
        metrics: Beside the loss, where there are class labels.
        auxiliary_weight: Of the losses of auxiliary heads; None takes those of the net.
        reads_labels: Class labels go into an op that refuses those that are out of range.
    """

    name: str
    loss: Callable[[Any, Symbol], Symbol]
    one_hot: bool
    metrics: tuple[Metric, ...]
    auxiliary_weight: float | None = None
    reads_labels: bool = False


def make_objective(
    net: Module,
    loss: Any,
    label_smoothing: float,
    metrics: Sequence[Metric],
    auxiliary_weight: float | None = None,
) -> Objective:
    """Settle the loss.

    Raises:
        ArgumentError: It is not known, or label smoothing does not go with it.
    """
    own = getattr(net, "default_loss", None)
    if loss is None:
        loss = own if callable(own) else "cross_entropy"
    if label_smoothing and loss != "cross_entropy":
        raise ArgumentError("Trainer: label_smoothing goes with loss='cross_entropy' only")
    if loss == "cross_entropy":
        return Objective(
            "cross_entropy",
            lambda scores, y: functional.cross_entropy(_single(scores), y, label_smoothing=label_smoothing),
            False,
            tuple(metrics),
            auxiliary_weight,
            reads_labels=True,
        )
    if loss == "mse":
        error = lambda out, y: functional.mse_loss(_single(out), y)  # noqa: E731
        return Objective("mse", error, True, tuple(metrics), auxiliary_weight)
    if isinstance(loss, type):
        raise ArgumentError(f"Trainer: loss is the class {loss.__name__}\n  hint: write {loss.__name__}(...)")
    if not callable(loss):
        raise ArgumentError(
            f"Trainer: loss must be 'cross_entropy', 'mse' or a function of the net's result and "
            f"the target, got {loss!r}"
        )
    name = getattr(loss, "__name__", type(loss).__name__)
    return Objective(name, loss, False, tuple(metrics), auxiliary_weight)


def _single(result: Any) -> Symbol:
    if isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Symbol):
        raise GraphError(
            f"Trainer: the net gives {type(result).__name__}, the loss needs one Symbol\n"
            "  hint: a net with several results needs a loss function of its own"
        )
    return result


def _scalar(loss: Any) -> Symbol:
    if not isinstance(loss, Symbol) or loss.shape != ():
        shape = loss.shape if isinstance(loss, Symbol) else type(loss).__name__
        raise ShapeError(f"Trainer: the loss is {shape}, expected a scalar ()")
    return loss


@dataclass
class BatchProgram:
    """A program for one batch shape.

    Attributes:
        program: Takes x (of an `Uncut` batch images and places, or places alone), then the target, then, with
            `with_labels`, the labels.
        classes: Number of classes, when the target are class labels; otherwise None.
        metrics: Those that the program computes.
        with_labels: Targets are made from labels; both are inputs.
        probabilities: The target are probabilities of the classes.
        reads_labels: The program refuses labels that are out of range.
    """

    program: Program
    classes: int | None
    metrics: tuple[Metric, ...]
    with_labels: bool
    probabilities: bool
    reads_labels: bool

    def begin(self, x: np.ndarray | Uncut, y: np.ndarray, *, who: str, late: bool = False) -> PendingMeans:
        """Run on a batch without waiting for a GPU; means over its samples by name.

        `late`: nobody asks for them before some more runs.

        Raises:
            LabelError: A label is out of range.
            ArgumentError: A probability is negative.
        """
        arrays, samples, program = self._arrays(x, y, who), len(x), self.program
        try:
            if not program.overlaps:
                means = self._means(program.run(*arrays), samples)
                return PendingMeans(samples, lambda: means, overlaps=False)
            pending = program.begin(*arrays, late=late)
        except LabelError:
            if self.classes is not None:
                check_labels(y, self.classes, who=who)  # says more
            raise
        return PendingMeans(samples, lambda: self._means(pending.wait(), samples), overlaps=True)

    def _arrays(self, x: np.ndarray | Uncut, y: np.ndarray, who: str) -> list[np.ndarray]:
        images = [x] if not isinstance(x, Uncut) else [x.places] if x.is_whole else [x.images, x.places]
        arrays = [*images, y]
        if self.classes is not None:
            if not self.reads_labels:
                check_labels(y, self.classes, who=who)
            if self.with_labels:
                target = one_hot(y, self.classes)
                arrays = [*images, target, y] if len(self.program.inputs) == len(images) + 2 else [*images, target]
        elif self.probabilities:
            check_probabilities(y, who=who)
        return arrays

    def _means(self, results: Mapping[str, np.ndarray], samples: int) -> dict[str, float]:
        values = {"loss": float(results["loss"])}
        for metric in self.metrics:
            values[metric.name] = metric.value(float(results[metric.name]), samples)
        return values


class PendingMeans:
    """Means over a batch, by name, of a run that may be under way on a GPU.

    Attributes:
        samples: In the batch.
        overlaps: Whether the run may be under way.
    """

    def __init__(self, samples: int, wait: Callable[[], dict[str, float]], *, overlaps: bool) -> None:
        self.samples = samples
        self.overlaps = overlaps
        self._wait: Callable[[], dict[str, float]] | None = wait
        self._means: dict[str, float] = {}

    def wait(self) -> dict[str, float]:
        """The means, when they are there; may be called again, and by several threads."""
        wait = self._wait
        if wait is not None:
            self._means = wait()
            self._wait = None  # and with it the program, whose memory may be wanted
        return self._means


def in_turn(begun: Iterable[PendingMeans]) -> Iterator[PendingMeans]:
    """Runs as they end; those of a GPU are taken from `begun` some steps ahead, so that it never waits for data."""
    waiting: deque[PendingMeans] = deque()
    for pending in begun:
        waiting.append(pending)
        while len(waiting) > (AHEAD if pending.overlaps else 0):
            yield waiting.popleft()
    yield from waiting


@dataclass(frozen=True)
class _Recorded:
    """What a program is compiled from."""

    traced: Traced
    spec: OptimizerSpec | None
    classes: int | None
    metrics: tuple[Metric, ...]
    with_labels: bool
    probabilities: bool
    reads_labels: bool


class _Making:
    """A program that a thread is compiling."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.ended = threading.Event()


class ProgramSet:
    """Compiles and keeps the programs of a net for training or for evaluation.

    Several threads may ask for programs. They record one after the other and compile side by side; one that is being
    compiled is waited for.
    """

    def __init__(
        self,
        net: Module,
        objective: Objective,
        variables: Variables,
        *,
        device: str,
        threads: int | None,
        numerics: Mapping[str, Any],
        recompute: str,
        optimizer: Callable[[], OptimizerSpec] | None,
    ) -> None:
        self._net = net
        self._objective = objective
        self._variables = variables
        self._device = device
        self._threads = threads
        self._numerics = dict(numerics)
        self._recompute = recompute
        self._optimizer = optimizer
        #: Gets the gradients before they are used; to be set before the first program is made.
        self.exchange: GradientExchange | None = None
        #: Held but while a program is compiled, which takes minutes for a GPU. By one thread several times: a net's own
        #: code may measure while it is recorded.
        self.lock = threading.RLock()
        self._making: dict[Any, _Making] = {}
        self._programs: OrderedDict[Any, BatchProgram] = OrderedDict()
        self._watch = StructureWatch()
        self._flags = b""  # of the parameters, whether they are trained
        self._flags_at = -1
        self._images: Parameter | None = None
        #: Of the images among the arrays that programs share.
        self.images_name = MEASURED_IMAGES if optimizer is None else IMAGES

    def renew(self, lock: threading.RLock) -> None:
        """Go on in a forked child, where other threads compile nothing, or share a lock from the beginning."""
        self.lock = lock
        self._making = {}

    @property
    def keeps_images(self) -> bool:
        """Whether programs for whole `Uncut` batches can be had."""
        return self._images is not None

    def has_place_for(self, images: np.ndarray) -> bool:
        """Whether `keep_images` would take no more memory for these."""
        return self._images is not None and self._images.shape == images.shape

    def keep_images(self, images: np.ndarray) -> None:
        """Let programs for whole `Uncut` batches take windows of these images, as they are now.

        Raises:
            MemoryLimitError: There is no memory for a copy.
        """
        if self._images is not None and self.has_place_for(images):
            self._images.copy_(images)
            return
        self.drop_images()
        expect_memory("fit: no memory for a copy of all images", images.nbytes)
        self._images = Parameter(images.shape, init=images, trainable=False, dtype=images.dtype.name)
        self._images.name = self.images_name

    def drop_images(self) -> None:
        """Give back the memory of what `keep_images` copied, here and on the device."""
        if self._images is None:
            return
        self._images = None
        for key in [key for key in self._programs if key[-1] == "whole"]:
            del self._programs[key]
        if self.images_name in self._variables:  # where a program was made
            del self._variables[self.images_name]

    def get(self, x: np.ndarray | Uncut, y: np.ndarray) -> BatchProgram | None:
        """The program for arrays of these shapes and types.

        Returns:
            None where the images of a whole data set were dropped while it was made.
        """
        with self.lock:
            key = self._key(x, y)
            program = self._programs.get(key)
            if program is not None:
                self._programs.move_to_end(key)
                return program
        return self._make(x, y)

    def _make(self, x: np.ndarray | Uncut, y: np.ndarray) -> BatchProgram | None:
        """What `get` gives, of a program that is not there or is just being compiled by another thread."""
        key: Any = None
        images: Parameter | None = None
        program: BatchProgram | None = None
        making = _Making()
        try:
            while True:
                with self.lock:
                    key = self._key(x, y)
                    program = self._programs.get(key)
                    if program is not None:
                        return program
                    other = self._making.get(key)
                    # A handler of a signal may ask for what its own thread is making.
                    if other is None or other.thread == making.thread:
                        check_images(self._net, x.shape)
                        recorded, images = self._record(x, y), self._images
                        # Recording may have given lazy layers their sizes.
                        self._watch.settle(self._net)
                        structure = self._watch.structure
                        self._making[key] = making
                        break
                other.ended.wait()
            program = self._compile(recorded)
        finally:
            # Without the lock, which who waits for this may hold.
            if self._making.get(key) is making:
                del self._making[key]
            making.ended.set()
            if program is None and images is not None:
                with self.lock:
                    self._clear_dropped(key, images)
        with self.lock:
            if self._clear_dropped(key, images):
                return None
            self._net._remember_input(x.shape[1:])
            self._watch.clear_stale(self._net, self._programs)
            if self._watch.structure == structure:
                self._programs[key] = program
                if len(self._programs) > _CACHED:
                    self._programs.popitem(last=False)
        return program

    def _clear_dropped(self, key: Any, images: Parameter | None) -> bool:
        """Whether the images of a program of this key were dropped while it was made; no array has their name then."""
        if key[-1] != "whole" or self._images is images:
            return False
        if self._images is not None:  # others took their place, and may have programs
            self._variables.update({self.images_name: self._images})
        elif self.images_name in self._variables:
            del self._variables[self.images_name]
        return True

    def _key(self, x: np.ndarray | Uncut, y: np.ndarray) -> tuple[Any, ...]:
        """Of the program for such arrays, when those of another net are forgotten."""
        self._watch.clear_stale(self._net, self._programs)
        now = clock.now
        if self._optimizer is not None and self._flags_at != now:
            self._flags = bytes(bool(p.trainable) for p in self._net.parameters())
            self._flags_at = now
        key: tuple[Any, ...] = (self._flags, x.shape, x.dtype.char, y.shape, y.dtype.char)
        if isinstance(x, Uncut):
            windows = x.windows  # of whose random numbers a program knows nothing
            key += (x.images.shape[1:], windows.fill, windows.box_fill, "whole" if x.is_whole else "uncut")
        return key

    def classes(self, image_shape: Sequence[int]) -> int | None:
        """How many classes the net tells in images of one shape; None where its result is not (N, classes).

        Raises:
            ShapeError: A layer refuses the images.
        """
        shape = (1, *image_shape)
        check_images(self._net, shape)
        scores = self._scores_shape(shape, "float32")
        return scores[1] if len(scores) == 2 else None

    def _record(self, x: np.ndarray | Uncut, y: np.ndarray) -> _Recorded:
        objective = self._objective
        labelled = y.ndim == 1 and y.dtype.kind == "i"
        # The net's result tells the classes, which the target's shape may depend on.
        scores = self._scores_shape(x.shape, x.dtype.name) if labelled else None
        classes = scores[1] if scores is not None and len(scores) == 2 else None
        with_labels = objective.one_hot and labelled
        if labelled and classes is None:
            raise ShapeError(f"Trainer: the net gives {scores}, class labels need scores (N, classes)")
        metrics = objective.metrics if labelled else ()
        for metric in metrics:
            top = metric.name.removeprefix("top")
            if metric.counts and top.isdigit() and int(top) > (classes or 0):
                raise ArgumentError(f"Trainer: metric {metric.name!r} but {classes} classes")
        inputs: dict[str, tuple[Sequence[int], str]] = {"x": (x.shape, x.dtype.name)}
        if isinstance(x, Uncut):
            inputs = {} if x.is_whole else {"images": (x.images.shape, x.dtype.name)}
            inputs["places"] = (x.places.shape, "int64")
        if with_labels:
            inputs["target"] = ((len(x), classes or 0), "float32")
        if not with_labels or metrics:
            inputs["y"] = (y.shape, y.dtype.name)

        def function(**symbols: Symbol) -> dict[str, Symbol]:
            target = symbols["target" if with_labels else "y"]
            result, heads = self._forward(self._cut(x.windows, symbols) if isinstance(x, Uncut) else symbols["x"])
            loss = _scalar(objective.loss(result, target))
            loss = total_loss(
                loss, heads, lambda output: _scalar(objective.loss(output, target)), objective.auxiliary_weight
            )
            outputs = {"loss": loss}
            for metric in metrics:
                outputs[metric.name] = metric.build(_single(result), symbols["y"])
            return outputs

        traced = trace(function, inputs, root=self._net)
        spec = None
        if self._optimizer is not None:
            traced = freeze_statistics(traced)
            spec = self._optimizer()
            names = {name for name, p in traced.parameters.items() if not p.is_buffer}
            groups = tuple(
                replace(group, names=tuple(name for name in group.names if name in names)) for group in spec.groups
            )
            spec = replace(spec, groups=groups)
            frozen = {name for group in groups if group.frozen for name in group.names}
            if not names - frozen:
                raise ArgumentError(
                    f"Trainer: all {len(names)} parameters are frozen, nothing can be trained\n"
                    "  hint: net.unfreeze('fc*') for some of them"
                )
        soft = objective.name == "cross_entropy" and not labelled
        reads_labels = labelled and objective.reads_labels
        return _Recorded(traced, spec, classes if labelled else None, metrics, with_labels, soft, reads_labels)

    def _compile(self, recorded: _Recorded) -> BatchProgram:
        program = compile_traced(
            recorded.traced,
            variables=self._variables,
            mode="inference" if recorded.spec is None else "training",
            loss="loss",
            optimizer=recorded.spec,
            device=self._device,
            threads=self._threads,
            **self._numerics,
            recompute=self._recompute,
            exchange=self.exchange,
        )
        return BatchProgram(
            program,
            recorded.classes,
            recorded.metrics,
            recorded.with_labels,
            recorded.probabilities,
            recorded.reads_labels,
        )

    def _cut(self, windows: Windows, symbols: Mapping[str, Symbol]) -> Symbol:
        """The batch from images, the batch's or those of the whole data set."""
        images = symbols.get("images", self._images)
        with scope("windows"):
            return functional.take_windows(
                images, symbols["places"], size=windows.size, fill=windows.fill, box_fill=windows.box_fill
            )

    def _forward(self, x: Symbol) -> tuple[Any, list[Auxiliary]]:
        """The net's result, and those of its heads for training where they count."""
        if self._optimizer is None or self._objective.auxiliary_weight == 0:
            return self._net(x), []
        with collect_auxiliary() as heads:
            result = self._net(x)
        return result, heads

    def _scores_shape(self, shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
        traced = trace(lambda x: _single(self._net(x)), {"x": (shape, dtype)}, root=self._net)
        outputs = dict(traced.graph.outputs())
        return tuple(traced.graph.spec(outputs["output"])[0])
