"""`pycnn summary`."""

from __future__ import annotations

import pytest

NONE = type(None)


def test_summary_shows_the_table(run):
    result = run("summary", "lenet5", "--input-shape", "28,28,1", "--batch", "32")
    assert result.code == 0
    assert "61,706" in result.out
    assert "(32, 28, 28, 6)" in result.out
    assert result.next == "pycnn bench lenet5"


def test_summary_as_json(run, has_types):
    values = run("summary", "lenet5_1998", "--json", "--budget", "8M").json
    has_types(
        values, schema=str, net=str, html=NONE, name=str, input_shape=list, rows=list, parameters=int, weights=int,
        training_only_parameters=int, frozen=int, buffers=int, macs=int, other_flops=int, other_flops_by_group=dict,
        input_activations=int, activations=int, activation_bytes=int, gradient_bytes=int, inference=dict, training=dict,
        no_training=NONE, budget=dict, most_activations=list, most_parameters=list, bottlenecks=list,
    )  # fmt: skip
    assert values["schema"] == "pycnn.summary/1"
    assert values["parameters"] == 60000
    has_types(
        values["rows"][0], layer=str, kind=str, output=list, activations=int, parameters=int, weights=int, macs=int,
        other_flops=int, activation_bytes=int, gradient_bytes=int, receptive_field=(list, NONE), stride=(list, NONE),
        offset=(list, NONE), centre=(list, NONE), training_only=bool,
    )  # fmt: skip
    for mode, objective in (("inference", NONE), ("training", str)):
        has_types(
            values[mode], mode=str, objective=objective, batch=int, arena_bytes=int, scratch_bytes=int,
            prepared_bytes=int, variable_bytes=int, input_bytes=int, unshared_bytes=int, total_bytes=int, isa=str,
            threads=int,
        )  # fmt: skip
    has_types(values["budget"], bytes=int, inference_batch=int, training_batch=int)
    has_types(values["most_parameters"][0], layer=str, count=int, share=float)
    assert values["budget"]["bytes"] == 8 * 2**20


def test_summary_groups_and_joins_rows(run):
    plain, compact, deep = (
        [row["layer"] for row in run("summary", "lenet5", *words, "--json").json["rows"]]
        for words in ([], ["--compact"], ["--depth", "1"])
    )
    assert compact == ["conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3"]
    assert len(plain) == len(deep) == 12


def test_summary_writes_a_page(run, tmp_path):
    page = tmp_path / "lenet5.html"
    result = run("summary", "lenet5", "--html", page)
    assert str(page) in result.err
    assert "61,706" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "size"), [("8G", 2**33), ("512MiB", 2**29), ("1.5k", 1536), ("77", 77)])
def test_sizes_are_read(text, size):
    from pycnn.cli._options import size_bytes

    assert size_bytes(text) == size


def test_size_that_is_none_is_wrong_usage(run):
    result = run("summary", "lenet5", "--budget", "much")
    assert result.code == 2
    assert "'much'" in result.err
    assert "512M" in result.err


def test_summary_of_a_file_lists_its_layers_like_the_net(run, model):
    file, name = (run("summary", net, "--json").json for net in (model, "lenet5"))
    assert (file["parameters"], file["macs"]) == (name["parameters"], name["macs"])
    fields = {row["layer"]: row["receptive_field"] for row in file["rows"]}
    assert fields["conv2"] == [14, 14]


def test_summary_refuses_a_shape_that_does_not_fit(run):
    result = run("summary", "lenet5", "--input-shape", "28,28,3")
    assert result.code == 1
    assert "conv2d 'conv1': input has 3 channels, weight expects 1" in result.err
    assert ".py:" not in result.err  # a line of pycnn's own code tells a user nothing
