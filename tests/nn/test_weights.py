"""Weights that others wrote: safetensors and torch's files, whole or in part, and fresh heads."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys

import numpy as np
import pytest
import tolerances

import pycnn as pc
from pycnn import checkpoint, functional, nn


def make(classes=4):
    net = nn.Sequential(
        {
            "conv": nn.Conv2d(2, 3, 3),
            "bn": nn.BatchNorm2d(3),
            "relu": nn.ReLU(),
            "pool": nn.GlobalAvgPool2d(),
            "fc": nn.Linear(3, classes),
        }
    )
    return net.build((7, 6, 2))


def values(net, seed=1):
    rng = np.random.default_rng(seed)
    return {k: rng.uniform(0.5, 1.5, v.shape).astype(np.float32) for k, v in net.state_dict().items()}


def foreign(path, state):
    """A safetensors file as other programs write it: values given with their type's name."""
    header, data = {}, b""
    for name, (dtype, array) in state.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def same(net, state):
    for name, array in net.state_dict().items():
        tolerances.assert_bits(array, state[name], name)


def test_safetensors_of_others_load(tmp_path):
    net, path = make(), tmp_path / "net.safetensors"
    state = values(net)
    foreign(path, {k: ("F32", v) for k, v in state.items()} | {"bn.num_batches_tracked": ("I64", np.array(9))})
    report = pc.load_weights(net, path)
    assert set(report.loaded) == set(state)
    same(net, state)


def test_half_precision_is_widened(tmp_path):
    net, path = make(), tmp_path / "net.safetensors"
    state = values(net)
    half = {k: v.astype(np.float16) for k, v in state.items()}
    foreign(path, {k: ("F16", v) for k, v in half.items()})
    pc.load_weights(net, path)
    same(net, {k: v.astype(np.float32) for k, v in half.items()})
    upper = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in state.items()}
    foreign(path, {k: ("BF16", v) for k, v in upper.items()})
    pc.load_weights(net, path)
    same(net, {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in upper.items()})


def test_our_own_files_and_checkpoints_load(tmp_path):
    source = make()
    trainer = pc.Trainer(source, ema_decay=0.9)
    trainer.step(np.ones((2, 7, 6, 2), np.float32), np.array([0, 3]))
    trainer.save_checkpoint(tmp_path / "last.safetensors")
    source.save(tmp_path / "net.safetensors")
    for name in ("last.safetensors", "net.safetensors"):
        net = make()
        net.load_state_dict(values(net))
        pc.load_weights(net, tmp_path / name)
        same(net, source.state_dict())


def test_constants_of_the_graph_are_no_weights(tmp_path):
    class Shifted(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x + np.ones(3, np.float32))

    net = Shifted().build((3,))
    net.save(tmp_path / "net.safetensors")
    assert "constant.0" in checkpoint.read_tensors(tmp_path / "net.safetensors")[0]
    assert len(pc.load_weights(Shifted(), tmp_path / "net.safetensors").loaded) == 2
    loaded = pc.load(tmp_path / "net.safetensors")
    pc.Trainer(loaded).step(np.ones((2, 3), np.float32), np.array([0, 1]))
    loaded.save(tmp_path / "again.safetensors")


def test_a_digest_is_checked_and_file_urls_are_read(tmp_path):
    import hashlib

    path = tmp_path / "net.safetensors"
    make().save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    pc.load_weights(make(), path.as_uri(), sha256=digest)
    with pytest.raises(pc.FormatError, match="SHA-256 is"):
        pc.load_weights(make(), path, sha256="0" * 64)


def test_names_that_differ_are_told_with_the_file(tmp_path):
    path = tmp_path / "net.safetensors"
    net = make()
    state = values(net)
    del state["fc.bias"]
    foreign(path, {k: ("F32", v) for k, v in state.items()} | {"head.bias": ("F32", np.zeros(1, np.float32))})
    before = net.state_dict()
    with pytest.raises(
        pc.ArgumentError, match=r"load_weights '.*net.safetensors': names differ; 1 missing:\n  fc.bias"
    ):
        pc.load_weights(net, path)
    same(net, before)
    report = pc.load_weights(net, path, strict=False)
    assert (report.missing, report.unexpected) == (("fc.bias",), ("head.bias",))
    assert str(report) == "8 loaded\n1 missing:\n  fc.bias\n1 unexpected:\n  head.bias".replace("8", str(7))


def test_other_classes_need_a_word(tmp_path):
    path = tmp_path / "net.safetensors"
    make(9).save(path)
    net = make(4)
    with pytest.raises(pc.ShapeError, match=r"'fc.weight' is \(9, 3\), the net has \(4, 3\)(.|\n)*skip=\('fc\.\*',\)"):
        pc.load_weights(net, path)
    assert pc.load_weights(net, path, skip=("fc.*",)).skipped == ("fc.weight", "fc.bias")


@pytest.mark.parametrize(("of_net", "of_file", "fresh"), [(9, 9, True), (4, 9, True), (9, 4, False), (4, 4, False)])
def test_the_head_is_replaced_where_the_classes_differ(tmp_path, recwarn, of_net, of_file, fresh):
    source = make(of_file)
    state = values(source)
    source.load_state_dict(state)
    source.save(tmp_path / "net.safetensors")
    net = make(of_net)
    report = pc.load_weights(net, tmp_path / "net.safetensors", num_classes=4)
    assert report.fresh == (("fc.weight", "fc.bias") if fresh else ())
    warned = [str(w.message) for w in recwarn]
    assert len(warned) == fresh
    assert all("fresh weights for 4 classes in 'fc'; they must be trained" in text for text in warned)
    assert net.fc.out_features == 4
    assert net(np.ones((2, 7, 6, 2), np.float32)).shape == (2, 4)
    result = net.state_dict()
    tolerances.assert_bits(result["conv.weight"], state["conv.weight"])
    assert np.array_equal(result["fc.weight"], state.get("fc.weight")) != fresh
    assert np.ptp(result["fc.weight"]) > 0


def test_nothing_changes_when_a_file_with_another_head_does_not_fit(tmp_path):
    source = make(9)
    state = {k: v for k, v in values(source).items() if k != "conv.bias"}
    foreign(tmp_path / "net.safetensors", {k: ("F32", v) for k, v in state.items()})
    net = make(9)
    before = net.state_dict()
    with pytest.raises(pc.ArgumentError, match="1 missing:\n  conv.bias"):
        pc.load_weights(net, tmp_path / "net.safetensors", num_classes=4)
    assert net.fc.out_features == 9
    same(net, before)


def test_a_saved_net_gets_other_classes(tmp_path):
    source = make(9)
    pc.save(source, tmp_path / "net.safetensors", metadata={"class_names": json.dumps(list("abcdefghi"))})
    assert pc.load(tmp_path / "net.safetensors", num_classes=9).metadata
    with pytest.warns(UserWarning, match=r"load '.*net.safetensors': fresh weights for 4 classes in 'fc'"):
        net = pc.load(tmp_path / "net.safetensors", num_classes=4)
    assert "class_names" not in net.metadata
    images = np.ones((2, 7, 6, 2), np.float32)
    assert net(images).shape == (2, 4)
    pc.Trainer(net).step(images, np.array([3, 0]))
    net.save(tmp_path / "four.safetensors")
    assert np.array_equal(pc.load(tmp_path / "four.safetensors")(images), net(images))


def test_auxiliary_heads_and_scores_by_convolution_are_replaced_too(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(2, 3, 3)
            self.aux = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 9))
            self.classifier = nn.Conv2d(3, 9, 1)

        def forward(self, x):
            x = self.conv(x)
            nn.auxiliary(self.aux, functional.global_avg_pool2d(x), weight=0.5)
            return functional.softmax(functional.global_avg_pool2d(functional.relu(self.classifier(x))))

    net = Net().build((7, 6, 2))
    assert nn.head_names(net) == ("classifier.weight", "classifier.bias", "aux.1.weight", "aux.1.bias")
    net.save(tmp_path / "net.safetensors")
    assert len(nn.replace_head(net, 4)) == 4
    assert (net.classifier.out_channels, net.aux[1].out_features) == (4, 4)
    with pytest.warns(UserWarning, match=r"'classifier', 'aux.1'"):
        loaded = pc.load(tmp_path / "net.safetensors", num_classes=4)
    for candidate in (net, loaded):
        pc.Trainer(candidate).step(np.ones((2, 7, 6, 2), np.float32), np.array([3, 0]))


def test_a_flattened_map_is_no_head():
    net = nn.Sequential(nn.Conv2d(2, 10, 3), nn.Flatten()).build((5, 5, 2))
    before = net.state_dict()
    with pytest.raises(pc.UnsupportedError, match=r"with 20 classes in its last layer the net gives 180 scores"):
        nn.replace_head(net, 20)
    same(net, before)
    with pytest.raises(pc.UnsupportedError, match=r"gives 90 scores"):
        nn.replace_head(net, 10)
    # A map of one place may be flattened.
    single = nn.Sequential(nn.Conv2d(2, 10, 3), nn.GlobalAvgPool2d(), nn.Flatten()).build((5, 5, 2))
    assert nn.replace_head(single, 20) == ("0.weight", "0.bias")
    assert single(np.ones((1, 5, 5, 2), np.float32)).shape == (1, 20)


def test_a_head_of_another_width_starts_anew_with_its_bias(tmp_path):
    state = values(make(4))
    state["fc.weight"] = np.ones((4, 5), np.float32)
    foreign(tmp_path / "net.safetensors", {k: ("F32", v) for k, v in state.items()})
    net = make(4)
    bias = net.state_dict()["fc.bias"]
    with pytest.warns(UserWarning, match="fresh weights for 4 classes in 'fc'"):
        report = pc.load_weights(net, tmp_path / "net.safetensors", num_classes=4)
    assert report.fresh == ("fc.weight", "fc.bias")
    assert "fc.bias" not in report.loaded
    tolerances.assert_bits(net.state_dict()["fc.bias"], bias)
    tolerances.assert_bits(net.state_dict()["conv.bias"], state["conv.bias"])


def test_a_net_without_a_head_says_so():
    with pytest.raises(pc.GraphError, match="no head to replace"):
        nn.replace_head(pc.models.lenet5_1998(), 4)


def test_a_graph_that_fixes_the_classes_elsewhere_is_left_as_it_was(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(3, 6)

        def forward(self, x):
            return functional.reshape(self.fc(x), shape=(0, 2, 3))

    net = Fixed().build((3,))
    with pytest.raises(pc.UnsupportedError, match=r"number of classes built in(.|\n)*num_classes=4"):
        nn.replace_head(net, 4)
    assert (net.fc.out_features, net.fc.weight.shape) == (6, (6, 3))


def test_create_takes_weights(tmp_path):
    source = pc.models.create("lenet5", num_classes=7)
    source.save(tmp_path / "net.safetensors")
    net = pc.models.create("lenet5", weights=tmp_path / "net.safetensors", num_classes=7)
    same(net, source.state_dict())
    with pytest.warns(UserWarning, match="fresh weights for 3 classes in 'fc3'"):
        assert pc.models.create("lenet5", weights=tmp_path / "net.safetensors", num_classes=3).fc3.out_features == 3
    with pytest.raises(pc.ShapeError, match=r"'fc3.weight' is \(7, 84\)"):
        pc.models.create("lenet5", weights=tmp_path / "net.safetensors")
    with pytest.raises(pc.ArgumentError, match="sha256 goes with weights"):
        pc.models.create("lenet5", sha256="0" * 64)


def test_safetensors_whose_length_looks_like_a_pickle_are_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    starts = set()
    for length in range(1, 257):
        path = tmp_path / "net.safetensors"
        checkpoint.write_tensors(path, {"a" * length: np.ones(2, np.float32)})
        starts.add(path.read_bytes()[0])
        assert set(nn.read_weights(path)) == {"a" * length}
    assert 0x80 in starts


def test_old_names_of_densenets_are_read(tmp_path):
    path = tmp_path / "dense.safetensors"
    old = ("denselayer3.norm.1.weight", "denselayer3.conv.2.weight", "norm5.weight", "stem.norm.1.weight")
    names = [f"features.{name}" for name in old]
    checkpoint.write_tensors(path, {name: np.ones(2, np.float32) for name in names})
    today = ("denselayer3.norm1.weight", "denselayer3.conv2.weight", "norm5.weight", "stem.norm.1.weight")
    assert set(nn.read_weights(path)) == {f"features.{name}" for name in today}


def test_a_file_of_torch_without_torch_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(b"PK\x03\x04rest")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        pc.UnsupportedError, match=r"net.pth': (.|\n)*torch is not installed\n  hint: pip install torch"
    ):
        pc.load_weights(make(), tmp_path / "net.pth")


def test_weights_without_a_net_are_no_model_file_and_the_way_is_shown(tmp_path):
    foreign(tmp_path / "net.safetensors", {"a": ("F32", np.zeros(2, np.float32))})
    (tmp_path / "net.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    for name in ("net.safetensors", "net.pth"):
        with pytest.raises(pc.FormatError, match=r"load '.*net\.(.|\n)*hint: .*pycnn.load_weights\(net, path\)"):
            pc.load(tmp_path / name)


def test_files_of_other_kinds_and_absent_ones_are_told(tmp_path):
    (tmp_path / "net.bin").write_bytes(b"GIF89a, no weights")
    with pytest.raises(pc.FormatError, match=r"net.bin"):
        pc.load_weights(make(), tmp_path / "net.bin")
    with pytest.raises(pc.FileError, match=r"absent.pth"):
        pc.load_weights(make(), tmp_path / "absent.pth")


class Harmful:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.interop
class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_state_dict_loads(self, torch, tmp_path, zipped):
        net = make()
        state = values(net)
        tensors = {k: torch.from_numpy(v) for k, v in state.items()} | {"bn.num_batches_tracked": torch.tensor(3)}
        torch.save(tensors, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        pc.load_weights(net, tmp_path / "net.pth")
        same(net, state)

    @pytest.mark.parametrize("key", ["state_dict", "model"])
    def test_checkpoints_of_training_scripts_load(self, torch, tmp_path, key):
        net = make()
        state = values(net)
        tensors = {"module." + k: torch.from_numpy(v).bfloat16() for k, v in state.items()}
        torch.save({"epoch": 3, key: tensors, "optimizer": {"lr": 0.1}}, tmp_path / "net.pth")
        pc.load_weights(net, tmp_path / "net.pth")
        same(net, {k: torch.from_numpy(v).bfloat16().float().numpy() for k, v in state.items()})

    def test_code_in_a_file_is_not_run(self, torch, tmp_path):
        torch.save({"conv.weight": Harmful()}, tmp_path / "net.pth")
        with pytest.raises(pc.FormatError, match=r"torch refuses to read tensors from it: UnpicklingError.*fail\w+$"):
            pc.load_weights(make(), tmp_path / "net.pth")
        (tmp_path / "net.pkl").write_bytes(pickle.dumps({"conv.weight": Harmful()}))
        with pytest.raises(pc.FormatError, match=r"torch refuses"):
            pc.load_weights(make(), tmp_path / "net.pkl")

    def test_damaged_files_are_refused(self, torch, tmp_path):
        torch.save({"a": torch.zeros(1000)}, tmp_path / "net.pth")
        content = (tmp_path / "net.pth").read_bytes()
        (tmp_path / "net.pth").write_bytes(content[: len(content) // 2])
        with pytest.raises(pc.FormatError, match="torch refuses"):
            pc.load_weights(make(), tmp_path / "net.pth")

    def test_what_is_no_state_dict_is_told(self, torch, tmp_path):
        torch.save([1, 2], tmp_path / "net.pth")
        with pytest.raises(pc.FormatError, match="holds list, expected a state dict"):
            pc.load_weights(make(), tmp_path / "net.pth")
        torch.save({"conv.weight": 3}, tmp_path / "net.pth")
        with pytest.raises(pc.FormatError, match="'conv.weight' is int, expected a tensor"):
            pc.load_weights(make(), tmp_path / "net.pth")

    def test_torch_loads_our_state_dict_strictly(self, torch):
        """Its batch norms' counters, which ours lack, start at 0 then."""
        net = make()
        twin = torch.nn.Sequential()
        for name, module in (
            ("conv", torch.nn.Conv2d(2, 3, 3)),
            ("bn", torch.nn.BatchNorm2d(3)),
            ("relu", torch.nn.ReLU()),
            ("fc", torch.nn.Linear(3, 4)),
        ):
            twin.add_module(name, module)
        twin.load_state_dict({k: torch.from_numpy(v) for k, v in net.state_dict().items()}, strict=True)
        same(net, {k: v.numpy() for k, v in twin.state_dict().items()})


def test_what_is_no_path_is_refused_and_a_pipe_is_not_waited_for(tmp_path):
    net = pc.models.lenet5()
    for bad in (None, 3, net):
        with pytest.raises(pc.ArgumentError, match="load_weights: expected a path or URL"):
            pc.load_weights(net, bad)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(pc.FormatError, match="pipe': not a regular file"):
        pc.load_weights(net, tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"PK\x03\x04" + bytes(60),
            r"a zip archive, expected a safetensors file\n  hint: weights that PyTorch saved\?",
        ),
        ({"pycnn.format": "1"}, r"'pycnn.graph' is missing\n  hint: weights without a network\?"),
        ({}, r"'pycnn.format' is missing\n  hint: weights without a network\?"),
    ],
)
def test_load_of_weights_without_a_net_names_what_reads_them(tmp_path, content, text):
    path = tmp_path / "w.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pc.checkpoint.write_tensors(path, {"a": np.zeros(2, np.float32)}, content)
    with pytest.raises(pc.FormatError, match=rf"load '{path}': .*{text} make the net, then pycnn\.load_weights"):
        pc.load(path)
