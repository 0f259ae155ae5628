#pragma once
#include <string>

namespace pycnn {

// Throws ArgumentError for a variable of the environment whose name begins with PYCNN_CUDA_ and
// that there is not, or that has a value it does not know: nothing that was asked for is ignored.
void check_cuda_environment(const std::string& who);

}  // namespace pycnn
