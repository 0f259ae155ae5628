#pragma once
#include <map>
#include <vector>

#include "backends/cuda/cublaslt_library.h"
#include "backends/cuda/cudnn_graph.h"

// What stands for cuBLASLt: it multiplies matrices of float32 on the host, or leaves ones where
// times alone are wanted. Each algorithm is a number.
namespace pycnn::cuda {

struct FakeCublasLt {
  int algorithms = 2;
  bool multiplies = true;
  std::map<int, std::size_t> workspaces;  // by algorithm, of other sizes than 64
  std::map<int, double> us;               // by algorithm
  std::vector<int> multiplied;
  int objects = 0;  // that have not ended
};
FakeCublasLt& fake_cublaslt();
const cublaslt::Functions& fake_cublaslt_functions();

}  // namespace pycnn::cuda
