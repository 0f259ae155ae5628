"""How alike images are to the encoder's own: what depth gains on them, as a part of what it gains at home."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tiny_nets import coloured_images, make_tiny_net

import pycnn as pc
from pycnn.errors import ArgumentError, FormatError, ShapeError
from pycnn.nn.files import save
from pycnn.transfer import Depth, DepthGain, default_encoder, finetune, record_home_gain, survey
from pycnn.transfer.depth_gain import HOME_GAIN, depth_gain, home_gain, home_gain_text
from pycnn.transfer.pretrained import weights_path

DATA = coloured_images(60)


def known(net, gain, layers=None):
    """Metadata that know the gain of the net at home."""
    return {HOME_GAIN: home_gain_text(net, DepthGain(gain, 0.01), layers, 1000, (12, 12, 3))}


@pytest.fixture
def measured(monkeypatch):
    """Let the layers below the top, and the top layer, have accuracies of one's own: measured(low, top)."""

    def set_accuracies(low, top):
        def depth(found, layers, seed):
            linear = low if layers != found.layers[-1:] else top
            return Depth(layers, found.matrix(layers).shape[1], 0.5, linear)

        monkeypatch.setattr("pycnn.transfer.layer_survey._depth", depth)

    return set_accuracies


def test_the_gain_is_over_the_best_layer_below_and_counts_from_chance():
    gain = depth_gain([0.6, 0.7, 0.85], 0.5, 200)
    assert gain.value == pytest.approx((0.85 - 0.7) / 0.5)
    assert gain.error == pytest.approx(math.sqrt((0.85 * 0.15 + 0.7 * 0.3) / 200) / 0.5)
    assert depth_gain([0.9, 0.7, 0.8], 0.1, 200).value == pytest.approx(-0.1 / 0.9)
    assert depth_gain([0.9], 0.1, 200) is None
    # Perfect scores are no proof: as if one image more were wrong.
    assert depth_gain([1.0, 1.0], 0.0, 98).error == pytest.approx(math.sqrt(2 * 0.01 / 98))


def test_the_unit_is_the_gain_at_home_or_four_errors():
    gain = DepthGain(0.1, 0.02)
    assert gain.similarity(0.4).value == pytest.approx(0.25)
    assert gain.similarity(0.4).error == pytest.approx(0.05)
    assert gain.similarity(None).value == pytest.approx(1.25)
    assert gain.similarity(None).error == pytest.approx(0.25)
    for value, clear in ((0.041, True), (0.039, False), (-0.1, False)):
        assert DepthGain(value, 0.02).is_clear == clear
        assert (DepthGain(value, 0.02).similarity(None).value >= 0.5) == clear


@pytest.mark.parametrize(
    ("low", "top", "similarity"),
    # Of 3 classes: chance is 1/3, and 0.2 in accuracy are a gain of 0.3.
    [(0.5, 0.9, 1.0), (0.5, 0.72, 0.55), (0.5, 0.68, 0.45), (0.5, 0.6, 0.25), (0.7, 0.7, 0.0), (0.9, 0.5, 0.0)],
)
def test_survey_compares_the_gain_with_that_at_home(measured, tiny_net, low, top, similarity):
    measured(low, top)
    tiny_net.metadata = known(tiny_net, 0.6)
    found = survey(tiny_net, DATA)
    assert found.home_gain == 0.6
    assert found.gain.value == pytest.approx((top - low) * 1.5)
    assert found.similarity == pytest.approx(similarity)
    assert found.similarity_error == pytest.approx(found.gain.error / 0.6)
    assert found.advice.similar == (similarity >= 0.5)
    assert f"similarity to the encoder's data: {similarity:.2f} +- " in str(found)
    assert "on the encoder's own data: 0.60" in str(found)


def test_without_a_gain_at_home_two_errors_decide(measured, tiny_net):
    error = math.sqrt(2 * 0.25 / 60) * 1.5
    for above, similar in ((2.2, True), (1.8, False)):
        measured(0.5, 0.5 + above * error / 1.5)
        found = survey(tiny_net, DATA)
        assert found.home_gain is None
        assert found.similarity == pytest.approx(found.gain.value / found.gain.error / 4)
        assert found.advice.similar == similar
        assert not found.advice.confident
        assert "on the encoder's own data: not known" in str(found)


def test_advice_is_not_confident_where_the_similarity_is_uncertain(measured, tiny_net):
    """60 images of 3 classes give an error of the gain of about 0.13."""
    measured(0.5, 0.6)
    tiny_net.metadata = known(tiny_net, 0.6)
    found = survey(tiny_net, DATA)
    assert not found.advice.confident
    assert "The similarity is uncertain (0.25 +- 0.23): compare the neighbours." in found.advice.reason
    measured(0.9, 0.5)
    assert survey(tiny_net, DATA).advice.confident  # far below the border, though it is shown as 0
    # What is given is not doubted.
    assert survey(tiny_net, DATA, similarity=0.25).advice.confident
    assert survey(tiny_net, DATA, similarity=0.25).similarity_error is None


def test_a_gain_counts_for_the_layers_that_it_was_measured_on(measured, tiny_net):
    tiny_net.metadata = known(tiny_net, 0.3)
    assert home_gain(tiny_net, None) == 0.3
    assert home_gain(tiny_net, ("layer1", "layer2")) is None
    tiny_net.metadata = known(tiny_net, 0.3, ["conv1", "layer2"])
    assert home_gain(tiny_net, ("conv1", "layer2")) == 0.3
    assert home_gain(tiny_net, None) is None
    measured(0.5, 0.6)
    assert survey(tiny_net, DATA, layers=["conv1", "layer2"]).home_gain == 0.3
    tiny_net.metadata = known(tiny_net, 0.3)
    # By name or by default: the ends of the stages.
    assert survey(tiny_net, DATA, layers=["layer1", "layer2"]).home_gain == 0.3
    single = survey(tiny_net, DATA, layers=["layer2"])
    assert (single.gain, single.similarity, single.similarity_error) == (None, 0.5, None)
    assert not single.advice.confident
    assert "a single layer tells nothing about it" in str(single)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is damaged"),
        ("3", "is damaged"),
        ('{"gain": 0.3, "layers": null}', "is damaged"),
        ('{"gain": "much", "layers": null, "weights": ""}', "is damaged"),
        ('{"gain": 0.3, "layers": 7, "weights": ""}', "is damaged"),
        ('{"gain": 0, "layers": null, "weights": ""}', "the gain is 0.0, expected above 0"),
        ('{"gain": 1.5, "layers": null, "weights": ""}', "the gain is 1.5, expected above 0"),
        ('{"gain": NaN, "layers": null, "weights": ""}', "the gain is nan, expected above 0"),
    ],
)
def test_a_damaged_entry_is_told(tiny_net, text, why):
    tiny_net.metadata = {HOME_GAIN: text}
    with pytest.raises(FormatError, match=f"metadata 'home_gain'.*{why}"):
        home_gain(tiny_net, None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.safetensors"
    save(make_tiny_net(), path, metadata={"test_accuracy": "0.1"})
    return path


def test_recording_changes_the_entry_and_nothing_else(measured, file):
    whole, (arrays, entries) = pc.load(file), pc.checkpoint.read_tensors(file)
    before = {name: array.copy() for name, array in arrays.items()}
    measured(0.6, 0.9)
    gain = record_home_gain(file, DATA)
    assert gain.value == pytest.approx(0.45)
    tensors, metadata = pc.checkpoint.read_tensors(file)
    entry = json.loads(metadata.pop(HOME_GAIN))
    assert len(entry.pop("weights")) == 64
    assert entry == {"gain": 0.45, "error": round(gain.error, 4), "images": 60, "layers": None}
    assert metadata == entries
    assert list(tensors) == list(before)
    for name, array in tensors.items():
        assert array.dtype == before[name].dtype
        assert np.array_equal(array, before[name]), name
    loaded = pc.load(file)
    assert np.array_equal(loaded(DATA.images[:8]), whole(DATA.images[:8]))
    found = survey(loaded, DATA)
    assert found.home_gain == 0.45
    assert found.similarity == pytest.approx(1.0)
    # Again, over what is there, damaged or not, and for layers by name.
    for layers, names in (("layer1", "layer2"), ["layer1", "layer2"]), (None, None):
        pc.checkpoint.write_tensors(file, tensors, {**metadata, HOME_GAIN: "{"})
        assert record_home_gain(file, DATA, layers=layers) == gain
        assert json.loads(pc.load(file).metadata[HOME_GAIN])["layers"] == names
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_what_is_no_home_is_refused_and_the_file_stays(measured, file):
    before = file.read_bytes()
    measured(0.8, 0.9)
    with pytest.raises(ArgumentError, match=r"on these 60 images the top layer gains 0\.150 \+- 0\.097 over"):
        record_home_gain(file, DATA)
    measured(0.6, 0.9)
    with pytest.raises(ArgumentError, match="layers must name two or more, got layer2"):
        record_home_gain(file, DATA, layers=["layer2"])
    with pytest.raises(ShapeError):
        record_home_gain(file, (np.zeros((4, 12, 12, 1), np.uint8), [0, 0, 1, 1]))
    assert file.read_bytes() == before


def test_accuracies_of_real_layers_make_the_gain(tiny_net):
    """Colours are told apart by any layer: depth brings nothing."""
    pytest.importorskip("sklearn.linear_model")
    found = survey(tiny_net, coloured_images(24, classes=2))
    assert [depth.linear for depth in found.depths] == [1.0, 1.0, 1.0]
    assert found.gain.value == 0.0
    assert found.similarity == 0.0
    assert found.advice.strategy == "linear-stages"


@pytest.mark.parametrize(("part", "home"), [("head", 0.3), ("few", None)])
def test_a_net_that_learnt_something_else_has_no_home_any_more(tmp_path, part, home):
    save(make_tiny_net(), tmp_path / "net.safetensors", metadata=known(make_tiny_net(), 0.3))
    net = pc.load(tmp_path / "net.safetensors")
    assert home_gain(net, None) == 0.3
    finetune(net, coloured_images(12), part=part, epochs=2, batch_size=8)
    assert home_gain(net, None) == home
    # Metadata outlive the training; what they tell does not.
    save(net, tmp_path / "tuned.safetensors")
    tuned = pc.load(tmp_path / "tuned.safetensors")
    assert HOME_GAIN in tuned.metadata
    assert home_gain(tuned, None) == home
    # The head starts anew whatever it was.
    with pytest.warns(UserWarning, match="fresh weights for 7 classes"):
        assert home_gain(pc.load(tmp_path / "tuned.safetensors", num_classes=7), None) == home


def test_the_encoder_that_comes_along_knows_its_home():
    gain = home_gain(default_encoder(), None, (64, 64, 3))
    assert gain is not None, "run tools/record_home_gain.py on the file"
    assert gain == home_gain(pc.load(weights_path()), None)
    assert 0.2 < gain < 0.6
