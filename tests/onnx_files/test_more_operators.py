"""Activations, transposed convolutions, resizing, norms and others against ONNX Runtime, and written again."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from onnx_models import one_node, ours, peer

import pycnn
from pycnn import functional, nn
from pycnn.onnx._export import to_bytes

onnx = pytest.importorskip("onnx")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape):
    return np.random.default_rng(1).uniform(0.2, 2, shape).astype(np.float32)


X = normal(2, 4, 5, 6) * 2
SINGLE = [
    ("Elu", {"alpha": 0.7}, 6),
    ("Selu", {}, 6),
    ("Selu", {"alpha": 1.5, "gamma": 1.1}, 6),
    ("Celu", {"alpha": 0.8}, 12),
    ("HardSigmoid", {}, 6),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 6),
    ("ThresholdedRelu", {"alpha": 0.5}, 10),
    ("LeakyRelu", {"alpha": -0.3}, 6),
    ("Softplus", {}, 1),
    ("Softsign", {}, 1),
    ("HardSwish", {}, 14),
    ("Mish", {}, 18),
    ("Gelu", {}, 20),
    ("Gelu", {"approximate": "tanh"}, 20),
    ("Abs", {}, 6),
    ("Exp", {}, 6),
    ("Erf", {}, 9),
    ("Neg", {}, 6),
    ("Clip", {"min": -0.5, "max": 1.5}, 6),
    ("ReduceMax", {"axes": [2, 3], "keepdims": 0}, 11),
    ("ReduceMin", {"axes": [1]}, 11),
    ("ReduceL2", {"axes": [1, 3]}, 11),
    ("ReduceL1", {"axes": [-1], "keepdims": 0}, 11),
    ("ReduceSumSquare", {"axes": [0]}, 11),
    ("ReduceMean", {"axes": [2]}, 11),
    ("ArgMax", {"axis": 1}, 12),
    ("ArgMax", {"axis": -1, "keepdims": 0}, 12),
    ("LpPool", {"kernel_shape": [3, 2], "p": 3, "pads": [1, 0, 1, 1], "strides": [2, 1]}, 11),
    ("LpPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, 18),
    ("GlobalLpPool", {"p": 2}, 2),
]


@pytest.mark.interop
@pytest.mark.parametrize(("op", "attributes", "opset"), SINGLE)
def test_operators_of_one_tensor(op, attributes, opset):
    data = one_node(op, {"x": X}, opset=max(opset, 6), **attributes)
    if op == "ArgMax":
        proto = onnx.load_from_string(data)
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        data = proto.SerializeToString()
    (expected,), (found,) = peer(data, X), ours(data, X)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=2e-6)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("op", "inputs", "opset", "attributes"),
    [
        ("Div", {"x": X, "y": positive(4, 1, 1)}, 14, {}),
        ("Div", {"x": X, "y": positive(2, 4, 5, 6)}, 14, {}),
        ("Max", {"x": X, "y": normal(6)}, 13, {}),
        ("Min", {"x": X, "y": normal(4, 1, 6), "z": normal(1)}, 13, {}),
        ("Pow", {"x": positive(2, 3), "y": np.float32(1.7)}, 13, {}),
        ("Pow", {"x": X, "y": np.float32(2)}, 13, {}),
        ("Pow", {"x": positive(2, 3), "y": positive(3)}, 13, {}),
        ("PRelu", {"x": X, "y": normal(4, 1, 1)}, 16, {}),
        ("InstanceNormalization", {"x": X, "s": normal(4), "b": normal(4)}, 6, {"epsilon": 0.01}),
        ("LayerNormalization", {"x": X, "s": normal(6), "b": normal(6)}, 17, {}),
        ("LayerNormalization", {"x": X, "s": normal(5, 6)}, 17, {"axis": 2}),
        ("GroupNormalization", {"x": X, "s": normal(4), "b": normal(4)}, 21, {"num_groups": 2}),
        ("Resize", {"x": X, "": None, "s": np.float32([1, 1, 2, 1.5])}, 13, {}),
        ("Resize", {"x": X, "": None, "s": np.float32([1, 1, 0.6, 2])}, 13, {"mode": "linear"}),
        ("Upsample", {"x": X, "s": np.float32([1, 1, 2, 3])}, 9, {}),
        ("Upsample", {"x": X, "s": np.float32([1, 1, 2, 3])}, 9, {"mode": "linear"}),
    ],
)
def test_operators_of_several_tensors(op, inputs, opset, attributes):
    names = list(inputs)
    node = onnx_models.helper.make_node(op, names, ["y0"], name="it", **attributes)
    constants = {name: inputs[name] for name in names[1:] if name}
    data = onnx_models.model([node], {"x": inputs["x"].shape}, ["y0"], constants, opset)
    np.testing.assert_allclose(ours(data, inputs["x"])[0], peer(data, inputs["x"])[0], rtol=3e-5, atol=3e-6)


@pytest.mark.interop
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("grid", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
def test_resizing_to_sizes(mode, grid):
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil") if mode == "nearest" else ("floor",):
        for size in ((7, 3), (10, 12), (1, 6)):
            more = {"mode": mode, "coordinate_transformation_mode": grid, "nearest_mode": rounding}
            node = onnx_models.helper.make_node("Resize", ["x", "", "", "s"], ["y0"], name="it", **more)
            data = onnx_models.model([node], {"x": X.shape}, ["y0"], {"s": np.array([2, 4, *size])}, 13)
            np.testing.assert_allclose(ours(data, X)[0], peer(data, X)[0], rtol=3e-5, atol=3e-6)


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(12))
def test_transposed_convolutions_of_any_geometry(seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2]))
    ic, oc = groups * int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    reach = (kernel - 1) * dilation
    pads = [int(n) for n in [*rng.integers(0, reach // 2 + 1), *rng.integers(0, reach // 2 + 1)]]
    x = normal(2, ic, *rng.integers(2, 6, 2), seed=seed)
    inputs = {"x": x, "w": normal(ic, oc, *kernel, seed=seed + 1), "b": normal(oc * groups, seed=seed + 2)}
    numbers = {"strides": stride, "dilations": dilation, "output_padding": [int(rng.integers(0, s)) for s in stride]}
    lists = {name: [int(n) for n in value] for name, value in numbers.items()}
    data = one_node("ConvTranspose", inputs, pads=pads, group=groups, **lists)
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], rtol=3e-5, atol=3e-5)


@pytest.mark.interop
@pytest.mark.parametrize("more", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [11, 9]}])
def test_transposed_convolutions_of_a_wanted_size(more):
    x, w = normal(1, 2, 4, 3), normal(2, 3, 4, 4, seed=1)
    data = one_node("ConvTranspose", {"x": x, "w": w}, strides=[2, 3], **more)
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], rtol=3e-5, atol=3e-5)


def test_lrn_over_an_even_number_of_channels():
    """ONNX's window has one channel more behind than in front; ONNX Runtime refuses it."""
    found = ours(one_node("LRN", {"x": X}, size=4, alpha=0.3, beta=0.6, bias=1.2), X)[0]
    squares = np.pad(X.astype(np.float64) ** 2, [(0, 0), (1, 2), (0, 0), (0, 0)])
    sums = sum(squares[:, i : i + 4] for i in range(4))
    np.testing.assert_allclose(found, X / (1.2 + 0.3 / 4 * sums) ** 0.6, rtol=3e-5)


def test_prelu_of_opset_6_has_a_slope_for_each_channel():
    slope = normal(4)
    found = ours(one_node("PRelu", {"x": X, "s": slope}, opset=6), X)[0]
    np.testing.assert_array_equal(found, np.where(X > 0, X, X * slope[:, None, None]))


def test_batch_norm_by_the_batch():
    scale, shift, mean, var = normal(4), normal(4, seed=1), normal(4, seed=2), positive(4)
    data = one_node(
        "BatchNormalization", {"x": X, "s": scale, "b": shift, "m": mean, "v": var}, opset=15, outputs=3,
        training_mode=1, momentum=0.8, epsilon=0.01,
    )  # fmt: skip
    y, new_mean, new_var = ours(data, X)
    batch_mean, batch_var = X.mean(axis=(0, 2, 3), dtype=np.float64), X.var(axis=(0, 2, 3), dtype=np.float64)
    a = (scale / np.sqrt(batch_var + 0.01))[:, None, None]
    np.testing.assert_allclose(y, (X - batch_mean[:, None, None]) * a + shift[:, None, None], rtol=3e-5, atol=3e-6)
    np.testing.assert_allclose(new_mean, 0.8 * mean + 0.2 * batch_mean, rtol=3e-5, atol=1e-6)
    np.testing.assert_allclose(new_var, 0.8 * var + 0.2 * batch_var, rtol=3e-5, atol=1e-6)


class Everything(nn.Module):
    """The functions of tensors that no net of the zoo uses."""

    def __init__(self):
        self.weight = pycnn.Parameter((2, 3, 2, 4), init=normal(2, 3, 2, 4), layout="conv")
        self.slope = pycnn.Parameter((4,), init=normal(4))

    def forward(self, x):
        f = functional
        x = f.conv_transpose2d(x, self.weight, stride=(2, 1), padding=(0, 1, 1, 0), output_padding=(1, 0))
        x = f.prelu(f.elu(x, alpha=0.5), self.slope)
        x = f.add(f.selu(x), f.multiply(f.hardsigmoid(x), f.softsign(x)))
        x = f.group_norm(f.softplus(f.celu(x)), 2)
        x = f.divide(f.silu(x), f.sqrt(f.affine(f.abs(x), offset=1.0)))
        x = f.maximum(f.minimum(x, f.exp(x)), f.clip(x, min=-0.4))
        x = f.resize(f.hardswish(x), scale_factor=2.0, mode="bilinear")
        x = f.threshold(f.reciprocal(f.power(f.affine(f.erf(x), offset=2.0), 1.5)), threshold=0.2, value=0.0)
        x = f.log(f.affine(f.max(x, axes=1), offset=1.0))
        return {"numbers": x, "where": f.arg_max(x, axis=-1)}


@pytest.mark.interop
@pytest.mark.parametrize("opset", [14, 18, 22])
def test_everything_is_written_and_read_again(opset):
    net = Everything()
    net.build((4, 5, 2))
    data = to_bytes(net, opset=opset)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = normal(3, 4, 5, 2)
    given = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    ours_, again, theirs = net(x), pycnn.onnx.load(data)(given), peer(data, given)
    np.testing.assert_array_equal(again["numbers"], ours_["numbers"])
    np.testing.assert_array_equal(again["where"], ours_["where"])
    np.testing.assert_allclose(theirs[0], ours_["numbers"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(theirs[1], ours_["where"])


class Curves(nn.Module):
    def forward(self, x):
        return functional.resize(functional.mish(functional.gelu(x)), size=(7, 3))


def test_what_an_opset_lacks_is_written_as_a_formula():
    net = Curves()
    net.build((4, 5, 2))
    x = normal(2, 4, 5, 2)
    given, expected = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), net(x).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pycnn.onnx.load(to_bytes(net, opset=20))(given), expected)
    np.testing.assert_allclose(pycnn.onnx.load(to_bytes(net))(given), expected, rtol=1e-5, atol=1e-6)


def test_constant_factors_below_zero():
    # Not an image's normalization, whose deviations are above 0.
    factor, offset = np.float32([1.5, -0.25, 2, -3]).reshape(4, 1, 1), normal(4, 1, 1)
    nodes = [
        onnx_models.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))
        for name, array in (("m", factor), ("a", offset))
    ]
    nodes += [
        onnx_models.helper.make_node("Mul", ["x", "m"], ["t"]),
        onnx_models.helper.make_node("Add", ["t", "a"], ["y0"]),
    ]
    data = onnx_models.model(nodes, {"x": X.shape}, ["y0"], {}, 13)
    np.testing.assert_allclose(ours(data, X)[0], X * factor + offset, rtol=1e-6, atol=1e-6)


def test_old_files_say_which_axes_a_bias_has():
    x, weight, column = normal(4, 4), normal(4, 4), normal(4)
    nodes = [
        onnx_models.helper.make_node("MatMul", ["x", "w"], ["t"]),
        onnx_models.helper.make_node("Add", ["t", "a"], ["y0"], broadcast=1, axis=0),
    ]
    data = onnx_models.model(nodes, {"x": x.shape}, ["y0"], {"w": weight, "a": column}, 6)
    np.testing.assert_allclose(ours(data, x)[0], x @ weight + column[:, None], rtol=1e-5, atol=1e-6)


def test_division_by_numbers_without_a_reciprocal():
    x = np.float32([[0, 1e-20, -1e-38]])
    node = onnx_models.helper.make_node("Div", ["x", "d"], ["y0"])
    data = onnx_models.model([node], {"x": x.shape}, ["y0"], {"d": np.float32(1e-39)}, 13)
    np.testing.assert_allclose(ours(data, x)[0], x / np.float32(1e-39), rtol=1e-6)


@pytest.mark.interop
@pytest.mark.parametrize("scales", [(0.6, 0.6), (0.7, 2), (1.5, 0.6), (2, 3), (1, 0.7)])
def test_nearest_pixels_of_version_10(scales):
    node = onnx_models.helper.make_node("Resize", ["x", "s"], ["y0"])
    data = onnx_models.model([node], {"x": X.shape}, ["y0"], {"s": np.float32([1, 1, *scales])}, 10)
    np.testing.assert_array_equal(ours(data, X)[0], peer(data, X)[0])
