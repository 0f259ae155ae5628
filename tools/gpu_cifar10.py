"""The recipe cifar10-speed on a GPU, by `pycnn train`, and what the same recipe reaches in PyTorch.

    python tools/gpu_cifar10.py OUTPUT_DIR DATA_DIR [--device cuda] [--epochs N] [--seed N]

`pycnn train` runs as a user runs it, into OUTPUT_DIR/cifar10. Its seconds "after compilation" are those of all epochs
at the pace of those behind the first, in which kernels are chosen and steps recorded. PyTorch trains a twin of the net
by the same updates (Muon, Nesterov's momentum, frozen filters), from the same weights and the same augmented batches,
in bfloat16 by autocast; its time is not looked at. OUTPUT_DIR gets cifar10.json, and the last line says it all.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import pycnn

# Behind what is installed: `benchmarks` is found there, pycnn is not.
sys.path.append(str(Path(__file__).resolve().parent.parent))

RECIPE = "cifar10-speed"


def train_here(args: argparse.Namespace) -> dict[str, Any]:
    """`pycnn train`, in a process of its own."""
    folder = args.output / "cifar10"
    command = [sys.executable, "-P", "-m", "pycnn", "train", "--recipe", RECIPE, "--data-dir", str(args.data)]
    command += ["--device", args.device, "--dtype", args.dtype, "--seed", str(args.seed), "--run-dir", str(folder)]
    command += ["--json"] + ([] if args.epochs is None else ["--epochs", str(args.epochs)])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pycnn train failed ({done.returncode})")
    result = json.loads(done.stdout)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    return {
        "accuracy": result["test_accuracy"],
        "seconds": seconds,
        "seconds_after_compilation": len(seconds) * statistics.median(seconds[1:] or seconds),
        "data_wait_percent": [row["data_wait_percent"] for row in rows],
    }


class Muon:
    """The updates of the recipe's optimizer in PyTorch (Jordan 2024), as `pycnn.optim.Muon` makes them.

    Args:
        named: Parameters that are trained.
        recipe: Gives momentum, decay, and the rate of vectors beside that of matrices.
    """

    def __init__(self, named: dict[str, Any], recipe: Any) -> None:
        import torch

        self.torch, self.named, self.recipe = torch, named, recipe
        self.velocity = {name: torch.zeros_like(value) for name, value in named.items()}

    def step(self, rate: float) -> None:
        """One update at a rate, which drops the gradients."""
        recipe = self.recipe
        with self.torch.no_grad():
            for name, value in self.named.items():
                gradient, velocity = value.grad, self.velocity[name]
                velocity.mul_(recipe.momentum).add_(gradient)
                direction = gradient + recipe.momentum * velocity if recipe.nesterov else velocity
                if value.ndim < 2:
                    value.sub_(direction, alpha=rate * recipe.vector_lr / recipe.lr)
                else:
                    rows = direction.flatten(1)
                    scale = rate * max(1.0, rows.shape[0] / rows.shape[1]) ** 0.5
                    value.mul_(1.0 - rate * recipe.weight_decay)
                    value.sub_(self.orthogonal(rows).view_as(value), alpha=scale)
                value.grad = None

    def orthogonal(self, matrix: Any) -> Any:
        """Five steps of Newton and Schulz towards the nearest matrix with orthonormal rows or columns."""
        is_tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.T if is_tall else matrix
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
        return x.T if is_tall else x


def train_in_torch(args: argparse.Namespace) -> float:
    """Test accuracy of the twin."""
    import torch

    from benchmarks.torch_twin import TorchTwin

    train, test = pycnn.data.cifar10(args.data)
    changes = {"seed": args.seed} | ({} if args.epochs is None else {"epochs": args.epochs})
    recipe = pycnn.train.recipe(RECIPE, **changes)
    pycnn.manual_seed(recipe.seed)
    net = recipe.make_net()
    net.build(train.image_shape)
    trainer = recipe.make_trainer(net, train)  # whitens the first layer
    transform = recipe.make_transform(train.image_shape)
    loader = pycnn.data.Loader(
        train, recipe.batch_size, transform=transform, seed=recipe.seed, drop_last=recipe.drop_last
    )
    total = recipe.epochs * len(loader)
    twin = TorchTwin(net).to(args.device).to(memory_format=torch.channels_last).train()
    frozen = [pattern for group in recipe.groups if group.get("frozen") for pattern in group["match"]]
    named = {name.replace("/", "."): value for name, value in twin.named_parameters()}
    named = {name: value for name, value in named.items() if not any(fnmatch.fnmatch(name, p) for p in frozen)}
    optimizer = Muon(named, recipe)

    def images(x: np.ndarray) -> Any:
        return torch.from_numpy(x).to(args.device).permute(0, 3, 1, 2).float() / 255.0

    def scores(x: np.ndarray) -> Any:
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            return twin(images(x))

    step = 0
    for _ in range(recipe.epochs):
        for x, y in loader:
            labels = torch.from_numpy(y).to(args.device)
            loss = torch.nn.functional.cross_entropy(scores(x).float(), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()
            progress = pycnn.optim.Progress(step, step // len(loader), len(loader), recipe.epochs)
            optimizer.step(recipe.lr * trainer.schedule.factor(progress))
            step += 1
    if step != total:
        raise SystemExit(f"PyTorch made {step} steps, expected {total}")
    twin.eval()
    right = 0
    with torch.no_grad():
        for x, y in pycnn.data.Loader(test, recipe.batch_size, shuffle=False):
            right += int((scores(x).argmax(1).cpu().numpy() == y).sum())
    return right / len(test)


def main() -> None:
    """Train both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    result = train_here(args)
    text = (
        f"pycnn {100 * result['accuracy']:.2f} %, {result['seconds_after_compilation']:.2f} s after compilation "
        f"({sum(result['seconds']):.1f} s with it)"
    )
    print(text, flush=True)
    try:
        result["torch_accuracy"] = train_in_torch(args)
    except ImportError as error:
        text += f"; no PyTorch ({error})"
    else:
        text += f"; PyTorch {100 * result['torch_accuracy']:.2f} %"
    (args.output / "cifar10.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
