"""What is computed: a net with its weights and a batch, one copy for all that take part."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import pycnn as pc


@dataclass(frozen=True)
class NetPlan:
    """How a net is measured.

    Attributes:
        batch: Images.
        image: (H, W, C).
        options: Of `models.create`.
    """

    batch: int
    image: tuple[int, int, int]
    options: dict[str, Any]


# The heads of GoogLeNet take part in training only, and not everywhere; here they are left out for all.
NETS = {
    "lenet5": NetPlan(256, (28, 28, 1), {}),
    "alexnet": NetPlan(32, (224, 224, 3), {}),
    "vgg16": NetPlan(8, (224, 224, 3), {}),
    "googlenet": NetPlan(16, (224, 224, 3), {"aux_logits": False}),
    "resnet18": NetPlan(16, (224, 224, 3), {}),
    "resnet50": NetPlan(16, (224, 224, 3), {}),
    "resnext50_32x4d": NetPlan(16, (224, 224, 3), {}),
}
RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        net: Name in `pycnn.models`.
        batch: Images.
        mode: "infer" or "train".
        dtype: "float32" or "bfloat16".
        threads: Of everybody.
        seed: Of weights and images.
    """

    net: str
    batch: int
    mode: str
    dtype: str
    threads: int
    seed: int = 0

    def __str__(self) -> str:
        """In a line of progress."""
        return f"{self.net}, {self.mode}, {self.dtype}, batch {self.batch}"


class Workload:
    """Net and batch of a case.

    Args:
        case: What to build.
        folder: For files that peers read.

    Attributes:
        x: (N, H, W, C) float32, of mean 0 and deviation 1.
        y: (N,) int64 labels.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        pc.manual_seed(case.seed)
        plan = NETS.get(case.net)
        self.net = pc.models.create(case.net, **(plan.options if plan else {}))
        image = plan.image if plan else self.net.input_shape
        if image is None:
            raise SystemExit(f"{case.net} has no input shape of its own; its kind of net is not in {', '.join(NETS)}")
        self.net.build(image)
        rng = np.random.default_rng(case.seed)
        self.net.load_state_dict(_lively(self.net.state_dict(), rng))
        self.x = rng.standard_normal((case.batch, *image), np.float32)
        self.classes = int(self.net(self.x[:1]).shape[1])
        self.y = rng.integers(0, self.classes, case.batch)

    @cached_property
    def x_nchw(self) -> np.ndarray:
        """The images as (N, C, H, W), contiguous."""
        return np.ascontiguousarray(self.x.transpose(0, 3, 1, 2))

    @cached_property
    def watched(self) -> list[str]:
        """Names of a few weights all through the net whose updates are compared."""
        names = [name for name, p in self.net.named_parameters() if p.trainable and len(p.shape) > 1]
        return [names[i] for i in sorted({0, len(names) // 3, 2 * len(names) // 3, len(names) - 1})]

    def fresh_net(self) -> pc.nn.Module:
        """A copy of the net with the first weights."""
        plan = NETS.get(self.case.net)
        net = pc.models.create(self.case.net, **(plan.options if plan else {}))
        net.build(self.x.shape[1:])
        net.load_state_dict(self.net.state_dict())
        for layer, own in zip(_dropouts(net), _dropouts(self.net), strict=True):
            layer.p = own.p
        return net

    @property
    def has_dropout(self) -> bool:
        """Whether training draws random numbers."""
        return any(layer.p for layer in _dropouts(self.net))

    def without_dropout(self) -> Workload:
        """The same, for the check of a training step: nobody draws the masks of another library."""
        other = object.__new__(Workload)
        other.__dict__.update(self.__dict__)
        other.net = self.fresh_net()
        for layer in _dropouts(other.net):
            layer.p = 0.0
        return other

    def twin(self) -> Any:
        """The net in PyTorch, with its present weights, unrolled to plain calls."""
        import torch

        from benchmarks.torch_twin import TorchTwin

        twin = TorchTwin(self.net).train(self.case.mode == "train")
        # One straight function: nothing of the twin's own loop is left to slow the peer down.
        return torch.fx.symbolic_trace(twin).train(self.case.mode == "train")

    def onnx(self) -> Path:
        """The net as an ONNX file with input "x" (N, C, H, W) and output "scores"."""
        path = self.folder / f"{self.case.net}-{self.case.batch}.onnx"
        if not path.exists():
            import torch

            from benchmarks.torch_twin import TorchTwin

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    TorchTwin(self.net).eval(),
                    (torch.from_numpy(self.x_nchw),),
                    str(path),
                    input_names=["x"],
                    output_names=["scores"],
                    opset_version=17,
                    dynamo=False,
                )
        return path


def _lively(state: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Batch norms that do something: fresh ones are the identity, and a mistake in folding them would not show."""
    result = dict(state)
    for name in state:
        prefix, _, last = name.rpartition(".")
        if last == "running_mean":
            shape = state[name].shape
            result[name] = rng.normal(0, 0.1, shape).astype(np.float32)
            for part in ("running_var", "weight"):
                result[f"{prefix}.{part}"] = rng.uniform(0.8, 1.2, shape).astype(np.float32)
            result[f"{prefix}.bias"] = rng.normal(0, 0.1, shape).astype(np.float32)
    return result


def _dropouts(module: pc.nn.Module) -> Iterator[Any]:
    return (layer for _, layer in module.named_modules() if isinstance(layer, pc.nn.Dropout))
