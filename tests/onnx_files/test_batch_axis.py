"""The axis of images, moved and then cut, reduced or joined: as ONNX Runtime for any number of images, or refused."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
import tolerances

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import pycnn  # noqa: E402

pytestmark = pytest.mark.interop
SHAPE = (3, 4, 6)
BOUNDS = (0, 0, -20, -3, -1, 1, 2, 10, 2**31 - 1, 2**31 - 1)


class Program:
    """Random nodes, each reading the result of the one before it."""

    def __init__(self, rng, batch):
        self.rng, self.nodes, self.constants = rng, [], []
        self.batch, self.rank, self.last = batch, 4, "x"
        # The first two move axes, so that the others meet images elsewhere.
        for kinds in (_MOVES, (*_MOVES, *_WORK), _WORK, (*_MOVES, *_WORK)):
            if self.rank >= 2:
                kinds[int(rng.integers(len(kinds)))](self)

    def add(self, op, *lists, inputs=None, **attributes):
        names = []
        for numbers in lists:
            names.append(f"c{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(np.asarray(numbers, np.int64), names[-1]))
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [*(inputs or [self.last]), *names], [result], **attributes))
        self.last = result

    def axis(self):
        return int(self.rng.integers(self.rank))

    def model(self):
        result = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [None] * self.rank)
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch or "N", *SHAPE])
        graph = helper.make_graph(self.nodes, "program", [given], [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model.SerializeToString()


def _transpose(p):
    p.add("Transpose", perm=[int(n) for n in p.rng.permutation(p.rank)])


def _flatten(p):
    p.add("Flatten", axis=int(p.rng.integers(p.rank + 1)))
    p.rank = 2


def _reshape(p):
    if p.rank == 2:
        p.add("Reshape", [[0, -1, 2], [-1, 0, 3], [-1, 3, 4]][int(p.rng.integers(3))])
        p.rank = 3
    else:
        p.add("Reshape", [[0, 0, -1], [0, -1, 2], [-1, 0, 1]][int(p.rng.integers(3))])
        p.rank = 3


def _unsqueeze(p):
    p.rank += 1
    p.add("Unsqueeze", [p.axis()])


def _slice(p):
    begin, end = (int(p.rng.choice(BOUNDS)) for _ in range(2))
    p.add("Slice", [begin], [end], [p.axis()], [1])


def _turn(p):
    p.add("Slice", [-1], [-(2**31)], [p.axis()], [-1])


def _gather(p):
    p.add("Gather", [0, -1], axis=p.axis())


def _reduce(p):
    name, keep = str(p.rng.choice(["ReduceMean", "ReduceMax", "ReduceL2"])), int(p.rng.integers(2))
    p.add(name, axes=[p.axis()], keepdims=keep)
    p.rank -= 1 - keep


def _softmax(p):
    p.add("Softmax", axis=p.axis())


def _concat(p):
    p.add("Concat", inputs=[p.last, p.last], axis=p.axis())


def _pad(p):
    pads = [0] * (2 * p.rank)
    pads[int(p.rng.integers(2 * p.rank))] = 2
    p.add("Pad", pads)


def _centre(p):
    whole = p.last
    p.add("ReduceMean", axes=[p.axis()], keepdims=1)
    p.add("Sub", inputs=[whole, p.last])


def _tile(p):
    counts = [1] * p.rank
    counts[p.axis()] = 2
    p.add("Tile", counts)


_MOVES = (_transpose, _transpose, _flatten, _reshape, _unsqueeze)
_WORK = (_slice, _slice, _turn, _gather, _reduce, _softmax, _concat, _pad, _centre, _tile)


def _session(data):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _loaded(data):
    """The net; None where a node leaves nothing of one image, as it is recorded while loading."""
    try:
        return pycnn.onnx.load(data)
    except pycnn.Error as error:
        if "no elements" not in str(error) and "0 elements" not in str(error) and ", 0" not in str(error):
            raise
        return None


def _agree(found, expected, what):
    assert found.shape == expected.shape, what
    largest = max(float(np.abs(expected).max(initial=0.0)), 1.0)
    tolerances.assert_within(found, expected, tolerances.sum_bound(largest, 10**4, np.float32), what)


@pytest.mark.parametrize("seed", range(4))
def test_a_free_number_of_images_means_what_it_means_to_onnx_runtime(seed):
    rng = np.random.default_rng(seed)
    compared = 0
    for number in range(12):
        data = Program(rng, None).model()
        try:
            session = _session(data)
        except Exception:  # its own classes; a program that does not go
            continue
        net = _loaded(data)
        for batch in (1, 2, 5, 17, 32) if net is not None else ():
            x = rng.standard_normal((batch, *SHAPE)).astype(np.float32)
            try:
                expected = session.run(None, {"x": x})[0]
            except Exception:
                continue
            if expected.size:
                _agree(net(x), expected, f"program {number}, {batch} images")
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("declared", [1, 4])
def test_other_numbers_of_images_than_declared_are_as_if_given_in_turn_or_refused(declared, seed):
    rng = np.random.default_rng(100 + seed)
    compared = refused = 0
    for number in range(12):
        data = Program(rng, declared).model()
        try:
            session = _session(data)
            session.run(None, {"x": np.zeros((declared, *SHAPE), np.float32)})
        except Exception:
            continue
        net = _loaded(data)
        for batch in (declared, 2 * declared, 32) if net is not None else ():
            x = rng.standard_normal((batch, *SHAPE)).astype(np.float32)
            parts = [session.run(None, {"x": x[i : i + declared]})[0] for i in range(0, batch, declared)]
            if not parts[0].size:
                continue
            try:
                found = net(x)
            except pycnn.UnsupportedError as error:
                assert batch != declared, error  # noqa: PT017
                refused += 1
                continue
            axes = [axis for axis in range(found.ndim) if found.shape[axis] != parts[0].shape[axis]]
            assert len(axes) == (batch != declared) or not found.size
            if found.size:
                expected = np.concatenate(parts, axes[0] if axes else 0)
                _agree(found, expected if axes else parts[0], f"program {number}, {batch} images")
                compared += 1
    assert compared > 5
    assert refused > 0


def test_the_refusal_names_node_and_number():
    node = helper.make_node("Slice", ["x", "b", "e", "b"], ["y"], name="first")
    lists = {"b": [0], "e": [1]}
    data = onnx_models.model([node], {"x": (2, 3)}, {"y": (1, 3)}, {n: np.asarray(v) for n, v in lists.items()})
    net = pycnn.onnx.load(data)
    np.testing.assert_array_equal(net(np.ones((2, 3), np.float32)), np.ones((1, 3)))
    with pytest.raises(
        pycnn.UnsupportedError,
        match=r"node 'first' \(Slice, opset \d+\): it works along the axis of .* declares 2; .* 4",
    ):
        net(np.ones((4, 3), np.float32))
