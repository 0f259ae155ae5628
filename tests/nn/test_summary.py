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
    assert max(len(line) for line in text.splitlines()) < 120
    assert "<table>" in summary._repr_html_()
    assert json.loads(json.dumps(summary.to_dict()))["parameters"] == 61_706


def test_unknown_size_and_bad_batch_are_refused():
    with pytest.raises(pc.ArgumentError, match="size of the input is not known"):
        nn.Linear(2, 2).summary()
    with pytest.raises(pc.ArgumentError, match="batch"):
        pc.models.lenet5().summary(batch=0)
