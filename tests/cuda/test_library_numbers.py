"""The numbers of cuDNN and cuBLASLt that the CUDA module repeats, beside their headers where these are installed."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

# Our enums and the names there without the prefix.
CUDNN = {
    "Type": {
        "kTypeHandle": "TYPE_HANDLE",
        "kTypeDataType": "TYPE_DATA_TYPE",
        "kTypeBoolean": "TYPE_BOOLEAN",
        "kTypeInt64": "TYPE_INT64",
        "kTypeFloat": "TYPE_FLOAT",
        "kTypePointer": "TYPE_VOID_PTR",
        "kTypeConvolutionMode": "TYPE_CONVOLUTION_MODE",
        "kTypeHeuristicMode": "TYPE_HEUR_MODE",
        "kTypeNanPropagation": "TYPE_NAN_PROPOGATION",
        "kTypeNumericalNote": "TYPE_NUMERICAL_NOTE",
        "kTypePointwiseMode": "TYPE_POINTWISE_MODE",
        "kTypeObject": "TYPE_BACKEND_DESCRIPTOR",
        "kTypeReductionOperator": "TYPE_REDUCTION_OPERATOR_TYPE",
        "kTypeBehaviorNote": "TYPE_BEHAVIOR_NOTE",
        "kTypeChar": "TYPE_CHAR",
    },
    "Kind": {
        "kPointwise": "BACKEND_POINTWISE_DESCRIPTOR",
        "kConvolution": "BACKEND_CONVOLUTION_DESCRIPTOR",
        "kEngine": "BACKEND_ENGINE_DESCRIPTOR",
        "kEngineConfig": "BACKEND_ENGINECFG_DESCRIPTOR",
        "kEngineHeuristics": "BACKEND_ENGINEHEUR_DESCRIPTOR",
        "kExecutionPlan": "BACKEND_EXECUTION_PLAN_DESCRIPTOR",
        "kConvolutionForward": "BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR",
        "kConvolutionGradWeight": "BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR",
        "kConvolutionGradInput": "BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR",
        "kPointwiseOperation": "BACKEND_OPERATION_POINTWISE_DESCRIPTOR",
        "kOperationGraph": "BACKEND_OPERATIONGRAPH_DESCRIPTOR",
        "kVariantPack": "BACKEND_VARIANT_PACK_DESCRIPTOR",
        "kTensor": "BACKEND_TENSOR_DESCRIPTOR",
        "kReduction": "BACKEND_REDUCTION_DESCRIPTOR",
        "kReductionOperation": "BACKEND_OPERATION_REDUCTION_DESCRIPTOR",
        "kDeviceProperties": "BACKEND_DEVICEPROP_DESCRIPTOR",
    },
    "Attribute": {
        "kPointwiseMode": "ATTR_POINTWISE_MODE",
        "kPointwisePrecision": "ATTR_POINTWISE_MATH_PREC",
        "kPointwiseNan": "ATTR_POINTWISE_NAN_PROPAGATION",
        "kConvolutionComputeType": "ATTR_CONVOLUTION_COMP_TYPE",
        "kConvolutionMode": "ATTR_CONVOLUTION_CONV_MODE",
        "kConvolutionDilations": "ATTR_CONVOLUTION_DILATIONS",
        "kConvolutionStrides": "ATTR_CONVOLUTION_FILTER_STRIDES",
        "kConvolutionPostPaddings": "ATTR_CONVOLUTION_POST_PADDINGS",
        "kConvolutionPrePaddings": "ATTR_CONVOLUTION_PRE_PADDINGS",
        "kConvolutionSpatialDims": "ATTR_CONVOLUTION_SPATIAL_DIMS",
        "kHeuristicsMode": "ATTR_ENGINEHEUR_MODE",
        "kHeuristicsGraph": "ATTR_ENGINEHEUR_OPERATION_GRAPH",
        "kHeuristicsResults": "ATTR_ENGINEHEUR_RESULTS",
        "kHeuristicsDeviceProperties": "ATTR_ENGINEHEUR_DEVICEPROP",
        "kConfigEngine": "ATTR_ENGINECFG_ENGINE",
        "kPlanHandle": "ATTR_EXECUTION_PLAN_HANDLE",
        "kPlanConfig": "ATTR_EXECUTION_PLAN_ENGINE_CONFIG",
        "kPlanWorkspace": "ATTR_EXECUTION_PLAN_WORKSPACE_SIZE",
        "kPlanJson": "ATTR_EXECUTION_PLAN_JSON_REPRESENTATION",
        "kPlanDeviceProperties": "ATTR_EXECUTION_PLAN_DEVICEPROP",
        "kForwardAlpha": "ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA",
        "kGradInputAlpha": "ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA",
        "kGradWeightAlpha": "ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA",
        "kPointwiseDescriptor": "ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR",
        "kPointwiseX": "ATTR_OPERATION_POINTWISE_XDESC",
        "kPointwiseB": "ATTR_OPERATION_POINTWISE_BDESC",
        "kPointwiseY": "ATTR_OPERATION_POINTWISE_YDESC",
        "kPointwiseGradX": "ATTR_OPERATION_POINTWISE_DXDESC",
        "kPointwiseGradY": "ATTR_OPERATION_POINTWISE_DYDESC",
        "kGraphHandle": "ATTR_OPERATIONGRAPH_HANDLE",
        "kGraphOperations": "ATTR_OPERATIONGRAPH_OPS",
        "kTensorAlignment": "ATTR_TENSOR_BYTE_ALIGNMENT",
        "kTensorDataType": "ATTR_TENSOR_DATA_TYPE",
        "kTensorDimensions": "ATTR_TENSOR_DIMENSIONS",
        "kTensorStrides": "ATTR_TENSOR_STRIDES",
        "kTensorId": "ATTR_TENSOR_UNIQUE_ID",
        "kTensorVirtual": "ATTR_TENSOR_IS_VIRTUAL",
        "kPackIds": "ATTR_VARIANT_PACK_UNIQUE_IDS",
        "kPackPointers": "ATTR_VARIANT_PACK_DATA_POINTERS",
        "kPackWorkspace": "ATTR_VARIANT_PACK_WORKSPACE",
        "kEngineIndex": "ATTR_ENGINE_GLOBAL_INDEX",
        "kEngineNumericalNotes": "ATTR_ENGINE_NUMERICAL_NOTE",
        "kEngineBehaviorNotes": "ATTR_ENGINE_BEHAVIOR_NOTE",
        "kDevicePropertiesJson": "ATTR_DEVICEPROP_JSON_REPRESENTATION",
        "kReductionOperator": "ATTR_REDUCTION_OPERATOR",
        "kReductionComputeType": "ATTR_REDUCTION_COMP_TYPE",
        "kReductionDeterministic": "ATTR_REDUCTION_IS_DETERMINISTIC",
        "kReductionX": "ATTR_OPERATION_REDUCTION_XDESC",
        "kReductionY": "ATTR_OPERATION_REDUCTION_YDESC",
        "kReductionDescriptor": "ATTR_OPERATION_REDUCTION_DESC",
    },
    "Value": {
        "kFloat32": "DATA_FLOAT",
        "kFloat16": "DATA_HALF",
        "kBFloat16": "DATA_BFLOAT16",
        "kBoolean": "DATA_BOOLEAN",
        "kCrossCorrelation": "CROSS_CORRELATION",
        "kAdd": "POINTWISE_ADD",
        "kMultiply": "POINTWISE_MUL",
        "kSubtract": "POINTWISE_SUB",
        "kRelu": "POINTWISE_RELU_FWD",
        "kReluGradient": "POINTWISE_RELU_BWD",
        "kReduceAdd": "REDUCE_TENSOR_ADD",
        "kPropagateNan": "PROPAGATE_NAN",
        "kHeuristicsFallback": "HEUR_MODE_FALLBACK",
        "kHeuristicsModeA": "HEUR_MODE_A",
        "kNoteTensorCore": "NUMERICAL_NOTE_TENSOR_CORE",
        "kNoteDownConvertInputs": "NUMERICAL_NOTE_DOWN_CONVERT_INPUTS",
        "kNoteReducedPrecisionReduction": "NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION",
        "kNoteFft": "NUMERICAL_NOTE_FFT",
        "kNoteNondeterministic": "NUMERICAL_NOTE_NONDETERMINISTIC",
        "kNoteWinograd": "NUMERICAL_NOTE_WINOGRAD",
        "kNoteWinogradTile4": "NUMERICAL_NOTE_WINOGRAD_TILE_4x4",
        "kNoteWinogradTile6": "NUMERICAL_NOTE_WINOGRAD_TILE_6x6",
        "kNoteWinogradTile13": "NUMERICAL_NOTE_WINOGRAD_TILE_13x13",
        "kNoteRuntimeCompilation": "BEHAVIOR_NOTE_RUNTIME_COMPILATION",
    },
}

CUBLASLT = {
    "DescAttribute": {
        "kTransA": "MATMUL_DESC_TRANSA",
        "kTransB": "MATMUL_DESC_TRANSB",
        "kEpilogue": "MATMUL_DESC_EPILOGUE",
        "kBiasPointer": "MATMUL_DESC_BIAS_POINTER",
    },
    "PreferenceAttribute": {
        "kMaxWorkspaceBytes": "MATMUL_PREF_MAX_WORKSPACE_BYTES",
        "kReductionSchemeMask": "MATMUL_PREF_REDUCTION_SCHEME_MASK",
        "kMinAlignmentA": "MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
        "kMinAlignmentB": "MATMUL_PREF_MIN_ALIGNMENT_B_BYTES",
        "kMinAlignmentC": "MATMUL_PREF_MIN_ALIGNMENT_C_BYTES",
        "kMinAlignmentD": "MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
    },
    "Value": {
        "kReal32": None,  # of the CUDA toolkit's library_types.h
        "kRealFloat16": None,
        "kRealBFloat16": None,
        "kTranspose": "OP_T",
        "kCompute32": "COMPUTE_32F",
        "kComputeFastTf32": "COMPUTE_32F_FAST_TF32",
        "kEpilogueDefault": "EPILOGUE_DEFAULT",
        "kEpilogueRelu": "EPILOGUE_RELU",
        "kEpilogueBias": "EPILOGUE_BIAS",
        "kReductionComputeType": "REDUCTION_SCHEME_COMPUTE_TYPE",
    },
}
LIBRARIES = [("cudnn", enum) for enum in CUDNN] + [("cublaslt", enum) for enum in CUBLASLT]
NAMES = {"cudnn": CUDNN, "cublaslt": CUBLASLT}
# Variable that may name the library; folder in NVIDIA's wheel; headers; prefix of the names.
WHERE = {
    "cudnn": ("PYCNN_CUDNN", "cudnn", ["cudnn_graph.h"], r"CUDNN_"),
    "cublaslt": ("PYCNN_CUBLASLT", "cu13", ["cublasLt.h", "cublas_api.h"], r"CUBLAS(?:LT)?_"),
}


def our_numbers(root: Path, library: str, enum: str) -> dict[str, int]:
    text = (root / f"csrc/backends/cuda/{library}_library.h").read_text()
    body = re.search(rf"enum {enum} : int {{(.*?)}};", text, re.DOTALL).group(1)
    return {name: int(value) for name, value in re.findall(r"(k\w+) = (\d+)", body)}


def their_numbers(library: str) -> dict[str, int] | None:
    """In NVIDIA's wheel, or beside the library that a variable names."""
    variable, folder, headers, prefix = WHERE[library]
    places = []
    if named := os.environ.get(variable):
        places.append(Path(named).parent.parent)
    if (spec := importlib.util.find_spec("nvidia")) and spec.submodule_search_locations:
        places += [Path(place) / folder for place in spec.submodule_search_locations]
    for place in places:
        paths = [place / "include" / header for header in headers]
        if all(path.is_file() for path in paths):
            text = "".join(path.read_text() for path in paths)
            found = re.findall(rf"\b{prefix}(\w+)(?: CUDNN_DEPRECATED_ENUM)?\s*=\s*(\d+)", text)
            return {name: int(value) for name, value in found}
    return None


@pytest.mark.parametrize(("library", "enum"), LIBRARIES)
def test_every_number_has_a_name_of_the_library(root, library, enum):
    assert our_numbers(root, library, enum).keys() == NAMES[library][enum].keys()


@pytest.mark.parametrize(("library", "enum"), LIBRARIES)
def test_the_numbers_are_those_of_the_library(root, library, enum):
    theirs = their_numbers(library)
    if theirs is None:
        pytest.skip(f"the headers of {library} are not installed")
    names = {ours: name for ours, name in NAMES[library][enum].items() if name}
    ours = our_numbers(root, library, enum)
    assert {name: ours[name] for name in names} == {name: theirs[names[name]] for name in names}
