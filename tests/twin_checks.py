"""Comparing a net with its twin in PyTorch: the same weights, images in the other layout, bounds, statistics."""

from __future__ import annotations

import numpy as np
import tolerances
import torch

import pycnn as pc


def share_weights(net, twin, rng):
    """Draw weights, give them to a built net and to its twin, and return the twin in float64."""
    state = {}
    for key, value in net.state_dict().items():
        drawn = rng.standard_normal(value.shape) * np.sqrt(2 / max(np.prod(value.shape[1:]), 1))
        if value.ndim == 1:
            drawn = rng.uniform(0.5, 1.5, value.shape) if key.endswith(("var", "weight")) else 0.1 * drawn
        state[key] = drawn.astype(np.float32)
    net.load_state_dict(state)
    twin = twin.double()
    missing = twin.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    return twin


def torch_images(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def assert_close(found, expected, what, dtype=np.float64, *, length=10**6, scale=0.0):
    """Up to the rounding of a million additions, at the scale of the largest element."""
    expected = np.asarray(expected)
    largest = max(np.abs(expected).max(initial=0.0), scale)
    tolerances.assert_within(found, expected, tolerances.sum_bound(largest, length, dtype), what)


def assert_gradients_close(by_name, twin, **bounds):
    """Gradients of the weights, ours channels-last."""
    expected = {key: parameter.grad.numpy() for key, parameter in twin.named_parameters()}
    assert set(by_name) == set(expected)
    for key, gradient in by_name.items():
        want = expected[key]
        assert_close(gradient.transpose(0, 3, 1, 2) if want.ndim == 4 else gradient, want, key, **bounds)


def assert_same_statistics(net, twin, images, labels, run_twin):
    """A training step leaves the running statistics that a pass of the twin leaves."""
    pc.Trainer(net, optimizer=pc.optim.SGD(lr=1e-3)).step(images.astype(np.float32), labels)
    twin.train()
    run_twin(torch_images(images))
    state = net.state_dict()
    for key, expected in twin.named_buffers():
        if not key.endswith("num_batches_tracked"):
            assert_close(state[key], expected.numpy(), key, np.float32)
