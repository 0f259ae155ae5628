"""Nets as ONNX files: what others compute from them, and what importing them gives."""

from __future__ import annotations

import os

import numpy as np
import onnx_models
import pytest
from tolerances import unit

import pycnn
from pycnn import functional, nn
from pycnn.onnx._export import to_bytes

onnx = pytest.importorskip("onnx")

# Each family of the zoo once, and every op that its nets are made of; at the least size that the net allows.
RUN = {
    "cifar_alexnet": None, "cifar_googlenet": None, "cifar_resnet20": (32, 32, 3),
    "cifar_resnext": None, "cifar_vgg": None, "densenet121": (32, 32, 3), "googlenet": (64, 64, 3),
    "inception_v3": (75, 75, 3), "lenet5": None, "lenet5_1998": None, "mobilenet_v2": (32, 32, 3),
    "resnet18": (32, 32, 3), "resnext50_32x4d": (32, 32, 3), "squeezenet1_1": (64, 64, 3), "vgg11_bn": (32, 32, 3),
}  # fmt: skip


# The others take more than a second each; they run where PYCNN_ONNX_SUITE=all is set.
QUICK = {
    "cifar_alexnet", "cifar_googlenet", "cifar_resnet20", "cifar_resnext", "cifar_vgg", "lenet5", "lenet5_1998",
    "mobilenet_v2", "squeezenet1_1",
}  # fmt: skip
NEWER = {"cifar_speed": 20}  # opsets, of nets that the usual one has no operator for
ALL = os.environ.get("PYCNN_ONNX_SUITE") == "all"
SAME_STEPS = ["resnet50", "mobilenet_v2", *(["densenet121", "googlenet", "vgg16", "squeezenet1_0"] if ALL else [])]


def lively(net, shape, seed=0):
    """Batch norms that do something: fresh ones are the identity."""
    net.build(shape)
    rng = np.random.default_rng(seed)
    state = net.state_dict()
    for name, array in state.items():
        if name.endswith("running_mean"):
            state[name] = rng.normal(0, 0.1, array.shape).astype(np.float32)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
    net.load_state_dict(state)
    return net


def create(name):
    options = {"aux_logits": False} if name in ("googlenet", "googlenet_paper", "inception_v3") else {}
    shape = RUN.get(name)
    if name == "vgg11_bn":
        options = {"num_classes": 10, "input_shape": (32, 32, 3)}
    net = pycnn.models.create(name, **options)
    return lively(net, shape or net.input_shape or (32, 32, 3))


def channels_first(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def check(net, data, *, batch=2, seed=0):
    """The checker accepts the file, ONNX Runtime computes what we do, and importing it gives the same bits."""
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    x = np.random.default_rng(seed).random((batch, *net.input_shape), np.float32)
    y = net(x)
    expected = channels_first(y)
    again = pycnn.onnx.load(data)
    np.testing.assert_array_equal(again(channels_first(x)), expected)
    np.testing.assert_array_equal(pycnn.onnx.load(data, input_layout="NHWC")(x), expected)
    theirs = onnx_models.peer(data, channels_first(x))[0]
    assert theirs.shape == expected.shape
    # Rounding grows from layer to layer; what one wrong number does is many times larger.
    assert abs(theirs - expected).max() <= 300 * unit() * abs(expected).max()
    return again


@pytest.mark.interop
@pytest.mark.parametrize("name", sorted(pycnn.models.list() if ALL else QUICK))
def test_nets_of_the_zoo(name):
    net = create(name)
    again = check(net, to_bytes(net, opset=NEWER.get(name, 17)))
    if name != "lenet5_1998":  # whose table of connections is computed with the weights
        shapes = {name: array.shape for name, array in net.state_dict().items()}
        assert {name: array.shape for name, array in again.state_dict().items()} == shapes


@pytest.mark.parametrize("name", pycnn.models.list())
def test_every_net_of_the_zoo_can_be_written(name, monkeypatch):
    """Its graph is complete: every op has an exporter, and nothing depends on the number of images."""
    from pycnn.onnx import _export

    net = pycnn.models.create(name)
    net.build(net.input_shape or (64, 64, 3))
    monkeypatch.setattr(pycnn.tensor.Parameter, "numpy", lambda self: np.broadcast_to(np.float32(0.0), self.disk_shape))
    helper = onnx.helper
    writer, (given, results) = _export._write(net, (2, *net.input_shape), NEWER.get(name, 17), "NCHW", helper)
    assert len(given) == len(results) == 1
    assert {node.op_type for node in writer.nodes}
    kinds = [node.op_type for node in writer.nodes]
    # Images are (N, C, H, W) from end to end. Only LeNet of 1998 moves weights to make its tables of them.
    assert "Transpose" not in kinds or name == "lenet5_1998", kinds


@pytest.mark.parametrize("name", SAME_STEPS)
def test_an_imported_net_is_compiled_to_the_same_steps(name):
    options = {"aux_logits": False} if name == "googlenet" else {}
    shape = {"vgg16": (32, 32, 3)}.get(name, (64, 64, 3))
    if name == "vgg16":
        options = {"num_classes": 10, "input_shape": shape}
    net = pycnn.models.create(name, **options)
    net.build(shape)
    again = pycnn.onnx.load(to_bytes(net), input_layout="NHWC")
    ours, theirs = ([(s["op"], s["variant"]) for s in pycnn.compile(n, (2, *shape)).steps()] for n in (net, again))
    assert ours == theirs


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 22])
def test_opsets(opset):
    net = lively(pycnn.models.lenet5_1998(), (32, 32, 1))
    data = to_bytes(net, opset=opset)
    assert onnx.load_from_string(data).opset_import[0].version == opset
    check(net, data)
    for wrong in (12, 23, 17.0, True):
        with pytest.raises(pycnn.ArgumentError, match="opset"):
            to_bytes(net, opset=wrong)


class Odd(nn.Module):
    """Ops that the zoo does not use."""

    def __init__(self):
        self.conv = nn.Conv2d(3, 8, 3, padding=(0, 1, 2, 1), groups=1, dilation=2)
        self.norm = nn.LocalResponseNorm(3)

    def forward(self, x):
        x = functional.leaky_relu(self.norm(self.conv(x)), negative_slope=0.2)
        left = functional.slice(x, begin=(0, 0, 0, 2), size=(-1, -1, -1, 3))
        right = functional.sigmoid(functional.slice(x, begin=(0, 0, 0, 5), size=(-1, -1, -1, 3)))
        x = functional.concat([left * right, left - 0.5], axis=-1)
        gate = functional.mean(x, axes=(1, 2), keep_dims=True)
        x = functional.avg_pool2d(x * gate, kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
        x = functional.pad(x, before=(0, 1, 0, 0), after=(0, 0, 0, 0))
        return {"images": x, "scores": functional.softmax(functional.sum(x, axes=(1, 2)))}


def test_other_ops_and_several_results():
    net = Odd()
    net.build((8, 7, 3))
    data = to_bytes(net)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = np.random.default_rng(0).random((3, 8, 7, 3), np.float32)
    ours, again = net(x), pycnn.onnx.load(data)(channels_first(x))
    theirs = onnx_models.peer(data, channels_first(x))
    for (name, value), other in zip(ours.items(), theirs, strict=True):
        np.testing.assert_array_equal(again[name], channels_first(value))
        np.testing.assert_allclose(other, channels_first(value), rtol=1e-5, atol=1e-6)


class Even(nn.Module):
    def forward(self, x):
        return functional.adaptive_avg_pool2d(x, output_size=(2, 1))


def test_adaptive_pooling_over_even_windows():
    net = Even()
    net.build((6, 3, 2))
    x = np.random.default_rng(0).random((2, 6, 3, 2), np.float32)
    expected = x.astype(np.float64).reshape(2, 2, 3, 3, 2).mean(axis=(2, 3))
    data = to_bytes(net)
    for found in (pycnn.onnx.load(data)(channels_first(x)), onnx_models.peer(data, channels_first(x))[0]):
        np.testing.assert_allclose(found[..., 0], expected.transpose(0, 2, 1), rtol=1e-6)


def test_normalization_is_part_of_the_file():
    net = pycnn.models.lenet5()
    net.build((28, 28, 1))
    net.normalization = nn.Normalize(mean=0.1307, std=0.3081)
    check(net, to_bytes(net))
    colours = pycnn.models.create("cifar_resnet20")
    colours.normalization = nn.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    check(lively(colours, (32, 32, 3)), to_bytes(colours))


def test_layout_of_the_input():
    net = pycnn.models.lenet5()
    net.build((28, 28, 1))
    x = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    data = to_bytes(net, input_layout="NHWC")
    np.testing.assert_allclose(onnx_models.peer(data, x)[0], net(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(pycnn.ArgumentError, match="input_layout"):
        to_bytes(net, input_layout="HWC")


def test_range_and_class_names_go_along(tmp_path):
    train, _ = pycnn.data.digits(seed=0)
    trainer = pycnn.Trainer(pycnn.models.lenet5(), seed=0)
    trainer.step(train.images[:8], train.labels[:8])
    trainer.net.save(tmp_path / "net.safetensors")
    net = pycnn.load(tmp_path / "net.safetensors")
    net.metadata["class_names"] = '["a"]'
    pycnn.onnx.export(net, tmp_path / "net.onnx")
    again = pycnn.onnx.load(tmp_path / "net.onnx")
    assert again.input_range == net.input_range == (0.0, 1.0)
    assert again.metadata["class_names"] == '["a"]'


@pytest.mark.parametrize("file_layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("net_layout", ["NCHW", "NHWC"])
def test_imported_nets_are_written_again(net_layout, file_layout):
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    net.build((6, 5, 2))
    x = np.random.default_rng(0).random((2, 6, 5, 2), np.float32)
    given = {"NCHW": channels_first(x), "NHWC": x}
    imported = pycnn.onnx.load(to_bytes(net), input_layout=net_layout)
    data = to_bytes(imported, input_layout=file_layout)
    expected = channels_first(net(x))
    np.testing.assert_array_equal(pycnn.onnx.load(data)(given[file_layout]), expected)
    np.testing.assert_allclose(onnx_models.peer(data, given[file_layout])[0], expected, rtol=1e-5, atol=1e-6)


class Composed(nn.Module):
    """A function as a net."""

    def __init__(self, function):
        self._function = function

    def forward(self, x):
        return self._function(x)


def volumes(x):
    return functional.reshape(x, shape=(0, 2, 4, 8, 3))


FILTERS = np.random.default_rng(5).normal(size=(4, 2, 3, 2, 3)).astype(np.float32)
# Of images (N, 8, 8, 3).
COMPOSED = {
    "chosen": lambda x: functional.where(functional.greater(x, x * 0 + 0.5), x * 2, functional.less_equal(x, x * x)),
    "equal": lambda x: functional.equal(x, functional.max(x, axes=3, keep_dims=True)),
    "slopes": lambda x: functional.prelu(functional.mean(x, axes=(1, 2), keep_dims=True) - 0.5, x),
    "bicubic": lambda x: functional.resize(x, size=(11, 5), mode="bicubic"),
    "antialias": lambda x: functional.resize(x, size=(3, 5), mode="bilinear", antialias=True),
    "crop": lambda x: functional.crop_and_resize(x, region=(-0.2, 0.1, 1.1, 0.8), size=(6, 5), value=0.25),
    "volumes": lambda x: functional.conv3d(volumes(x), FILTERS, stride=(1, 2, 1), padding=1),
    "transposed": lambda x: functional.conv_transpose3d(volumes(x), FILTERS.transpose(4, 1, 2, 3, 0), stride=2),
    "adaptive": lambda x: functional.adaptive_avg_pool2d(x, output_size=(3, 5)),
    "even": lambda x: functional.local_response_norm(x, size=2, alpha=0.5, beta=0.6, k=2.0),
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "mish": functional.mish,
    "hardswish": lambda x: functional.hardswish(x * 9.0 - 4.0),
    "softplus": lambda x: functional.softplus(x, beta=2.0),
    "threshold": lambda x: functional.threshold(x, threshold=0.4, value=-2.0),
    "norms": lambda x: functional.group_norm(functional.layer_norm(x, axes=(1, 2)), 1) + functional.instance_norm(x),
    "taken": lambda x: functional.transpose(
        functional.take(functional.transpose(x, permutation=(3, 0, 1, 2)), indices=[2, -1, 0]), permutation=(1, 2, 3, 0)
    ),
    "broadcast": lambda x: functional.broadcast(functional.mean(x, axes=3, keep_dims=True), shape=x.shape) * x,
    "cast": lambda x: functional.cast(functional.cast(x, dtype="float16"), dtype="float32"),
    "ones": lambda x: functional.softmax(functional.mean(x, axes=3, keep_dims=True)) + x,
    "product": lambda x: functional.matmul(x, np.ones((3, 5), np.float32)),
}  # fmt: skip
# What is written by other ops than there are here rounds otherwise.
ROUNDED = {"adaptive", "even", "gelu", "gelu_tanh", "mish", "hardswish", "softplus", "threshold"}


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "opset"), [*((name, 17) for name in COMPOSED), *((name, 13) for name in ("gelu", "mish", "hardswish"))]
)
def test_what_onnx_has_not_is_written_by_what_it_has(name, opset):
    net = Composed(COMPOSED[name])
    net.build((8, 8, 3))
    data = to_bytes(net, opset=opset)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    expected = channels_first(net(x))
    again = pycnn.onnx.load(data, input_layout="NHWC")(x)
    theirs = onnx_models.peer(data, channels_first(x))[0]
    assert again.shape == theirs.shape == expected.shape
    if name not in ROUNDED:
        np.testing.assert_array_equal(again, expected)
    for found in (again, theirs):
        assert abs(found - expected).max() <= 100 * unit() * max(1.0, abs(expected).max())


def test_every_op_that_nets_predict_with_can_be_written():
    """The others are losses, gradients and updates, and the refusal says so."""
    from pycnn import _core
    from pycnn.onnx._exporters import exported, exporter_of

    forward = {
        "activation", "adaptive_avg_pool2d", "add", "affine", "arg_max", "avg_pool2d", "batch_norm", "binary",
        "broadcast", "cast", "concat", "conv2d", "conv2d_grad_input", "dense", "dropout", "fill", "global_avg_pool2d",
        "global_max_pool2d", "local_response_norm", "log_softmax", "max_pool2d", "multiply", "normalize_image", "pad",
        "reduce", "reshape", "resize2d", "slice", "softmax", "subtract", "take", "transpose", "unary",
    }  # fmt: skip
    assert set(exported()) == forward
    classes = [cls for cls in vars(_core).values() if isinstance(cls, type) and issubclass(cls, _core.Op)]
    known = {cls().name for cls in classes if cls is not _core.Op}
    for op in known - forward:
        with pytest.raises(pycnn.UnsupportedError, match=r"'it': \w+ (is a (loss|step of training)|measures)"):
            exporter_of(op, "it")


class Counting(nn.Module):
    def forward(self, x):
        return x * float(x.shape[0])


def test_what_cannot_be_written_is_told(tmp_path):
    for net, told in (
        (Counting(), "number of images"),
        (
            Composed(
                lambda x: functional.cross_entropy(functional.flatten(x), np.zeros((x.shape[0], 128), np.float32))
            ),
            "softmax_cross_entropy is a loss",
        ),
    ):
        net.build((8, 8, 2))
        with pytest.raises(pycnn.UnsupportedError, match=told):
            pycnn.onnx.export(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(pycnn.ArgumentError, match="size of the input"):
        pycnn.onnx.export(nn.Sequential(nn.ReLU()), tmp_path / "net.onnx")
    with pytest.raises(pycnn.ArgumentError, match="order is export"):
        pycnn.onnx.export("net.onnx", nn.ReLU())
    with pytest.raises(pycnn.FileError):
        pycnn.onnx.export(pycnn.models.lenet5(), tmp_path / "no" / "net.onnx", input_shape=(28, 28, 1))
