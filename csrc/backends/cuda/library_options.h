#pragma once
#include <cstdlib>
#include <cstring>

// What users may ask of kernels by variables of the environment, read when a program is compiled.
namespace pycnn::cuda {

struct LibraryOptions {
  bool tf32;           // $PYCNN_CUDA_TF32=1: float32 may be rounded to TF32
  bool deterministic;  // $PYCNN_CUDA_DETERMINISTIC=1: the first choice of a library, untimed
};

inline LibraryOptions library_options() {
  const auto is_on = [](const char* variable) {
    const char* const value = std::getenv(variable);
    return value != nullptr && std::strcmp(value, "1") == 0;
  };
  return {is_on("PYCNN_CUDA_TF32"), is_on("PYCNN_CUDA_DETERMINISTIC")};
}

}  // namespace pycnn::cuda
