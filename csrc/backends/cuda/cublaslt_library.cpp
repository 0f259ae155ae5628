#include "backends/cuda/cublaslt_library.h"

#include "backends/cuda/runtime_library.h"

namespace pycnn::cuda {
namespace {

bool find_all(void* library, cublaslt::Functions& f, std::string& problem) {
#define PYCNN_FIND(name) find_function(library, #name, f.name, problem)
  return PYCNN_FIND(cublasLtGetVersion) && PYCNN_FIND(cublasLtGetStatusString) &&
         PYCNN_FIND(cublasLtCreate) && PYCNN_FIND(cublasLtMatmulDescCreate) &&
         PYCNN_FIND(cublasLtMatmulDescDestroy) && PYCNN_FIND(cublasLtMatmulDescSetAttribute) &&
         PYCNN_FIND(cublasLtMatrixLayoutCreate) && PYCNN_FIND(cublasLtMatrixLayoutDestroy) &&
         PYCNN_FIND(cublasLtMatmulPreferenceCreate) &&
         PYCNN_FIND(cublasLtMatmulPreferenceDestroy) &&
         PYCNN_FIND(cublasLtMatmulPreferenceSetAttribute) &&
         PYCNN_FIND(cublasLtMatmulAlgoGetHeuristic) && PYCNN_FIND(cublasLtMatmul);
#undef PYCNN_FIND
}

const cublaslt::Functions* open(std::string& problem) {
  void* const library = open_library("PYCNN_CUBLASLT", "libcublasLt.so.13", problem);
  static cublaslt::Functions functions;
  return library != nullptr && find_all(library, functions, problem) ? &functions : nullptr;
}

}  // namespace

const cublaslt::Functions* load_cublaslt(std::string& problem) { return load_once(open, problem); }

}  // namespace pycnn::cuda
