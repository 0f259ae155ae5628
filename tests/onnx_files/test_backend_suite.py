"""ONNX's own tests of single operators: each passes or is refused with the clear error; none gives a wrong number.

Making the cases of three families takes a while; they run, and are compared with ONNX Runtime, where
PYCNN_ONNX_SUITE=all is set.
"""

from __future__ import annotations

import importlib
import os
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx_models
import pytest

import pycnn

TensorProto, numpy_helper = onnx_models.TensorProto, onnx_models.numpy_helper

# Files of onnx.backend.test.case.node with the operators that issue 6 lists and the nets of our days use.
FILES = [
    "abs", "add", "argmax", "batch_normalization", "cast", "celu", "clip", "concat", "constant",
    "constantofshape", "conv", "convtranspose", "depthtospace", "dequantizelinear", "div", "dropout", "elu",
    "exp", "expand", "flatten", "gather", "gelu", "gemm", "globalaveragepool", "globalmaxpool",
    "groupnormalization", "hardsigmoid", "hardswish", "identity", "instance_normalization", "leakyrelu", "log",
    "logsoftmax", "lrn", "matmul", "max", "mean", "min", "mish", "mul", "neg", "pad", "pow", "prelu",
    "quantizelinear", "reciprocal", "reducel2", "reducemax", "reducemean", "reducemin", "reducesum", "relu",
    "reshape", "resize", "selu", "shape", "sigmoid", "size", "slice", "softmax", "softplus", "softsign",
    "spacetodepth", "split", "sqrt", "squeeze", "sub", "sum", "tanh", "transpose", "unsqueeze", "upsample",
]  # fmt: skip
SLOW_FILES = ["averagepool", "maxpool", "lppool"]
ALL = os.environ.get("PYCNN_ONNX_SUITE") == "all"


@cache
def cases() -> list[Any]:
    """The suite's cases of these operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = importlib.import_module("onnx.backend.test.case.node")
        for name in FILES + (SLOW_FILES if ALL else []):
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
        return list(node._NodeTestCases)


def with_constants(model: Any, given: Any, *, floats: bool) -> tuple[bytes, list[int]]:
    """The model with lists of integers, such as shapes and axes, as constants; so have files of networks.

    Args:
        model: The case's model.
        given: Its inputs.
        floats: Also all but the first of its inputs.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    kept = []
    for index, (value, array) in enumerate(zip(model.graph.input, given, strict=True)):
        if isinstance(array, TensorProto):
            # An element type that NumPy has not, or a float16.
            copy.graph.initializer.append(array)
            copy.graph.initializer[-1].name = value.name
        elif isinstance(array, np.ndarray | np.generic) and (array.dtype != np.float32 or (floats and index > 0)):
            copy.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        else:
            kept.append(index)
    del copy.graph.input[:]
    copy.graph.input.extend(model.graph.input[index] for index in kept)
    return copy.SerializeToString(), kept


def as_array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def run(data: bytes, arrays: list[np.ndarray]) -> list[np.ndarray]:
    net = pycnn.onnx.load(data)
    result = net(*arrays)
    return list(result.values()) if isinstance(result, dict) else [result]


def outcome(case: Any) -> tuple[str, str]:
    """ "passed", "refused" or "wrong", and why."""
    try:
        for given, expected in case.data_sets:
            try:
                data, kept = with_constants(case.model, given, floats=False)
                found = run(data, [given[index] for index in kept])
            except pycnn.UnsupportedError as error:
                if "is not constant" not in str(error):
                    raise
                data, kept = with_constants(case.model, given, floats=True)
                found = run(data, [given[index] for index in kept])
            for ours, theirs in zip(found, [as_array(value) for value in expected], strict=True):
                assert ours.shape == theirs.shape
                assert ours.dtype == theirs.dtype
                np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol)
    except pycnn.UnsupportedError as error:
        text = str(error)
        assert text.startswith("onnx"), text
        return "refused", text
    except (AssertionError, pycnn.Error) as error:
        return "wrong", f"{type(error).__name__}: {error}"
    return "passed", ""


def is_right_in_onnx_runtime(case: Any) -> bool:
    """Whether ONNX Runtime gives what is expected, of the model as it is or with constants as here."""
    for constants in (None, False, True):
        try:
            for given, expected in case.data_sets:
                data, kept = case.model.SerializeToString(), list(range(len(given)))
                if constants is not None:
                    data, kept = with_constants(case.model, given, floats=constants)
                found = onnx_models.peer(data, *(as_array(given[index]) for index in kept))
                for ours, theirs in zip(found, [as_array(value) for value in expected], strict=True):
                    assert ours.shape == theirs.shape
                    assert ours.dtype == theirs.dtype
                    np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol)
        except Exception:  # noqa: S112  # whatever it is, the case is not passed this way
            continue
        return True
    return False


def test_every_case_passes_or_is_refused():
    counts = {"passed": 0, "refused": 0, "wrong": 0}
    wrong = {}
    for case in cases():
        result, why = outcome(case)
        counts[result] += 1
        if result == "wrong":
            wrong[case.name] = why
    print(counts)
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())
    assert counts["passed"] >= LEAST_PASSED


# As many as pass today: fewer is a loss.
LEAST_PASSED = 547


@pytest.mark.interop
@pytest.mark.skipif(not ALL, reason="compares all cases with ONNX Runtime: set PYCNN_ONNX_SUITE=all")
def test_at_least_as_many_cases_pass_as_in_onnx_runtime():
    pytest.importorskip("onnxruntime")
    known = cases()
    ours = sum(outcome(case)[0] == "passed" for case in known)
    theirs = sum(is_right_in_onnx_runtime(case) for case in known)
    print(f"{len(known)} cases: {ours} pass here, {theirs} in ONNX Runtime")
    assert ours >= theirs
