#pragma once
#include <string>

#include "backends/device_module.h"

// The only thing that the core knows of CUDA: where the module with that backend may lie.
namespace pycnn {

// Loads the module at the first call that finds one; it stays for the life of the process. Null,
// with the reason in `problem`, when there is none or it does not fit.
//
// It is looked for as $PYCNN_CUDA_MODULE, as pycnn_cuda.so beside the library, and in a package
// pycnn_cuda beside the package pycnn.
const DeviceModule* load_cuda_module(std::string& problem);

// Whether there is a file that load_cuda_module would open.
bool has_cuda_module();

// The module as the backend of one device. Call it only once load_cuda_module has given a module,
// with an index below kMostCudaDevices.
constexpr int kMostCudaDevices = 16;
const Backend& cuda_backend(int index);

}  // namespace pycnn
