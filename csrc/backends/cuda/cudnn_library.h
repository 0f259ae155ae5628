#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

// What pycnn calls of cuDNN 9, its backend API, found at run time. Nothing of it is linked, and no
// header of it is needed to build: the numbers below are those of cudnn_graph.h, whose C interface
// is the same in all of version 9 (tests/cuda/test_library_numbers.py compares them where it is
// installed).
namespace pycnn::cuda {

namespace cudnn {

using Status = int;  // 0: success
using Handle = void*;
using Object = void*;  // cudnnBackendDescriptor_t

enum Type : int {  // cudnnBackendAttributeType_t
  kTypeHandle = 0,
  kTypeDataType = 1,
  kTypeBoolean = 2,
  kTypeInt64 = 3,
  kTypeFloat = 4,
  kTypePointer = 6,
  kTypeConvolutionMode = 7,
  kTypeHeuristicMode = 8,
  kTypeNanPropagation = 10,
  kTypeNumericalNote = 11,
  kTypePointwiseMode = 14,
  kTypeObject = 15,
  kTypeReductionOperator = 18,
  kTypeBehaviorNote = 19,
  kTypeChar = 24,
};

enum Kind : int {  // cudnnBackendDescriptorType_t
  kPointwise = 0,
  kConvolution = 1,
  kEngine = 2,
  kEngineConfig = 3,
  kEngineHeuristics = 4,
  kExecutionPlan = 5,
  kConvolutionForward = 10,
  kConvolutionGradWeight = 11,
  kConvolutionGradInput = 12,
  kPointwiseOperation = 13,
  kOperationGraph = 15,
  kVariantPack = 16,
  kTensor = 17,
  kReduction = 21,
  kReductionOperation = 22,
  kDeviceProperties = 38,
};

enum Attribute : int {  // cudnnBackendAttributeName_t
  kPointwiseMode = 0,
  kPointwisePrecision = 1,
  kPointwiseNan = 2,
  kConvolutionComputeType = 100,
  kConvolutionMode = 101,
  kConvolutionDilations = 102,
  kConvolutionStrides = 103,
  kConvolutionPostPaddings = 104,
  kConvolutionPrePaddings = 105,
  kConvolutionSpatialDims = 106,
  kHeuristicsMode = 200,
  kHeuristicsGraph = 201,
  kHeuristicsResults = 202,
  kHeuristicsDeviceProperties = 204,
  kConfigEngine = 300,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspace = 402,
  kPlanJson = 405,
  kPlanDeviceProperties = 407,
  kForwardAlpha = 700,  // beta, convolution, weight, input, output follow
  kGradInputAlpha = 706,
  kGradWeightAlpha = 712,
  kPointwiseDescriptor = 750,
  kPointwiseX = 751,
  kPointwiseB = 752,
  kPointwiseY = 753,
  kPointwiseGradX = 756,
  kPointwiseGradY = 757,
  kGraphHandle = 800,
  kGraphOperations = 801,
  kTensorAlignment = 900,
  kTensorDataType = 901,
  kTensorDimensions = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorVirtual = 907,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kEngineIndex = 1301,
  kEngineNumericalNotes = 1303,
  kEngineBehaviorNotes = 1305,
  kReductionOperator = 1600,
  kReductionComputeType = 1601,
  kReductionDeterministic = 1602,  // from 9.11 on
  kReductionX = 1610,
  kReductionY = 1611,
  kReductionDescriptor = 1612,
  kDevicePropertiesJson = 2702,
};

enum Value : int {
  kFloat32 = 0,
  kFloat16 = 2,
  kBFloat16 = 9,
  kBoolean = 11,  // eight a byte
  kCrossCorrelation = 1,
  kAdd = 0,
  kMultiply = 1,
  kSubtract = 9,
  kRelu = 100,
  kReluGradient = 200,
  kReduceAdd = 0,
  kPropagateNan = 1,
  kHeuristicsFallback = 2,
  kHeuristicsModeA = 3,
  kNoteTensorCore = 0,
  kNoteDownConvertInputs = 1,
  kNoteReducedPrecisionReduction = 2,
  kNoteFft = 3,
  kNoteNondeterministic = 4,
  kNoteWinograd = 5,
  kNoteWinogradTile4 = 6,
  kNoteWinogradTile6 = 7,
  kNoteWinogradTile13 = 8,
  kNoteRuntimeCompilation = 0,
};

// The functions, by the names that the library gives them.
struct Functions {
  std::size_t (*cudnnGetVersion)() = nullptr;
  std::size_t (*cudnnGetCudartVersion)() = nullptr;
  const char* (*cudnnGetErrorString)(Status) = nullptr;
  Status (*cudnnCreate)(Handle*) = nullptr;
  Status (*cudnnDestroy)(Handle) = nullptr;
  Status (*cudnnSetStream)(Handle, void* stream) = nullptr;
  Status (*cudnnBackendCreateDescriptor)(int kind, Object*) = nullptr;
  Status (*cudnnBackendDestroyDescriptor)(Object) = nullptr;
  Status (*cudnnBackendFinalize)(Object) = nullptr;
  Status (*cudnnBackendSetAttribute)(Object, int attribute, int type, std::int64_t count,
                                     const void* values) = nullptr;
  Status (*cudnnBackendGetAttribute)(Object, int attribute, int type, std::int64_t wanted,
                                     std::int64_t* count, void* values) = nullptr;
  Status (*cudnnBackendExecute)(Handle, Object plan, Object pack) = nullptr;
};

}  // namespace cudnn

// Loaded at the first call, for the life of the process: $PYCNN_CUDNN if set (a file, or "off"),
// else libcudnn.so.9 (runtime_library.h). Null, with the reason, without one of at least
// version 9.8.
const cudnn::Functions* load_cudnn(std::string& problem);

// Why no engine can be compiled at run time; empty: one can. cuDNN wants NVIDIA's compiler for
// that, libnvrtc of its own version of CUDA ($PYCNN_NVRTC, a file or "off"), and without it has
// fewer engines and tells nobody. It is loaded here, so that cuDNN finds it wherever it is.
const std::string& missing_compiler(const cudnn::Functions& functions);

}  // namespace pycnn::cuda
