"""Whole nets on a GPU: pycnn beside PyTorch at its best, in turns in one process.

    python tools/gpu_times.py OUTPUT_DIR [--seconds S] [--compiled] [--rows KIND:NET:BATCH[:DTYPE],...]
    python tools/gpu_times.py --tune [--seconds S]    # only compiles, which chooses kernels and keeps the choices

KIND is train or infer, DTYPE bfloat16 or float16. PyTorch runs a twin of the net with the same weights, channels last,
bfloat16 by autocast in training and by bfloat16 weights in inference. The images of both lie on the GPU, PyTorch's as
normalised numbers, pycnn's as bytes, which each step gathers and normalises as `fit` has it (augment_in="resident"); of
the first rows the same is timed with bytes that come from the host in each step, too ("host-fed"). Nobody waits for a
step before the next is given. pycnn's are given by `Program.begin` and of LeNet-5, whose steps are short, as `fit`
gives them, too ("by Trainer", with checks, schedule and metrics, of which a replayed graph of PyTorch has none).
PyTorch's best is the faster of eager and one CUDA graph, or with --compiled what `torch.compile` makes, by itself and
in one graph, and the ratio is to that; gpu_report.py joins them. It has no part in rows in float16. Whose first results
differ is said, whose loss after 20 steps on the batch differs from that of PyTorch in float32 (its products in TF32),
with the same weights, of how many steps no other kernel was timed (choosing took too long, or there was no memory for
it), and whether steps could not be recorded as one. OUTPUT_DIR gets times.json (compiled.json) with the machine and its
rows, anew after each of them, and profiles.txt, which tells where the time of a row goes. After S seconds no further
row is begun.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = Path(__file__).resolve().parent
# Behind what is installed; in its place what tools/gpu_check.sh has built.
sys.path += [str(TOOLS), str(TOOLS.parent / "build-gpu/stage")]
if importlib.util.find_spec("pycnn") is None:
    raise SystemExit(
        "pycnn is neither installed nor in build-gpu/stage: `pip install .` or `tools/gpu_check.sh OUTPUT_DIR build`"
    )

from gpu_machine import machine  # noqa: E402
from gpu_report import HEADER, HOST, TRAINER, line, mean_line  # noqa: E402

import pycnn  # noqa: E402
from pycnn import functional  # noqa: E402
from pycnn.data.transforms._windows import Uncut, as_windows  # noqa: E402
from pycnn.program import compile_traced  # noqa: E402
from pycnn.tensor import Parameter  # noqa: E402
from pycnn.tracing import trace  # noqa: E402
from pycnn.train._programs import AHEAD  # noqa: E402

sys.path.append(str(TOOLS.parent))  # only now: `benchmarks` is found there, pycnn is not

# csrc/backends/cuda/library_kernel.h: what was not timed at all or not beside all others, and what was, but for engines
# that also measure.
UNTIMED, LATE, MEASURING = "not timed: ", "choosing took more than", "no engines that measure"
# A turn of a slow net is of so many steps that all are 30.
TURN_S, ROUNDS, LEAST = 0.2, 5, 6
DEVICE = "cuda"  # both sides'
FIRST_LOSS, FIRST_SCORES = 0.05, 0.1  # how far PyTorch's may be: shares of the loss, of the largest score
# The kernels that were chosen by time have made these steps, gradients and updates. What dropout leaves out, and what a
# deep net makes of roundings, is another's in each of both.
LEARNT_STEPS, LEARNT_LOSS = 20, 0.1

# Of which nets steps are timed with images from the host, too: by a program of their own, for which choosing goes on
# where it was cut off for the other, and then they are not alike.
HOST_FED, CHOSEN_S = ("resnet50", "lenet5"), 8.0
# Of which nets steps are timed as `Trainer` gives them, too.
BY_TRAINER = ("lenet5",)

Steps = Callable[[int], Any]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    kind: str
    net: str
    batch: int
    dtype: str = "bfloat16"

    @classmethod
    def parse(cls, text: str) -> Row:
        """Of KIND:NET:BATCH[:DTYPE]."""
        kind, net, batch, *dtype = text.split(":")
        if kind not in ("train", "infer") or not batch.isdigit() or dtype not in ([], ["bfloat16"], ["float16"]):
            raise SystemExit(f"--rows: {text!r} is not train|infer:NET:BATCH[:bfloat16|float16]")
        return cls(kind, net, int(batch), *dtype)

    def __str__(self) -> str:
        return f"{self.kind} {self.net} {self.batch}" + ("" if self.dtype == "bfloat16" else f" {self.dtype}")


# Those that matter most first: a limit may cut off the others.
ROWS = [
    Row("train", "resnet50", 256),
    Row("infer", "resnet50", 256),
    Row("train", "lenet5", 256),
    Row("train", "vgg16", 128),
    Row("train", "alexnet", 512),
    Row("train", "googlenet", 256),
    Row("train", "resnext50_32x4d", 256),
    Row("train", "resnet18", 256),
    Row("infer", "vgg16", 128),
    Row("infer", "googlenet", 256),
    Row("train", "resnet152", 128),
    Row("train", "resnet50", 256, "float16"),
]


class Workload:
    """Net and batch of a row."""

    def __init__(self, row: Row) -> None:
        self.row = row
        small = row.net.startswith("lenet")
        pycnn.manual_seed(0)
        self.net = pycnn.models.create(row.net, **({"aux_logits": False} if row.net == "googlenet" else {}))
        image = (28, 28, 1) if small else (224, 224, 3)
        self.net.build(image)
        rng = np.random.default_rng(0)
        self.x = rng.integers(0, 256, (row.batch, *image), dtype=np.uint8)
        self.y = rng.integers(0, 10 if small else 1000, row.batch)


class Pycnn:
    """Steps by pycnn from images on the GPU; `first` is the loss of the first one, or its scores."""

    def __init__(self, work: Workload) -> None:
        row, x, y = work.row, work.x, work.y
        begin = time.perf_counter()
        # All images in their order, whole.
        places = np.zeros((len(x), 8), np.int64)
        places[:, 0] = np.arange(len(x))
        if row.kind == "train":
            optimizer = pycnn.optim.SGD(lr=1e-3, momentum=0.9)
            trainer = pycnn.Trainer(work.net, optimizer=optimizer, device=DEVICE, dtype=row.dtype)
            windows = as_windows(None, x.shape[1:], x.dtype)
            assert windows is not None
            trainer._training.keep_images(x)
            batch = Uncut(x, places, windows, is_whole=True)
            self.by_trainer = Ahead(lambda: trainer.begin_batch(batch, y, late=True), AHEAD)
            self.host_fed = Ahead(lambda: trainer.begin_batch(x, y, late=True), AHEAD)
            self.first = trainer.begin_batch(batch, y).wait()["loss"]
            self.program = trainer._training.get(batch, y).program
            self.begin: Callable[[], Any] = lambda: self.program.begin(places, y, late=True)
            self.steps = Ahead(self.begin, AHEAD)
        else:
            images = Parameter(x.shape, init=x, trainable=False, dtype="uint8")
            images.name = "images of the row"
            whole = trace(
                lambda places: work.net(functional.take_windows(images, places, size=x.shape[1:3])),
                {"places": (places.shape, "int64")},
                root=work.net,
            )
            self.program = compile_traced(whole, device=DEVICE, dtype=row.dtype)
            self.begin = lambda: self.program.begin(places)
            self.first = np.array(self.begin().wait()["output"])
            sent: list[Any] = []  # compiled when it is wanted

            def begin_sent() -> Any:
                if not sent:
                    low = {"input_dtype": "uint8"} if row.dtype != "float32" else {}
                    dtype = row.dtype if low else "uint8"
                    sent.append(pycnn.compile(work.net, x.shape, device=DEVICE, dtype=dtype, **low))
                return sent[0].begin(x)

            self.host_fed = Ahead(begin_sent)
            self.steps = Ahead(self.begin)
        self.compile_s = time.perf_counter() - begin

    def learnt(self) -> float:
        """The loss of step `LEARNT_STEPS`, of which one was made."""
        self.steps(LEARNT_STEPS - 2)
        return float(self.begin().wait()["loss"])

    def __call__(self, count: int) -> None:
        """Take `count` steps."""
        self.steps(count)


class Ahead:
    """Takes steps, the result of each looked at some steps later: of a training's as `fit` does."""

    def __init__(self, begin: Callable[[], Any], ahead: int = 2) -> None:
        self.begin, self.ahead = begin, ahead

    def __call__(self, count: int) -> None:
        """Take `count` of them."""
        begun: deque[Any] = deque()
        for _ in range(count):
            begun.append(self.begin())
            if len(begun) > self.ahead:
                begun.popleft().wait()
        while begun:
            begun.popleft().wait()


class Torch:
    """Steps by PyTorch, in 16 bits where `narrow`; `first` as there."""

    def __init__(self, work: Workload, *, narrow: bool = True) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        if DEVICE == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        from benchmarks.torch_twin import TorchTwin

        torch.backends.cudnn.benchmark = narrow  # what is not timed need not be quick
        torch.backends.cudnn.benchmark_limit = 0  # all algorithms
        torch.backends.cuda.matmul.allow_tf32 = True
        twin: Any = torch.fx.symbolic_trace(TorchTwin(work.net).train(work.row.kind == "train"))
        net: Any = twin.to(DEVICE, memory_format=torch.channels_last)
        x = torch.from_numpy(work.x).to(DEVICE).permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(work.y).to(DEVICE)
        self.net = net
        if work.row.kind == "train":
            optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)

            def step() -> Any:
                optimizer.zero_grad(set_to_none=True)  # in a graph, too, where gradients have places of their own
                with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=narrow):
                    scores = self.net(x)
                loss = cross_entropy(scores.float(), y)
                loss.backward()
                optimizer.step()
                return loss

            self.step = step
            self.first: Any = step().item()
        else:
            net.eval().to(torch.bfloat16)
            x = x.to(torch.bfloat16)

            def scores() -> Any:
                with torch.inference_mode():
                    return self.net(x)

            self.step = scores
            self.first = scores().float().cpu().numpy()
        self.torch = torch

    def learnt(self) -> float:
        """The loss of step `LEARNT_STEPS`, of which one was made."""
        self.eager(LEARNT_STEPS - 2)
        return float(self.step().item())

    def eager(self, count: int) -> None:
        """Step by step."""
        for _ in range(count):
            self.step()
        if DEVICE == "cuda":
            self.torch.cuda.synchronize()

    def graph(self) -> Steps:
        """The same, recorded as one CUDA graph."""
        side = self.torch.cuda.Stream()
        with self.torch.cuda.stream(side):
            for _ in range(4):
                self.step()
        self.torch.cuda.synchronize()
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            self.step()

        def replay(count: int) -> None:
            for _ in range(count):
                graph.replay()
            self.torch.cuda.synchronize()

        return replay

    def compiled(self, **options: Any) -> Steps:
        """By `torch.compile` from now on."""
        self.net = self.torch.compile(self.net, **options)
        self.eager(3)
        return self.eager


def times_in_turns(steps: dict[str, Steps]) -> dict[str, float]:
    """Seconds of a step, medians of rounds in which all take their turns."""
    repeats = {}
    for key, step in steps.items():
        step(24)  # pycnn's records and tries both ways of running the steps
        begin = time.perf_counter()
        step(4)
        repeats[key] = min(500, max(LEAST, int(TURN_S / ((time.perf_counter() - begin) / 4))))
    samples: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(ROUNDS):
        for key, step in steps.items():
            begin = time.perf_counter()
            step(repeats[key])
            samples[key].append((time.perf_counter() - begin) / repeats[key])
    return {key: statistics.median(values) for key, values in samples.items()}


def losses_differ(own: float, theirs: float, share: float) -> bool:
    """Whether one is further from the other than a share; NaN is."""
    return not abs(own - theirs) <= share * max(1.0, abs(theirs))


def difference(own: Any, theirs: Any) -> str:
    """What is wrong with first results, "" where nothing is."""
    if isinstance(own, float):
        return f"first loss {own:.4g}, PyTorch's {theirs:.4g}" if losses_differ(own, theirs, FIRST_LOSS) else ""
    share = float(np.abs(own - theirs).max() / np.abs(theirs).max())
    return "" if share <= FIRST_SCORES else f"first scores are {share:.3g} of the largest away from PyTorch's"


def learnt_difference(own: float, theirs: float) -> str:
    """What is wrong with the loss after some steps, "" where nothing is."""
    if not losses_differ(own, theirs, LEARNT_LOSS):
        return ""
    return f"loss of step {LEARNT_STEPS} {own:.4g}, PyTorch's in float32 {theirs:.4g}"


def learnt_in_float32(work: Workload) -> float:
    """The loss of step `LEARNT_STEPS` by PyTorch, from the weights as they are."""
    peer = Torch(work, narrow=False)
    found = peer.learnt()
    del peer
    gc.collect()
    free_torch()
    return found


def steps_not_timed(steps: list[dict[str, Any]]) -> int:
    """How many of a profile run a kernel beside which not all others were timed, for want of time or of memory."""
    reasons = [[part for _, reason in step["refused"] for part in reason.split("; ")] for step in steps]
    return sum(any(UNTIMED in part or (LATE in part and MEASURING not in part) for part in each) for each in reasons)


def profile(program: Any, title: str) -> tuple[str, float, int]:
    """Where the time of a row goes, by op and kernel, as text; the sum of all steps in seconds; steps not timed."""
    steps = [step for step in program.profile(runs=3) if step["phase"] == "run" and step["runs"]]
    parts: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    for step in steps:
        part = parts[step["op"], step["variant"]]
        for i, value in enumerate((step["total_seconds"] / step["runs"], 1, step["bytes"], step["macs"])):
            part[i] += value
    whole = sum(part[0] for part in parts.values())
    lines = [f"{title}: {1e3 * whole:.3f} ms in {len(steps)} steps"]
    for (op, variant), (seconds, count, moved, macs) in sorted(parts.items(), key=lambda item: -item[1][0]):
        rates = f"{moved / max(seconds, 1e-12) / 1e9:7.0f} GB/s {2e-12 * macs / max(seconds, 1e-12):6.0f} TFLOP/s"
        lines.append(f"  {1e3 * seconds:8.3f} ms {count:4.0f} x {op:26} {variant:40} {rates}")
    slowest = sorted(steps, key=lambda step: -step["total_seconds"])[:25]
    lines.append("  the longest:")
    for step in slowest:
        seconds = step["total_seconds"] / step["runs"]
        rates = f"{step['bytes'] / seconds / 1e9:7.0f} GB/s {2e-12 * step['macs'] / seconds:6.0f} TFLOP/s"
        lines.append(f"  {1e6 * seconds:8.1f} us {step['op']:26} {step['variant']:40} {rates}  {step['name']}")
    return "\n".join(lines) + "\n", whole, steps_not_timed(steps)


def measure(row: Row, *, compiled: bool) -> tuple[dict[str, Any], str]:
    """Times of a row, and its profile."""
    work = Workload(row)
    torch = torch_problem = learnt = None
    if row.dtype == "bfloat16":
        try:
            # First: pycnn's training changes the weights.
            learnt = learnt_in_float32(work) if row.kind == "train" and not compiled else None
            torch = Torch(work)
        except (ImportError, RuntimeError, NotImplementedError) as error:
            torch_problem = str(error).splitlines()[0]
    own = Pycnn(work)
    steps: dict[str, Steps] = {"pycnn": own}
    if row.net in HOST_FED and row.dtype == "bfloat16" and own.compile_s < CHOSEN_S and not compiled:
        steps[HOST] = own.host_fed
    if row.net in BY_TRAINER and row.kind == "train" and not compiled:
        steps[TRAINER] = own.by_trainer
    result: dict[str, Any] = {**vars(row), "compile_s": round(own.compile_s, 2)}
    if torch_problem is not None:
        result["no_torch"] = torch_problem
    if torch is not None:
        wrong = [difference(own.first, torch.first)]
        if learnt is not None:
            result["learnt"] = {"steps": LEARNT_STEPS, "pycnn": own.learnt(), "float32": learnt}
            wrong.append(learnt_difference(result["learnt"]["pycnn"], learnt))
        result["difference"] = ", ".join(filter(None, wrong))
        if compiled:
            steps["compiled"] = torch.compiled()
        else:
            steps["eager"] = torch.eager
        try:
            steps["compiled graph" if compiled else "graph"] = torch.graph()
        except RuntimeError as error:
            result["no_graph"] = str(error).splitlines()[0]
    result["seconds"] = times_in_turns(steps)
    result["recording"] = own.program.recording
    text, result["profiled_seconds"], result["steps_not_timed"] = profile(own.program, f"{row}, {result['recording']}")
    return result, text


def tune(rows: list[Row], until: float) -> None:
    """Compile and take a step of each."""
    for row in rows:
        if time.perf_counter() > until:
            print(f"{row}: no time left", flush=True)
            continue
        try:
            own = Pycnn(Workload(row))
            late = steps_not_timed(own.program.profile(runs=1))
            print(f"{row}: {own.compile_s:.1f} s to compile and take a step, {late} steps not timed", flush=True)
            del own
        except pycnn.Error as error:
            print(f"{row}: {str(error).splitlines()[0]}", flush=True)
        gc.collect()


def table(rows: list[Row], until: float, folder: Path, *, compiled: bool, begun: bool) -> list[Row]:
    """Measure rows and print a line of each; the rows behind one that failed, after which a process may have no GPU.

    Args:
        rows: What to measure.
        until: When to begin no more, in seconds of `time.perf_counter`.
        folder: For results.
        compiled: The peer is `torch.compile`.
        begun: The folder has results of rows before, to be kept.
    """
    path = folder / ("compiled.json" if compiled else "times.json")
    if begun and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = {"machine": machine(with_torch=True) | {"pycnn": pycnn.__version__}, "rows": []}
        print(HEADER, flush=True)
    results = found["rows"]

    def add(result: dict[str, Any]) -> None:
        results.append(result)
        print(line(result), flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for index, row in enumerate(rows):
        if time.perf_counter() > until:
            add({**vars(row), "error": "no time left"})
            continue
        try:
            result, text = measure(row, compiled=compiled)
        except Exception as error:
            add({**vars(row), "error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"})
            if rows[index + 1 :]:
                return rows[index + 1 :]
            break
        add(result)
        if not compiled:
            with (folder / "profiles.txt").open("a", encoding="utf-8") as file:
                file.write(text)
        gc.collect()
        free_torch()
    if mean := mean_line(results):
        print(mean, flush=True)
    return []


def free_torch() -> None:
    """Give the memory back that PyTorch keeps for later."""
    if torch := sys.modules.get("torch"):
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--rows", type=lambda text: [Row.parse(part) for part in text.split(",")], default=ROWS)
    parser.add_argument("--begun", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    until = time.perf_counter() + args.seconds
    if args.tune:
        tune(args.rows, until)
        return 0
    if args.folder is None:
        parser.error("OUTPUT_DIR is missing")
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.begun:
        (args.folder / "profiles.txt").unlink(missing_ok=True)
    left = table(args.rows, until, args.folder, compiled=args.compiled, begun=args.begun)
    if left:
        options = ["--compiled"] * args.compiled + ["--seconds", str(until - time.perf_counter())]
        rows = ",".join(f"{row.kind}:{row.net}:{row.batch}:{row.dtype}" for row in left)
        command = [sys.executable, "-P", __file__, str(args.folder), "--begun", *options, "--rows", rows]
        os.execv(sys.executable, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
