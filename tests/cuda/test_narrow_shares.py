"""How far 16 bits may be from float32 in `test_on_gpu.py` is what the CPU's bfloat16 needs, and not much more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SPEC = importlib.util.spec_from_file_location("on_gpu", Path(__file__).with_name("test_on_gpu.py"))
on_gpu = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(on_gpu)


def test_each_net_has_a_share_of_two_percent_at_most_but_for_one():
    assert set(on_gpu.NARROW) >= {net[0] for net in on_gpu.NETS}
    assert {name for name, (_, share) in on_gpu.NARROW.items() if share > 0.02} == {"mobilenet_v2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "cifar_alexnet", "cifar_vgg", "cifar_googlenet", "cifar_resnet20"])
def test_the_cpu_keeps_well_within_its_share(name, monkeypatch):
    monkeypatch.setattr(on_gpu, "STEPS", 20)
    net = next(net for net in on_gpu.NETS if net[0] == name)
    rate, share = on_gpu.NARROW[name]
    expected, _ = on_gpu.losses(*net, "cpu", rate=rate)
    actual, _ = on_gpu.losses(*net, "cpu", rate=rate, dtype="bfloat16", emulate_bfloat16=True)
    worst = float(np.max(np.abs(np.array(actual) - expected) / expected))
    assert worst <= 0.6 * share
    assert expected[-1] < expected[0]


def test_every_net_of_the_zoo_has_the_steps_that_the_readme_tells(root):
    text = (root / "tests/zoo_losses.py").read_text()
    assert "for _ in range(20)]" in text
    assert "every net of the zoo for 20 steps beside the CPU" in (root / "README.md").read_text()
