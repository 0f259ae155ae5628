"""Random geometries of one, two and three axes against float64 references, which read ONNX's text for themselves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_models
import pytest
import reference
import tolerances
from onnx_models import one_node, ours

import pycnn

onnx = pytest.importorskip("onnx")


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


class Geometry:
    """Windows drawn at random, and which cells of an image each sees."""

    def __init__(self, rng, axes, *, pooling):
        self.size = [int(n) for n in rng.integers(3, 9, axes)]
        self.kernel = [int(n) for n in rng.integers(1, 4, axes)]
        self.strides = [int(n) for n in rng.integers(1, 4, axes)]
        self.dilations = [int(n) for n in rng.integers(1, 4, axes)]
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        most = [min(r - 1, k - 1 if pooling else r) for r, k in zip(reach, self.kernel, strict=True)]
        self.before, self.after = ([int(rng.integers(0, n + 1)) for n in most] for _ in range(2))
        self.ceil = pooling and bool(rng.integers(2))
        self.counts = []
        for i in range(axes):
            room = self.size[i] + self.before[i] + self.after[i] - reach[i]
            count = (-(-room // self.strides[i]) if self.ceil else room // self.strides[i]) + 1
            if self.ceil and (count - 1) * self.strides[i] >= self.size[i] + self.before[i]:
                count -= 1
            self.counts.append(count)

    @property
    def fits(self):
        return min(self.counts) > 0

    @property
    def attributes(self):
        return {"strides": self.strides, "dilations": self.dilations, "pads": [*self.before, *self.after]}

    def windows(self):
        """For each place of the result the indices of its cells along each axis, from the image's first cell on."""
        for place in np.ndindex(*self.counts):
            yield (
                place,
                [
                    p * s - b + np.arange(k) * d
                    for p, s, b, k, d in zip(place, self.strides, self.before, self.kernel, self.dilations, strict=True)
                ],
            )

    def inside(self, cells):
        return [c[(c >= 0) & (c < n)] for c, n in zip(cells, self.size, strict=True)]

    def padded(self, cells):
        """How many cells lie in the image or its padding."""
        both = zip(cells, self.size, self.before, self.after, strict=True)
        return math.prod(int(((c >= -b) & (c < n + a)).sum()) for c, n, b, a in both)


def drawn(seed, axes, *, pooling):
    rng = np.random.default_rng(seed)
    while not (geometry := Geometry(rng, axes, pooling=pooling)).fits:
        pass
    return rng, geometry


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_convolutions(axes, seed):
    rng, g = drawn(seed, axes, pooling=False)
    groups, each, per_group = (int(n) for n in rng.integers(1, 4, 3))
    x, w = normal(rng, 2, groups * each, *g.size), normal(rng, groups * per_group, each, *g.kernel)
    bias = normal(rng, groups * per_group)
    found = ours(one_node("Conv", {"x": x, "w": w, "b": bias}, group=groups, **g.attributes), x)[0]
    expected, magnitude = (np.zeros((2, groups * per_group, *g.counts)) for _ in range(2))
    for place, cells in g.windows():
        inside = g.inside(cells)
        taken = [np.flatnonzero((c >= 0) & (c < n)) for c, n in zip(cells, g.size, strict=True)]
        for n, k in itertools.product(range(groups), range(per_group)):
            channels, out = slice(n * each, (n + 1) * each), n * per_group + k
            seen = x[:, channels][np.ix_(range(2), range(each), *inside)].astype(np.float64)
            products = seen * w[out][np.ix_(range(each), *taken)]
            expected[(slice(None), out, *place)] = products.reshape(2, -1).sum(1) + bias[out]
            magnitude[(slice(None), out, *place)] = np.abs(products).reshape(2, -1).sum(1) + abs(bias[out])
    bound = tolerances.sum_bound(magnitude, each * math.prod(g.kernel) + 1)
    # Winograd's filtering errs by shares of the largest result.
    bound = np.maximum(bound, tolerances.CONVOLUTION[(4, 3)] * magnitude.max())
    tolerances.assert_within(found, expected, bound)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_pooling(op, axes, seed):
    rng, g = drawn(100 + seed, axes, pooling=True)
    more, include, p = {"ceil_mode": int(g.ceil)}, bool(rng.integers(2)), int(rng.integers(1, 4))
    if op == "AveragePool":
        more["count_include_pad"] = int(include)
    if op == "LpPool":
        more["p"] = p
    x = normal(rng, 2, 3, *g.size)
    data = one_node(op, {"x": x}, opset=22, kernel_shape=g.kernel, **more, **g.attributes)
    expected = np.zeros((2, 3, *g.counts))
    empty = False
    for place, cells in g.windows():
        seen = x[np.ix_(range(2), range(3), *g.inside(cells))].astype(np.float64).reshape(2, 3, -1)
        count = g.padded(cells) if include else seen.shape[2]
        if op == "MaxPool":
            value = seen.max(axis=2, initial=-np.inf)
            empty |= seen.shape[2] == 0
        elif op == "AveragePool":
            value = seen.sum(axis=2) / max(count, 1)
            empty |= count == 0
        else:
            value = (np.abs(seen) ** p).sum(axis=2) ** (1 / p)
        expected[(slice(None), slice(None), *place)] = value
    if empty:
        with pytest.raises(pycnn.UnsupportedError, match="'it'.*no cell inside the image"):
            ours(data, x)
        return
    found = ours(data, x)[0]
    if op == "MaxPool":
        np.testing.assert_array_equal(found, expected)
    else:
        # Roots and powers, and the smallest number that lp_pool2d takes for 0.
        bound = tolerances.sum_bound(np.abs(x).max(), 8 * math.prod(g.kernel)) + (2e-10 if op == "LpPool" else 0)
        tolerances.assert_within(found, expected, bound * (8 if op == "LpPool" else 1))


@pytest.mark.parametrize("seed", range(5))
def test_transposed_convolutions_of_volumes(seed):
    rng, g = drawn(200 + seed, 3, pooling=False)
    groups, each, per_group = (int(n) for n in rng.integers(1, 3, 3))
    x, w = normal(rng, 2, groups * each, *g.size), normal(rng, groups * each, per_group, *g.kernel)
    bias, more = normal(rng, groups * per_group), [int(rng.integers(0, s)) for s in g.strides]
    pads = [min(n, 1) for n in (*g.before, *g.after)]
    numbers = g.attributes | {"pads": pads, "output_padding": more, "group": groups}
    lasts = [
        (n - 1) * s + (k - 1) * d + 1 + m - b - a
        for n, s, k, d, m, b, a in zip(g.size, g.strides, g.kernel, g.dilations, more, pads[:3], pads[3:], strict=True)
    ]
    assert min(lasts) > 0
    found = ours(one_node("ConvTranspose", {"x": x, "w": w, "b": bias}, **numbers), x)[0]
    how = {
        "stride": g.strides, "dilation": g.dilations, "output_padding": more, "groups": groups,
        "padding": [side for both in zip(pads[:3], pads[3:], strict=True) for side in both],
    }  # fmt: skip
    arrays = np.moveaxis(x, 1, -1), np.moveaxis(w, 1, -1), bias
    expected = np.moveaxis(reference.conv_transpose3d(*arrays, **how), -1, 1)
    magnitude = np.moveaxis(reference.conv_transpose3d(*map(np.abs, arrays), **how), -1, 1)
    tolerances.assert_within(found, expected, tolerances.sum_bound(magnitude, w.size))


def test_volumes_of_a_wanted_size():
    rng = np.random.default_rng(0)
    x, w = normal(rng, 1, 2, 3, 4, 2), normal(rng, 2, 3, 3, 2, 4)
    for more in ({"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [7, 8, 9]}):
        data = one_node("ConvTranspose", {"x": x, "w": w}, strides=[2, 2, 3], **more)
        expected = onnx_models.peer(data, x)[0]
        np.testing.assert_allclose(ours(data, x)[0], expected, rtol=3e-5, atol=1e-5)
    for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        w = normal(rng, 3, 2, 2, 3, 2)
        data = one_node("Conv", {"x": x, "w": w}, strides=[2, 1, 1], auto_pad=auto_pad)
        np.testing.assert_allclose(ours(data, x)[0], onnx_models.peer(data, x)[0], rtol=3e-5, atol=1e-5)
    for pool in ("GlobalAveragePool", "GlobalMaxPool"):
        data = one_node(pool, {"x": x})
        np.testing.assert_allclose(ours(data, x)[0], onnx_models.peer(data, x)[0], rtol=3e-6)


@pytest.mark.parametrize("opset", [7, 13])
def test_products_of_stacks(opset):
    rng = np.random.default_rng(0)
    for first, second in [((3, 4), (2, 4, 5)), ((3, 1, 3, 4), (1, 2, 4, 5)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,))]:
        a, b = normal(rng, *first), normal(rng, *second)
        data = one_node("MatMul", {"a": a, "b": b}, given=2, opset=opset)
        expected, magnitude = a.astype(np.float64) @ b, np.abs(a).astype(np.float64) @ np.abs(b)
        tolerances.assert_within(ours(data, a, b)[0], expected, tolerances.sum_bound(magnitude, 4))


# ---- Resizing


def places(grid, given, size, scale, region=(0.0, 1.0)):
    """Where each result lies, by the formulas of ONNX's text."""
    i, last = np.arange(size, dtype=np.float64), given - 1
    if grid == "half_pixel_symmetric":
        return given / 2 * (1 - size / (given * scale)) + (i + 0.5) / scale - 0.5
    if grid == "pytorch_half_pixel" and size == 1:
        return i * 0
    if grid == "asymmetric":
        return i / scale
    if grid == "align_corners":
        return i * last / (size - 1) if size > 1 else i * 0
    if grid == "tf_crop_and_resize":
        begin, end = region
        return begin * last + i * (end - begin) * last / (size - 1) if size > 1 else i * 0 + (begin + end) / 2 * last
    return (i + 0.5) / scale - 0.5


RESIZINGS = [
    # mode, grid, scales or sizes, further attributes
    ("cubic", "half_pixel", [1.7, 0.6], {}),
    ("cubic", "asymmetric", (5, 13), {"cubic_coeff_a": -0.5}),
    ("cubic", "align_corners", (9, 1), {}),
    ("cubic", "pytorch_half_pixel", (1, 11), {}),
    ("cubic", "half_pixel", [2.3, 0.4], {"exclude_outside": 1}),
    ("cubic", "half_pixel", [0.35, 1.9], {"antialias": 1}),
    ("cubic", "half_pixel", (2, 3), {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}),
    ("linear", "half_pixel", [0.35, 0.7], {"antialias": 1}),
    ("linear", "half_pixel", (3, 2), {"antialias": 1, "exclude_outside": 1}),
    ("linear", "half_pixel", [1.3, 0.8], {"exclude_outside": 1}),
    ("linear", "half_pixel_symmetric", [1.3, 0.7], {}),
    ("cubic", "half_pixel_symmetric", [0.75, 2.4], {}),
    ("linear", "tf_crop_and_resize", (6, 5), {"roi": (0.2, -0.3, 0.9, 1.4), "extrapolation_value": 2.5}),
    ("cubic", "tf_crop_and_resize", (4, 1), {"roi": (1.0, 0.4, 0.0, 0.7), "extrapolation_value": -1.0}),
]


@pytest.mark.parametrize(("mode", "grid", "wanted", "more"), RESIZINGS)
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_resizing(mode, grid, wanted, more, rank):
    rng = np.random.default_rng(0)
    x = normal(rng, 2, 3, *(4, 7, 6)[5 - rank :])
    more = dict(more)
    region = more.pop("roi", (0.0, 0.0, 1.0, 1.0))
    axes = (rank - 2, rank - 1) if rank > 3 else (1, 2)
    constants = {"r": np.float32(region)}
    constants |= {"s": np.float32(wanted)} if isinstance(wanted, list) else {"z": np.array(wanted)}
    names = ["x", "r", "s", ""] if isinstance(wanted, list) else ["x", "r", "", "z"]
    node = onnx_models.helper.make_node(
        "Resize", names[: 3 if isinstance(wanted, list) else 4], ["y0"], name="it", mode=mode, axes=axes,
        coordinate_transformation_mode=grid, **more,
    )  # fmt: skip
    data = onnx_models.model([node], {"x": x.shape}, ["y0"], constants, 19)
    found = ours(data, x)[0]
    expected, outside = x.astype(np.float64), np.zeros((1,) * rank, bool)
    for k, axis in enumerate(axes):
        given = x.shape[axis]
        size = math.floor(given * wanted[k]) if isinstance(wanted, list) else wanted[k]
        scale = wanted[k] if isinstance(wanted, list) else size / given
        at = places(grid, given, size, scale, (region[k], region[k + 2]))
        shares = reference.resize_matrix(
            given, size, at, mode="bicubic" if mode == "cubic" else "bilinear",
            shrunk=min(scale, 1.0) if more.get("antialias") else 1.0, cubic=more.get("cubic_coeff_a", -0.75),
            exclude_outside=bool(more.get("exclude_outside")),
        )  # fmt: skip
        expected = np.moveaxis(np.moveaxis(expected, axis, -1) @ shares.T, -1, axis)
        shape = [-1 if i == axis else 1 for i in range(rank)]
        outside = outside | ((at < -1e-6) | (at > given - 1 + 1e-6)).reshape(shape)
    if grid == "tf_crop_and_resize":
        expected = np.where(outside, more["extrapolation_value"], expected)
    assert found.shape == expected.shape
    # Scales and regions are float32 in the file.
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=1e-5)


def test_resizing_far_values_do_not_spread():
    """An infinite pixel reaches only the results around it."""
    x = np.zeros((1, 1, 1, 8), np.float32)
    x[..., 0] = np.inf
    node = onnx_models.helper.make_node("Resize", ["x", "", "s"], ["y0"], mode="cubic")
    found = ours(onnx_models.model([node], {"x": x.shape}, ["y0"], {"s": np.float32([1, 1, 1, 2])}, 13), x)[0]
    assert np.isfinite(found[..., 6:]).all()


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [(5, 9), (9, 5), (20, 11)])
def test_resizing_that_keeps_the_aspect(policy, sizes):
    x = normal(np.random.default_rng(0), 1, 2, 7, 5)
    node = onnx_models.helper.make_node(
        "Resize", ["x", "", "", "z"], ["y0"], mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy
    )
    data = onnx_models.model([node], {"x": x.shape}, ["y0"], {"z": np.array(sizes)}, 19)
    scale = (min if policy == "not_larger" else max)(sizes[0] / 7, sizes[1] / 5)
    size = [math.floor(scale * n + 0.5) for n in (7, 5)]
    expected = x.astype(np.float64)
    for k, axis in enumerate((2, 3)):
        at = places("half_pixel", x.shape[axis], size[k], scale)
        shares = reference.resize_matrix(x.shape[axis], size[k], at, mode="bilinear")
        expected = np.moveaxis(np.moveaxis(expected, axis, -1) @ shares.T, -1, axis)
    np.testing.assert_allclose(ours(data, x)[0], expected, rtol=3e-5, atol=1e-5)


# ---- Comparisons, no elements, shapes as results


def test_choosing_by_comparisons():
    rng = np.random.default_rng(0)
    x, y = normal(rng, 2, 3, 4), normal(rng, 3, 1)
    x[0, 0, 0], x[1, 2, 3] = np.nan, np.inf
    make, tensor = onnx_models.helper.make_node, onnx.TensorProto
    nodes = [
        make("Less", ["x", "y"], ["a"]),
        make("GreaterOrEqual", ["x", "zero"], ["b"]),
        make("Not", ["b"], ["c"]),
        make("Or", ["a", "c"], ["d"]),
        make("Log", ["x"], ["l"]),
        make("Where", ["d", "y", "l"], ["y0"]),
        make("Cast", ["d"], ["y1"], to=tensor.FLOAT),
    ]
    data = onnx_models.model(nodes, {"x": x.shape, "y": y.shape}, ["y0", "y1"], {"zero": np.float32(0)}, 17)
    found = ours(data, x, y)
    with np.errstate(invalid="ignore"):
        chosen = (x < y) | ~(x >= 0)
        expected = np.where(chosen, y, np.log(x))
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(found[1], chosen.astype(np.float32))


def test_truth_values_are_no_numbers():
    x = np.zeros((2, 3), np.float32)
    nodes = [onnx_models.helper.make_node("Less", ["x", "x"], ["a"])]
    nodes.append(onnx_models.helper.make_node("Add", ["a", "x"], ["y0"], name="it"))
    with pytest.raises(pycnn.UnsupportedError, match="'it' .*'a' is of truth values"):
        ours(onnx_models.model(nodes, {"x": x.shape}, ["y0"]), x)


def test_no_elements():
    x = np.zeros((2, 0, 4), np.float32)
    for op, opset, expected in [("ReduceSum", 11, 0), ("ReduceMax", 11, -np.inf), ("ReduceMin", 11, np.inf)]:
        found = ours(one_node(op, {"x": x}, opset=opset, axes=[1], keepdims=0), x)[0]
        np.testing.assert_array_equal(found, np.full((2, 4), expected, np.float32))
    with pytest.raises(pycnn.UnsupportedError, match="'it'"):
        ours(one_node("ReduceMean", {"x": x}, opset=11, axes=[1]), x)


def test_a_shape_is_a_result_of_any_number_of_images():
    nodes = [onnx_models.helper.make_node("Shape", ["x"], ["y0"], start=-3)]
    proto = onnx.load_from_string(onnx_models.model(nodes, {"x": (None, 3, 4, 5)}, ["y0"]))
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    net = pycnn.onnx.load(proto.SerializeToString())
    for count in (1, 5):
        found = net(np.zeros((count, 3, 4, 5), np.float32))
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, (3, 4, 5))


# ---- Element types of constants


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "int2", "float4_e2m1fn"])
@pytest.mark.parametrize("typed", [False, True])
def test_narrow_types_of_constants(name, typed):
    types = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(types, name))
    count = 1 << min(16 if name == "bfloat16" else 8, 11)
    if name.startswith(("int", "uint")):
        info = types.iinfo(dtype)
        array = np.arange(count).astype(np.int64) % (info.max - info.min + 1) + info.min
        array = array.astype(dtype)[:-1]  # an odd number of them
    else:
        array = np.random.default_rng(0).normal(size=count - 1).astype(np.float32).astype(dtype)
    tensor = onnx.numpy_helper.from_array(array, "c")
    if typed:
        raw = np.frombuffer(tensor.raw_data, np.uint16 if name == "bfloat16" else np.uint8)
        tensor.ClearField("raw_data")
        tensor.int32_data.extend(raw.tolist())
    nodes = [
        onnx_models.helper.make_node("Cast", ["c"], ["f"], to=onnx.TensorProto.FLOAT),
        onnx_models.helper.make_node("Add", ["x", "f"], ["y0"]),
    ]
    proto = onnx.load_from_string(onnx_models.model(nodes, {"x": array.shape}, ["y0"], {}, 23))
    proto.graph.initializer.append(tensor)
    proto.ir_version = 13
    x = np.zeros(array.shape, np.float32)
    np.testing.assert_array_equal(ours(proto.SerializeToString(), x)[0], array.astype(np.float32))
    tensor.dims[0] += 9
    broken = onnx.load_from_string(proto.SerializeToString())
    broken.graph.initializer[-1].CopyFrom(tensor)
    with pytest.raises(pycnn.FormatError, match="'c'"):
        ours(broken.SerializeToString(), x)


def test_blocks_of_weights_have_their_scales():
    rng = np.random.default_rng(0)
    array, scale = rng.integers(-8, 8, (3, 10)).astype(np.int8), rng.uniform(0.1, 1, (3, 4)).astype(np.float32)
    zero = rng.integers(-2, 2, (3, 4)).astype(np.int8)
    node = onnx_models.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1, block_size=3, name="it")
    nodes = [node, onnx_models.helper.make_node("Add", ["x", "w"], ["y0"])]
    data = onnx_models.model(nodes, {"x": (3, 10)}, ["y0"], {"q": array, "s": scale, "z": zero}, 21)
    blocks = np.arange(10) // 3
    expected = (array.astype(np.float64) - zero[:, blocks]) * scale[:, blocks]
    np.testing.assert_allclose(ours(data, np.zeros((3, 10), np.float32))[0], expected, rtol=1e-7)
    bad = onnx_models.model(nodes, {"x": (3, 10)}, ["y0"], {"q": array, "s": scale[:, :3], "z": zero}, 21)
    with pytest.raises(pycnn.ShapeError, match="'it'.*blocks of 3"):
        pycnn.onnx.load(bad)


# ---- Training


def test_a_net_of_volumes_stacks_and_choices_learns():
    rng, make = np.random.default_rng(0), onnx_models.helper.make_node
    weights = {
        "w": normal(rng, 4, 1, 2, 3, 3) * 0.5,
        "b": np.zeros(4, np.float32),
        "turned": normal(rng, 4, 2, 2, 2, 2) * 0.3,
        "m": normal(rng, 2, 4, 3) * 0.5,
        "fc": normal(rng, 24, 2) * 0.3,
    }
    constants = {
        "zero": np.float32(0),
        "scales": np.float32([1, 1, 1, 0.5, 0.5]),
        "shape": np.array([0, 2, 4, 4]),
    }
    nodes = [
        make("Conv", ["x", "w", "b"], ["a"], pads=[0, 1, 1, 1, 1, 1]),
        make("Less", ["a", "zero"], ["n"]),
        make("Tanh", ["a"], ["e"]),
        make("Where", ["n", "e", "a"], ["c"]),
        make("MaxPool", ["c"], ["p"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        make("ConvTranspose", ["p", "turned"], ["t"], strides=[2, 2, 2]),
        make("Resize", ["t", "", "scales"], ["r"], mode="cubic"),
        make("Reshape", ["r", "shape"], ["rows"]),
        make("Transpose", ["rows"], ["columns"], perm=[0, 1, 3, 2]),
        make("MatMul", ["rows", "columns"], ["s"]),
        make("MatMul", ["s", "m"], ["k"]),
        make("Flatten", ["k"], ["f"]),
        make("Gemm", ["f", "fc"], ["y0"]),
    ]
    data = onnx_models.model(nodes, {"x": (None, 1, 4, 4, 4)}, ["y0"], weights | constants, 13)
    images = normal(rng, 16, 1, 4, 4, 4)
    labels = (images.mean(axis=(1, 2, 3, 4)) > 0).astype(np.int64)
    net = pycnn.onnx.load(data)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.Adam(lr=0.01), seed=0)
    first, *_, last = [trainer.step(images, labels)["loss"] for _ in range(20)]
    assert last < 0.5 * first
    after = net.state_dict()
    assert set(before) == set(weights)
    for name in weights:
        assert not np.array_equal(before[name], after[name]), name
