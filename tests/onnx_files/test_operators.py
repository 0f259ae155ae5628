"""Single operators against float64 references, where ONNX's own tests are weak: odd pads, dilation, groups, layouts."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
import reference
from onnx_models import model, one_node, ours, peer
from tolerances import elementwise_bound, sum_bound

import pycnn

helper = onnx_models.helper

SEEDS = range(12)


def nchw(x):
    return x.transpose(0, 3, 1, 2)


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convolutions_of_any_geometry(seed, layout):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3]))
    ic, oc = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 5))
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    top, left, bottom, right = (int(n) for n in rng.integers(0, 4, 4))
    size = (kernel - 1) * dilation + 1 + rng.integers(0, 6, 2)
    x = rng.standard_normal((2, *size, ic)).astype(np.float32)
    weight = rng.standard_normal((oc, *kernel, ic // groups)).astype(np.float32)
    bias = rng.standard_normal(oc).astype(np.float32)
    data = one_node(
        "Conv",
        {"x": nchw(x), "w": nchw(weight), "b": bias},
        group=groups,
        strides=[int(n) for n in stride],
        dilations=[int(n) for n in dilation],
        pads=[top, left, bottom, right],
    )
    geometry = {"stride": tuple(stride), "dilation": tuple(dilation), "groups": groups}
    geometry["padding"] = (top, bottom, left, right)
    expected = nchw(reference.conv2d(x, weight, bias, **geometry))
    magnitude = nchw(reference.conv2d(abs(x), abs(weight), abs(bias), **geometry))
    (found,) = ours(data, x if layout == "NHWC" else np.ascontiguousarray(nchw(x)), input_layout=layout)
    assert found.shape == expected.shape
    assert (abs(found - expected) <= sum_bound(magnitude, weight[0].size + 1)).all()


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad_is_that_of_onnxruntime(auto_pad, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 7, 10)).astype(np.float32)
    w = rng.standard_normal((3, 2, 4, 3)).astype(np.float32)
    for op, inputs, more in (
        ("Conv", {"x": x, "w": w}, {}),
        ("MaxPool", {"x": x}, {"kernel_shape": [4, 3]}),
        ("AveragePool", {"x": x}, {"kernel_shape": [4, 3]}),
    ):
        data = one_node(op, inputs, auto_pad=auto_pad, strides=[stride, stride], **more)
        np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], **close(24))


def close(length):
    """Tolerances for results of size one that are sums of so many products."""
    bound = float(sum_bound(np.float64(length), length))
    return {"rtol": bound, "atol": bound}


@pytest.mark.parametrize("seed", SEEDS)
def test_pooling_of_any_geometry(seed):
    rng = np.random.default_rng(100 + seed)
    kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
    top, bottom = (int(n) for n in rng.integers(0, kernel[0], 2))
    left, right = (int(n) for n in rng.integers(0, kernel[1], 2))
    size = kernel + rng.integers(0, 6, 2)
    x = rng.standard_normal((2, *size, 3)).astype(np.float32)
    numbers = {"kernel_shape": [int(n) for n in kernel], "strides": [int(n) for n in stride]}
    numbers["pads"] = [top, left, bottom, right]
    geometry = {"kernel_size": tuple(kernel), "stride": tuple(stride), "padding": (top, bottom, left, right)}
    given = np.ascontiguousarray(nchw(x))
    data = one_node("MaxPool", {"x": given}, **numbers)
    np.testing.assert_array_equal(ours(data, given)[0], nchw(reference.max_pool2d(x, **geometry)))
    for include in (0, 1):
        data = one_node("AveragePool", {"x": given}, count_include_pad=include, **numbers)
        expected = nchw(reference.avg_pool2d(x, count_include_pad=bool(include), **geometry))
        magnitude = nchw(reference.avg_pool2d(abs(x), count_include_pad=bool(include), **geometry))
        found = ours(data, given)[0]
        assert (abs(found - expected) <= sum_bound(magnitude, kernel.prod() + 1)).all()


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 1, 1], [2, 2, 2, 2]])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_ceil_mode_is_that_of_onnxruntime(pads, size):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 2, size, size + 1)).astype(np.float32)
    for op, more in (("MaxPool", {}), ("AveragePool", {"count_include_pad": 0})):
        data = one_node(op, {"x": x}, kernel_shape=[3, 3], strides=[2, 3], pads=pads, ceil_mode=1, **more)
        np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], **close(9))


@pytest.mark.parametrize("include", [0, 1])
def test_dilated_average_pool(include):
    x = np.random.default_rng(2).standard_normal((2, 3, 9, 8)).astype(np.float32)
    data = one_node(
        "AveragePool", {"x": x}, opset=19, kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 2, 0, 1], strides=[2, 1],
        count_include_pad=include,
    )  # fmt: skip
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], **close(6))


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 1), (3, 5), (), None])
def test_gemm(trans_a, trans_b, shape):
    rng = np.random.default_rng(3)
    a = rng.standard_normal((4, 3) if trans_a else (3, 4)).astype(np.float32)
    b = rng.standard_normal((5, 4) if trans_b else (4, 5)).astype(np.float32)
    inputs = {"a": a, "b": b}
    c = 0.0
    if shape is not None:
        inputs["c"] = c = rng.standard_normal(shape).astype(np.float32)
    for alpha, beta in ((1.0, 1.0), (0.5, 2.0)):
        data = one_node("Gemm", inputs, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)
        left, right = (a.T if trans_a else a).astype(np.float64), (b.T if trans_b else b).astype(np.float64)
        (found,) = ours(data, a)
        magnitude = alpha * abs(left) @ abs(right) + beta * np.abs(c)
        assert (abs(found - (alpha * left @ right + beta * c)) <= sum_bound(magnitude, 6)).all()


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3, 4, 5), (3, 1, 1)),
        ((2, 3, 4, 5), (5,)),
        ((2, 3, 4, 5), (1, 3, 4, 1)),
        ((2, 3, 1, 1), (2, 3, 4, 5)),
        ((2, 1, 1, 5), (2, 3, 4, 1)),
        ((2, 3), (2, 1)),
        ((3,), (2, 4, 3)),
        ((2, 3, 4, 5), ()),
        ((1, 1), (1,)),
    ],
)
def test_broadcasting_of_images_and_constants(op, a, b):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal(a).astype(np.float32), rng.standard_normal(b).astype(np.float32)
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op]
    expected = function(x.astype(np.float64), y.astype(np.float64))
    bound = elementwise_bound(abs(expected) + np.abs(x) + np.abs(y))
    for given in (1, 2):
        data = one_node(op, {"x": x, "y": y}, given=given)
        found = ours(data, *(x, y)[:given])[0]
        assert found.shape == expected.shape
        assert (abs(found - expected) <= bound).all()
    # Of images that lie channels last, and with the constant on the left.
    if len(a) == 4:
        relu = helper.make_node("GlobalAveragePool" if a[2:] == (1, 1) else "Relu", ["x"], ["r"])
        join = helper.make_node(op, ["y", "r"], ["out"])
        eye = np.eye(a[1], dtype=np.float32)[:, :, None, None]
        conv = helper.make_node("Conv", ["r", "e"], ["c"])
        join = helper.make_node(op, ["y", "c"], ["out"])
        data = model([relu, conv, join], {"x": a}, ["out"], {"y": y, "e": eye})
        expected = function(y.astype(np.float64), np.maximum(x, 0) if a[2:] != (1, 1) else x)
        assert (abs(ours(data, x)[0] - expected) <= bound * 2).all()


def test_division_by_constants():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    for divisor in (rng.uniform(1, 2, (3, 1, 1)).astype(np.float32), np.float32(0.25)):
        data = one_node("Div", {"x": x, "d": np.asarray(divisor)})
        expected = x.astype(np.float64) / divisor
        assert (abs(ours(data, x)[0] - expected) <= elementwise_bound(expected)).all()


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_images(opset, axis, op):
    x = np.random.default_rng(6).standard_normal((2, 3, 2, 4)).astype(np.float32)
    eye = np.eye(3, dtype=np.float32)[:, :, None, None]
    nodes = [helper.make_node("Conv", ["x", "e"], ["c"]), helper.make_node(op, ["c"], ["y"], axis=axis)]
    data = model(nodes, {"x": x.shape}, ["y"], {"e": eye}, opset)
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], **close(24))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 6, 4, 5), (2, 2, 3, 4, 5)),
        ((2, 6, 4, 5), (0, -1)),
        ((2, 6, 4, 5), (0, 0, -1)),
        ((2, 6, 4, 5), (12, 20)),
        ((2, 6, 4, 5), (2, 3, 8, 5)),
        ((2, 6, 1, 1), (0, -1)),
        ((1, 6, 4, 5), (6, 20)),
        ((2, 1, 4, 5), (2, 20)),
        ((2, 6, 4, 5), (2, 6, 2, 2, 5)),
        ((2, 6, 4, 5), (0, 0, 4, 1, 5)),
    ],
)
def test_reshapes_of_images(shape, wanted):
    x = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    # A maximum over single cells changes nothing and makes images that lie channels last.
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["m", "s"], ["y"]),
    ]
    data = model(nodes, {"x": shape}, ["y"], {"s": np.array(wanted)})
    sizes = [shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    np.testing.assert_array_equal(ours(data, x)[0], x.reshape(sizes))


def test_shuffled_channels_move_once():
    """The layer that ShuffleNet is named after: one transposition of channels, none of images."""
    x = np.random.default_rng(8).standard_normal((2, 6, 4, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["m", "a"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "b"], ["s"]),
        helper.make_node("MaxPool", ["s"], ["y"], kernel_shape=[1, 1]),
    ]
    data = model(nodes, {"x": x.shape}, ["y"], {"a": np.array([2, 2, 3, 4, 5]), "b": np.array([2, 6, 4, 5])})
    expected = x.reshape(2, 2, 3, 4, 5).transpose(0, 2, 1, 3, 4).reshape(x.shape)
    np.testing.assert_array_equal(ours(data, x)[0], expected)
    net = pycnn.onnx.load(data, input_layout="NHWC")
    program = pycnn.compile(net, (2, 4, 5, 6))
    moved = [step["op"] for step in program.steps() if step["op"] == "transpose"]
    assert len(moved) == 2  # of the channels, and at the output, which the file declares as (N, C, H, W)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding_in_every_mode(mode):
    x = np.random.default_rng(9).standard_normal((1, 2, 4, 5)).astype(np.float32)
    pads = [0, 0, 2, 1, 0, 0, 3, 2]
    data = one_node("Pad", {"x": x, "p": np.array(pads)}, opset=19, mode=mode)
    expected = np.pad(x, [(0, 0), (0, 0), (2, 3), (1, 2)], mode=mode)
    np.testing.assert_array_equal(ours(data, x)[0], expected)


def test_negative_pads_cut():
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    data = one_node("Pad", {"x": x, "p": np.array([0, 0, -1, 1, 0, 0, 0, -2])})
    np.testing.assert_array_equal(ours(data, x)[0], np.pad(x[:, :, 1:, :3], [(0, 0), (0, 0), (0, 0), (1, 0)]))


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1, 0], [3, -1], [2, 3], [1, 1]),
        ([0], [100], [1], [2]),
        ([-1], [-100], [3], [-2]),
        ([2], [1], [2], [1]),
        ([0, 1, 0, 0], [2, 3, 4, 5], [0, 1, 2, 3], [1, 1, 2, 3]),
    ],
)
def test_slices(starts, ends, axes, steps):
    x = np.random.default_rng(10).standard_normal((2, 3, 4, 5)).astype(np.float32)
    lists = {name: np.array(v) for name, v in zip("seat", (starts, ends, axes, steps), strict=True)}
    data = one_node("Slice", {"x": x, **lists})
    (expected,) = peer(data, x)
    if expected.size:
        np.testing.assert_array_equal(ours(data, x)[0], expected)


def test_splits_and_concats_along_channels():
    x = np.random.default_rng(11).standard_normal((2, 7, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Split", ["m", "s"], ["a", "b", "c"], axis=1),
        helper.make_node("Concat", ["c", "a", "b"], ["y"], axis=1),
    ]
    data = model(nodes, {"x": x.shape}, ["y"], {"s": np.array([1, 4, 2])})
    np.testing.assert_array_equal(ours(data, x)[0], np.concatenate([x[:, 5:], x[:, :5]], axis=1))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_divides_alpha_by_its_size(size):
    x = np.random.default_rng(12).standard_normal((2, 7, 3, 2)).astype(np.float32) * 3
    data = one_node("LRN", {"x": x}, size=size, alpha=0.5, beta=0.6, bias=1.5)
    expected = nchw(reference.local_response_norm(nhwc(x), size=size, alpha=0.5, beta=0.6, k=1.5))
    np.testing.assert_allclose(ours(data, x)[0], expected, **close(size))
    np.testing.assert_allclose(peer(data, x)[0], expected, **close(size))


def test_quantized_weights_fold_to_floats():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    q = rng.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8)
    scale, zero = rng.uniform(0.01, 0.02, 4).astype(np.float32), np.zeros(4, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
        helper.make_node("Conv", ["xd", "w"], ["y"]),
    ]
    weights = {"q": q, "s": scale, "z": zero, "sx": np.float32(0.1), "zx": np.uint8(128)}
    data = model(nodes, {"x": x.shape}, ["y"], weights)
    net = pycnn.onnx.load(data)
    assert [name for name, _ in net.named_parameters()] == ["w"]
    expected = nchw(reference.conv2d(nhwc(x), nhwc(q * scale[:, None, None, None])))
    np.testing.assert_allclose(net(x), expected, **close(18))
    other = {**weights, "sy": np.float32(0.2)}
    nodes[1] = helper.make_node("DequantizeLinear", ["xq", "sy", "zx"], ["xd"])
    with pytest.raises(pycnn.UnsupportedError, match="are not those of the QuantizeLinear"):
        pycnn.onnx.load(model(nodes, {"x": x.shape}, ["y"], other))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode):
    x = np.random.default_rng(14).standard_normal((2, 12, 3, 4)).astype(np.float32)
    data = one_node("DepthToSpace", {"x": x}, blocksize=2, mode=mode)
    np.testing.assert_array_equal(ours(data, x)[0], peer(data, x)[0])
    data = one_node("SpaceToDepth", {"x": x[:, :3, :2]}, blocksize=2)
    given = np.ascontiguousarray(x[:, :3, :2])
    np.testing.assert_array_equal(ours(data, given)[0], peer(data, given)[0])


def test_rows_are_images_of_height_one():
    rng = np.random.default_rng(15)
    x = rng.standard_normal((2, 3, 11)).astype(np.float32)
    weights = {"w": rng.standard_normal((4, 3, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[2, 1], strides=[2]),
        helper.make_node("AveragePool", ["c"], ["a"], kernel_shape=[2]),
        helper.make_node("GlobalMaxPool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    data = model(nodes, {"x": x.shape}, ["y"], weights)
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], **close(9))


def test_operators_of_opset_6():
    """Broadcasting was an attribute then, and shapes of Slice, Unsqueeze and Split as well."""
    rng = np.random.default_rng(16)
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    scale = rng.standard_normal(3).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"], broadcast=1, axis=1),
        helper.make_node("Slice", ["m"], ["c"], starts=[1], ends=[3], axes=[2]),
        helper.make_node("Split", ["c"], ["a", "b"], axis=1, split=[1, 2]),
        helper.make_node("Unsqueeze", ["b"], ["u"], axes=[0]),
        helper.make_node("Squeeze", ["u"], ["q"], axes=[0]),
        helper.make_node("Clip", ["q"], ["y"], min=0.0, max=6.0),
    ]
    found = ours(model(nodes, {"x": x.shape}, ["y"], {"s": scale}, 6), x)[0]
    np.testing.assert_allclose(found, np.clip((x * scale[:, None, None])[:, 1:, 1:3], 0, 6), **close(1))


def test_a_bias_that_is_added_joins_its_layer():
    """As files of Keras have it: Conv and Add, MatMul and Add."""
    rng = np.random.default_rng(17)
    shapes = {"w": (4, 3, 3, 3), "b": (1, 4, 1, 1), "m": (4 * 16, 5), "c": (5,)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Add", ["conv", "b"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["product"]),
        helper.make_node("Add", ["c", "product"], ["y"]),
    ]
    data = model(nodes, {"x": (2, 3, 6, 6)}, ["y"], weights)
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(ours(data, x)[0], peer(data, x)[0], rtol=1e-5, atol=1e-4)
    steps = [step["op"] for step in pycnn.compile(pycnn.onnx.load(data), x.shape).steps() if step["phase"] == "run"]
    assert steps == ["transpose", "conv2d", "transpose", "dense"]
    # A product that something else reads too is not computed twice.
    both = model(nodes, {"x": (2, 3, 6, 6)}, ["y", "product"], weights)
    steps = [step["op"] for step in pycnn.compile(pycnn.onnx.load(both), x.shape).steps() if step["phase"] == "run"]
    assert steps.count("dense") == 1
