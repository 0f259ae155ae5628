"""The summary table: numbers that can be worked out by hand."""

from __future__ import annotations

import json

import pytest

import pycnn as pc
from pycnn import nn
from pycnn.nn import functional as F


def rows(summary):
    return {row.layer: row for row in summary.rows}


def test_lenet5_numbers():
    summary = pc.models.lenet5().summary()
    table = rows(summary)
    assert summary.parameters == 61_706
    assert table["conv1"].output == (1, 28, 28, 6)
    assert table["conv1"].parameters == 156
    assert table["conv1"].macs == 28 * 28 * 6 * 25
    assert table["conv2"].macs == 10 * 10 * 16 * 150
    assert table["fc1"].macs == 400 * 120
    assert summary.macs == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert table["conv1"].receptive_field == (5, 5)
    assert table["pool1"].receptive_field == (6, 6)
    assert table["pool1"].stride == (2, 2)
    assert table["conv2"].receptive_field == (14, 14)
    assert table["pool2"].receptive_field == (16, 16)
    assert table["fc1"].receptive_field is None


def test_batch_scales_macs_and_memory_but_not_parameters():
    net = pc.models.lenet5()
    one, four = net.summary(batch=1), net.summary(batch=4)
    assert four.macs == 4 * one.macs
    assert four.activation_bytes == 4 * one.activation_bytes
    assert four.parameters == one.parameters


def test_ops_of_forward_have_rows_of_their_own_and_shared_layers_count_once():
    class Net(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return F.relu(self.conv(self.conv(x)) + x)

    summary = Net().summary((6, 6, 2))
    assert [row.kind for row in summary.rows] == ["Conv2d", "Conv2d", "add", "relu"]
    assert [row.parameters for row in summary.rows] == [38, 0, 0, 0]
    assert summary.rows[1].receptive_field == (5, 5)


def test_blocks_are_one_row_with_all_their_parameters():
    net = nn.Sequential(nn.BasicBlock(3, 8, stride=2), nn.GlobalAvgPool2d())
    block = net.summary((8, 8, 3)).rows[0]
    assert block.kind == "BasicBlock"
    assert block.parameters == net.num_parameters
    assert block.output == (1, 4, 4, 8)
    assert block.macs == 4 * 4 * 8 * (27 + 72 + 3)
    assert block.receptive_field == (7, 7)


def test_frozen_and_buffers_are_told_apart():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    net.freeze("0")
    summary = net.summary((5, 5, 1))
    assert (summary.parameters, summary.frozen, summary.buffers) == (24, 20, 4)


def test_prints_as_text_html_and_dict():
    summary = pc.models.lenet5().summary((28, 28, 1))
    text = str(summary)
    assert "61,706" in text
    assert "MMAC" in text
    assert "MFLOP" in text
    assert max(len(line) for line in text.splitlines()) < 130
    assert "<table" in summary._repr_html_()
    assert json.loads(json.dumps(summary.to_dict()))["parameters"] == 61_706


def test_unknown_size_and_bad_batch_are_refused():
    with pytest.raises(pc.ArgumentError, match="size of the input is not known"):
        nn.Linear(2, 2).summary()
    with pytest.raises(pc.ArgumentError, match="batch"):
        pc.models.lenet5().summary(batch=0)


# ---- As the papers' tables


def googlenet():
    """The nine inception modules of the paper's table and its stem, without auxiliary heads."""
    widths = {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    }

    class Net(nn.Module):
        def __init__(self):
            self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
            self.conv2 = nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 192, 3, padding=1), nn.ReLU())
            self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            for name, (b1, r3, b3, r5, b5, pool) in widths.items():
                block = nn.Inception(branch1=b1, reduce3=r3, branch3=b3, reduce5=r5, branch5=b5, pool=pool)
                setattr(self, f"inception{name}", block)
            self.fc = nn.Linear(1024, 1000)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, ceil_mode=True)
            x = F.max_pool2d(self.conv2(x), kernel_size=3, stride=2, ceil_mode=True)
            for name in widths:
                if name in ("4a", "5a"):
                    x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
                x = getattr(self, f"inception{name}")(x)
            return self.fc(F.global_avg_pool2d(x))

    return Net()


# Units of 1,024 weights, and millions of multiply-adds. Szegedy et al. 2014, table 1, prints 112/360, 159/128, 380/304,
# 364/73, 437/88, 463/100, 580/119, 840/170, 1072/54, 1388/71 and 1000/1; where that differs by more than its rounding
# (the weights of 4c to 5b, 5a's multiply-adds), it does not follow from the widths printed beside it.
GOOGLENET = {
    "conv2": (112, 360),
    "inception3a": (159.5, 128),
    "inception3b": (379, 304),
    "inception4a": (366.75, 74),
    "inception4b": (438, 88),
    "inception4c": (497.5, 100),
    "inception4d": (590.5, 119),
    "inception4e": (847, 170),
    "inception5a": (1018, 51),
    "inception5b": (1409, 71),
    "fc": (1000, 1),
}


def test_googlenets_table_comes_out_row_for_row():
    summary = googlenet().summary((224, 224, 3), depth=1, compact=True)
    table = rows(summary)
    for name, (thousands, millions) in GOOGLENET.items():
        assert table[name].weights == thousands * 1024, name
        assert round(table[name].macs / 1e6) == millions, name
    assert table["conv1"].weights == 9408
    assert summary.parameters == 6_998_552
    assert [row.layer for row in summary.rows if row.layer.startswith("inception")] == [
        name for name in GOOGLENET if name.startswith("inception")
    ]
    assert table["inception3a"].output == (1, 28, 28, 256)
    assert table["inception5b"].output == (1, 7, 7, 1024)
    assert table["inception3a"].kind == "Inception"


def vgg16():
    layers, channels = [], 3
    for width in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    layers += [nn.Flatten(), nn.Linear(25_088, 4096), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers)


# The lecture's slide with its three slips put right: activations, weights.
VGG16 = [
    (3_211_264, 1_728), (3_211_264, 36_864), (802_816, 0), (1_605_632, 73_728), (1_605_632, 147_456), (401_408, 0),
    (802_816, 294_912), (802_816, 589_824), (802_816, 589_824), (200_704, 0), (401_408, 1_179_648),
    (401_408, 2_359_296), (401_408, 2_359_296), (100_352, 0), (100_352, 2_359_296), (100_352, 2_359_296),
    (100_352, 2_359_296), (25_088, 0), (4096, 102_760_448), (4096, 16_777_216), (1000, 4_096_000),
]  # fmt: skip


def test_vgg16s_slide_comes_out_row_for_row():
    summary = vgg16().summary((224, 224, 3), compact=True)
    assert summary.input_activations == 150_528
    assert [(row.activations, row.weights) for row in summary.rows] == VGG16
    assert summary.activations + summary.input_activations == 15_237_608
    assert (summary.parameters, summary.weights) == (138_357_544, 138_344_128)
    assert round(summary.macs / 1e9, 3) == 15.470
    # "Most memory is in early conv, most params are in late FC."
    assert [share.layer for share in summary.most_activations[:2]] == ["0", "2"]
    assert summary.most_parameters[0].layer == "32"
    assert summary.most_parameters[0].share == pytest.approx(102_764_544 / 138_357_544)
    assert "15,237,608" in str(summary)


def test_compact_rows_do_not_swallow_what_others_still_read():
    class PreActivation(nn.Module):
        def __init__(self):
            self.conv1 = nn.Conv2d(2, 2, 3, padding=1)
            self.bn = nn.BatchNorm2d(2)
            self.conv2 = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            x = self.conv1(x)
            return x + self.conv2(F.relu(self.bn(x)))

    plain, compact = (PreActivation().summary((4, 4, 2), compact=c) for c in (False, True))
    assert [row.layer for row in plain.rows] == ["conv1", "bn", "activation", "conv2", "add"]
    # The shortcut reads conv1's result, so the batch norm cannot overwrite it; the ReLU can overwrite the norm's.
    assert [row.kind for row in compact.rows] == ["Conv2d", "BatchNorm2d, relu", "Conv2d", "add"]
    assert [row.activations for row in compact.rows] == [32] * 4
    assert (plain.parameters, plain.macs) == (compact.parameters, compact.macs)
    assert sum(row.parameters for row in compact.rows) == compact.parameters


def test_rows_grouped_by_depth_add_up():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    grouped, plain = net.summary((6, 6, 1), depth=1), net.summary((6, 6, 1))
    assert [row.layer for row in grouped.rows] == ["0", "1"]
    assert [row.layer for row in plain.rows] == ["0.0", "0.1", "1.0", "1.1"]
    for name in ("activations", "parameters", "weights", "macs", "other_flops", "activation_bytes", "gradient_bytes"):
        assert sum(getattr(r, name) for r in grouped.rows) == sum(getattr(r, name) for r in plain.rows) > 0, name
    assert grouped.rows[0].output == (1, 4, 4, 2)
    assert grouped.rows[0].receptive_field == (3, 3)


# ---- Memory


def assert_planned(plan, program):
    memory = dict(program.memory)
    for name in ("transfer_bytes", "staging_bytes", "lane_scratch_bytes"):
        assert memory.pop(name) == 0, name  # a GPU's
    for name, value in memory.items():
        assert getattr(plan, name) == value, name


def test_memory_is_that_of_the_programs():
    net = pc.models.lenet5()
    summary = net.summary(batch=4)
    plan = summary.inference
    program = pc.compile(net, (4, 28, 28, 1))
    assert_planned(plan, program)
    assert plan.input_bytes == 4 * 28 * 28 * 4
    parts = (plan.arena_bytes, plan.scratch_bytes, plan.prepared_bytes, plan.variable_bytes, plan.input_bytes)
    assert plan.total_bytes == sum(parts)
    assert (plan.isa, plan.threads) == (program.isa, program.threads)
    training = summary.training
    # Parameters and their momentum, and a few numbers of the optimizer's.
    assert 2 * 4 * 61_706 <= training.variable_bytes < 2 * 4 * 61_706 + 100
    assert training.arena_bytes > plan.arena_bytes
    assert "cross-entropy" in training.objective


def test_training_memory_is_that_of_a_trainer():
    import numpy as np

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(None, 5))
    plan = net.summary((10, 10, 1), batch=6).training
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.1, momentum=0.9), metrics=())
    x, y = np.zeros((6, 10, 10, 1), np.float32), np.zeros(6, np.int32)
    trainer.step(x, y)
    (batch,) = trainer._training._programs.values()
    assert_planned(plan, batch.program)


def test_frozen_layers_need_less_memory_and_no_gradients():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(None, 2))
    before = net.summary((12, 12, 1))
    net.freeze("0")
    after = net.summary((12, 12, 1))
    assert before.rows[0].gradient_bytes == before.rows[0].activation_bytes > 0
    assert after.rows[0].gradient_bytes == 0
    assert after.rows[1].gradient_bytes > 0
    assert after.training.variable_bytes == before.training.variable_bytes - 4 * (72 + 8)
    net.freeze("*")
    frozen = net.summary((12, 12, 1))
    assert frozen.training is None
    assert "no parameter that can be trained" in str(frozen)


def test_largest_batch_fits_and_one_more_does_not():
    net = pc.models.lenet5()
    budget = 3_000_000
    found = net.summary(budget=budget).budget
    for mode, batch in (("inference", found.inference_batch), ("training", found.training_batch)):
        fits, too_large = (getattr(net.summary(batch=b), mode).total_bytes for b in (batch, batch + 1))
        assert fits <= budget < too_large, mode
    assert found.training_batch < found.inference_batch
    none = net.summary(budget=1000).budget
    assert (none.inference_batch, none.training_batch) == (0, 0)
    with pytest.raises(pc.ArgumentError, match="budget"):
        net.summary(budget=0)


def test_budget_of_a_net_that_cannot_train_on_one_image():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    summary = net.summary((3, 3, 1), budget=50_000)
    assert summary.training is None
    assert "at least 2 values per channel" in summary.no_training
    batch = summary.budget.training_batch
    fits, too_large = (net.summary((3, 3, 1), batch=b).training.total_bytes for b in (batch, batch + 1))
    assert fits <= 50_000 < too_large
    assert net.summary((3, 3, 1), budget=100).budget.training_batch == 0


# ---- Guideline 1


def test_tight_bottlenecks_are_named_and_branches_are_not():
    tight = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 4, 1), nn.Conv2d(4, 32, 3, padding=1))
    (found,) = tight.summary((8, 8, 3)).bottlenecks
    assert (found.layer, found.volume_before, found.volume_after, found.ratio) == ("1", 2048, 256, 0.125)
    assert "1: 2,048 -> 256, x 0.125" in str(tight.summary((8, 8, 3)))
    # A narrow middle beside a shortcut, or beside other branches, loses nothing; a 2x2 pool keeps a quarter.
    wide = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.Bottleneck(32, 8, base_width=8),
        nn.Inception(branch1=16, reduce3=1, branch3=8, reduce5=1, branch5=4, pool=4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(None, 2),
    )
    assert wide.summary((8, 8, 3)).bottlenecks == ()


def test_auxiliary_heads_count_as_parameters_only():
    class Net(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(1, 2, 3)
            self.aux = nn.Linear(None, 3)
            self.fc = nn.Linear(None, 3)

        def forward(self, x):
            x = F.global_avg_pool2d(self.conv(x))
            return self.fc(x), self.aux(x)

    summary = Net().summary((6, 6, 1))
    assert [row.layer for row in summary.rows if row.training_only] == ["aux"]
    assert summary.training_only_parameters == 9
    assert summary.parameters == 20 + 9 + 9
    assert summary.macs == 16 * 18 + 6
    assert "aux *" in str(summary)
    with_own_loss = type("Own", (Net,), {"default_loss": lambda self, r, y: F.cross_entropy(r[0] + r[1], y)})
    assert "own loss" in with_own_loss().summary((6, 6, 1)).training.objective


def test_html_page_is_well_formed_and_refers_to_nothing_outside():
    from xml.etree import ElementTree

    class Odd(nn.Sequential):
        pass

    Odd.__name__ = "<Odd & net>"
    page = Odd(nn.Conv2d(1, 1, 3)).summary((5, 5, 1), budget=10**6).to_html()
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert root.find("head/title").text == "<Odd & net>"
    assert len(root.findall("body/table/tbody/tr")) == 2
    assert "http" not in page
    assert "src=" not in page
