#pragma once
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "backends/cuda_loader.h"

namespace pycnn::testing {

// The file of the module whose "GPUs" are the host (support/emulated_device.cpp), or of another one
// that PYCNN_CUDA_TEST_MODULE names: the same tests then run on a GPU.
inline const char* cuda_module_file() {
  const char* const named = std::getenv("PYCNN_CUDA_TEST_MODULE");
  return named != nullptr ? named : PYCNN_CUDA_EMULATED_MODULE;
}
inline bool is_emulated() { return std::getenv("PYCNN_CUDA_TEST_MODULE") == nullptr; }

inline const DeviceModule& cuda_module() {
  setenv("PYCNN_CUDA_MODULE", cuda_module_file(), 1);
  std::string problem;
  const DeviceModule* const module = load_cuda_module(problem);
  unsetenv("PYCNN_CUDA_MODULE");  // other tests count devices
  INFO(problem);
  REQUIRE(module != nullptr);
  return *module;
}

// A device that runs threads in another order, or a GPU once more.
inline int other_device() { return is_emulated() ? 1 : 0; }

}  // namespace pycnn::testing
