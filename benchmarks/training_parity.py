"""Train ResNet-20 on CIFAR-10 step by step beside PyTorch: same weights, same batches, same update.

Both losses are printed with their distances from PyTorch in float64, and how far the weights lie from those in float64,
as a share of the way from the first ones. ReLUs near zero fall the other way in float32, so trainings drift apart
within some steps, PyTorch's own float32 from its float64 as well: the drifts are to be alike, not the losses for ever.

    python benchmarks/training_parity.py --data-dir DIR --steps 200
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pycnn as pc


class Block(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut takes every second pixel and pads with zeros."""

    def __init__(self, width: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.stride, self.more = stride, channels - width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            # As the engine places the new channels.
            short = nn.functional.pad(short, (0, 0, 0, 0, 0, self.more))
        return torch.relu(y + short)


class Twin(nn.Module):
    """ResNet-20 of He et al. 2015, section 4.2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        width = 16
        for stage in range(3):
            blocks = []
            for index in range(3):
                blocks.append(Block(width, 16 * 2**stage, 2 if stage and not index else 1))
                width = 16 * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean(dim=(2, 3)))


class Torch:
    """PyTorch's training with the recipe's optimizer."""

    def __init__(self, state: dict[str, np.ndarray], recipe: pc.train.Recipe, dtype: torch.dtype) -> None:
        self.net = Twin().to(dtype)
        missing, unexpected = self.net.load_state_dict(
            {name: torch.from_numpy(array).to(dtype) for name, array in state.items()}, strict=False
        )
        assert not unexpected
        assert all(name.endswith("num_batches_tracked") for name in missing), missing
        self.net = self.net.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor(recipe.mean, dtype=dtype).view(shape)
        self.std = torch.tensor(recipe.std, dtype=dtype).view(shape)
        self.dtype = dtype

    def distance(self, weights: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> float:
        """How far other weights lie from these, as a share of the way from the first ones."""
        own = {name: parameter.detach().double().numpy() for name, parameter in self.net.named_parameters()}
        apart = sum(float(((weights[name] - own[name]) ** 2).sum()) for name in own)
        way = sum(float(((first[name] - own[name]) ** 2).sum()) for name in own)
        return (apart / way) ** 0.5

    def weights(self) -> dict[str, np.ndarray]:
        return {name: parameter.detach().double().numpy() for name, parameter in self.net.named_parameters()}

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        images = torch.from_numpy(x).permute(0, 3, 1, 2).to(self.dtype) / 255.0
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.net((images - self.mean) / self.std), torch.from_numpy(y))
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--recipe", default="cifar_resnet20")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    train, _ = pc.data.cifar10(args.data_dir)
    recipe = pc.train.recipe(args.recipe, epochs=-(-args.steps // (len(train) // 128)), augment="none")
    net = recipe.make_net()
    net.build((32, 32, 3))
    state = net.state_dict()
    trainer = recipe.make_trainer(net, train)
    trainer.schedule = pc.optim.OneCycle(rise=recipe.rise, total_steps=args.steps)
    single, double = Torch(state, recipe, torch.float32), Torch(state, recipe, torch.float64)
    rows: list[dict[str, float]] = []
    head = ("pycnn", "torch", "pycnn-f64", "torch-f64", "pycnn drift", "torch drift")
    print(f"{'step':>5} " + " ".join(f"{name:>11}" for name in head))
    while len(rows) < args.steps:
        for x, y in pc.data.Loader(train, recipe.batch_size, seed=len(rows), drop_last=True):
            rate = trainer.learning_rate
            ours = trainer.step(x, y)["loss"]
            theirs, true = single.step(x, y, rate), double.step(x, y, rate)
            rows.append({"step": len(rows) + 1, "rate": rate, "pycnn": ours, "torch": theirs, "torch_float64": true})
            if len(rows) in (1, 2, 3, 5, 10, 15, 20, 30, 50, 70) or len(rows) % 50 == 0:
                drifts = (double.distance(net.state_dict(), state), double.distance(single.weights(), state))
                print(
                    f"{len(rows):5} {ours:11.6f} {theirs:11.6f} {ours - true:11.2e} {theirs - true:11.2e} "
                    f"{drifts[0]:11.2e} {drifts[1]:11.2e}",
                    flush=True,
                )
            if len(rows) == args.steps:
                break
    last = rows[-20:]
    means = {name: float(np.mean([row[name] for row in last])) for name in ("pycnn", "torch", "torch_float64")}
    print("mean loss of the last 20 steps: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    if args.json is not None:
        args.json.write_text(json.dumps({"recipe": args.recipe, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
