"""Transfer learning on a GPU beside the CPU, from Python and by `pycnn transfer`.

As `test_device_training.py`, this needs no GPU where the emulated module is named.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_nets import coloured_images, make_tiny_net

from pycnn.cli import main
from pycnn.transfer import Encoder, extract, finetune, survey

pytestmark = pytest.mark.cuda
DATA = coloured_images(24)


@pytest.fixture(autouse=True)
def chosen_untimed(monkeypatch):
    monkeypatch.setenv("PYCNN_CUDA_DETERMINISTIC", "1")


@pytest.mark.parametrize("normalize", [False, True])
def test_features_are_those_of_the_cpu(normalize):
    """The last batch is not full, and layers of both stages come from one pass."""
    encoder = Encoder(make_tiny_net(), ["layer1", "layer2"], pool={"layer1": "max"}, normalize=normalize)
    here, there = (extract(encoder, DATA, batch_size=9, device=device) for device in ("cpu", "cuda"))
    for name in here.layers:
        np.testing.assert_allclose(there.arrays[name], here.arrays[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["head", "few", "all"])
def test_fine_tuning_learns_what_the_cpu_learns(part):
    options = {"part": part, "epochs": 2, "batch_size": 8, "statistics": "train", "lr": 0.02}
    nets = [make_tiny_net() for _ in range(2)]
    here, there = (
        finetune(net, DATA, DATA, device=device, **options) for net, device in zip(nets, ("cpu", "cuda"), strict=True)
    )
    assert there.trained == here.trained
    np.testing.assert_allclose(there.history["loss"], here.history["loss"], rtol=1e-3)
    states = [net.state_dict() for net in nets]
    for name in states[0]:
        np.testing.assert_allclose(states[1][name], states[0][name], rtol=1e-2, atol=1e-3, err_msg=name)
    frozen = make_tiny_net().state_dict()
    for name in here.frozen:
        assert np.array_equal(states[1][name], frozen[name]), name


def test_the_survey_says_the_same():
    pytest.importorskip("sklearn.linear_model")
    here, there = (survey(make_tiny_net(), DATA, similarity="different", device=device) for device in ("cpu", "cuda"))
    assert [depth.nearest for depth in there.depths] == [depth.nearest for depth in here.depths]
    assert there.advice == here.advice
    assert there.predicted.keys() == here.predicted.keys()


def test_the_command_runs_there(tmp_path, capsys, image_loops):
    pytest.importorskip("sklearn.linear_model")
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val"):
        for index, (pixels, label) in enumerate(zip(DATA.images, DATA.labels, strict=True)):
            folder = tmp_path / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(folder / f"{part}{index}.png")
    make_tiny_net().save(tmp_path / "net.safetensors")
    words = ["transfer", tmp_path, "--net", tmp_path / "net.safetensors", "--seeds", "1", "--epochs", "1"]
    words += ["--batch-size", "8", "--strategies", "nearest,linear-top,finetune-few", "--device", "cuda", "--json"]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr()
    values = json.loads(told.out)
    assert [row["strategy"] for row in values["strategies"]] == ["nearest", "linear-top", "finetune-few"]
    assert "--device cuda" in told.err.splitlines()[-1]
