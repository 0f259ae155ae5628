"""The 2x2 table, the survey of layers, and the comparison of strategies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_nets import EvenNet, TinyNet, coloured_images
from tolerances import assert_within, sum_bound

import pycnn as pc
from pycnn.data import ImageFolder
from pycnn.errors import ArgumentError, LabelError, UnsupportedError
from pycnn.transfer import (
    STRATEGIES,
    Comparison,
    Encoder,
    StrategyResult,
    advise,
    compare,
    default_encoder,
    finetune,
    survey,
)
from pycnn.transfer.cost import _shares, predicted_seconds
from pycnn.transfer.fresh import redraw
from pycnn.transfer.pretrained import weights_path


@pytest.mark.parametrize(
    ("images", "similarity", "strategy"),
    [
        (80, "similar", "linear-top"),
        (80, "different", "linear-stages"),
        (100_000, "similar", "finetune-few"),
        (100_000, "different", "finetune-more"),
        (80, 0.9, "linear-top"),
        (80, 0.1, "linear-stages"),
    ],
)
def test_advice_is_the_table(images, similarity, strategy):
    advice = advise(images, 2, similarity)
    assert advice.strategy == strategy
    assert advice.strategy in STRATEGIES
    assert advice.confident
    assert f"({images // 2:,} images of a class)" in advice.reason


def test_advice_says_when_it_cannot_tell():
    assert not advise(18, 2, "similar").confident
    assert "too little data to tell (9 images of a class)" in advise(18, 2, "similar").reason
    for images, similarity in ((199, "similar"), (200, "similar"), (80, 0.45), (80, 0.55)):
        advice = advise(images, 2, similarity)
        assert not advice.confident
        assert "near the border" in advice.reason
    assert advise(199, 2, "similar").little_data
    assert not advise(200, 2, "similar").little_data


def test_advice_refuses_nonsense():
    for arguments, text in (
        ((0, 2, "similar"), "n_images must be at least 1"),
        ((10, 1, "similar"), "n_classes must be at least 2"),
        ((10, 2, "equal"), "similarity must be 'similar', 'different' or in"),
        ((10, 2, 1.5), "similarity must be 'similar', 'different' or in"),
        ((10, 2, float("nan")), "similarity must be 'similar', 'different' or in"),
    ):
        with pytest.raises(ArgumentError, match=text):
            advise(*arguments)


def test_survey_measures_each_depth(tiny_net):
    pytest.importorskip("sklearn.linear_model")
    data = coloured_images(60)
    found = survey(tiny_net, data)
    assert [depth.layers for depth in found.depths] == [("layer1",), ("layer2",), ("layer1", "layer2")]
    assert [depth.features for depth in found.depths] == [6, 10, 16]
    assert found.depths[-1].linear > 0.8
    assert found.chance == pytest.approx(1 / 3)
    assert 0.0 <= found.similarity <= 1.0
    assert found.advice.little_data
    assert len(found.features) == 60
    assert list(found.predicted) == list(STRATEGIES)
    times = [found.predicted[f"finetune-{part}"] for part in ("head", "few", "more", "all")]
    assert sorted(times) == times
    # More is all layers in this net.
    assert times[0] < times[1] < times[2] == times[3] == pytest.approx(found.predicted["scratch"])
    assert 0 < found.predicted["linear-top"] < times[0]
    text = str(found)
    assert "layer1 + layer2" in text
    assert "advice:" in text
    # Labels that mean nothing: no depth may claim to tell them.
    rng = np.random.default_rng(0)
    noise = survey(tiny_net, (data.images, rng.integers(0, 2, 60)), similarity="different")
    assert max(depth.linear for depth in noise.depths) < 0.75
    assert noise.similarity == 0.0
    assert noise.advice.strategy == "linear-stages"
    with pytest.raises(ArgumentError, match="all 60 samples are of one class"):
        survey(tiny_net, (data.images, np.zeros(60, int)))


def test_every_strategy_is_carried_out_and_the_best_net_is_written(tiny_net, photos, tmp_path):
    pytest.importorskip("sklearn.linear_model")
    before = tiny_net.state_dict()
    train, val = (ImageFolder(photos / part, size=12) for part in ("train", "val"))
    lines = []
    found = compare(tiny_net, train, val, seeds=2, epochs=2, batch_size=8, out=tmp_path / "store", report=lines.append)
    assert [r.name for r in found.results] == list(STRATEGIES)
    assert all(len(r.accuracies) == 2 for r in found.results)
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), tiny_net.state_dict().values(), strict=True))
    assert all(parameter.trainable for parameter in tiny_net.parameters())
    by_name = {r.name: r for r in found.results}
    assert by_name["nearest"].net is None
    assert by_name["nearest"].deviation == 0.0
    assert by_name["linear-stages"].mean > 0.8
    # Every net gives what was counted.
    images = val.images[:]
    for result in found.results:
        if result.net is not None and result.accuracies[0] >= result.accuracies[1]:
            assert np.array_equal(result.net.predict(images) == val.labels, result.right), result.name
    best = found.save_best(tmp_path / "best.safetensors")
    loaded = pc.load(tmp_path / "best.safetensors")
    assert loaded.metadata["class_names"] == '["blue", "red"]'
    assert loaded.metadata["transfer"] == best.name
    assert (loaded.predict(images) == val.labels).mean() == max(best.accuracies)
    assert "linear classifier on several stages" in str(found)
    table = found.to_csv(tmp_path / "table.csv").splitlines()
    assert table[0] == "strategy,mean,deviation,seconds,run_1,run_2"
    assert len(table) == 9
    assert (tmp_path / "store" / "train" / "features.json").exists()
    assert any("scratch, seed 1" in line for line in lines)


def test_what_comes_to_the_same_layers_is_run_once(tiny_net):
    data, lines = coloured_images(12), []
    options = {"seeds": 2, "epochs": 2, "batch_size": 8}
    both = compare(tiny_net, data, data, strategies=["finetune-more", "finetune-all"], report=lines.append, **options)
    more, all_ = both.results
    assert [line.partition(":")[0] for line in lines] == [
        "finetune-more, seed 0",
        "finetune-more, seed 1",
        "finetune-all",
    ]
    assert (more.name, more.same_as) == ("finetune-more", None)
    assert (all_.name, all_.same_as) == ("finetune-all", "finetune-more")
    assert all_.accuracies == more.accuracies
    assert "finetune-all: the same layers as finetune-more in this net, run once" in str(both)
    assert [row["same_as"] for row in both.rows()] == [None, "finetune-more"]
    # It is the same work in truth.
    alone = compare(tiny_net, data, data, strategies=["finetune-all"], **options).results[0]
    assert alone.same_as is None
    assert alone.accuracies == all_.accuracies
    assert np.array_equal(alone.net(data.images[:]), all_.net(data.images[:]))
    # Where the lower layers hold much, it is not.
    even = EvenNet().build((12, 12, 3))
    found = compare(
        even, data, data, strategies=["finetune-more", "finetune-all"], seeds=1, epochs=2, batch_size=8, layers=["c4"]
    )
    assert [r.same_as for r in found.results] == [None, None]


def results(**accuracies):
    """A comparison on 100 held-out images."""
    rows = [
        StrategyResult(name.replace("_", "-"), found, 1.0, np.zeros(100, bool), None)
        for name, found in accuracies.items()
    ]
    return Comparison(tuple(rows), 100, ("a", "b"))


def test_the_best_is_chosen_and_ties_are_told():
    found = results(scratch=(0.8, 0.6), nearest=(0.9,), linear_top=(0.9,), finetune_all=(0.86, 0.84))
    assert found.best.name == "nearest"  # as good as linear-top, and simpler
    assert found.standard_error == pytest.approx(0.03)  # sqrt(0.9 * 0.1 / 100)
    assert found.close_to_best() == ["nearest", "linear-top", "finetune-all"]
    assert results(scratch=(0.83,), nearest=(0.9,)).close_to_best() == ["nearest"]
    assert results(scratch=(0.9,), nearest=(0.83,)).best.name == "scratch"
    assert [r.deviation for r in found.results] == pytest.approx([np.sqrt(0.02), 0.0, 0.0, np.sqrt(0.0002)])
    # A perfect score on few images is no proof: as if one of them more were wrong.
    assert results(nearest=(1.0,)).standard_error == pytest.approx(np.sqrt(1 / 102 / 100))


def test_nearest_neighbours_find_themselves_and_give_no_net(tiny_net):
    data = coloured_images(12)
    found = compare(tiny_net, data, data, strategies=["nearest"], seeds=[7])
    assert found.best.mean == 1.0
    with pytest.raises(ArgumentError, match="no strategy that was run gives a net"):
        found.save_best("never.safetensors")


def test_seeds_are_a_number_or_several(tiny_net):
    data = coloured_images(12)
    for seeds, runs in ((np.int64(2), 2), (np.array([4, 9, 1]), 3), (range(1), 1)):
        found = compare(tiny_net, data, data, strategies=["nearest"], seeds=seeds)
        assert len(found.results[0].accuracies) == runs
    for seeds, text in ((2.5, "must be an integer, got 2.5"), ([], "holds no number"), ("ab", "got 'a'"), ([-1], "-1")):
        with pytest.raises(ArgumentError, match=f"compare: seeds {text}|compare: seeds .*{text}"):
            compare(tiny_net, data, data, strategies=["nearest"], seeds=seeds)


def test_what_was_computed_before_counts_and_is_told(tiny_net, tmp_path):
    data, lines = coloured_images(12), []
    options = {"strategies": ["nearest"], "seeds": 1, "out": tmp_path, "report": lines.append}
    first, again = (compare(tiny_net, data, data, **options).results[0].seconds for _ in range(2))
    stored = [json.loads((tmp_path / part / "features.json").read_text())["seconds"] for part in ("train", "val")]
    assert min(stored) > 0
    assert min(first, again) > sum(stored)
    assert "computed before" not in lines[0]
    assert "(train and val computed before)" in lines[2]


def test_shared_files_are_told(tiny_net, photos):
    (photos / "val" / "red" / "9.png").write_bytes((photos / "train" / "red" / "0.png").read_bytes())
    parts = [ImageFolder(photos / part, size=12) for part in ("train", "val")]
    with pytest.warns(UserWarning, match="compare: 1 of 9 images of val are among the training images too"):
        compare(tiny_net, *parts, strategies=["nearest"], seeds=1)


def test_threads_reach_features_training_and_prediction(tiny_net, monkeypatch):
    made = []
    real = pc.program.compile_traced

    def record(*args, **options):
        made.append(options.get("threads"))
        return real(*args, **options)

    for room in ("pycnn.program", "pycnn.train._programs", "pycnn.nn._running"):
        monkeypatch.setattr(f"{room}.compile_traced", record)
    data = coloured_images(12)
    found = compare(
        tiny_net, data, data, strategies=["nearest", "finetune-head"], seeds=1, epochs=1, batch_size=8, threads=1
    )
    assert len(made) >= 3
    assert set(made) == {1}
    again = compare(tiny_net, data, data, strategies=["finetune-head"], seeds=1, epochs=1, batch_size=8)
    assert np.array_equal(again.results[0].right, found.results[1].right)


def test_scratch_is_refused_before_the_work(tmp_path):
    class Gated(pc.nn.Module):
        def __init__(self):
            self.conv = pc.nn.Conv2d(3, 4, kernel_size=3)
            self.gate = pc.Parameter((4,), init=np.ones(4, np.float32))
            self.fc = pc.nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(pc.functional.global_avg_pool2d(self.conv(x) * self.gate))

    data, lines = coloured_images(12), []
    with pytest.raises(UnsupportedError, match="how 'gate' starts cannot be told"):
        compare(Gated().build((12, 12, 3)), data, data, epochs=1, layers=["conv"], report=lines.append)
    assert lines == []


def test_labels_that_are_no_classes_are_refused_before_they_are_counted(tiny_net):
    """A count by class of a label of 10**10 would want 75 GiB."""
    data = coloured_images(12)

    class Own(pc.data.ReadableDataset):
        class_names, image_shape, image_dtype = data.class_names, data.image_shape, data.image_dtype

        def __init__(self, label, dtype="int64"):
            self.labels = data.labels.astype(dtype)
            self.labels[5] = label

        def read(self, index):
            return data.read(index)

    changed = coloured_images(12)
    changed.labels[5] = 10**10
    plain = data.images, Own(10**10).labels
    for wrong, text in (
        (plain, "label 10000000000 at position 5 is too large"),
        (Own(10**10), r"label 10000000000 at position 5 is outside of 0\.\.2"),
        (Own(-1), r"label -1 at position 5 is outside of 0\.\.2"),
        (Own(2**64 - 1, "uint64"), f"label {2**64 - 1} at position 5 is out of range"),
        (changed, r"label 10000000000 at position 5 is outside of 0\.\.2"),
    ):
        for call in (
            lambda: survey(tiny_net, wrong),
            lambda: finetune(tiny_net, wrong, epochs=1),
            lambda: finetune(tiny_net, data, wrong, epochs=1),
            lambda: compare(tiny_net, wrong, data),
            lambda: compare(tiny_net, data, wrong),
        ):
            with pytest.raises(LabelError, match=text):
                call()


def test_layers_share_the_cost_whose_weights_are_put_together():
    """In C3 of the LeNet-5 of 1998 a table picks what is connected; its weights are several parameters."""
    net = pc.models.create("lenet5_1998")
    shares = _shares(net, None)
    assert set(shares) <= {name for name, _ in net.named_parameters()}
    assert {name.partition(".")[0] for name in shares} >= {"c1", "c3", "c5", "f6"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_survey_costs_the_net_at_the_size_of_the_data(tiny_net):
    class Sized(TinyNet):
        """It has to be told its size."""

    pc.manual_seed(0)
    net, data = Sized(), coloured_images(20)
    assert net.input_shape is None
    predicted = predicted_seconds(net, 1.0, 10, 3, input_shape=(12, 12, 3))
    assert predicted == predicted_seconds(tiny_net, 1.0, 10, 3)
    # The dense layer's share of the work falls with the size of the maps.
    larger = predicted_seconds(tiny_net, 1.0, 10, 3, input_shape=(48, 48, 3))
    assert 30.0 < larger["finetune-head"] < predicted["finetune-head"]
    pytest.importorskip("sklearn.linear_model")
    assert list(survey(net, data).predicted) == list(STRATEGIES)


def test_comparison_refuses_nonsense(tiny_net):
    data = coloured_images(12)
    with pytest.raises(ArgumentError, match="no strategy is called 'magic'; there is scratch"):
        compare(tiny_net, data, data, strategies=["magic"])
    with pytest.raises(ArgumentError, match="seeds must be at least 1, got 0"):
        compare(tiny_net, data, data, seeds=0)
    with pytest.raises(ArgumentError, match="classes of train and val differ"):
        compare(tiny_net, data, coloured_images(12, classes=2))


def test_redrawn_nets_have_learnt_nothing(tmp_path):
    net = pc.models.create("cifar_resnet20")
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    net.bn1.running_mean.copy_(np.ones(16, np.float32))
    redraw(net, seed=5)
    redraw(loaded, seed=5)
    first, second = net.state_dict(), loaded.state_dict()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    weight = first["layer3.1.conv1.weight"]
    assert weight.std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.03)
    assert not first["bn1.running_mean"].any()
    assert np.array_equal(first["layer2.0.bn2.running_var"], np.ones(32, np.float32))
    redraw(net, seed=6)
    assert not np.array_equal(weight, net.state_dict()["layer3.1.conv1.weight"])


def test_redrawing_leaves_nothing_that_was_learnt(tmp_path):
    """Weights that a table puts together, and layers of one's own, whose start only their module knows."""
    net = pc.models.lenet5_1998()
    for parameter in net.parameters():
        parameter.copy_(np.full(parameter.disk_shape, 9.0, np.float32))
    codes = net.output.codes.numpy()
    redraw(net, seed=1)
    state = net.state_dict()
    for name, parameter in net.named_parameters():
        assert not (state[name] == 9.0).any(), name
        assert parameter.size == 1 or name.endswith("bias") or np.ptp(state[name]) > 0, name
    assert np.array_equal(codes, net.output.codes.numpy())
    # Parts of one weight start as the whole does: normal, variance 2 / (5 * 5 * 16).
    parts = np.concatenate([state[f"c3.weight{size}"].ravel() for size in (3, 4, 6)])
    assert parts.std() == pytest.approx(np.sqrt(2 / 400), rel=0.1)
    assert np.abs(state["s2.weight"]).max() <= 2.4 / 4
    net.save(tmp_path / "net.safetensors")
    loaded = pc.load(tmp_path / "net.safetensors")
    before = loaded.state_dict()
    with pytest.raises(UnsupportedError, match=r"how 's2.weight', 's2.bias', 's4.weight', 's4.bias' start cannot be"):
        redraw(loaded, seed=1)
    after = loaded.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_encoder_that_comes_along_is_the_net_of_its_file():
    net, whole = default_encoder(), pc.load(weights_path())
    assert net.num_parameters == 269_722
    assert float(whole.metadata["test_accuracy"]) > 0.8
    assert whole.metadata["class_names"].startswith('["airplane", "automobile", "bird"')
    assert Encoder(net, "layer3").feature_sizes((64, 64, 3)) == {"layer3": 64}
    # Pixels are normalised as in training, once.
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = whole(x)
    assert_within(net(x), expected, sum_bound(np.abs(expected).max(), 600))


def test_the_encoder_that_comes_along_tells_the_classes_of_cifar10(shared_data):
    test = pc.data.TarShards(sorted((shared_data / "cifar10").glob("test-*.tar")))
    images = test.read(np.arange(200))
    assert (default_encoder().predict(images) == test.labels[:200]).mean() > 0.75
