"""The axis of images, moved and then cut, reduced or joined: as PyTorch for any number of images, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances

torch = pytest.importorskip("torch")

import pycnn  # noqa: E402

pytestmark = pytest.mark.interop
BATCHES = (1, 2, 5, 17, 32)
BOUNDS = (None, None, -20, -3, -1, 1, 2, 10, 1000)


def _cut(x, axis, begin, end):
    return x[(slice(None),) * axis + (slice(begin, end),)]


# Each draws its arguments for a tensor of so many axes, and gives a function of the tensor.
def _transpose(rng, rank):
    first, second = (int(n) for n in rng.permutation(rank)[:2])
    return lambda x: x.transpose(first, second)


def _permute(rng, rank):
    order = [int(n) for n in rng.permutation(rank)]
    return lambda x: x.permute(order)


def _slice(rng, rank):
    axis = int(rng.integers(rank))
    begin, end = (BOUNDS[int(rng.integers(len(BOUNDS)))] for _ in range(2))
    return lambda x: _cut(x, axis, begin, end)


def _flatten(rng, rank):
    axis = int(rng.integers(rank - 1))
    return lambda x: x.flatten(axis, axis + 1)


def _unflatten(rng, rank):
    axis, size = int(rng.integers(rank)), int(rng.choice([2, 3, 4]))
    return lambda x: x.unflatten(axis, (-1, size))


def _part(rng, rank):
    axis, which = int(rng.integers(rank)), int(rng.integers(2))
    return lambda x: x.chunk(2, axis)[which]


def _select(rng, rank):
    axis, index = int(rng.integers(rank)), int(rng.choice([0, -1]))
    return lambda x: x.select(axis, index)


def _reduce(rng, rank):
    axis, name, keep = int(rng.integers(rank)), str(rng.choice(["mean", "sum", "amax", "var"])), bool(rng.integers(2))
    more = {"correction": 0} if name == "var" else {}
    return lambda x: getattr(x, name)(axis, keepdim=keep, **more)


def _centre(rng, rank):
    axis = int(rng.integers(rank))
    return lambda x: x - x.mean(axis, keepdim=True).expand_as(x)


def _softmax(rng, rank):
    axis = int(rng.integers(rank))
    return lambda x: torch.softmax(x, axis)


def _cat(rng, rank):
    axis = int(rng.integers(rank))
    return lambda x: torch.cat([x, x * 0.5], axis)


def _stack(rng, rank):
    axis = int(rng.integers(rank + 1))
    return lambda x: torch.stack([x, -x], axis)


def _turn(rng, rank):
    axis, name = int(rng.integers(rank)), str(rng.choice(["flip", "roll", "pad"]))
    if name == "pad":
        pads = [0, 0] * (rank - 1 - axis) + [1, 2]
        return lambda x: torch.nn.functional.pad(x, pads, value=0.5)
    return lambda x: x.flip(axis) if name == "flip" else x.roll(1, axis)


def _gram(rng, rank):
    return lambda x: x.flatten(1) @ x.flatten(1).t()


MOVES = (_transpose, _transpose, _permute, _flatten, _unflatten, _stack)
WORK = (_slice, _slice, _part, _select, _reduce, _centre, _softmax, _cat, _turn, _gram)


def _program(rng):
    """Steps as functions of a tensor; None where nothing is left, or too many axes."""
    steps, x = [], torch.zeros(13, 3, 4, 6)
    for kind in (rng.choice(MOVES), rng.choice((*MOVES, *WORK)), rng.choice(WORK), rng.choice((*MOVES, *WORK))):
        step = kind(rng, x.ndim) if x.ndim > 1 else None
        try:
            x = None if step is None else step(x)
        except (RuntimeError, IndexError):
            continue
        if x is None or not 0 < x.ndim <= 6 or not x.numel():
            return None
        steps.append(step)
    return steps


class Program(torch.nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        x = x * 1.5 + 0.25
        for step in self.steps:
            x = step(x)
        return x


def _agrees(net, module, shape, rng):
    compared = 0
    for batch in BATCHES:
        x = rng.standard_normal((batch, *shape)).astype(np.float32)
        try:
            with torch.no_grad():
                expected = module(torch.from_numpy(x)).numpy()
        except (RuntimeError, IndexError):
            continue
        if not expected.size:
            continue
        found = net(x)
        assert found.shape == expected.shape, f"{batch} images: {found.shape}, not {expected.shape}"
        largest = max(float(np.abs(np.nan_to_num(expected)).max()), 1.0)
        tolerances.assert_within(found, expected, tolerances.sum_bound(largest, 10**4, np.float32), f"{batch} images")
        compared += 1
    return compared


@pytest.mark.parametrize("seed", range(4))
def test_moved_images_are_right_for_any_number_of_them_or_refused(seed):
    rng = np.random.default_rng(seed)
    accepted = refused = 0
    while accepted + refused < 8:
        steps = _program(rng)
        if steps is None:
            continue
        module, shape = Program(steps), (3, 4, 6)
        try:
            net = pycnn.from_torch(module, (1, *shape))
        except (pycnn.UnsupportedError, pycnn.GraphError):
            refused += 1
            continue
        accepted += _agrees(net, module, shape, rng) > 0
    assert accepted >= 2


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.transpose(0, 1)[:, -20:],
        lambda x: x.transpose(0, 1)[:, :20],
        lambda x: x.transpose(0, 1).narrow(1, 0, 1),
        lambda x: x.permute(1, 2, 0).chunk(2, 2)[0],
        lambda x: x.transpose(0, 2).select(2, -1),
        lambda x: x.t() if x.ndim == 2 else x.flatten(0, 1)[-40:],
        lambda x: x.transpose(0, 1).flip(1),
        lambda x: torch.nn.functional.pad(x.permute(1, 2, 0), (1, 0)),
    ],
)
def test_a_cut_along_moved_images_is_refused(cut):
    with pytest.raises(
        pycnn.Error, match=r"^from_torch: (node .* axis of images cannot be cut|(.|\n)*cut the axis of)"
    ):
        pycnn.from_torch(Program([cut]), (1, 3, 4))


def test_frames_of_several_images_are_one_batch_and_apart_again():
    class Frames(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 4, 3)
            self.head = torch.nn.Linear(4, 5)

        def forward(self, x):
            n, t = x.shape[:2]
            y = self.conv(x.flatten(0, 1)).relu().mean((2, 3))
            return self.head(y).view(n, t, -1).mean(1)

    module = Frames()
    net = pycnn.from_torch(module, (1, 3, 2, 6, 6))
    assert _agrees(net, module, (3, 2, 6, 6), np.random.default_rng(0)) == len(BATCHES)


def test_saving_a_net_with_the_number_of_images_built_in_warns(tmp_path):
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            y = x.flatten(2).transpose(1, 2)
            return self.attention(y, y, y, need_weights=False)[0].mean(1)

    module, rng = Attention().eval(), np.random.default_rng(0)
    net = pycnn.from_torch(module, (1, 8, 3, 2))
    assert _agrees(net, module, (8, 3, 2), rng) == len(BATCHES)
    with pytest.warns(UserWarning, match="save: .* has the number of images built in; the net in the file takes one"):
        net.save(tmp_path / "net.safetensors")
    one = rng.standard_normal((1, 8, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(pycnn.load(tmp_path / "net.safetensors")(one), net(one))
    plain = pycnn.from_torch(torch.nn.Conv2d(8, 2, 1), (1, 8, 3, 2))
    plain.save(tmp_path / "plain.safetensors")
