#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

// What pycnn calls of cuBLASLt 13, found at run time. Nothing of it is linked, and no header of it
// is needed to build: the numbers below are those of cublasLt.h, whose C interface is the same in
// all of version 13 (tests/cuda/test_library_numbers.py compares them where it is installed).
namespace pycnn::cuda {

namespace cublaslt {

using Status = int;  // 0: success
using Handle = void*;
using MatmulDesc = void*;
using MatrixLayout = void*;
using Preference = void*;

enum DescAttribute : int {  // cublasLtMatmulDescAttributes_t
  kTransA = 3,
  kTransB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
};

enum PreferenceAttribute : int {  // cublasLtMatmulPreferenceAttributes_t
  kMaxWorkspaceBytes = 1,
  kReductionSchemeMask = 3,
  kMinAlignmentA = 5,
  kMinAlignmentB = 6,
  kMinAlignmentC = 7,
  kMinAlignmentD = 8,
};

enum Value : int {
  kReal32 = 0,
  kRealFloat16 = 2,
  kRealBFloat16 = 14,
  kTranspose = 1,
  kCompute32 = 68,
  kComputeFastTf32 = 77,
  kEpilogueDefault = 1,
  kEpilogueRelu = 2,
  kEpilogueBias = 4,
  kReductionComputeType = 2,
};

struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

// The functions, by the names that the library gives them.
struct Functions {
  std::size_t (*cublasLtGetVersion)() = nullptr;
  const char* (*cublasLtGetStatusString)(Status) = nullptr;
  Status (*cublasLtCreate)(Handle*) = nullptr;
  Status (*cublasLtMatmulDescCreate)(MatmulDesc*, int compute, int scale) = nullptr;
  Status (*cublasLtMatmulDescDestroy)(MatmulDesc) = nullptr;
  Status (*cublasLtMatmulDescSetAttribute)(MatmulDesc, int, const void*, std::size_t) = nullptr;
  Status (*cublasLtMatrixLayoutCreate)(MatrixLayout*, int type, std::uint64_t rows,
                                       std::uint64_t columns, std::int64_t leading) = nullptr;
  Status (*cublasLtMatrixLayoutDestroy)(MatrixLayout) = nullptr;
  Status (*cublasLtMatmulPreferenceCreate)(Preference*) = nullptr;
  Status (*cublasLtMatmulPreferenceDestroy)(Preference) = nullptr;
  Status (*cublasLtMatmulPreferenceSetAttribute)(Preference, int, const void*,
                                                 std::size_t) = nullptr;
  Status (*cublasLtMatmulAlgoGetHeuristic)(Handle, MatmulDesc, MatrixLayout a, MatrixLayout b,
                                           MatrixLayout c, MatrixLayout d, Preference, int wanted,
                                           Heuristic*, int* found) = nullptr;
  Status (*cublasLtMatmul)(Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout,
                           const void* b, MatrixLayout, const void* beta, const void* c,
                           MatrixLayout, void* d, MatrixLayout, const Algorithm*, void* workspace,
                           std::size_t workspace_bytes, void* stream) = nullptr;
};

}  // namespace cublaslt

// As load_cudnn: $PYCNN_CUBLASLT if set (a file, or "off"), else libcublasLt.so.13.
const cublaslt::Functions* load_cublaslt(std::string& problem);

}  // namespace pycnn::cuda
