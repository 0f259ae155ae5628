"""State dicts: names, layouts, and loading that changes all or nothing."""

from __future__ import annotations

import numpy as np
import pytest

import pycnn as pc
from pycnn import nn


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(2, 3, (3, 5)), nn.BatchNorm2d(3), nn.Linear(3, 4)).build((9, 9, 2))


def filled(net, value):
    return {k: np.full_like(v, value) for k, v in net.state_dict().items()}


def test_convolution_weights_are_out_in_height_width(net):
    assert net.state_dict()["0.weight"].shape == (3, 2, 3, 5)


def test_state_is_a_copy(net):
    state = net.state_dict()
    state["0.bias"][:] = 9
    assert not np.array_equal(net.state_dict()["0.bias"], state["0.bias"])


def test_loading_gives_back_what_was_saved(net):
    state = {
        k: np.random.default_rng(0).standard_normal(v.shape).astype(np.float32) for k, v in net.state_dict().items()
    }
    report = net.load_state_dict(state)
    assert set(report.loaded) == set(state)
    assert not report.missing
    assert all(np.array_equal(v, state[k]) for k, v in net.state_dict().items())


def test_missing_and_unexpected_names_are_listed_and_nothing_changes(net):
    before = net.state_dict()
    state = filled(net, 1.0)
    del state["2.bias"]
    state["3.weight"] = np.zeros(1, np.float32)
    with pytest.raises(pc.ArgumentError) as caught:
        net.load_state_dict(state)
    assert "1 missing" in str(caught.value)
    assert "2.bias" in str(caught.value)
    assert "3.weight" in str(caught.value)
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())


def test_wrong_shapes_are_listed_and_nothing_changes(net):
    before = net.state_dict()
    state = filled(net, 1.0)
    state["2.weight"] = np.zeros((10, 3), np.float32)
    message = r"1 mismatched:\n  '2.weight' is \(10, 3\), the net has \(4, 3\)\n  hint: .*classes.*skip=\('2\.\*',\)"
    with pytest.raises(pc.ShapeError, match=message):
        net.load_state_dict(state)
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())


def test_names_and_shapes_that_differ_are_told_together(net):
    state = filled(net, 1.0)
    state["2.weight"] = np.zeros((10, 3), np.float32)
    state["9.bias"] = np.zeros(1, np.float32)
    with pytest.raises(pc.ArgumentError, match=r"1 unexpected:\n  9.bias\n1 mismatched:\n  '2.weight' is \(10, 3\)"):
        net.load_state_dict(state)


def test_not_strict_leaves_what_has_another_shape_and_says_so(net):
    before = net.state_dict()["2.weight"]
    state = filled(net, 1.0)
    state["2.weight"] = np.zeros((10, 3), np.float32)
    report = net.load_state_dict(state, strict=False)
    assert [(m.name, m.given, m.expected) for m in report.mismatched] == [("2.weight", (10, 3), (4, 3))]
    assert "2.weight" not in report.loaded
    assert np.array_equal(net.state_dict()["2.weight"], before)
    assert np.array_equal(net.state_dict()["2.bias"], np.ones(4))
    assert str(report).startswith("7 loaded\n1 mismatched:\n  '2.weight' is (10, 3), the net has (4, 3)")


def test_skipped_names_are_left_out_on_both_sides(net):
    before = net.state_dict()["2.weight"]
    state = {k: v for k, v in filled(net, 1.0).items() if k != "2.bias"}
    state |= {"2.weight": np.zeros((10, 3), np.float32), "aux.fc.weight": np.zeros(3, np.float32)}
    report = net.load_state_dict(state, skip=("2.*", "aux"))
    assert report.skipped == ("2.weight", "2.bias", "aux.fc.weight")
    assert not report.missing + report.unexpected + report.mismatched
    assert np.array_equal(net.state_dict()["2.weight"], before)
    assert net.load_state_dict({k: v for k, v in state.items() if k[0] != "a"}, skip="2").skipped


def test_a_pattern_that_matches_nothing_is_refused(net):
    with pytest.raises(pc.ArgumentError, match="load_state_dict: no parameter or module is called 'fc\\.\\*'"):
        net.load_state_dict(filled(net, 1.0), skip="fc.*")


def test_loading_nothing_is_an_error_even_when_not_strict(net):
    with pytest.raises(pc.ArgumentError, match="nothing can be loaded; 8 missing"):
        net.load_state_dict({"x": np.ones(1)}, strict=False)


def test_long_lists_are_cut_after_ten():
    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    with pytest.raises(pc.ArgumentError, match="40 missing(.|\n)*and 30 more"):
        net.load_state_dict({})


def test_not_strict_loads_what_both_sides_have(net):
    report = net.load_state_dict({"2.bias": np.ones(4, np.float32), "x": np.ones(1)}, strict=False)
    assert report.loaded == ("2.bias",)
    assert report.unexpected == ("x",)
    assert "0.weight" in report.missing
    assert np.array_equal(net[2].bias.numpy(), np.ones(4))


def test_num_batches_tracked_is_ignored(net):
    state = {**net.state_dict(), "1.num_batches_tracked": np.array(7)}
    assert not net.load_state_dict(state).unexpected


def test_integer_weights_are_refused(net):
    state = filled(net, 1.0)
    state["2.bias"] = np.ones(4, np.int64)
    with pytest.raises(pc.DTypeError, match="'2.bias' is int64"):
        net.load_state_dict(state)


def test_something_else_than_a_mapping_is_refused(net):
    with pytest.raises(pc.DTypeError, match="expected a mapping"):
        net.load_state_dict([1, 2])


def test_nan_weights_load_and_are_reported(net, tmp_path):
    with pytest.warns(RuntimeWarning, match="NaN or infinity in '"):
        net.load_state_dict(filled(net, np.nan))
    net.build((9, 9, 2)).save(tmp_path / "nan.safetensors")
    with pytest.warns(RuntimeWarning, match=r"load '.*nan.safetensors'.*'0.weight'"):
        pc.load(tmp_path / "nan.safetensors")
    assert np.isnan(net(np.zeros((1, 9, 9, 2), np.float32))).all()


@pytest.mark.interop
def test_torch_tensors_load(net):
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(v).requires_grad_() for k, v in filled(net, 0.5).items()}
    net.load_state_dict(state)
    assert np.array_equal(net[2].bias.numpy(), np.full(4, 0.5, np.float32))
