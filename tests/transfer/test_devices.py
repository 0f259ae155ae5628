"""Transfer trains and computes features on the device that it is told; a GPU is not needed."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_nets import coloured_images

import pycnn as pc
from pycnn.transfer import Encoder, compare, extract, features, finetune, record_home_gain, survey

pytest.importorskip("sklearn.linear_model")
DATA = coloured_images(24)
LAYERS = ["layer1", "layer2"]
TASKS = {
    "extract": lambda net, folder, how: extract(Encoder(net, LAYERS), DATA, **how),
    "extract to files": lambda net, folder, how: extract(Encoder(net, LAYERS), DATA, out=folder, **how),
    "features": lambda net, folder, how: features(net, DATA.images, device=how["device"]),
    "survey": lambda net, folder, how: survey(net, DATA, **how),
    "finetune": lambda net, folder, how: finetune(net, DATA, DATA, epochs=2, batch_size=8, **how),
    "compare": lambda net, folder, how: compare(net, DATA, DATA, seeds=1, epochs=2, batch_size=8, **how),
}


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("task", TASKS)
def test_every_program_is_compiled_for_the_device(tiny_net, compiled_for, tmp_path, task, threads):
    TASKS[task](tiny_net, tmp_path, {"device": "cuda:1", "threads": threads})
    assert set(compiled_for) == {"cuda:1"}


def test_the_gain_at_home_is_measured_on_the_device(tiny_net, compiled_for, tmp_path):
    tiny_net.save(tmp_path / "net.safetensors")
    with pytest.raises(pc.ArgumentError, match="layers must name two or more"):  # after the features
        record_home_gain(tmp_path / "net.safetensors", DATA, layers=["layer2"], device="cuda")
    assert set(compiled_for) == {"cuda"}


@pytest.mark.parametrize("task", TASKS)
def test_an_absent_device_is_told_and_leaves_the_net_as_it_was(tiny_net, tmp_path, task):
    before = tiny_net.state_dict()
    trainable = {name: parameter.trainable for name, parameter in tiny_net.named_parameters()}
    with pytest.raises(pc.DeviceError, match="device 'cuda:99'"):
        TASKS[task](tiny_net, tmp_path, {"device": "cuda:99"})
    after = tiny_net.state_dict()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert trainable == {name: parameter.trainable for name, parameter in tiny_net.named_parameters()}


@pytest.mark.parametrize("task", TASKS)
def test_auto_is_the_cpu_so_far(tiny_net, compiled_for, tmp_path, task):
    TASKS[task](tiny_net, tmp_path, {"device": "auto"})
    assert set(compiled_for) == {"cpu"}


@pytest.mark.parametrize("task", [*TASKS, "record_home_gain"])
def test_who_asked_refuses_what_names_no_device(tiny_net, tmp_path, task):
    tasks = TASKS | {
        "record_home_gain": lambda net, folder, how: record_home_gain(folder / "net.safetensors", DATA, **how)
    }
    tiny_net.save(tmp_path / "net.safetensors")
    who = "features" if task.startswith("extract") else task
    with pytest.raises(pc.ArgumentError, match=f"^{who}: device must be .*, got 1$"):
        tasks[task](tiny_net, tmp_path, {"device": 1})


def test_kept_features_serve_every_device(tiny_net, tmp_path):
    encoder = Encoder(tiny_net, LAYERS)
    extract(encoder, DATA, out=tmp_path)
    assert extract(encoder, DATA, out=tmp_path, device="cuda:99").cached
